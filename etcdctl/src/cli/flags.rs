//! Flags: their declarations, values, and pflag's way of reading them.

use super::{Chain, Text};
use crate::go::quote::{quote, quote_char};
use crate::go::{csv, duration, number};

/// The declaration of a flag.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) usage: &'static str,
    /// Not shown in usage texts.
    pub(crate) hidden: bool,
}

/// The type of a flag, with its default.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Switch(bool),
    Int(i64),
    Uint(u64),
    Text(&'static str),
    /// Comma-separated, repeatable. One default element.
    List(&'static str),
    /// Nanoseconds.
    Duration(i64),
}

impl Flag {
    pub(crate) const fn new(name: &'static str, kind: Kind, usage: &'static str) -> Flag {
        Flag {
            name,
            short: None,
            kind,
            usage,
            hidden: false,
        }
    }

    /// With a one-letter name.
    pub(crate) const fn short(self, short: char) -> Flag {
        Flag {
            short: Some(short),
            ..self
        }
    }

    pub(crate) const fn hidden(self) -> Flag {
        Flag {
            hidden: true,
            ..self
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
enum Value {
    Switch(bool),
    Int(i64),
    Uint(u64),
    Text(Text),
    List(Vec<String>),
    Duration(i64),
}

impl From<Kind> for Value {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Switch(on) => Value::Switch(on),
            Kind::Int(value) => Value::Int(value),
            Kind::Uint(value) => Value::Uint(value),
            Kind::Text(text) => Value::Text(text.as_bytes().to_vec()),
            Kind::List(element) => Value::List(vec![element.to_owned()]),
            Kind::Duration(nanos) => Value::Duration(nanos),
        }
    }
}

struct Slot {
    flag: &'static Flag,
    value: Value,
    changed: bool,
    inherited: bool,
}

/// The flags that a command accepts, with their values.
pub(crate) struct Flags {
    slots: Vec<Slot>,
    /// Whether looking for subcommands already knows `--help`: only the root declares it early.
    help_declared: bool,
    help: bool,
}

impl Flags {
    /// All flags of a command, at their defaults.
    pub(crate) fn of(chain: &Chain) -> Flags {
        let slot = |flag: &'static Flag, inherited| Slot {
            flag,
            value: flag.kind.into(),
            changed: false,
            inherited,
        };
        let mut slots: Vec<Slot> = chain
            .local_flags()
            .map(|flag| slot(flag, false))
            .chain(chain.inherited_flags().map(|flag| slot(flag, true)))
            .collect();
        slots.sort_by_key(|slot| slot.flag.name);
        Flags {
            slots,
            help_declared: chain.is_root(),
            help: false,
        }
    }

    /// Whether `--name` takes no separate value.
    pub(super) fn is_switch(&self, name: &[u8]) -> bool {
        (self.help_declared && name == b"help")
            || self.slots.iter().any(|slot| {
                slot.flag.name.as_bytes() == name && matches!(slot.flag.kind, Kind::Switch(_))
            })
    }

    /// Whether `-c` takes no separate value.
    pub(super) fn is_short_switch(&self, short: u8) -> bool {
        (self.help_declared && short == b'h')
            || self.slots.iter().any(|slot| {
                slot.flag.short == Some(char::from(short))
                    && matches!(slot.flag.kind, Kind::Switch(_))
            })
    }

    /// Reads the flags out of `args`; the rest comes back.
    ///
    /// # Errors
    ///
    /// pflag's text for the first thing wrong.
    pub(crate) fn parse(&mut self, args: &[Text]) -> Result<Vec<Text>, String> {
        let mut positionals = Vec::new();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_slice() {
                b"--" => {
                    positionals.extend(args.cloned());
                    break;
                }
                [b'-', b'-', name @ ..] => self.parse_long(arg, name, &mut args)?,
                [b'-', shorts @ ..] if !shorts.is_empty() => self.parse_short(shorts, &mut args)?,
                _ => positionals.push(arg.clone()),
            }
        }
        Ok(positionals)
    }

    fn parse_long(
        &mut self,
        arg: &[u8],
        name: &[u8],
        rest: &mut std::slice::Iter<'_, Text>,
    ) -> Result<(), String> {
        if name.is_empty() || name[0] == b'-' || name[0] == b'=' {
            return Err(format!("bad flag syntax: {}", String::from_utf8_lossy(arg)));
        }
        let equals = name.iter().position(|&byte| byte == b'=');
        let (name, given) = match equals {
            Some(position) => (&name[..position], Some(&name[position + 1..])),
            None => (name, None),
        };
        let shown = String::from_utf8_lossy(name).into_owned();
        if name == b"help" {
            return self.set_help(given);
        }
        let Some(index) = self
            .slots
            .iter()
            .position(|slot| slot.flag.name.as_bytes() == name)
        else {
            return Err(format!("unknown flag: --{shown}"));
        };
        let value = match (given, self.slots[index].flag.kind) {
            (Some(value), _) => value.to_vec(),
            (None, Kind::Switch(_)) => b"true".to_vec(),
            (None, _) => rest
                .next()
                .ok_or_else(|| format!("flag needs an argument: --{shown}"))?
                .clone(),
        };
        self.set_at(index, &value)
    }

    fn parse_short(
        &mut self,
        mut shorts: &[u8],
        rest: &mut std::slice::Iter<'_, Text>,
    ) -> Result<(), String> {
        while let Some((&short, tail)) = shorts.split_first() {
            let shown = || String::from_utf8_lossy(shorts).into_owned();
            let with_equals = match tail {
                [b'=', value @ ..] if !value.is_empty() => Some(value),
                _ => None,
            };
            if short == b'h' {
                self.set_help(with_equals)?;
                shorts = if with_equals.is_some() { &[] } else { tail };
                continue;
            }
            let letter = char::from(short);
            let Some(index) = self
                .slots
                .iter()
                .position(|slot| slot.flag.short == Some(letter))
            else {
                let letter = quote_char(letter);
                return Err(format!("unknown shorthand flag: {letter} in -{}", shown()));
            };
            let is_switch = matches!(self.slots[index].flag.kind, Kind::Switch(_));
            if let Some(value) = with_equals {
                return self.set_at(index, value);
            }
            if is_switch {
                self.set_at(index, b"true")?;
                shorts = tail;
                continue;
            }
            let value = match tail {
                [] => rest.next().cloned().ok_or_else(|| {
                    format!(
                        "flag needs an argument: {} in -{}",
                        quote_char(letter),
                        shown()
                    )
                })?,
                tail => tail.to_vec(),
            };
            return self.set_at(index, &value);
        }
        Ok(())
    }

    fn set_help(&mut self, given: Option<&[u8]>) -> Result<(), String> {
        let text = String::from_utf8_lossy(given.unwrap_or(b"true")).into_owned();
        self.help = number::parse_bool(&text).map_err(|reason| {
            format!(
                "invalid argument {} for \"-h, --help\" flag: {reason}",
                quote(&text)
            )
        })?;
        Ok(())
    }

    fn set_at(&mut self, index: usize, value: &[u8]) -> Result<(), String> {
        let slot = &mut self.slots[index];
        slot.set(value).map_err(|reason| {
            let name = match slot.flag.short {
                Some(short) => format!("-{short}, --{}", slot.flag.name),
                None => format!("--{}", slot.flag.name),
            };
            format!(
                "invalid argument {} for {} flag: {reason}",
                quote(value),
                quote(name)
            )
        })
    }

    /// Sets a flag from elsewhere than the command line, if the value can be read.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) -> Result<(), String> {
        match self.slots.iter().position(|slot| slot.flag.name == name) {
            Some(index) => self.set_at(index, value),
            None => Err(format!("no such flag -{name}")),
        }
    }

    /// Takes over the values of the same flags elsewhere.
    pub(crate) fn copy_values(&mut self, other: &Flags) {
        for slot in &mut self.slots {
            let theirs = other.slot(slot.flag.name);
            slot.value = theirs.value.clone();
            slot.changed = theirs.changed;
        }
    }

    pub(super) fn help_wanted(&self) -> bool {
        self.help
    }

    /// Inherited flags by name: name, whether it was set, and its value in debug spelling.
    pub(crate) fn inherited(&self) -> Vec<(&'static str, bool, String)> {
        self.slots
            .iter()
            .filter(|slot| slot.inherited)
            .map(|slot| (slot.flag.name, slot.changed, slot.value.to_string()))
            .collect()
    }

    /// Whether the flag was set, to whatever value.
    pub(crate) fn changed(&self, name: &str) -> bool {
        self.slot(name).changed
    }

    /// Whether the command has such a flag.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.flag.name == name)
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        matches!(self.slot(name).value, Value::Switch(true))
    }

    pub(crate) fn int(&self, name: &str) -> i64 {
        match self.slot(name).value {
            Value::Int(value) => value,
            _ => unreachable!("--{name} is declared as a number"),
        }
    }

    pub(crate) fn uint(&self, name: &str) -> u64 {
        match self.slot(name).value {
            Value::Uint(value) => value,
            _ => unreachable!("--{name} is declared as a number without sign"),
        }
    }

    /// Nanoseconds.
    pub(crate) fn duration(&self, name: &str) -> i64 {
        match self.slot(name).value {
            Value::Duration(nanos) => nanos,
            _ => unreachable!("--{name} is declared as a duration"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name)).into_owned()
    }

    /// A text as it was given: a key need not be UTF-8.
    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        match &self.slot(name).value {
            Value::Text(text) => text,
            _ => unreachable!("--{name} is declared as a text"),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        match &self.slot(name).value {
            Value::List(list) => list.clone(),
            _ => unreachable!("--{name} is declared as a list"),
        }
    }

    fn slot(&self, name: &str) -> &Slot {
        self.slots
            .iter()
            .find(|slot| slot.flag.name == name)
            .expect("commands only ask for flags that they declare or inherit")
    }
}

impl Slot {
    fn set(&mut self, raw: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(raw);
        let value = match self.flag.kind {
            Kind::Switch(_) => Value::Switch(number::parse_bool(&text)?),
            Kind::Int(_) => Value::Int(number::parse_int(&text, 0)?),
            Kind::Uint(_) => Value::Uint(number::parse_uint(&text, 0)?),
            Kind::Text(_) => Value::Text(raw.to_vec()),
            Kind::Duration(_) => Value::Duration(duration::parse(&text)?),
            Kind::List(_) => {
                let mut list = match &self.value {
                    // The first value replaces the default, later ones add to it.
                    Value::List(list) if self.changed => list.clone(),
                    _ => Vec::new(),
                };
                list.extend(csv::split(&text)?);
                Value::List(list)
            }
        };
        self.value = value;
        self.changed = true;
        Ok(())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Switch(on) => write!(f, "{on}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Value::List(list) => f.write_str(&csv::join(list)),
            Value::Duration(nanos) => f.write_str(&duration::format(*nanos)),
        }
    }
}
