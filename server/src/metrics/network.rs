//! `etcd_network_*` (spec/metrics.md section 2). The peer families have no series until there are
//! peers.

use ferrite_api::types::MemberId;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::register::{Registrar, doubling};

/// `etcd_network_*`. Label values are member ids in hex.
pub struct NetworkMetrics {
    /// Bytes of gRPC messages sent to clients (encoded messages, without framing).
    pub client_grpc_sent_bytes: IntCounter,
    /// Bytes of gRPC messages received from clients.
    pub client_grpc_received_bytes: IntCounter,
    /// Streams that broke, by `Type` (`receive`, `send`) and `API` (`watch`, `lease-keepalive`).
    /// A client that cancels does not count.
    pub server_stream_failures: IntCounterVec,
    /// 1 per known member, `Local` and `Remote`, the own id included.
    pub known_peers: IntGaugeVec,
    /// 1 while a connection to the peer is healthy.
    pub active_peers: IntGaugeVec,
    /// Healthy connections that broke.
    pub disconnected_peers: IntCounterVec,
    /// Raft bytes sent, by `To`.
    pub peer_sent_bytes: IntCounterVec,
    /// Raft bytes received, by `From`.
    pub peer_received_bytes: IntCounterVec,
    /// Messages that could not be sent, by `To`.
    pub peer_sent_failures: IntCounterVec,
    /// Messages that could not be received, by `From`.
    pub peer_received_failures: IntCounterVec,
    /// Round-trip time of probes, by `To`.
    pub peer_round_trip_time: HistogramVec,
    /// Snapshots sent, by `To`.
    pub snapshot_send_success: IntCounterVec,
    /// Snapshots that could not be sent, by `To`.
    pub snapshot_send_failures: IntCounterVec,
    /// Snapshots being sent, by `To`.
    pub snapshot_send_inflights: IntGaugeVec,
    /// Time to send a snapshot, by `To`.
    pub snapshot_send_total_duration: HistogramVec,
    /// Snapshots received, by `From`.
    pub snapshot_receive_success: IntCounterVec,
    /// Snapshots that could not be received, by `From`.
    pub snapshot_receive_failures: IntCounterVec,
    /// Snapshots being received, by `From`.
    pub snapshot_receive_inflights: IntGaugeVec,
    /// Time to receive a snapshot, by `From`.
    pub snapshot_receive_total_duration: HistogramVec,
}

/// The series of one peer.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    /// Whether it is a member.
    pub known: IntGauge,
    /// Whether there is a connection to it.
    pub active: IntGauge,
    /// Connections to it that broke.
    pub disconnected: IntCounter,
    /// Bytes sent to it.
    pub sent_bytes: IntCounter,
    /// Messages to it that were dropped.
    pub sent_failures: IntCounter,
    /// Bytes received from it.
    pub received_bytes: IntCounter,
    /// Streams and snapshots from it that broke.
    pub received_failures: IntCounter,
    /// Round-trip time of probes.
    pub round_trip_time: Histogram,
    /// Snapshots to it and from it.
    pub snapshots: SnapshotMetrics,
}

/// The series about snapshots of one peer.
#[derive(Clone, Debug)]
pub struct SnapshotMetrics {
    /// Being sent.
    pub sending: IntGauge,
    /// Sent.
    pub sent: IntCounter,
    /// Not sent.
    pub send_failures: IntCounter,
    /// Seconds to send one.
    pub send_seconds: Histogram,
    /// Being received.
    pub receiving: IntGauge,
    /// Received.
    pub received: IntCounter,
    /// Not received.
    pub receive_failures: IntCounter,
    /// Seconds to receive one.
    pub receive_seconds: Histogram,
}

