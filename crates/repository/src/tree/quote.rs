//! Strings as Go writes them: `encoding/json` with its escaping for HTML, and `strconv.Quote`, in which restic wraps names
//! because JSON alone cannot hold bytes that are not UTF-8.

use super::printable::is_printable;

const HEX: &[u8; 16] = b"0123456789abcdef";

const fn plain_ascii(but: &[u8]) -> [bool; 256] {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = true;
        byte += 1;
    }
    let mut i = 0;
    while i < but.len() {
        plain[but[i] as usize] = false;
        i += 1;
    }
    plain
}

/// What stands for itself in a string.
static PLAIN_IN_STRING: [bool; 256] = plain_ascii(b"\"\\<>&");
/// What stands for itself in a name.
static PLAIN_IN_NAME: [bool; 256] = plain_ascii(b"\"\\<>&\x7f");

fn plain_prefix(bytes: &[u8], plain: &[bool; 256]) -> usize {
    bytes.iter().position(|&byte| !plain[usize::from(byte)]).unwrap_or(bytes.len())
}

fn push_hex(out: &mut Vec<u8>, value: u32, digits: u32) {
    out.extend((0..digits).rev().map(|digit| HEX[(value >> (4 * digit) & 15) as usize]));
}

/// Appends the text as JSON's string without its quotes; bytes that are not UTF-8 become `\ufffd`, one for each.
pub(super) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    let plain = plain_prefix(text, &PLAIN_IN_STRING);
    out.extend_from_slice(&text[..plain]);
    if plain == text.len() {
        return;
    }
    for chunk in text[plain..].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend([b'\\', c as u8]),
                '\u{8}' => out.extend(b"\\b"),
                '\u{c}' => out.extend(b"\\f"),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '\t' => out.extend(b"\\t"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    out.extend(b"\\u");
                    push_hex(out, u32::from(c), 4);
                }
                _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend(b"\\ufffd");
        }
    }
}

/// Appends a name: quoted by `strconv.Quote`, without its quotes, then as JSON's string, which doubles each backslash.
pub(super) fn push_name(out: &mut Vec<u8>, name: &[u8]) {
    let plain = plain_prefix(name, &PLAIN_IN_NAME);
    out.extend_from_slice(&name[..plain]);
    if plain == name.len() {
        return;
    }
    for chunk in name[plain..].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend(br#"\\\""#),
                '\\' => out.extend(br"\\\\"),
                '<' | '>' | '&' => {
                    out.extend(b"\\u");
                    push_hex(out, u32::from(c), 4);
                }
                _ if is_printable(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                '\x07' => out.extend(br"\\a"),
                '\x08' => out.extend(br"\\b"),
                '\x0c' => out.extend(br"\\f"),
                '\n' => out.extend(br"\\n"),
                '\r' => out.extend(br"\\r"),
                '\t' => out.extend(br"\\t"),
                '\x0b' => out.extend(br"\\v"),
                '\0'..='\x1f' | '\x7f' => {
                    out.extend(br"\\x");
                    push_hex(out, u32::from(c), 2);
                }
                '\u{80}'..='\u{ffff}' => {
                    out.extend(br"\\u");
                    push_hex(out, u32::from(c), 4);
                }
                _ => {
                    out.extend(br"\\U");
                    push_hex(out, u32::from(c), 8);
                }
            }
        }
        for &byte in chunk.invalid() {
            out.extend(br"\\x");
            push_hex(out, u32::from(byte), 2);
        }
    }
}

