//! Global flags, the environment, and the client they describe.

use std::time::{Duration, Instant};

use ferrite_client::{Client, Config, Error, Tls, TlsOptions, User};
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Flags, Matches};
use crate::context::Context;
use crate::discovery;
use crate::failure::{Exit, Failure};
use crate::go::quote::quote;
use crate::log::{self, RetryWarnings, Value};
use crate::print::{self, Printer};

const PREFIX: &str = "ETCDCTL_";
/// Variables that stand in for arguments of `watch`.
const FOR_WATCH: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// Everything a command needs to make calls and show answers.
pub(crate) struct Session {
    runtime: Runtime,
    /// Discovered, or as given.
    pub(crate) endpoints: Vec<String>,
    /// As given: what `endpoint` and `defrag` ask.
    pub(crate) given_endpoints: Vec<String>,
    /// `endpoint --cluster`.
    pub(crate) whole_cluster: bool,
    pub(crate) printer: Box<dyn Printer>,
    /// Whether `--command-timeout` was given, on the command line or by the environment.
    pub(crate) timeout_given: bool,
    config: Config,
    timeout: Timeout,
}

/// `--command-timeout`.
///
/// Deviation kept from etcd: most commands fix their deadline *before* the environment is read,
/// so `ETCDCTL_COMMAND_TIMEOUT` only counts for those that do so later.
#[derive(Clone, Copy)]
pub(crate) struct Timeout(Duration);

impl Timeout {
    pub(crate) fn of(flags: &Flags) -> Self {
        let nanos = u64::try_from(flags.duration("command-timeout")).unwrap_or(0);
        Timeout(Duration::from_nanos(nanos))
    }

    /// The deadline of a command that starts now.
    pub(crate) fn deadline(self) -> Instant {
        Instant::now() + self.0
    }
}

impl Session {
    /// Applies the environment to the flags, refuses what is not supported, and prepares the
    /// client. Nothing is sent.
    pub(crate) fn open(context: &mut Context, matches: &Matches) -> Result<Session, Failure> {
        Session::on(Builder::new_current_thread(), context, matches)
    }

    /// As [`Session::open`], for more work than one processor can do.
    pub(crate) fn open_parallel(
        context: &mut Context,
        matches: &Matches,
    ) -> Result<Session, Failure> {
        Session::on(Builder::new_multi_thread(), context, matches)
    }

