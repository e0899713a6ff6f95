//! Two servers under the same loads, alternately: ours, etcd, ours, etcd, ...
//!
//! A round of one side is one fresh cluster that lives through the chosen scenarios in a fixed
//! order. The first of them usually writes the whole key space; all later ones find it there, so a
//! million keys are loaded once per round and side, not once per figure.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use ferrite_api::pb::etcdserverpb::{PutRequest, RangeRequest};
use serde_json::{Value, json};

use crate::defragment;
use crate::keys::KeySpace;
use crate::lease;
use crate::list;
use crate::load::{self, Plan, Summary, Until, on_this_thread, per_op_us};
use crate::page;
use crate::proc::Sample;
use crate::report::{Goal, Metric, Report, Side};
use crate::rpc::{Connection, Put, Range};
use crate::server::{Children, Cluster, Program};
use crate::watch::{self, Target};

/// How long background work may go on after the key space was written, before memory and bytes
/// are read: longer than the pause between two checkpoints.
const SETTLE: Duration = Duration::from_secs(6);
/// Clients that write while one reads.
const WRITERS: usize = 40;
/// Leases that end together.
const LEASES: u64 = 100_000;
/// Clients that write meanwhile.
const LEASE_WRITERS: usize = 16;
/// Clients that write while a file is defragmented.
const DEFRAGMENT_WRITERS: usize = 16;
/// Streams of keep-alives.
const KEEP_ALIVES: usize = 64;
/// Keys in a page.
const PAGE_SIZE: u64 = 500;
/// Streams that are not read while others write.
const STUCK: usize = 20;
/// Watchers whose memory is measured.
const IDLE: usize = 10_000;
/// How long a killed server may take to the next acknowledged write.
const RECOVER_WITHIN: Duration = Duration::from_secs(300);
/// Patience with one write to a server that is starting.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Pause between two attempts to write.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);

/// What can be measured. The order is the order in which a round does it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scenario {
    /// Exec of a fresh server to the first acknowledged write.
    Start,
    /// Memory of 10,000 watchers of a key each. First, because memory that a load has left behind
    /// would hold them.
    WatchIdle,
    /// Every key written once by 64 clients: throughput, latency, CPU, memory, bytes written.
    Fill,
    /// Writes by 1 client.
    Put1,
    /// Writes by 64 clients, over existing keys if the space was filled.
    Put64,
    /// Writes by 1000 clients.
    Put1000,
    /// Linearizable reads by 1 client.
    Get1,
    /// Linearizable reads by 64 clients.
    Get64,
    /// Linearizable reads by 1000 clients.
    Get1000,
    /// Serializable reads by 64 clients.
    Serializable64,
    /// One reader's latency while 40 clients write.
    Mixed,
    /// Pages of 500 keys at one revision.
    Page,
    /// A hundred thousand leases that end together while 16 clients write.
    LeaseExpire,
    /// Keep-alives by 64 streams.
    LeaseKeepAlive,
    /// The whole space in one answer, three at a time.
    List3,
    /// The same, ten at a time.
    List10,
    /// The whole space by `RangeStream`, three at a time.
    ListStream3,
    /// The same, ten at a time.
    ListStream10,
    /// Events of one key to 1 watcher.
    Watch1,
    /// Events of one key to 100 watchers.
    Watch100,
    /// Events of one key to 10,000 watchers.
    Watch10000,
    /// Events of one key to 1 watcher, with 64 writers: without the price of a lone put in it.
    WatchBusy1,
    /// Events of one key to 100 watchers, with 64 writers.
    WatchBusy100,
    /// Events of 1000 keys, each to its watcher, with 64 writers.
    WatchKeys,
    /// Events of all keys with their previous pairs to 10 watchers, with 64 writers.
    WatchPrefix,
    /// A watcher that begins at the first revision while 16 clients write.
    WatchCatchUp,
    /// Writes by 64 clients while 20 streams that watch everything are not read.
    WatchStuck,
    /// Writes by 16 clients while a half empty file is defragmented.
    Defragment,
    /// kill -9 under writes, to the next acknowledged write on the same data.
    Crash,
}

