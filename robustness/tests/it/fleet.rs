//! Short versions of what `fleet` does with as many members and rounds as wanted.

use std::path::Path;

use ferrite_robustness::fleet::{downgrade, leader_kill, load, rolling};
use ferrite_robustness::process::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_takes_nothing_acknowledged_with_it() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plan = leader_kill::Plan {
        members: 3,
        rounds: 2,
        writes_between: 200,
        load: load::Plan::default(),
    };
    let report = leader_kill::run(&binary, dir.path(), &plan, &mut |_| {})
        .await
        .unwrap();
    assert!(report.agreement.acknowledged >= 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_costs_no_client_more_than_a_second_try() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plan = rolling::Plan {
        members: 3,
        rounds: 1,
        writes_between: 200,
        load: load::Plan::default(),
    };
    let report = rolling::run(&binary, dir.path(), &plan, &mut |_| {})
        .await
        .unwrap();
    assert!(report.failed_twice.is_empty(), "{:?}", report.failed_twice);
    assert!(report.agreement.acknowledged >= 800);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_downgrade_and_upgrade_loses_nothing() {
    let binary = Process::built_beside_tests().unwrap();
    let previous = Path::new(env!("CARGO_BIN_EXE_etcd-previous"));
    let dir = tempfile::tempdir().unwrap();
    let plan = downgrade::Plan {
        members: 3,
        writes_between: 30,
        load: load::Plan::default(),
    };
    let report = downgrade::run(&binary, previous, dir.path(), &plan, &mut |_| {})
        .await
        .unwrap();
    assert!(report.agreement.acknowledged >= 500);
}
