//! The transport over sockets, put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::types::{ClusterId, MemberId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::dial;
use super::hash_kv::{self, NoHash, RemoteHash};
use super::identity::Identity;
use super::link::Link;
use super::listen;
use super::offer;
use super::pages::Directory;
use super::probe;
use super::questions::AskError;
use super::shared::{Connections, Shared};
use super::via::Via;
use super::{Message, Peer, Sink, SnapshotSource, Transport, snapshot};
use crate::config::Url;
use crate::metrics::Metrics;
use crate::serve::{Address, Listener};

/// What is queued for a peer that takes it slowly, in bytes; one message may go beyond.
const QUEUE_BYTES: usize = 64 << 20;

/// What may be held back until [`Transport::flush`], in bytes.
const HELD_BACK: usize = 64 << 10;

/// Time to connect beside the election timeout.
const DIAL: Duration = Duration::from_secs(1);

/// Who this member is, and how it talks.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This member.
    pub member_id: MemberId,
    /// Its advertised peer URLs.
    pub peer_urls: Vec<String>,
    /// Attempts to connect give up a second after this time.
    pub election_timeout: Duration,
    /// Higher than at every earlier start of this member by more than it can have made connections
    /// and asked questions since: nanoseconds since the epoch.
    pub session: u64,
    /// The version of the program.
    pub release: Version,
    /// What is queued for a peer, in bytes; one message may go beyond. Default 64 MiB.
    pub queue_bytes: usize,
    /// How connections to other members are made. Default: without a certificate of its own.
    pub via: Via,
}

impl Options {
    /// With the defaults.
    pub fn new(cluster_id: ClusterId, member_id: MemberId) -> Self {
        Self {
            cluster_id,
            member_id,
            peer_urls: Vec::new(),
            election_timeout: Duration::from_secs(1),
            session: 1,
            release: Version::RELEASE,
            queue_bytes: QUEUE_BYTES,
            via: Via::default(),
        }
    }
}

/// Begins to listen for other members, in tasks of the current runtime. Until [`Sockets`] is told who
/// they are, it talks to nobody, and refuses who calls.
pub fn start(
    options: Options,
    listeners: Vec<Listener>,
    sink: Arc<dyn Sink>,
    directory: Arc<dyn Directory>,
    metrics: Arc<Metrics>,
) -> (Sockets, Peers) {
    let identity = Identity {
        cluster: options.cluster_id,
        member: options.member_id,
        peer_urls: options.peer_urls,
        release: options.release,
    };
    let shared = Arc::new(Shared::new(
        identity,
        sink,
        directory,
        metrics,
        (DIAL + options.election_timeout, options.queue_bytes),
        options.via,
        options.session,
    ));
    let addresses = listeners
        .iter()
        .map(|listener| listener.address().clone())
        .collect();
    for listener in listeners {
        let listening = listen::accept_all(Arc::clone(&shared), listener);
        shared.tasks.spawn(listening);
    }
    let peers = Peers {
        shared: Arc::clone(&shared),
        addresses,
    };
    let sockets = Sockets {
        shared,
        links: BTreeMap::new(),
        runtime: Handle::current(),
    };
    (sockets, peers)
}

/// [`Transport`] over sockets, for the member's thread. Dropping it ends everything at once.
pub struct Sockets {
    shared: Arc<Shared>,
    links: BTreeMap<MemberId, Sending>,
    runtime: Handle,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").finish_non_exhaustive()
    }
}

struct Sending {
    link: Arc<Link>,
    /// There is something to flush.
    held_back: bool,
}

impl Transport for Sockets {
    fn set_peers(&mut self, peers: Vec<Peer>, removed: Vec<MemberId>) {
        let mut old = std::mem::take(&mut self.links);
        for peer in peers {
            let urls = usable(&peer);
            let sending = match old.remove(&peer.id) {
                Some(sending) => {
                    sending.link.urls.send_if_modified(|known| {
                        let changed = *known != urls;
                        *known = urls;
                        changed
                    });
                    sending
                }
                None => self.connect(peer.id, urls),
            };
            self.links.insert(peer.id, sending);
        }
        let links = self.links.iter();
        let links = links.map(|(id, sending)| (*id, Arc::clone(&sending.link)));
        let mut roster = self.shared.roster.write();
        roster.links = links.collect();
        roster.removed = removed.into_iter().collect();
        drop(roster);
        for Sending { link, .. } in old.into_values() {
            link.end.cancel();
            link.sessions.close();
            link.metrics.known.set(0);
        }
    }

    fn send(&mut self, to: MemberId, message: Message) {
        let Some(sending) = self.links.get_mut(&to) else {
            return;
        };
        let waiting = sending.link.queue_message(message);
        sending.held_back |= waiting > 0;
        if waiting > HELD_BACK {
            sending.flush();
        }
    }

