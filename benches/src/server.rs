//! Servers as child processes: started on loopback ports with data of their own, killed on drop.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use crate::proc::Sample;

/// How long a server may take from exec until it reports itself healthy. Generous: a real etcd
/// with a million keys needs tens of seconds after a kill.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Pause between two looks at a starting server.
const POLL: Duration = Duration::from_millis(5);
/// Patience with one health answer.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of a server's log an error shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// Every child that runs, so that a signal handler can end them too.
#[derive(Clone, Default, Debug)]
pub struct Children(Arc<Mutex<Running>>);

#[derive(Default, Debug)]
struct Running {
    children: Vec<Arc<Mutex<Child>>>,
    /// Set for good by [`Children::close`].
    closed: bool,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, command: &mut Command) -> anyhow::Result<Arc<Mutex<Child>>> {
        let mut running = self.lock();
        ensure!(!running.closed, "interrupted");
        let child = Arc::new(Mutex::new(command.spawn()?));
        running.children.push(Arc::clone(&child));
        Ok(child)
    }

    fn forget(&self, child: &Arc<Mutex<Child>>) {
        self.lock()
            .children
            .retain(|other| !Arc::ptr_eq(other, child));
    }

    /// Kills all children, waits for their end, and refuses to start any more. Whoever measures
    /// them gets errors, and cleans up.
    pub fn close(&self) {
        let mut running = self.lock();
        running.closed = true;
        for child in &running.children {
            kill(child);
        }
    }
}

/// SIGKILL, by handle: a child that already ended and was waited for is left alone.
fn kill(child: &Mutex<Child>) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    // Both fail only when the child is gone, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The server binary.
    pub path: PathBuf,
    /// Flags beside the addresses and the data directory.
    pub flags: Vec<String>,
    /// Where data directories are made.
    pub work_dir: PathBuf,
}

impl Program {
    /// Checks that the binary is there and starts.
    ///
    /// # Errors
    /// It does not; the message names it.
    pub fn check(&self) -> anyhow::Result<String> {
        let path = self.path.display();
        ensure!(self.path.is_file(), "no server binary at {path}");
        let output = Command::new(&self.path)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot start {path}"))?;
        ensure!(
            output.status.success(),
            "{path} --version failed: {}",
            output.status
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or("no version").to_owned())
    }
}

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    child: Option<Arc<Mutex<Child>>>,
}

/// A cluster of one or more servers of one program. Dropping it kills them and removes their data.
pub struct Cluster {
    program: Program,
    members: Vec<Member>,
    directory: TempDir,
    children: Children,
}

impl Cluster {
    /// Starts `members` fresh servers and waits until each is healthy.
    ///
    /// # Errors
    /// One does not start, ends, or is not healthy in time; the end of its log is shown.
    pub fn start(
        program: &Program,
        members: usize,
        children: &Children,
    ) -> anyhow::Result<Cluster> {
        let directory = tempfile::Builder::new()
            .prefix("side-by-side-")
            .tempdir_in(&program.work_dir)
            .context("cannot make a data directory")?;
        let ports = free_ports(2 * members)?;
        let members = ports
            .chunks(2)
            .enumerate()
            .map(|(number, ports)| Member {
                name: format!("m{number}"),
                client: ports[0],
                peer: ports[1],
                child: None,
            })
            .collect();
        let mut cluster = Cluster {
            program: program.clone(),
            members,
            directory,
            children: children.clone(),
        };
        cluster.exec()?;
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Client addresses, `host:port`.
    pub fn endpoints(&self) -> Vec<String> {
        self.members
            .iter()
            .map(|member| member.client.to_string())
            .collect()
    }

    /// The sum over all members.
    ///
    /// # Errors
    /// A member has ended.
    pub fn sample(&self) -> anyhow::Result<Sample> {
        self.members
            .iter()
            .try_fold(Sample::default(), |sum, member| {
                let child = member.child.as_ref().context("no process")?;
                let pid = child.lock().unwrap_or_else(PoisonError::into_inner).id();
                let sample = Sample::of(pid).with_context(|| self.died(member))?;
                Ok(sum.plus(sample))
            })
    }

    /// SIGKILL for every member; their data stays.
    pub fn kill(&mut self) {
        for member in &mut self.members {
            if let Some(child) = member.child.take() {
                kill(&child);
                self.children.forget(&child);
            }
        }
    }

    /// Starts every member that does not run, on the data that is there. Does not wait.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn exec(&mut self) -> anyhow::Result<()> {
        let initial_cluster: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://{}", m.name, m.peer))
            .collect();
        let initial_cluster = initial_cluster.join(",");
        for member in &mut self.members {
            if member.child.is_some() {
                continue;
            }
            let log = File::options()
                .create(true)
                .append(true)
                .open(log_path(self.directory.path(), &member.name))?;
            let (client, peer) = (
                format!("http://{}", member.client),
                format!("http://{}", member.peer),
            );
            let mut command = Command::new(&self.program.path);
            command
                .arg("--name")
                .arg(&member.name)
                .arg("--data-dir")
                .arg(self.directory.path().join(&member.name))
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
                .args(["--initial-cluster", &initial_cluster])
                .args(&self.program.flags)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            let child = self.children.spawn(&mut command);
            let child =
                child.with_context(|| format!("cannot start {}", self.program.path.display()))?;
            member.child = Some(child);
        }
        Ok(())
    }

