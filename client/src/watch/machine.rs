//! What a watch stream decides, without the stream: which request goes out next, which watch an
//! answer belongs to, where each watch goes on after a failure.
//!
//! One machine is one gRPC stream and all watches on it. A watch moves through these stages:
//!
//! ```text
//!            create request sent       created
//!   Queued ───────────────▶ Creating ─────────▶ Active(id)
//!     ▲  ▲                      │                 │  │
//!     │  └────── stream broke ──┴─────────────────┘  │ reader lags
//!     └───────────── reader caught up ── Paused ◀────┘
//! ```
//!
//! and ends from each of them. Invariants:
//!
//! * `next` of a watch is the first revision that its reader may still need. It only grows, and
//!   only when everything before is in the reader's inbox. A watch is always created again from
//!   there, so nothing is missed and nothing comes twice, whatever breaks when.
//! * At most one create request is unanswered: answers carry no mark of their request, order alone
//!   tells whose they are.
//! * Only active watches get the progress of the whole stream: it says nothing about the others.
//! * What is asked is answered by [`Machine::next_request`] alone, so a new stream starts from a
//!   state and not from a queue of old requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use prost::Message;
use tonic::Code;

use crate::{Error, EtcdError};

/// The id in answers that belong to no watch: a refused creation, progress of the whole stream.
const NO_WATCH: i64 = -1;

/// A watch whose reader has left more than this unread is taken off the stream until the reader
/// has caught up. One answer may be larger and is still taken whole.
const INBOX_BYTES: usize = 16 << 20;
/// What an unread answer costs beside its encoding.
const ANSWER_OVERHEAD_BYTES: usize = 128;

/// Pause before a stream is opened again: grows by a quarter each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(1);
const MAX_BACKOFF: Duration = Duration::from_millis(100);

/// Names a watch within its machine.
pub(super) type Key = u64;

/// All watches of one stream.
#[derive(Debug)]
pub(super) struct Machine {
    watches: BTreeMap<Key, Watch>,
    next_key: Key,
    /// Watches in the order in which they are to be created.
    queue: VecDeque<Key>,
    /// The watch whose creation is unanswered.
    creating: Option<Creating>,
    /// The active watches by the ids that this stream's server gave them.
    ids: BTreeMap<i64, Key>,
    /// Ids still to be cancelled on the server.
    cancels: VecDeque<i64>,
    /// Ids whose answers mean nothing any more. Left when the server confirms.
    cancelled: BTreeSet<i64>,
    progress_wanted: bool,
    backoff: Duration,
    inbox_limit_bytes: usize,
    /// Whether a member without a leader ends the watches. Otherwise it is left for another one.
    leader_required: bool,
    /// Watches whose readers have something to look at.
    woken: BTreeSet<Key>,
}

#[derive(Clone, Copy, Debug)]
enum Creating {
    Watch(Key),
    /// Its reader has gone meanwhile.
    Abandoned,
}

#[derive(Debug)]
struct Watch {
    request: pb::WatchCreateRequest,
    created_notify: bool,
    /// See the module. 0 until the first creation tells what "from now" means.
    next: i64,
    stage: Stage,
    /// Whether it was ever created.
    created: bool,
    /// The parts so far of an answer that comes in fragments.
    fragments: Option<pb::WatchResponse>,
    inbox: VecDeque<pb::WatchResponse>,
    inbox_bytes: usize,
    ended_by: Option<pb::WatchResponse>,
}

#[derive(Clone, Debug)]
enum Stage {
    Queued,
    Creating,
    Active(i64),
    Paused,
    Ended(Error),
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Next {
    Response(pb::WatchResponse),
    /// Nothing yet.
    Pending,
    Ended(Error),
}

/// What a failed stream means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// Open another one after this pause.
    Reopen(Duration),
    /// Every watch has ended.
    Halted,
}

