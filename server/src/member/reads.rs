//! Linearizable reads: rounds that ask for a read index.
//!
//! All reads that have arrived share one round. The leader asks a quorum whether it still leads (see
//! the driver); another member asks the leader. Either way the answer is an index that was committed
//! after the reads arrived: once it is applied here, the newest view serves them.
//!
//! A round that fails because the leader changed is begun again with the next one: a read has no
//! effects. Every read ends at its own deadline at the latest.

use std::collections::VecDeque;
use std::sync::Arc;

use ferrite_api::types::MemberId;
use ferrite_raft::{ReadError, ReadToken};

use super::{Member, Reply};
use crate::peer::Message;

/// A round asked of a leader that was not answered for so many ticks is asked again (etcd: 500 ms).
const ASK_AGAIN_TICKS: u64 = 5;

/// A read that waits.
#[derive(Debug)]
struct Read<T> {
    deadline: u64,
    waiter: T,
}

/// Who was asked.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// This member's own driver, which leads.
    Driver(ReadToken),
    /// The leader, by these numbers: whichever it answers, it does so after the reads arrived.
    Leader {
        numbers: Vec<u64>,
        /// The tick at which it was asked last.
        at: u64,
    },
}

#[derive(Debug)]
struct Round<T> {
    asked: Asked,
    reads: Vec<Read<T>>,
}

/// A read index that another member asked for.
#[derive(Debug)]
struct Remote {
    token: ReadToken,
    from: MemberId,
    number: u64,
}

/// All reads of a member.
#[derive(Debug)]
pub(super) struct Reads<T> {
    /// For the next round, oldest first.
    arrived: VecDeque<Read<T>>,
    round: Option<Round<T>>,
    /// Nobody is asked before the next tick or the next leader: the asked one does not lead.
    held: bool,
    /// Whose index is confirmed and not yet applied here.
    confirmed: Vec<(u64, Read<T>)>,
    remote: Vec<Remote>,
}

impl<T> Default for Reads<T> {
    fn default() -> Self {
        Self {
            arrived: VecDeque::new(),
            round: None,
            held: false,
            confirmed: Vec::new(),
            remote: Vec::new(),
        }
    }
}

impl<T> Reads<T> {
    /// To be called with each change of leadership.
    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// The round has failed: its reads are the first of the next one.
    fn begin_again(&mut self) {
        let reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        for read in reads.into_iter().rev() {
            self.arrived.push_front(read);
        }
    }

    fn confirm(&mut self, index: u64) {
        let reads = self.round.take().map_or_else(Vec::new, |round| round.reads);
        self.confirmed
            .extend(reads.into_iter().map(|read| (index, read)));
    }

    /// Takes out the reads whose time is up.
    fn expired(&mut self, now: u64) -> Vec<T> {
        let mut expired = Vec::new();
        // Rare, and few: each list is looked through.
        let mut sift = |reads: Vec<Read<T>>| -> Vec<Read<T>> {
            let (over, rest): (Vec<_>, Vec<_>) =
                reads.into_iter().partition(|read| read.deadline <= now);
            expired.extend(over.into_iter().map(|read| read.waiter));
            rest
        };
        let first = |reads: &VecDeque<Read<T>>| reads.front().map(|read| read.deadline);
        if first(&self.arrived).is_some_and(|deadline| deadline <= now) {
            self.arrived = sift(std::mem::take(&mut self.arrived).into()).into();
        }
        if let Some(round) = &mut self.round {
            round.reads = sift(std::mem::take(&mut round.reads));
        }
        let (over, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.confirmed)
            .into_iter()
            .partition(|(_, read)| read.deadline <= now);
        self.confirmed = rest;
        expired.extend(over.into_iter().map(|(_, read)| read.waiter));
        expired
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.begin_again();
        let arrived = std::mem::take(&mut self.arrived).into_iter();
        let confirmed = std::mem::take(&mut self.confirmed).into_iter();
        arrived
            .chain(confirmed.map(|(_, read)| read))
            .map(|read| read.waiter)
            .collect()
    }
}

impl<T> Member<T> {
    pub(super) fn read(&mut self, waiter: T) {
        let deadline = self.now + self.options.request_ticks;
        self.reads.arrived.push_back(Read { deadline, waiter });
    }

