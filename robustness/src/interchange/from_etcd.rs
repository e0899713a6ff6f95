//! From a real etcd to Ferrite, and back.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::auth_client::AuthClient;
use ferrite_api::pb::etcdserverpb::kv_client::KvClient;
use ferrite_api::pb::etcdserverpb::lease_client::LeaseClient;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use ferrite_api::pb::etcdserverpb::request_op::Request;
use ferrite_disk::{Disk, OverlayDisk, RealDisk};
use ferrite_storage::bolt::{BoltFile, Entry};
use ferrite_storage::page::{Options, PageFile, Table};

use super::seen::{Seen, look};
use super::{Programs, channel, restored, run, save};
use crate::process::Process;

/// What is compared with.
#[derive(Clone, Debug)]
pub struct Reference {
    /// A real etcd.
    pub etcd: PathBuf,
    /// Its offline tool, if there is one.
    pub etcdutl: Option<PathBuf>,
}

/// Keys of a Txn.
const BATCH: usize = 100;

/// Runs the scenario; `tell` is told what was found equal.
///
/// # Errors
/// Something differs, or a program fails.
pub async fn run_through(
    ours: &Programs,
    theirs: &Reference,
    dir: &Path,
    keys: usize,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let theirs_dir = dir.join("theirs");
    std::fs::create_dir_all(&theirs_dir)?;
    let mut etcd = Process::new(&theirs.etcd, &theirs_dir, &[])?;
    etcd.start().await?;
    let revisions = fill(&etcd, keys).await?;
    let then = look(&etcd, &revisions).await?;
    let snapshot = dir.join("snapshot.db");
    let bytes = save(&etcd, &snapshot).await?;
    tell(&format!(
        "etcd has {keys} keys at revision {}, and {} leases; its snapshot has {bytes} bytes",
        then.revision,
        then.leases.len()
    ));
    // These are in its log when it is killed; a part of them is in its file.
    let more = put(&etcd, "later", 500, 0).await?;
    set_alarm(&etcd, AlarmAction::Activate).await?;
    let revisions: Vec<i64> = revisions.into_iter().chain([more]).collect();
    let now = look(&etcd, &revisions).await?;
    ensure!(now.alarms.len() == 1, "an alarm was raised");
    etcd.kill()?;

    let source = [
        OsStr::new("snapshot"),
        OsStr::new("restore"),
        snapshot.as_os_str(),
    ];
    let of_snapshot = &revisions[..revisions.len() - 1];
    let mut ferrite = made(ours, &dir.join("restored"), &source).await?;
    compare(&ferrite, of_snapshot, &then).await?;
    ferrite.stop()?;
    let users = rows(&snapshot)?;
    ensure!(stored(&ferrite)? == users, "other users or roles");
    tell(&format!(
        "restored: all equal, {} rows about users and roles too",
        users.len()
    ));

    let data_dir = etcd.data_dir();
    let source = [
        OsStr::new("migrate"),
        OsStr::new("--from-etcd"),
        data_dir.as_os_str(),
    ];
    let mut ferrite = made(ours, &dir.join("after-kill"), &source).await?;
    compare(&ferrite, &revisions, &now).await?;
    ferrite.stop()?;
    ensure!(stored(&ferrite)? == users, "other users or roles");
    tell("migrated after kill -9: all equal");

    etcd.start().await?;
    etcd.stop()?;
    let mut ferrite = made(ours, &dir.join("after-stop"), &source).await?;
    compare(&ferrite, &revisions, &now).await?;
    tell("migrated after a stop in order: all equal");

    set_alarm(&ferrite, AlarmAction::Deactivate).await?;
    let more = put(&ferrite, "back", 1000, 0).await?;
    let revisions: Vec<i64> = revisions.into_iter().chain([more]).collect();
    let now = look(&ferrite, &revisions).await?;
    let back = dir.join("back.db");
    save(&ferrite, &back).await?;
    ferrite.stop()?;
    let Some(etcdutl) = &theirs.etcdutl else {
        return Ok(());
    };
    let mut status = std::process::Command::new(etcdutl);
    let status = run(status.args(["snapshot", "status"]).arg(&back))?;
    tell(&format!(
        "etcd's tool says of Ferrite's snapshot: {}",
        status.trim()
    ));
    let source = [
        OsStr::new("snapshot"),
        OsStr::new("restore"),
        back.as_os_str(),
    ];
    let etcd = restored(etcdutl, &theirs.etcd, &dir.join("back"), 1, &source).await?;
    compare(&etcd[0], &revisions, &now).await?;
    tell("restored into a real etcd: all equal");
    Ok(())
}

async fn made(ours: &Programs, dir: &Path, source: &[&OsStr]) -> anyhow::Result<Process> {
    let mut members = restored(&ours.etcdutl, &ours.etcd, dir, 1, source).await?;
    members.pop().context("one was asked for")
}

async fn compare(member: &Process, revisions: &[i64], expected: &Seen) -> anyhow::Result<()> {
    let found = look(member, revisions).await?;
    let (keys, was) = (&found.keys, &expected.keys);
    ensure!(keys == was, "keys: {keys:?} is found, {was:?} was there");
    ensure!(
        found.leases == expected.leases,
        "other leases or keys of them"
    );
    ensure!(found == *expected, "another revision, or other alarms");
    Ok(())
}

