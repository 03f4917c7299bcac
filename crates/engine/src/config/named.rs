//! Tables by name: `[project.shop]`, `[project.shop.database.orders]`.

use super::keys::Kind;
use super::section::Section;
use super::value::Wrong;

impl<'t> Section<'t> {
    /// The tables of one kind, each with its name. A name that nothing can have is an issue.
    pub(crate) fn named(&self, kind: &str) -> Vec<(String, Section<'t>)> {
        let source = self.source;
        let Some((key, all)) = self.find(kind) else { return Vec::new() };
        let Kind::Named(keys) = key.kind else { unreachable!("{kind} is declared as tables by name") };
        let Some(table) = all.as_table_like() else {
            self.mistyped(key, all);
            return Vec::new();
        };
        let place = if self.name.is_empty() { kind.to_owned() } else { format!("{}.{kind}", self.name) };
        let mut sections = Vec::new();
        for (name, item) in table.iter() {
            let span = table.get_key_value(name).and_then(|(key, _)| key.span()).or_else(|| item.span());
            let span = span.unwrap_or_else(|| self.key_span(kind, all));
            // `[project]` with the keys of a project: its name was forgotten.
            if keys.iter().any(|key| key.name == name) && !item.is_table() {
                let message = format!("{name} stands in [{place}], which has no name");
                source
                    .wrong(&span, Wrong::new(message, format!("write [{place}.NAME] above it, with a name of yours")));
                continue;
            }
            if let Err(wrong) = check_name(kind, name) {
                source.wrong(&span, wrong);
            }
            let section = Section::open(source, item, keys, format!("{place}.{name}"), span);
            sections.extend(section.map(|section| (name.to_owned(), section)));
        }
        sections
    }
}

/// Whether something can have this name: it becomes a file, a tag, and a word of a command line.
///
/// # Errors
/// Why not, and what to write.
fn check_name(kind: &str, name: &str) -> Result<(), Wrong> {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let is_ok = name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.chars().all(is_fit)
        && name.len() <= 64
        && name != "latest";
    match is_ok {
        true => Ok(()),
        false => Err(Wrong::new(
            format!("{name:?} cannot be the name of a {kind}"),
            "write letters, digits, - _ . alone, at most 64, the first a letter or digit; latest means the newest",
        )),
    }
}
