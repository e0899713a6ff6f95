//! Bugs that can be put in on purpose, to see that they are found. They live in the simulation, at its seams
//! to the product; the product has no holes for them.

use std::fmt;
use std::str::FromStr;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An append is reported as durable before it is synced.
    AckBeforeSync,
    /// Linearizable reads are answered from whatever the asked member has.
    StaleRead,
    /// A member confirms a leader's term though it knows of a later one.
    ConfirmAnyTerm,
    /// Term and vote are not synced when no entry comes with them.
    VoteNotSynced,
    /// A received snapshot becomes the page file in use before the log has decided.
    EarlyInstall,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 5] = [
        Mutant::AckBeforeSync,
        Mutant::StaleRead,
        Mutant::ConfirmAnyTerm,
        Mutant::VoteNotSynced,
        Mutant::EarlyInstall,
    ];

    fn name(self) -> &'static str {
        match self {
            Mutant::AckBeforeSync => "ack-before-sync",
            Mutant::StaleRead => "stale-read",
            Mutant::ConfirmAnyTerm => "confirm-any-term",
            Mutant::VoteNotSynced => "vote-not-synced",
            Mutant::EarlyInstall => "early-install",
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|mutant| mutant.name() == text)
            .ok_or_else(|| format!("there is no mutant {text}"))
    }
}
