//! A command line without a shell.

/// Splits a line into words as a shell does, with quotes and backslashes, but expands nothing. Nothing if a quote is not closed.
pub fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(letter),
            (_, '\\') => word.get_or_insert_default().push(letters.next()?),
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_like_a_shell_does() {
        let split = |line| split_words(line).map(|words| words.join("|"));
        assert_eq!(split("pass show backup").as_deref(), Some("pass|show|backup"));
        assert_eq!(split(r#"cat '/a b' "c\"d" e\ f ''"#).as_deref(), Some(r#"cat|/a b|c"d|e f|"#));
        assert_eq!(split("  ").as_deref(), Some(""));
        assert_eq!(split("echo 'a"), None);
        assert_eq!(split("echo \\"), None);
    }
}
