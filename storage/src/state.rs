//! The whole replicated state of a member, in memory, with one owner.
//!
//! ```text
//!   log entries ── apply ──▶ State ── checkpoint ──▶ page file
//!                             │
//!                             └── view() ──▶ readers
//! ```
//!
//! Invariants:
//! * `applied` is the index of the last entry whose effects are all in this state.
//! * The page file's consistent index is at most `applied`; replaying the log from it gives this
//!   state again.

use std::sync::Arc;

use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmRequest};
use ferrite_api::pb::membershippb::Attributes;
use ferrite_api::types::{ClusterId, MemberId, RaftIndex, Revision, Term};

use crate::alarms::Alarms;
use crate::apply::tally::Tally;
use crate::auth::Auth;
use crate::checkpoint::{self, Compaction};
use crate::cluster_version::ClusterVersion;
use crate::error::Error;
use crate::leases::Leases;
use crate::members::Members;
use crate::membership::MembershipAction;
use crate::mvcc::read::RangeError;
use crate::mvcc::store::Store;
use crate::mvcc::view::View;
use crate::page::{self, ConfState, PageFile, RowId, Table, TableWrite};
use crate::restore;

/// The replicated state.
#[derive(Debug)]
pub struct State {
    store: Store,
    members: Members,
    alarms: Alarms,
    cluster_version: ClusterVersion,
    // Shared with whoever has published it: a change makes another one.
    auth: Arc<Auth>,
    /// Counts changes of `members`, `alarms` and `cluster_version`, so that they are published only then.
    cluster_changes: u64,
    cluster_id: ClusterId,
    member_id: MemberId,
    applied: RaftIndex,
    applied_term: Term,
    conf_state: ConfState,
    /// The members have changed and Raft's configuration has not yet followed.
    conf_state_due: bool,
    pub(crate) checkpoint: checkpoint::Progress,
    pub(crate) tally: Tally,
}

impl State {
    /// Restores the state from the page file: scans every row once, rebuilds the key index and
    /// compares counters and digest with what the file says they are.
    ///
    /// # Errors
    /// [`Error::Page`] and [`Error::Corrupt`] name what is damaged.
    pub fn restore(page: Arc<PageFile>) -> Result<Self, Error> {
        let meta = page.meta();
        let reader = page.reader()?;
        let removed = reader.table(Table::MembersRemoved)?;
        let members = Members::load(&reader.table(Table::Members)?, &removed)?;
        let alarms = Alarms::load(&reader.table(Table::Alarms)?)?;
        let mut leases = Leases::load(&reader.table(Table::Leases)?)?;
        let cluster_version = ClusterVersion::load(&reader.table(Table::Cluster)?)?;
        let auth = Auth::load(
            &reader.table(Table::Auth)?,
            &reader.table(Table::AuthUsers)?,
            &reader.table(Table::AuthRoles)?,
        )?;
        drop(reader);

        let index = restore::index(&page, &meta, &mut leases)?;
        let compacted = meta.scheduled_compact.max(meta.finished_compact);
        let store = Store::new(index, Arc::clone(&page), leases, meta.revision, compacted);
        let mut checkpoint = checkpoint::Progress::new(&meta);
        if meta.scheduled_compact > meta.finished_compact {
            checkpoint.compaction = Some(Compaction::new(meta.scheduled_compact, None));
        }
        Ok(Self {
            store,
            members,
            alarms,
            cluster_version,
            auth: Arc::new(auth),
            cluster_changes: 0,
            cluster_id: ClusterId::new(meta.cluster_id),
            member_id: MemberId::new(meta.member_id),
            applied: RaftIndex::new(meta.consistent_index),
            applied_term: Term::new(meta.term),
            conf_state: meta.conf_state,
            conf_state_due: false,
            checkpoint,
            tally: Tally::default(),
        })
    }

    /// The key-value store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The leases and the keys attached to them.
    pub fn leases(&self) -> &Leases {
        self.store.leases()
    }

    pub(crate) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    /// What apply has done since the start.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Goes on counting where `old`, which this state takes the place of, has stopped.
    pub fn count_on_from(&mut self, old: &State) {
        self.tally = old.tally.clone();
    }

    /// Pins the current state for readers.
    pub fn view(&self) -> View {
        self.store.view()
    }

