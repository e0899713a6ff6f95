//! Random requests. Messages are filled in from their descriptors, so no field is forgotten; the values
//! of a field come from its name, so that requests meet each other: few keys, revisions around the
//! newest one, leases that may be there.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use ferrite_api::pb::DESCRIPTORS;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, SerializeOptions, Value,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};

use super::accounts;
use super::step::{Answer, Step};

/// The path of a stream of watches.
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";

const STREAM: &str = "/etcdserverpb.KV/RangeStream";

const DOWNGRADE: &str = "/etcdserverpb.Maintenance/Downgrade";

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("the build has encoded it"));

type Call = (u32, &'static str, &'static str);

/// Calls, and how often they come among each other. The last column is the path of the JSON gateway, where
/// calls go by it now and then.
const CALLS: [Call; 28] = [
    (300, "etcdserverpb.KV/Put", "kv/put"),
    (200, "etcdserverpb.KV/Range", "kv/range"),
    (60, "etcdserverpb.KV/RangeStream", ""),
    (60, "etcdserverpb.KV/DeleteRange", "kv/deleterange"),
    (200, "etcdserverpb.KV/Txn", "kv/txn"),
    (8, "etcdserverpb.KV/Compact", "kv/compaction"),
    (4, "etcdserverpb.Watch/Watch", ""),
    (40, "etcdserverpb.Lease/LeaseGrant", "lease/grant"),
    (25, "etcdserverpb.Lease/LeaseRevoke", "lease/revoke"),
    (20, "etcdserverpb.Lease/LeaseTimeToLive", "lease/timetolive"),
    (10, "etcdserverpb.Lease/LeaseLeases", "lease/leases"),
    (10, "etcdserverpb.Lease/LeaseKeepAlive", ""),
    (10, "v3lockpb.Lock/Lock", "lock/lock"),
    (5, "v3lockpb.Lock/Unlock", "lock/unlock"),
    (10, "v3electionpb.Election/Campaign", "election/campaign"),
    (10, "v3electionpb.Election/Proclaim", "election/proclaim"),
    (5, "v3electionpb.Election/Leader", "election/leader"),
    (5, "v3electionpb.Election/Resign", "election/resign"),
    (3, "etcdserverpb.Cluster/MemberList", "cluster/member/list"),
    (
        2,
        "etcdserverpb.Cluster/MemberRemove",
        "cluster/member/remove",
    ),
    (
        2,
        "etcdserverpb.Cluster/MemberUpdate",
        "cluster/member/update",
    ),
    (
        2,
        "etcdserverpb.Cluster/MemberPromote",
        "cluster/member/promote",
    ),
    (5, "etcdserverpb.Maintenance/Alarm", "maintenance/alarm"),
    (3, "etcdserverpb.Maintenance/Status", "maintenance/status"),
    (20, "etcdserverpb.Maintenance/HashKV", "maintenance/hashkv"),
    (2, "etcdserverpb.Maintenance/Hash", ""),
    (
        2,
        "etcdserverpb.Maintenance/MoveLeader",
        "maintenance/transfer-leadership",
    ),
    (
        3,
        "etcdserverpb.Maintenance/Downgrade",
        "maintenance/downgrade",
    ),
];

/// Calls that watchers see.
const CHANGES: [&str; 5] = [
    "KV/Put",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "Lease/LeaseRevoke",
];

/// HTTP requests.
const PATHS: [&str; 12] = [
    "/version",
    "/health",
    "/health?serializable=true",
    "/health?exclude=NOSPACE",
    "/readyz",
    "/livez",
    "/livez?exclude=serializable_read",
    "/readyz/data_corruption",
    "/readyz/nothing",
    "/v3/kv/range",
    "/v3/nothing",
    "/nothing",
];

/// Keys, few enough that etcd sorts them without changing the order of equals: not more than 12 with those
/// of the queues. The first one is refused.
const KEYS: [&[u8]; 8] = [b"", b"\0", b"a", b"a/1", b"a/2", b"b", b"c", b"\xff"];

/// Leases, each with a queue of its own.
const LEASES: std::ops::Range<i64> = 1..5;

/// Where ranges begin and end.
const ENDS: [&[u8]; 13] = [
    b"",
    b"\0",
    b"a",
    b"a\0",
    b"a/1",
    b"a/2",
    b"a0",
    b"b",
    b"b/1",
    b"c",
    b"r",
    b"\xfe\xff",
    b"\xff",
];

