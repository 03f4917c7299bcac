//! Pulls JSON from bytes, value by value, as the schema of the caller asks for it; nothing is allocated for what it skips.
//!
//! Faster than a general parser because a tree is mostly short plain strings in a known place. It accepts what Go's
//! `encoding/json` accepts, but nests no deeper than [`MAX_DEPTH`].

use std::borrow::Cow;

use super::TreeError;
use super::quote::parse_hex;

/// How deep a skipped value may nest; the stack is the limit.
const MAX_DEPTH: u32 = 100;

const STRINGS_ARE_UTF8: &str = "strings have been made UTF-8";

/// A place in JSON text.
pub(super) struct Json<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Json { text, at: 0 }
    }

    pub(super) fn error<T>(&self, expected: &'static str) -> Result<T, TreeError> {
        Err(TreeError::Syntax { offset: self.at, expected })
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Passes bytes that the caller has read from [`rest`](Self::rest).
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte.copied(),
            }
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Passes a `null`, if it stands there.
    pub(super) fn null(&mut self) -> bool {
        let found = self.peek() == Some(b'n') && self.rest().starts_with(b"null");
        self.at += if found { 4 } else { 0 };
        found
    }

    pub(super) fn end(&mut self) -> Result<(), TreeError> {
        if self.peek().is_some() { self.error("the end") } else { Ok(()) }
    }

    /// Reads an object; `member` gets each key and must read its value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        if !self.take(b'{') {
            return self.error("an object");
        }
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            if !self.take(b':') {
                return self.error("a colon");
            }
            member(self, &key)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.error("a comma or a closing brace");
            }
        }
    }

    /// Reads an array; `element` must read each of its values.
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        if !self.take(b'[') {
            return self.error("an array");
        }
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.error("a comma or a closing bracket");
            }
        }
    }

    /// Passes the opening quote of a string.
    pub(super) fn open_quote(&mut self) -> Result<(), TreeError> {
        if self.take(b'"') { Ok(()) } else { self.error("a string") }
    }

    /// Reads a string; it is UTF-8. As in Go, what is not UTF-8 in it becomes U+FFFD, byte by byte.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, TreeError> {
        self.open_quote()?;
        let rest = self.rest();
        let (len, ascii) = plain_prefix(rest);
        let plain = &rest[..len];
        if rest.get(len) == Some(&b'"') {
            self.at += len + 1;
            return Ok(if ascii || std::str::from_utf8(plain).is_ok() {
                Cow::Borrowed(plain)
            } else {
                Cow::Owned(replace_invalid(plain).into_bytes())
            });
        }
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let (len, _) = plain_prefix(rest);
            text += &replace_invalid(&rest[..len]);
            self.at += len;
            match rest.get(len) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text.into_bytes()));
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return self.error("the end of a string"),
            }
        }
    }

    /// Reads a string that is wanted as text.
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, TreeError> {
        Ok(match self.string()? {
            Cow::Borrowed(text) => Cow::Borrowed(std::str::from_utf8(text).expect(STRINGS_ARE_UTF8)),
            Cow::Owned(text) => Cow::Owned(String::from_utf8(text).expect(STRINGS_ARE_UTF8)),
        })
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, TreeError> {
        let c = match self.rest().first() {
            Some(&escape @ (b'"' | b'\\' | b'/')) => char::from(escape),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let Some(unit) = utf16_unit(self.rest()) else {
                    return self.error("four hexadecimal digits");
                };
                self.at += 5;
                if !(0xd800..0xdc00).contains(&unit) {
                    return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                let low =
                    self.rest().strip_prefix(b"\\").and_then(utf16_unit).filter(|low| (0xdc00..0xe000).contains(low));
                let Some(low) = low else {
                    return Ok(char::REPLACEMENT_CHARACTER);
                };
                self.at += 6;
                let c = char::from_u32(0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00)));
                return Ok(c.expect("a pair of surrogates is a code point"));
            }
            _ => return self.error("an escape"),
        };
        self.at += 1;
        Ok(c)
    }

    /// Reads a whole number from 0 to `max`.
    pub(super) fn number(&mut self, max: u64) -> Result<u64, TreeError> {
        const EXPECTED: &str = "a whole number in its range";
        self.peek();
        let rest = self.rest();
        let mut value = 0_u64;
        let mut digits = 0;
        while let Some(digit @ b'0'..=b'9') = rest.get(digits) {
            let Some(next) = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0'))) else {
                return self.error(EXPECTED);
            };
            value = next;
            digits += 1;
        }
        if digits == 0 || value > max || (digits > 1 && rest[0] == b'0') {
            return self.error(EXPECTED);
        }
        self.at += digits;
        Ok(value)
    }

    /// Reads any value and returns its text.
    pub(super) fn value(&mut self) -> Result<&'a [u8], TreeError> {
        self.peek();
        let start = self.at;
        self.skip(MAX_DEPTH)?;
        Ok(&self.text[start..self.at])
    }

    fn skip(&mut self, depth: u32) -> Result<(), TreeError> {
        let Some(below) = depth.checked_sub(1) else {
            return self.error("a value that is less deeply nested");
        };
        match self.peek() {
            Some(b'{') => self.object(|json, _| json.skip(below)),
            Some(b'[') => self.array(|json| json.skip(below)),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            _ => match [&b"null"[..], b"true", b"false"].iter().find(|word| self.rest().starts_with(word)) {
                Some(word) => {
                    self.at += word.len();
                    Ok(())
                }
                None => self.error("a value"),
            },
        }
    }

    fn skip_number(&mut self) -> Result<(), TreeError> {
        self.at += usize::from(self.rest().starts_with(b"-"));
        if self.rest().starts_with(b"0") {
            self.at += 1
        } else {
            self.skip_digits()?
        }
        if self.rest().starts_with(b".") {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.rest().first() {
            self.at += 1;
            self.at += usize::from(matches!(self.rest().first(), Some(b'+' | b'-')));
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), TreeError> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { self.error("a digit") } else { Ok(()) }
    }
}

