//! Putting a member together: from its data directory and its configuration to running threads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferrite_disk::{Disk, DiskLock, RealDisk, UnsyncedDisk, wal};
use ferrite_storage::checkpoint::Policy;
use ferrite_storage::page;
use ferrite_tls::Info;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::{Error, origin, strings};
use crate::auth::Tokens;
use crate::auth::passwords::Hashing;
use crate::bootstrap::{self, Origin, Restored};
use crate::config::{Config, Feature};
use crate::corruption;
use crate::grpc;
use crate::handle::{Handle, Inner, Limits, Readers, Running, Watching};
use crate::lessor;
use crate::member::{self, Fatal, Member};
use crate::metrics::Metrics;
use crate::peer::{self, Peers, Via};
use crate::peering::{Peering, Place};
use crate::quota::Quota;
use crate::request_id::RequestIds;
use crate::serve::Listener;
use crate::shell::{self, Clock, Ended, Inbox};
use crate::watch::{self, Hub};

/// Time between checkpoints of a store that changes.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Time between checkpoints of what is left of a lease.
const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);

/// Time between two looks at the versions of the members and of the storage.
const VERSION_INTERVAL: Duration = Duration::from_secs(4);

/// Bytes of raft entries kept in memory beside the log: what a follower that is a little behind
/// needs.
const ENTRY_CACHE_BYTES: usize = 16 << 20;

/// A quarter of the size of etcd's segments: what is not recycled has to be written with zeros
/// first, and a young store should be small. Under the heaviest load two or three are filled between
/// checkpoints, which release them; they are kept for reuse.
const WAL: wal::Options = wal::Options {
    segment_bytes: 16_000_000,
    spare_segments: 4,
};

/// Bytes of page file that redb keeps in memory, for commits and scans: single rows are read past it.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Bytes of a second at which a received snapshot is written at most.
const FILL_RATE: Option<NonZeroU64> = NonZeroU64::new(256 << 20);

/// Bytes of a second at which a checkpoint is written, unless there is much of it.
const COMMIT_RATE: Option<NonZeroU64> = NonZeroU64::new(200 << 20);

/// A member whose threads run.
pub(super) struct Started {
    pub(super) handle: Handle,
    pub(super) inbox: Arc<Inbox>,
    pub(super) peers: Peers,
    pub(super) ended: oneshot::Receiver<Result<Ended, Fatal>>,
    pub(super) lock: Box<dyn DiskLock>,
    pub(super) hub: AbortOnDropHandle<()>,
}