impl Machine {
    pub(super) fn new(leader_required: bool) -> Machine {
        Machine {
            watches: BTreeMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            creating: None,
            ids: BTreeMap::new(),
            cancels: VecDeque::new(),
            cancelled: BTreeSet::new(),
            progress_wanted: false,
            backoff: FIRST_BACKOFF,
            inbox_limit_bytes: INBOX_BYTES,
            leader_required,
            woken: BTreeSet::new(),
        }
    }

    /// A new watch; `request` names no id.
    pub(super) fn create(&mut self, request: pb::WatchCreateRequest, created_notify: bool) -> Key {
        assert_eq!(request.watch_id, 0, "ids are the server's to choose");
        let key = self.next_key;
        self.next_key += 1;
        let watch = Watch {
            next: request.start_revision,
            request,
            created_notify,
            stage: Stage::Queued,
            created: false,
            fragments: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            ended_by: None,
        };
        self.watches.insert(key, watch);
        self.queue.push_back(key);
        key
    }

    /// The reader has gone.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(watch) = self.watches.remove(&key) else {
            return;
        };
        self.woken.remove(&key);
        match watch.stage {
            Stage::Queued => self.queue.retain(|queued| *queued != key),
            Stage::Creating => self.creating = Some(Creating::Abandoned),
            Stage::Active(id) => self.cancel(id),
            Stage::Paused | Stage::Ended(_) => {}
        }
    }

    /// Asks the server how far it is, for all watches at once.
    pub(super) fn request_progress(&mut self) {
        self.progress_wanted = !self.is_idle();
    }

    /// Whether no watch needs the stream.
    pub(super) fn is_idle(&self) -> bool {
        let ended = |watch: &Watch| matches!(watch.stage, Stage::Ended(_));
        self.watches.values().all(ended)
    }

    /// Whether the server has accepted the watch, once and whatever came later; `None` before it
    /// has accepted or refused it.
    pub(super) fn decision(&self, key: Key) -> Option<Result<(), Error>> {
        let watch = self.watches.get(&key)?;
        match &watch.stage {
            _ if watch.created => Some(Ok(())),
            Stage::Ended(error) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Takes what is next for the reader.
    pub(super) fn take(&mut self, key: Key) -> Next {
        let Some(watch) = self.watches.get_mut(&key) else {
            return Next::Pending;
        };
        if let Some(response) = watch.inbox.pop_front() {
            watch.inbox_bytes -= cost(&response);
            if watch.inbox.is_empty() && matches!(watch.stage, Stage::Paused) {
                watch.stage = Stage::Queued;
                self.queue.push_back(key);
            }
            return Next::Response(response);
        }
        match &watch.stage {
            Stage::Ended(error) => Next::Ended(error.clone()),
            _ => Next::Pending,
        }
    }

    /// The answer that ended the watch.
    pub(super) fn ended_by(&self, key: Key) -> Option<pb::WatchResponse> {
        self.watches.get(&key)?.ended_by.clone()
    }

    /// Watches whose readers have something new to look at since the last call.
    pub(super) fn take_woken(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.woken)
    }

    /// Whether [`Machine::next_request`] has something.
    pub(super) fn has_request(&self) -> bool {
        !self.cancels.is_empty()
            || (self.creating.is_none() && (!self.queue.is_empty() || self.progress_wanted))
    }

    /// What is to be sent now.
    pub(super) fn next_request(&mut self) -> Option<pb::WatchRequest> {
        let union = if let Some(watch_id) = self.cancels.pop_front() {
            RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })
        } else if self.creating.is_some() {
            return None;
        } else if let Some(key) = self.queue.pop_front() {
            let watch = self.watches.get_mut(&key);
            let watch = watch.expect("a watch that is removed leaves the queue");
            watch.stage = Stage::Creating;
            self.creating = Some(Creating::Watch(key));
            RequestUnion::CreateRequest(pb::WatchCreateRequest {
                start_revision: watch.next,
                ..watch.request.clone()
            })
        } else if self.progress_wanted {
            // After all creations: a server with a watch that is not up to date does not answer.
            self.progress_wanted = false;
            RequestUnion::ProgressRequest(pb::WatchProgressRequest {})
        } else {
            return None;
        };
        Some(pb::WatchRequest {
            request_union: Some(union),
        })
    }

    /// Handles one answer of the server.
    pub(super) fn received(&mut self, response: pb::WatchResponse) {
        self.backoff = FIRST_BACKOFF;
        let id = response.watch_id;
        if response.created {
            self.received_created(response);
        } else if response.canceled {
            self.received_canceled(response);
        } else if id == NO_WATCH && response.events.is_empty() {
            for key in self.ids.values().copied().collect::<Vec<_>>() {
                self.deliver(key, response.clone());
            }
        } else if let Some(&key) = self.ids.get(&id) {
            if let Some(whole) = self.assemble(key, response) {
                self.deliver(key, whole);
            }
        } else if id != NO_WATCH && !self.cancelled.contains(&id) {
            self.cancel(id);
        }
    }

    fn received_created(&mut self, response: pb::WatchResponse) {
        let id = response.watch_id;
        let key = match self.creating.take() {
            Some(Creating::Watch(key)) => key,
            // Nobody waits for this one.
            Some(Creating::Abandoned) | None => {
                if !response.canceled {
                    self.cancel(id);
                }
                return;
            }
        };
        if response.canceled {
            return self.end(key, refusal(&response.cancel_reason), Some(response));
        }
        // A server may use an id again after it was cancelled.
        self.cancelled.remove(&id);
        self.ids.insert(id, key);
        let watch = self.watches.get_mut(&key);
        let watch = watch.expect("a watch that is removed is no longer being created");
        watch.stage = Stage::Active(id);
        if watch.next == 0 {
            // Not the revision after it: etcd reads the header after it has registered the watch,
            // so a change of that very revision may still come. The price is that this change
            // comes once too often if the stream breaks before anything else has come.
            watch.next = revision(&response);
        }
        let first = !std::mem::replace(&mut watch.created, true);
        if first && watch.created_notify {
            watch.push(response);
        }
        self.woken.insert(key);
    }

    fn received_canceled(&mut self, response: pb::WatchResponse) {
        let id = response.watch_id;
        if self.cancelled.remove(&id) {
            return;
        }
        let Some(&key) = self.ids.get(&id) else {
            return;
        };
        let error = if response.compact_revision != 0 {
            // etcd keeps the id until the client cancels it, too.
            self.cancel(id);
            Error::Etcd(EtcdError::Compacted)
        } else if response.cancel_reason.is_empty() {
            self.ids.remove(&id);
            Error::Etcd(EtcdError::FutureRev)
        } else {
            self.ids.remove(&id);
            refusal(&response.cancel_reason)
        };
        self.end(key, error, Some(response));
    }

    /// Puts fragments together; the whole once it is there.
    fn assemble(&mut self, key: Key, part: pb::WatchResponse) -> Option<pb::WatchResponse> {
        let watch = self.watches.get_mut(&key)?;
        let more = part.fragment;
        let mut whole = match watch.fragments.take() {
            Some(mut whole) => {
                whole.events.extend(part.events);
                whole.header = part.header.or(whole.header);
                whole
            }
            None => part,
        };
        whole.fragment = false;
        if more {
            watch.fragments = Some(whole);
            return None;
        }
        Some(whole)
    }

    /// Hands an answer to the reader, and remembers that it was.
    fn deliver(&mut self, key: Key, response: pb::WatchResponse) {
        let Some(watch) = self.watches.get_mut(&key) else {
            return;
        };
        let last = match response.events.last() {
            Some(event) => event.kv.as_ref().map_or(0, |kv| kv.mod_revision),
            None => revision(&response),
        };
        // A watch from a future revision may hear of earlier ones.
        watch.next = watch.next.max(last.saturating_add(1));
        watch.push(response);
        self.woken.insert(key);
        if watch.inbox_bytes > self.inbox_limit_bytes
            && let Stage::Active(id) = watch.stage
        {
            watch.stage = Stage::Paused;
            self.cancel(id);
        }
    }

    /// Takes an id off the stream.
    fn cancel(&mut self, id: i64) {
        if let Some(key) = self.ids.remove(&id)
            && let Some(watch) = self.watches.get_mut(&key)
        {
            watch.fragments = None;
        }
        if self.cancelled.insert(id) {
            self.cancels.push_back(id);
        }
    }

    fn end(&mut self, key: Key, error: Error, by: Option<pb::WatchResponse>) {
        if let Some(watch) = self.watches.get_mut(&key) {
            watch.stage = Stage::Ended(error);
            watch.fragments = None;
            watch.ended_by = by;
            self.woken.insert(key);
        }
    }

    /// The stream has ended with `error`. Every watch on it is to be created again, or all end.
    pub(super) fn broken(&mut self, error: &Error, endpoints: usize) -> Broken {
        self.queue.clear();
        self.creating = None;
        self.ids.clear();
        self.cancels.clear();
        self.cancelled.clear();
        let halted = !is_passing(error, endpoints, self.leader_required);
        for (&key, watch) in &mut self.watches {
            match watch.stage {
                Stage::Ended(_) => continue,
                _ if halted => {
                    watch.stage = Stage::Ended(error.clone());
                    self.woken.insert(key);
                }
                Stage::Paused => {}
                Stage::Queued | Stage::Creating | Stage::Active(_) => {
                    watch.stage = Stage::Queued;
                    self.queue.push_back(key);
                }
            }
            watch.fragments = None;
        }
        if halted {
            return Broken::Halted;
        }
        let pause = self.backoff;
        self.backoff = pause.mul_f64(1.25).min(MAX_BACKOFF);
        Broken::Reopen(pause)
    }

    /// What the module promises, as far as a state shows it.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        for (key, watch) in &self.watches {
            let queued = self.queue.iter().filter(|queued| *queued == key).count();
            let creating =
                matches!(self.creating, Some(Creating::Watch(creating)) if creating == *key);
            let id = self
                .ids
                .iter()
                .find(|(_, of)| *of == key)
                .map(|(id, _)| *id);
            let expected = match watch.stage {
                Stage::Queued => (1, false, None),
                Stage::Creating => (0, true, None),
                Stage::Active(id) => (0, false, Some(id)),
                Stage::Paused | Stage::Ended(_) => (0, false, None),
            };
            assert_eq!((queued, creating, id), expected, "{watch:?}");
            assert_eq!(
                watch.inbox_bytes,
                watch.inbox.iter().map(cost).sum::<usize>()
            );
        }
        assert!(self.ids.keys().all(|id| !self.cancelled.contains(id)));
        assert!(self.cancels.iter().all(|id| !self.ids.contains_key(id)));
    }
}

impl Watch {
    fn push(&mut self, response: pb::WatchResponse) {
        self.inbox_bytes += cost(&response);
        self.inbox.push_back(response);
    }
}

fn cost(response: &pb::WatchResponse) -> usize {
    response.encoded_len() + ANSWER_OVERHEAD_BYTES
}

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// The error behind a cancel reason: servers write a whole gRPC error into it, or just its text.
fn refusal(reason: &str) -> Error {
    let text = match reason.split_once(" desc = ") {
        Some((head, text)) if head.starts_with("rpc error: code = ") => text,
        _ => reason,
    };
    match EtcdError::from_message(text) {
        Some(error) => Error::Etcd(error),
        None => Error::WatchRefused(reason.to_owned()),
    }
}

/// Whether another stream may do better.
fn is_passing(error: &Error, endpoints: usize, leader_required: bool) -> bool {
    match error.etcd() {
        Some(EtcdError::NoLeader) => !leader_required,
        // A server that stops says so in the words for a client that has gone.
        Some(EtcdError::WatchCanceled) => true,
        Some(EtcdError::NotSupportedForLearner) => endpoints > 1,
        _ => matches!(error.code(), Some(Code::Unavailable | Code::Internal)),
    }
}

#[cfg(test)]
mod tests;
