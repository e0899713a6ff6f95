//! Members that talk over real sockets on this machine. Nothing here waits for time to pass: `soon`
//! only keeps a test that fails from hanging.

mod delivery;
mod metrics;
mod pages;
mod questions;
mod raw;
mod reconnect;
mod refusals;
mod secure;
mod sessions;
mod snapshots;

use std::future::{Future, pending, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::{ClusterId, MemberId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::Code;

use super::{
    Answering, Asking, Directory, HashAnswer, MemberInfo, Message, Options, Peer, Peers, Sink,
    Sockets, Transport, start,
};
use crate::error::Error;
use crate::handle::Versions;
use crate::metrics::Metrics;
use crate::serve::{Listener, Serves};

const CLUSTER: ClusterId = ClusterId::new(0xc1);

/// What a sink is told.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Delivered(MemberId, Message),
    Reachable(MemberId, bool),
    Removed(MemberId),
    SnapshotSent(MemberId, bool),
    /// A snapshot has begun to arrive.
    SnapshotBegun(MemberId),
    /// What came of a snapshot here: the message, the pieces and how it ended.
    Snapshot(MemberId, Bytes, Vec<Bytes>, Result<(), String>),
}

/// What a sink does with snapshots.
#[derive(Clone, Copy, Debug, Default)]
enum Snapshots {
    #[default]
    Take,
    /// After so many pieces.
    Refuse(usize),
}

/// Passes on what it is told.
struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    snapshots: Arc<Mutex<Snapshots>>,
}

impl Recorder {
    fn tell(&self, event: Event) {
        // A test that is over does not listen.
        let _ = self.events.send(event);
    }
}

impl Sink for Recorder {
    fn deliver(&self, from: MemberId, messages: Vec<Message>) {
        for message in messages {
            self.tell(Event::Delivered(from, message));
        }
    }

    fn reachable(&self, peer: MemberId, reachable: bool) {
        self.tell(Event::Reachable(peer, reachable));
    }

    fn removed(&self, by: MemberId) {
        self.tell(Event::Removed(by));
    }

    fn snapshot_sent(&self, to: MemberId, taken: bool) {
        self.tell(Event::SnapshotSent(to, taken));
    }

    fn receive_snapshot(
        &self,
        from: MemberId,
        message: Bytes,
        pieces: &mut dyn FnMut() -> Result<Option<Bytes>, String>,
    ) -> Result<(), String> {
        self.tell(Event::SnapshotBegun(from));
        let snapshots = *self.snapshots.lock();
        let mut taken = Vec::new();
        let result = loop {
            if let Snapshots::Refuse(after) = snapshots
                && taken.len() == after
            {
                break Err("no room here".to_owned());
            }
            match pieces() {
                Ok(Some(piece)) => taken.push(piece),
                Ok(None) => break Ok(()),
                Err(text) => break Err(text),
            }
        };
        self.tell(Event::Snapshot(from, message, taken, result.clone()));
        result
    }

    /// `never` is never answered, everything else by itself and who asks.
    fn answer(&self, from: MemberId, question: Bytes) -> Answering {
        if question == "never" {
            return Box::pin(pending());
        }
        let mut answer = BytesMut::from(&question[..]);
        answer.put_slice(from.to_string().as_bytes());
        Box::pin(ready(answer.freeze()))
    }
}

/// A cluster of three, one of which has not introduced itself.
struct Book;

impl Directory for Book {
    fn members(&self) -> Vec<MemberInfo> {
        let member = |id, name: &str| MemberInfo {
            id: MemberId::new(id),
            peer_urls: vec![format!("http://{id}:2380")],
            is_learner: id == 2,
            name: name.to_owned(),
            client_urls: vec![format!("http://{id}:2379"); name.len().min(1)],
        };
        vec![
            member(u64::MAX, "<b> & \"c\""),
            member(1, ""),
            member(2, "two"),
        ]
    }

    /// Compacted to 5, and at 7, where hashing fails.
    fn hash_kv(&self, revision: i64) -> HashAnswer {
        let answer = match revision {
            ..5 => Err(ApiError::Compacted.into()),
            5 | 6 => Ok(pb::HashKvResponse {
                header: Some(pb::ResponseHeader {
                    revision: 7,
                    ..Default::default()
                }),
                hash: 0xffff_fff0,
                compact_revision: if revision == 5 { 0 } else { 5 },
                hash_revision: revision,
            }),
            7 => Err(Error::status(Code::DataLoss, "row 7 is damaged")),
            _ => Err(ApiError::FutureRev.into()),
        };
        Box::pin(ready(answer))
    }

