//! The loads against a scripted server that keeps keys in a map: what they send, count and check.

#![expect(clippy::unwrap_used, reason = "tests")]

mod scripted;

use std::time::Duration;

use ferrite_benches::keys::KeySpace;
use ferrite_benches::load::{self, Plan, Until};
use ferrite_benches::page::page;

use crate::scripted::{Faults, Scripted};

fn plan(server: &Scripted, keys: u64, until: Until) -> Plan {
    Plan {
        endpoints: vec![server.endpoint()],
        clients: 20,
        connections: 3,
        keys: KeySpace::new(keys, 24).unwrap(),
        value_size: 256,
        until,
        seed: 5,
    }
}

#[test]
fn filling_writes_every_key_once() {
    let server = Scripted::start(Faults::default());
    let plan = plan(&server, 1_000, Until::Requests(0));
    let summary = load::fill(&plan).unwrap();
    assert_eq!((summary.succeeded, summary.failed()), (1_000, 0));
    assert_eq!(summary.latency.count(), 1_000);
    assert!(summary.elapsed > Duration::ZERO);
    let state = server.state();
    assert_eq!(state.puts, 1_000);
    assert_eq!(state.pairs.len(), 1_000);
    assert!(state.pairs.values().all(|value| value.len() == 256));
    assert_eq!(*state.pairs.first_key_value().unwrap().0, plan.keys.key(0));
    assert_eq!(*state.pairs.last_key_value().unwrap().0, plan.keys.key(999));
}

#[test]
fn exactly_as_many_requests_are_sent_as_asked_for() {
    let server = Scripted::start(Faults::default());
    let summary = load::put(&plan(&server, 100, Until::Requests(250))).unwrap();
    assert_eq!(summary.succeeded, 250);
    let state = server.state();
    assert_eq!((state.puts, state.pairs.len()), (250, 100));
}

#[test]
fn refused_writes_are_counted_by_text_and_fail_a_fill() {
    let server = Scripted::start(Faults {
        refuse_every: Some(10),
        ..Faults::default()
    });
    let plan = plan(&server, 500, Until::Requests(500));
    let summary = load::put(&plan).unwrap();
    assert_eq!((summary.succeeded, summary.failed()), (450, 50));
    let (text, count) = summary.errors.first_key_value().unwrap();
    assert_eq!(
        (text.as_str(), *count),
        ("code 8: etcdserver: too many requests", 50)
    );
    let error = load::fill(&plan).unwrap_err().to_string();
    assert!(error.starts_with("450 of 500 keys were written"), "{error}");
}

#[test]
fn reads_of_missing_keys_are_errors() {
    let server = Scripted::start(Faults::default());
    load::fill(&plan(&server, 50, Until::Requests(0))).unwrap();
    let all_there = load::get(&plan(&server, 50, Until::Requests(300)), true).unwrap();
    assert_eq!((all_there.succeeded, all_there.failed()), (300, 0));
    let half_missing = load::get(&plan(&server, 100, Until::Requests(300)), false).unwrap();
    assert_eq!(half_missing.succeeded + half_missing.failed(), 300);
    let (text, _) = half_missing.errors.first_key_value().unwrap();
    assert_eq!(text, "transport: 0 pairs for an existing key");
}

#[test]
fn readers_end_with_the_writers() {
    let server = Scripted::start(Faults::default());
    load::fill(&plan(&server, 50, Until::Requests(0))).unwrap();
    let (reads, writes) = load::mixed(&plan(&server, 50, Until::Requests(2_000)), 1).unwrap();
    assert_eq!((writes.succeeded, writes.failed()), (2_000, 0));
    assert_eq!(reads.failed(), 0);
}

#[test]
fn paging_sees_every_key_at_one_revision() {
    let server = Scripted::start(Faults::default());
    let plan = plan(&server, 1_234, Until::Requests(0));
    load::fill(&plan).unwrap();
    let pages = page(&server.endpoint(), &plan.keys, 100, 1).unwrap();
    assert_eq!((pages.pages, pages.fetched, pages.keys), (13, 13, 1_234));
    assert_eq!(
        server.state().revisions_asked,
        [vec![0], vec![pages.revision; 12]].concat()
    );
    let some = page(&server.endpoint(), &plan.keys, 100, 5).unwrap();
    assert_eq!((some.pages, some.fetched, some.keys), (13, 3, 300));
}

#[test]
fn an_estimated_count_fails_the_paging() {
    let server = Scripted::start(Faults {
        count_off_by: 1,
        ..Faults::default()
    });
    let plan = plan(&server, 300, Until::Requests(0));
    load::fill(&plan).unwrap();
    let error = page(&server.endpoint(), &plan.keys, 100, 1).unwrap_err();
    assert_eq!(format!("{error:#}"), "page 0 is wrong: count 301, not 300");
}
