//! A few rounds of the kill loop against the binary that this workspace builds. `kill-loop` runs
//! as many as wanted.

use ferrite_robustness::kill_loop::{Plan, run};
use ferrite_robustness::process::Process;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let binary = Process::built_beside_tests().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan {
        rounds: 3,
        clients: 8,
        writes: 300,
        seed: 7,
    };
    let mut lines = Vec::new();
    run(&binary, dir.path(), plan, &mut |line| {
        lines.push(line.to_owned())
    })
    .await
    .unwrap();
    assert_eq!(lines.len(), 3);
}