impl Scenario {
    /// All scenarios, in order.
    pub const ALL: &'static [(&'static str, Scenario)] = &[
        ("start", Scenario::Start),
        ("watch-idle", Scenario::WatchIdle),
        ("fill", Scenario::Fill),
        ("put-1", Scenario::Put1),
        ("put-64", Scenario::Put64),
        ("put-1000", Scenario::Put1000),
        ("get-1", Scenario::Get1),
        ("get-64", Scenario::Get64),
        ("get-1000", Scenario::Get1000),
        ("serializable-64", Scenario::Serializable64),
        ("mixed", Scenario::Mixed),
        ("page", Scenario::Page),
        ("lease-expire", Scenario::LeaseExpire),
        ("lease-keepalive", Scenario::LeaseKeepAlive),
        ("list-3", Scenario::List3),
        ("list-10", Scenario::List10),
        ("list-stream-3", Scenario::ListStream3),
        ("list-stream-10", Scenario::ListStream10),
        ("watch-1", Scenario::Watch1),
        ("watch-100", Scenario::Watch100),
        ("watch-10000", Scenario::Watch10000),
        ("watch-busy-1", Scenario::WatchBusy1),
        ("watch-busy-100", Scenario::WatchBusy100),
        ("watch-keys", Scenario::WatchKeys),
        ("watch-prefix", Scenario::WatchPrefix),
        ("watch-catch-up", Scenario::WatchCatchUp),
        ("watch-stuck", Scenario::WatchStuck),
        ("defragment", Scenario::Defragment),
        ("crash", Scenario::Crash),
    ];

    fn needs_all_keys(self) -> bool {
        !matches!(
            self,
            Scenario::Start
                | Scenario::Put1
                | Scenario::Put64
                | Scenario::Put1000
                | Scenario::LeaseExpire
                | Scenario::LeaseKeepAlive
                | Scenario::Watch1
                | Scenario::Watch100
                | Scenario::Watch10000
                | Scenario::WatchBusy1
                | Scenario::WatchBusy100
                | Scenario::WatchKeys
                | Scenario::WatchStuck
                | Scenario::WatchIdle
        )
    }
}

/// A set of scenarios, read from `all` or a comma list of names. A name's group stands for its
/// members: `put` for `put-1,put-64,put-1000`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scenarios(pub BTreeSet<Scenario>);

impl FromStr for Scenarios {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Scenarios> {
        let mut chosen = BTreeSet::new();
        for word in text.split(',') {
            let before = chosen.len();
            let matching = Scenario::ALL.iter().filter(|(name, _)| {
                word == "all"
                    || *name == word
                    || name.strip_prefix(word).is_some_and(|r| r.starts_with('-'))
            });
            let mut any = false;
            for (_, scenario) in matching {
                any = true;
                chosen.insert(*scenario);
            }
            if !any && chosen.len() == before {
                let names: Vec<&str> = Scenario::ALL.iter().map(|(name, _)| *name).collect();
                bail!(
                    "no scenario `{word}`; there are all, put, get, list, {}",
                    names.join(", ")
                );
            }
        }
        Ok(Scenarios(chosen))
    }
}

/// A comparison.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The server under test.
    pub ours: Program,
    /// The etcd beside it; without one only ours is measured.
    pub etcd: Option<Program>,
    /// What to measure.
    pub scenarios: Scenarios,
    /// How often.
    pub rounds: usize,
    /// Members of each cluster.
    pub members: usize,
    /// Key space.
    pub keys: KeySpace,
    /// Bytes of a value.
    pub value_size: usize,
    /// Length of each timed load.
    pub time: Duration,
    /// Fetch every so-manieth page.
    pub every_page: u64,
    /// No new round begins after this.
    pub at_most: Duration,
}

