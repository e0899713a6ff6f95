//! Keeps one connection per endpoint and deals them out in turn.
//!
//! Each endpoint has a background task: connect, publish the connection, carry it until it ends,
//! connect again, pausing after failures. A caller takes the next *connected* endpoint, and waits
//! when there is none. Nothing here looks at health or leadership: like etcd's own clients, a
//! member that answers TCP stays in rotation.
//!
//! Endpoints may be replaced at any time ([`Balancer::replace`]). One that goes takes no more
//! calls; those under way, streams too, end in their own time. Some endpoints may be *spare*:
//! connected, but only used while none of the others is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::connection::{Connection, chain};
use crate::endpoint::Target;
use crate::{Config, EndpointError, Error, retry};

/// Growth and spread of the pause after failed connection attempts: gRPC's.
const BACKOFF_FACTOR: f64 = 1.6;
const BACKOFF_JITTER: f64 = 0.2;
/// A connection that ended sooner counts as a failed attempt: a peer that says hello and hangs up
/// would otherwise be dialled in a tight loop.
const MIN_USEFUL_LIFE: Duration = Duration::from_secs(1);

/// The endpoints of a client. Dropping it closes every connection.
pub(crate) struct Balancer {
    nodes: RwLock<Nodes>,
    next: AtomicUsize,
    /// Bumped whenever a node gains or loses its connection.
    changed: watch::Sender<()>,
    /// One for each node, and for each that was replaced and still has calls under way.
    tasks: Mutex<JoinSet<()>>,
    config: Config,
}

/// The endpoints of now.
#[derive(Clone, Debug, Default)]
struct Nodes {
    /// Those that take turns.
    rotation: Vec<Arc<Node>>,
    /// Those that help out while none of the others is connected.
    spare: Vec<Arc<Node>>,
}

/// One endpoint.
#[derive(Debug)]
struct Node {
    target: Target,
    /// Held for a few instructions only, never over an await.
    state: Mutex<State>,
    /// Said once: the node is no longer one of the client's.
    retired: watch::Sender<bool>,
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
        let balancer = Balancer {
            nodes: RwLock::default(),
            next: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
            tasks: Mutex::default(),
            config: config.clone(),
        };
        balancer.replace(targets, Vec::new());
        balancer
    }

    /// These endpoints instead of those before. One that was there keeps its connection. A spare
    /// one that is in the rotation, too, is left out.
    pub(crate) fn replace(&self, rotation: Vec<Target>, spare: Vec<Target>) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        let mut nodes = self.nodes.write();
        let mut before: Vec<Arc<Node>> = nodes.rotation.drain(..).collect();
        before.append(&mut nodes.spare);
        let mut of = |target: Target| {
            let known = before.iter().position(|node| node.target == target);
            match known {
                Some(at) => before.swap_remove(at),
                None => {
                    let node = Arc::new(Node::new(target));
                    let (config, changed) = (self.config.clone(), self.changed.clone());
                    tasks.spawn(keep_connected(node.clone(), config, changed));
                    node
                }
            }
        };
        for target in rotation {
            let node = of(target);
            nodes.rotation.push(node);
        }
        for target in spare {
            let serves = |node: &Arc<Node>| node.target.address == target.address;
            if !nodes.rotation.iter().chain(&nodes.spare).any(serves) {
                let node = of(target);
                nodes.spare.push(node);
            }
        }
        drop(nodes);
        for gone in before {
            gone.retire();
        }
        // A call that waits may go to an endpoint that was spare and is connected.
        self.changed.send_replace(());
    }

    /// How many endpoints take turns, connected or not.
    pub(crate) fn len(&self) -> usize {
        self.nodes.read().rotation.len()
    }

    /// The endpoints that take turns.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let of = |node: &Arc<Node>| node.target.endpoint.clone();
        self.nodes.read().rotation.iter().map(of).collect()
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
        let nodes = self.nodes.read();
        let pick = |nodes: &[Arc<Node>]| {
            (0..nodes.len()).find_map(|offset| {
                let node = &nodes[first.wrapping_add(offset) % nodes.len()];
                let state = node.state.lock();
                let connection = state.ready.clone()?;
                Some(Picked {
                    connection,
                    node: node.clone(),
                    generation: state.generation,
                })
            })
        };
        pick(&nodes.rotation).or_else(|| pick(&nodes.spare))
    }

    /// Why endpoints are not connected, for those that are not.
    pub(crate) fn errors(&self) -> Vec<EndpointError> {
        let nodes = self.nodes.read();
        let failed = |node: &Arc<Node>| {
            let state = node.state.lock();
            if state.ready.is_some() {
                return None;
            }
            Some(EndpointError {
                endpoint: node.target.endpoint.clone(),
                reason: state.last_error.clone()?,
            })
        };
        let all = nodes.rotation.iter().chain(&nodes.spare);
        all.filter_map(failed).collect()
    }

    /// The errors of all endpoints that are not connected, as one.
    pub(crate) fn last_error(&self) -> Option<Error> {
        let endpoints = self.errors();
        (!endpoints.is_empty()).then_some(Error::Connect { endpoints })
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// The life of one endpoint; ends when it is retired, or by being aborted.
async fn keep_connected(node: Arc<Node>, config: Config, changed: watch::Sender<()>) {
    let mut backoff = config.reconnect_backoff;
    let mut retired = node.retired.subscribe();
    while !*retired.borrow() {
        let attempt = timeout(config.dial_timeout, Connection::open(&node.target, &config));
        let attempt = tokio::select! {
            attempt = attempt => attempt,
            _ = retired.changed() => return,
        };
        let reason = match attempt {
            Err(_) => format!("no connection within {:?}", config.dial_timeout),
            Ok(Err(reason)) => reason,
            Ok(Ok((connection, driver))) => {
                let since = Instant::now();
                node.publish(connection);
                changed.send_replace(());
                // Goes on for a retired node until its last call is over.
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
        tokio::select! {
            () = sleep(retry::jittered(backoff, BACKOFF_JITTER)) => {}
            _ = retired.changed() => return,
        }
        backoff = backoff
            .mul_f64(BACKOFF_FACTOR)
            .min(config.max_reconnect_backoff);
    }
}

impl Node {
    fn new(target: Target) -> Node {
        Node {
            target,
            state: Mutex::default(),
            retired: watch::Sender::new(false),
        }
    }

    /// Takes no more calls.
    fn retire(&self) {
        let mut state = self.state.lock();
        self.retired.send_replace(true);
        // The connection ends with the last handle on it.
        state.ready = None;
    }

    fn publish(&self, connection: Connection) {
        let mut state = self.state.lock();
        if *self.retired.borrow() {
            return;
        }
        state.ready = Some(connection);
        state.generation += 1;
    }

    fn withdraw(&self, reason: String) {
        let mut state = self.state.lock();
        state.ready = None;
        state.last_error = Some(reason);
    }
}
