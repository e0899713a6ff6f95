//! Carries the requests and answers of a [`Machine`] over gRPC streams, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrite_api::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::machine::{Broken, Key, Machine, Next};
use crate::call::Leader;
use crate::{Client, Error, rpc};

/// The streams of a client: one for each set of metadata and rules that watches are opened with.
#[derive(Debug)]
pub(crate) struct Streams {
    leader_sought: Arc<Hub>,
    leader_required: Arc<Hub>,
    indifferent: Arc<Hub>,
}

impl Default for Streams {
    fn default() -> Self {
        let hub = |leader| Arc::new(Hub::new(leader));
        Streams {
            leader_sought: hub(Leader::Sought),
            leader_required: hub(Leader::Required),
            indifferent: hub(Leader::Indifferent),
        }
    }
}

impl Streams {
    /// The stream that watches of this client belong to.
    pub(super) fn of(&self, client: &Client) -> &Arc<Hub> {
        match client.scope.leader {
            Leader::Sought => &self.leader_sought,
            Leader::Required => &self.leader_required,
            Leader::Indifferent => &self.indifferent,
        }
    }

    /// Asks the server how far it is.
    pub(crate) fn request_progress(&self, client: &Client) {
        self.of(client).request_progress();
    }
}

/// One stream: the machine, and who waits for it.
#[derive(Debug)]
pub(crate) struct Hub {
    leader: Leader,
    /// Held for a few instructions only, never over an await.
    state: Mutex<State>,
    /// The machine may have a request, or may be idle. Only the task waits.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    /// One for the reader of each watch.
    readers: BTreeMap<Key, Arc<Notify>>,
    /// Whether the task runs. It ends when the machine is idle.
    running: bool,
}

impl Hub {
    fn new(leader: Leader) -> Hub {
        let machine = Machine::new(leader == Leader::Required);
        Hub {
            leader,
            state: Mutex::new(State {
                machine,
                readers: BTreeMap::new(),
                running: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Opens a watch, and the stream if there is none.
    pub(super) fn open(
        self: &Arc<Self>,
        client: &Client,
        request: pb::WatchCreateRequest,
        created_notify: bool,
    ) -> Reader {
        let notify = Arc::new(Notify::new());
        let mut state = self.state.lock();
        let key = state.machine.create(request, created_notify);
        state.readers.insert(key, notify.clone());
        if !std::mem::replace(&mut state.running, true) {
            let mut client = client.clone();
            if self.leader == Leader::Sought {
                // Asked for here, and not an end when there is none: the machine knows.
                client.scope.leader = Leader::Required;
            }
            tokio::spawn(run(self.clone(), client));
        }
        drop(state);
        self.changed.notify_one();
        Reader {
            hub: self.clone(),
            key,
            notify,
        }
    }

    fn request_progress(&self) {
        self.state.lock().machine.request_progress();
        self.changed.notify_one();
    }

    /// Lets the machine take a step and wakes the readers it has something for.
    fn step<T>(&self, step: impl FnOnce(&mut Machine) -> T) -> T {
        let mut state = self.state.lock();
        let result = step(&mut state.machine);
        for key in state.machine.take_woken() {
            if let Some(reader) = state.readers.get(&key) {
                reader.notify_one();
            }
        }
        result
    }

    /// Whether the task is done: nobody watches. A watch that comes later starts another task.
    fn retire(&self) -> bool {
        let mut state = self.state.lock();
        if state.machine.is_idle() {
            state.running = false;
        }
        !state.running
    }
}

/// A reader's end of a watch. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Reader {
    hub: Arc<Hub>,
    key: Key,
    notify: Arc<Notify>,
}

impl Reader {
    /// Waits until the server has accepted the watch.
    ///
    /// Cancel safety: nothing is taken.
    ///
    /// # Errors
    ///
    /// Its refusal.
    pub(super) async fn decided(&mut self) -> Result<(), Error> {
        loop {
            let decision = self.hub.state.lock().machine.decision(self.key);
            match decision {
                Some(result) => return result,
                None => self.notify.notified().await,
            }
        }
    }

    /// The next answer.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<pb::WatchResponse, Error> {
        loop {
            let next = self.hub.state.lock().machine.take(self.key);
            match next {
                Next::Response(response) => {
                    // A lagging watch may go on now.
                    self.hub.changed.notify_one();
                    return Ok(response);
                }
                Next::Ended(error) => return Err(error),
                Next::Pending => self.notify.notified().await,
            }
        }
    }

    pub(super) fn ended_by(&self) -> Option<pb::WatchResponse> {
        self.hub.state.lock().machine.ended_by(self.key)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.machine.remove(self.key);
        state.readers.remove(&self.key);
        drop(state);
        self.hub.changed.notify_one();
    }
}

/// Keeps a stream open for as long as there are watches.
async fn run(hub: Arc<Hub>, client: Client) {
    loop {
        let error = match carry(&hub, &client).await {
            Ok(()) => return,
            Err(error) => error,
        };
        tracing::debug!(%error, "watch stream ended");
        let endpoints = client.shared.balancer.len();
        match hub.step(|machine| machine.broken(&error, endpoints)) {
            Broken::Reopen(pause) => sleep(pause).await,
            Broken::Halted => {}
        }
    }
}

/// The life of one stream. `Ok` when nobody watches any more; then the task is retired.
async fn carry(hub: &Hub, client: &Client) -> Result<(), Error> {
    if hub.retire() {
        return Ok(());
    }
    let mut stream = client.two_way_stream(rpc::WATCH);
    let requests = stream.requests.clone();
    loop {
        let has_request = hub.state.lock().machine.has_request();
        tokio::select! {
            // An error is told by the answers.
            Ok(permit) = requests.reserve(), if has_request => {
                if let Some(request) = hub.step(Machine::next_request) {
                    permit.send(request);
                }
            }
            answer = stream.next() => {
                let response = answer?;
                hub.step(|machine| machine.received(response));
            }
            () = hub.changed.notified() => {
                if hub.retire() {
                    return Ok(());
                }
            }
        }
    }
}
