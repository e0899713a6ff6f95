//! `etcd_disk_*`, `etcd_snap_*`, `etcd_mvcc_*` and the debugging metrics of the store, of watches
//! and of leases (spec/metrics.md sections 3 to 5).

use prometheus::{Histogram, IntCounter, IntGauge};

use super::register::{Registrar, doubling, millis};

/// `etcd_disk_*`.
pub struct DiskMetrics {
    /// One fdatasync of the WAL.
    pub wal_fsync_duration: Histogram,
    /// One write of records to the WAL, without the sync.
    pub wal_write_duration: Histogram,
    /// Bytes written to the WAL since the start.
    pub wal_write_bytes: IntGauge,
    /// One commit of the page file (a checkpoint).
    pub backend_commit_duration: Histogram,
    /// One defragmentation.
    pub backend_defrag_duration: Histogram,
    /// Streaming one backup.
    pub backend_snapshot_duration: Histogram,
    /// 1 while defragmenting.
    pub defrag_inflight: IntGauge,
}

impl DiskMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        for (name, help) in [
            (
                "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
                "A phase of bbolt commits; no such phase here, always empty.",
            ),
            (
                "etcd_debugging_disk_backend_commit_spill_duration_seconds",
                "A phase of bbolt commits; no such phase here, always empty.",
            ),
            (
                "etcd_debugging_disk_backend_commit_write_duration_seconds",
                "A phase of bbolt commits; no such phase here, always empty.",
            ),
        ] {
            r.histogram(name, help, millis());
        }
        Self {
            wal_fsync_duration: r.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Time of one sync of the write-ahead log.",
                millis(),
            ),
            wal_write_duration: r.histogram(
                "etcd_disk_wal_write_duration_seconds",
                "Time of one write to the write-ahead log, without the sync.",
                millis(),
            ),
            wal_write_bytes: r.gauge(
                "etcd_disk_wal_write_bytes_total",
                "Bytes written to the write-ahead log.",
            ),
            backend_commit_duration: r.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Time of one commit of the page file.",
                millis(),
            ),
            backend_defrag_duration: r.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Time of one defragmentation.",
                doubling(0.1, 13),
            ),
            backend_snapshot_duration: r.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Time to stream one backup.",
                doubling(0.01, 17),
            ),
            defrag_inflight: r.gauge("etcd_disk_defrag_inflight", "1 while defragmenting."),
        }
    }
}

/// `etcd_snap_*` and `etcd_debugging_snap_*`.
pub struct SnapMetrics {
    /// One sync of a snapshot's metadata file.
    pub fsync_duration: Histogram,
    /// Receiving and saving a leader's snapshot body.
    pub db_save_total_duration: Histogram,
    /// One sync of a received snapshot body.
    pub db_fsync_duration: Histogram,
    /// Encoding a snapshot.
    pub save_marshalling_duration: Histogram,
    /// Saving a snapshot.
    pub save_total_duration: Histogram,
}

impl SnapMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        Self {
            fsync_duration: r.histogram(
                "etcd_snap_fsync_duration_seconds",
                "Time of one sync of a snapshot file.",
                millis(),
            ),
            db_save_total_duration: r.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Time to receive and save the body of a leader's snapshot.",
                doubling(0.1, 10),
            ),
            db_fsync_duration: r.histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "Time of one sync of a received snapshot body.",
                millis(),
            ),
            save_marshalling_duration: r.histogram(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "Time to encode a snapshot.",
                millis(),
            ),
            save_total_duration: r.histogram(
                "etcd_debugging_snap_save_total_duration_seconds",
                "Time to save a snapshot.",
                millis(),
            ),
        }
    }
}

/// `etcd_mvcc_*` and the store's part of `etcd_debugging_mvcc_*`.
pub struct MvccMetrics {
    /// Storage ranges, each one inside a Txn too.
    pub range: IntCounter,
    /// Puts applied.
    pub put: IntCounter,
    /// Delete-range operations applied (not keys).
    pub delete: IntCounter,
    /// Storage transactions of more than one operation.
    pub txn: IntCounter,
    /// Allocated bytes of the page file.
    pub db_total_size: IntGauge,
    /// Live bytes of the page file.
    pub db_total_size_in_use: IntGauge,
    /// Open read transactions of the page file.
    pub db_open_read_transactions: IntGauge,
    /// Work of one Hash.
    pub hash_duration: Histogram,
    /// Work of one HashKV.
    pub hash_rev_duration: Histogram,
    /// Live keys in the index.
    pub keys: IntGauge,
    /// Pauses of the index by compaction, in milliseconds.
    pub index_compaction_pause: Histogram,
    /// One batch of a compaction, in milliseconds.
    pub db_compaction_pause: Histogram,
    /// One whole compaction, in milliseconds.
    pub db_compaction_total: Histogram,
    /// Unix seconds of the last finished compaction; 0 after start.
    pub db_compaction_last: IntGauge,
    /// Revisions removed by compaction.
    pub db_compaction_keys: IntCounter,
    /// The store's current revision.
    pub current_revision: IntGauge,
    /// The last compacted revision.
    pub compact_revision: IntGauge,
    /// Sum of key and value bytes of all puts.
    pub total_put_size: IntGauge,
}

