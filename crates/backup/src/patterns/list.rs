//! Files with a pattern on each line.

use crate::patterns::PatternError;

/// The patterns of a file, as restic reads it: blanks around a line do not count, nor do empty lines and those that
/// begin with `#`. `$NAME` and `${NAME}` stand for the value that `variable` gives, `$$` for a dollar sign.
///
/// # Errors
/// A variable that is not set: restic takes it for empty, and `$CACHE/` would become `/`, which is everything.
pub fn patterns_in_file(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, PatternError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| expand(line, &variable)).collect()
}

fn expand(line: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, PatternError> {
    let refused = |reason: String| PatternError { pattern: line.to_owned(), reason };
    let mut expanded = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or_else(|| refused("has a ${ without its }".to_owned()))?,
            None => {
                let is_other = |character: char| !character.is_ascii_alphanumeric() && character != '_';
                after.split_at(after.find(is_other).unwrap_or(after.len()))
            }
        };
        if name.is_empty() {
            // As in Go: a dollar sign without a name is one.
            expanded.push('$');
        } else {
            let unset = || format!("uses the variable {name}, which is not set (write $$ for a dollar sign)");
            expanded.push_str(&variable(name).ok_or_else(|| refused(unset()))?);
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, PatternError> {
        patterns_in_file(text, |name| (name == "HOME").then(|| "/home/bob".to_owned()))
    }

    #[test]
    fn comments_and_blanks_are_left_out() {
        let text = "\u{feff}# go files\r\n*.go\r\n\n  \t\n   foo bar star.txt  \n!keep #1\n";
        assert_eq!(read(text).expect("valid"), ["*.go", "foo bar star.txt", "!keep #1"]);
    }

    #[test]
    fn variables_are_replaced() {
        let text = "$HOME/*\n!${HOME}x\n$$HOME\n*.a$\na$/b";
        assert_eq!(read(text).expect("valid"), ["/home/bob/*", "!/home/bobx", "$HOME", "*.a$", "a$/b"]);
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let error = read("a\n$CACHE/").expect_err("not set").to_string();
        assert!(error.contains("$CACHE/") && error.contains("variable CACHE, which is not set"), "{error}");
        assert!(read("${HOME").is_err());
    }
}
