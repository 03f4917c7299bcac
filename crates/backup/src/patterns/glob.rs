//! The pattern of one component of a path, in the syntax of Go's `filepath.Match`, which is restic's:
//!
//! `*` any characters, `?` one character, `[a-z]` one of these, `[^a-z]` none of these, `\` takes the next one literally.
//!
//! Works on bytes: a byte that is no UTF-8 counts as one character.

/// What one component must look like.
#[derive(Debug)]
pub(super) enum Glob {
    /// These bytes and no others.
    Literal(Box<[u8]>),
    /// Fixed ends, which most components fail at once, and what is between them.
    Wild { prefix: Box<[u8]>, middle: Vec<Token>, suffix: Box<[u8]> },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    AnyCharacters,
    AnyCharacter,
    Character(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads a component.
    ///
    /// # Errors
    /// What is wrong with it, to follow the pattern in a message.
    pub(super) fn new(text: &str) -> Result<Glob, &'static str> {
        let mut tokens = tokens(text)?;
        let wild = |token: &Token| !matches!(token, Token::Character(_));
        let Some(first) = tokens.iter().position(wild) else { return Ok(Glob::Literal(literal(&tokens))) };
        let last = tokens.iter().rposition(wild).unwrap_or(first);
        let suffix = literal(&tokens[last + 1..]);
        let prefix = literal(&tokens[..first]);
        tokens.truncate(last + 1);
        Ok(Glob::Wild { prefix, middle: tokens.split_off(first), suffix })
    }

    pub(super) fn matches(&self, component: &[u8]) -> bool {
        match self {
            Glob::Literal(literal) => **literal == *component,
            Glob::Wild { prefix, middle, suffix } => {
                // An empty box points nowhere, and memcmp's masked loads take 100 ns to find that out.
                let begins = prefix.is_empty() || component.starts_with(prefix);
                let ends = suffix.is_empty() || component.ends_with(suffix);
                if !begins || !ends || component.len() < prefix.len() + suffix.len() {
                    return false;
                }
                match &**middle {
                    [Token::AnyCharacters] => true,
                    middle => tokens_match(middle, &component[prefix.len()..component.len() - suffix.len()]),
                }
            }
        }
    }
}

fn literal(tokens: &[Token]) -> Box<[u8]> {
    let character = |token: &Token| match token {
        Token::Character(character) => Some(*character),
        _ => None,
    };
    tokens.iter().filter_map(character).collect::<String>().into_bytes().into()
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let token = match character {
            '*' if tokens.last() == Some(&Token::AnyCharacters) => continue,
            '*' => Token::AnyCharacters,
            '?' => Token::AnyCharacter,
            '[' => class(&mut rest)?,
            '\\' => Token::Character(rest.next().ok_or("ends with a single backslash")?),
            other => Token::Character(other),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

const UNCLOSED: &str = "has a [ without its ] (write \\[ for the character itself)";

fn class(rest: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = match rest.next().ok_or(UNCLOSED)? {
            ']' if ranges.is_empty() => return Err("has nothing between [ and ] (write \\] for the character itself)"),
            ']' => return Ok(Token::Class { negated, ranges }),
            character => end_of_range(character, rest)?,
        };
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            let character = rest.next().ok_or(UNCLOSED)?;
            high = end_of_range(character, rest)?;
        }
        ranges.push((low, high));
    }
}

fn end_of_range(character: char, rest: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    match character {
        '\\' => rest.next().ok_or("ends with a single backslash"),
        '-' | ']' => Err("has a range between [ and ] that lacks an end (write \\- for the character itself)"),
        character => Ok(character),
    }
}

