//! A lease that is kept alive for as long as a program takes part in something.

use std::future::pending;
use std::time::Duration;

use ferrite_api::types::LeaseId;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Client, Error};

/// Seconds, as in etcd's clients.
const DEFAULT_TTL: i64 = 60;

/// How a [`Session`] is opened.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    ttl: i64,
    lease: Option<LeaseId>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            ttl: DEFAULT_TTL,
            lease: None,
        }
    }
}

impl SessionOptions {
    /// A new lease of 60 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Seconds that the session outlives this process. Values below 1 are ignored, as in etcd's
    /// clients. Default 60.
    #[must_use]
    pub fn ttl(mut self, seconds: i64) -> Self {
        if seconds > 0 {
            self.ttl = seconds;
        }
        self
    }

    /// Keeps this lease alive instead of a new one: to go on with a session of before.
    #[must_use]
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }
}

/// Presence: a lease that is renewed until the session is closed or dropped, or is lost.
///
/// ```no_run
/// # use ferrite_client::{Client, Error};
/// # use ferrite_client::concurrency::{Session, SessionOptions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let session = Session::open(&client, SessionOptions::new().ttl(10)).await?;
/// tokio::select! {
///     () = work() => {}
///     error = session.done() => println!("the session is lost: {error}"),
/// }
/// session.close().await
/// # }
/// # async fn work() {}
/// ```
///
/// Dropping it only stops the renewal: locks and leaderships last until the lease expires.
#[derive(Debug)]
pub struct Session {
    client: Client,
    lease: LeaseId,
    ttl: Duration,
    ended: watch::Receiver<Option<Error>>,
    renewal: AbortHandle,
}

impl Session {
    /// Grants the lease, unless one is given, and begins to renew it.
    ///
    /// # Errors
    ///
    /// The grant's. That a given lease does not exist is told by [`Session::done`].
    pub async fn open(client: &Client, options: SessionOptions) -> Result<Session, Error> {
        let leases = client.leases();
        let lease = match options.lease {
            Some(lease) => lease,
            None => LeaseId::new(leases.grant(options.ttl).await?.id),
        };
        let (sender, ended) = watch::channel(None);
        let mut renewals = leases.keep_alive(lease);
        let task = tokio::spawn(async move {
            let error = loop {
                if let Err(error) = renewals.next().await {
                    break error;
                }
            };
            // Nobody may be waiting.
            sender.send_replace(Some(error));
        });
        Ok(Session {
            client: client.clone(),
            lease,
            ttl: Duration::from_secs(options.ttl.unsigned_abs()),
            ended,
            renewal: task.abort_handle(),
        })
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Waits until the session is lost, and tells why.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn done(&self) -> Error {
        match ended(self.ended.clone()).await {
            Some(error) => error,
            // Renewal only stops when the session is dropped, which is borrowed here.
            None => pending().await,
        }
    }

    /// Whether the session is lost.
    pub fn is_done(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Stops the renewal and leaves the lease to expire, with all that hangs on it.
    pub fn orphan(self) {}

    /// Ends the lease: everything attached to it is deleted now.
    ///
    /// # Errors
    ///
    /// The revocation's; after the lease's time to live it is given up, for the lease has expired
    /// by itself then.
    pub async fn close(self) -> Result<(), Error> {
        self.renewal.abort();
        let client = self.client.with_timeout(self.ttl);
        client.leases().revoke(self.lease).await.map(drop)
    }

    /// What recipes need of a session.
    pub(super) fn member(&self) -> Member {
        Member {
            client: self.client.clone(),
            lease: self.lease,
            ended: self.ended.clone(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// A recipe's view of a session.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) client: Client,
    pub(super) lease: LeaseId,
    ended: watch::Receiver<Option<Error>>,
}

impl Member {
    /// Waits until the session is lost or dropped.
    pub(super) async fn lost(&self) {
        let _ = ended(self.ended.clone()).await;
    }
}

/// Why the session ended; `None` if it was dropped.
async fn ended(mut receiver: watch::Receiver<Option<Error>>) -> Option<Error> {
    let ended = receiver.wait_for(Option::is_some).await.ok()?;
    ended.clone()
}
