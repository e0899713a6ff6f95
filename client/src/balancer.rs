//! Keeps one connection per endpoint and deals them out in turn.
//!
//! Each endpoint has a background task: connect, publish the connection, carry it until it ends,
//! connect again, pausing after failures. A caller takes the next *connected* endpoint, and waits
//! when there is none. Nothing here looks at health or leadership: like etcd's own clients, a
//! member that answers TCP stays in rotation.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::{Connection, chain};
use crate::endpoint::Target;
use crate::{Config, Error, retry};

/// Growth and spread of the pause after failed connection attempts: gRPC's.
const BACKOFF_FACTOR: f64 = 1.6;
const BACKOFF_JITTER: f64 = 0.2;
/// A connection that ended sooner counts as a failed attempt: a peer that says hello and hangs up
/// would otherwise be dialled in a tight loop.
const MIN_USEFUL_LIFE: Duration = Duration::from_secs(1);

/// The endpoints of a client. Dropping it closes every connection.
pub(crate) struct Balancer {
    nodes: Vec<Arc<Node>>,
    next: AtomicUsize,
    /// Bumped whenever a node gains or loses its connection.
    changed: watch::Sender<()>,
    tasks: Vec<AbortHandle>,
}

/// One endpoint.
#[derive(Debug)]
struct Node {
    target: Target,
    /// Held for a few instructions only, never over an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Option<Connection>,
    /// Counts the connections of this node, so that a stale handle cannot discard a newer one.
    generation: u64,
    last_error: Option<String>,
}

/// A connection that was dealt out.
pub(crate) struct Picked {
    pub(crate) connection: Connection,
    node: Arc<Node>,
    generation: u64,
}

impl Picked {
    /// Where the call goes, as configured.
    pub(crate) fn endpoint(&self) -> &str {
        &self.node.target.endpoint
    }

    /// Takes this connection out of rotation: it no longer accepts requests.
    pub(crate) fn discard(self) {
        let mut state = self.node.state.lock();
        if state.generation == self.generation {
            state.ready = None;
        }
    }
}

impl Balancer {
    /// Starts connecting to every target.
    pub(crate) fn start(targets: Vec<Target>, config: &Config) -> Balancer {
        let changed = watch::Sender::new(());
        let nodes: Vec<Arc<Node>> = targets
            .into_iter()
            .map(|target| {
                Arc::new(Node {
                    target,
                    state: Mutex::default(),
                })
            })
            .collect();
        let tasks = nodes
            .iter()
            .map(|node| {
                let task = keep_connected(node.clone(), config.clone(), changed.clone());
                tokio::spawn(task).abort_handle()
            })
            .collect();
        Balancer {
            nodes,
            next: AtomicUsize::new(0),
            changed,
            tasks,
        }
    }

    /// How many endpoints there are, connected or not.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The next connected endpoint, as soon as there is one.
    ///
    /// Cancel safety: nothing is held.
    pub(crate) async fn pick(&self) -> Picked {
        if let Some(picked) = self.try_pick() {
            return picked;
        }
        let mut changes = self.changed.subscribe();
        loop {
            // Looked at after subscribing, so a connection made in between is not missed.
            if let Some(picked) = self.try_pick() {
                return picked;
            }
            changes
                .changed()
                .await
                .expect("the sender is a field of the balancer that is borrowed here");
        }
    }

    fn try_pick(&self) -> Option<Picked> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.nodes.len()).find_map(|offset| {
            let node = &self.nodes[first.wrapping_add(offset) % self.nodes.len()];
            let state = node.state.lock();
            let connection = state.ready.clone()?;
            Some(Picked {
                connection,
                node: node.clone(),
                generation: state.generation,
            })
        })
    }

    /// Why an endpoint is not connected, if one is not.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.nodes.iter().find_map(|node| {
            let state = node.state.lock();
            if state.ready.is_some() {
                return None;
            }
            Some(Error::Connect {
                endpoint: node.target.endpoint.clone(),
                reason: state.last_error.clone()?,
            })
        })
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// The life of one endpoint; ends only by being aborted.
async fn keep_connected(node: Arc<Node>, config: Config, changed: watch::Sender<()>) {
    let mut backoff = config.reconnect_backoff;
    loop {
        let attempt = Connection::open(&node.target, &config);
        let reason = match timeout(config.dial_timeout, attempt).await {
            Err(_) => format!("no connection within {:?}", config.dial_timeout),
            Ok(Err(reason)) => reason,
            Ok(Ok((connection, driver))) => {
                let since = Instant::now();
                node.publish(connection);
                changed.send_replace(());
                let reason = match driver.await {
                    Ok(()) => "connection closed".to_owned(),
                    Err(error) => chain(&error),
                };
                if since.elapsed() >= MIN_USEFUL_LIFE {
                    backoff = config.reconnect_backoff;
                    node.withdraw(reason);
                    changed.send_replace(());
                    continue;
                }
                reason
            }
        };
        tracing::debug!(endpoint = %node.target.endpoint, reason, "not connected");
        node.withdraw(reason);
        changed.send_replace(());
        sleep(retry::jittered(backoff, BACKOFF_JITTER)).await;
        backoff = backoff
            .mul_f64(BACKOFF_FACTOR)
            .min(config.max_reconnect_backoff);
    }
}

impl Node {
    fn publish(&self, connection: Connection) {
        let mut state = self.state.lock();
        state.ready = Some(connection);
        state.generation += 1;
    }

    fn withdraw(&self, reason: String) {
        let mut state = self.state.lock();
        state.ready = None;
        state.last_error = Some(reason);
    }
}