    /// Starts a round for the reads that have arrived. Reads that arrive later wait for the next
    /// one: an index asked for earlier says nothing about writes acknowledged since.
    pub(super) fn begin_round(&mut self) {
        if self.reads.round.is_some() || self.reads.held || self.reads.arrived.is_empty() {
            return;
        }
        let asked = match self.driver.status().leader {
            0 => return,
            _ if self.is_leader() => Asked::Driver(self.driver.read_index()),
            leader => {
                let number = self.ask_leader(leader);
                Asked::Leader {
                    numbers: vec![number],
                    at: self.now,
                }
            }
        };
        let reads = std::mem::take(&mut self.reads.arrived).into();
        self.reads.round = Some(Round { asked, reads });
    }

    fn ask_leader(&mut self, leader: u64) -> u64 {
        // Never the number of an earlier run, whose answer may still be under way.
        let number = self.ids.next().get();
        self.say(MemberId::new(leader), Message::ReadIndex { number });
        number
    }

    /// Another member asks for a read index.
    pub(super) fn read_index_for(&mut self, from: MemberId, number: u64) {
        let token = self.driver.read_index();
        self.reads.remote.push(Remote {
            token,
            from,
            number,
        });
    }

    /// The leader's answer.
    pub(super) fn read_index_answered(&mut self, number: u64, index: Option<u64>) {
        let Some(Round {
            asked: Asked::Leader { numbers, .. },
            ..
        }) = &self.reads.round
        else {
            return;
        };
        if !numbers.contains(&number) {
            return;
        }
        match index {
            Some(index) => self.reads.confirm(index),
            None => {
                self.reads.begin_again();
                self.reads.held = true;
            }
        }
        self.answer_confirmed();
    }

    /// The driver's answers.
    pub(super) fn read_indexes(&mut self, answers: Vec<(ReadToken, Result<u64, ReadError>)>) {
        for (token, result) in answers {
            if let Some(at) = self
                .reads
                .remote
                .iter()
                .position(|read| read.token == token)
            {
                let Remote { from, number, .. } = self.reads.remote.swap_remove(at);
                let index = result.ok();
                self.say(from, Message::ReadIndexAnswer { number, index });
                continue;
            }
            let ours = Asked::Driver(token);
            if self
                .reads
                .round
                .as_ref()
                .is_none_or(|round| round.asked != ours)
            {
                continue;
            }
            match result {
                Ok(index) => self.reads.confirm(index),
                Err(_) => self.reads.begin_again(),
            }
        }
    }

    /// The leader has changed: whoever was asked has no say any more.
    pub(super) fn abandon_round(&mut self) {
        self.reads.release();
        // The driver fails its own tokens.
        if let Some(Round {
            asked: Asked::Leader { .. },
            ..
        }) = self.reads.round
        {
            self.reads.begin_again();
        }
    }

    pub(super) fn tick_reads(&mut self) {
        self.reads.release();
        for waiter in self.reads.expired(self.now) {
            let error = self.timeout(self.now);
            self.fail(waiter, error);
        }
        self.ask_again();
    }

    /// Asks the leader again, if it has not answered for long: the message may be lost.
    fn ask_again(&mut self) {
        let leader = self.driver.status().leader;
        let Some(mut round) = self.reads.round.take() else {
            return;
        };
        if let Asked::Leader { numbers, at } = &mut round.asked
            && leader != 0
            && self.now >= *at + ASK_AGAIN_TICKS
        {
            *at = self.now;
            numbers.push(self.ask_leader(leader));
        }
        self.reads.round = Some(round);
    }

    pub(super) fn answer_confirmed(&mut self) {
        let applied = self.state.applied().get();
        if self
            .reads
            .confirmed
            .iter()
            .all(|(index, _)| *index > applied)
        {
            return;
        }
        let view = self.published.view();
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.reads.confirmed)
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        self.reads.confirmed = waiting;
        self.replies.extend(
            ready
                .into_iter()
                .map(|(_, read)| (read.waiter, Reply::View(Arc::clone(&view)))),
        );
    }
}