    /// The members.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The active alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// Users and roles. Another one after each change.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    pub(crate) fn auth_mut(&mut self) -> &mut Arc<Auth> {
        &mut self.auth
    }

    /// The cluster version (`3.7.0`), once decided.
    pub fn cluster_version(&self) -> Option<Version> {
        self.cluster_version.version
    }

    /// The version that a downgrade under way leads to.
    pub fn downgrade(&self) -> Option<Version> {
        self.cluster_version.downgrade
    }

    /// How often members, alarms, cluster version or downgrade have changed since the start.
    pub fn cluster_changes(&self) -> u64 {
        self.cluster_changes
    }

    /// The cluster that the state belongs to.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The member that the state belongs to.
    pub fn member_id(&self) -> MemberId {
        self.member_id
    }

    /// The last applied entry.
    pub fn applied(&self) -> RaftIndex {
        self.applied
    }

    /// The term of the last applied entry.
    pub fn applied_term(&self) -> Term {
        self.applied_term
    }

    /// Raft's configuration as of the last applied entry; empty in a member that is to join and has
    /// applied nothing.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// Takes note of Raft's configuration after a change that was just
    /// [applied](State::apply_membership). It is stored with the members, in the same checkpoint.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
        self.conf_state_due = false;
        self.checkpoint.touched = true;
    }

    /// # Panics
    /// The entry at `index` is not the next one to be applied.
    pub(crate) fn expect_next(&self, index: u64, term: u64) {
        assert!(
            index == self.applied().get() + 1,
            "apply gap: applied {}, entry {index} of term {term}",
            self.applied()
        );
        self.expect_conf_state();
    }

    /// # Panics
    /// Raft's configuration does not fit the members.
    pub(crate) fn expect_conf_state(&self) {
        assert!(
            !self.conf_state_due,
            "entry {} has changed the members, and raft's configuration did not follow",
            self.applied()
        );
    }

    pub(crate) fn advance(&mut self, index: u64, term: u64) {
        self.applied = RaftIndex::new(index);
        self.applied_term = Term::new(term);
        self.checkpoint.touched = true;
    }

    pub(crate) fn set_cluster_version(&mut self, version: Version) {
        let row = self.cluster_version.set_version(version);
        self.checkpoint.tables.push(row);
        self.cluster_changes += 1;
    }

    pub(crate) fn set_downgrade(&mut self, target: Option<Version>) {
        let row = self.cluster_version.set_downgrade(target);
        self.checkpoint.tables.push(row);
        self.cluster_changes += 1;
    }

    pub(crate) fn set_member_attributes(&mut self, id: u64, own: Option<Attributes>) {
        self.checkpoint
            .tables
            .extend(self.members.set_attributes(id, own));
        self.cluster_changes += 1;
    }

    pub(crate) fn change_members(&mut self, action: &MembershipAction) {
        let rows = self.members.change(action);
        self.checkpoint.tables.extend(rows);
        self.cluster_changes += 1;
        self.conf_state_due = !matches!(action, MembershipAction::Update { .. });
    }

    pub(crate) fn apply_alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let (answer, row) = self.alarms.apply(request);
        self.tally.alarms(request, &answer);
        self.cluster_changes += u64::from(row.is_some());
        self.checkpoint.tables.extend(row);
        answer
    }

    pub(crate) fn schedule_compaction(&mut self, revision: i64) {
        let previous = self.store.compacted();
        self.store.compact(revision);
        self.checkpoint.schedule(revision, previous);
    }

    /// The rows of members, alarms, versions, users and roles, which the page file may not have yet.
    pub(crate) fn cluster_rows(&self) -> Vec<TableWrite> {
        let rows = self.members.rows().chain(self.alarms.rows());
        let rows = rows.chain(self.cluster_version.rows());
        rows.chain(self.auth.rows()).collect()
    }

    /// The digest of all rows, as the page file will hold it once everything is checkpointed:
    /// equal states have equal digests. Costs a checkpointed state nothing, others a walk over the
    /// recent rows.
    pub fn digest(&self) -> u64 {
        let meta = self.store.page().meta();
        self.store
            .recent()
            .between(meta.revision, i64::MAX)
            .fold(meta.digest, |digest, row| {
                digest.wrapping_add(digest_of(row.revision, row.tombstone, &row.record))
            })
    }
}

fn digest_of(revision: Revision, tombstone: bool, record: &[u8]) -> u64 {
    page::record_digest(
        RowId {
            revision,
            tombstone,
        },
        record,
    )
    .expect("a revision that was applied or read from the file has a key")
}

/// The answer to a range read that failed although the view serves its revision: the compacted
/// error if a compaction has overtaken the reader, else damage.
///
/// # Errors
/// [`Error`]: this member's storage is damaged or failed.
pub fn overtaken(error: RangeError, at: i64, compacted: i64) -> Result<ferrite_api::Error, Error> {
    match error {
        RangeError::Compacted { .. } => Ok(ferrite_api::Error::Compacted),
        RangeError::Future { .. } => Ok(ferrite_api::Error::FutureRev),
        RangeError::Missing(_) if at < compacted => Ok(ferrite_api::Error::Compacted),
        RangeError::Missing(revision) => Err(Error::Corrupt {
            what: format!("the index names row {revision}, the page file lacks it"),
        }),
        RangeError::Storage(error) => Err(error),
    }
}
