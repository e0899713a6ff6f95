//! Which of the connections from a peer counts: the newest.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The sessions of one sender. Each connection is one, and has a higher number than those before it,
/// over restarts of the sender, too.
///
/// Of an older session than the newest that was seen nothing is taken, not even what has arrived
/// already: so what a sender writes on a new connection is never overtaken by what was left of an
/// old one.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    // Held while messages are delivered, so that a session that has begun has ended the older one.
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    session: u64,
    connected: bool,
    end: CancellationToken,
}

impl Sessions {
    /// Begins a session and ends the one before. The token says when it has to end.
    ///
    /// # Errors
    /// The newest session that was seen, when this one is not newer.
    pub(super) fn begin(&self, session: u64) -> Result<CancellationToken, u64> {
        let mut newest = self.newest.lock();
        if session <= newest.session {
            return Err(newest.session);
        }
        newest.end.cancel();
        *newest = Newest {
            session,
            connected: true,
            end: CancellationToken::new(),
        };
        Ok(newest.end.clone())
    }

    /// Takes something from a session if it is still the newest.
    pub(super) fn take<R>(&self, session: u64, take: impl FnOnce() -> R) -> Option<R> {
        let newest = self.newest.lock();
        (newest.session == session).then(take)
    }

    /// A session is over. Returns whether it was the newest.
    pub(super) fn ended(&self, session: u64) -> bool {
        let mut newest = self.newest.lock();
        let was_newest = newest.session == session;
        if was_newest {
            newest.connected = false;
        }
        was_newest
    }

    /// Whether the newest session goes on.
    pub(super) fn is_connected(&self) -> bool {
        self.newest.lock().connected
    }

    /// The newest session that was seen, 0 before the first.
    pub(super) fn newest(&self) -> u64 {
        self.newest.lock().session
    }

    /// Ends the session, and begins none any more.
    pub(super) fn close(&self) {
        let mut newest = self.newest.lock();
        newest.session = u64::MAX;
        newest.connected = false;
        newest.end.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_session_ends_the_older() {
        let sessions = Sessions::default();
        let five = sessions.begin(5).unwrap();
        assert_eq!(sessions.take(5, || ()), Some(()));
        assert_eq!(sessions.begin(5).unwrap_err(), 5);
        assert_eq!(sessions.begin(4).unwrap_err(), 5);
        assert!(!five.is_cancelled());
        let six = sessions.begin(6).unwrap();
        assert!(five.is_cancelled());
        assert_eq!(sessions.take(5, || ()), None);
        assert!(!sessions.ended(5));
        assert!(sessions.is_connected());
        assert!(sessions.ended(6));
        assert!(!sessions.is_connected());
        assert!(!six.is_cancelled());
        // An old one stays old.
        assert_eq!(sessions.begin(6).unwrap_err(), 6);
    }

    #[test]
    fn a_closed_one_takes_nothing() {
        let sessions = Sessions::default();
        let one = sessions.begin(1).unwrap();
        sessions.close();
        assert!(one.is_cancelled());
        assert_eq!(sessions.take(1, || ()), None);
        assert!(sessions.begin(u64::MAX).is_err());
    }
}
