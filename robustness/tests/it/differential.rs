//! The differential test in small. With `ETCD_BINARY` set to a real etcd, against that; without, against
//! itself: then it shows that the test has no difference of its own making.

use std::path::PathBuf;

use ferrite_robustness::differential::commands::{self, Side};
use ferrite_robustness::differential::step::Step;
use ferrite_robustness::differential::{Binaries, Theme, replay, run, shrink};
use ferrite_robustness::process::Process;

fn binaries() -> Binaries {
    let ours = Process::built_beside_tests().unwrap();
    let etcd = std::env::var_os("ETCD_BINARY").map(PathBuf::from);
    Binaries {
        etcd: etcd.unwrap_or_else(|| ours.clone()),
        ours,
    }
}

async fn answered_alike(count: usize, theme: Theme) {
    let outcome = run(&binaries(), 7, count, theme).await.unwrap();
    if let Err(difference) = outcome {
        let last = difference.steps.last().unwrap();
        panic!(
            "step {}: {last}\nours: {}\netcd: {}",
            difference.steps.len(),
            difference.ours,
            difference.etcd
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_are_answered_alike() {
    answered_alike(600, Theme::Data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_of_users_are_answered_alike() {
    answered_alike(600, Theme::Accounts).await;
}

/// With `ETCDCTL_BINARY` set to etcd's `etcdctl` ours is compared with that, on the same server.
#[tokio::test(flavor = "multi_thread")]
async fn commands_end_alike() {
    let program = Process::program_beside_tests("etcdctl", "ferrite-etcdctl").unwrap();
    let etcdctl = std::env::var_os("ETCDCTL_BINARY").map(PathBuf::from);
    let server = binaries().etcd;
    let sides = [&program, etcdctl.as_ref().unwrap_or(&program)].map(|program| Side {
        program,
        server: &server,
    });
    let outcome = commands::compare(sides).await.unwrap();
    assert!(outcome.unequal.is_empty(), "{:#?}", outcome.unequal);
    assert!(outcome.count > 100, "{outcome:?}");
}

/// What is shown is as little as there is to show.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_shrunk_to_what_causes_it() {
    let ours = Process::built_beside_tests().unwrap();
    let get = |path: &str| Step::Get {
        path: path.to_owned(),
    };
    let binaries = Binaries {
        etcd: ours.clone(),
        ours,
    };
    let steps = vec![
        get("/version"),
        get("/livez"),
        get("/metrics"),
        get("/version"),
    ];
    let found = replay(&binaries, &steps).await.unwrap();
    let found = found.expect("two processes have not the same metrics");
    assert_eq!(found.steps.len(), 3);
    let mut reports = 0;
    let smallest = shrink::shrink(&binaries, found, &mut |_| reports += 1)
        .await
        .unwrap();
    assert_eq!(smallest.steps.len(), 1);
    assert!(matches!(&smallest.steps[0], Step::Get { path } if path == "/metrics"));
    assert!(reports > 0);
}
