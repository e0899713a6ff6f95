//! A real server process: started, killed, stopped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ferrite_client::Client;

/// How long a server may take until it serves; far more than it needs.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A server: one of its own, or a member of a cluster. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    binary: PathBuf,
    dir: PathBuf,
    name: String,
    host: String,
    client_port: u16,
    peer_port: u16,
    /// What it is told of the cluster that it begins in.
    cluster: Option<Cluster>,
    /// The network namespace in which it runs, if not this process's own.
    namespace: Option<String>,
    args: Vec<String>,
    child: Option<Child>,
}

#[derive(Debug)]
struct Cluster {
    initial: String,
    state: &'static str,
}

impl Process {
    /// A server that is not running yet: `binary` with its data and log under `dir`. It is a cluster
    /// of its own unless told otherwise.
    ///
    /// # Errors
    /// No free port could be found.
    pub fn new(binary: &Path, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        Ok(Self {
            binary: binary.to_path_buf(),
            dir: dir.to_path_buf(),
            name: "default".to_owned(),
            host: "127.0.0.1".to_owned(),
            client_port: free_port()?,
            peer_port: free_port()?,
            cluster: None,
            namespace: None,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        })
    }

    /// Gives it a name of its own.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Places it at `host`, in the network namespace `namespace`.
    #[must_use]
    pub fn placed(mut self, host: &str, namespace: &str) -> Self {
        host.clone_into(&mut self.host);
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Tells it the members of the cluster that begins with it.
    pub fn begins(&mut self, initial_cluster: &str) {
        self.cluster = Some(Cluster {
            initial: initial_cluster.to_owned(),
            state: "new",
        });
    }

    /// Tells it the members of the cluster that it joins, with itself among them.
    pub fn joins(&mut self, initial_cluster: &str) {
        self.cluster = Some(Cluster {
            initial: initial_cluster.to_owned(),
            state: "existing",
        });
    }

    /// The server that the workspace's tests have built beside this one.
    ///
    /// # Errors
    /// It is not there.
    pub fn built_beside_tests() -> anyhow::Result<PathBuf> {
        Self::program_beside_tests("etcd", "ferrite-server")
    }

    /// The program of this name, of this package, that the workspace's tests have built beside this one.
    ///
    /// # Errors
    /// It is not there.
    pub fn program_beside_tests(name: &str, package: &str) -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let profile = own
            .parent()
            .and_then(Path::parent)
            .context("the test binary has a folder")?;
        let binary = profile.join(name);
        if !binary.exists() {
            bail!(
                "{} is missing: run `cargo build -p {package}` first",
                binary.display()
            );
        }
        Ok(binary)
    }

    /// From the next start on it is another program. Returns which it was.
    pub fn becomes(&mut self, binary: &Path) -> PathBuf {
        std::mem::replace(&mut self.binary, binary.to_path_buf())
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The process id.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let child = self.child.as_ref().context("the server does not run")?;
        Ok(child.id())
    }

    /// Whether it was started, and neither killed nor stopped since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the other members reach it.
    pub fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.peer_port)
    }

    /// Its place in `--initial-cluster`.
    pub fn introduction(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// Where the server's log goes.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The client endpoint.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Errors
    /// It does not start or does not serve in time; the end of its log is in the message.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        self.serves().await
    }

    /// Starts the process.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let client = format!("http://{}:{}", self.host, self.client_port);
        let peer = self.peer_url();
        let (initial, state) = match &self.cluster {
            Some(cluster) => (cluster.initial.clone(), cluster.state),
            None => (self.introduction(), "new"),
        };
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                // It replaces itself by the server, so the process id is the server's.
                command.args(["netns", "exec", namespace]).arg(&self.binary);
                command
            }
            None => Command::new(&self.binary),
        };
        let child = command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial])
            .args(["--initial-cluster-state", state])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until a process that was launched serves: it has found a leader, and has applied what
    /// was acknowledged before this call.
    ///
    /// # Errors
    /// It does not serve in time; the end of its log is in the message.
    pub async fn serves(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        let config = ferrite_client::Config::new([self.endpoint()])
            .reconnect_backoff(Duration::from_millis(5), Duration::from_millis(50));
        let client = Client::connect(config)
            .await?
            .with_timeout(Duration::from_secs(1));
        loop {
            if client.get("ready", Default::default()).await.is_ok() {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(5).collect();
                bail!("the server does not serve (exit: {ended:?}); newest log lines: {tail:#?}");
            }
            tokio::task::yield_now().await;
        }
    }

    /// Kills the process: SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops the process in order: SIGTERM.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.terminate()?.wait()?;
        Ok(())
    }

    /// Stops the process in order and returns when it has ended. Other tasks go on meanwhile.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stopped(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.terminate()?;
        Ok(tokio::task::spawn_blocking(move || child.wait()).await??)
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// It does not.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let child = self.child.as_mut().context("the server does not run")?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the server does not end by itself");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How often the log says any of `texts`.
    pub fn says(&self, texts: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        texts.iter().map(|text| log.matches(text).count()).sum()
    }

    fn terminate(&mut self) -> anyhow::Result<Child> {
        let child = self.child.take().context("the server does not run")?;
        let pid = i32::try_from(child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a child has a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        Ok(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill()
        {
            eprintln!("cannot kill the server: {error}");
        }
    }
}

/// A port that nobody listens on. Not one that the system would give away: a server that is down
/// for a while would find it taken by somebody's connection, perhaps one that was meant for it.
fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 16_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % u32::from(COUNT))?.wrapping_mul(61);
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(own);
        let port = FIRST + next % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}
