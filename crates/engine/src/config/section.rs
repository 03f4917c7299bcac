//! Reading one table of the file: each key at most once, by its kind, and whatever does not fit is noted with its place.
//!
//! The invariant: a value is handed out only if it is what its [`Key`] says, and a key that nobody declared is an issue.
//! Whoever reads goes on with a stand-in after an issue, so that all issues are found at once.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use policy::{Count, Span};
use toml_edit::{Item, TableLike, Value};

use super::issue::{Issue, Place};
use super::keys::{Key, Kind, TOP};
use super::value::{self, Wrong};
use super::{At, Percentage, Rate};
use crate::nearest::nearest;

/// A value and the bytes of the file that it stands in.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// What all sections of a file share.
#[derive(Debug)]
pub(crate) struct Source<'t> {
    pub(crate) path: &'t Path,
    pub(crate) text: &'t str,
    /// What `~` stands for.
    pub(crate) home: Option<&'t Path>,
    pub(crate) issues: RefCell<Vec<Issue>>,
    pub(crate) warnings: RefCell<Vec<Issue>>,
}

impl Source<'_> {
    fn issue(&self, span: &Range<usize>, wrong: Wrong) -> Issue {
        Issue {
            path: self.path.to_owned(),
            place: Some(Place::of(self.text, span.start)),
            message: wrong.message,
            fix: Some(wrong.fix),
        }
    }

    /// Notes what does not fit.
    pub(crate) fn wrong(&self, span: &Range<usize>, wrong: Wrong) {
        self.issues.borrow_mut().push(self.issue(span, wrong));
    }

    /// Notes what fits, but was hardly meant.
    pub(crate) fn warn(&self, span: &Range<usize>, wrong: Wrong) {
        self.warnings.borrow_mut().push(self.issue(span, wrong));
    }
}

/// A table that is being read.
pub(crate) struct Section<'t> {
    pub(crate) source: &'t Source<'t>,
    pub(super) table: &'t dyn TableLike,
    pub(super) keys: &'static [Key],
    /// As it stands in a message: `project.shop`, `plan.nightly.backup`. Empty for the whole file.
    pub(super) name: String,
    /// Where it is named.
    pub(crate) span: Range<usize>,
}

impl<'t> Section<'t> {
    /// Opens a table, and notes the keys it should not have.
    pub(crate) fn open(
        source: &'t Source<'t>,
        item: &'t Item,
        keys: &'static [Key],
        name: String,
        span: Range<usize>,
    ) -> Option<Self> {
        let Some(table) = item.as_table_like() else {
            let fix = format!("write [{name}] and its keys below it");
            source.wrong(&span, Wrong::new(format!("{name} is {}, and should be a table", kind_of(item)), fix));
            return None;
        };
        let section = Section { source, table, keys, name, span };
        for (name, item) in table.iter() {
            if !keys.iter().any(|key| key.name == name) {
                section.unknown(name, item);
            }
        }
        Some(section)
    }

    fn unknown(&self, name: &str, item: &Item) {
        let span = self.key_span(name, item);
        let known = || self.keys.iter().map(|key| key.name);
        // Somebody who types a password here should not see it in a message, too.
        if name == "password" && known().any(|known| known == "password-file") {
            let fix = "write it into a file that only its owner reads (mode 0600), and password-file = \"/that/file\"";
            return self.source.wrong(&span, Wrong::new("a password does not belong into this file", fix));
        }
        let fix = match (nearest(name, known()), home_of(name)) {
            (Some(near), _) => format!("write {near}"),
            (None, Some(table)) if !self.name.starts_with(table) => format!("it belongs to [{table}.NAME]"),
            _ => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
        };
        let whole = if self.name.is_empty() { "the file" } else { &self.name };
        self.source.wrong(&span, Wrong::new(format!("{whole} has no key \"{name}\""), fix));
    }

    pub(super) fn key_span(&self, name: &str, item: &Item) -> Range<usize> {
        let key = self.table.get_key_value(name).and_then(|(key, _)| key.span());
        key.or_else(|| item.span()).unwrap_or_else(|| self.span.clone())
    }

