//! Texts of results: formats, quoting, sizes, tables.

use crate::cli::Matches;
use crate::failure::{Exit, Failure};

/// The formats of `--write-out`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    Simple,
    Json,
    Fields,
    Table,
    Protobuf,
}

impl Format {
    /// The one that the command line asks for.
    pub(crate) fn of(matches: &Matches) -> Result<Self, Failure> {
        match matches.text("write-out", "simple").as_str() {
            "simple" => Ok(Self::Simple),
            "json" => Ok(Self::Json),
            "fields" => Ok(Self::Fields),
            "table" => Ok(Self::Table),
            "protobuf" => Ok(Self::Protobuf),
            _ => Err(unsupported()),
        }
    }
}

pub(crate) fn unsupported() -> Failure {
    Failure::with_code(Exit::BadFeature, "unsupported output format")
}

/// Bytes in double quotes; what is not printable ASCII is escaped.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text + "\""
}

/// A size in SI units with two significant digits below ten: `25 kB`, `2.1 GB`.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if size < 10 {
        return format!("{size} B");
    }
    let (mut value, mut unit) = (size as f64, 0);
    while value >= 1000.0 {
        value /= 1000.0;
        unit += 1;
    }
    let tenths = (value * 10.0 + 0.5).floor() / 10.0;
    match tenths < 10.0 {
        true => format!("{tenths:.1} {}", UNITS[unit]),
        false => format!("{tenths:.0} {}", UNITS[unit]),
    }
}

/// One row under its headings, in a box.
pub(crate) fn table(columns: &[(&str, String)]) -> String {
    let width = |(title, cell): &(&str, String)| title.len().max(cell.len());
    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<String> = columns
            .iter()
            .map(|column| "─".repeat(width(column) + 2))
            .collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));
    let titles = columns
        .iter()
        .map(|column| format!("{:^width$}", column.0, width = width(column)));
    let cells = columns
        .iter()
        .map(|column| format!("{:>width$}", column.1, width = width(column)));
    [
        rule("┌", "┬", "┐"),
        line(titles.collect()),
        rule("├", "┼", "┤"),
        line(cells.collect()),
        rule("└", "┴", "┘"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_etcd() {
        for (size, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9949, "9.9 kB"),
            (9999, "10 kB"),
            (24_576, "25 kB"),
            (98_304, "98 kB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn quoted_bytes() {
        assert_eq!(quote(b"a\"\\\n\x00\xff"), r#""a\"\\\n\x00\xff""#);
    }
}
