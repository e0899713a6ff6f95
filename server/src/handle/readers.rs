//! The threads that read rows: few, and no client ever holds one.
//!
//! Work that reads more than a handful of rows leaves the async workers. A piece of work runs on one
//! of a few threads; the rest waits in order. A long answer is many pieces of work: its reader
//! fetches at most [`AHEAD`] pieces more than the client has taken, then waits without a thread. So a
//! thousand clients that do not read cost a thousand times these pieces and no thread, and one
//! that does is not kept waiting by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::error::Error;

/// Pieces of an answer that are read before the client asks for them. They are read again when one is
/// left, several in a row: to begin costs two changes of the thread.
pub(crate) const AHEAD: usize = 4;

/// As many are read ahead when all answers together have [`PLENTY`].
pub(crate) const FEW: usize = 2;

/// Bytes of all answers that are read ahead, see [`FEW`].
pub(crate) const PLENTY: u64 = 16 << 20;

/// The length of a piece, in bytes, unless a single pair is longer. With [`FEW`] the memory of a
/// slow client, when there are many.
pub(crate) const PIECE: usize = 128 * 1024;

/// How long a reader keeps what it holds of the store: its index root is exchanged for a newer one
/// after this time, and given up, with the pin that holds compaction off, when the client has taken
/// nothing for as long.
const HOLD: Duration = Duration::from_secs(10);

/// Threads at least and at most: as many as there are cores. More of them only wait for each other:
/// what is read comes from the system's cache mostly, through redb's, whose locks they share.
const THREADS: (usize, usize) = (2, 16);

/// The threads, as whoever has work sees them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    threads: Arc<Semaphore>,
    /// Bytes that were read and that no client has taken.
    ahead: Arc<AtomicU64>,
}

/// Something that is read in pieces.
pub(super) trait Source: Send + 'static {
    type Piece: Send + Sized;

    /// The next piece; `None` at the end. Blocks.
    fn next(&mut self) -> Option<Result<Self::Piece, Error>>;

    /// Exchanges what it holds of an old state of the store for the newest, if it can.
    fn renew(&mut self);

    /// Gives up what it holds of the store. The next piece may not be there any more.
    fn rest(&mut self);

    fn len(piece: &Self::Piece) -> usize;
}

impl Default for Readers {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = cores.clamp(THREADS.0, THREADS.1);
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            ahead: Arc::default(),
        }
    }
}

impl Readers {
    /// Runs work on one of the threads.
    ///
    /// Cancel safety: work that has begun runs to its end.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let threads = Arc::clone(&self.threads);
        let permit = threads.acquire_owned().await.expect("never closed");
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a read panicked");
            Err(panicked())
        })
    }

    /// Bytes that were read and that no client has taken.
    pub(super) fn bytes_ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Begins to read. Ends by itself soon after the receiver is dropped.
    pub(super) fn read_ahead<S: Source>(&self, source: S) -> Pieces<S::Piece> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(feed(self.clone(), source, sender));
        Pieces { receiver }
    }
}

/// What has been read ahead.
#[derive(Debug)]
pub(super) struct Pieces<P> {
    receiver: mpsc::Receiver<Result<Taken<P>, Error>>,
}

impl<P> Pieces<P> {
    /// The next piece; `None` at the end.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<P, Error>> {
        Some(self.receiver.recv().await?.map(|taken| taken.piece))
    }
}

/// The reader's end of the channel to the client.
type Sender<S> = mpsc::Sender<Result<Taken<<S as Source>::Piece>, Error>>;

/// A piece on its way from the reader to the client.
#[derive(Debug)]
struct Taken<P> {
    piece: P,
    _counted: Counted,
}

/// Bytes counted in [`Readers::ahead`] while this lives.
#[derive(Debug)]
struct Counted {
    bytes: u64,
    ahead: Arc<AtomicU64>,
}

impl Counted {
    fn new(bytes: usize, ahead: &Arc<AtomicU64>) -> Self {
        let bytes = bytes as u64;
        ahead.fetch_add(bytes, Ordering::Relaxed);
        Self {
            bytes,
            ahead: Arc::clone(ahead),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.ahead.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads whenever the client has taken something, until the end or until the client has left.
async fn feed<S: Source>(readers: Readers, mut source: S, mut sender: Sender<S>) {
    let mut renewed = Instant::now();
    loop {
        let room = match timeout(HOLD, sender.reserve_many(AHEAD - 1)).await {
            Ok(room) => room.is_ok(),
            Err(_) => {
                source.rest();
                sender.reserve_many(AHEAD - 1).await.is_ok()
            }
        };
        if !room {
            return;
        }
        if renewed.elapsed() > HOLD {
            renewed = Instant::now();
            source.renew();
        }
        let ahead = Arc::clone(&readers.ahead);
        let work = move || Ok(fill(source, sender, &ahead));
        match readers.run(work).await {
            Ok(Some(left)) => (source, sender) = left,
            // At its end, or it panicked: whoever waits sees the channel closed too early.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Reads as far ahead as it may. Returns what is needed to go on, unless that was the end.
fn fill<S: Source>(
    mut source: S,
    sender: Sender<S>,
    ahead: &Arc<AtomicU64>,
) -> Option<(S, Sender<S>)> {
    loop {
        let waiting = sender.max_capacity() - sender.capacity();
        if waiting >= FEW && ahead.load(Ordering::Relaxed) >= PLENTY {
            break;
        }
        let Ok(room) = sender.try_reserve() else {
            break;
        };
        match source.next()? {
            Ok(piece) => {
                let counted = Counted::new(S::len(&piece), ahead);
                room.send(Ok(Taken {
                    piece,
                    _counted: counted,
                }));
            }
            Err(error) => {
                room.send(Err(error));
                return None;
            }
        }
    }
    // Enough, or the client has left, which `feed` finds out.
    Some((source, sender))
}

/// The end of a read whose reader panicked.
pub(super) fn panicked() -> Error {
    Error::status(Code::Internal, "the read failed; see the server's log")
}
