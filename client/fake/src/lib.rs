//! An etcd in memory for the tests of clients: it keeps its promises about keys, transactions,
//! watches and leases as far as clients can see them, remembers what it was asked, and fails on
//! command. It has no disk, no peers and no clock: leases end when a test says so.
//!
//! Reading order: [`Fake`] (what a test holds), `store` (the keys), `services` (one call each),
//! `watch` and `lease` (the streams), `recipes` (locks and elections).

mod lease;
mod recipes;
mod services;
mod store;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use axum::routing::get;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::v3electionpb::election_server::ElectionServer;
use ferrite_api::pb::v3lockpb::lock_server::LockServer;
use pb::cluster_server::ClusterServer;
use pb::kv_server::KvServer;
use pb::lease_server::LeaseServer;
use pb::maintenance_server::MaintenanceServer;
use pb::watch_server::WatchServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, watch as signal};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Status};

use store::Store;

/// Failures of streams that may be on their way.
const BREAKS: usize = 16;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The name of the call.
    pub method: &'static str,
    /// What came with it.
    pub metadata: MetadataMap,
}

#[derive(Debug, Default)]
struct Script {
    failures: VecDeque<Status>,
    seen: Vec<Seen>,
    alarms: Vec<pb::AlarmMember>,
    /// The database of `Maintenance.Snapshot`.
    snapshot: Vec<u8>,
    /// What `MemberList` says, if it is not this member alone.
    members: Option<Vec<pb::Member>>,
    /// Serializable reads show this revision, if there is one.
    stuck_at: Option<i64>,
    /// Whether this is a server of before 3.7.
    lacks_range_stream: bool,
    /// What `Status` says, if it is not 3.7.1.
    version: Option<String>,
}

/// What the services share.
#[derive(Clone, Debug)]
struct Service {
    member_id: u64,
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    /// Another call was seen.
    called: Arc<Condvar>,
    store: Arc<Mutex<Store>>,
    /// The store's revision; a change wakes the watches.
    revision: signal::Sender<i64>,
    /// An error for every open stream.
    breaks: broadcast::Sender<Status>,
}

/// A running server; stopped, connections included, when dropped.
#[derive(Debug)]
pub struct Fake {
    /// Where it listens; means nothing for a socket file.
    pub address: SocketAddr,
    service: Service,
    runtime: Option<Runtime>,
}

impl Fake {
    /// A server on a free port.
    pub fn start(member_id: u64) -> Fake {
        Fake::start_at(member_id, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A server on this address, which is free.
    pub fn start_at(member_id: u64, address: SocketAddr) -> Fake {
        let (listener, address) = listen(address);
        Fake::serve(Service::new(member_id, address), listener)
    }

    /// A server on a socket file that does not exist yet.
    pub fn start_unix(member_id: u64, path: &Path) -> Fake {
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a new socket file");
        listener.set_nonblocking(true).expect("a socket option");
        let service = Service::new(member_id, SocketAddr::from(([0, 0, 0, 0], 0)));
        let (runtime, router) = (runtime(), service.router());
        runtime.spawn(async move {
            let listener = UnixListener::from_std(listener).expect("a listener");
            let incoming = UnixListenerStream::new(listener);
            let serving = router.serve_with_incoming(incoming);
            serving.await.expect("a working listener");
        });
        Fake {
            address: service.address,
            service,
            runtime: Some(runtime),
        }
    }

    /// Another member of the same cluster: an address and a script of its own, the same keys.
    pub fn join(&self, member_id: u64) -> Fake {
        let (listener, address) = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let service = Service {
            member_id,
            address,
            script: Arc::default(),
            called: Arc::default(),
            breaks: broadcast::Sender::new(BREAKS),
            ..self.service.clone()
        };
        Fake::serve(service, listener)
    }

    fn serve(service: Service, listener: std::net::TcpListener) -> Fake {
        let (runtime, router) = (runtime(), service.router());
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let incoming = TcpListenerStream::new(listener);
            let serving = router.serve_with_incoming(incoming);
            serving.await.expect("a working listener");
        });
        Fake {
            address: service.address,
            service,
            runtime: Some(runtime),
        }
    }

    /// The endpoint of a server on a port.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// The next calls fail with these, one each.
    pub fn fail_with(&self, failures: impl IntoIterator<Item = Status>) {
        self.service.script().failures.extend(failures);
    }

    /// Forgets the scripted failures that were not used, and returns and forgets what was seen.
    pub fn take_seen(&self) -> Vec<Seen> {
        let mut script = self.service.script();
        script.failures.clear();
        std::mem::take(&mut script.seen)
    }

