//! Data on its way between Ferrite and a real etcd, and from a cluster under load into new ones.
//!
//! * [`from_etcd`]: an etcd's snapshot, and its data directory after a kill and after a stop in order,
//!   become members of Ferrite; and from there a snapshot goes back into a real etcd.
//! * [`under_load`]: a snapshot of a cluster that is being written to becomes one member, and three.
//!
//! What is compared is what clients see ([`seen`]): hashes and every pair at several revisions, leases
//! and their keys, alarms; users and roles, which no client of this build sees, in the files.

pub mod from_etcd;
pub mod seen;
pub mod under_load;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;

use crate::process::Process;

/// Messages of a server may have so many bytes.
const MAX_MESSAGE: usize = 256 << 20;

/// The programs of Ferrite.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The server.
    pub etcd: PathBuf,
    /// The offline tool.
    pub etcdutl: PathBuf,
}

impl Programs {
    /// Those in a folder.
    ///
    /// # Errors
    /// One is missing.
    pub fn within(folder: &Path) -> anyhow::Result<Self> {
        let program = |name: &str| {
            let path = folder.join(name);
            ensure!(path.exists(), "{} is missing", path.display());
            Ok(path)
        };
        Ok(Self {
            etcd: program("etcd")?,
            etcdutl: program("etcdutl")?,
        })
    }
}

/// A channel to a member.
async fn channel(member: &Process) -> anyhow::Result<Channel> {
    let uri = format!("http://{}", member.endpoint());
    Ok(Channel::from_shared(uri)?.connect().await?)
}

/// Saves a snapshot, checksum included.
async fn save(member: &Process, path: &Path) -> anyhow::Result<u64> {
    let mut client = MaintenanceClient::new(channel(member).await?);
    let answers = client.snapshot(pb::SnapshotRequest {}).await?;
    let (mut answers, mut file) = (answers.into_inner(), std::fs::File::create(path)?);
    let mut bytes = 0;
    while let Some(answer) = answers.message().await? {
        std::io::Write::write_all(&mut file, &answer.blob)?;
        bytes += answer.blob.len() as u64;
    }
    Ok(bytes)
}

/// Makes the data directories of new members, which know each other, and starts them.
async fn restored(
    etcdutl: &Path,
    binary: &Path,
    dir: &Path,
    members: usize,
    source: &[&std::ffi::OsStr],
) -> anyhow::Result<Vec<Process>> {
    let mut processes = (0..members)
        .map(|at| crate::fleet::member(binary, dir, at, &[]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let introductions: Vec<_> = processes.iter().map(Process::introduction).collect();
    for process in &mut processes {
        let mut command = Command::new(etcdutl);
        command
            .args(source)
            .arg("--data-dir")
            .arg(process.data_dir())
            .args(["--name", process.name()])
            .args(["--initial-cluster", &introductions.join(",")])
            .args(["--initial-advertise-peer-urls", &process.peer_url()]);
        run(&mut command)?;
        process.begins(&introductions.join(","));
        process.launch()?;
    }
    for process in &mut processes {
        process.serves().await?;
    }
    Ok(processes)
}

/// Runs a program to its end. Its output.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {err}");
    Ok(String::from_utf8(output.stdout)?)
}