/// Runs the comparison; the report of all rounds that were finished. `progress` gets a line per step.
///
/// # Errors
/// A server cannot be started, dies, or answers wrongly; a request of a load failed.
pub fn run(
    comparison: &Comparison,
    children: &Children,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let begin = Instant::now();
    for round in 1..=comparison.rounds {
        if round > 1 && begin.elapsed() > comparison.at_most {
            progress(&format!(
                "time is up: {} of {} rounds done",
                round - 1,
                comparison.rounds
            ));
            break;
        }
        let sides = [
            (Side::Ours, Some(&comparison.ours)),
            (Side::Etcd, comparison.etcd.as_ref()),
        ];
        for (side, program) in sides {
            let Some(program) = program else { continue };
            let name = if side == Side::Ours { "ours" } else { "etcd" };
            let mut line = |text: &str| progress(&format!("round {round} {name}: {text}"));
            let mut measured = Round {
                comparison,
                report: &mut report,
                side,
                seed: round as u64,
                line: &mut line,
            };
            measured
                .run(program, children)
                .with_context(|| format!("round {round}, {name}"))?;
        }
    }
    Ok(report)
}

/// What a comparison says about itself in JSON.
pub fn describe(comparison: &Comparison) -> Value {
    json!({
        "rounds": comparison.rounds,
        "members": comparison.members,
        "keys": comparison.keys.count(),
        "value_bytes": comparison.value_size,
        "seconds_per_load": comparison.time.as_secs_f64(),
        "flags": comparison.ours.flags,
    })
}

/// One side's turn in one round.
struct Round<'a> {
    comparison: &'a Comparison,
    report: &'a mut Report,
    side: Side,
    seed: u64,
    line: &'a mut dyn FnMut(&str),
}