impl MvccMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        Self {
            range: r.counter("etcd_mvcc_range_total", "Range operations on the store."),
            put: r.counter("etcd_mvcc_put_total", "Puts applied by this member."),
            delete: r.counter(
                "etcd_mvcc_delete_total",
                "Delete-range operations applied by this member.",
            ),
            txn: r.counter(
                "etcd_mvcc_txn_total",
                "Store transactions of more than one operation.",
            ),
            db_total_size: r.gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Bytes the page file takes on disk.",
            ),
            db_total_size_in_use: r.gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of the page file that hold live data.",
            ),
            db_open_read_transactions: r.gauge(
                "etcd_mvcc_db_open_read_transactions",
                "Read transactions open on the page file.",
            ),
            hash_duration: r.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Time to hash the whole page file.",
                doubling(0.01, 15),
            ),
            hash_rev_duration: r.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Time to hash the keys at a revision.",
                doubling(0.01, 15),
            ),
            keys: r.gauge("etcd_debugging_mvcc_keys_total", "Live keys in the index."),
            index_compaction_pause: r.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Pauses of the key index by compaction.",
                doubling(0.5, 14),
            ),
            db_compaction_pause: r.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Time of one batch of a compaction.",
                doubling(1.0, 13),
            ),
            db_compaction_total: r.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Time of one whole compaction.",
                doubling(100.0, 14),
            ),
            db_compaction_last: r.gauge(
                "etcd_debugging_mvcc_db_compaction_last",
                "Unix time in seconds of the last finished compaction.",
            ),
            db_compaction_keys: r.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Revisions removed by compaction.",
            ),
            current_revision: r.gauge(
                "etcd_debugging_mvcc_current_revision",
                "Current revision of the store.",
            ),
            compact_revision: r.gauge(
                "etcd_debugging_mvcc_compact_revision",
                "Last compacted revision of the store.",
            ),
            total_put_size: r.gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of keys and values put by this member.",
            ),
        }
    }
}

/// Watch streams and watchers: `etcd_debugging_mvcc_*watch*`, the send loop, and
/// `etcd_network_server_stream_failures_total` (in [`super::NetworkMetrics`]).
pub struct WatchMetrics {
    /// Open watch streams.
    pub streams: IntGauge,
    /// Watchers.
    pub watchers: IntGauge,
    /// Watchers that are catching up.
    pub slow_watchers: IntGauge,
    /// Events handed to clients.
    pub events: IntCounter,
    /// Events waiting to be handed over.
    pub pending_events: IntGauge,
    /// Handing one watch response to a stream.
    pub send_stream: Histogram,
    /// The same divided by the number of its events.
    pub send_stream_per_event: Histogram,
    /// Handing over one created or cancelled response.
    pub send_control: Histogram,
    /// Handing over one progress notification.
    pub send_progress: Histogram,
}

impl WatchMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        Self {
            streams: r.gauge(
                "etcd_debugging_mvcc_watch_stream_total",
                "Open watch streams.",
            ),
            watchers: r.gauge("etcd_debugging_mvcc_watcher_total", "Watchers."),
            slow_watchers: r.gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watchers that are catching up.",
            ),
            events: r.counter(
                "etcd_debugging_mvcc_events_total",
                "Events handed to clients.",
            ),
            pending_events: r.gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Events waiting to be handed to clients.",
            ),
            send_stream: r.histogram(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
                "Time to hand one watch response to its stream.",
                millis(),
            ),
            send_stream_per_event: r.histogram(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
                "Time to hand one watch response to its stream, per event.",
                millis(),
            ),
            send_control: r.histogram(
                "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
                "Time to hand one control response to its stream.",
                millis(),
            ),
            send_progress: r.histogram(
                "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
                "Time to hand one progress notification to its stream.",
                millis(),
            ),
        }
    }
}

/// `etcd_debugging_lease_*`.
pub struct LeaseMetrics {
    /// Leases granted.
    pub granted: IntCounter,
    /// Leases revoked.
    pub revoked: IntCounter,
    /// Keep-alives answered by this member as leader.
    pub renewed: IntCounter,
    /// TTL of granted leases, in seconds.
    pub ttl: Histogram,
}

impl LeaseMetrics {
    pub(super) fn new(r: &Registrar<'_>) -> Self {
        Self {
            granted: r.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            revoked: r.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            renewed: r.counter(
                "etcd_debugging_lease_renewed_total",
                "Leases renewed by this member as leader.",
            ),
            ttl: r.histogram(
                "etcd_debugging_lease_ttl_total",
                "Time to live of granted leases, in seconds.",
                doubling(1.0, 24),
            ),
        }
    }
}