    /// A table in this one.
    pub(crate) fn table(&self, name: &str) -> Option<Section<'t>> {
        let (key, item) = self.find(name)?;
        let Kind::Table(keys) = key.kind else { unreachable!("{name} is declared as a table") };
        let span = self.key_span(name, item);
        match item.is_table_like() {
            true if self.name.is_empty() => Section::open(self.source, item, keys, name.to_owned(), span),
            true => Section::open(self.source, item, keys, format!("{}.{name}", self.name), span),
            false => {
                self.mistyped(key, item);
                None
            }
        }
    }

    /// Whether the key is there, whatever it says.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether the key is a list without anything in it.
    pub(crate) fn has_empty_list(&self, name: &str) -> bool {
        let array = self.table.get(name).and_then(Item::as_array);
        array.is_some_and(toml_edit::Array::is_empty)
    }

    /// Where a key stands; where the table is named if it does not.
    pub(crate) fn span_of(&self, name: &str) -> Range<usize> {
        self.table.get(name).map_or_else(|| self.span.clone(), |item| self.key_span(name, item))
    }

    fn key(&self, name: &str) -> &'static Key {
        self.keys.iter().find(|key| key.name == name).unwrap_or_else(|| unreachable!("{name} is not declared"))
    }

    pub(super) fn find(&self, name: &str) -> Option<(&'static Key, &'t Item)> {
        let key = self.key(name);
        let item = self.table.get(name);
        if item.is_none() && key.is_required {
            self.missing(key);
        }
        item.map(|item| (key, item))
    }

    fn missing(&self, key: &Key) {
        let message = format!("{} has no {}", self.name, key.name);
        self.source.wrong(&self.span, Wrong::new(message, format!("add {} = {}", key.name, key.example)));
    }

    pub(super) fn mistyped(&self, key: &Key, item: &Item) {
        let message = format!("{} is {}, and should be {}", key.name, kind_of(item), key.kind.words());
        let span = item.span().unwrap_or_else(|| self.key_span(key.name, item));
        let fix = match key.kind {
            Kind::Named(_) => format!("write {} and its keys below it", key.example),
            _ => format!("such as {} = {}", key.name, key.example),
        };
        self.source.wrong(&span, Wrong::new(message, fix));
    }

    /// The value of a key, if there is one and it is what it should be.
    fn read<T>(&self, name: &str, of_kind: impl Fn(&'t Value) -> Option<T>) -> Option<Spanned<T>> {
        let (key, item) = self.find(name)?;
        match item.as_value().and_then(of_kind) {
            Some(value) => Some(Spanned { value, span: item.span().unwrap_or_else(|| self.key_span(name, item)) }),
            None => {
                self.mistyped(key, item);
                None
            }
        }
    }

    /// As [`Section::read`], of a text that has a form of its own.
    fn formed<T>(&self, name: &str, form: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let text = self.read(name, Value::as_str)?;
        match form(text.value) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.source.wrong(&text.span, with_key(name, wrong));
                None
            }
        }
    }

    /// A text; an empty one says nothing, and is an issue.
    pub(crate) fn text(&self, name: &str) -> Option<Spanned<String>> {
        let text = self.read(name, Value::as_str)?;
        if text.value.trim().is_empty() {
            let fix = format!("write {name} = {}, or leave it out", self.key(name).example);
            self.source.wrong(&text.span, Wrong::new(format!("{name} is empty"), fix));
            return None;
        }
        Some(Spanned { value: text.value.to_owned(), span: text.span })
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        debug_assert_eq!(self.key(name).default, default.to_string());
        self.read(name, Value::as_bool).map_or(default, |flag| flag.value)
    }

    pub(crate) fn count(&self, name: &str, default: u32) -> u32 {
        debug_assert_eq!(self.key(name).default, default.to_string());
        let Kind::Count(least) = self.key(name).kind else { unreachable!("{name} is declared as a number") };
        let Some(number) = self.read(name, Value::as_integer) else { return default };
        match u32::try_from(number.value) {
            Ok(count) if count >= least => count,
            _ => {
                let fix = format!("write a number from {least} on");
                self.source.wrong(&number.span, Wrong::new(format!("{name} cannot be {}", number.value), fix));
                default
            }
        }
    }

    pub(crate) fn keep_count(&self, name: &str) -> Option<Count> {
        enum Given<'a> {
            Number(i64),
            Text(&'a str),
        }
        let given =
            self.read(name, |value| value.as_integer().map(Given::Number).or_else(|| value.as_str().map(Given::Text)))?;
        let count = match given.value {
            Given::Number(number) => u32::try_from(number).ok().map(Count::AtMost),
            Given::Text(text) => text.parse::<Count>().ok().filter(|count| *count == Count::All),
        };
        if count.is_none() {
            let shown = match given.value {
                Given::Number(number) => number.to_string(),
                Given::Text(text) => format!("{text:?}"),
            };
            let fix = "write a number without quotes, or \"all\"";
            self.source.wrong(&given.span, Wrong::new(format!("{name} cannot be {shown}"), fix));
        }
        count
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.formed(name, value::duration)
    }

    pub(crate) fn rate(&self, name: &str) -> Option<Rate> {
        self.formed(name, value::rate)
    }

    pub(crate) fn percentage(&self, name: &str) -> Option<Percentage> {
        self.formed(name, value::percentage)
    }

    pub(crate) fn span(&self, name: &str) -> Option<Span> {
        const FIX: &str = "write numbers and h, d, m or y (hours, days, months, years), such as 36h, 14d or 1y6m";
        self.formed(name, |text| text.parse().map_err(|error: policy::SpanError| Wrong::new(error.to_string(), FIX)))
    }

    /// The texts of a list. With `or_one`, a single text is a list of one.
    fn list(&self, name: &str, or_one: bool) -> Vec<Spanned<String>> {
        let Some((key, item)) = self.find(name) else { return Vec::new() };
        let values: Vec<&Value> = match item.as_value() {
            Some(Value::Array(array)) => array.iter().collect(),
            Some(value) if or_one && value.is_str() => vec![value],
            _ => {
                self.mistyped(key, item);
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            let span = value.span().unwrap_or_else(|| self.key_span(name, item));
            match value.as_str() {
                Some(text) if !text.trim().is_empty() => texts.push(Spanned { value: text.to_owned(), span }),
                Some(_) => {
                    let message = format!("{name} has an empty text");
                    self.source.wrong(&span, Wrong::new(message, "leave it out"));
                }
                None => {
                    let message = format!("{name} has {} in it, and should have texts", kind_of_value(value));
                    self.source.wrong(&span, Wrong::new(message, format!("such as {name} = {}", key.example)));
                }
            }
        }
        if texts.is_empty() && key.is_required {
            self.missing(key);
        }
        texts
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<Spanned<String>> {
        let texts = self.list(name, false);
        for (number, text) in texts.iter().enumerate() {
            if texts[..number].iter().any(|other| other.value == text.value) {
                let message = format!("{name} has {:?} twice", text.value);
                self.source.wrong(&text.span, Wrong::new(message, "leave one of them out"));
            }
        }
        texts
    }

    pub(crate) fn commands(&self, name: &str) -> Vec<String> {
        self.list(name, true).into_iter().map(|text| text.value).collect()
    }

    /// Times of day, in their order.
    pub(crate) fn times(&self, name: &str) -> Vec<At> {
        let mut times = Vec::new();
        for text in self.list(name, true) {
            match value::at(&text.value) {
                Ok(at) => times.push(at),
                Err(wrong) => self.source.wrong(&text.span, with_key(name, wrong)),
            }
        }
        times
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let text = self.text(name)?;
        self.checked_path(name, &text).map(|path| path.value)
    }

    pub(crate) fn paths(&self, name: &str) -> Vec<Spanned<PathBuf>> {
        self.list(name, false).iter().filter_map(|text| self.checked_path(name, text)).collect()
    }

    fn checked_path(&self, name: &str, text: &Spanned<String>) -> Option<Spanned<PathBuf>> {
        match absolute(&text.value, self.source.home) {
            Ok(value) => Some(Spanned { value, span: text.span.clone() }),
            Err(wrong) => {
                self.source.wrong(&text.span, with_key(name, wrong));
                None
            }
        }
    }
}

/// A path as it is compared: absolute, without `.`, and no slash at the end.
pub(crate) fn absolute(text: &str, home: Option<&Path>) -> Result<PathBuf, Wrong> {
    let path = match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        (Some(_), _) => {
            return Err(Wrong::new(format!("{text:?}: it is not known whose home is meant"), "write the whole path"));
        }
        _ => PathBuf::from(text),
    };
    if !path.is_absolute() {
        let fix = format!("write the whole path, such as \"/srv/{}\"", text.trim_start_matches("./"));
        return Err(Wrong::new(format!("{text:?} does not begin with /"), fix));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Wrong::new(format!("{text:?} has .. in it"), "write the path that it leads to"));
    }
    Ok(path.components().collect())
}

