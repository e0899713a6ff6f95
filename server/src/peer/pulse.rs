//! Whether the peer at the other end of a stream is alive.
//!
//! A connection to a machine that has vanished looks like any other for many minutes. So the dialing
//! side sends heartbeats, and the other echoes them: both learn that all of the way works. Behind a
//! long queue an echo may take its time; then it counts that the peer takes what is sent.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::socket::Socket;

/// Time between heartbeats on a stream. The other side takes silence for a dead connection, and so
/// does this one when no echo comes.
const HEARTBEAT: Duration = Duration::from_millis(1600);

/// How long a heartbeat may go without an echo while nothing else shows that the peer takes something.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// Whether a peer is alive, by heartbeats and their echoes.
pub(super) struct Pulse {
    pub(super) timer: Interval,
    /// When the oldest heartbeat without an echo was sent, or the peer has taken something since.
    waiting: Option<Instant>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let mut timer = interval(HEARTBEAT);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            timer,
            waiting: None,
        }
    }

    /// A heartbeat was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// The peer has made room by taking something.
    pub(super) fn taken(&mut self, now: Instant) {
        if let Some(waiting) = &mut self.waiting {
            *waiting = now;
        }
    }

    /// Whether the peer has shown nothing for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.waiting.is_some_and(|since| now - since > SILENCE)
    }

    /// Reads echoes; nothing else comes on this side of a stream.
    pub(super) fn listen(&mut self, socket: &Socket) -> io::Result<()> {
        let mut echoes = [0; 256];
        match socket.try_read(&mut echoes) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer has ended it",
            )),
            Ok(_) => {
                self.waiting = None;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_oldest_heartbeat_without_an_echo() {
        let mut pulse = Pulse::new();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert!(!pulse.is_silent(after(60)));
        pulse.sent(begin);
        pulse.sent(after(2));
        assert!(!pulse.is_silent(after(5)));
        assert!(pulse.is_silent(after(6)));
        pulse.taken(after(4));
        assert!(!pulse.is_silent(after(9)));
        assert!(pulse.is_silent(after(10)));
        // Nothing is asked: nothing is late.
        pulse.waiting = None;
        pulse.taken(after(12));
        assert!(!pulse.is_silent(after(60)));
    }
}
