//! The way from many request tasks to the one member thread.

use std::time::Instant;

use ferrite_api::types::MemberId;
use parking_lot::{Condvar, Mutex};

use super::Waiter;
use crate::member::{Input, Reply};
use crate::peer::Message;

/// Inputs that may wait for the member thread. Beyond it clients are told that there are too many
/// requests: the thread has then been busy for far longer than a sync should take.
const CAPACITY: usize = 20_000;

/// What the member is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wanted {
    /// Serve.
    #[default]
    Serve,
    /// Serve, but not as leader.
    HandOver,
    /// Stop, once another member leads or nobody takes over.
    Stop,
}

/// Bytes of other members' messages that may wait for the member thread; one delivery may go beyond.
/// Raft sends again what is dropped.
const PEER_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct Queue {
    inputs: Vec<Input<Waiter>>,
    /// Bytes of other members' messages among them.
    peer_bytes: usize,
    wanted: Wanted,
    closed: bool,
}

impl Queue {
    fn take(&mut self, into: &mut Vec<Input<Waiter>>) -> Wanted {
        self.peer_bytes = 0;
        std::mem::swap(&mut self.inputs, into);
        self.wanted
    }
}

/// A bounded queue that hands over everything it holds at once.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    // Held to push or to swap the vector; never together with another lock.
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Inbox {
    /// Passes a client's input on.
    ///
    /// # Errors
    /// The input is given back with the reason, when the member has stopped or is overloaded.
    pub(crate) fn send(&self, input: Input<Waiter>) -> Result<(), ferrite_api::Error> {
        {
            let mut queue = self.queue.lock();
            if queue.closed || queue.wanted == Wanted::Stop {
                return Err(ferrite_api::Error::Stopped);
            }
            if queue.inputs.len() >= CAPACITY {
                return Err(ferrite_api::Error::RequestTooManyRequests);
            }
            queue.inputs.push(input);
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// Passes an input of the shell's own on: never refused for its number.
    pub(crate) fn report(&self, input: Input<Waiter>) {
        self.queue.lock().inputs.push(input);
        self.arrived.notify_one();
    }

    /// Passes messages of another member on. They are dropped if so many wait already that the thread
    /// cannot keep up: whether they were taken.
    pub(crate) fn deliver(&self, from: MemberId, messages: Vec<Message>) -> bool {
        let bytes: usize = messages.iter().map(Message::encoded_len).sum();
        {
            let mut queue = self.queue.lock();
            if queue.peer_bytes >= PEER_BYTES {
                return false;
            }
            queue.peer_bytes += bytes;
            queue.inputs.push(Input::Peer { from, messages });
        }
        self.arrived.notify_one();
        true
    }

    /// Asks the member for something, unless it was asked for more already.
    pub(crate) fn want(&self, wanted: Wanted) {
        let mut queue = self.queue.lock();
        queue.wanted = queue.wanted.max(wanted);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Whether the member has stopped.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Takes what is there, without waiting. Returns what the member is to do.
    pub(super) fn drain(&self, into: &mut Vec<Input<Waiter>>) -> Wanted {
        self.queue.lock().take(into)
    }

    /// Takes what is there, waiting until `deadline` for something, or for another wish than `known`.
    pub(super) fn wait(
        &self,
        deadline: Instant,
        known: Wanted,
        into: &mut Vec<Input<Waiter>>,
    ) -> Wanted {
        let mut queue = self.queue.lock();
        while queue.inputs.is_empty() && queue.wanted == known {
            if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        queue.take(into)
    }

    /// Ends the queue: whatever is in it, and whatever comes, is told that the member has stopped.
    pub(super) fn close(&self) {
        let left = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.inputs)
        };
        for input in left {
            if let Input::Propose { waiter, .. }
            | Input::AwaitCompaction { waiter, .. }
            | Input::Defragment { waiter, .. }
            | Input::ChangeMembers { waiter, .. }
            | Input::MoveLeader { waiter, .. }
            | Input::SnapshotOffered { waiter, .. }
            | Input::SnapshotReceived { waiter, .. }
            | Input::LeaseKeys { waiter, .. } = input
            {
                let _gone = waiter.send(Reply::Failed(ferrite_api::Error::Stopped.into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferrite_api::types::LeaseId;
    use tokio::sync::oneshot;

    use super::*;

    fn question() -> Input<Waiter> {
        let (waiter, _) = oneshot::channel();
        let id = LeaseId::new(1);
        Input::LeaseKeys { id, waiter }
    }

    /// The code of "too many requests" is UNKNOWN on the wire.
    #[test]
    fn s1_2_1_a_member_that_does_not_keep_up_refuses_more_until_it_does() {
        let inbox = Inbox::default();
        for _ in 0..CAPACITY {
            assert_eq!(inbox.send(question()), Ok(()));
        }
        let refusal = inbox.send(question()).unwrap_err();
        let status = tonic::Status::from(refusal);
        assert_eq!(
            (status.code(), status.message()),
            (tonic::Code::Unknown, "etcdserver: too many requests")
        );
        let mut taken = Vec::new();
        inbox.drain(&mut taken);
        assert_eq!(taken.len(), CAPACITY);
        assert_eq!(inbox.send(question()), Ok(()));
    }

    #[test]
    fn messages_of_peers_are_dropped_beyond_a_bound_until_the_member_takes_them() {
        let inbox = Inbox::default();
        let from = MemberId::new(2);
        let large = || vec![Message::Raft(Bytes::from(vec![0; PEER_BYTES / 2]))];
        assert!(inbox.deliver(from, large()));
        assert!(inbox.deliver(from, large()));
        assert!(!inbox.deliver(from, large()));
        assert_eq!(inbox.send(question()), Ok(()));
        let mut taken = Vec::new();
        inbox.drain(&mut taken);
        assert_eq!(taken.len(), 3);
        assert!(inbox.deliver(from, large()));
    }

    #[test]
    fn e2_6_a_stopped_member_says_so_to_those_who_wait_and_those_who_come() {
        let inbox = Inbox::default();
        let (waiter, mut answer) = oneshot::channel();
        let id = LeaseId::new(1);
        inbox.send(Input::LeaseKeys { id, waiter }).unwrap();
        inbox.close();
        let Reply::Failed(error) = answer.try_recv().unwrap() else {
            panic!("an answer of a member that has stopped");
        };
        assert_eq!(error, ferrite_api::Error::Stopped.into());
        assert_eq!(inbox.send(question()), Err(ferrite_api::Error::Stopped));
    }
}