/// Starts a member that meets the others at `peer_listeners`.
pub(super) async fn start(
    config: &Config,
    peer_listeners: Vec<Listener>,
    certificates: &Info,
    metrics: &Arc<Metrics>,
) -> Result<Started, Error> {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    let disk: Arc<dyn Disk> = if config.unsafe_no_fsync {
        Arc::new(UnsyncedDisk::new(RealDisk))
    } else {
        Arc::new(RealDisk)
    };
    let via = Via::new(local_address(config), members_info(config, certificates));
    let via = via.map_err(|source| Error::Tls {
        what: "peer".to_owned(),
        source,
    })?;
    let restarted = has_log(config, &disk)?;
    let origin = match restarted {
        true => logged(config),
        false => origin::find(config, &via).await?,
    };
    let options = bootstrap_options(config, origin, nanos);
    let restored = tokio::task::spawn_blocking({
        let (disk, options) = (Arc::clone(&disk), options.clone());
        move || {
            warn_about_mode(&options.data_dir);
            bootstrap::restore(&disk, &options)
        }
    });
    let Restored {
        driver,
        state,
        wal,
        ballots,
        lock,
    } = restored.await.map_err(|_| Error::Panicked("restore"))??;
    if state.members().is_removed(state.member_id()) {
        return Err(Error::Removed);
    }

    let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let ids = Arc::new(RequestIds::new(state.member_id(), unix_ms));
    let (cluster_id, member_id) = (state.cluster_id(), state.member_id());
    metrics.set_member_id(member_id);
    let (member, published) = Member::new(driver, state, member_options(config), Arc::clone(&ids));

    let tokens = member.tokens();
    let (lessor, reads, clock) = (member.lessor(), member.reads(), Clock::start());
    let inbox = Arc::new(Inbox::default());
    let page_path = bootstrap::page_path(&options);
    let peering = Arc::new(Peering::new(
        Arc::clone(&inbox),
        Arc::clone(&published),
        Arc::clone(&reads),
        Place {
            disk: Arc::clone(&disk),
            page_path: page_path.clone(),
            options: page::Options {
                fill_rate: FILL_RATE,
                ..options.page
            },
            cluster_id,
            member_id,
        },
    ));
    let (sockets, peers) = peer::start(
        peer::Options {
            peer_urls: strings(&config.advertise_peer_urls),
            election_timeout: config.election_timeout,
            session: nanos,
            via,
            release: config.release,
            ..peer::Options::new(cluster_id, member_id)
        },
        peer_listeners,
        Arc::clone(&peering) as _,
        Arc::clone(&peering) as _,
        Arc::clone(metrics),
    );
    peering.speaks_through(peers.clone());
    let limits = Limits {
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(config.max_txn_ops).unwrap_or(usize::MAX),
        quota: quota(config),
        request_timeout: config.request_timeout(),
    };
    let max_message = grpc::max_message_bytes(limits.max_request_bytes);
    let hub = Arc::new(Hub::new(
        Arc::clone(&published),
        watch::Limits::new(max_message),
    ));
    let tokens = Tokens::new(&config.auth_token, tokens)?;
    let hub_task = AbortOnDropHandle::new(tokio::spawn(Watching::run(Arc::clone(&hub))));
    let handle = Handle::new(Inner {
        cluster_id,
        member_id,
        published: Arc::clone(&published),
        inbox: Arc::clone(&inbox),
        ids,
        lessor,
        tokens,
        hashing: Hashing::new(config.bcrypt_cost),
        reads,
        clock,
        limits,
        features: config.features.clone(),
        paused: Running::default(),
        metrics: Arc::clone(metrics),
        watching: Watching::new(hub, config.watch_progress_notify_interval),
        readers: Readers::default(),
        page_path: page_path.clone(),
        peers: Some(peers.clone()),
    });
    peering.answers(handle.downgrade());
    if restarted && config.features.is_on(Feature::InitialCorruptCheck) {
        corruption::initial_check(&handle).await?;
    }
    let thread = shell::start(shell::Parts {
        member,
        published,
        wal,
        ballots,
        disk,
        page_path,
        transport: Box::new(sockets),
        inbox: Arc::clone(&inbox),
        metrics: Arc::clone(metrics),
        clock,
        heartbeat: config.heartbeat_interval,
        hand_over_patience: config.request_timeout(),
        compaction_pause: config.compaction_sleep_interval,
        slow_apply: config.warning_apply_duration,
    })
    .map_err(Error::Thread)?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("member-end".to_owned())
        .spawn(move || {
            // A panic is reported by dropping `end`.
            if let Ok(result) = thread.join() {
                let _nobody = end.send(result);
            }
        })
        .map_err(Error::Thread)?;
    refresh_at_scrape(metrics, &handle);
    Ok(Started {
        handle,
        inbox,
        peers,
        ended,
        lock,
        hub: hub_task,
    })
}

pub(super) fn quota(config: &Config) -> Quota {
    Quota {
        bytes: config.quota_backend_bytes,
    }
}

/// Whether the member has run before: only its log counts then.
fn has_log(config: &Config, disk: &Arc<dyn Disk>) -> Result<bool, bootstrap::Error> {
    let wal_dir = config.wal_path();
    let exists = wal::Wal::exists(disk.as_ref(), &wal_dir);
    exists.map_err(|source| bootstrap::Error::Dir {
        path: wal_dir,
        source,
    })
}

/// A member with a log starts from nothing else, and does not look at flags like `--initial-cluster`
/// any more.
fn logged(config: &Config) -> Origin {
    if config.discovery.is_some() {
        tracing::warn!(
            "wal-dir" = %config.wal_path().display(),
            "discovery token is ignored since cluster already initialized; valid logs are found"
        );
    }
    Origin::New {
        name: config.name.clone(),
        members: BTreeMap::new(),
        token: String::new(),
    }
}

fn bootstrap_options(config: &Config, origin: Origin, seed: u64) -> bootstrap::Options {
    bootstrap::Options {
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        origin,
        election_ticks: usize::try_from(config.election_ticks()).unwrap_or(usize::MAX),
        pre_vote: config.pre_vote,
        seed,
        page: page::Options {
            cache_bytes: PAGE_CACHE_BYTES,
            commit_rate: COMMIT_RATE,
            ..page::Options::default()
        },
        wal: WAL,
        entry_cache_bytes: ENTRY_CACHE_BYTES,
        force_new_cluster: config.force_new_cluster,
        defrag_threshold: config.bootstrap_defrag_threshold,
        release: config.release,
    }
}

