//! Feature gates: `--feature-gates=Name=true,Other=false` (spec/versioning.md section 6).

use super::value::parse_bool;

/// How finished a feature is in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

impl Stage {
    /// As in `--help` and the metric.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
        }
    }
}

/// One gate of etcd 3.7.1.
#[derive(Debug)]
pub struct Gate {
    /// Name in the flag.
    pub name: &'static str,
    /// Value when the flag does not name it.
    pub default: bool,
    /// Stage.
    pub stage: Stage,
}

const fn gate(name: &'static str, default: bool, stage: Stage) -> Gate {
    Gate {
        name,
        default,
        stage,
    }
}

/// Gates that can be switched. `LeaseCheckpointPersist` changes nothing: checkpoints of leases are
/// always stored, as in every cluster since 3.6.
pub(super) const BUILT: [&str; 2] = ["LeaseCheckpoint", "LeaseCheckpointPersist"];

/// All gates, sorted by name. The value of those that are not [`BUILT`] must stay the default.
pub static GATES: &[Gate] = &[
    gate("AllAlpha", false, Stage::Alpha),
    gate("AllBeta", false, Stage::Beta),
    gate("CompactHashCheck", false, Stage::Alpha),
    gate("FastLeaseKeepAlive", true, Stage::Beta),
    gate("InitialCorruptCheck", false, Stage::Alpha),
    gate("LeaseCheckpoint", false, Stage::Alpha),
    gate("LeaseCheckpointPersist", false, Stage::Alpha),
    gate("PriorityRequest", false, Stage::Alpha),
    gate("SetMemberLocalAddr", false, Stage::Alpha),
    gate("StopGRPCServiceOnDefrag", false, Stage::Alpha),
    gate("TxnModeWriteWithSharedBuffer", true, Stage::Beta),
];

/// The effective value of every gate, in the order of [`GATES`].
///
/// # Errors
/// etcd's texts for a missing or bad value and an unknown name.
pub(super) fn parse(text: &str) -> Result<Vec<(&'static Gate, bool)>, String> {
    let mut given: Vec<(&'static Gate, bool)> = Vec::new();
    let mut unknown = None;
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, value) = match item.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => return Err(format!("missing bool value for {}", item.trim())),
        };
        let Some(value) = parse_bool(value) else {
            return Err(format!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
            ));
        };
        match GATES.iter().find(|gate| gate.name == name) {
            Some(gate) => {
                given.retain(|(other, _)| other.name != name);
                given.push((gate, value));
            }
            None => unknown = unknown.or(Some(name)),
        }
    }
    if let Some(name) = unknown {
        return Err(format!("unrecognized feature gate: {name}"));
    }
    let explicit = |name: &str| given.iter().find(|(gate, _)| gate.name == name);
    let of_stage = |stage: Stage| match stage {
        Stage::Alpha => explicit("AllAlpha"),
        Stage::Beta => explicit("AllBeta"),
    };
    Ok(GATES
        .iter()
        .map(|gate| {
            let general = if gate.name.starts_with("All") {
                None
            } else {
                of_stage(gate.stage)
            };
            let value = explicit(gate.name)
                .or(general)
                .map_or(gate.default, |(_, v)| *v);
            (gate, value)
        })
        .collect())
}

/// Whether a text that has been checked turns a gate on.
pub(super) fn is_on(text: &str, name: &str) -> bool {
    let values = parse(text).unwrap_or_default();
    values.iter().any(|(gate, on)| gate.name == name && *on)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Vec<(&'static str, bool)> {
        parse(text)
            .unwrap()
            .into_iter()
            .filter(|(gate, value)| gate.default != *value)
            .map(|(gate, value)| (gate.name, value))
            .collect()
    }

    #[test]
    fn values_and_defaults() {
        assert_eq!(changed(""), []);
        assert_eq!(changed("CompactHashCheck=false,FastLeaseKeepAlive=t"), []);
        assert_eq!(
            changed(" CompactHashCheck = true ,CompactHashCheck=true"),
            [("CompactHashCheck", true)]
        );
        assert_eq!(changed("LeaseCheckpoint=true,LeaseCheckpoint=false"), []);
    }

    #[test]
    fn all_alpha_and_all_beta_leave_explicit_ones_alone() {
        assert_eq!(
            changed("AllBeta=false,FastLeaseKeepAlive=true"),
            [("TxnModeWriteWithSharedBuffer", false)]
        );
        let alpha = changed("AllAlpha=true,PriorityRequest=false");
        assert!(alpha.contains(&("AllAlpha", true)));
        assert!(alpha.contains(&("InitialCorruptCheck", true)));
        assert!(!alpha.contains(&("PriorityRequest", true)));
    }

    #[test]
    fn errors_are_etcds() {
        for (text, error) in [
            ("X", "missing bool value for X"),
            (
                "CompactHashCheck=yes",
                "invalid value of CompactHashCheck=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            ("Nope=true", "unrecognized feature gate: Nope"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }
}
