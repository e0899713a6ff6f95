//! What was asked for, before any rule is applied: one optional value per row of the flag table.

use std::collections::BTreeMap;

use super::flags::{Flag, Kind, Value, find};

/// The values that flags, environment or file gave. Plain data: nothing is read, checked against
/// another value, or defaulted here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawConfig {
    given: BTreeMap<&'static str, Value>,
}

impl RawConfig {
    /// Sets a value, over an earlier one.
    pub fn set(&mut self, flag: &'static Flag, value: Value) {
        self.given.insert(flag.name, value);
    }

    /// Parses and sets a text from the command line or the environment.
    ///
    /// # Errors
    /// The reason, as it stands behind `invalid value ... :`.
    pub fn set_text(&mut self, flag: &'static Flag, text: &str) -> Result<(), String> {
        // etcd's URL flags take the empty text and keep what they had.
        let value = if flag.kind == Kind::Urls && text.is_empty() {
            self.value(flag.name)
        } else {
            flag.kind.parse(text)?
        };
        self.set(flag, value);
        Ok(())
    }

    /// Whether a value was given, were it the default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The given values, by flag name.
    pub fn given(&self) -> impl Iterator<Item = (&'static Flag, &Value)> {
        self.given
            .iter()
            .filter_map(|(name, value)| Some((find(name)?, value)))
    }

    /// The given value, or the default.
    pub(super) fn value(&self, name: &str) -> Value {
        match self.given.get(name) {
            Some(value) => value.clone(),
            None => find(name)
                .expect("callers name rows of the table")
                .default_value(),
        }
    }
}
