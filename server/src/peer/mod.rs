//! How members reach each other.
//!
//! A [`Member`](crate::member::Member) says what to send to whom; what carries it is a [`Transport`]:
//! sockets in production, a seeded network in simulation. What arrives goes to a [`Sink`].
//!
//! The contract, on which consensus relies:
//! * A message is delivered at most once, whatever happens to connections. It may be lost, and
//!   messages may overtake each other.
//! * Sending never blocks. A peer that is slow or gone costs what is queued for it, which is bounded;
//!   beyond that, messages to it are dropped.
//! * The sender that a [`Sink`] is told is a member of this cluster.

mod backoff;
mod call;
mod dial;
mod frame;
mod hash_kv;
mod identity;
mod link;
mod listen;
mod message;
mod offer;
mod pages;
mod probe;
mod pulse;
mod questions;
mod receive;
mod remote;
mod sessions;
mod shared;
mod snapshot;
mod socket;
mod sockets;
mod via;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use ferrite_api::types::MemberId;

pub use call::CallError;
pub use hash_kv::{HashAnswer, NoHash, RemoteHash};
pub use message::{Forwarded, Malformed, Message, ReadMessage};
pub use pages::{Asking, Directory, MemberInfo};
pub use questions::AskError;
pub use remote::{
    NoAnswer, RemoteCluster, RemoteVersions, fetch_downgrade_enabled, fetch_members, fetch_version,
};
pub use shared::Connections;
pub use sockets::{Options, Peers, Sockets, start};
pub use via::Via;

/// Where streams between members begin.
const STREAM_PATH: &str = "/ferrite/stream";

/// Where a member offers another a stream to write to.
const OFFER_PATH: &str = "/ferrite/offer";

/// What they speak.
const PROTOCOL: &str = "ferrite-peer/1";

/// Another member, and where it listens for its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: MemberId,
    /// Its peer URLs; any of them will do.
    pub urls: Vec<String>,
}

/// The content of a snapshot on its way out, read piece by piece on a thread that may block.
pub trait SnapshotSource: Send {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The snapshot cannot be finished; the text says why. The receiver discards what it has.
    fn next(&mut self) -> Result<Option<Bytes>, String>;

    /// About how many bytes there will be, for progress.
    fn size_hint(&self) -> u64;
}

/// Carries messages to other members.
pub trait Transport {
    /// Says who the other members are from now on. Connections to others end; peers that were
    /// removed from the cluster for good are told so when they call.
    fn set_peers(&mut self, peers: Vec<Peer>, removed: Vec<MemberId>);

    /// Sends a message. One to an unknown peer is dropped. It may be held back until
    /// [`Transport::flush`].
    fn send(&mut self, to: MemberId, message: Message);

    /// Lets go what was held back: to be called when nothing more is to be sent for now. A transport
    /// that holds nothing back need not do anything.
    fn flush(&mut self) {}

    /// Sends a snapshot, `message` being what consensus says of it. The result goes to
    /// [`Sink::snapshot_sent`].
    fn send_snapshot(&mut self, to: MemberId, message: Bytes, source: Box<dyn SnapshotSource>);
}

/// The answer to a question, once it is there.
pub type Answering = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// Where a transport delivers.
pub trait Sink: Send + Sync + 'static {
    /// Messages from a member, in the order in which they arrived.
    fn deliver(&self, from: MemberId, messages: Vec<Message>);

    /// A peer can be reached, or cannot any more, or not as fast as messages were sent: some were
    /// dropped. In the beginning none can; the same may be told again.
    fn reachable(&self, peer: MemberId, reachable: bool);

    /// A peer says that this member was removed from the cluster for good. Each says so once.
    fn removed(&self, by: MemberId);

    /// A snapshot has been delivered to a peer that took it, or has failed.
    fn snapshot_sent(&self, to: MemberId, taken: bool);

    /// Takes a snapshot in, on a thread that may block. `pieces` gives what the sender's
    /// [`SnapshotSource`] gave, `None` at the end.
    ///
    /// # Errors
    /// It was not taken; the text says why and goes back to the sender.
    fn receive_snapshot(
        &self,
        from: MemberId,
        message: Bytes,
        pieces: &mut dyn FnMut() -> Result<Option<Bytes>, String>,
    ) -> Result<(), String>;

    /// Answers a question of a peer; what both mean is not the transport's business.
    fn answer(&self, from: MemberId, question: Bytes) -> Answering;
}
