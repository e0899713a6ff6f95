//! A member whose data is not that of the others is found out (spec/cluster.md section 6).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmType};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::Revision;
use ferrite_client::{CompactOptions, GetOptions, PutOptions};
use ferrite_disk::{Disk, RealDisk};
use ferrite_robustness::fleet::agree::converged;
use ferrite_robustness::fleet::{Fleet, PATIENCE};
use ferrite_robustness::process::Process;
use ferrite_storage::page::{Batch, Options, PageFile, RowId, RowWrite};
use prost::Message;

/// Often, so that tests need not wait.
const SHORT: &str = "100ms";

/// The member whose data is changed.
const LIAR: usize = 2;

async fn fleet(dir: &Path, args: &[&str]) -> anyhow::Result<Fleet> {
    let fleet = Fleet::start(&Process::built_beside_tests()?, dir, 3, args).await?;
    let client = fleet.client().await?;
    for number in 0..20 {
        let key = format!("key{}", number % 7);
        let value = format!("value{number}");
        client.put(key, value, PutOptions::new()).await?;
    }
    converged(&fleet, &[0, 1, 2]).await?;
    Ok(fleet)
}

/// Changes the value of the row at a revision, as no request ever does, so that all checksums and
/// counters are right nevertheless.
fn falsify(data_dir: &Path, main: i64) -> anyhow::Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let path = data_dir.join("member").join("snap").join("db");
    let page = PageFile::open(&disk, &path, Options::default())?;
    let revision = Revision::new(main, 0);
    let record = page.reader()?.row(revision, false)?;
    let mut pair = KeyValue::decode(record)?;
    pair.value = Bytes::from_static(b"something else");
    page.commit(&Batch {
        remove: vec![RowId {
            revision,
            tombstone: false,
        }],
        ..Batch::default()
    })?;
    page.commit(&Batch {
        rows: vec![RowWrite {
            revision,
            tombstone: false,
            record: Bytes::from(pair.encode_to_vec()),
        }],
        ..Batch::default()
    })?;
    Ok(())
}

/// Stops the liar in order, so that all it has is in its page file, and changes that.
async fn make_a_liar(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.members[LIAR].stopped().await?;
    falsify(&fleet.members[LIAR].data_dir(), 15)
}

/// Waits until there are alarms.
async fn alarms(fleet: &Fleet) -> anyhow::Result<Vec<AlarmMember>> {
    let client = fleet.client().await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let alarms = client.maintenance().alarm_list().await?.alarms;
        if !alarms.is_empty() {
            return Ok(alarms);
        }
        ensure!(Instant::now() < deadline, "no alarm is raised");
        tokio::task::yield_now().await;
    }
}

/// Waits until the liar is known as one, and nobody else.
async fn is_found_out(fleet: &Fleet) -> anyhow::Result<()> {
    let header = fleet.status(LIAR).await?.header.context("no header")?;
    let expected = AlarmMember {
        member_id: header.member_id,
        alarm: AlarmType::Corrupt.into(),
    };
    let client = fleet.client().await?;
    let alarms = alarms(fleet).await?;
    ensure!(alarms == [expected], "{alarms:?}, not {expected:?}");
    let error = client.put("new", "", PutOptions::new()).await;
    let refused = error.err().context("a put is taken")?.to_string();
    ensure!(
        refused.contains(ApiError::Corrupt.message()),
        "the error is {refused}"
    );
    client.get("key1", GetOptions::new()).await?;
    // After an operator has looked into it.
    client.maintenance().alarm_disarm_all().await?;
    Ok(())
}

async fn says(fleet: &Fleet, text: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while fleet.members.iter().all(|member| member.says(&[text]) == 0) {
        ensure!(Instant::now() < deadline, "nobody says {text:?}");
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn no_alarm(fleet: &Fleet) -> anyhow::Result<()> {
    let client = fleet.client().await?;
    let alarms = client.maintenance().alarm_list().await?.alarms;
    ensure!(alarms.is_empty(), "{alarms:?} among equals");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_other_data_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--feature-gates=InitialCorruptCheck=true"];
    let mut fleet = fleet(dir.path(), &args).await.unwrap();
    // With the same data it does.
    fleet.members[LIAR].stopped().await.unwrap();
    fleet.members[LIAR].start().await.unwrap();
    let passed = "initial corruption checking passed; no corruption";
    assert_eq!(fleet.members[LIAR].says(&[passed]), 1);

    make_a_liar(&mut fleet).await.unwrap();
    let liar = &mut fleet.members[LIAR];
    liar.launch().unwrap();
    let status = liar.ended().await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(liar.says(&["found different hash values from remote peer"]) > 0);
    assert_eq!(liar.says(&["found data inconsistency with peers"]), 1);
    assert_eq!(liar.says(&[passed]), 1, "still that of the first time");
    // Alone, a member has nobody to differ from.
    fleet.members[0].kill().unwrap();
    fleet.members[1].kill().unwrap();
    fleet.members[LIAR].launch().unwrap();
    says(&fleet, "failed hash kv request").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while fleet.members[LIAR].says(&[passed]) < 2 {
        assert!(Instant::now() < deadline, "it does not go on alone");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_compares_the_members_data() {
    let dir = tempfile::tempdir().unwrap();
    let args = [&format!("--corrupt-check-time={SHORT}")[..]];
    let mut fleet = fleet(dir.path(), &args).await.unwrap();
    says(
        &fleet,
        "\"finished peer corruption check\",\"number-of-peers-checked\":2",
    )
    .await
    .unwrap();
    no_alarm(&fleet).await.unwrap();
    make_a_liar(&mut fleet).await.unwrap();
    fleet.members[LIAR].start().await.unwrap();
    is_found_out(&fleet).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_compares_what_compactions_leave() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--feature-gates=CompactHashCheck=true",
        &format!("--compact-hash-check-time={SHORT}"),
    ];
    let mut fleet = fleet(dir.path(), &args).await.unwrap();
    let client = fleet.client().await.unwrap();
    client.compact(10, CompactOptions::new()).await.unwrap();
    says(&fleet, "successfully checked hash on whole cluster")
        .await
        .unwrap();
    no_alarm(&fleet).await.unwrap();
    make_a_liar(&mut fleet).await.unwrap();
    fleet.members[LIAR].start().await.unwrap();
    client.compact(20, CompactOptions::new()).await.unwrap();
    // One word against another, while the third member has no hash yet: then it may be anybody (0).
    for _ in 0..10 {
        if alarms(&fleet).await.unwrap()[0].member_id != 0 {
            break;
        }
        client.maintenance().alarm_disarm_all().await.unwrap();
        let put = client.put("key0", "", PutOptions::new()).await.unwrap();
        let revision = put.header.unwrap_or_default().revision;
        client
            .compact(revision, CompactOptions::new())
            .await
            .unwrap();
    }
    is_found_out(&fleet).await.unwrap();
}