impl NetworkMetrics {
    /// The series of a peer of the member `local`.
    pub fn peer(&self, local: MemberId, peer: MemberId) -> PeerMetrics {
        let (local, peer) = (local.to_string(), peer.to_string());
        let pair = &[local.as_str(), peer.as_str()];
        let peer = &[peer.as_str()];
        PeerMetrics {
            known: self.known_peers.with_label_values(pair),
            active: self.active_peers.with_label_values(pair),
            disconnected: self.disconnected_peers.with_label_values(pair),
            sent_bytes: self.peer_sent_bytes.with_label_values(peer),
            sent_failures: self.peer_sent_failures.with_label_values(peer),
            received_bytes: self.peer_received_bytes.with_label_values(peer),
            received_failures: self.peer_received_failures.with_label_values(peer),
            round_trip_time: self.peer_round_trip_time.with_label_values(peer),
            snapshots: SnapshotMetrics {
                sending: self.snapshot_send_inflights.with_label_values(peer),
                sent: self.snapshot_send_success.with_label_values(peer),
                send_failures: self.snapshot_send_failures.with_label_values(peer),
                send_seconds: self.snapshot_send_total_duration.with_label_values(peer),
                receiving: self.snapshot_receive_inflights.with_label_values(peer),
                received: self.snapshot_receive_success.with_label_values(peer),
                receive_failures: self.snapshot_receive_failures.with_label_values(peer),
                receive_seconds: self.snapshot_receive_total_duration.with_label_values(peer),
            },
        }
    }

    pub(super) fn new(r: &Registrar<'_>) -> Self {
        let (pair, to, from) = (&["Local", "Remote"][..], &["To"][..], &["From"][..]);
        Self {
            client_grpc_sent_bytes: r.counter(
                "etcd_network_client_grpc_sent_bytes_total",
                "Bytes of gRPC messages sent to clients.",
            ),
            client_grpc_received_bytes: r.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of gRPC messages received from clients.",
            ),
            server_stream_failures: r.counter_vec(
                "etcd_network_server_stream_failures_total",
                "Client streams that broke.",
                &["Type", "API"],
            ),
            known_peers: r.gauge_vec(
                "etcd_network_known_peers",
                "1 for every member of the cluster.",
                pair,
            ),
            active_peers: r.gauge_vec(
                "etcd_network_active_peers",
                "1 while the connection to the peer is healthy.",
                pair,
            ),
            disconnected_peers: r.counter_vec(
                "etcd_network_disconnected_peers_total",
                "Healthy peer connections that broke.",
                pair,
            ),
            peer_sent_bytes: r.counter_vec(
                "etcd_network_peer_sent_bytes_total",
                "Bytes sent to peers.",
                to,
            ),
            peer_received_bytes: r.counter_vec(
                "etcd_network_peer_received_bytes_total",
                "Bytes received from peers.",
                from,
            ),
            peer_sent_failures: r.counter_vec(
                "etcd_network_peer_sent_failures_total",
                "Messages to peers that failed or were dropped.",
                to,
            ),
            peer_received_failures: r.counter_vec(
                "etcd_network_peer_received_failures_total",
                "Messages from peers that failed or were dropped.",
                from,
            ),
            peer_round_trip_time: r.histogram_vec(
                "etcd_network_peer_round_trip_time_seconds",
                "Round-trip time to peers.",
                to,
                doubling(0.0001, 16),
            ),
            snapshot_send_success: r.counter_vec(
                "etcd_network_snapshot_send_success",
                "Snapshots sent to peers.",
                to,
            ),
            snapshot_send_failures: r.counter_vec(
                "etcd_network_snapshot_send_failures",
                "Snapshots that could not be sent.",
                to,
            ),
            snapshot_send_inflights: r.gauge_vec(
                "etcd_network_snapshot_send_inflights_total",
                "Snapshots being sent.",
                to,
            ),
            snapshot_send_total_duration: r.histogram_vec(
                "etcd_network_snapshot_send_total_duration_seconds",
                "Time to send a snapshot.",
                to,
                doubling(0.1, 10),
            ),
            snapshot_receive_success: r.counter_vec(
                "etcd_network_snapshot_receive_success",
                "Snapshots received from peers.",
                from,
            ),
            snapshot_receive_failures: r.counter_vec(
                "etcd_network_snapshot_receive_failures",
                "Snapshots that could not be received.",
                from,
            ),
            snapshot_receive_inflights: r.gauge_vec(
                "etcd_network_snapshot_receive_inflights_total",
                "Snapshots being received.",
                from,
            ),
            snapshot_receive_total_duration: r.histogram_vec(
                "etcd_network_snapshot_receive_total_duration_seconds",
                "Time to receive a snapshot.",
                from,
                doubling(0.1, 10),
            ),
        }
    }
}
