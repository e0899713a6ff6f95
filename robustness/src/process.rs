//! A real server process: started, killed, stopped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ferrite_client::Client;

/// How long a server may take until it serves; far more than it needs.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A server of one member. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    binary: PathBuf,
    dir: PathBuf,
    client_port: u16,
    peer_port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Process {
    /// A server that is not running yet: `binary` with its data and log under `dir`.
    ///
    /// # Errors
    /// No free port could be found.
    pub fn new(binary: &Path, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        Ok(Self {
            binary: binary.to_path_buf(),
            dir: dir.to_path_buf(),
            client_port: free_port()?,
            peer_port: free_port()?,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        })
    }

    /// The binary that the workspace's tests have built beside this one.
    ///
    /// # Errors
    /// It is not there.
    pub fn built_beside_tests() -> anyhow::Result<PathBuf> {
        let own = std::env::current_exe()?;
        let profile = own
            .parent()
            .and_then(Path::parent)
            .context("the test binary has a folder")?;
        let binary = profile.join("etcd");
        if !binary.exists() {
            bail!(
                "{} is missing: run `cargo build -p ferrite-server` first",
                binary.display()
            );
        }
        Ok(binary)
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

    /// Where the server's log goes.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// The client endpoint.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Starts the process and waits until it serves.
    ///
    /// # Errors
    /// It does not start or does not serve in time; the end of its log is in the message.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let child = Command::new(&self.binary)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        self.child = Some(child);
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
        let mut child = self.child.take().context("the server does not run")?;
        let pid = i32::try_from(child.id())?;
        let pid = rustix::process::Pid::from_raw(pid).context("a child has a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        child.wait()?;
        Ok(())
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

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