fn member_options(config: &Config) -> member::Options {
    let ticks = |time: Duration| {
        let ticks = time.as_millis() / config.heartbeat_interval.as_millis().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
    };
    member::Options {
        request_ticks: ticks(config.request_timeout()),
        election_ticks: config.election_ticks(),
        checkpoint_ticks: ticks(CHECKPOINT_INTERVAL),
        checkpoint: Policy {
            remove_rows: usize::try_from(config.compaction_batch_limit).unwrap_or(usize::MAX),
            ..Policy::default()
        },
        snapshot_count: config.snapshot_count,
        catchup_entries: config.snapshot_catchup_entries,
        max_learners: usize::try_from(config.max_learners).unwrap_or(0),
        strict_reconfig_check: config.strict_reconfig_check,
        urgent_revocations: config.features.is_on(Feature::PriorityRequest),
        quota: quota(config),
        name: config.name.clone(),
        client_urls: strings(&config.advertise_client_urls),
        release: config.release,
        version_ticks: ticks(VERSION_INTERVAL),
        downgrade_check_ticks: match config.downgrade_check_time {
            Duration::ZERO => 0,
            time => ticks(time),
        },
        lessor: lessor::Options {
            election_timeout: config.election_timeout,
            min_ttl: lessor::Options::min_ttl(config.election_ticks(), config.heartbeat_interval),
            retry: config.request_timeout(),
            checkpoint_interval: config
                .features
                .is_on(Feature::LeaseCheckpoint)
                .then_some(LEASE_CHECKPOINT_INTERVAL),
        },
        token_ttl: config.auth_token_ttl,
    }
}

/// The certificates for connections to other members. Members that DNS names show certificates for the
/// domain, if the system's authorities are all that is trusted.
fn members_info(config: &Config, info: &Info) -> Info {
    let domain = config.discovery_srv.as_ref().map(|srv| srv.domain.clone());
    Info {
        server_name: domain.filter(|_| info.trusted_ca_file.is_none()),
        ..info.clone()
    }
}

/// Where connections to other members come from: the first advertised peer address that others can
/// know, with [`Feature::SetMemberLocalAddr`]. Names are not resolved, as in etcd.
fn local_address(config: &Config) -> Option<IpAddr> {
    if !config.features.is_on(Feature::SetMemberLocalAddr) {
        return None;
    }
    let urls = strings(&config.advertise_peer_urls);
    tracing::info!(
        "advertise-peer-urls" = ?urls,
        "searching for a suitable member local address in AdvertisePeerURLs"
    );
    let addresses = config.advertise_peer_urls.iter();
    let local = addresses
        .filter_map(|url| url.host().parse::<IpAddr>().ok())
        .find(|address| !address.is_loopback() && !address.is_unspecified());
    match local {
        Some(local) => tracing::info!(LocalAddr = %local, "setting member local address"),
        None => tracing::warn!(
            "advertise-peer-urls" = ?urls,
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
    local
}

/// etcd's advice: nobody but the server's user should see the data.
fn warn_about_mode(data_dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(metadata) = std::fs::metadata(data_dir) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o777;
    if mode != 0o700 {
        tracing::warn!(
            dir = %data_dir.display(),
            permission = format!("{mode:o}"),
            recommended = "700",
            "the data directory's permission is wider than recommended"
        );
    }
}

/// Gauges whose values live in the published state.
fn refresh_at_scrape(metrics: &Metrics, handle: &Handle) {
    let handle = handle.downgrade();
    metrics.on_scrape(move |metrics| {
        let Some(handle) = handle.upgrade() else {
            return;
        };
        handle.measure(metrics);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Url;

    #[test]
    fn the_first_address_that_others_can_know() {
        let local = |on: bool, urls: &[&str]| {
            let mut config = Config {
                advertise_peer_urls: urls.iter().map(|url| Url::parse(url).unwrap()).collect(),
                ..Config::default()
            };
            config.features.set(Feature::SetMemberLocalAddr, on);
            local_address(&config)
        };
        let urls = [
            "http://name.example:2380",
            "http://127.0.0.1:2380",
            "http://0.0.0.0:2380",
            "http://[::1]:2380",
            "http://[fd00::1]:2380",
            "http://192.0.2.7:2380",
        ];
        assert_eq!(local(false, &urls), None);
        assert_eq!(local(true, &urls), Some("fd00::1".parse().unwrap()));
        assert_eq!(local(true, &urls[5..]), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(local(true, &urls[..4]), None);
    }
}
