//! Reads that wait for a read index.
//!
//! raft-rs confirms a read by a round of heartbeats that carry the read's context. It trusts whoever sends a context, and a late
//! acknowledgement of an earlier round counts for a later one with the same context: on a leader that was deposed without
//! noticing, that confirms a stale read (etcd #20418). So only the leader's driver makes contexts, of its term and a counter, and none
//! is ever used twice: not for asking again, not over restarts (a leader of this process is the only one of its term, and nothing of
//! a term leaves the process before the term is durable).
//!
//! One context serves every read that arrived before it was made. Asking again means a new context for all that still wait; the old ones
//! may still answer.

use std::collections::VecDeque;

use crate::error::ReadError;

/// Names a read that was begun by [`Driver::read_index`](crate::Driver::read_index).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(u64);

/// What raft is given to find a round again: term and counter, big-endian.
pub(crate) type Context = [u8; 16];

#[derive(Debug, Default)]
pub(crate) struct Reads {
    next_token: u64,
    next_counter: u64,
    /// Without an answer; rising.
    waiting: VecDeque<ReadToken>,
    /// Rounds that raft may still confirm: the context, and the last read it serves. Both rising.
    rounds: VecDeque<(Context, ReadToken)>,
    done: Vec<(ReadToken, Result<u64, ReadError>)>,
    ticks_since_asked: usize,
    asked_again: u64,
}

/// A round that was not answered for this many ticks is asked again (etcd: 500 ms).
const ASK_AGAIN_TICKS: usize = 5;

impl Reads {
    /// A read begins to wait.
    pub(crate) fn begin(&mut self) -> ReadToken {
        let token = self.next();
        self.waiting.push_back(token);
        token
    }

    /// A read that cannot even wait.
    pub(crate) fn refuse(&mut self, error: ReadError) -> ReadToken {
        let token = self.next();
        self.done.push((token, Err(error)));
        token
    }

    fn next(&mut self) -> ReadToken {
        let token = ReadToken(self.next_token);
        self.next_token += 1;
        token
    }

    /// A context, never used before, for all reads that wait; `None` if none does.
    pub(crate) fn ask(&mut self, term: u64) -> Option<Context> {
        let last = *self.waiting.back()?;
        let mut context = [0; 16];
        context[..8].copy_from_slice(&term.to_be_bytes());
        context[8..].copy_from_slice(&self.next_counter.to_be_bytes());
        self.next_counter += 1;
        self.rounds.push_back((context, last));
        self.ticks_since_asked = 0;
        Some(context)
    }

    /// Counts a tick; true if it is time to ask again.
    pub(crate) fn tick(&mut self) -> bool {
        self.ticks_since_asked += 1;
        let again = !self.waiting.is_empty() && self.ticks_since_asked >= ASK_AGAIN_TICKS;
        self.asked_again += u64::from(again);
        again
    }

    /// Raft confirmed the round of this context at `index`: the reads it serves are done. Contexts that are not of an open round are ignored.
    pub(crate) fn confirmed(&mut self, context: &[u8], index: u64) {
        let Some(at) = self.rounds.iter().position(|(open, _)| open == context) else {
            return;
        };
        let (_, last) = self.rounds[at];
        self.rounds.drain(..=at);
        while self.waiting.front().is_some_and(|token| *token <= last) {
            self.done
                .extend(self.waiting.pop_front().map(|token| (token, Ok(index))));
        }
    }

    /// Ends all reads that wait.
    pub(crate) fn fail_all(&mut self, error: ReadError) {
        self.rounds.clear();
        self.done
            .extend(self.waiting.drain(..).map(|token| (token, Err(error))));
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn asked_again(&self) -> u64 {
        self.asked_again
    }

    pub(crate) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    pub(crate) fn take_done(&mut self) -> Vec<(ReadToken, Result<u64, ReadError>)> {
        std::mem::take(&mut self.done)
    }
}
