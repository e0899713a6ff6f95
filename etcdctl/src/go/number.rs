//! Numbers and booleans as Go's `strconv` reads them, errors included.

use super::quote::quote;

/// Reads a signed 64-bit number. Base 0 takes the base from the prefix (`0x`, `0o`, `0b`, `0`) and
/// allows underscores between digits.
///
/// # Errors
///
/// The text of Go's `strconv.ParseInt`.
pub(crate) fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let fail = |reason: &str| {
        format!(
            "strconv.ParseInt: parsing {}: {reason}",
            quote(text.as_bytes())
        )
    };
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = match base {
        0 => detect_base(digits).ok_or_else(|| fail("invalid syntax"))?,
        base => (base, digits.to_owned()),
    };
    if digits.is_empty() {
        return Err(fail("invalid syntax"));
    }
    let mut magnitude: i128 = 0;
    for c in digits.chars() {
        let digit = c.to_digit(base).ok_or_else(|| fail("invalid syntax"))?;
        // Beyond the range the rest is still checked for syntax.
        magnitude = (magnitude * i128::from(base) + i128::from(digit)).min(1 << 65);
    }
    let value = if negative { -magnitude } else { magnitude };
    i64::try_from(value).map_err(|_| fail("value out of range"))
}

/// Reads an unsigned 64-bit number; bases as for [`parse_int`].
///
/// # Errors
///
/// The text of Go's `strconv.ParseUint`.
pub(crate) fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    let fail = |reason: &str| {
        let text = quote(text.as_bytes());
        format!("strconv.ParseUint: parsing {text}: {reason}")
    };
    let (base, digits) = match base {
        0 => detect_base(text).ok_or_else(|| fail("invalid syntax"))?,
        base => (base, text.to_owned()),
    };
    if digits.is_empty() {
        return Err(fail("invalid syntax"));
    }
    let mut value: u128 = 0;
    for c in digits.chars() {
        let digit = c.to_digit(base).ok_or_else(|| fail("invalid syntax"))?;
        // Beyond the range the rest is still checked for syntax.
        value = (value * u128::from(base) + u128::from(digit)).min(1 << 65);
    }
    u64::try_from(value).map_err(|_| fail("value out of range"))
}

/// The base that a literal's prefix names, and its digits without prefix and underscores.
fn detect_base(text: &str) -> Option<(u32, String)> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    // An underscore stands between digits, or between prefix and digits.
    let prefixed = digits.len() < lower.len();
    let misplaced =
        digits.contains("__") || digits.ends_with('_') || (digits.starts_with('_') && !prefixed);
    (!misplaced).then(|| (base, digits.replace('_', "")))
}

/// Reads a boolean.
///
/// # Errors
///
/// The text of Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {}: invalid syntax",
            quote(text.as_bytes())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_integers() {
        assert_eq!(
            parse_uint("8e9e05c52164694d", 16),
            Ok(0x8e9e_05c5_2164_694d)
        );
        let error = |text: &str| parse_uint(text, 16).expect_err("refused");
        assert_eq!(
            error("x"),
            "strconv.ParseUint: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            error("-1"),
            "strconv.ParseUint: parsing \"-1\": invalid syntax"
        );
        assert_eq!(error(""), "strconv.ParseUint: parsing \"\": invalid syntax");
        assert_eq!(
            error("10000000000000000"),
            "strconv.ParseUint: parsing \"10000000000000000\": value out of range"
        );
    }

    #[test]
    fn integers_in_every_base() {
        for (text, base, value) in [
            ("10", 10, 10),
            ("-7", 10, -7),
            ("+7", 10, 7),
            ("ff", 16, 255),
            ("694d805f81776920", 16, 0x694d_805f_8177_6920),
            ("0x10", 0, 16),
            ("0b11", 0, 3),
            ("010", 0, 8),
            ("1_000", 0, 1000),
            ("0", 0, 0),
            ("-9223372036854775808", 10, i64::MIN),
        ] {
            assert_eq!(parse_int(text, base), Ok(value), "{text}");
        }
    }

    #[test]
    fn integer_errors_are_gos() {
        for (text, base, reason) in [
            ("x", 10, "invalid syntax"),
            ("", 10, "invalid syntax"),
            ("-", 10, "invalid syntax"),
            ("1_0", 10, "invalid syntax"),
            ("1__0", 0, "invalid syntax"),
            ("0x", 0, "invalid syntax"),
            ("9223372036854775808", 10, "value out of range"),
            (
                "99999999999999999999999999999999999999999",
                10,
                "value out of range",
            ),
        ] {
            let expected = format!("strconv.ParseInt: parsing \"{text}\": {reason}");
            assert_eq!(parse_int(text, base), Err(expected));
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("0"), Ok(false));
        assert_eq!(
            parse_bool("yes"),
            Err("strconv.ParseBool: parsing \"yes\": invalid syntax".to_owned())
        );
    }
}