/// The unit of a `uXXXX`.
fn utf16_unit(text: &[u8]) -> Option<u32> {
    parse_hex(text.strip_prefix(b"u")?.get(..4)?)
}

/// The length of what stands before the first quote, backslash or control character. Also whether that is surely ASCII: what
/// follows it in the same eight bytes is looked at too.
fn plain_prefix(text: &[u8]) -> (usize, bool) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Eight bytes at once; a borrow can only raise false alarms above a true one, so the lowest alarm is true.
    let (words, tail) = text.as_chunks::<8>();
    let mut seen = 0;
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        seen |= word;
        let equals = |byte: u8| {
            let difference = word ^ (ONES * u64::from(byte));
            difference.wrapping_sub(ONES) & !difference
        };
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let alarms = (equals(b'"') | equals(b'\\') | control) & HIGH;
        if alarms != 0 {
            return (i * 8 + alarms.trailing_zeros() as usize / 8, seen & HIGH == 0);
        }
    }
    let plain = tail.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(tail.len());
    (text.len() - tail.len() + plain, seen & HIGH == 0 && tail.is_ascii())
}

fn replace_invalid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text += chunk.valid();
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> Result<String, TreeError> {
        let mut json = Json::new(text);
        let string = json.text()?.into_owned();
        json.end()?;
        Ok(string)
    }

    fn value(text: &str) -> Result<(), TreeError> {
        let mut json = Json::new(text.as_bytes());
        json.value()?;
        json.end()
    }

    #[test]
    fn strings_are_read_as_go_reads_them() {
        assert_eq!(string(br#" "plain, and long enough for words" "#).unwrap(), "plain, and long enough for words");
        assert_eq!(string(br#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#).unwrap(), "\"\\/\u{8}\u{c}\n\r\té😀");
        assert_eq!(string(br#""\ud83d\u0041\udc00\ud83dx""#).unwrap(), "\u{fffd}A\u{fffd}\u{fffd}x");
        assert_eq!(string(b"\"a\xff\xe2\x82b\"").unwrap(), "a\u{fffd}\u{fffd}\u{fffd}b");
    }

    #[test]
    fn broken_strings_are_refused_where_they_break() {
        for (text, offset) in [
            (&b"\"abc"[..], 4),
            (b"\"a\nb\"", 2),
            (br#""\x""#, 2),
            (br#""\u12g4""#, 2),
            (br#""\u123"#, 2),
            (b"\"\\", 2),
            (b"x", 0),
        ] {
            let Err(TreeError::Syntax { offset: found, .. }) = string(text) else { panic!("{}", text.escape_ascii()) };
            assert_eq!(found, offset, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn plain_prefixes_end_at_the_first_special_byte_wherever_it_stands() {
        for special in [0, 0x1f, b'"', b'\\'] {
            for at in 0..20 {
                for around in [b'!', 0x20, 0x23, 0x5d, 0x7f, 0x80, 0xa2, 0xff] {
                    let mut text = [around; 20];
                    assert_eq!(plain_prefix(&text), (20, around < 0x80));
                    text[at] = special;
                    assert_eq!(plain_prefix(&text).0, at, "{special:#x} in {around:#x}");
                }
            }
        }
    }

    #[test]
    fn values_are_skipped_only_when_they_are_json() {
        for text in ["0", "-0", "1.5e-7", "10E+2", "true", "false", "null", "[]", "{}", "[1, [2], {\"a\":{}}]", "\"x\""]
        {
            assert_eq!(value(text), Ok(()), "{text}");
        }
        for text in
            ["", "01", "1.", ".5", "-", "1e", "+1", "nul", "[1,]", "[1 2]", "{\"a\"}", "{a:1}", "{\"a\":1,}", "[", "{"]
        {
            assert!(value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_using_up_the_stack() {
        assert_eq!(value(&("[".repeat(99) + "0" + &"]".repeat(99))), Ok(()));
        assert!(value(&"[".repeat(1_000_000)).is_err());
        assert!(value(&"{\"a\":".repeat(1_000_000)).is_err());
    }
}
