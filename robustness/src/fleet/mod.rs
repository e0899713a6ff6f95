//! Clusters of real processes under load: members killed, restarted, cut off, replaced, left behind.
//! Any etcd's binary will do, so that figures can be compared.
//!
//! * [`Fleet`]: the processes, and what they say of themselves.
//! * [`load`]: clients that write and read through all of it, and note what they were told.
//! * [`agree`]: what must be true at the end: every member has what was acknowledged, and the same.
//! * [`network`]: a network of their own, which can be cut.
//! * [`leader_kill`], [`rolling`], [`partitions`], [`replace`], [`lagging`], [`downgrade`]: the scenarios.
//!
//! A scenario returns figures; only what is wrong at any speed is an error.

pub mod agree;
pub mod downgrade;
pub mod figures;
pub mod fill;
pub mod lagging;
pub mod leader_kill;
pub mod load;
pub mod network;
pub mod partitions;
pub mod replace;
pub mod rolling;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ferrite_client::pb::etcdserverpb::StatusResponse;
use ferrite_client::{Client, Config, GetOptions};

use crate::process::Process;

/// How long a cluster may take for what it does in a second or two.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Limit of a call of the load: above the longest time in which a server answers by itself.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Members of one cluster, by their place in the list.
#[derive(Debug)]
pub struct Fleet {
    /// The processes.
    pub members: Vec<Process>,
}

impl Fleet {
    /// Starts a new cluster of `size` members with their data under `dir`, and waits until all serve.
    ///
    /// # Errors
    /// A member does not start.
    pub async fn start(
        binary: &Path,
        dir: &Path,
        size: usize,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let members = (0..size)
            .map(|at| member(binary, dir, at, args))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Self::begin(members).await
    }

    /// Starts a new cluster of these members, and waits until all serve.
    ///
    /// # Errors
    /// A member does not start.
    pub async fn begin(mut members: Vec<Process>) -> anyhow::Result<Self> {
        let introductions: Vec<_> = members.iter().map(Process::introduction).collect();
        for member in &mut members {
            member.begins(&introductions.join(","));
            member.launch()?;
        }
        for member in &mut members {
            member.serves().await?;
        }
        Ok(Self { members })
    }

    /// Where clients find the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Process::endpoint).collect()
    }

    /// A client of all members.
    ///
    /// # Errors
    /// None that happens.
    pub async fn client(&self) -> anyhow::Result<Client> {
        client(self.endpoints()).await
    }

    /// A client of one member only.
    ///
    /// # Errors
    /// None that happens.
    pub async fn client_of(&self, at: usize) -> anyhow::Result<Client> {
        client(vec![self.members[at].endpoint()]).await
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, at: usize) -> anyhow::Result<StatusResponse> {
        let client = self.client_of(at).await?;
        let endpoint = self.members[at].endpoint();
        let status = client
            .with_timeout(Duration::from_secs(2))
            .maintenance()
            .status(&endpoint)
            .await;
        status.with_context(|| format!("status of {}", self.members[at].name()))
    }

    /// The running members.
    pub fn running(&self) -> Vec<usize> {
        let all = 0..self.members.len();
        all.filter(|at| self.members[*at].runs()).collect()
    }

    /// The member that leads, and its status.
    ///
    /// # Errors
    /// Nobody leads for a long time.
    pub async fn leader(&self) -> anyhow::Result<(usize, StatusResponse)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Answered as soon as somebody leads.
            let client = self.client().await?;
            client.get("leader", GetOptions::new()).await.ok();
            let mut leaders = Vec::new();
            for at in self.running() {
                if let Ok(status) = self.status(at).await
                    && is_leader(&status)
                {
                    leaders.push((at, status));
                }
            }
            // One that was deposed may not know it yet.
            if let Some(newest) = leaders.into_iter().max_by_key(|(_, it)| it.raft_term) {
                return Ok(newest);
            }
            if Instant::now() > deadline {
                bail!("nobody leads for {PATIENCE:?}");
            }
        }
    }
}

/// Whether a member says that it leads.
pub fn is_leader(status: &StatusResponse) -> bool {
    let id = status.header.map_or(0, |header| header.member_id);
    id != 0 && status.leader == id
}

/// A member that is not started yet.
///
/// # Errors
/// No free port, or no room for its data.
pub fn member(binary: &Path, dir: &Path, at: usize, args: &[&str]) -> anyhow::Result<Process> {
    let name = format!("m{at}");
    let dir = dir.join(&name);
    std::fs::create_dir_all(&dir)?;
    Ok(Process::new(binary, &dir, args)?.named(&name))
}

/// A client of these members that repeats what is safe to repeat.
async fn client(endpoints: Vec<String>) -> anyhow::Result<Client> {
    connect(config(endpoints)).await
}

/// A client of one member that repeats nothing: what the member answers is to be seen.
async fn impatient_client(endpoint: String) -> anyhow::Result<Client> {
    connect(config(vec![endpoint]).max_attempts(1)).await
}

fn config(endpoints: Vec<String>) -> Config {
    Config::new(endpoints)
        .dial_timeout(Duration::from_secs(1))
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(200))
}

async fn connect(config: Config) -> anyhow::Result<Client> {
    Ok(Client::connect(config).await?.with_timeout(CALL_LIMIT))
}