/// Undoes `strconv.Quote` of a text without its quotes, as `strconv.Unquote` does.
pub(super) fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(special) = rest.iter().position(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        name.extend_from_slice(&rest[..special]);
        let (&[backslash, escape], tail) = rest[special..].split_first_chunk()?;
        if backslash != b'\\' {
            return None;
        }
        rest = tail;
        let digits = match escape {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            b'0'..=b'7' => {
                let (&[second, third], tail) = rest.split_first_chunk()?;
                rest = tail;
                let octal =
                    std::str::from_utf8(&[escape, second, third]).ok().map(|digits| u8::from_str_radix(digits, 8));
                name.push(octal?.ok()?);
                continue;
            }
            _ => {
                name.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'\\' | b'"' => escape,
                    _ => return None,
                });
                continue;
            }
        };
        let (hex, tail) = rest.split_at_checked(digits)?;
        rest = tail;
        let value = parse_hex(hex)?;
        match escape {
            b'x' => name.push(value as u8),
            _ => name.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    name.extend_from_slice(rest);
    Some(name)
}

/// At most eight hexadecimal digits, nothing else.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn name(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push_name(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_encoding_json_does() {
        assert_eq!(string(b"a \"b\" \\ /"), r#"a \"b\" \\ /"#);
        assert_eq!(
            string(b"\0\x01\x07\x08\t\n\x0b\x0c\r\x1f\x7f"),
            "\\u0000\\u0001\\u0007\\b\\t\\n\\u000b\\f\\r\\u001f\x7f"
        );
        assert_eq!(string(b"<a href=\"&\">"), r#"\u003ca href=\"\u0026\"\u003e"#);
        assert_eq!(string("\u{2028}\u{2029}\u{2027}é😀\u{fffd}".as_bytes()), "\\u2028\\u2029\u{2027}é😀\u{fffd}");
        assert_eq!(string(b"\xff\xe2\x82x\xed\xa0\x80"), r"\ufffd\ufffd\ufffdx\ufffd\ufffd\ufffd");
    }

    #[test]
    fn names_are_quoted_and_then_escaped() {
        assert_eq!(name(b"plain name.txt"), "plain name.txt");
        assert_eq!(name(b"a\"b\\c<d"), r#"a\\\"b\\\\c\u003cd"#);
        assert_eq!(name(b"\x01\x07\x08\t\n\x0b\x0c\r\x1b\x7f"), r"\\x01\\a\\b\\t\\n\\v\\f\\r\\x1b\\x7f");
        assert_eq!(name("é漢😀\u{fffd}".as_bytes()), "é漢😀\u{fffd}");
        assert_eq!(name("\u{80}\u{a0}\u{ad}\u{2028}\u{e000}\u{3000}\u{10ffff}".as_bytes()), {
            r"\\u0080\\u00a0\\u00ad\\u2028\\ue000\\u3000\\U0010ffff"
        });
        assert_eq!(name(b"\xff\xe2\x82x\xed\xa0\x80"), r"\\xff\\xe2\\x82x\\xed\\xa0\\x80");
    }

    #[test]
    fn printable_is_what_unicode_15_prints() {
        // Assigned in Unicode 15 (U+11F00, KAWI), in 16 (U+1C89), and never (U+0378).
        assert_eq!(name("\u{11f00}\u{1c89}\u{378}".as_bytes()), "\u{11f00}\\\\u1c89\\\\u0378");
    }

    #[test]
    fn every_escape_of_go_is_read() {
        let text = r#"\a\b\f\n\r\t\v\\\"\x00\xfF\101\377\u00e9\U0001F600é"#;
        assert_eq!(
            unquote(text.as_bytes()).unwrap(),
            b"\x07\x08\x0c\n\r\t\x0b\\\"\x00\xffA\xff\xc3\xa9\xf0\x9f\x98\x80\xc3\xa9"
        );
    }

    #[test]
    fn what_go_would_not_unquote_is_refused() {
        for text in [
            "\\",
            "\"",
            "a\nb",
            r"\'",
            r"\x1",
            r"\x+1",
            r"\u123",
            r"\ud800",
            r"\U00110000",
            r"\400",
            r"\18",
            r"\+11",
            r"\q",
        ] {
            assert_eq!(unquote(text.as_bytes()), None, "{text}");
        }
    }
}