    fn on(
        mut runtime: Builder,
        context: &mut Context,
        matches: &Matches,
    ) -> Result<Session, Failure> {
        let mut flags = GlobalFlags::read(context, matches)?;
        if flags.0.switch("debug") {
            for (name, _, value) in flags.0.inherited() {
                context.error_line(format!("{}={value}", variable(name)))?;
            }
        }
        flags.refuse_nameless()?;
        let format = flags.0.text("write-out");
        let printer = print::for_format(&format, flags.0.switch("hex"))
            .ok_or_else(|| Failure::new(Exit::BadFeature, "unsupported output format"))?;
        let level = context
            .environment
            .iter()
            .find(|(name, _)| name == b"ETCD_CLIENT_DEBUG")
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let runtime = runtime
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Error, error))?;
        let given_endpoints = flags.0.list("endpoints");
        let discovered = runtime.block_on(discover(context, &flags.0))?;
        let endpoints = match discovered.is_empty() {
            true => given_endpoints.clone(),
            false => discovered,
        };
        let tls = flags.tls()?;
        RetryWarnings::install(&endpoints, &level.unwrap_or_default());
        Ok(Session {
            runtime,
            config: flags.config(context, &endpoints, tls)?,
            timeout: Timeout::of(&flags.0),
            timeout_given: flags.0.changed("command-timeout"),
            whole_cluster: flags.0.declares("cluster") && flags.0.switch("cluster"),
            endpoints,
            given_endpoints,
            printer,
        })
    }

    /// A client of all endpoints.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let mut endpoints: Vec<&str> = self.endpoints.iter().map(|each| each.trim()).collect();
        // What a comma too many leaves is nothing to a client that has others.
        if endpoints.iter().any(|endpoint| !endpoint.is_empty()) {
            endpoints.retain(|endpoint| !endpoint.is_empty());
        }
        self.connect(endpoints)
            .map_err(|error| Failure::new(Exit::BadConnection, error))
    }

    /// A client of this endpoint only.
    pub(crate) fn client_of(&self, endpoint: &str) -> Result<Client, Failure> {
        self.connect([endpoint])
            .map_err(|error| Failure::new(Exit::BadConnection, error))
    }

    /// As [`Session::client_of`], of another cluster: with this TLS, and calls are made by this user, if by
    /// any.
    pub(crate) fn client_elsewhere(
        &self,
        endpoint: &str,
        user: Option<User>,
        tls: Option<Tls>,
    ) -> Result<Client, Failure> {
        let mut config = self.config.clone();
        config.endpoints = vec![endpoint.to_owned()];
        (config.user, config.token) = (user, None);
        config.tls = tls;
        self.run(Client::connect(config))
            .map_err(|error| Failure::new(Exit::BadConnection, error))
    }

    /// A client of these endpoints, with the settings of the command line.
    pub(crate) fn connect<'a>(
        &self,
        endpoints: impl IntoIterator<Item = &'a str>,
    ) -> Result<Client, Error> {
        let mut config = self.config.clone();
        config.endpoints = endpoints.into_iter().map(str::to_owned).collect();
        self.runtime.block_on(Client::connect(config))
    }

    /// Asks one endpoint something, with the command timeout from now on.
    pub(crate) fn ask<T>(
        &self,
        endpoint: &str,
        call: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = self.timeout.deadline();
        let client = self.connect([endpoint])?.with_deadline(deadline);
        self.run(call(client))
    }

    /// The command timeout with the environment applied.
    pub(crate) fn timeout(&self) -> Timeout {
        self.timeout
    }

    /// Runs calls to their end.
    pub(crate) fn run<T>(&self, calls: impl Future<Output = T>) -> T {
        self.runtime.block_on(calls)
    }
}

/// The user of `--user`, whose password may be there, behind a colon, or has to be asked for.
pub(crate) fn credentials(
    context: &mut Context,
    prompt: &str,
    user: &str,
    password: String,
) -> Result<User, Failure> {
    let (name, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password),
        Some((name, password)) => (name, password.to_owned()),
        None => (user, context.ask_secretly(prompt)?),
    };
    Ok(User {
        name: name.to_owned(),
        password: password.into(),
    })
}

/// What `--discovery-srv` finds; nothing without the flag.
async fn discover(context: &mut Context, flags: &Flags) -> Result<Vec<String>, Failure> {
    let domain = flags.text("discovery-srv");
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = discovery::endpoints(&domain, &flags.text("discovery-srv-name"))
        .await
        .map_err(|reason| Failure::new(Exit::Error, reason))?;
    if !flags.switch("insecure-discovery") {
        for insecure in found.extract_if(.., |endpoint| endpoint.starts_with("http://")) {
            let shown = quote(&insecure);
            context.error_line(format!("ignoring discovered insecure endpoint {shown}"))?;
        }
    }
    Ok(found)
}

/// Files as flags name them: empty for none.
pub(crate) fn tls_options(cert: &str, key: &str, cacert: &str, server_name: &str) -> TlsOptions {
    let file = |name: &str| (!name.is_empty()).then(|| name.into());
    TlsOptions {
        ca_file: file(cacert),
        cert_file: file(cert),
        key_file: file(key),
        server_name: (!server_name.is_empty()).then(|| server_name.to_owned()),
        insecure_skip_verify: false,
    }
}

/// TLS, unless nothing asks for it.
pub(crate) fn tls(options: TlsOptions, insecure_transport: bool) -> Result<Option<Tls>, Failure> {
    let asked = options.ca_file.is_some()
        || options.cert_file.is_some()
        || options.key_file.is_some()
        || options.server_name.is_some()
        || options.insecure_skip_verify
        || !insecure_transport;
    match asked {
        true => options.load().map(Some).map_err(Failure::bad_args),
        false => Ok(None),
    }
}

