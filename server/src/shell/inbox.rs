//! The way from many request tasks to the one member thread.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::Waiter;
use crate::member::{Input, Reply};

/// Inputs that may wait for the member thread. Beyond it clients are told that there are too many
/// requests: the thread has then been busy for far longer than a sync should take.
const CAPACITY: usize = 20_000;

#[derive(Debug, Default)]
struct Queue {
    inputs: Vec<Input<Waiter>>,
    stopping: bool,
    closed: bool,
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
            if queue.closed || queue.stopping {
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

    /// Asks the member to stop.
    pub(crate) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.arrived.notify_one();
    }

    /// Whether the member has stopped.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }

    /// Takes what is there, without waiting. Returns whether the member is asked to stop.
    pub(super) fn drain(&self, into: &mut Vec<Input<Waiter>>) -> bool {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.inputs, into);
        queue.stopping
    }

    /// Takes what is there, waiting for something until `deadline`.
    pub(super) fn wait(&self, deadline: Instant, into: &mut Vec<Input<Waiter>>) -> bool {
        let mut queue = self.queue.lock();
        while queue.inputs.is_empty() && !queue.stopping {
            if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut queue.inputs, into);
        queue.stopping
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
            | Input::Read { waiter }
            | Input::AwaitCompaction { waiter, .. }
            | Input::LeaseKeys { waiter, .. } = input
            {
                let _gone = waiter.send(Reply::Failed(ferrite_api::Error::Stopped.into()));
            }
        }
    }
}
