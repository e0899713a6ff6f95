//! `snapshot restore`: a member of a new cluster from a snapshot, of Ferrite or of etcd.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ferrite_api::types::{ClusterId, MemberId};
use ferrite_disk::{Disk, DiskFile, RealDisk};
use ferrite_storage::etcd::{self, Bump, Database, has_checksum, verify_checksum};
use ferrite_storage::founding::member_id;
use ferrite_storage::page::Options;

use super::progress::Progress;
use crate::cli::Matches;
use crate::failure::{Exit, Failure};
use crate::log;
use crate::new_cluster::NewCluster;
use crate::new_member::NewMember;
use crate::render::quote;

const PLACE: &str = "commands/snapshot_restore.rs";

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let [path] = &matches.arguments[..] else {
        let message = "snapshot restore requires exactly one argument";
        return Err(Failure::with_code(Exit::BadArgs, message));
    };
    let path = Path::new(path);
    let bump = bump(matches)?;
    let cluster = NewCluster::of(matches)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let member = NewMember::begin(&disk, &cluster)?;
    let places = places(path, &cluster);
    log::info(PLACE, "restoring snapshot", &places);
    let file = open(path)?;
    verify(file.as_ref(), matches.switch("skip-hash-check"))?;
    let database = Database::open(file).map_err(Failure::new)?;
    let mut progress = Progress::new();
    let page = etcd::restore(
        &database,
        &disk,
        &member.page_path(),
        Options::default(),
        &cluster.founding,
        bump,
        &mut |done, all| progress.tell("restoring", done, all),
    );
    drop(progress);
    let page = page.map_err(Failure::new)?;
    if bump.revisions > 0 {
        let (to, by) = (page.meta().revision, bump.revisions);
        let fields = format!("{{\"bump-amount\": {by}, \"new-latest-revision\": {to}}}");
        log::info(PLACE, "bumping latest revision", &fields);
        let fields = format!("{{\"revision\": {to}}}");
        log::info(PLACE, "marking revision compacted", &fields);
    }
    drop(page);
    tell_members(&cluster, matches);
    member.finish()?;
    log::info(PLACE, "restored snapshot", &places);
    Ok(())
}

/// Both flags, or none.
fn bump(matches: &Matches) -> Result<Bump, Failure> {
    let revisions = u64::try_from(matches.number("bump-revision", 0))
        .map_err(|_| Failure::with_code(Exit::BadArgs, "--bump-revision must not be negative"))?;
    match (revisions > 0, matches.switch("mark-compacted")) {
        (true, true) | (false, false) => Ok(Bump { revisions }),
        _ => {
            let message = "--mark-compacted required if --revision-bump > 0";
            Err(Failure::with_code(Exit::BadArgs, message))
        }
    }
}

fn open(path: &Path) -> Result<Arc<dyn DiskFile>, Failure> {
    RealDisk::open_read_only(path).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(format!("open {}: {why}", path.display()))
    })
}

fn verify(file: &dyn DiskFile, skip: bool) -> Result<(), Failure> {
    if skip {
        return Ok(());
    }
    let bytes = file.len().map_err(Failure::new)?;
    if !has_checksum(bytes) {
        // etcd's text, and what to do.
        return Err(Failure::new(
            "snapshot missing hash but --skip-hash-check=false: the file is cut, or no snapshot but a copy \
             of a data directory's db, which needs --skip-hash-check",
        ));
    }
    let mut progress = Progress::new();
    let verified = verify_checksum(file, &mut |done, all| {
        progress.tell("verifying the checksum", done, all);
    });
    drop(progress);
    verified.map_err(Failure::new)
}

/// The places that a restore has to do with, as fields of a log line.
fn places(path: &Path, cluster: &NewCluster) -> String {
    let text = |path: &Path| quote(path.as_os_str().as_encoded_bytes());
    let member = cluster.data_dir.join("member");
    let wal = cluster.wal_dir.clone();
    format!(
        "{{\"path\": {}, \"wal-dir\": {}, \"data-dir\": {}, \"snap-dir\": {}}}",
        text(path),
        text(&wal.unwrap_or_else(|| member.join("wal"))),
        text(&cluster.data_dir),
        text(&member.join("snap")),
    )
}

/// One line for each: scripts wait for them.
pub(super) fn tell_members(cluster: &NewCluster, matches: &Matches) {
    let token = matches.text("initial-cluster-token", "etcd-cluster");
    for (_, urls) in cluster.members.iter() {
        let urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
        let id: MemberId = member_id(&urls, &token);
        let quoted: Vec<String> = urls.iter().map(|url| quote(url.as_bytes())).collect();
        let fields = format!(
            "{{\"cluster-id\": \"{}\", \"local-member-id\": \"0\", \"added-peer-id\": \"{id}\", \
             \"added-peer-peer-urls\": [{}], \"added-peer-is-learner\": false}}",
            ClusterId::new(cluster.founding.cluster_id),
            quoted.join(", ")
        );
        log::info(PLACE, "added member", &fields);
    }
}
