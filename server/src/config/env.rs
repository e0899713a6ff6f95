//! `ETCD_*` variables: one per flag, taken only where the flag itself is absent.

use super::error::Error;
use super::flags::FLAGS;
use super::note::Note;
use super::raw::RawConfig;

/// The variable that would be the flag `--version`; never used.
const VERSION: &str = "ETCD_VERSION";

/// Adds what the variables say to `raw`, which holds the command line.
///
/// # Errors
/// A variable of a flag that the command line has too, were it empty or equal; a value that does
/// not parse.
pub(super) fn apply(
    raw: &mut RawConfig,
    variables: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<(), Error> {
    let mut variables: Vec<&(String, String)> = variables.iter().collect();
    if let Some((_, value)) = variables
        .iter()
        .find(|(name, value)| name == VERSION && !value.is_empty())
    {
        notes.push(Note::VersionVariable {
            value: value.clone(),
        });
        variables.retain(|(name, _)| name != VERSION);
    }

    let mut flags: Vec<_> = FLAGS.iter().map(|flag| (flag, flag.env())).collect();
    flags.sort_by_key(|(flag, _)| flag.name);
    let on_command_line: Vec<&String> = flags
        .iter()
        .filter(|(flag, _)| raw.is_given(flag.name))
        .map(|(_, name)| name)
        .collect();
    let mut used: Vec<&String> = Vec::new();
    let mut failure = Ok(());
    for (flag, name) in &flags {
        if on_command_line.contains(&name) {
            continue;
        }
        let Some((_, value)) = variables
            .iter()
            .find(|(variable, value)| variable == name && !value.is_empty())
        else {
            continue;
        };
        used.push(name);
        match raw.set_text(flag, value) {
            Ok(()) => notes.push(Note::VariableUsed {
                name: name.clone(),
                value: value.clone(),
            }),
            // Like etcd, go on and report the last one.
            Err(reason) => {
                failure = Err(Error::Variable {
                    name: name.clone(),
                    value: value.clone(),
                    reason,
                });
            }
        }
    }
    for (name, value) in variables {
        if used.contains(&name) {
            continue;
        }
        if on_command_line.contains(&name) {
            return Err(Error::Shadowed { name: name.clone() });
        }
        if name.starts_with("ETCD_") {
            notes.push(Note::VariableUnknown {
                variable: format!("{name}={value}"),
            });
        }
    }
    failure
}
