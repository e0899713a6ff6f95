//! How a client is set up.

use std::fmt;
use std::time::Duration;

use crate::endpoint::Target;
use crate::{Error, Tls, retry};

/// Go clients may send this much unless told otherwise; just above the server's own limit.
const DEFAULT_MAX_SEND_BYTES: usize = 2 << 20;
/// The most that one gRPC message can be.
const DEFAULT_MAX_RECEIVE_BYTES: usize = i32::MAX as usize;
/// Servers answer faster pings by closing the connection.
const MIN_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// What no log shall show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A user who logs in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

/// Endpoints and options of a [`Client`](crate::Client).
///
/// ```
/// use std::time::Duration;
/// use ferrite_client::Config;
///
/// let config = Config::new(["http://127.0.0.1:2379", "unix:///run/etcd.sock"])
///     .dial_timeout(Duration::from_secs(3))
///     .keepalive(Duration::from_secs(10), Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// `host:port`, `http://host:port`, `unix:path` or `unix:///path`, and with TLS `https` and `unixs`. At
    /// least one.
    pub endpoints: Vec<String>,
    /// TLS for the endpoints that are not plainly `http`: those that ask for it by their scheme, and those
    /// of forms that leave it open. Default `None`: [`TlsOptions::default`](crate::TlsOptions) for the
    /// former, none for the latter.
    pub tls: Option<Tls>,
    /// Bounds one attempt to connect, name resolution included. Default 20 s, as in gRPC.
    pub dial_timeout: Duration,
    /// An HTTP/2 ping goes out after this long without traffic while calls are open; below 10 s
    /// is raised to 10 s, because servers refuse more. `None` sends no pings. Default 30 s.
    ///
    /// Deviation: etcd's client sends none by default, and so hangs for minutes on a dead peer.
    pub keepalive_interval: Option<Duration>,
    /// A ping unanswered for this long closes the connection. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Pings also while no call is open. Default no.
    pub keepalive_while_idle: bool,
    /// Largest request that is sent, in bytes; `None` is 2 MiB.
    pub max_send_bytes: Option<usize>,
    /// Largest response that is accepted, in bytes; `None` is 2,147,483,647.
    pub max_receive_bytes: Option<usize>,
    /// Attempts of one call whose failure is known to be safe to repeat. Default 100.
    pub max_attempts: u32,
    /// Pause after each round of attempts over a quorum of the endpoints, ±10 %. Default 25 ms.
    pub retry_interval: Duration,
    /// Pause after a failed connection attempt; grows by the factor 1.6, ±20 %, up to
    /// [`Config::max_reconnect_backoff`]. Default 1 s.
    pub reconnect_backoff: Duration,
    /// Longest pause between two connection attempts to one endpoint. Default 120 s.
    pub max_reconnect_backoff: Duration,
    /// How often the endpoints are brought up to date with the members of the cluster, as by
    /// [`Client::sync`](crate::Client::sync). Default `None`: never.
    pub auto_sync: Option<Duration>,
    /// Whether [`Client::connect`](crate::Client::connect) asks every endpoint for its version and
    /// fails if one is older than 3.6. Default no.
    pub reject_old_cluster: bool,
    /// The user who makes the calls. [`Client::connect`](crate::Client::connect) logs in, within
    /// [`Config::dial_timeout`]; the client does so again when the cluster does not know its token any
    /// more, and before each stream. Default `None`: nobody.
    pub user: Option<User>,
    /// A token that is sent as it is with each call, instead of a user's. Default `None`.
    pub token: Option<Secret>,
}