    /// Whether no call has arrived since the last [`Fake::take_seen`].
    pub fn is_untouched(&self) -> bool {
        self.service.script().seen.is_empty()
    }

    /// Waits until this call was seen so often, since the last [`Fake::take_seen`].
    pub fn wait_for(&self, method: &str, times: usize) {
        let few = |script: &mut Script| {
            let calls = script.seen.iter().filter(|seen| seen.method == method);
            calls.count() < times
        };
        let script = self.service.called.wait_while(self.service.script(), few);
        drop(script.expect("no test panics while holding it"));
    }

    /// Raises the alarm about space.
    pub fn raise_alarm(&self) {
        let alarm = pb::AlarmMember {
            member_id: self.service.member_id,
            alarm: pb::AlarmType::Nospace.into(),
        };
        self.service.script().alarms.push(alarm);
    }

    /// What `Maintenance.Snapshot` sends.
    pub fn set_snapshot(&self, bytes: impl Into<Vec<u8>>) {
        self.service.script().snapshot = bytes.into();
    }

    /// What `MemberList` says.
    pub fn set_members(&self, members: impl Into<Vec<pb::Member>>) {
        self.service.script().members = Some(members.into());
    }

    /// Serializable reads show the state of now from now on: a member that is cut off. `false` is
    /// the end of it.
    pub fn fall_behind(&self, behind: bool) {
        let now = self.service.store().revision();
        self.service.script().stuck_at = behind.then_some(now);
    }

    /// Is a server of this version.
    pub fn set_version(&self, version: &str) {
        self.service.script().version = Some(version.to_owned());
    }

    /// Is a server that does not know `RangeStream`.
    pub fn lack_range_stream(&self) {
        self.service.script().lacks_range_stream = true;
    }

    /// Ends every open stream with this error.
    pub fn break_streams(&self, status: Status) {
        // Without a stream nobody listens.
        let _ = self.service.breaks.send(status);
    }

    /// Ends a lease, as if its time were over.
    pub fn expire(&self, lease: i64) {
        let mut store = self.service.store();
        store.revoke(lease).expect("a lease that was granted");
        self.service.revision.send_replace(store.revision());
    }

    /// The keys of the leases that live, by lease.
    pub fn leases(&self) -> Vec<i64> {
        self.service.store().leases()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(address: SocketAddr) -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind(address).expect("the port is free");
    listener.set_nonblocking(true).expect("a socket option");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

/// A runtime of its own for each server, so that stopping it also cuts the open connections.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl Service {
    fn new(member_id: u64, address: SocketAddr) -> Service {
        let store = Store::default();
        Service {
            member_id,
            address,
            script: Arc::default(),
            called: Arc::default(),
            revision: signal::Sender::new(store.revision()),
            store: Arc::new(Mutex::new(store)),
            breaks: broadcast::Sender::new(BREAKS),
        }
    }

    fn router(&self) -> tonic::transport::server::Router {
        let service = self.clone();
        let metrics = get(async move || service.metrics());
        let http = axum::Router::new().route("/metrics", metrics);
        tonic::transport::Server::builder()
            .accept_http1(true)
            .add_routes(Routes::from(http))
            .add_service(KvServer::new(self.clone()))
            .add_service(WatchServer::new(self.clone()))
            .add_service(LeaseServer::new(self.clone()))
            .add_service(ClusterServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self.clone()))
            .add_service(LockServer::new(self.clone()))
            .add_service(ElectionServer::new(self.clone()))
    }

    /// Each key takes 1 MiB.
    fn metrics(&self) -> String {
        let bytes = (self.store().len() + 1) << 20;
        format!("process_resident_memory_bytes {bytes:e}\n")
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no test panics while holding it")
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no test panics while holding it")
    }

    /// Notes a call, and fails it if that is scripted.
    fn on<T>(&self, method: &'static str, request: &Request<T>) -> Result<(), Status> {
        let mut script = self.script();
        script.seen.push(Seen {
            method,
            metadata: request.metadata().clone(),
        });
        self.called.notify_all();
        match script.failures.pop_front() {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: 1,
            member_id: self.member_id,
            revision,
            raft_term: 3,
        })
    }

    /// Runs something on the store and wakes the watches if it has changed anything.
    fn change<T>(&self, work: impl FnOnce(&mut Store) -> Result<T, Status>) -> Result<T, Status> {
        let mut store = self.store();
        let before = store.revision();
        let result = work(&mut store);
        if store.revision() != before {
            self.revision.send_replace(store.revision());
        }
        result
    }
}
