//! What Go prints for a failure of the system.

use std::io;

/// The text of an error: the system's own in lower case, without the number that Rust appends.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(text) = error
        .raw_os_error()
        .and_then(|number| text.strip_suffix(&format!(" (os error {number})")))
    else {
        return text;
    };
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go() {
        let of = |number| os_text(&io::Error::from_raw_os_error(number));
        assert_eq!(of(2), "no such file or directory");
        assert_eq!(of(111), "connection refused");
        assert_eq!(os_text(&io::Error::other("As It Is")), "As It Is");
    }
}
