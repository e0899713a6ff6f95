//! Maintenance.Snapshot: pieces of a file, then its checksum.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;

use super::Kv;
use super::stream::{Requests, Responses, Streaming};
use crate::error::Error;
use crate::handle::snapshot::Piece;
use crate::metrics::Method;

/// Bytes of the file in a message: as many as etcd sends.
const BLOB_BYTES: usize = 32 * 1024;

/// Maintenance.Snapshot.
pub(super) struct Snapshot;

impl Streaming for Snapshot {
    const METHOD: Method = Method::MaintenanceSnapshot;
    type Request = pb::SnapshotRequest;
    type Response = pb::SnapshotResponse;

    const SERVES_LEARNER: bool = true;

    async fn serve<K: Kv>(
        kv: K,
        requests: Requests<pb::SnapshotRequest>,
        responses: Responses<pb::SnapshotResponse>,
    ) -> Result<(), Error> {
        requests.only().await?;
        let mut snapshot = kv.snapshot().await?;
        let (mut remaining_bytes, version) = (snapshot.bytes(), snapshot.version().to_owned());
        while let Some(piece) = snapshot.next().await {
            let mut piece = match piece? {
                Piece::Data(piece) => piece,
                Piece::Checksum(sum) => Bytes::copy_from_slice(&sum),
            };
            while !piece.is_empty() {
                let blob = piece.split_to(piece.len().min(BLOB_BYTES));
                // The checksum is not counted.
                remaining_bytes = remaining_bytes.saturating_sub(blob.len() as u64);
                let response = pb::SnapshotResponse {
                    header: None,
                    remaining_bytes,
                    blob,
                    version: version.clone(),
                };
                responses.send(&response).await?;
            }
        }
        Ok(())
    }
}