    fn flush(&mut self) {
        for sending in self.links.values_mut().filter(|sending| sending.held_back) {
            sending.flush();
        }
    }

    fn send_snapshot(&mut self, to: MemberId, message: Bytes, source: Box<dyn SnapshotSource>) {
        let Some(sending) = self.links.get(&to) else {
            return self.shared.sink.snapshot_sent(to, false);
        };
        let (shared, link) = (Arc::clone(&self.shared), Arc::clone(&sending.link));
        let sending = snapshot::send(shared, link, message, source);
        self.shared.tasks.spawn_on(sending, &self.runtime);
    }
}

impl Sending {
    fn flush(&mut self) {
        self.held_back = false;
        self.link.flush();
    }
}

impl Sockets {
    fn connect(&self, peer: MemberId, urls: Vec<Url>) -> Sending {
        let shared = &self.shared;
        let network = &shared.metrics.network;
        // One that waits is enough: the peer offers another when this one has broken meanwhile.
        let (offered, offers) = mpsc::channel(1);
        let link = Arc::new(Link::new(
            peer,
            urls,
            offered,
            shared.next_session(),
            shared.queue_bytes,
            network.peer(shared.identity.member, peer),
            shared.end.child_token(),
        ));
        link.metrics.known.set(1);
        let task = dial::keep_connected(Arc::clone(shared), Arc::clone(&link), offers);
        shared.tasks.spawn_on(task, &self.runtime);
        let offering = offer::keep_offering(Arc::clone(shared), Arc::clone(&link));
        shared.tasks.spawn_on(offering, &self.runtime);
        let probing = probe::keep_probing(Arc::clone(shared), Arc::clone(&link));
        shared.tasks.spawn_on(probing, &self.runtime);
        Sending {
            link,
            held_back: false,
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.shared.end.cancel();
        self.shared.draining.cancel();
    }
}

/// The URLs of a peer that can be read.
fn usable(peer: &Peer) -> Vec<Url> {
    let mut urls = Vec::new();
    for text in &peer.urls {
        match Url::parse(text) {
            Ok(url) => urls.push(url),
            Err(error) => {
                tracing::warn!(peer = %peer.id, error, "a peer URL cannot be used");
            }
        }
    }
    urls
}

/// The other members, for those who ask them something. Clones are the same.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
    addresses: Arc<[Address]>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peers").finish_non_exhaustive()
    }
}

impl Peers {
    /// Where this member listens, in the order of the listeners.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Which peers can be reached, and since when.
    pub fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// Sends a message, from whatever thread: at most once, as [`Transport::send`]. Never blocks.
    pub fn say(&self, to: MemberId, message: Message) {
        if let Some(link) = self.shared.link(to) {
            link.queue_message(message);
            link.flush();
        }
    }

    /// Asks a member something; how long to wait is the caller's business. Takes connections in both
    /// directions: the answer comes over the peer's.
    ///
    /// # Errors
    /// [`AskError`]. The question may have been answered nevertheless, and what it asks for been done.
    ///
    /// Cancel safety: who drops this does not learn the answer, nothing else.
    pub async fn ask(&self, to: MemberId, question: Bytes) -> Result<Bytes, AskError> {
        let link = self.shared.link(to).ok_or(AskError::Unreachable)?;
        let asked = link.questions.begin();
        // Looked at after the question is known: if the stream ends from here on, it fails.
        if !link.sessions.is_connected() || !link.queue_question(asked.number, question) {
            return Err(AskError::Unreachable);
        }
        link.flush();
        asked.answered().await
    }

    /// Asks a member of the cluster for its hash at a revision, at one peer URL after the other, each
    /// with `patience`. It need not be a member that was told of: streams play no part.
    ///
    /// # Errors
    /// What the last URL came to.
    pub async fn fetch_hash(
        &self,
        urls: &[Url],
        revision: i64,
        patience: Duration,
    ) -> Result<RemoteHash, NoHash> {
        let Shared { identity, via, .. } = &*self.shared;
        hash_kv::fetch(urls, (identity.cluster, via), revision, patience).await
    }

    /// Stops: takes no more connections, writes what is queued for peers that are connected, and
    /// ends everything after `patience` at the latest.
    pub async fn shutdown(&self, patience: Duration) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.tasks.close();
        let links: Vec<_> = shared.roster.read().links.values().cloned().collect();
        let drained = async {
            for link in links {
                link.drained.cancelled().await;
            }
        };
        // What is not written in time is lost, as it may be anyway.
        let _late = tokio::time::timeout(patience, drained).await;
        shared.end.cancel();
        shared.tasks.wait().await;
    }
}
