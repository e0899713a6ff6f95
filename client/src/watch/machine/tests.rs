//! The machine by hand, and against a model server under random schedules and failures.

use ferrite_api::pb::mvccpb::{Event, KeyValue};
use pb::watch_request::RequestUnion;
use proptest::prelude::*;
use tonic::Status;

use super::*;

fn create(key: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        start_revision,
        ..Default::default()
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

fn created(watch_id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse {
        header: header(revision),
        watch_id,
        created: true,
        ..Default::default()
    }
}

fn event(key: &str, mod_revision: i64) -> Event {
    Event {
        kv: Some(KeyValue {
            key: key.to_owned().into(),
            mod_revision,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn events(watch_id: i64, revisions: &[i64]) -> pb::WatchResponse {
    events_of("k", watch_id, revisions)
}

fn events_of(key: &str, watch_id: i64, revisions: &[i64]) -> pb::WatchResponse {
    pb::WatchResponse {
        header: header(*revisions.last().expect("some")),
        watch_id,
        events: revisions.iter().map(|&at| event(key, at)).collect(),
        ..Default::default()
    }
}

fn progress(watch_id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse {
        header: header(revision),
        watch_id,
        ..Default::default()
    }
}

fn unavailable() -> Error {
    Error::Etcd(EtcdError::Stopped)
}

/// Everything the machine wants to send, in short: `+key@start`, `-id`, `?`.
fn sent(machine: &mut Machine) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(request) = machine.next_request() {
        machine.check_invariants();
        all.push(match request.request_union.expect("set") {
            RequestUnion::CreateRequest(create) => {
                let key = String::from_utf8_lossy(&create.key);
                format!("+{key}@{}", create.start_revision)
            }
            RequestUnion::CancelRequest(cancel) => format!("-{}", cancel.watch_id),
            RequestUnion::ProgressRequest(_) => "?".to_owned(),
        });
    }
    assert!(!machine.has_request());
    all
}

/// The revisions of the events that wait for a reader.
fn read(machine: &mut Machine, key: Key) -> Vec<i64> {
    let mut revisions = Vec::new();
    while let Next::Response(response) = machine.take(key) {
        let of = |event: &Event| event.kv.as_ref().expect("set").mod_revision;
        revisions.extend(response.events.iter().map(of));
    }
    revisions
}

fn error_of(machine: &mut Machine, key: Key) -> String {
    match machine.take(key) {
        Next::Ended(error) => error.to_string(),
        other => panic!("not ended: {other:?}"),
    }
}

#[test]
fn creations_go_out_one_at_a_time() {
    let mut machine = Machine::new(true);
    let a = machine.create(create("a", 0), false);
    let b = machine.create(create("b", 5), false);
    assert_eq!(sent(&mut machine), ["+a@0"]);
    assert!(machine.decision(a).is_none());
    machine.received(created(0, 9));
    assert!(machine.decision(a).expect("accepted").is_ok());
    assert!(machine.decision(b).is_none());
    assert_eq!(sent(&mut machine), ["+b@5"]);
    machine.received(created(1, 9));
    assert_eq!(sent(&mut machine), [""; 0]);
    machine.received(events(1, &[6, 7]));
    machine.received(events(0, &[10]));
    assert_eq!(read(&mut machine, a), [10]);
    assert_eq!(read(&mut machine, b), [6, 7]);
}

#[test]
fn a_new_stream_goes_on_where_each_reader_is() {
    let mut machine = Machine::new(true);
    let a = machine.create(create("a", 0), false);
    let b = machine.create(create("b", 5), false);
    let c = machine.create(create("c", 100), false);
    for id in 0..3 {
        machine.next_request().expect("a creation");
        machine.received(created(id, 9));
    }
    machine.received(events(1, &[5, 8]));
    machine.received(progress(NO_WATCH, 20));
    machine.received(events(0, &[21]));
    assert_eq!(
        machine.broken(&unavailable(), 1),
        Broken::Reopen(FIRST_BACKOFF)
    );
    machine.check_invariants();
    let mut again = Vec::new();
    for id in 0..3 {
        again.extend(sent(&mut machine));
        machine.received(created(id, 30));
    }
    // A watch from a future revision does not move backwards.
    assert_eq!(again, ["+a@22", "+b@21", "+c@100"]);
    assert_eq!(read(&mut machine, a), [21]);
    assert_eq!(read(&mut machine, b), [5, 8]);
    assert_eq!(read(&mut machine, c), [0i64; 0]);
}

#[test]
fn from_now_on_is_decided_by_the_first_creation() {
    let mut machine = Machine::new(true);
    machine.create(create("a", 0), false);
    assert_eq!(sent(&mut machine), ["+a@0"]);
    machine.broken(&unavailable(), 1);
    assert_eq!(sent(&mut machine), ["+a@0"]);
    machine.received(created(0, 9));
    machine.broken(&unavailable(), 1);
    assert_eq!(sent(&mut machine), ["+a@9"]);
    // The second creation at 50 must not skip what happened since 9.
    machine.received(created(0, 50));
    machine.broken(&unavailable(), 1);
    assert_eq!(sent(&mut machine), ["+a@9"]);
}

#[test]
fn fragments_are_merged_and_a_cut_one_comes_again() {
    let mut machine = Machine::new(true);
    let a = machine.create(create("a", 3), false);
    machine.next_request().expect("a creation");
    machine.received(created(0, 9));
    let part = |revision, fragment| pb::WatchResponse {
        fragment,
        ..events(0, &[revision])
    };
    machine.received(part(3, true));
    machine.received(part(4, true));
    assert_eq!(read(&mut machine, a), [0i64; 0]);
    machine.received(part(5, false));
    let Next::Response(whole) = machine.take(a) else {
        panic!("whole by now");
    };
    assert_eq!((whole.events.len(), whole.fragment), (3, false));
    machine.received(part(6, true));
    machine.broken(&unavailable(), 1);
    assert_eq!(sent(&mut machine), ["+a@6"]);
    machine.received(created(0, 9));
    machine.received(part(6, false));
    assert_eq!(read(&mut machine, a), [6]);
}

#[test]
fn created_is_told_once_and_only_on_demand() {
    let mut machine = Machine::new(true);
    let told = machine.create(create("a", 0), true);
    let silent = machine.create(create("b", 0), false);
    for round in 0..2 {
        for id in 0..2 {
            machine.next_request().expect("a creation");
            machine.received(created(id, 9));
        }
        match machine.take(told) {
            Next::Response(response) => assert!(round == 0 && response.created),
            Next::Pending => assert_eq!(round, 1),
            Next::Ended(error) => panic!("{error}"),
        }
        assert!(matches!(machine.take(silent), Next::Pending));
        machine.broken(&unavailable(), 1);
    }
}

#[test]
fn a_refused_creation_ends_that_watch_alone() {
    let mut machine = Machine::new(true);
    let reasons = [
        (
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
            "etcdserver: permission denied",
        ),
        (
            "mvcc: watcher range is empty",
            "mvcc: watcher range is empty",
        ),
    ];
    for (reason, error) in reasons {
        let refused = machine.create(create("a", 0), false);
        machine.next_request().expect("a creation");
        machine.received(pb::WatchResponse {
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..created(NO_WATCH, 9)
        });
        assert!(machine.decision(refused).expect("refused").is_err());
        assert_eq!(error_of(&mut machine, refused), error);
    }
    let next = machine.create(create("b", 0), false);
    machine.next_request().expect("a creation");
    machine.received(created(0, 9));
    assert!(machine.decision(next).expect("accepted").is_ok());
}

#[test]
fn compaction_ends_the_watch_with_its_revision() {
    let mut machine = Machine::new(true);
    let a = machine.create(create("a", 3), false);
    machine.next_request().expect("a creation");
    machine.received(created(0, 90));
    machine.received(events(0, &[3]));
    machine.received(pb::WatchResponse {
        canceled: true,
        compact_revision: 50,
        ..progress(0, 0)
    });
    // What came before the end is still read.
    assert_eq!(read(&mut machine, a), [3]);
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(error_of(&mut machine, a), compacted);
    assert_eq!(error_of(&mut machine, a), compacted);
    let by = machine.ended_by(a).expect("an answer");
    assert_eq!(by.compact_revision, 50);
    // etcd wants to be told; the confirmation means nothing.
    assert_eq!(sent(&mut machine), ["-0"]);
    machine.received(pb::WatchResponse {
        canceled: true,
        ..progress(0, 90)
    });
    assert!(machine.is_idle());
}

#[test]
fn a_cancel_by_the_server_is_an_error() {
    for (reason, error) in [
        (
            "",
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "etcdserver: permission denied",
            "etcdserver: permission denied",
        ),
    ] {
        let mut machine = Machine::new(true);
        let a = machine.create(create("a", 0), false);
        machine.next_request().expect("a creation");
        machine.received(created(0, 9));
        machine.received(pb::WatchResponse {
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..progress(0, 9)
        });
        assert_eq!(error_of(&mut machine, a), error);
        assert_eq!(sent(&mut machine), [""; 0]);
    }
}

#[test]
fn a_reader_that_goes_cancels_its_watch_whenever_that_is() {
    let mut machine = Machine::new(true);
    let queued = machine.create(create("a", 0), false);
    machine.remove(queued);
    assert_eq!(sent(&mut machine), [""; 0]);

    let creating = machine.create(create("b", 0), false);
    assert_eq!(sent(&mut machine), ["+b@0"]);
    machine.remove(creating);
    let active = machine.create(create("c", 0), false);
    // The answer to "b" is still awaited: it must not be taken for the answer to "c".
    assert_eq!(sent(&mut machine), [""; 0]);
    machine.received(created(0, 9));
    assert_eq!(sent(&mut machine), ["-0", "+c@0"]);
    machine.received(created(1, 9));
    machine.remove(active);
    assert_eq!(sent(&mut machine), ["-1"]);
    assert!(machine.is_idle());
    // Late answers for it are ignored.
    machine.received(events(1, &[10]));
    assert_eq!(sent(&mut machine), [""; 0]);
}

#[test]
fn answers_for_an_unknown_watch_are_cancelled_once() {
    let mut machine = Machine::new(true);
    machine.received(events(7, &[10]));
    machine.received(events(7, &[11]));
    assert_eq!(sent(&mut machine), ["-7"]);
}

#[test]
fn progress_is_asked_for_after_all_creations_and_told_to_active_watches() {
    let mut machine = Machine::new(true);
    machine.request_progress();
    assert_eq!(sent(&mut machine), [""; 0]);
    let a = machine.create(create("a", 0), false);
    machine.request_progress();
    assert_eq!(sent(&mut machine), ["+a@0"]);
    machine.received(created(0, 9));
    assert_eq!(sent(&mut machine), ["?"]);
    let b = machine.create(create("b", 3), false);
    assert_eq!(sent(&mut machine), ["+b@3"]);
    machine.received(progress(NO_WATCH, 12));
    assert!(matches!(machine.take(a), Next::Response(_)));
    assert!(matches!(machine.take(b), Next::Pending));
    machine.broken(&unavailable(), 1);
    assert_eq!(sent(&mut machine), ["+a@13"]);
    machine.received(created(0, 15));
    assert_eq!(sent(&mut machine), ["+b@3"]);
}

#[test]
fn a_lagging_reader_pauses_its_watch_and_catches_up() {
    let mut machine = Machine {
        inbox_limit_bytes: 1000,
        ..Machine::new(true)
    };
    let slow = machine.create(create("a", 1), false);
    let quick = machine.create(create("b", 1), false);
    for id in 0..2 {
        machine.next_request().expect("a creation");
        machine.received(created(id, 9));
    }
    let mut at = 0;
    while !machine.has_request() {
        at += 1;
        machine.received(events(0, &[at]));
    }
    assert!(at > 1);
    assert_eq!(sent(&mut machine), ["-0"]);
    // On its way when the watch was cancelled: comes again later.
    machine.received(events(0, &[at + 1]));
    machine.received(events(1, &[at + 1]));
    assert_eq!(read(&mut machine, quick), [at + 1]);
    assert_eq!(read(&mut machine, slow), (1..=at).collect::<Vec<_>>());
    assert_eq!(sent(&mut machine), [format!("+a@{}", at + 1)]);
}

#[test]
fn only_passing_failures_are_survived() {
    for (error, endpoints, expected) in [
        (unavailable(), 1, true),
        (Error::from(Status::internal("?")), 1, true),
        (Error::Etcd(EtcdError::WatchCanceled), 1, true),
        (Error::Etcd(EtcdError::NotSupportedForLearner), 3, true),
        (Error::Etcd(EtcdError::NotSupportedForLearner), 1, false),
        (Error::Etcd(EtcdError::NoLeader), 3, false),
        (Error::Etcd(EtcdError::PermissionDenied), 3, false),
        (Error::from(Status::unimplemented("?")), 3, false),
        (Error::from(Status::resource_exhausted("?")), 3, false),
    ] {
        let mut machine = Machine::new(true);
        let a = machine.create(create("a", 0), false);
        let survived = machine.broken(&error, endpoints) != Broken::Halted;
        assert_eq!(survived, expected, "{error}");
        if !expected {
            assert_eq!(error_of(&mut machine, a), error.to_string());
            assert!(machine.is_idle());
        }
    }
}

#[test]
fn a_member_without_a_leader_is_left_for_another_one() {
    let mut machine = Machine::new(false);
    let a = machine.create(create("a", 5), false);
    assert_eq!(sent(&mut machine), ["+a@5"]);
    machine.received(created(0, 9));
    let broken = machine.broken(&Error::Etcd(EtcdError::NoLeader), 1);
    assert_ne!(broken, Broken::Halted);
    assert_eq!(sent(&mut machine), ["+a@5"]);
    assert!(machine.decision(a).expect("accepted before").is_ok());
}

#[test]
fn the_pause_grows_until_something_works() {
    let mut machine = Machine::new(true);
    machine.create(create("a", 0), false);
    let pause = |machine: &mut Machine| match machine.broken(&unavailable(), 1) {
        Broken::Reopen(pause) => pause,
        Broken::Halted => panic!("a passing failure"),
    };
    assert_eq!(pause(&mut machine), Duration::from_millis(1));
    assert_eq!(pause(&mut machine), Duration::from_micros(1250));
    for _ in 0..100 {
        pause(&mut machine);
    }
    assert_eq!(pause(&mut machine), MAX_BACKOFF);
    machine.received(progress(NO_WATCH, 5));
    assert_eq!(pause(&mut machine), FIRST_BACKOFF);
}

/// One step of a schedule; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Changes a key.
    Commit(u8),
    /// Compacts to this many revisions before the newest.
    Compact(u8),
    Watch {
        key: u8,
        /// Relative to the newest revision; `None` is from now on.
        start: Option<i8>,
        fragment: bool,
    },
    /// A reader goes.
    Leave(u8),
    Read(u8, u8),
    AskProgress,
    /// Requests go from the machine to the wire.
    Send(u8),
    /// The server handles requests; `late`: a change falls between the registration of a watch
    /// and the header of its creation, as in etcd.
    Serve(u8, bool),
    /// The server sends a watch up to so many events.
    Emit(u8, u8),
    /// Answers go from the wire to the machine.
    Deliver(u8),
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    let start = prop_oneof![Just(None), (-12i8..6).prop_map(Some)];
    prop_oneof![
        6 => (0u8..2).prop_map(Step::Commit),
        1 => (0u8..20).prop_map(Step::Compact),
        3 => (0u8..2, start, any::<bool>())
            .prop_map(|(key, start, fragment)| Step::Watch { key, start, fragment }),
        1 => any::<u8>().prop_map(Step::Leave),
        3 => (any::<u8>(), 1u8..5).prop_map(|(which, n)| Step::Read(which, n)),
        1 => Just(Step::AskProgress),
        6 => (1u8..4).prop_map(Step::Send),
        6 => (1u8..4, any::<bool>()).prop_map(|(n, late)| Step::Serve(n, late)),
        8 => (any::<u8>(), 1u8..4).prop_map(|(which, n)| Step::Emit(which, n)),
        8 => (1u8..6).prop_map(Step::Deliver),
        2 => Just(Step::Break),
    ]
}

/// An answer on its way; a creation also says what "now" was.
struct OnWire {
    response: pb::WatchResponse,
    registered_at: i64,
}

/// A watch on the model server.
struct Served {
    key: String,
    /// The next revision to look at.
    next: i64,
    fragment: bool,
}

/// A reader and what it must see.
struct Observer {
    watched: String,
    /// The first revision that must be seen; with "from now on" known after the creation.
    start: Option<i64>,
    /// A change of this revision, just before the start, may be seen.
    optional: Option<i64>,
    seen: Vec<i64>,
    compacted: bool,
}

/// A machine, a server and the wire between them.
struct World {
    machine: Machine,
    observers: BTreeMap<Key, Observer>,
    /// The key changed at each revision, from revision 2 on.
    history: Vec<String>,
    compacted: i64,
    served: BTreeMap<i64, Served>,
    next_id: i64,
    to_server: VecDeque<pb::WatchRequest>,
    to_client: VecDeque<OnWire>,
}

impl World {
    fn new() -> World {
        World {
            machine: Machine {
                inbox_limit_bytes: 600,
                ..Machine::new(true)
            },
            observers: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            served: BTreeMap::new(),
            next_id: 0,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
        }
    }

    fn revision(&self) -> i64 {
        1 + i64::try_from(self.history.len()).expect("short")
    }

    /// The revisions from `start` on that changed `key`.
    fn changes(&self, key: &str, start: i64) -> Vec<i64> {
        let at = |index: usize| 2 + i64::try_from(index).expect("short");
        self.history
            .iter()
            .enumerate()
            .filter(|(_, changed)| *changed == key)
            .map(|(index, _)| at(index))
            .filter(|revision| *revision >= start)
            .collect()
    }

    fn answer(&mut self, response: pb::WatchResponse) {
        let response = pb::WatchResponse {
            header: response.header.or(header(self.revision())),
            ..response
        };
        self.to_client.push_back(OnWire {
            response,
            registered_at: 0,
        });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Commit(key) => self.history.push(format!("k{key}")),
            Step::Compact(back) => {
                let to = self.revision() - i64::from(back);
                self.compacted = self.compacted.max(to);
            }
            Step::Watch {
                key,
                start,
                fragment,
            } => {
                let watched = format!("k{key}");
                let start = start.map(|offset| (self.revision() + i64::from(offset)).max(1));
                let request = pb::WatchCreateRequest {
                    fragment,
                    ..create(&watched, start.unwrap_or(0))
                };
                let key = self.machine.create(request, false);
                let observer = Observer {
                    watched,
                    start,
                    optional: None,
                    seen: Vec::new(),
                    compacted: false,
                };
                self.observers.insert(key, observer);
            }
            Step::Leave(which) => {
                if let Some(key) = self.pick(which) {
                    self.machine.remove(key);
                    self.observers.remove(&key);
                }
            }
            Step::Read(which, n) => {
                if let Some(key) = self.pick(which) {
                    self.read(key, n);
                }
            }
            Step::AskProgress => self.machine.request_progress(),
            Step::Send(n) => {
                for _ in 0..n {
                    self.to_server.extend(self.machine.next_request());
                }
            }
            Step::Serve(n, late) => {
                for _ in 0..n {
                    self.serve(late);
                }
            }
            Step::Emit(which, n) => {
                let ids: Vec<i64> = self.served.keys().copied().collect();
                if !ids.is_empty() {
                    self.emit(ids[usize::from(which) % ids.len()], usize::from(n));
                }
            }
            Step::Deliver(n) => {
                for _ in 0..n {
                    self.deliver();
                }
            }
            Step::Break => {
                self.served.clear();
                self.to_server.clear();
                self.to_client.clear();
                let broken = self.machine.broken(&unavailable(), 1);
                assert_ne!(broken, Broken::Halted);
            }
        }
        self.machine.check_invariants();
    }

    fn pick(&self, which: u8) -> Option<Key> {
        let count = self.observers.len().max(1);
        self.observers
            .keys()
            .copied()
            .nth(usize::from(which) % count)
    }

    fn serve(&mut self, late: bool) {
        let Some(request) = self.to_server.pop_front() else {
            return;
        };
        match request.request_union.expect("set") {
            RequestUnion::CreateRequest(create) => {
                let registered_at = self.revision();
                let next = match create.start_revision {
                    0 => registered_at + 1,
                    start => start,
                };
                if late {
                    self.history.push("k0".to_owned());
                }
                let id = self.next_id;
                self.next_id += 1;
                let served = Served {
                    key: String::from_utf8(create.key.to_vec()).expect("text"),
                    next,
                    fragment: create.fragment,
                };
                self.served.insert(id, served);
                self.to_client.push_back(OnWire {
                    response: created(id, self.revision()),
                    registered_at,
                });
            }
            RequestUnion::CancelRequest(cancel) => {
                if self.served.remove(&cancel.watch_id).is_some() {
                    self.answer(pb::WatchResponse {
                        watch_id: cancel.watch_id,
                        canceled: true,
                        ..Default::default()
                    });
                }
            }
            RequestUnion::ProgressRequest(_) => {
                let revision = self.revision();
                let mut served = self.served.values();
                if !self.served.is_empty() && served.all(|watch| watch.next == revision + 1) {
                    self.answer(progress(NO_WATCH, revision));
                }
            }
        }
    }

    /// Sends a watch what it has not had, or that it cannot have it any more.
    fn emit(&mut self, id: i64, most: usize) {
        let served = &self.served[&id];
        let (key, next, fragment) = (served.key.clone(), served.next, served.fragment);
        if next < self.compacted {
            self.served.remove(&id);
            return self.answer(pb::WatchResponse {
                header: header(0),
                watch_id: id,
                canceled: true,
                compact_revision: self.compacted,
                ..Default::default()
            });
        }
        let mut revisions = self.changes(&key, next);
        revisions.truncate(most);
        let done = revisions.len() < most;
        let after = match revisions.last() {
            _ if done => next.max(self.revision() + 1),
            Some(last) => last + 1,
            None => next,
        };
        self.served.get_mut(&id).expect("looked up above").next = after;
        if revisions.is_empty() {
            return;
        }
        let parts: Vec<&[i64]> = match fragment {
            true => revisions.chunks(1).collect(),
            false => vec![&revisions],
        };
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            let response = pb::WatchResponse {
                // Of the store, not of the events: no point to go on from.
                header: header(self.revision()),
                fragment: index + 1 < count,
                ..events_of(&key, id, part)
            };
            self.answer(response);
        }
    }

    fn deliver(&mut self) {
        let Some(OnWire {
            response,
            registered_at,
        }) = self.to_client.pop_front()
        else {
            return;
        };
        let is_created = response.created;
        let undecided: Vec<Key> = match is_created {
            true => self
                .observers
                .keys()
                .copied()
                .filter(|key| self.machine.decision(*key).is_none())
                .collect(),
            false => Vec::new(),
        };
        let revision = revision(&response);
        self.machine.received(response);
        for key in undecided {
            if self.machine.decision(key).is_some() {
                let observer = self.observers.get_mut(&key).expect("listed above");
                if observer.start.is_none() {
                    observer.start = Some(registered_at + 1);
                    observer.optional = (revision == registered_at).then_some(registered_at);
                }
            }
        }
    }

    fn read(&mut self, key: Key, most: u8) {
        for _ in 0..most {
            match self.machine.take(key) {
                Next::Pending => return,
                Next::Response(response) => {
                    let observer = self.observers.get_mut(&key).expect("picked from there");
                    for event in &response.events {
                        let kv = event.kv.as_ref().expect("set");
                        assert_eq!(kv.key, observer.watched);
                        observer.seen.push(kv.mod_revision);
                    }
                    if response.events.is_empty() {
                        let revision = revision(&response);
                        let seen = self.observers[&key].seen.clone();
                        let expected = self.expected(key);
                        let until = expected.iter().filter(|at| **at <= revision).count();
                        assert!(
                            seen.len() >= until,
                            "progress {revision}: {seen:?} of {expected:?}"
                        );
                    }
                }
                Next::Ended(error) => {
                    assert_eq!(error.etcd(), Some(EtcdError::Compacted));
                    let by = self.machine.ended_by(key).expect("an answer");
                    assert!(by.compact_revision <= self.compacted);
                    let observer = self.observers.get_mut(&key).expect("picked from there");
                    observer.compacted = true;
                    return;
                }
            }
        }
    }

    /// All that an observer must see, and what it may see before that if it did.
    fn expected(&self, key: Key) -> Vec<i64> {
        let observer = &self.observers[&key];
        let Some(start) = observer.start else {
            return Vec::new();
        };
        let mut expected = self.changes(&observer.watched, start);
        if let (Some(optional), Some(first)) = (observer.optional, observer.seen.first())
            && optional == *first
        {
            expected.insert(0, optional);
        }
        expected
    }

    fn check(&self, all: bool) {
        for (&key, observer) in &self.observers {
            let expected = self.expected(key);
            let count = observer.seen.len();
            assert!(
                count <= expected.len(),
                "{:?} of {expected:?}",
                observer.seen
            );
            assert_eq!(observer.seen, expected[..count], "of {expected:?}");
            if all && !observer.compacted {
                assert_eq!(observer.seen, expected);
            }
            if observer.compacted
                && let Some(missing) = expected.get(count)
            {
                // Only what is gone may be missing, and nothing before it.
                assert!(
                    *missing <= self.compacted
                        || count == 0
                        || observer.seen[count - 1] < self.compacted
                );
            }
        }
    }

    /// Lets everything arrive, with nothing breaking any more.
    fn settle(&mut self) {
        let mut last = usize::MAX;
        loop {
            self.step(&Step::Send(u8::MAX));
            self.step(&Step::Serve(u8::MAX, false));
            for id in self.served.keys().copied().collect::<Vec<_>>() {
                self.emit(id, usize::MAX);
            }
            self.step(&Step::Deliver(u8::MAX));
            for key in self.observers.keys().copied().collect::<Vec<_>>() {
                self.read(key, u8::MAX);
            }
            let quiet = !self.machine.has_request() && self.to_server.is_empty();
            let seen = self
                .observers
                .values()
                .map(|observer| observer.seen.len())
                .sum();
            if quiet && self.to_client.is_empty() && seen == last {
                return;
            }
            last = seen;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// `spec/watch.md` section 5: ordered, unique, reliable, resumable, bookmarkable.
    #[test]
    fn no_gap_and_no_repetition_whatever_breaks(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check(false);
        }
        world.settle();
        world.check(true);
        for key in world.observers.keys().copied().collect::<Vec<_>>() {
            world.machine.remove(key);
        }
        prop_assert!(world.machine.is_idle());
    }
}