/// Values.
const VALUES: [&[u8]; 6] = [b"", b"x", b"y", b"\0\xff", b"value", b"another value"];

/// Where a downgrade is to lead.
const VERSIONS: [&str; 11] = [
    "3.6", "3.6.4", "", "3", "3.5", "3.5.1", "3.7.0", "3.8", "4.6", "v3.6", "3.6.0.1",
];

/// So many of them, from the first one on, are possible.
const POSSIBLE: usize = 2;

/// Nesting of transactions: more than is allowed.
const DEPTH: u32 = 3;

/// Whether a field is of a request about users and roles.
fn is_account(field: &FieldDescriptor) -> bool {
    field.parent_message().name().starts_with("Auth")
}

/// The method of a path.
///
/// # Panics
/// There is none.
pub(super) fn method(path: &str) -> MethodDescriptor {
    let (service, name) = path
        .trim_start_matches('/')
        .split_once('/')
        .expect("a path");
    let service = POOL.get_service_by_name(service).expect("a service");
    let mut methods = service.methods();
    methods
        .find(|method| method.name() == name)
        .expect("a method")
}

/// What the requests are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Theme {
    /// Everything but users and roles.
    Data,
    /// Users and roles, and everything else by them.
    Accounts,
}

/// Makes steps.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    theme: Theme,
    /// What comes first.
    prologue: VecDeque<Step>,
    /// The newest revision that was seen.
    revision: i64,
    /// The last leadership of an election.
    leader: Option<DynamicMessage>,
}

impl Generator {
    /// One that makes the same steps for the same random numbers and the same answers.
    pub fn new(rng: StdRng, theme: Theme) -> Self {
        let prologue = match theme {
            Theme::Data => Vec::new(),
            Theme::Accounts => accounts::prologue(),
        };
        Self {
            rng,
            theme,
            prologue: prologue.into(),
            revision: 1,
            leader: None,
        }
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        if let Some(step) = self.prologue.pop_front() {
            return step;
        }
        if self.theme == Theme::Data {
            return self.any(&CALLS);
        }
        let calls: &[Call] = match self.rng.random_bool(0.35) {
            true => &accounts::CALLS,
            false => &CALLS,
        };
        let mut step = self.any(calls);
        match accounts::somebody(&mut self.rng) {
            None => step,
            Some(user) => {
                if let Step::Watch { calls, .. } = &mut step {
                    for call in calls {
                        let step = Box::new(call.clone());
                        *call = Step::As { user: "root", step };
                    }
                }
                if user != "root" {
                    accounts::tame_watch(&mut step);
                }
                let step = Box::new(step);
                Step::As { user, step }
            }
        }
    }

    /// One of these calls, or a request of HTTP.
    fn any(&mut self, calls: &[Call]) -> Step {
        if self.rng.random_bool(0.005) {
            return Step::Get {
                path: self.pick(&PATHS).to_string(),
            };
        }
        let Ok((_, path, json)) = calls.choose_weighted(&mut self.rng, |call| call.0) else {
            unreachable!("there are calls, and weights");
        };
        let path = format!("/{path}");
        let input = method(&path).input();
        if path == WATCH {
            let count = self.rng.random_range(1..4);
            let requests = (0..count).map(|_| self.message(&input, 0));
            let mut requests: Vec<DynamicMessage> = requests.collect();
            // A stream is there with its first answer, and a cancellation has been taken by the time of the
            // answer to what follows it; it may have none.
            for end in [0, count - 1] {
                while !requests[end].has_field_by_name("create_request") {
                    requests[end] = self.message(&input, 0);
                }
            }
            // What a watcher gets that is behind, until it is cancelled, is chance.
            let behind = requests.iter().any(|request| {
                let create = request.get_field_by_name("create_request");
                let start = create.as_deref().and_then(Value::as_message);
                start.is_some_and(|create| create.has_field_by_name("start_revision"))
            });
            if behind {
                requests.retain(|request| !request.has_field_by_name("cancel_request"));
            }
            let calls = (0..self.rng.random_range(0..5)).map(|_| {
                let path = self.pick(&CHANGES);
                let path = format!("/etcdserverpb.{path}");
                let request = self.message(&method(&path).input(), 0);
                Step::Call { path, request }
            });
            let calls = calls.collect();
            return Step::Watch { requests, calls };
        }
        let mut request = self.message(&input, 0);
        accounts::tame(&path, &mut request);
        if path == STREAM {
            // A target without an order makes etcd sort each chunk, so that chunks overlap: not repeated.
            request.clear_field_by_name("sort_target");
        }
        if path == DOWNGRADE && self.is_possible(&request) {
            // When the members have done it is chance: not begun.
            request.clear_field_by_name("action");
        }
        if let Some(lease) = request
            .get_field_by_name("lease")
            .and_then(|it| it.as_i64())
            && input.get_field_by_name("name").is_some()
        {
            // Each lease has a queue of its own: nobody waits for a turn that does not come.
            let name = Bytes::from(format!("queue/{lease}"));
            request.set_field_by_name("name", Value::Bytes(name));
        }
        if !json.is_empty() && self.rng.random_bool(0.05) {
            return Step::Json {
                path: format!("/v3/{json}"),
                body: self.json(&request),
            };
        }
        Step::Call { path, request }
    }

