//! Long work lets the threads that serve clients go first.
//!
//! A thread that woke up for a client waits until the one that has the processor has used up its slice,
//! which is a millisecond and more, and several such waits make up a put. A thread that works for
//! seconds gives its slice up every 100 us or so. Where nobody waits, that costs nothing; and nothing of
//! what is computed depends on it.

/// Pieces of work of some microseconds each between two occasions.
const PIECES: u32 = 16;

/// Counts the work.
#[derive(Default, Debug)]
pub(crate) struct Courtesy(u32);

impl Courtesy {
    /// A row or a page is done.
    pub(crate) fn worked(&mut self) {
        self.0 += 1;
        if self.0 == PIECES {
            self.0 = 0;
            std::thread::yield_now();
        }
    }
}