impl Round<'_> {
    fn run(&mut self, program: &Program, children: &Children) -> anyhow::Result<()> {
        let exec = Instant::now();
        let mut cluster = Cluster::start(program, self.comparison.members, children)?;
        first_put(&cluster)?;
        let started = exec.elapsed();
        let scenarios = &self.comparison.scenarios.0;
        if scenarios.contains(&Scenario::Start) {
            self.add(
                "start to first put",
                "ms",
                Goal::None,
                started.as_secs_f64() * 1e3,
            );
        }
        if scenarios.contains(&Scenario::WatchIdle) {
            self.watch_idle(&cluster)?;
        }
        if scenarios.iter().any(|scenario| scenario.needs_all_keys()) {
            self.fill(&cluster)?;
        }
        for scenario in scenarios {
            match scenario {
                // Done before or after the others.
                Scenario::Start | Scenario::WatchIdle | Scenario::Fill | Scenario::Crash => {}
                Scenario::Put1 => self.put(&cluster, 1)?,
                Scenario::Put64 => self.put(&cluster, 64)?,
                Scenario::Put1000 => self.put(&cluster, 1000)?,
                Scenario::Get1 => self.get(&cluster, 1, false)?,
                Scenario::Get64 => self.get(&cluster, 64, false)?,
                Scenario::Get1000 => self.get(&cluster, 1000, false)?,
                Scenario::Serializable64 => self.get(&cluster, 64, true)?,
                Scenario::Mixed => self.mixed(&cluster)?,
                Scenario::Page => self.page(&cluster)?,
                Scenario::LeaseExpire => self.lease_expire(&cluster)?,
                Scenario::LeaseKeepAlive => self.lease_keep_alive(&cluster)?,
                Scenario::List3 => self.list(&cluster, 3, false)?,
                Scenario::List10 => self.list(&cluster, 10, false)?,
                Scenario::ListStream3 => self.list(&cluster, 3, true)?,
                Scenario::ListStream10 => self.list(&cluster, 10, true)?,
                Scenario::Watch1 => self.watch(&cluster, Target::OneKey, 1, 1)?,
                Scenario::Watch100 => self.watch(&cluster, Target::OneKey, 100, 1)?,
                Scenario::Watch10000 => self.watch(&cluster, Target::OneKey, 10_000, 1)?,
                Scenario::WatchBusy1 => self.watch(&cluster, Target::OneKey, 1, 64)?,
                Scenario::WatchBusy100 => self.watch(&cluster, Target::OneKey, 100, 64)?,
                Scenario::WatchKeys => self.watch(&cluster, Target::KeyEach, 1000, 64)?,
                Scenario::WatchPrefix => self.watch(&cluster, Target::AllKeys, 10, 64)?,
                Scenario::WatchCatchUp => self.watch_catch_up(&cluster)?,
                Scenario::WatchStuck => self.watch_stuck(&cluster)?,
                Scenario::Defragment => self.defragment(&cluster)?,
            }
        }
        let peak = cluster.sample()?.peak_rss_bytes;
        self.add(
            "peak memory after all loads",
            "MB",
            Goal::AtMost(1.0),
            peak as f64 / 1e6,
        );
        if scenarios.contains(&Scenario::Crash) {
            self.crash(&mut cluster)?;
        }
        Ok(())
    }

    fn fill(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let keys = self.comparison.keys.count();
        let before = cluster.sample()?;
        let summary = load::fill(&self.plan(cluster, 64))?;
        std::thread::sleep(SETTLE);
        let after = cluster.sample()?;
        self.load(
            "fill",
            &summary,
            before,
            after,
            Goal::AtLeast(1.5),
            (Goal::None, Goal::AtMost(0.5)),
        )?;
        let written = (after.written_bytes - before.written_bytes) as f64 / keys as f64;
        self.add(
            "fill: bytes written per put",
            "B",
            Goal::AtMost(1.0),
            written,
        );
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        self.add(
            "fill: memory with all keys",
            "MB",
            Goal::AtMost(0.333),
            megabytes(after.rss_bytes),
        );
        self.add(
            "fill: peak memory",
            "MB",
            Goal::AtMost(1.0),
            megabytes(after.peak_rss_bytes),
        );
        Ok(())
    }

    fn put(&mut self, cluster: &Cluster, clients: usize) -> anyhow::Result<()> {
        let before = cluster.sample()?;
        let summary = load::put(&self.plan(cluster, clients))?;
        let after = cluster.sample()?;
        let (rate, latency) = match clients {
            1 => (Goal::None, (Goal::AtMost(0.9), Goal::None)),
            _ => (Goal::AtLeast(1.5), (Goal::None, Goal::AtMost(0.5))),
        };
        self.load(
            &format!("put {clients}"),
            &summary,
            before,
            after,
            rate,
            latency,
        )
    }

    fn get(&mut self, cluster: &Cluster, clients: usize, serializable: bool) -> anyhow::Result<()> {
        let before = cluster.sample()?;
        let summary = load::get(&self.plan(cluster, clients), serializable)?;
        let after = cluster.sample()?;
        let rate = if clients == 1 {
            Goal::None
        } else {
            Goal::AtLeast(1.5)
        };
        let name = if serializable {
            "serializable get"
        } else {
            "get"
        };
        self.load(
            &format!("{name} {clients}"),
            &summary,
            before,
            after,
            rate,
            (Goal::None, Goal::None),
        )
    }

    fn mixed(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let (reads, writes) = load::mixed(&self.plan(cluster, WRITERS), 1)?;
        no_errors(&reads)?;
        no_errors(&writes)?;
        (self.line)(&reads.line("mixed get"));
        (self.line)(&writes.line("mixed put"));
        self.add("mixed: get p50", "us", Goal::None, us(&reads, 0.5));
        self.add("mixed: get p99", "us", Goal::AtMost(0.1), us(&reads, 0.99));
        self.add("mixed: puts", "/s", Goal::None, writes.per_second());
        Ok(())
    }

    fn page(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let endpoints = cluster.endpoints();
        let endpoint = endpoints.first().context("no endpoint")?;
        let pages = page::page(
            endpoint,
            &self.comparison.keys,
            PAGE_SIZE,
            self.comparison.every_page,
        )?;
        (self.line)(&pages.line());
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        self.add(
            "page: one page, p50",
            "ms",
            Goal::AtMost(0.02),
            ms(pages.latency.quantile(0.5)),
        );
        self.add(
            "page: one page, p99",
            "ms",
            Goal::None,
            ms(pages.latency.quantile(0.99)),
        );
        self.add(
            "page: all pages",
            "s",
            Goal::AtMost(0.02),
            pages.whole().as_secs_f64(),
        );
        Ok(())
    }

    fn lease_expire(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let endpoints = cluster.endpoints();
        let endpoint = endpoints.first().context("no endpoint")?;
        let plan = self.plan(cluster, LEASE_WRITERS);
        let end = Instant::now() + lease::lead(LEASES);
        lease::grant(endpoint, LEASES, end)?;
        let quiet = load::put(&plan)?;
        no_errors(&quiet)?;
        (self.line)(&quiet.line("put 16 beside leases"));
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        let before = cluster.sample()?;
        let (during, drained) = lease::drain(&plan, end)?;
        let after = cluster.sample()?;
        // An etcd that drains leases refuses writes, which is one of the figures.
        (self.line)(&during.line("put 16 while leases end"));
        let seconds = drained.as_secs_f64();
        (self.line)(&format!("{LEASES} leases ended in {seconds:.1} s"));
        let (p99, quiet_p99) = (us(&during, 0.99), us(&quiet, 0.99));
        self.add("lease expire: drained", "s", Goal::AtMost(0.1), seconds);
        self.add("lease expire: put p99 before", "us", Goal::None, quiet_p99);
        self.add("lease expire: put p99 meanwhile", "us", Goal::None, p99);
        self.add(
            "lease expire: put p99, times",
            "x",
            Goal::None,
            p99 / quiet_p99,
        );
        let failed = during.failed() as f64;
        self.add(
            "lease expire: puts failed meanwhile",
            "",
            Goal::None,
            failed,
        );
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        self.add("lease expire: server CPU", "s", Goal::None, cpu);
        Ok(())
    }

    fn lease_keep_alive(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let before = cluster.sample()?;
        let plan = self.plan(cluster, KEEP_ALIVES);
        let summary = lease::keep_alive(&plan, self.comparison.time)?;
        let after = cluster.sample()?;
        self.load(
            "lease keep-alive 64",
            &summary,
            before,
            after,
            Goal::AtLeast(1.5),
            (Goal::None, Goal::AtMost(0.5)),
        )
    }

    fn list(&mut self, cluster: &Cluster, lists: usize, streamed: bool) -> anyhow::Result<()> {
        let endpoints = cluster.endpoints();
        let endpoint = endpoints.first().context("no endpoint")?;
        let done = list::list(
            endpoint,
            &self.comparison.keys,
            self.comparison.value_size,
            lists,
            streamed,
            || cluster.sample(),
        )?;
        let stream = if streamed { "stream " } else { "" };
        let name = format!("list {stream}{lists}");
        (self.line)(&done.line(&name));
        self.add(
            &format!("{name}: rate"),
            "MB/s",
            Goal::AtLeast(2.0),
            done.megabytes_per_second(),
        );
        self.add(
            &format!("{name}: server CPU per GB"),
            "s",
            Goal::AtMost(0.5),
            done.cpu_per_gigabyte(),
        );
        self.add(
            &format!("{name}: first byte of the slowest"),
            "ms",
            Goal::None,
            done.first_byte.as_secs_f64() * 1e3,
        );
        self.add(
            &format!("{name}: extra memory"),
            "MB",
            Goal::None,
            done.extra_megabytes(),
        );
        Ok(())
    }

    fn watch(
        &mut self,
        cluster: &Cluster,
        target: Target,
        watchers: usize,
        writers: usize,
    ) -> anyhow::Result<()> {
        let before = cluster.sample()?;
        let plan = self.plan(cluster, writers);
        let fan_out = watch::fan_out(&plan, target, watchers, self.comparison.time)?;
        let cpu = cluster.sample()?.cpu.saturating_sub(before.cpu);
        let name = match target {
            Target::OneKey if writers > 1 => format!("watch {watchers}, {writers} writers"),
            Target::OneKey => format!("watch {watchers}"),
            Target::KeyEach => format!("watch {watchers} keys"),
            Target::AllKeys => format!("watch prefix {watchers}"),
        };
        (self.line)(&fan_out.line(&name));
        self.add(
            &format!("{name}: events"),
            "/s",
            Goal::None,
            fan_out.per_second(),
        );
        self.add(
            &format!("{name}: events per second of server CPU"),
            "/s",
            Goal::AtLeast(3.0),
            fan_out.events as f64 / cpu.as_secs_f64().max(f64::EPSILON),
        );
        Ok(())
    }

    fn watch_catch_up(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let done = watch::catch_up(&self.plan(cluster, 16))?;
        (self.line)(&format!(
            "watch catch-up: {} events in {:.2} s",
            done.events,
            done.elapsed.as_secs_f64()
        ));
        (self.line)(&done.puts.line("put 16 beside it"));
        no_errors(&done.puts)?;
        let p99 = us(&done.puts, 0.99);
        for (what, unit, goal, value) in [
            ("events", "/s", Goal::AtLeast(1.0), done.per_second()),
            ("puts meanwhile", "/s", Goal::None, done.puts.per_second()),
            ("put p99 meanwhile", "us", Goal::AtMost(0.5), p99),
        ] {
            self.add(&format!("watch catch-up: {what}"), unit, goal, value);
        }
        Ok(())
    }

    fn watch_stuck(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let summary = watch::put_beside_stuck(&self.plan(cluster, 64), STUCK)?;
        let name = format!("put 64 beside {STUCK} stuck watchers");
        (self.line)(&summary.line(&name));
        no_errors(&summary)?;
        self.add(
            &format!("{name}: rate"),
            "/s",
            Goal::None,
            summary.per_second(),
        );
        self.add(
            &format!("{name}: p99"),
            "us",
            Goal::AtMost(0.5),
            us(&summary, 0.99),
        );
        Ok(())
    }

    fn watch_idle(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let before = cluster.sample()?.rss_bytes;
        let with = watch::idle(&self.plan(cluster, 1), IDLE, || cluster.sample())?.rss_bytes;
        self.add(
            &format!("watch idle: memory of one of {IDLE} watchers"),
            "B",
            Goal::AtMost(0.333),
            with.saturating_sub(before) as f64 / IDLE as f64,
        );
        Ok(())
    }

    fn defragment(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        defragment::fragment(&self.plan(cluster, 64))?;
        let plan = self.plan(cluster, DEFRAGMENT_WRITERS);
        let quiet = load::put(&plan)?;
        no_errors(&quiet)?;
        (self.line)(&quiet.line("put 16 before"));
        let done = defragment::defragment(&plan)?;
        // An etcd that defragments lets writes time out, which is one of the figures.
        (self.line)(&done.writes.line("put 16 while defragmenting"));
        let (quiet_p99, p99) = (us(&quiet, 0.99), us(&done.writes, 0.99));
        let longest = us(&done.writes, 1.0) / 1e3;
        for (what, unit, goal, value) in [
            ("took", "s", Goal::None, done.took.as_secs_f64()),
            ("file before", "MB", Goal::None, done.before as f64 / 1e6),
            ("file after", "MB", Goal::None, done.after as f64 / 1e6),
            ("put p99 before", "us", Goal::None, quiet_p99),
            ("put p99 meanwhile", "us", Goal::None, p99),
            ("put p99, times", "x", Goal::None, p99 / quiet_p99),
            ("longest put", "ms", Goal::AtMost(0.5), longest),
            ("puts meanwhile", "/s", Goal::None, done.writes.per_second()),
            (
                "puts failed meanwhile",
                "",
                Goal::None,
                done.writes.failed() as f64,
            ),
        ] {
            self.add(&format!("defragment: {what}"), unit, goal, value);
        }
        Ok(())
    }

    /// Kills the servers right behind a load of writes, so that what was acknowledged last was
    /// never checkpointed, and checks that no key is missing afterwards.
    fn crash(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        let plan = Plan {
            until: Until::Elapsed(Duration::from_secs(2)),
            ..self.plan(cluster, 64)
        };
        no_errors(&load::put(&plan)?)?;
        cluster.kill();
        let exec = Instant::now();
        cluster.exec()?;
        first_put(cluster)?;
        let recovered = exec.elapsed();
        (self.line)(&format!(
            "kill -9 to the next put: {:.3} s",
            recovered.as_secs_f64()
        ));
        self.add(
            "crash: kill -9 to next put",
            "s",
            Goal::AtMost(0.1),
            recovered.as_secs_f64(),
        );
        let (found, keys) = (
            count(cluster, &self.comparison.keys)?,
            self.comparison.keys.count(),
        );
        ensure!(
            found == keys,
            "{found} of {keys} acknowledged keys are there after kill -9"
        );
        Ok(())
    }

    /// Adds the figures that every timed load has.
    fn load(
        &mut self,
        name: &str,
        summary: &Summary,
        before: Sample,
        after: Sample,
        rate: Goal,
        (p50, p99): (Goal, Goal),
    ) -> anyhow::Result<()> {
        (self.line)(&summary.line(name));
        no_errors(summary)?;
        let cpu = per_op_us(after.cpu.saturating_sub(before.cpu), summary.succeeded);
        self.add(&format!("{name}: rate"), "/s", rate, summary.per_second());
        self.add(&format!("{name}: p50"), "us", p50, us(summary, 0.5));
        self.add(&format!("{name}: p99"), "us", p99, us(summary, 0.99));
        self.add(
            &format!("{name}: server CPU per op"),
            "us",
            Goal::AtMost(0.5),
            cpu,
        );
        Ok(())
    }

    fn add(&mut self, name: &str, unit: &'static str, goal: Goal, value: f64) {
        self.report.add(
            self.side,
            Metric {
                name: name.to_owned(),
                unit,
                goal,
            },
            value,
        );
    }

    fn plan(&self, cluster: &Cluster, clients: usize) -> Plan {
        Plan {
            endpoints: cluster.endpoints(),
            clients,
            connections: (clients / 10).max(1),
            keys: self.comparison.keys.clone(),
            value_size: self.comparison.value_size,
            until: Until::Elapsed(self.comparison.time),
            // The same on both sides of a round, another in each round and for each load.
            seed: self.seed * 1_000_003 + clients as u64,
        }
    }
}