/// With the key before the message, as one value looks like another.
fn with_key(name: &str, wrong: Wrong) -> Wrong {
    Wrong { message: format!("{name}: {}", wrong.message), ..wrong }
}

/// The table at the top in which a key stands.
fn home_of(name: &str) -> Option<&'static str> {
    let has = |keys: &[Key]| keys.iter().any(|key| key.name == name);
    TOP.iter().find(|top| matches!(top.kind, Kind::Named(keys) if has(keys))).map(|top| top.name)
}

fn kind_of(item: &Item) -> &'static str {
    match item {
        Item::Value(value) => kind_of_value(value),
        Item::ArrayOfTables(_) => "a list of tables",
        _ => "a table",
    }
}

fn kind_of_value(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a time without quotes",
        Value::Array(_) => "a list",
        Value::InlineTable(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_has_one_form() {
        let read = |text| absolute(text, Some(Path::new("/home/me"))).ok();
        assert_eq!(read("/srv/./shop//"), Some("/srv/shop".into()));
        assert_eq!(read("/srv/shop/").unwrap().as_os_str(), "/srv/shop");
        assert_eq!(read("~"), Some("/home/me".into()));
        assert_eq!(read("~/www/").unwrap().as_os_str(), "/home/me/www");
        for text in ["srv/shop", "./x", "/srv/../etc", "~other/x", ""] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert!(absolute("~/www", None).is_err());
    }
}
