//! What arrives from other members, on its way to this one.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_disk::Disk;
use ferrite_storage::page;
use ferrite_storage::snapshot::{self, Export, Import};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::handle::{Versions, WeakHandle};
use crate::member::{Incoming, Input, Published, Reads, ReadsDo, Reply};
use crate::peer::{
    Answering, Asking, Directory, HashAnswer, MemberInfo, Message, Peers, Sink, SnapshotSource,
};
use crate::shell::{Inbox, Waiter};

/// Where snapshots are received.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    /// The page file in use; what is received lies beside it until the log has decided.
    pub(crate) page_path: PathBuf,
    pub(crate) options: page::Options,
    pub(crate) cluster_id: ClusterId,
    pub(crate) member_id: MemberId,
}

/// Passes on what comes from other members.
#[derive(Debug)]
pub(crate) struct Peering {
    inbox: Arc<Inbox>,
    published: Arc<Published>,
    reads: Arc<Reads<Waiter>>,
    place: Place,
    /// Questions are for the handle, which is made after this.
    handle: OnceLock<WeakHandle>,
    /// What carries answers about reads; made after this, too.
    peers: OnceLock<Peers>,
    // There is one place to receive a snapshot in. Held while one is received, by a thread that may
    // block; the member's thread never takes it.
    receiving: Mutex<()>,
}

impl Peering {
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        published: Arc<Published>,
        reads: Arc<Reads<Waiter>>,
        place: Place,
    ) -> Self {
        Self {
            inbox,
            published,
            reads,
            place,
            handle: OnceLock::new(),
            peers: OnceLock::new(),
            receiving: Mutex::new(()),
        }
    }

    /// Says who answers questions; until then they remain unanswered.
    pub(crate) fn answers(&self, handle: WeakHandle) {
        let _twice = self.handle.set(handle);
    }

    /// Says what carries answers about reads; until then other members' reads find nobody.
    pub(crate) fn speaks_through(&self, peers: Peers) {
        let _twice = self.peers.set(peers);
    }

    /// Asks the member's thread, and waits for it.
    fn ask(&self, input: impl FnOnce(Waiter) -> Input<Waiter>) -> Result<Reply, String> {
        let (waiter, answer) = oneshot::channel();
        self.inbox
            .send(input(waiter))
            .map_err(|error| error.message().to_owned())?;
        match answer.blocking_recv() {
            Ok(Reply::Failed(error)) => Err(error.message().into_owned()),
            Ok(reply) => Ok(reply),
            Err(_) => Err("the member has stopped".to_owned()),
        }
    }

    fn receive(
        &self,
        pieces: &mut dyn FnMut() -> Result<Option<Bytes>, String>,
    ) -> Result<snapshot::Received, String> {
        let Place {
            disk,
            page_path,
            options,
            cluster_id,
            member_id,
        } = self.place.clone();
        let text = |error: snapshot::Error| error.to_string();
        let mut import =
            Import::begin(disk, &page_path, options, member_id.get(), cluster_id.get())
                .map_err(text)?;
        while let Some(piece) = pieces()? {
            import.piece(piece).map_err(text)?;
        }
        import.finish().map_err(text)
    }
}

impl Sink for Peering {
    fn deliver(&self, from: MemberId, mut messages: Vec<Message>) {
        // Those about reads need not wait for the member's thread, which may wait for the disk.
        let about_reads = |message: &mut Message| matches!(message, Message::Read(_));
        for message in messages.extract_if(.., about_reads) {
            if let Message::Read(message) = message {
                self.reads.hear(from, message).carry_out(self.peers.get());
            }
        }
        if messages.is_empty() {
            return;
        }
        if !self.inbox.deliver(from, messages) {
            tracing::debug!(%from, "messages were dropped: this member does not keep up");
        }
    }

    fn reachable(&self, peer: MemberId, reachable: bool) {
        self.inbox.report(Input::Reachable { peer, reachable });
    }

    fn removed(&self, by: MemberId) {
        self.inbox.report(Input::Removed { by });
    }

    fn snapshot_sent(&self, to: MemberId, taken: bool) {
        self.inbox.report(Input::SnapshotSent { to, taken });
    }

    fn receive_snapshot(
        &self,
        from: MemberId,
        message: Bytes,
        pieces: &mut dyn FnMut() -> Result<Option<Bytes>, String>,
    ) -> Result<(), String> {
        let Some(_receiving) = self.receiving.try_lock() else {
            return Err("another snapshot is being received".to_owned());
        };
        let offered = message.clone();
        self.ask(|waiter| Input::SnapshotOffered {
            message: offered,
            waiter,
        })?;
        let received = Box::new(self.receive(pieces)?);
        tracing::info!(%from, index = received.index, "received a snapshot");
        let snapshot = Incoming { message, received };
        let reply = self.ask(|waiter| Input::SnapshotReceived { snapshot, waiter });
        match reply {
            Ok(Reply::Discard) => self.discard().map(drop),
            Ok(_) => Ok(()),
            Err(why) => {
                self.discard()?;
                Err(why)
            }
        }
    }

    fn answer(&self, _from: MemberId, question: Bytes) -> Answering {
        let handle = self.handle.get().and_then(WeakHandle::upgrade);
        Box::pin(async move {
            match handle {
                Some(handle) => handle.answer(question).await,
                None => Bytes::new(),
            }
        })
    }
}

impl ReadsDo<Waiter> {
    /// Sends and answers.
    pub(crate) fn carry_out(self, peers: Option<&Peers>) {
        if let Some(peers) = peers {
            for (to, message) in self.send {
                peers.say(to, message);
            }
        }
        for (waiter, reply) in self.replies {
            // The client may have gone.
            let _gone = waiter.send(reply);
        }
    }
}

impl Peering {
    /// Drops what was received and is not needed.
    fn discard(&self) -> Result<(), String> {
        let Place {
            disk, page_path, ..
        } = &self.place;
        snapshot::discard(disk, page_path).map_err(|error| error.to_string())
    }
}

impl Directory for Peering {
    fn members(&self) -> Vec<MemberInfo> {
        let members = self.published.cluster().members.to_api().into_iter();
        members
            .map(|member| MemberInfo {
                id: MemberId::new(member.id),
                peer_urls: member.peer_ur_ls,
                is_learner: member.is_learner,
                name: member.name,
                client_urls: member.client_ur_ls,
            })
            .collect()
    }

    fn versions(&self) -> Versions {
        Versions::of(&self.published)
    }

    fn hash_kv(&self, revision: i64) -> HashAnswer {
        let handle = self.handle.get().and_then(WeakHandle::upgrade);
        Box::pin(async move {
            let handle = handle.ok_or(ApiError::Stopped)?;
            handle.hash_kv(pb::HashKvRequest { revision }).await
        })
    }

    fn downgrade_enabled(&self) -> Asking {
        let handle = self.handle.get().and_then(WeakHandle::upgrade);
        Box::pin(async move {
            let handle = handle.ok_or("the member is starting")?;
            let enabled = handle.downgrade_enabled().await;
            enabled.map_err(|error| error.message().into_owned())
        })
    }
}

/// A state on its way out.
pub(crate) struct Source(pub(crate) Export);

impl SnapshotSource for Source {
    fn next(&mut self) -> Result<Option<Bytes>, String> {
        self.0.next_piece().map_err(|error| error.to_string())
    }

    fn size_hint(&self) -> u64 {
        self.0.size_hint()
    }
}