    /// Waits until every member reports itself healthy.
    ///
    /// # Errors
    /// One ends or is not healthy in time.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for member in &self.members {
            while !healthy(member.client) {
                self.check_running(member)?;
                ensure!(
                    Instant::now() < deadline,
                    "{} is not healthy after {READY_WITHIN:?}{}",
                    self.program.path.display(),
                    self.log_tail(member)
                );
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Fails if a member has ended.
    ///
    /// # Errors
    /// A member has ended; the end of its log is shown.
    pub fn check_all_running(&self) -> anyhow::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| self.check_running(member))
    }

    fn check_running(&self, member: &Member) -> anyhow::Result<()> {
        let child = member.child.as_ref().context("no process")?;
        match child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_wait()?
        {
            None => Ok(()),
            Some(status) => bail!("{} ({status})", self.died(member)),
        }
    }

    fn died(&self, member: &Member) -> String {
        format!(
            "{} ended by itself{}",
            self.program.path.display(),
            self.log_tail(member)
        )
    }

    fn log_tail(&self, member: &Member) -> String {
        let log = std::fs::read(log_path(self.directory.path(), &member.name)).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        format!("; the end of its log:\n{}", String::from_utf8_lossy(tail))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// Loopback ports that were free a moment ago. All are held until all are known, so they differ.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    Ok(listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?)
}

/// Whether `GET /health` answers `"health":"true"`.
fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&address, HEALTH_TIMEOUT)?;
        socket.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        let request =
            format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(r#""health":"true""#))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &str) -> Program {
        Program {
            path: path.into(),
            flags: Vec::new(),
            work_dir: std::env::temp_dir(),
        }
    }

    #[test]
    fn a_missing_binary_is_named() {
        let error = program("/nowhere/etcd").check().unwrap_err();
        assert_eq!(error.to_string(), "no server binary at /nowhere/etcd");
    }

    #[test]
    fn a_server_that_ends_at_once_is_an_error_and_leaves_no_child() {
        let children = Children::default();
        let error = Cluster::start(&program("/bin/false"), 1, &children)
            .err()
            .unwrap();
        assert!(error.to_string().contains("ended by itself"), "{error:#}");
        assert!(children.lock().children.is_empty());
    }

    #[test]
    fn closing_kills_what_runs_and_starts_nothing_more() {
        let children = Children::default();
        let mut command = Command::new("sleep");
        let child = children.spawn(command.arg("600")).unwrap();
        children.close();
        let status = child.lock().unwrap().try_wait().unwrap();
        assert!(status.is_some_and(|status| !status.success()), "{status:?}");
        assert_eq!(
            children.spawn(&mut command).unwrap_err().to_string(),
            "interrupted"
        );
    }

    #[test]
    fn ports_differ() {
        let mut ports = free_ports(8).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    #[test]
    fn only_a_healthy_answer_is_healthy() {
        for (body, expected) in [
            (r#"{"health":"true","reason":""}"#, true),
            (r#"{"health":"false","reason":"RAFT NO LEADER"}"#, false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).unwrap();
                write!(socket, "HTTP/1.1 200 OK\r\n\r\n{body}").unwrap();
            });
            assert_eq!(healthy(address), expected);
            server.join().unwrap();
        }
    }
}
