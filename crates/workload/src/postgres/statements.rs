//! A script as pg_dump and pg_dumpall write it, statement by statement.
//!
//! The invariant: what comes out is one statement of the server's language each. Commands of `psql` itself, which can run
//! programs and read files, begin with a backslash and are left out, wherever they stand: a dump may come from anybody.

use super::client::identifier;

/// The statements, without what ends them, and without comments.
pub(super) fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '-' if rest.starts_with("--") => {
                rest = &rest[line(rest)..];
                continue;
            }
            '\\' => {
                // The whole line, and what was begun: no statement has one in it outside of quotes.
                statement.clear();
                rest = &rest[line(rest)..];
                continue;
            }
            ';' => {
                found.push(std::mem::take(&mut statement).trim().to_owned());
                rest = &rest[1..];
                continue;
            }
            '\'' => quoted(rest, '\'', statement.ends_with(['E', 'e'])),
            '"' => quoted(rest, '"', false),
            _ => first.len_utf8(),
        };
        statement.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    found.retain(|statement| !statement.is_empty());
    found
}

/// How long the line is, its newline left.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// How long a quoted text is, its quotes included. A doubled quote is two texts side by side. After `E`, a backslash hides
/// what follows.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if escapes => {
                characters.next();
            }
            _ if character == quote => {
                // Of an E'..' the doubled quote must not begin a text without escapes.
                if escapes && text[at + 1..].starts_with(quote) {
                    characters.next();
                } else {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// The name at the beginning of a text, quoted, and how long it is there. It is written quoted by some programs, and only
/// where it must be by others.
pub(super) fn name(text: &str) -> (String, usize) {
    if text.starts_with('"') {
        let mut length = quoted(text, '"', false);
        while text[length..].starts_with('"') {
            length += quoted(&text[length..], '"', false);
        }
        return (text[..length].to_owned(), length);
    }
    let length = text.find([' ', ';']).unwrap_or(text.len());
    (identifier(&text[..length]), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes() {
        let script = "-- roles; of all\n\\restrict x;y\nCREATE ROLE \"a;\"\"b\";\nSET x = 'it''s; so';\n\n\
            COMMENT ON ROLE x IS E'a\\'; \\\\! ''; b\n';";
        let expected =
            ["CREATE ROLE \"a;\"\"b\"", "SET x = 'it''s; so'", "COMMENT ON ROLE x IS E'a\\'; \\\\! ''; b\n'"];
        assert_eq!(statements(script), expected);
    }

    #[test]
    fn no_command_of_psql_comes_through() {
        assert_eq!(statements("SELECT 1 \\! rm\n; \\i /etc/passwd\nSELECT 2;"), ["SELECT 2"]);
        assert_eq!(statements("SELECT 'x\\' \\! rm\n;SELECT 3"), Vec::<String>::new());
    }
}