/// Whether the tokens match all of the text. Only the last `*` is ever tried again: whatever an earlier one could
/// still take, the last one can take as well.
fn tokens_match(tokens: &[Token], text: &[u8]) -> bool {
    let (mut next, mut rest) = (tokens, text);
    let mut retry: Option<(&[Token], &[u8])> = None;
    loop {
        match next.split_first() {
            Some((Token::AnyCharacters, [])) => return true,
            Some((Token::AnyCharacters, after)) => {
                let Some(from) = first_chance(after, rest) else { return false };
                retry = Some((after, from));
                (next, rest) = (after, from);
                continue;
            }
            None if rest.is_empty() => return true,
            Some((token, after)) if !rest.is_empty() => {
                let (character, width) = first_character(rest);
                if token.is(character) {
                    (next, rest) = (after, &rest[width..]);
                    continue;
                }
            }
            _ => {}
        }
        let Some((after, from)) = retry else { return false };
        if from.is_empty() {
            return false;
        }
        let Some(from) = first_chance(after, &from[first_character(from).1..]) else { return false };
        retry = Some((after, from));
        (next, rest) = (after, from);
    }
}

/// Where in the text the tokens may match at the earliest.
fn first_chance<'t>(tokens: &[Token], text: &'t [u8]) -> Option<&'t [u8]> {
    match tokens.first() {
        Some(Token::Character(character)) => {
            let first = character.encode_utf8(&mut [0; 4]).as_bytes()[0];
            text.iter().position(|byte| *byte == first).map(|at| &text[at..])
        }
        _ => Some(text),
    }
}

impl Token {
    fn is(&self, character: char) -> bool {
        match self {
            Token::AnyCharacters => false,
            Token::AnyCharacter => true,
            Token::Character(wanted) => *wanted == character,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
        }
    }
}

/// The first character and its length in bytes; a byte that is no UTF-8 is the replacement character, as in Go.
fn first_character(text: &[u8]) -> (char, usize) {
    let width = match text[0] {
        ascii @ ..0x80 => return (char::from(ascii), 1),
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => 1,
    };
    let character = text.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok()?.chars().next());
    character.map_or((char::REPLACEMENT_CHARACTER, 1), |character| (character, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, text: impl AsRef<[u8]>) -> bool {
        Glob::new(glob).expect(glob).matches(text.as_ref())
    }

    /// Taken from the tests of Go's `path/filepath`, as far as they have no separator.
    #[test]
    fn the_syntax_is_that_of_go() {
        let matching = [
            ("abc", "abc"),
            ("*", "abc"),
            ("*c", "abc"),
            ("a*", "a"),
            ("a*", "abc"),
            ("a*b*c*d*e*", "axbxcxdxe"),
            ("a*b?c*x", "abxbbxdbxebxczzx"),
            ("ab[c]", "abc"),
            ("ab[b-d]", "abc"),
            ("ab[^e-g]", "abc"),
            ("a\\*b", "a*b"),
            ("a?b", "a☺b"),
            ("a[^a]b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("[\\]a]", "]"),
            ("[\\-]", "-"),
            ("[x\\-]", "x"),
            ("[\\-x]", "-"),
            ("*x", "xxx"),
            ("", ""),
            ("*", ""),
        ];
        for (glob, text) in matching {
            assert!(matches(glob, text), "{glob} {text}");
        }
        let others = [
            ("ab[^c]", "abc"),
            ("ab[^b-d]", "abc"),
            ("ab[e-g]", "abc"),
            ("a*b?c*x", "abxbbxdbxebxczzy"),
            ("a\\*b", "ab"),
            ("a???b", "a☺b"),
            ("a[^a][^a][^a]b", "a☺b"),
            ("*[a-ζ]", "A"),
            ("[x\\-]", "z"),
            ("abc", "ab"),
            ("ab*ba", "aba"),
            ("?", ""),
        ];
        for (glob, text) in others {
            assert!(!matches(glob, text), "{glob} {text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[a\\", "[]"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_byte_that_is_no_utf_8_is_one_character() {
        assert!(matches("a?b", b"a\xffb"));
        assert!(matches("[^x]*", b"\xe2\x98"));
        assert!(matches("??", b"\xe2\x98"));
        assert!(!matches("?", b"\xe2\x98"));
        assert!(matches("*.tmp", b"\xff\xfe.tmp"));
    }

    #[test]
    fn many_stars_take_no_time() {
        let (glob, text) = ("*a".repeat(200) + "b", "a".repeat(5_000));
        assert!(!matches(&glob, text));
    }
}