/// Gives an etcd a history. Revisions to look at.
async fn fill(member: &Process, keys: usize) -> anyhow::Result<Vec<i64>> {
    let channel = channel(member).await?;
    let (mut kv, mut lease) = (
        KvClient::new(channel.clone()),
        LeaseClient::new(channel.clone()),
    );
    // Old versions forget negative ids, and the largest, when they start again.
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let status = maintenance.status(pb::StatusRequest {}).await?;
    let version = status.into_inner().version;
    let old = version.starts_with("3.4.") || version.starts_with("3.5.");
    let (second, third) = if old { (5, 1 << 62) } else { (-5, i64::MAX) };
    for (id, ttl) in [(7, 5000), (second, 600), (third, 100_000)] {
        lease.lease_grant(pb::LeaseGrantRequest { id, ttl }).await?;
    }
    let first = put(member, "key", keys, 7).await?;
    put(member, "leased", 20, second).await?;
    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"key/0000001"),
        range_end: Bytes::from_static(b"key/0000003"),
        ..Default::default()
    };
    kv.delete_range(delete).await?;
    let compacted = put(member, "key", keys / 4, 0).await?;
    let compaction = pb::CompactionRequest {
        revision: compacted - 1,
        physical: true,
    };
    kv.compact(compaction).await?;
    let last = put(member, "key", keys / 3, third).await?;
    let last = last.max(put(member, "many\0bytes", 3, 0).await?);
    ensure!(first < compacted && compacted < last, "revisions ascend");

    let mut auth = AuthClient::new(channel.clone());
    let role = pb::AuthRoleAddRequest {
        name: "reader".to_owned(),
    };
    auth.role_add(role).await?;
    let user = pb::AuthUserAddRequest {
        name: "alice".to_owned(),
        password: "secret".to_owned(),
        ..Default::default()
    };
    auth.user_add(user).await?;
    let grant = pb::AuthUserGrantRoleRequest {
        user: "alice".to_owned(),
        role: "reader".to_owned(),
    };
    auth.user_grant_role(grant).await?;
    // Not the one that was compacted to: what etcd says of it depends on when it was started.
    Ok(vec![compacted, (compacted + last) / 2, last])
}

/// Puts keys in batches. The revision of the last.
async fn put(member: &Process, prefix: &str, keys: usize, lease: i64) -> anyhow::Result<i64> {
    let mut kv = KvClient::new(channel(member).await?);
    let numbers: Vec<usize> = (0..keys).collect();
    let mut revision = 0;
    for batch in numbers.chunks(BATCH) {
        let puts = batch.iter().map(|number| {
            let put = pb::PutRequest {
                key: format!("{prefix}/{number:07}").into(),
                value: vec![b'v'; 50 + number % 400].into(),
                lease,
                ..Default::default()
            };
            pb::RequestOp {
                request: Some(Request::RequestPut(put)),
            }
        });
        let txn = pb::TxnRequest {
            success: puts.collect(),
            ..Default::default()
        };
        let answer = kv.txn(txn).await?.into_inner();
        revision = answer.header.unwrap_or_default().revision;
    }
    Ok(revision)
}

/// Raises an alarm, or ends it, so that there can be writes.
async fn set_alarm(member: &Process, action: AlarmAction) -> anyhow::Result<()> {
    let mut client = MaintenanceClient::new(channel(member).await?);
    let request = pb::AlarmRequest {
        action: action.into(),
        member_id: 99,
        alarm: pb::AlarmType::Nospace.into(),
    };
    client.alarm(request).await?;
    Ok(())
}

/// Rows about authentication, by table or bucket, and key.
type Rows = BTreeMap<(&'static str, Bytes), Bytes>;

const AUTH: [(Table, &str); 3] = [
    (Table::Auth, "auth"),
    (Table::AuthUsers, "authUsers"),
    (Table::AuthRoles, "authRoles"),
];

/// Those in a file of etcd's.
fn rows(path: &Path) -> anyhow::Result<Rows> {
    let file = BoltFile::open(RealDisk.open(path)?)?;
    let mut rows = Rows::new();
    for (_, name) in AUTH {
        let bucket = file.bucket(name.as_bytes())?.context("no such bucket")?;
        for entry in file.entries(&bucket) {
            if let Entry::Pair { key, value } = entry? {
                rows.insert((name, key), value);
            }
        }
    }
    Ok(rows)
}

/// Those that a member of Ferrite that does not run has.
fn stored(member: &Process) -> anyhow::Result<Rows> {
    let disk: Arc<dyn Disk> = Arc::new(OverlayDisk::new(Arc::new(RealDisk)));
    let path = member.data_dir().join("member/snap/db");
    let page = PageFile::open(&disk, &path, Options::default())?;
    let reader = page.reader()?;
    let mut rows = Rows::new();
    for (table, name) in AUTH {
        for (key, value) in reader.table(table)? {
            rows.insert((name, key), value);
        }
    }
    Ok(rows)
}