    fn versions(&self) -> Versions {
        Versions {
            server: "3.7.1".to_owned(),
            cluster: None,
            storage: Some("3.7.0".to_owned()),
        }
    }

    fn downgrade_enabled(&self) -> Asking {
        Box::pin(async { Ok(true) })
    }
}

/// A member that does nothing but talk.
struct Node {
    id: MemberId,
    url: String,
    sockets: Sockets,
    peers: Peers,
    events: mpsc::UnboundedReceiver<Event>,
    snapshots: Arc<Mutex<Snapshots>>,
    metrics: Arc<Metrics>,
}

fn id(number: u64) -> MemberId {
    MemberId::new(number)
}

fn options(number: u64) -> Options {
    Options::new(CLUSTER, id(number))
}

impl Node {
    async fn start(number: u64) -> Self {
        Self::start_with(options(number)).await
    }

    async fn start_with(options: Options) -> Self {
        let listener = Listener::tcp("127.0.0.1:0", Serves::Http).await.unwrap();
        let url = format!("http://{}", listener.address());
        Self::start_at(options, listener, url)
    }

    fn start_at(options: Options, listener: Listener, url: String) -> Self {
        let (events, recorded) = mpsc::unbounded_channel();
        let snapshots = Arc::default();
        let sink = Arc::new(Recorder {
            events,
            snapshots: Arc::clone(&snapshots),
        });
        let metrics = Metrics::new(crate::metrics::Options::default());
        let id = options.member_id;
        let listeners = vec![listener];
        let book = Arc::new(Book);
        let (sockets, peers) = start(options, listeners, sink, book, Arc::clone(&metrics));
        Self {
            id,
            url,
            sockets,
            peers,
            events: recorded,
            snapshots,
            metrics,
        }
    }

    /// Where others find it.
    fn peer(&self) -> Peer {
        self.at(&self.url)
    }

    /// The same behind another URL.
    fn at(&self, url: &str) -> Peer {
        Peer {
            id: self.id,
            urls: vec![url.to_owned()],
        }
    }

    fn meet(&mut self, peers: &[Peer]) {
        self.sockets.set_peers(peers.to_vec(), Vec::new());
    }

    fn send(&mut self, to: MemberId, message: Message) {
        self.sockets.send(to, message);
        self.sockets.flush();
    }

    async fn event(&mut self) -> Event {
        soon(self.events.recv()).await.unwrap()
    }

    /// The next message and who sent it.
    async fn delivered(&mut self) -> (MemberId, Message) {
        loop {
            if let Event::Delivered(from, message) = self.event().await {
                return (from, message);
            }
        }
    }

    /// Waits until the sink is told so.
    async fn wait_reachable(&mut self, peer: MemberId, reachable: bool) {
        self.wait_for(&Event::Reachable(peer, reachable)).await;
    }

    /// Waits for an event, and returns those before it.
    async fn wait_for(&mut self, expected: &Event) -> Vec<Event> {
        let mut before = Vec::new();
        loop {
            let event = self.event().await;
            if event == *expected {
                return before;
            }
            before.push(event);
        }
    }
}

/// Two members that have met.
async fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::start(0xa).await, Node::start(0xb).await);
    a.meet(&[b.peer()]);
    b.meet(&[a.peer()]);
    a.wait_reachable(b.id, true).await;
    b.wait_reachable(a.id, true).await;
    (a, b)
}

/// A message that carries a number and has some length.
fn numbered(number: u64, length: usize) -> Message {
    let mut bytes = BytesMut::new();
    bytes.put_u64(number);
    bytes.resize(8 + length, u8::try_from(number % 251).unwrap());
    Message::Raft(bytes.freeze())
}

/// The number in a message, whose bytes must be as they were sent.
fn number(message: &Message) -> u64 {
    let Message::Raft(bytes) = message else {
        panic!("not a numbered message: {message:?}");
    };
    let number = bytes.clone().get_u64();
    assert_eq!(*message, numbered(number, bytes.len() - 8));
    number
}

/// Waits, but not for ever.
async fn soon<F: Future>(future: F) -> F::Output {
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, future)
        .await
        .expect("it should have happened by now")
}
