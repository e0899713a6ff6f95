//! What one commit changes.

use bytes::Bytes;
use ferrite_api::types::Revision;

/// A table of small rows. The file has one more, [`REVISIONS`](super::REVISIONS).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Members by id.
    Members,
    /// Ids of removed members: never reused.
    MembersRemoved,
    /// Leases by id.
    Leases,
    /// Authentication: enabled, revision.
    Auth,
    /// Users by name.
    AuthUsers,
    /// Roles by name.
    AuthRoles,
    /// Raised alarms.
    Alarms,
    /// Cluster version, downgrade.
    Cluster,
}

impl Table {
    /// All tables of small rows, in the order in which they are verified.
    pub const ALL: [Self; 8] = [
        Self::Members,
        Self::MembersRemoved,
        Self::Leases,
        Self::Auth,
        Self::AuthUsers,
        Self::AuthRoles,
        Self::Alarms,
        Self::Cluster,
    ];

    /// The name in the file and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Leases => "leases",
            Self::Auth => "auth",
            Self::AuthUsers => "auth_users",
            Self::AuthRoles => "auth_roles",
            Self::Alarms => "alarms",
            Self::Cluster => "cluster",
        }
    }
}

/// One row of the key space: the record of a change, which never changes itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowWrite {
    /// The position of the change. `main >= 0`, `0 <= sub < 2^32`.
    pub revision: Revision,
    /// Whether the change is a deletion.
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue`; opaque here.
    pub record: Bytes,
}

/// A row to remove, as compaction names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowId {
    /// The position of the change.
    pub revision: Revision,
    /// Whether the change is a deletion.
    pub tombstone: bool,
}

/// A change of a table of small rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableWrite {
    /// Adds or replaces a row.
    Put {
        /// The table.
        table: Table,
        /// The key of the row.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a row; one that is not there is fine.
    Delete {
        /// The table.
        table: Table,
        /// The key of the row.
        key: Bytes,
    },
    /// Removes every row of a table.
    Clear {
        /// The table.
        table: Table,
    },
}

impl TableWrite {
    /// Adds or replaces a row.
    pub fn put(table: Table, key: Bytes, value: Bytes) -> Self {
        Self::Put { table, key, value }
    }

    /// Removes a row.
    pub fn delete(table: Table, key: Bytes) -> Self {
        Self::Delete { table, key }
    }

    /// The table that is changed.
    pub fn table(&self) -> Table {
        match self {
            Self::Put { table, .. } | Self::Delete { table, .. } | Self::Clear { table } => *table,
        }
    }
}

/// New values for [`Meta`](super::Meta); `None` keeps the old one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetaUpdate {
    /// The raft index of the last entry whose effects are in the file after this commit.
    pub consistent_index: Option<u64>,
    /// The term of that entry.
    pub term: Option<u64>,
    /// The store revision after that entry.
    pub revision: Option<i64>,
    /// The newest compaction that was applied.
    pub scheduled_compact: Option<i64>,
    /// The newest compaction whose rows are all removed.
    pub finished_compact: Option<i64>,
    /// etcd's storage version, such as `3.7.0`.
    pub storage_version: Option<String>,
    /// The raft configuration as of the entry.
    pub conf_state: Option<ConfState>,
}

/// Who takes part in consensus, by member id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConfState {
    /// Voters of the (incoming) configuration.
    pub voters: Vec<u64>,
    /// Members that receive the log and do not vote.
    pub learners: Vec<u64>,
    /// Voters of the outgoing configuration while a joint change is under way.
    pub voters_outgoing: Vec<u64>,
    /// Members that become learners when the joint change ends.
    pub learners_next: Vec<u64>,
    /// Whether the leader ends the joint change by itself.
    pub auto_leave: bool,
}

/// What one commit changes, all of it or nothing: new rows, then removed rows, then small tables,
/// then the meta record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// New rows in ascending order of revision. Writing a row that is there already with the same
    /// record changes nothing; with another record it is [`Error::Corrupt`](super::Error).
    pub rows: Vec<RowWrite>,
    /// Rows to remove, in ascending order. Rows that are not there are fine.
    pub remove: Vec<RowId>,
    /// Changes of the small tables, done in this order.
    pub tables: Vec<TableWrite>,
    /// Changes of the meta record.
    pub meta: MetaUpdate,
}

/// What a new page file starts with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Initial {
    /// The cluster that the file belongs to.
    pub cluster_id: u64,
    /// The member that the file belongs to.
    pub member_id: u64,
    /// First values of the meta record. Defaults: index and term 0, revision 1, compactions -1,
    /// storage version `3.7.0`, no members.
    pub meta: MetaUpdate,
    /// First rows of the small tables.
    pub tables: Vec<TableWrite>,
}
