//! The program: configuration, log, signals, and one member between them.

use std::process::ExitCode;

use ferrite_api::Version;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Outcome};
use crate::logging;
use crate::server::{Error, OriginError, Server};

/// Runs one member as the command line and the environment say, until a signal or a failure ends it.
pub fn run() -> ExitCode {
    run_as(Version::RELEASE)
}

/// As [`run`], for a program that is of another version: what it tells others, and the newest storage
/// schema that it knows. For tests that need members of the version before.
pub fn run_as(release: Version) -> ExitCode {
    let mut loaded = match config::load(std::env::args_os(), std::env::vars_os()) {
        Outcome::Run(loaded) => loaded,
        Outcome::Exit(exit) => {
            if let Err(error) = logging::init(&logging::Options::default()) {
                eprintln!("etcd: {error}");
            }
            return exit.finish();
        }
    };
    loaded.config.release = release;
    if let Err(error) = logging::init(&loaded.config.log) {
        eprintln!("etcd: {error}");
        return ExitCode::FAILURE;
    }
    for note in &loaded.notes {
        note.emit();
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Whoever has set it knows better.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(workers());
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    if loaded.config.memory_mlock
        && let Err(error) = lock_memory()
    {
        tracing::error!("zap.level" = "fatal", %error, "cannot lock the memory of the process");
        return ExitCode::FAILURE;
    }
    match runtime.block_on(serve(loaded.config)) {
        Ok(End::Signal(signal)) => end_by(signal),
        Ok(End::NotStarted) => ExitCode::FAILURE,
        // As etcd: there is nothing to restart.
        Err(Error::Removed) => {
            tracing::warn!(
                "{}; the data-dir used by this member must be removed",
                Error::Removed
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(%error, "etcd failed");
            ExitCode::FAILURE
        }
    }
}

/// The lines that etcd ends in when it cannot start, whatever the reason, after what may be missing.
fn explain(error: &Error, config: &config::Config) {
    if let (Error::Origin(OriginError::Discovery(_)), Some(discovery)) = (error, &config.discovery)
    {
        tracing::warn!(
            "discovery-token" = discovery.token,
            "discovery-endpoints" = ?discovery.endpoints,
            %error,
            "failed to bootstrap; discovery token was already used"
        );
        tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
        return;
    }
    let hints = match error {
        Error::Origin(origin) => origin.hints(config),
        _ => Vec::new(),
    };
    for hint in hints {
        tracing::warn!("{hint}");
    }
    tracing::error!("zap.level" = "fatal", %error, "discovery failed");
}

/// Threads that serve clients: one processor is for the member's own thread, which every write waits for.
/// More of them than find work wake each other for nothing: of two, on two processors, a tenth to a quarter
/// of a call's time was spent so, with few clients or many (ARCHITECTURE.md, "What a lone writer costs").
/// What takes long does not run on them.
fn workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.saturating_sub(1).max(1)
}

/// How a member that has not failed while it ran came to its end.
enum End {
    /// A signal has asked for it.
    Signal(SignalKind),
    /// It could not start; the log says why.
    NotStarted,
}

/// Runs until a signal asks to stop.
async fn serve(config: config::Config) -> Result<End, Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Thread)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Thread)?;
    // What others use these for (to reopen a log file, say) is no reason to end; etcd ignores them, too.
    for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // Once there is a listener, the signal does nothing else, even when that is gone.
        drop(signal(ignored).map_err(Error::Thread)?);
    }
    let starting = Server::start(config.clone());
    let started = tokio::select! {
        started = starting => started,
        _ = interrupt.recv() => return Ok(End::Signal(SignalKind::interrupt())),
        _ = terminate.recv() => return Ok(End::Signal(SignalKind::terminate())),
    };
    let mut server = match started {
        Ok(server) => server,
        Err(Error::Removed) => return Err(Error::Removed),
        Err(error) => {
            explain(&error, &config);
            return Ok(End::NotStarted);
        }
    };
    notify(NotifyState::Ready);
    let (received, name) = tokio::select! {
        error = server.ended() => {
            if matches!(error, Error::Removed) {
                server.leave().await;
            }
            return Err(error);
        }
        _ = interrupt.recv() => (SignalKind::interrupt(), "interrupt"),
        _ = terminate.recv() => (SignalKind::terminate(), "terminated"),
    };
    tracing::info!(signal = name, "received signal; shutting down");
    notify(NotifyState::Stopping);
    server.stop().await?;
    Ok(End::Signal(received))
}

/// Tells the service manager, if one wants to know.
fn notify(state: NotifyState<'_>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tracing::info!(%state, "notifying init daemon");
    match sd_notify::notify(&[state]) {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(error) => tracing::error!(%error, "failed to notify systemd for readiness"),
    }
}

/// Keeps every page of the process in memory from its first use on.
fn lock_memory() -> std::io::Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    Ok(mlockall(
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT,
    )?)
}

/// Ends the process as the signal would have: that is what supervisors look at. The first process
/// of a container ends with 0, as etcd's does.
fn end_by(signal: SignalKind) -> ExitCode {
    if std::process::id() == 1 {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = signal_hook::low_level::emulate_default_handler(signal.as_raw_value()) {
        tracing::error!(%error, "cannot end by the signal");
    }
    ExitCode::FAILURE
}
