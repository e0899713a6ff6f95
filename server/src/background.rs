//! Threads for long work that clients must not notice.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// The least that Linux gives a thread of the ordinary kind.
const NICENESS: i32 = 19;

/// Runs `work` on a thread of its own, which gets the processor when nothing else wants it; so do the
/// threads that it starts. Nothing comes if it panics.
///
/// # Errors
/// The system has no further thread.
pub(crate) fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (result, done) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Where it is not allowed, the work is done all the same.
            let _nicer = rustix::process::nice(NICENESS);
            let _gone = result.send(work());
        })?;
    Ok(done)
}
