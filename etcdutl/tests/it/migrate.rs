//! `migrate --target-version`: the storage version of a data directory.

use std::sync::Arc;

use ferrite_api::pb::etcdserverpb::{DowngradeVersionTestRequest, InternalRaftRequest};
use ferrite_disk::wal::Record;
use ferrite_disk::{Disk, RealDisk};
use ferrite_raft::log::{Options, Recovered, recover};
use prost::Message;

use crate::support::{Member, etcdutl};

fn migrate(member: &Member, target: &str, more: &[&str]) -> (i32, Vec<String>) {
    let arguments = [
        "migrate",
        "--data-dir",
        member.text(),
        "--target-version",
        target,
    ];
    let ran = etcdutl(&[&arguments, more].concat());
    assert_eq!(ran.out, "");
    // Without time and place.
    let lines = ran
        .err
        .lines()
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [_, level, _, message, fields] => format!("{level} {message} {fields}"),
            _ => line.to_owned(),
        });
    (ran.code, lines.collect())
}

fn storage_version(member: &Member) -> String {
    let ran = etcdutl(&["dump-db", "--data-dir", member.text()]);
    let mut lines = ran.out.lines();
    let version = lines.find_map(|line| line.trim().strip_prefix("storage version"));
    version.unwrap().trim().to_owned()
}

#[tokio::test]
async fn down_and_up_again_a_step_at_a_time() {
    let member = Member::filled(3).await;
    let hash = etcdutl(&["hashkv", member.db().to_str().unwrap()]).out;
    let up_to_date = "info storage version up-to-date {\"storage-version\": \"3.7\"}";
    assert_eq!(migrate(&member, "3.7", &[]), (0, vec![up_to_date.into()]));
    let updated = |version| {
        format!("info updated storage version {{\"new-storage-version\": \"{version}\"}}")
    };
    assert_eq!(migrate(&member, "3.6", &[]), (0, vec![updated("3.6.0")]));
    assert_eq!(storage_version(&member), "3.6.0");
    assert_eq!(migrate(&member, "3.5", &[]), (0, vec![updated("3.5.0")]));
    // This one does not say what it is.
    assert_eq!(storage_version(&member), "");
    let both = vec![updated("3.6.0"), updated("3.7.0")];
    assert_eq!(migrate(&member, "3.7", &[]), (0, both));
    assert_eq!(storage_version(&member), "3.7.0");
    assert_eq!(
        etcdutl(&["hashkv", member.db().to_str().unwrap()]).out,
        hash
    );

    // A member takes its page file to the cluster's version by itself.
    assert_eq!(migrate(&member, "3.5", &[]).0, 0);
    let server = member.start().await;
    while server.handle().status().storage_version != "3.7.0" {
        tokio::task::yield_now().await;
    }
    server.stop().await.unwrap();
    assert_eq!(storage_version(&member), "3.7.0");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_unless_forced() {
    let member = Member::filled(1).await;
    for (target, message) in [
        (
            "3.8",
            "cannot create migration plan: version \"3.8.0\" is not supported",
        ),
        (
            "4.0",
            "cannot create migration plan: changing major storage version is not supported",
        ),
    ] {
        let refused = (1, vec![format!("Error: {message}")]);
        assert_eq!(migrate(&member, target, &[]), refused);
        assert_eq!(storage_version(&member), "3.7.0");
    }
    let (code, lines) = migrate(&member, "3.8", &["--force"]);
    assert_eq!(code, 0);
    assert!(
        lines[0].starts_with("info normal migrate failed, trying with force"),
        "{lines:?}"
    );
    assert_eq!(
        lines[1],
        "warn forcefully set storage version {\"storage-version\": \"3.8\"}"
    );
    assert_eq!(storage_version(&member), "3.8.0");
    // Nothing leads back from there but force.
    let refused = "Error: cannot create migration plan: version \"3.8.0\" is not supported";
    assert_eq!(migrate(&member, "3.7", &[]), (1, vec![refused.to_owned()]));
    let (_, lines) = migrate(&member, "3.5", &["--force"]);
    assert_eq!(lines[1], "warn forcefully cleared storage version {}");
    assert_eq!(migrate(&member, "3.7", &[]).0, 0);
    member.start().await.stop().await.unwrap();
}

/// Adds an entry to the log that needs this version, behind everything that the page file has.
fn log_entry_of(member: &Member, version: &str) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let recovered = recover(disk, &member.wal(), &Options::default()).unwrap();
    let Recovered {
        log,
        mut wal,
        hard_state,
        ..
    } = recovered;
    let test = DowngradeVersionTestRequest {
        ver: version.to_owned(),
    };
    let request = InternalRaftRequest {
        downgrade_version_test: Some(test),
        ..InternalRaftRequest::default()
    };
    // Kind 2, an entry: index, term, a normal one, no context.
    let mut payload = Vec::new();
    payload.extend((log.last() + 1).to_le_bytes());
    payload.extend(hard_state.term.to_le_bytes());
    payload.extend([0; 8]);
    request.encode(&mut payload).unwrap();
    let record = Record {
        kind: 2,
        payload: payload.into(),
    };
    wal.append(&[record], &mut Vec::new).unwrap();
    wal.sync().unwrap();
}

#[tokio::test]
async fn a_log_that_the_target_does_not_know_forbids_it() {
    let member = Member::filled(1).await;
    log_entry_of(&member, "3.7.0");
    let newer = "cannot downgrade storage, WAL contains newer entries, as the target version (3.6.0) is \
                 lower than the version (3.7.0) detected from WAL logs";
    let refused = (1, vec![format!("Error: {newer}")]);
    assert_eq!(migrate(&member, "3.6", &[]), refused);
    assert_eq!(storage_version(&member), "3.7.0");
    let (code, lines) = migrate(&member, "3.6", &["--force"]);
    assert_eq!(code, 0);
    assert!(lines[0].contains(newer), "{lines:?}");
    assert_eq!(storage_version(&member), "3.6.0");
    // Nothing in it is too new for those who go up.
    assert_eq!(migrate(&member, "3.7", &[]).0, 0);
}

#[tokio::test]
async fn a_directory_in_use_is_left_alone() {
    let member = Member::filled(1).await;
    let server = member.start().await;
    let (code, lines) = migrate(&member, "3.6", &["--timeout", "1ms"]);
    assert_eq!(code, 1);
    assert!(
        lines[0].ends_with("is in use by another process"),
        "{lines:?}"
    );
    server.stop().await.unwrap();
}
