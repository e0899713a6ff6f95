//! Command-line flags of this crate's programs: `--name value` or `--name=value`, nothing else.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{anyhow, bail};

/// Flags as given, checked against a list of known names.
#[derive(Clone, Debug)]
pub struct Flags {
    given: BTreeMap<String, Vec<String>>,
    /// What is not a flag, in order.
    pub words: Vec<String>,
}

impl Flags {
    /// Reads the arguments (without the program's name).
    ///
    /// # Errors
    /// A flag that is not in `known`, or one without a value.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        known: &[&str],
    ) -> anyhow::Result<Flags> {
        let mut flags = Flags {
            given: BTreeMap::new(),
            words: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--") else {
                flags.words.push(argument);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            };
            if !known.contains(&name.as_str()) {
                bail!("unknown flag --{name}");
            }
            let value = match value {
                Some(value) => value,
                None => arguments
                    .next()
                    .ok_or_else(|| anyhow!("--{name} takes a value"))?,
            };
            flags.given.entry(name).or_default().push(value);
        }
        Ok(flags)
    }

    /// All values of a flag, in order.
    pub fn all(&self, name: &str) -> &[String] {
        self.given.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The last value of a flag, read as `T`; `None` if it was not given.
    ///
    /// # Errors
    /// The value cannot be read as `T`.
    pub fn get<T: FromStr>(&self, name: &str) -> anyhow::Result<Option<T>> {
        self.all(name)
            .last()
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| anyhow!("--{name}: `{value}` is not valid"))
            })
            .transpose()
    }

    /// Like [`get`](Self::get), with a default.
    ///
    /// # Errors
    /// The value cannot be read as `T`.
    pub fn get_or<T: FromStr>(&self, name: &str, default: T) -> anyhow::Result<T> {
        Ok(self.get(name)?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Flags> {
        Flags::parse(
            line.split_whitespace().map(str::to_owned),
            &["clients", "flag"],
        )
    }

    #[test]
    fn both_forms_of_a_flag_are_read_and_words_kept() {
        let flags = parse("put --clients 3 --flag=a --flag --b=c rest").unwrap();
        assert_eq!(flags.words, ["put", "rest"]);
        assert_eq!(flags.get::<usize>("clients").unwrap(), Some(3));
        assert_eq!(flags.all("flag"), ["a", "--b=c"]);
        assert_eq!(flags.get_or("missing", 7).unwrap(), 7);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            parse("--nonsense 1").unwrap_err().to_string(),
            "unknown flag --nonsense"
        );
        assert_eq!(
            parse("--clients").unwrap_err().to_string(),
            "--clients takes a value"
        );
        let flags = parse("--clients x").unwrap();
        let error = flags.get::<usize>("clients").unwrap_err().to_string();
        assert_eq!(error, "--clients: `x` is not valid");
    }
}