fn us(summary: &Summary, q: f64) -> f64 {
    summary.latency.quantile(q).as_nanos() as f64 / 1e3
}

/// A load with errors measured something else than it says.
fn no_errors(summary: &Summary) -> anyhow::Result<()> {
    ensure!(
        summary.failed() == 0,
        "requests failed: {:?}",
        summary.errors
    );
    Ok(())
}

/// Retries a write until it is acknowledged. The key lies outside the measured space.
fn first_put(cluster: &Cluster) -> anyhow::Result<()> {
    let endpoints = cluster.endpoints();
    let endpoint = endpoints.first().context("no endpoint")?;
    on_this_thread(async {
        let begin = Instant::now();
        loop {
            let attempt = async {
                let request = PutRequest {
                    key: "first-put".into(),
                    value: "x".into(),
                    ..PutRequest::default()
                };
                anyhow::Ok(
                    Connection::open(endpoint)
                        .await?
                        .call(Put, &request)
                        .await?,
                )
            };
            let error = match tokio::time::timeout(ATTEMPT, attempt).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within {ATTEMPT:?}"),
            };
            cluster.check_all_running()?;
            if begin.elapsed() > RECOVER_WITHIN {
                return Err(error.context(format!("no write acknowledged for {RECOVER_WITHIN:?}")));
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    })
}

fn count(cluster: &Cluster, keys: &KeySpace) -> anyhow::Result<u64> {
    let endpoints = cluster.endpoints();
    let endpoint = endpoints.first().context("no endpoint")?;
    on_this_thread(async {
        let request = RangeRequest {
            key: keys.key(0),
            range_end: keys.end(),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer = Connection::open(endpoint)
            .await?
            .call(Range, &request)
            .await?;
        Ok(u64::try_from(answer.count)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        let chosen: Scenarios = text.parse().unwrap();
        Scenario::ALL
            .iter()
            .filter(|(_, s)| chosen.0.contains(s))
            .map(|(name, _)| *name)
            .collect()
    }

    #[test]
    fn scenarios_are_chosen_by_name_by_group_and_all_together() {
        assert_eq!(names("all").len(), Scenario::ALL.len());
        assert_eq!(names("put"), ["put-1", "put-64", "put-1000"]);
        assert_eq!(names("crash,get-1"), ["get-1", "crash"]);
        assert_eq!(names("page,page"), ["page"]);
    }

    #[test]
    fn an_unknown_scenario_is_named() {
        for text in ["", "putt", "put-", "fill,nothing"] {
            let error = text.parse::<Scenarios>().unwrap_err().to_string();
            assert!(error.starts_with("no scenario `"), "{error}");
        }
    }

    #[test]
    fn the_list_of_scenarios_is_in_the_order_they_run() {
        assert!(Scenario::ALL.is_sorted_by_key(|(_, scenario)| *scenario));
    }
}
