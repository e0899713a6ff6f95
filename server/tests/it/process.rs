//! The `etcd` program: how it refuses bad input, and how it ends.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn etcd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A port that nobody listens on. Not one that the system gives away: until a server listens there,
/// somebody's connection could have it.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 5_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    let mut ports = (0..COUNT).map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        FIRST + own.wrapping_mul(13).wrapping_add(next) % COUNT
    });
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a port is free")
}

/// A member with its data in `dir`, on free ports.
fn member(dir: &Path) -> (Command, u16) {
    let (client, peer) = (free_port(), free_port());
    let (client_url, peer_url) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = etcd();
    command
        .arg("--data-dir")
        .arg(dir)
        .args([
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
        ])
        .args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ])
        .args(["--initial-cluster", &format!("default={peer_url}")]);
    (command, client)
}

/// A running child that does not outlive the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a member whose log goes to a file, and waits until the log says that it serves.
    fn start(dir: &Path) -> (Self, u16, std::path::PathBuf) {
        let (mut command, port) = member(&dir.join("data"));
        let log = dir.join("log");
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let begun = std::fs::read_to_string(&log).unwrap().len();
        let mut running = Running(command.stderr(file).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text[begun..].contains("serving client traffic") {
                return (running, port, log);
            }
            assert!(running.0.try_wait().unwrap().is_none(), "it ended: {text}");
            assert!(Instant::now() < deadline, "it does not serve: {text}");
            std::thread::yield_now();
        }
    }

    fn signal(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
        self.0.wait().unwrap()
    }
}

/// Runs to the end; a member that starts after all is a failure, not a hang.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program runs although its input is bad");
        }
        std::thread::yield_now();
    }
    child.wait_with_output().unwrap()
}

/// The lines of the log at error level or above: there must be exactly one, and it says `text`.
pub(crate) fn assert_one_error(output: &Output, text: &str) {
    let log = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = log
        .lines()
        .filter(|line| {
            ["error", "fatal", "panic"]
                .iter()
                .any(|level| line.contains(&format!(r#""level":"{level}""#)))
        })
        .collect();
    assert_eq!(errors.len(), 1, "one line says it: {log}");
    assert!(
        errors[0].contains(text),
        "{} does not say {text:?}",
        errors[0]
    );
    assert!(!output.status.success());
}

#[test]
fn unknown_flag_exits_2_with_its_name() {
    let output = run(etcd().arg("--no-such-flag"));
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.starts_with("flag provided but not defined: -no-such-flag\n"),
        "{error}"
    );
}

#[test]
fn bad_url_is_named() {
    let output = run(etcd().args(["--listen-client-urls", "http://127.0.0.1"]));
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains(r#"URL address does not have the form "host:port""#),
        "{error}"
    );
    let output = run(etcd().args(["--listen-client-urls", "http://example.com:2379"]));
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("expected IP in URL for binding"), "{error}");
}

#[test]
fn flags_of_parts_that_are_not_built_are_refused_by_name() {
    for (flag, value) in [
        ("--discovery-user", "name"),
        ("--discovery-password", "secret"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = run(etcd().arg("--data-dir").arg(dir.path()).args([flag, value]));
        assert!(!output.status.success(), "{flag}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.contains(flag.trim_start_matches('-')),
            "{flag}: {error}"
        );
        assert!(error.contains("not built yet"), "{flag}: {error}");
    }
}

/// `a4`: what is wrong with the kind of tokens, as etcd says it.
#[test]
fn a4_tokens_that_cannot_be_made_are_refused() {
    for (options, text) in [
        ("jwt", "auth: invalid auth options"),
        ("other", "auth: invalid auth options"),
        ("jwt,sign-method", "auth: invalid auth options"),
        ("jwt,ttl=1s,ttl=2s", "auth: invalid auth options"),
        ("jwt,sign-method=RS256", "auth: missing key data"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut command, _) = member(&dir.path().join("data"));
        let output = run(command.args(["--auth-token", options]));
        assert!(!output.status.success(), "{options}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(text), "{options}: {error}");
    }
}

#[test]
fn data_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_running, _, _) = Running::start(dir.path());
    let (mut second, _) = member(&dir.path().join("data"));
    assert_one_error(&run(&mut second), "is in use by another process");
}

#[test]
fn port_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut command, port) = member(&dir.path().join("data"));
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_one_error(
        &run(&mut command),
        &format!("listen http://127.0.0.1:{port}"),
    );
}

#[test]
fn a_port_can_be_shared_by_those_who_want_to() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, port) = member(&dir.path().join("one"));
    first.arg("--socket-reuse-port");
    let log = dir.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let _first = Running(first.stderr(file).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&log)
        .unwrap()
        .contains("serving client traffic")
    {
        assert!(Instant::now() < deadline, "it does not serve");
        std::thread::yield_now();
    }
    let url = format!("http://127.0.0.1:{port}");
    let urls = [
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ];
    // Whoever does not ask for it is refused.
    let (mut second, _) = member(&dir.path().join("two"));
    assert_one_error(&run(second.args(urls)), &format!("listen {url}"));
    let shared = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    );
    let shared = shared.unwrap();
    rustix::net::sockopt::set_socket_reuseport(&shared, true).unwrap();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    rustix::net::bind(&shared, &address).unwrap();
}

#[test]
fn data_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "not a directory").unwrap();
    let (mut command, _) = member(&path);
    assert_one_error(&run(&mut command), "cannot use");

    // A directory without permissions stops everybody but root, who may run these tests.
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(closed.join("probe"), "").is_err() {
        let (mut command, _) = member(&closed);
        assert_one_error(&run(&mut command), "Permission denied");
    }
}

#[test]
fn directory_written_by_etcd_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = dir.path().join("data/member/wal");
    std::fs::create_dir_all(&wal).unwrap();
    std::fs::write(wal.join("0000000000000000-0000000000000000.wal"), [0u8; 64]).unwrap();
    let (mut command, _) = member(&dir.path().join("data"));
    assert_one_error(&run(&mut command), "was written by etcd");
}

#[test]
fn corruption_in_the_log_names_segment_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (mut running, _, _) = Running::start(dir.path());
    running.signal(rustix::process::Signal::KILL);
    // The head of the segment is synced by everything that came after it.
    let wal = dir.path().join("data/member/wal/0000000000000001.wal");
    let mut bytes = Vec::new();
    std::fs::File::open(&wal)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes[512 + 40] ^= 1;
    std::fs::write(&wal, bytes).unwrap();
    let (mut command, _) = member(&dir.path().join("data"));
    let output = run(&mut command);
    assert_one_error(&output, "segment 1");
    assert_one_error(&output, "offset 512");
}

#[test]
fn signals_end_the_process_as_they_should() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let (mut running, _, log) = Running::start(dir.path());
        let status = running.signal(signal);
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("received signal; shutting down"), "{log}");
        assert!(!log.contains(r#""level":"error""#), "{log}");
    }
}

#[test]
fn version_and_help_succeed() {
    let output = run(etcd().arg("--version"));
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("etcd Version: 3.7.1\n"), "{text}");
    assert!(text.contains("Ferrite"), "{text}");
    let output = run(etcd().arg("--help"));
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--data-dir"));
}

#[test]
fn the_service_manager_is_told_when_it_serves_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let minute = Some(Duration::from_secs(60));
    manager.set_read_timeout(minute).unwrap();
    let (mut command, _) = member(&dir.path().join("data"));
    command.env("NOTIFY_SOCKET", &socket);
    let mut running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    let hear = || {
        let mut message = [0; 100];
        let length = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1\n");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(hear(), "STOPPING=1\n");
}