    /// Takes note of what was answered.
    pub fn learn(&mut self, answer: &Answer) {
        let Answer::Call { messages, .. } = answer else {
            return;
        };
        for message in messages {
            let header = message.get_field_by_name("header");
            let revision = header
                .as_deref()
                .and_then(Value::as_message)
                .and_then(|it| {
                    let revision = it.get_field_by_name("revision")?;
                    revision.as_i64()
                });
            self.revision = self.revision.max(revision.unwrap_or_default());
            let leader = message.get_field_by_name("leader");
            if let Some(leader) = leader.as_deref().and_then(Value::as_message) {
                self.leader = Some(leader.clone());
            }
        }
    }

    /// Whether a downgrade leads where one can go.
    fn is_possible(&self, request: &DynamicMessage) -> bool {
        let version = request.get_field_by_name("version");
        let version = version.as_deref().and_then(Value::as_str);
        version.is_some_and(|version| VERSIONS[..POSSIBLE].contains(&version))
    }

    fn json(&mut self, request: &DynamicMessage) -> String {
        let options = SerializeOptions::new()
            .use_proto_field_name(self.rng.random())
            .stringify_64_bit_integers(self.rng.random())
            .skip_default_fields(self.rng.random());
        let mut text = Vec::new();
        let mut serializer = serde_json::Serializer::new(&mut text);
        match request.serialize_with_options(&mut serializer, &options) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            // An enum without a name for its number.
            Err(_) => "{}".to_owned(),
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *from
            .choose(&mut self.rng)
            .expect("there is something to choose from")
    }

    fn message(&mut self, of: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        let chosen: Vec<FieldDescriptor> = of
            .oneofs()
            .filter_map(|oneof| {
                let fields: Vec<_> = oneof
                    .fields()
                    .filter(|it| self.is_wanted(it, depth))
                    .collect();
                // Mostly one of them.
                let all = self.rng.random_bool(0.97);
                fields.choose(&mut self.rng).filter(|_| all).cloned()
            })
            .collect();
        for field in of.fields() {
            let set = match field.containing_oneof() {
                Some(_) => chosen.contains(&field),
                None => self.rng.random_bool(self.often(&field)),
            };
            if !set || !self.is_wanted(&field, depth) {
                continue;
            }
            let value = match field.cardinality() {
                Cardinality::Repeated => {
                    let most = if depth == 0 { 4 } else { 3 };
                    let count = self.rng.random_range(0..most);
                    Value::List((0..count).map(|_| self.value(&field, depth)).collect())
                }
                _ => self.value(&field, depth),
            };
            message.set_field(&field, value);
        }
        if self.theme == Theme::Accounts {
            accounts::tame_range(&mut message);
        }
        message
    }

    /// Whether the field can be compared, and a run of one member survives it.
    fn is_wanted(&self, field: &FieldDescriptor, depth: u32) -> bool {
        match field.name() {
            // When a progress comes, and what has been cancelled in time, is chance.
            "progress_request" | "progress_notify" => false,
            // etcd panics if a transaction has deleted the pair that a put is to leave as it is.
            "ignore_value" | "ignore_lease" => depth == 0,
            "request_txn" => depth < DEPTH,
            // A hash that is none.
            "hashedPassword" => false,
            _ => true,
        }
    }

