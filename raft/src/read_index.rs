//! Reads that wait for a read index.
//!
//! raft-rs confirms a read by a round of heartbeats that carry the read's context. It trusts
//! whoever sends a context, and a late acknowledgement of an earlier round counts for a later one
//! with the same context: on a leader that was deposed without noticing, that confirms a stale read
//! (etcd #20418). So only the leader's driver makes contexts, of its term and a counter, and none
//! is ever used twice: not for asking again, not over restarts (a leader of this process is the
//! only one of its term, and nothing of a term leaves the process before the term is durable).
//!
//! One context serves every read that arrived before it was made. Asking again means a new context
//! for all that still wait; the old ones may still answer.

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

    /// Raft confirmed the round of this context at `index`: the reads it serves are done. Contexts
    /// that are not of an open round are ignored.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_serves_what_waited_when_it_was_asked() {
        let mut reads = Reads::default();
        assert_eq!(reads.ask(1), None, "nobody waits");
        let first = reads.begin();
        let one = reads.ask(1).unwrap();
        let second = reads.begin();
        let two = reads.ask(1).unwrap();
        let third = reads.begin();
        reads.confirmed(&one, 10);
        assert_eq!(reads.take_done(), [(first, Ok(10))]);
        reads.confirmed(&one, 11);
        assert!(!reads.has_done(), "a round answers once");
        reads.confirmed(&two, 12);
        assert_eq!(reads.take_done(), [(second, Ok(12))]);
        reads.fail_all(ReadError::LeaderChanged);
        assert_eq!(reads.take_done(), [(third, Err(ReadError::LeaderChanged))]);
        assert_eq!(reads.waiting(), 0);
    }

    #[test]
    fn a_later_round_answers_for_the_earlier_ones() {
        let mut reads = Reads::default();
        let first = reads.begin();
        let one = reads.ask(1).unwrap();
        let second = reads.begin();
        let two = reads.ask(1).unwrap();
        reads.confirmed(&two, 7);
        assert_eq!(reads.take_done(), [(first, Ok(7)), (second, Ok(7))]);
        reads.confirmed(&one, 6);
        assert!(!reads.has_done());
    }

    #[test]
    fn contexts_are_never_used_twice() {
        let mut reads = Reads::default();
        let mut seen = std::collections::BTreeSet::new();
        for term in [1, 1, 2, 2, 9] {
            for _ in 0..50 {
                reads.begin();
                assert!(seen.insert(reads.ask(term).unwrap()));
                assert!(seen.insert(reads.ask(term).unwrap()), "asked again");
            }
            reads.fail_all(ReadError::LeaderChanged);
        }
    }

    #[test]
    fn foreign_and_stale_contexts_confirm_nothing() {
        let mut reads = Reads::default();
        reads.begin();
        let stale = reads.ask(1).unwrap();
        reads.fail_all(ReadError::LeaderChanged);
        reads.take_done();
        reads.begin();
        let new = reads.ask(2).unwrap();
        for context in [&stale[..], b"", b"something else", &new[..15]] {
            reads.confirmed(context, 5);
        }
        assert!(!reads.has_done());
    }

    #[test]
    fn only_reads_that_wait_are_asked_again() {
        let mut reads = Reads::default();
        assert!((0..20).all(|_| !reads.tick()));
        reads.begin();
        reads.ask(1);
        let due: Vec<usize> = (1..=12)
            .filter(|_| reads.tick() && reads.ask(1).is_some())
            .collect();
        assert_eq!(due, [5, 10]);
        assert_eq!(reads.asked_again(), 2);
    }
}