impl Config {
    /// The given endpoints and default options.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            dial_timeout: Duration::from_secs(20),
            keepalive_interval: Some(Duration::from_secs(30)),
            keepalive_timeout: Duration::from_secs(10),
            keepalive_while_idle: false,
            max_send_bytes: None,
            max_receive_bytes: None,
            max_attempts: retry::MAX_ATTEMPTS,
            retry_interval: retry::INTERVAL,
            reconnect_backoff: Duration::from_secs(1),
            max_reconnect_backoff: Duration::from_secs(120),
            auto_sync: None,
            reject_old_cluster: false,
            user: None,
            token: None,
        }
    }

    /// Sets [`Config::tls`].
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets [`Config::dial_timeout`].
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.dial_timeout = timeout;
        self
    }

    /// Sets [`Config::keepalive_interval`] and [`Config::keepalive_timeout`].
    #[must_use]
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = Some(interval);
        self.keepalive_timeout = timeout;
        self
    }

    /// Sends no HTTP/2 pings.
    #[must_use]
    pub fn without_keepalive(mut self) -> Self {
        self.keepalive_interval = None;
        self
    }

    /// Sets [`Config::max_send_bytes`].
    #[must_use]
    pub fn max_send_bytes(mut self, bytes: usize) -> Self {
        self.max_send_bytes = Some(bytes);
        self
    }

    /// Sets [`Config::max_receive_bytes`].
    #[must_use]
    pub fn max_receive_bytes(mut self, bytes: usize) -> Self {
        self.max_receive_bytes = Some(bytes);
        self
    }

    /// Sets [`Config::max_attempts`]; 0 counts as 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets [`Config::reconnect_backoff`] and [`Config::max_reconnect_backoff`].
    #[must_use]
    pub fn reconnect_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.reconnect_backoff = first;
        self.max_reconnect_backoff = max;
        self
    }

    /// Sets [`Config::auto_sync`]; zero is never.
    #[must_use]
    pub fn auto_sync(mut self, interval: Duration) -> Self {
        self.auto_sync = (!interval.is_zero()).then_some(interval);
        self
    }

    /// Sets [`Config::reject_old_cluster`].
    #[must_use]
    pub fn reject_old_cluster(mut self) -> Self {
        self.reject_old_cluster = true;
        self
    }

    /// Sets [`Config::user`].
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.user = Some(User {
            name: name.into(),
            password: password.into(),
        });
        self
    }

    /// Sets [`Config::token`].
    #[must_use]
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub(crate) fn send_limit(&self) -> usize {
        self.max_send_bytes.unwrap_or(DEFAULT_MAX_SEND_BYTES)
    }

    pub(crate) fn receive_limit(&self) -> usize {
        self.max_receive_bytes.unwrap_or(DEFAULT_MAX_RECEIVE_BYTES)
    }

    pub(crate) fn ping_interval(&self) -> Option<Duration> {
        self.keepalive_interval
            .map(|interval| interval.max(MIN_KEEPALIVE_INTERVAL))
    }

    /// Everything that can be refused without a packet.
    pub(crate) fn check(&self) -> Result<Vec<Target>, Error> {
        if self.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        // Only an explicit send limit is compared: a small receive limit alone is allowed.
        if let (Some(send), Some(receive)) = (self.max_send_bytes, self.max_receive_bytes)
            && send > receive
        {
            return Err(Error::InvalidConfig(format!(
                "gRPC message recv limit ({receive} bytes) must be greater than send limit ({send} bytes)"
            )));
        }
        self.endpoints
            .iter()
            .map(|endpoint| Target::parse(endpoint))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_configurations_are_refused() {
        let none: [&str; 0] = [];
        let error = Config::new(none).check().expect_err("no endpoints");
        assert_eq!(error.to_string(), "etcdclient: no available endpoints");

        let error = Config::new(["a:1"])
            .max_send_bytes(20)
            .max_receive_bytes(10)
            .check()
            .expect_err("limits");
        assert_eq!(
            error.to_string(),
            "gRPC message recv limit (10 bytes) must be greater than send limit (20 bytes)"
        );
        let small = Config::new(["a:1"]).max_receive_bytes(10);
        assert_eq!(small.check().expect("allowed").len(), 1);
    }

    #[test]
    fn pings_are_never_faster_than_servers_allow() {
        let config = Config::new(["a:1"]).keepalive(Duration::from_secs(2), Duration::from_secs(6));
        assert_eq!(config.ping_interval(), Some(Duration::from_secs(10)));
        assert_eq!(
            Config::new(["a:1"]).without_keepalive().ping_interval(),
            None
        );
    }
}
