//! Feature gates: `--feature-gates=Name=true,Other=false` (spec/versioning.md section 6).

use super::value::parse_bool;

/// How finished a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
    /// Always on: the gate is locked to its default, and will go.
    Ga,
    /// Will go, with the feature.
    Deprecated,
}

impl Stage {
    /// As in `--help` and the metric: `GA` is the empty text there, as in etcd.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Alpha => "ALPHA",
            Stage::Beta => "BETA",
            Stage::Ga => "",
            Stage::Deprecated => "DEPRECATED",
        }
    }
}

/// One gate.
#[derive(Debug, PartialEq, Eq)]
pub struct Gate {
    /// Name in the flag.
    pub name: &'static str,
    /// Value when the flag does not name it.
    pub default: bool,
    /// Stage.
    pub stage: Stage,
    /// Whether the value cannot be changed.
    pub locked: bool,
}

impl Gate {
    /// Whether `--help` lists it: what is finished or about to go is not to be set any more.
    pub const fn is_listed(&self) -> bool {
        matches!(self.stage, Stage::Alpha | Stage::Beta)
    }
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident: $default:literal, $stage:ident;)*) => {
        /// The gates of etcd 3.7.1, sorted by name. None of them is locked.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Feature { $($(#[$doc])* $name),* }

        /// The gates in the order of [`Feature`].
        pub static GATES: &[Gate] = &[$(Gate {
            name: stringify!($name),
            default: $default,
            stage: Stage::$stage,
            locked: false,
        }),*];
    };
}

features! {
    /// The default of all alpha gates.
    AllAlpha: false, Alpha;
    /// The default of all beta gates.
    AllBeta: false, Beta;
    /// The leader compares the hashes that compactions leave.
    CompactHashCheck: false, Alpha;
    /// A leader that is the only voter renews leases without waiting for all that is committed to be
    /// applied.
    FastLeaseKeepAlive: true, Beta;
    /// A member that starts again compares its data with the others' before it serves.
    InitialCorruptCheck: false, Alpha;
    /// Leaders note in the log what is left of long leases.
    LeaseCheckpoint: false, Alpha;
    /// No effect: these notes are always stored, as in every cluster since 3.6.
    LeaseCheckpointPersist: false, Alpha;
    /// Revocations of leases pass the limit on what is committed and not applied.
    PriorityRequest: false, Alpha;
    /// Connections to other members come from the advertised peer address.
    SetMemberLocalAddr: false, Alpha;
    /// The health service says `NOT_SERVING` during a defragmentation.
    StopGRPCServiceOnDefrag: false, Alpha;
    /// No effect: transactions read the one state there is, of which nothing is ever copied.
    TxnModeWriteWithSharedBuffer: true, Beta;
}

/// The value of every gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(Vec<bool>);

impl Default for Features {
    fn default() -> Self {
        Self(GATES.iter().map(|gate| gate.default).collect())
    }
}

/// Something to say about a gate that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl Features {
    /// Whether a feature is on.
    pub fn is_on(&self, feature: Feature) -> bool {
        self.0[feature as usize]
    }

    /// Switches a feature.
    pub fn set(&mut self, feature: Feature, on: bool) {
        self.0[feature as usize] = on;
    }

    /// Every gate and its value, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Gate, bool)> {
        GATES.iter().zip(self.0.iter().copied())
    }
}

/// The effective values.
///
/// # Errors
/// etcd's texts for a missing or bad value, an unknown name and a locked gate.
pub(super) fn parse(text: &str) -> Result<(Features, Vec<Warning>), String> {
    let (values, warnings) = parse_with(GATES, text)?;
    Ok((Features(values), warnings))
}

fn parse_with(gates: &'static [Gate], text: &str) -> Result<(Vec<bool>, Vec<Warning>), String> {
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
        match gates.iter().find(|gate| gate.name == name) {
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
    let mut warnings = Vec::new();
    for (gate, value) in &given {
        let (name, default) = (gate.name, gate.default);
        if gate.locked && *value != default {
            return Err(format!(
                "cannot set feature gate {name} to {value}, feature is locked to {default}"
            ));
        }
        let stage = match gate.stage {
            Stage::Ga => "GA",
            Stage::Deprecated => "deprecated",
            Stage::Alpha | Stage::Beta => continue,
        };
        warnings.push(Warning(format!(
            "Setting {stage} feature gate {name}={value}. It will be removed in a future release."
        )));
    }
    let explicit = |name: &str| given.iter().find(|(gate, _)| gate.name == name);
    let values = gates.iter().map(|gate| {
        let general = match gate.stage {
            _ if gate.name.starts_with("All") => None,
            Stage::Alpha => explicit("AllAlpha"),
            Stage::Beta => explicit("AllBeta"),
            Stage::Ga | Stage::Deprecated => None,
        };
        explicit(gate.name)
            .or(general)
            .map_or(gate.default, |(_, value)| *value)
    });
    Ok((values.collect(), warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str) -> Vec<(&'static str, bool)> {
        let (features, warnings) = parse(text).unwrap();
        assert_eq!(warnings, []);
        features
            .iter()
            .filter(|(gate, value)| gate.default != *value)
            .map(|(gate, value)| (gate.name, value))
            .collect()
    }

    #[test]
    fn the_table_is_sorted_and_in_the_order_of_the_features() {
        assert!(GATES.is_sorted_by_key(|gate| gate.name));
        let mut features = Features::default();
        features.set(Feature::PriorityRequest, true);
        let on = features
            .iter()
            .find(|(gate, _)| gate.name == "PriorityRequest");
        assert!(on.is_some_and(|(_, on)| on));
        assert!(features.is_on(Feature::PriorityRequest));
        assert!(!features.is_on(Feature::SetMemberLocalAddr));
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

    /// What etcd 3.7.1 has no gate for yet.
    static LATER: &[Gate] = &[
        Gate {
            name: "AllAlpha",
            default: false,
            stage: Stage::Alpha,
            locked: false,
        },
        Gate {
            name: "Done",
            default: true,
            stage: Stage::Ga,
            locked: true,
        },
        Gate {
            name: "Gone",
            default: false,
            stage: Stage::Deprecated,
            locked: false,
        },
    ];

    #[test]
    fn finished_gates_are_locked_and_those_that_will_go_are_warned_about() {
        assert_eq!(
            parse_with(LATER, "Done=false").unwrap_err(),
            "cannot set feature gate Done to false, feature is locked to true"
        );
        let (values, warnings) = parse_with(LATER, "Done=true,Gone=true,AllAlpha=true").unwrap();
        assert_eq!(values, [true, true, true]);
        let texts: Vec<_> = warnings.iter().map(|warning| &warning.0[..]).collect();
        assert_eq!(
            texts,
            [
                "Setting GA feature gate Done=true. It will be removed in a future release.",
                "Setting deprecated feature gate Gone=true. It will be removed in a future release.",
            ]
        );
        assert!(!LATER[1].is_listed() && !LATER[2].is_listed() && LATER[0].is_listed());
    }
}