/// The variable of a flag.
fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// The flags of a command with the environment applied.
struct GlobalFlags(Flags);

impl GlobalFlags {
    /// A variable counts unless its flag was given; both is an error. Unknown variables are
    /// worth a warning, values that cannot be read are not.
    fn read(context: &mut Context, matches: &Matches) -> Result<GlobalFlags, Failure> {
        let mut flags = Flags::of(&matches.chain);
        flags.copy_values(&matches.flags);
        let mut given = Vec::new();
        let mut used = Vec::new();
        for (name, changed, _) in flags.inherited() {
            let variable = variable(name).into_bytes();
            if changed {
                given.push(variable);
                continue;
            }
            let value = context.environment.iter().find(|(key, _)| *key == variable);
            if let Some((_, value)) = value
                && !value.is_empty()
            {
                let _ = flags.set(name, value);
                used.push(variable);
            }
        }
        let caller = [("caller", "etcdctl/session.rs")];
        let for_watch = matches.chain.command().name == "watch";
        for (name, value) in context.environment.clone() {
            if used.contains(&name) {
                continue;
            }
            let shown = String::from_utf8_lossy(&name).into_owned();
            if given.contains(&name) {
                let line = log::line(
                    "fatal",
                    &caller,
                    "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))",
                    &[("environment-variable", Value::Text(&shown))],
                );
                context.error_line(line)?;
                return Err(Failure::silent(Exit::Error));
            }
            let known = for_watch && FOR_WATCH.contains(&shown.as_str());
            if shown.starts_with(PREFIX) && !known {
                let pair = format!("{shown}={}", String::from_utf8_lossy(&value));
                let line = log::line(
                    "warn",
                    &caller,
                    "unrecognized environment variable",
                    &[("environment-variable", Value::Text(&pair))],
                );
                context.error_line(line)?;
            }
        }
        Ok(GlobalFlags(flags))
    }

    /// A file that has no name is a slip.
    fn refuse_nameless(&mut self) -> Result<(), Failure> {
        let flags = &self.0;
        for name in ["cert", "key", "cacert"] {
            if flags.changed(name) && flags.text(name).is_empty() {
                let message = format!("empty string is passed to --{name} option");
                return Err(Failure::bad_args(message));
            }
        }
        Ok(())
    }

    /// TLS, if a flag asks for it; endpoints may do so themselves.
    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let domain = match self.0.switch("insecure-discovery") {
            true => String::new(),
            false => self.0.text("discovery-srv"),
        };
        let files = ["cert", "key", "cacert"].map(|name| self.0.text(name));
        let [cert, key, cacert] = &files;
        let options = TlsOptions {
            insecure_skip_verify: self.0.switch("insecure-skip-tls-verify"),
            ..tls_options(cert, key, cacert, &domain)
        };
        tls(options, self.0.switch("insecure-transport"))
    }

    fn config(
        &self,
        context: &mut Context,
        endpoints: &[String],
        tls: Option<Tls>,
    ) -> Result<Config, Failure> {
        let positive = |name: &str| usize::try_from(self.0.int(name)).ok().filter(|&n| n > 0);
        let time =
            |name: &str| Duration::from_nanos(u64::try_from(self.0.duration(name)).unwrap_or(0));
        let mut config = Config::new(endpoints.iter().cloned());
        config.tls = tls;
        let interval = time("keepalive-time");
        config.keepalive_interval = (!interval.is_zero()).then_some(interval);
        config.keepalive_timeout = time("keepalive-timeout");
        config.max_send_bytes = positive("max-request-bytes");
        config.max_receive_bytes = positive("max-recv-bytes");
        let (user, token) = (self.0.text("user"), self.0.text("auth-jwt-token"));
        if !token.is_empty() {
            config.token = Some(token.into());
        } else if !user.is_empty() {
            let user = credentials(context, "Password: ", &user, self.0.text("password"))?;
            config.user = Some(user);
            // It is all that bounds the login, and nothing else.
            config.dial_timeout = time("dial-timeout");
        }
        Ok(config)
    }
}
