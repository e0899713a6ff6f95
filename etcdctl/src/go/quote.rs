//! Quoted strings: Go's `%q` and its inverse.

/// The string as a double-quoted Go literal. Bytes that are not UTF-8 become `\x..`.
pub(crate) fn quote(text: impl AsRef<[u8]>) -> String {
    let text = text.as_ref();
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut quoted, c);
        }
        for byte in chunk.invalid() {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted.push('"');
    quoted
}

/// A single character in Go's `%q` form for runes.
pub(crate) fn quote_char(c: char) -> String {
    let mut quoted = String::from("'");
    match c {
        '\'' => quoted.push_str("\\'"),
        '"' => quoted.push('"'),
        c => push_escaped(&mut quoted, c),
    }
    quoted.push('\'');
    quoted
}

fn push_escaped(quoted: &mut String, c: char) {
    match c {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        c if is_printable(c) => quoted.push(c),
        c if c < ' ' || c == '\x7f' => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // The standard library knows, but tells only through its own escaping. A leading letter keeps
    // it from escaping marks, which would otherwise combine with the quote.
    let mut text = String::from("a");
    text.push(c);
    text.escape_debug().eq(text.chars())
}

/// The contents of a double-quoted Go literal, quotes included in `literal`.
///
/// # Errors
///
/// `invalid syntax`, as Go's `strconv.Unquote`.
pub(crate) fn unquote(literal: &str) -> Result<Vec<u8>, String> {
    let inner = literal
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner
        .and_then(unescape)
        .ok_or_else(|| "invalid syntax".to_owned())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let mut utf8 = [0; 4];
    while let Some(c) = chars.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => {}
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
                continue;
            }
        }
        match chars.next()? {
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0c),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0b),
            '\\' => bytes.push(b'\\'),
            '"' => bytes.push(b'"'),
            'x' => bytes.push(u8::try_from(number(&mut chars, None, 2, 16)?).ok()?),
            'u' => push_code(&mut bytes, number(&mut chars, None, 4, 16)?)?,
            'U' => push_code(&mut bytes, number(&mut chars, None, 8, 16)?)?,
            first @ '0'..='7' => {
                let value = number(&mut chars, Some(first), 3, 8)?;
                bytes.push(u8::try_from(value).ok()?);
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Exactly `count` digits.
fn number(
    chars: &mut std::str::Chars<'_>,
    first: Option<char>,
    count: usize,
    base: u32,
) -> Option<u32> {
    let mut value: u32 = 0;
    for index in 0..count {
        let c = match first {
            Some(first) if index == 0 => first,
            _ => chars.next()?,
        };
        value = value.checked_mul(base)?.checked_add(c.to_digit(base)?)?;
    }
    Some(value)
}

fn push_code(bytes: &mut Vec<u8>, code: u32) -> Option<()> {
    let c = char::from_u32(code)?;
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

/// Text with every byte that is not UTF-8 replaced, as Go does when it reads character by
/// character.
pub(crate) fn lossy(text: &[u8]) -> String {
    let mut valid = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        valid.push_str(chunk.valid());
        valid.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    valid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_like_go() {
        for (text, quoted) in [
            (&b"foo"[..], r#""foo""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"\x00\x01\x7f\xff", r#""\x00\x01\x7f\xff""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            ("äß漢🦀".as_bytes(), "\"äß漢🦀\""),
            ("e\u{301}".as_bytes(), "\"e\u{301}\""),
            (
                "\u{a0}\u{ad}\u{200b}\u{feff}".as_bytes(),
                r#""\u00a0\u00ad\u200b\ufeff""#,
            ),
            ("\u{e0001}".as_bytes(), r#""\U000e0001""#),
            ("\u{fffd}".as_bytes(), "\"\u{fffd}\""),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quote_char('x'), "'x'");
        assert_eq!(quote_char('\''), r"'\''");
    }

    #[test]
    fn unquotes_like_go() {
        for (literal, text) in [
            (r#""foo""#, &b"foo"[..]),
            (r#""a\nb\"\\""#, b"a\nb\"\\"),
            (r#""\x41\101\u00e4\U0001f980""#, "AAä🦀".as_bytes()),
            (r#""\xff""#, b"\xff"),
            (r#""""#, b""),
        ] {
            assert_eq!(unquote(literal).as_deref(), Ok(text), "{literal}");
        }
        for literal in [
            r#""\q""#,
            r#""\x4""#,
            r#""\400""#,
            r#""\ud800""#,
            r#""\'""#,
            "x",
            "\"",
        ] {
            assert_eq!(
                unquote(literal),
                Err("invalid syntax".to_owned()),
                "{literal}"
            );
        }
    }

    #[test]
    fn quoting_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unquote(&quote(&all)), Ok(all));
    }
}