    /// How often a field is set.
    fn often(&self, field: &FieldDescriptor) -> f64 {
        match field.name() {
            // The server would choose an id, and a time that is soon over.
            "ID" | "TTL" if field.parent_message().name() == "LeaseGrantRequest" => 1.0,
            // What a hash says depends on whether it has ended.
            "physical" => 1.0,
            "password" => 1.0,
            "user" | "role" | "perm" | "permType" => 0.95,
            "lease" if field.parent_message().package_name() != "etcdserverpb" => 1.0,
            "key" | "value" | "ID" | "TTL" | "name" | "success" | "failure" | "compare"
            | "leader" | "action" => 0.95,
            "range_end" => 0.5,
            "ignore_value" | "ignore_lease" | "keys_only" | "count_only" => 0.1,
            "min_mod_revision"
            | "max_mod_revision"
            | "min_create_revision"
            | "max_create_revision" => 0.05,
            _ => 0.3,
        }
    }

    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        match field.kind() {
            Kind::Message(of) if of.full_name() == "v3electionpb.LeaderKey" => {
                let made = self.message(&of, depth + 1);
                let known = self.leader.clone().filter(|_| self.rng.random_bool(0.8));
                Value::Message(known.unwrap_or(made))
            }
            Kind::Message(of) => Value::Message(self.message(&of, depth + 1)),
            Kind::Enum(of) => {
                let known: Vec<i32> = of.values().map(|value| value.number()).collect();
                let known = self.pick(&known);
                // etcd panics on an alarm action that it does not know.
                let unknown = field.name() != "action" && self.rng.random_bool(0.01);
                Value::EnumNumber(if unknown { 77 } else { known })
            }
            Kind::Bytes => Value::Bytes(self.bytes(field)),
            Kind::String if field.name() == "version" => {
                Value::String(self.pick(&VERSIONS).to_owned())
            }
            Kind::String if is_account(field) => {
                Value::String(accounts::text(&mut self.rng, field))
            }
            Kind::String => Value::String(
                self.pick(&["", "http://127.0.0.1:1", "nonsense"])
                    .to_owned(),
            ),
            Kind::Bool => Value::Bool(true),
            Kind::Int64 => Value::I64(self.number(field)),
            // Members, of which there is one with another id on each side.
            Kind::Uint64 => Value::U64(self.pick(&[0, 1, 77])),
            kind => unreachable!("no request has a {kind:?}"),
        }
    }

    fn bytes(&mut self, field: &FieldDescriptor) -> Bytes {
        match field.name() {
            "name" => {
                let lease = self.lease();
                Bytes::from(format!("queue/{lease}"))
            }
            "value" if self.rng.random_bool(0.000_5) => Bytes::from(vec![b'v'; 1 << 21]),
            "value" => Bytes::from_static(self.pick(&VALUES)),
            "range_end" if self.rng.random_bool(0.2) => Bytes::from_static(b"\0"),
            "range_end" => Bytes::from_static(self.pick(&ENDS)),
            "key" if field.parent_message().name() != "PutRequest" && self.rng.random_bool(0.4) => {
                Bytes::from_static(self.pick(&ENDS))
            }
            _ => Bytes::from_static(self.pick(&KEYS)),
        }
    }

    fn number(&mut self, field: &FieldDescriptor) -> i64 {
        let newest = self.revision;
        match (field.parent_message().name(), field.name()) {
            // None ends while the test runs.
            (_, "TTL") => self.pick(&[100_000, 100_000, 100_001, 9_000_000_000, 9_000_000_001]),
            // The server would choose one.
            ("LeaseGrantRequest", "ID") => self.lease().max(1),
            // Without a lease the server grants one, with an id of its own.
            ("LeaderKey" | "LockRequest" | "CampaignRequest", "lease") => {
                self.rng.random_range(LEASES)
            }
            (_, "lease" | "ID") => self.lease(),
            (_, "limit") => self.pick(&[-1, 0, 1, 2, 3, 5, 100]),
            (_, "watch_id") => self.pick(&[-7, 0, 1, 2, 7]),
            (_, "version") => self.rng.random_range(-1..5),
            (_, "max_bytes") => self.pick(&[0, 1, 100]),
            ("CompactionRequest", _) => match self.rng.random_range(0..10) {
                0 => self.pick(&[0, -1, i64::MAX, newest + 1]),
                _ => newest - self.rng.random_range(0..40),
            },
            _ => match self.rng.random_range(0..20) {
                0 => self.pick(&[-1, i64::MAX, i64::MIN, newest + 100]),
                1 => newest + 1,
                2..5 => 0,
                5..10 => newest,
                10..18 => (newest - self.rng.random_range(0..20)).max(0),
                _ => (self.rng.next_u32() % 100).into(),
            },
        }
    }

    fn lease(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0 => self.pick(&[-1, i64::MAX, i64::MIN]),
            1..10 => 0,
            _ => self.rng.random_range(LEASES),
        }
    }
}
