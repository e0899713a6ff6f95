//! Carries the renewals of a [`Machine`] over gRPC streams, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::machine::{Key, Machine, Next};
use crate::call::{Leader, TwoWay};
use crate::{Client, Error, rpc};

type Stream = TwoWay<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse>;

/// Pause before a stream is opened again.
const REOPEN: Duration = Duration::from_millis(500);

/// Keeps the leases of a client alive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeper {
    hub: Arc<Hub>,
}

#[derive(Debug, Default)]
struct Hub {
    /// Held for a few instructions only, never over an await.
    state: Mutex<State>,
    /// There is another lease, or one less. Only the task waits.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    machine: Machine,
    /// One for each listener.
    readers: BTreeMap<Key, Arc<Notify>>,
    /// Whether the task runs. It ends when the machine is idle.
    running: bool,
}

impl Keeper {
    /// Begins to renew, unless the lease is renewed already.
    pub(super) fn listen(&self, client: &Client, lease: LeaseId) -> Listener {
        // A member without a leader cannot renew anything: never wait there.
        let strict = client.with_require_leader();
        let open = move || strict.two_way_stream(rpc::LEASE_KEEP_ALIVE);
        let required = client.scope.leader == Leader::Required;
        self.listen_on(open, lease, required)
    }

    /// Whether no server can have ended the lease yet.
    pub(crate) fn is_valid(&self, lease: LeaseId) -> bool {
        let until = self.hub.state.lock().machine.valid_until(lease.get());
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Renews over the streams that `open` gives.
    fn listen_on(
        &self,
        open: impl Fn() -> Stream + Send + 'static,
        lease: LeaseId,
        require_leader: bool,
    ) -> Listener {
        let hub = self.hub.clone();
        let notify = Arc::new(Notify::new());
        let mut state = hub.state.lock();
        let now = Instant::now();
        let key = state.machine.listen(now, lease.get(), require_leader);
        state.readers.insert(key, notify.clone());
        if !std::mem::replace(&mut state.running, true) {
            tokio::spawn(run(hub.clone(), open));
        }
        drop(state);
        hub.changed.notify_one();
        Listener { hub, key, notify }
    }
}

impl Hub {
    /// Lets the machine take a step and wakes the listeners it has something for.
    fn step<T>(&self, step: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let mut state = self.state.lock();
        let result = step(&mut state.machine, Instant::now());
        for key in state.machine.take_woken() {
            if let Some(reader) = state.readers.get(&key) {
                reader.notify_one();
            }
        }
        result
    }

    /// Whether the task is done: there is no lease. One that comes later starts another task.
    fn retire(&self) -> bool {
        let mut state = self.state.lock();
        if state.machine.is_idle() {
            state.running = false;
        }
        !state.running
    }
}

/// A listener's end of a lease. Dropping it ends the interest in the lease.
#[derive(Debug)]
pub(super) struct Listener {
    hub: Arc<Hub>,
    key: Key,
    notify: Arc<Notify>,
}

impl Listener {
    /// Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<pb::LeaseKeepAliveResponse, Error> {
        loop {
            let next = self.hub.state.lock().machine.take(self.key);
            match next {
                Next::Renewal(renewal) => return Ok(renewal),
                Next::Ended(error) => return Err(error),
                Next::Pending => self.notify.notified().await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.machine.remove(self.key);
        state.readers.remove(&self.key);
        drop(state);
        self.hub.changed.notify_one();
    }
}

/// Keeps a stream open for as long as there are leases.
async fn run(hub: Arc<Hub>, open: impl Fn() -> Stream) {
    while let Err(error) = carry(&hub, open()).await {
        tracing::debug!(%error, "lease stream ended");
        hub.step(|machine, now| machine.broken(now, &error));
        sleep(REOPEN).await;
    }
}

/// The life of one stream. `Ok` when there are no leases any more; then the task is retired.
async fn carry(hub: &Hub, mut stream: Stream) -> Result<(), Error> {
    let requests = stream.requests.clone();
    loop {
        let (has_request, stalled, wake) = hub.step(|machine, now| {
            machine.expire(now);
            let wake = machine.wake_at();
            (machine.has_request(now), machine.is_stalled(now), wake)
        });
        // Looked at after expiry, which may have ended the last lease.
        if hub.retire() {
            return Ok(());
        }
        if stalled {
            return Err(Error::from(Status::unavailable("no answer to a renewal")));
        }
        tokio::select! {
            // An error is told by the answers.
            Ok(permit) = requests.reserve(), if has_request => {
                if let Some(request) = hub.step(Machine::next_request) {
                    permit.send(request);
                }
            }
            answer = stream.next() => {
                let renewal = answer?;
                hub.step(|machine, now| machine.received(now, renewal));
            }
            () = wait(wake, has_request) => {}
            () = hub.changed.notified() => {}
        }
    }
}

/// Until it is time to look at the leases again.
async fn wait(wake: Option<Instant>, has_request: bool) {
    match wake {
        // What is due waits for room in the stream; expiry is looked at now and then meanwhile.
        Some(_) if has_request => sleep(REOPEN).await,
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
