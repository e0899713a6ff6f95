//! Storage schemas: which version the page file is of, and the steps from one to the next
//! (spec versioning.md section 2).
//!
//! A [`Step`] goes to the schema one minor version above or below, in one transaction of the page file:
//! what it changes, and the version that it leads to. So a crash leaves the file at one of the two, and
//! whoever opens it knows which. A member takes its steps with checkpoints
//! ([`State::migrate`](crate::state::State::migrate)), so that what is left of the log to be applied is
//! known; `etcdutl migrate` takes them on a file that nobody uses ([`migrate`]).
//!
//! | Schema | What it added |
//! |---|---|
//! | 3.5 | the oldest that there is a step to |
//! | 3.6 | the storage version itself |
//! | 3.7 | nothing |

pub mod log;

use ferrite_api::Version;

use crate::page::{self, Batch, Meta, MetaUpdate, PageFile, TableWrite};

/// The oldest schema.
pub const OLDEST: Version = Version::new(3, 5, 0);

/// The first schema that says which it is.
pub const SAYS_ITSELF: Version = Version::new(3, 6, 0);

/// What the schemas after [`OLDEST`] have added, each to the one before.
const CHANGES: [(Version, &[Change]); 2] = [
    (SAYS_ITSELF, &[STORAGE_VERSION]),
    (Version::new(3, 7, 0), &[]),
];

/// One change of a schema, and the way back.
struct Change {
    upgrade: fn(&mut Batch),
    downgrade: fn(&mut Batch),
}

/// The storage version in the meta record. Its value is set by each step.
const STORAGE_VERSION: Change = Change {
    upgrade: |_| {},
    downgrade: |batch| batch.meta.storage_version = Some(String::new()),
};

/// Why a page file's schema cannot be told, or not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not say which it is, and is not of 3.5.
    #[error("missing term information")]
    MissingTerm,
    /// It says something that is no version.
    #[error("the storage version is {0:?}")]
    NoVersion(String),
    /// There is no step from, or to, this version.
    #[error("version \"{0}\" is not supported")]
    NotSupported(Version),
    /// There is no step from one major version to another.
    #[error("changing major storage version is not supported")]
    OtherMajor,
    /// The log holds what a member of the target version does not know.
    #[error(
        "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is \
         lower than the version ({found}) detected from WAL logs"
    )]
    NewerLog {
        /// The target.
        target: Version,
        /// What is needed to read the log.
        found: Version,
    },
}

impl Error {
    /// The text as etcd has it for a migration: with what could not be done because of it.
    pub fn explained(&self) -> String {
        match self {
            Self::MissingTerm | Self::NoVersion(_) => {
                format!("cannot detect storage schema version: {self}")
            }
            Self::NotSupported(_) | Self::OtherMajor => {
                format!("cannot create migration plan: {self}")
            }
            Self::NewerLog { .. } => self.to_string(),
        }
    }
}

/// A step to the next schema, or back to the one before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    target: Version,
    tables: Vec<TableWrite>,
    storage_version: String,
}

impl Step {
    fn new(target: Version, changes: &[Change], upgrades: bool) -> Self {
        let mut batch = Batch::default();
        match upgrades {
            true => changes
                .iter()
                .for_each(|change| (change.upgrade)(&mut batch)),
            false => {
                let changes = changes.iter().rev();
                changes.for_each(|change| (change.downgrade)(&mut batch));
            }
        }
        if target >= SAYS_ITSELF {
            batch.meta.storage_version = Some(target.to_string());
        }
        Self {
            target,
            tables: batch.tables,
            storage_version: batch.meta.storage_version.unwrap_or_default(),
        }
    }

    /// Where it leads.
    pub fn target(&self) -> Version {
        self.target
    }

    /// Adds the step to what a commit changes, after everything else in it.
    pub(crate) fn join(&self, batch: &mut Batch) {
        batch.tables.extend(self.tables.iter().cloned());
        batch.meta.storage_version = Some(self.storage_version.clone());
    }
}

/// The schema of a page file.
///
/// # Errors
/// [`Error::MissingTerm`], [`Error::NoVersion`].
pub fn detect(meta: &Meta) -> Result<Version, Error> {
    match meta.storage_version.as_str() {
        "" if meta.term == 0 => Err(Error::MissingTerm),
        "" => Ok(OLDEST),
        text => {
            let version = Version::parse(text).map(Version::level);
            version.ok_or_else(|| Error::NoVersion(text.to_owned()))
        }
    }
}

/// The steps from one schema to another, of which `newest` is the newest that this program knows.
///
/// # Errors
/// [`Error::OtherMajor`], [`Error::NotSupported`].
pub fn plan(current: Version, target: Version, newest: Version) -> Result<Vec<Step>, Error> {
    let (mut current, target) = (current.level(), target.level());
    if current.major != target.major {
        return Err(Error::OtherMajor);
    }
    let mut steps = Vec::new();
    while current != target {
        let upgrades = current < target;
        // The changes are those of the higher one of the two.
        let (higher, next) = match upgrades {
            true => (current.level_after(), Some(current.level_after())),
            false => (current, current.level_before()),
        };
        let known = CHANGES.iter().find(|(version, _)| *version == higher);
        let known = known.filter(|_| higher <= newest.level());
        let (Some((_, changes)), Some(next)) = (known, next) else {
            return Err(Error::NotSupported(higher));
        };
        steps.push(Step::new(next, changes, upgrades));
        current = next;
    }
    Ok(steps)
}

/// Whether a program whose newest schema is `newest` may use a page file. One whose schema cannot be told
/// is used, as by etcd.
///
/// # Errors
/// [`Error::NotSupported`], [`Error::OtherMajor`], [`Error::NoVersion`].
pub fn check(meta: &Meta, newest: Version) -> Result<(), Error> {
    match detect(meta) {
        Ok(version) => plan(version, newest, newest).map(drop),
        Err(Error::MissingTerm) => {
            tracing::warn!(
                "Failed to detect storage schema version. Please wait till wal snapshot before \
                 upgrading cluster."
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The steps from the schema of a page file to `target`, if the log lets them be taken. `log` is what is
/// needed to read the entries that the page file does not have yet.
///
/// # Errors
/// Any.
pub fn plan_for(
    meta: &Meta,
    target: Version,
    newest: Version,
    log: Option<Version>,
) -> Result<Vec<Step>, Error> {
    let current = detect(meta)?;
    let steps = plan(current, target, newest)?;
    match log {
        Some(found) if target < current && target < found => Err(Error::NewerLog { target, found }),
        _ => Ok(steps),
    }
}

/// Takes one step on a page file that no member uses.
///
/// # Errors
/// As [`PageFile::commit`].
pub fn migrate(page: &PageFile, step: &Step) -> Result<(), page::Error> {
    let mut batch = Batch::default();
    step.join(&mut batch);
    page.commit(&batch).map(drop)
}

/// Makes a page file that no member uses say that it is of `target`, whatever it is of.
///
/// # Errors
/// As [`PageFile::commit`].
pub fn force(page: &PageFile, target: Version) -> Result<(), page::Error> {
    let text = match target >= SAYS_ITSELF {
        true => target.level().to_string(),
        false => String::new(),
    };
    let meta = MetaUpdate {
        storage_version: Some(text),
        ..MetaUpdate::default()
    };
    page.commit(&Batch {
        meta,
        ..Batch::default()
    })
    .map(drop)
}

#[cfg(test)]
mod tests;
