//! Formatted input: the three verbs of Go's `fmt.Sscanf` that the transaction syntax uses.

use super::quote::unquote;

/// A position in a line of input.
pub(crate) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(input: &'a str) -> Self {
        Scanner { rest: input }
    }

    /// A literal of the format, which must be next.
    pub(crate) fn literal(&mut self, c: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(c)?;
        Some(())
    }

    /// A space of the format: matches one or more spaces, or the end of the input.
    pub(crate) fn space(&mut self) -> Option<()> {
        let trimmed = self.rest.trim_start_matches(is_space);
        let matched = trimmed.len() < self.rest.len() || self.rest.is_empty();
        self.rest = trimmed;
        matched.then_some(())
    }

    /// `%s`: the next run of characters without space.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start_matches(is_space);
        let end = text.find(is_space).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// `%q`: the contents of the next double- or back-quoted string.
    ///
    /// # Errors
    ///
    /// The text of Go's scanner.
    pub(crate) fn quoted(&mut self) -> Result<Vec<u8>, String> {
        let text = self.rest.trim_start_matches(is_space);
        if let Some(raw) = text.strip_prefix('`') {
            let (contents, rest) = raw.split_once('`').ok_or("unexpected EOF")?;
            self.rest = rest;
            return Ok(contents.as_bytes().to_vec());
        }
        let body = text.strip_prefix('"').ok_or(match text.is_empty() {
            true => "unexpected EOF",
            false => "expected quoted string",
        })?;
        let mut escaped = false;
        let close = body
            .find(|c: char| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            })
            .ok_or("unexpected EOF")?;
        // The quotes and what they close are one byte each.
        let (literal, rest) = text.split_at(close + 2);
        self.rest = rest;
        unquote(literal)
    }
}

fn is_space(c: char) -> bool {
    c.is_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_quoted_strings_and_words() {
        let mut scanner = Scanner::new(r#" "a\"b")  >=  `c\` rest"#);
        assert_eq!(scanner.quoted().as_deref(), Ok(&b"a\"b"[..]));
        assert_eq!(scanner.literal(')'), Some(()));
        assert_eq!(scanner.space(), Some(()));
        assert_eq!(scanner.word(), Some(">="));
        assert_eq!(scanner.space(), Some(()));
        assert_eq!(scanner.quoted().as_deref(), Ok(&b"c\\"[..]));
    }

    #[test]
    fn a_space_needs_a_space() {
        assert_eq!(Scanner::new("x").space(), None);
        assert_eq!(Scanner::new("").space(), Some(()));
    }

    #[test]
    fn unterminated_and_unquoted_strings_fail() {
        assert_eq!(Scanner::new("\"a").quoted(), Err("unexpected EOF".into()));
        assert_eq!(Scanner::new("`a").quoted(), Err("unexpected EOF".into()));
        assert_eq!(
            Scanner::new("a").quoted(),
            Err("expected quoted string".into())
        );
        assert_eq!(Scanner::new("").quoted(), Err("unexpected EOF".into()));
    }
}
