//! One record of comma-separated values, as list flags take it.

/// Splits a flag's value. Empty is the empty list.
///
/// # Errors
///
/// The text of Go's `encoding/csv`.
pub(crate) fn split(value: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    // Only the first line is a record.
    let line = value.lines().next().unwrap_or_default();
    if line.is_empty() {
        return match value.is_empty() {
            true => Ok(fields),
            false => Err("EOF".to_owned()),
        };
    }
    let mut rest = line;
    loop {
        let column = line.len() - rest.len() + 1;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut tail = quoted;
            loop {
                let Some((part, after)) = tail.split_once('"') else {
                    let column = line.len() + 1;
                    return Err(format!(
                        "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                    ));
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        tail = more;
                    }
                    None => {
                        tail = after;
                        break;
                    }
                }
            }
            fields.push(field);
            match tail.strip_prefix(',') {
                Some(next) => rest = next,
                None if tail.is_empty() => return Ok(fields),
                None => {
                    let column = line.len() - tail.len();
                    return Err(format!(
                        "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
                    ));
                }
            }
            continue;
        }
        let (field, next) = match rest.split_once(',') {
            Some((field, next)) => (field, Some(next)),
            None => (rest, None),
        };
        if let Some(position) = field.find('"') {
            let column = column + position;
            return Err(format!(
                "parse error on line 1, column {column}: bare \" in non-quoted-field"
            ));
        }
        fields.push(field.to_owned());
        match next {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// The list as debug output shows it.
pub(crate) fn join(values: &[String]) -> String {
    let fields: Vec<String> = values
        .iter()
        .map(|value| {
            let quote = value.starts_with(' ') || value.contains([',', '"', '\n', '\r']);
            match quote {
                true => format!("\"{}\"", value.replace('"', "\"\"")),
                false => value.clone(),
            }
        })
        .collect();
    format!("[{}]", fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_quoted_fields() {
        let empty: Vec<String> = Vec::new();
        assert_eq!(split(""), Ok(empty));
        assert_eq!(split("a"), Ok(vec!["a".into()]));
        assert_eq!(split("a,,b "), Ok(vec!["a".into(), "".into(), "b ".into()]));
        assert_eq!(split("\"a,b\",c"), Ok(vec!["a,b".into(), "c".into()]));
        assert_eq!(split("\"a\"\"b\""), Ok(vec!["a\"b".into()]));
        assert_eq!(split("a,"), Ok(vec!["a".into(), "".into()]));
    }

    #[test]
    fn broken_quotes_are_errors() {
        assert!(split("a\"b").is_err_and(|error| error.contains("column 2: bare")));
        assert!(split("\"a").is_err());
        assert!(split("\"a\"b").is_err());
    }

    #[test]
    fn lists_print_in_brackets() {
        assert_eq!(join(&["a:1".into(), "b,c".into()]), "[a:1,\"b,c\"]");
    }
}
