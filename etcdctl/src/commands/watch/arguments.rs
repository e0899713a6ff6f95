//! What is to be watched: from arguments or environment, and the program after `--`.

use crate::cli::Text;
use crate::go::quote::quote;

const BAD_NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_PROGRAM: &str = "bad number of arguments (found separator --, but no commands)";

/// The key and range end that the environment gives; empty if it does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Environment {
    pub(super) key: Text,
    range_end: Text,
}

impl Environment {
    pub(super) fn of(variables: &[(Text, Text)]) -> Result<Environment, String> {
        let value = |name: &[u8]| {
            let found = variables.iter().find(|(variable, _)| variable == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let key = value(b"ETCDCTL_WATCH_KEY");
        let range_end = value(b"ETCDCTL_WATCH_RANGE_END");
        if key.is_empty() && !range_end.is_empty() {
            let end = quote(&range_end);
            return Err(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}"
            ));
        }
        Ok(Environment { key, range_end })
    }
}

/// What is to be watched, and the program to run for each event; empty without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) key: Text,
    pub(super) range_end: Option<Text>,
    pub(super) program: Vec<Text>,
}

impl Wanted {
    /// Reads positional arguments; `given` is the line with `--` still in it.
    ///
    /// Deviation: etcd's tool looks for the program's name from behind, and takes a repetition of
    /// it among the program's arguments for the range end.
    pub(super) fn read(
        given: &[Text],
        args: &[Text],
        environment: &Environment,
    ) -> Result<Wanted, String> {
        let separator = given.iter().position(|arg| arg == b"--");
        let program = match separator {
            Some(position) => given[position + 1..].to_vec(),
            None => Vec::new(),
        };
        if separator.is_some() && program.is_empty() {
            return Err(NO_PROGRAM.to_owned());
        }
        let mut keys = args[..args.len() - program.len()].iter().cloned();
        let (key, range_end) = match (environment.key.is_empty(), keys.next()) {
            (true, Some(key)) => (key, keys.next().filter(|_| keys.next().is_none())),
            (true, None) => return Err(BAD_NUMBER.to_owned()),
            (false, Some(_)) => return Err(CONFLICT.to_owned()),
            (false, None) => {
                let end = environment.range_end.clone();
                (environment.key.clone(), (!end.is_empty()).then_some(end))
            }
        };
        Ok(Wanted {
            key,
            range_end,
            program,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &str) -> Vec<Text> {
        words.split_whitespace().map(|word| word.into()).collect()
    }

    fn environment(key: &str, range_end: &str) -> Environment {
        Environment {
            key: key.into(),
            range_end: range_end.into(),
        }
    }

    /// The positionals of a line are its words without flags and `--`.
    fn read(
        line: &str,
        environment: &Environment,
    ) -> Result<(String, Option<String>, String), String> {
        let given = texts(line);
        let args: Vec<Text> = given
            .iter()
            .filter(|word| !word.starts_with(b"-"))
            .cloned()
            .collect();
        let text = |text: Text| String::from_utf8(text).expect("text");
        Wanted::read(&given, &args, environment).map(|wanted| {
            (
                text(wanted.key),
                wanted.range_end.map(text),
                text(wanted.program.join(&b' ')),
            )
        })
    }

    #[test]
    fn keys_and_programs() {
        let none = environment("", "");
        let key = environment("foo", "");
        let range = environment("foo", "bar");
        for (line, environment, (wanted, end, program)) in [
            ("foo", &none, ("foo", None, "")),
            ("foo bar", &none, ("foo", Some("bar"), "")),
            ("foo --prefix", &none, ("foo", None, "")),
            ("foo -- echo a", &none, ("foo", None, "echo a")),
            (
                "foo bar --prefix -- echo",
                &none,
                ("foo", Some("bar"), "echo"),
            ),
            ("foo -- echo a echo", &none, ("foo", None, "echo a echo")),
            ("", &key, ("foo", None, "")),
            ("", &range, ("foo", Some("bar"), "")),
            ("-- echo hi", &range, ("foo", Some("bar"), "echo hi")),
        ] {
            let expected = (
                wanted.to_owned(),
                end.map(str::to_owned),
                program.to_owned(),
            );
            assert_eq!(read(line, environment), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        let none = environment("", "");
        let key = environment("foo", "");
        for (line, environment, message) in [
            ("", &none, BAD_NUMBER),
            ("--prefix", &none, BAD_NUMBER),
            ("-- echo", &none, BAD_NUMBER),
            ("foo --", &none, NO_PROGRAM),
            ("foo", &key, CONFLICT),
            ("foo -- echo", &key, CONFLICT),
        ] {
            assert_eq!(read(line, environment), Err(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_range_end_needs_a_key() {
        let variables = [(b"ETCDCTL_WATCH_RANGE_END".to_vec(), b"x".to_vec())];
        assert_eq!(
            Environment::of(&variables).expect_err("no key"),
            "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"x\""
        );
    }
}
