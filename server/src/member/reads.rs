//! Linearizable reads: rounds that confirm a read index.
//!
//! All reads that have arrived share one round. The leader notes its commit index and asks voters to
//! confirm that they know of no later term; another member asks the leader for the index. Once that
//! index is applied here, the newest view serves the reads.
//!
//! None of this waits for a disk, or for the member's thread: [`Reads`] is shared, and whatever task a
//! read, a question or an answer arrives in takes it on from there. What it knows of consensus is told
//! by the member ([`Consensus`]) *before anything leaves that follows from it*. That is all that makes
//! an index right:
//!
//! * **Nobody of a later term has acknowledged a write before the read arrived.** A member confirms
//!   term `t` only while its own term, as told here, is not above `t`; and no vote and no
//!   acknowledgement of a term leaves a member before that term is told here (nor, after a restart,
//!   before the term on its disk is). Had a leader of a later term acknowledged a write, a majority
//!   would have promised it that term before; one of them is among the majority that confirmed `t`
//!   afterwards, which it then had not.
//! * **Writes of this term and of earlier ones are covered by the index.** The leader has committed an
//!   entry of its own term, so it knows all that was committed before; and its commit index is told
//!   here before anybody hears of it.
//!
//! A majority need not be asked in full: those who were the first to answer are asked again, until the
//! next tick, when everybody is, or until one of them cannot be reached.
//!
//! A round that fails because the leader changed is begun again with the next one: a read has no
//! effects. Every read ends at its own deadline at the latest.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use ferrite_api::types::MemberId;
use ferrite_raft::ConfState;
use parking_lot::Mutex;

use super::{Member, Published, Reply};
use crate::peer::{Message, ReadMessage};
use crate::request_id::RequestIds;

/// A round asked of a leader that was not answered for so many ticks is asked again (etcd: 500 ms).
const ASK_AGAIN_TICKS: u64 = 5;

/// Reads that may wait. Beyond it clients are told that there are too many requests.
const CAPACITY: usize = 20_000;

/// What consensus says that reads go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consensus<'a> {
    /// The highest term that this member knows of.
    pub(super) term: u64,
    /// 0 = none.
    pub(super) leader: u64,
    /// This member leads, and has committed an entry of its term.
    pub(super) serves: bool,
    pub(super) commit: u64,
    pub(super) conf: &'a ConfState,
}

/// What consensus has said.
#[derive(Debug, Default)]
struct Standing {
    term: u64,
    leader: u64,
    serves: bool,
    commit: u64,
    voters: Vec<u64>,
    /// Of the configuration that is being left, if one is.
    voters_outgoing: Vec<u64>,
}

/// Who wants an index.
#[derive(Debug)]
enum Reader<T> {
    /// A client of this member.
    Here { deadline: u64, waiter: T },
    /// Another member, whose number this is.
    There { from: MemberId, number: u64 },
}

/// Who was asked.
#[derive(Debug)]
enum Asked {
    /// The voters, by this member, which leads.
    Voters {
        number: u64,
        index: u64,
        /// Who has answered.
        confirmed: Vec<u64>,
        /// Everybody was asked.
        everybody: bool,
    },
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
    readers: Vec<Reader<T>>,
}

/// How often something went wrong since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Reads that got no index in time.
    pub slow: u64,
    /// Rounds that were begun again because the leader changed.
    pub failed: u64,
}

/// What follows from something that [`Reads`] was told: to be done by whoever told it.
#[must_use]
#[derive(Debug)]
pub struct ReadsDo<T> {
    /// Messages to other members.
    pub send: Vec<(MemberId, Message)>,
    /// Clients to answer.
    pub replies: Vec<(T, Reply)>,
}

impl<T> Default for ReadsDo<T> {
    fn default() -> Self {
        Self {
            send: Vec::new(),
            replies: Vec::new(),
        }
    }
}

/// The reads of a member. Shared between its owner and the tasks that serve clients and peers.
#[derive(Debug)]
pub struct Reads<T> {
    published: Arc<Published>,
    ids: Arc<RequestIds>,
    // Held for a round's worth of memory operations; never together with another lock.
    rounds: Mutex<Rounds<T>>,
}

#[derive(Debug)]
struct Rounds<T> {
    own: u64,
    request_ticks: u64,
    now: u64,
    standing: Standing,
    /// For the next round, oldest first.
    arrived: Vec<Reader<T>>,
    round: Option<Round<T>>,
    /// Nobody is asked before the next tick or the next leader: the asked one does not lead.
    held: bool,
    /// Whose index is confirmed and not yet applied here: the index, the deadline, who waits.
    confirmed: Vec<(u64, u64, T)>,
    /// With this member a majority: those who were the first to confirm when everybody was asked.
    nearest: Vec<u64>,
    closed: bool,
    counts: ReadCounts,
    does: ReadsDo<T>,
}

impl<T> Reads<T> {
    pub(crate) fn new(
        own: MemberId,
        request_ticks: u64,
        published: Arc<Published>,
        ids: Arc<RequestIds>,
    ) -> Self {
        let rounds = Rounds {
            own: own.get(),
            request_ticks,
            now: 0,
            standing: Standing::default(),
            arrived: Vec::new(),
            round: None,
            held: false,
            confirmed: Vec::new(),
            nearest: Vec::new(),
            closed: false,
            counts: ReadCounts::default(),
            does: ReadsDo::default(),
        };
        Self {
            published,
            ids,
            rounds: Mutex::new(rounds),
        }
    }

    /// A client's linearizable read wants a view: [`Reply::View`].
    ///
    /// # Errors
    /// The member has stopped, or too many reads wait.
    pub fn read(&self, waiter: T) -> Result<ReadsDo<T>, ferrite_api::Error> {
        let mut rounds = self.rounds.lock();
        if rounds.closed {
            return Err(ferrite_api::Error::Stopped);
        }
        if rounds.arrived.len() >= CAPACITY {
            return Err(ferrite_api::Error::RequestTooManyRequests);
        }
        let deadline = rounds.now + rounds.request_ticks;
        rounds.arrived.push(Reader::Here { deadline, waiter });
        Ok(self.go_on(&mut rounds))
    }

    /// Another member says something about reads.
    pub fn hear(&self, from: MemberId, message: ReadMessage) -> ReadsDo<T> {
        let mut rounds = self.rounds.lock();
        if rounds.closed {
            return ReadsDo::default();
        }
        match message {
            ReadMessage::Index { number } if rounds.leads() => {
                rounds.arrived.push(Reader::There { from, number });
            }
            ReadMessage::Index { number } => rounds.refuse(from, number),
            ReadMessage::IndexAnswer { number, index } => {
                if rounds.asked_leader(number) {
                    match index {
                        Some(index) => rounds.end_round(index, &self.published),
                        None => {
                            rounds.begin_again();
                            rounds.held = true;
                        }
                    }
                }
            }
            ReadMessage::Confirm { term, number } => {
                if rounds.standing.term <= term {
                    rounds.say(from, ReadMessage::Confirmed { term, number });
                }
            }
            ReadMessage::Confirmed { term, number } => {
                if let Some(index) = rounds.confirmed_by(from, term, number) {
                    rounds.end_round(index, &self.published);
                }
            }
        }
        self.go_on(&mut rounds)
    }

    /// Ends all reads, and takes no more. Returns those who wait.
    pub fn close(&self) -> Vec<T> {
        let mut rounds = self.rounds.lock();
        rounds.closed = true;
        rounds.begin_again();
        let arrived = std::mem::take(&mut rounds.arrived).into_iter();
        let waiting = arrived.filter_map(|reader| match reader {
            Reader::Here { waiter, .. } => Some(waiter),
            Reader::There { .. } => None,
        });
        let confirmed = std::mem::take(&mut rounds.confirmed).into_iter();
        waiting
            .chain(confirmed.map(|(_, _, waiter)| waiter))
            .collect()
    }

    /// What has gone wrong since this was asked last.
    pub fn take_counts(&self) -> ReadCounts {
        std::mem::take(&mut self.rounds.lock().counts)
    }

    /// What consensus says now. What is published as applied was published before.
    pub(super) fn stand(&self, now: Consensus<'_>) -> ReadsDo<T> {
        let Consensus {
            term,
            leader,
            serves,
            commit,
            conf,
        } = now;
        let mut rounds = self.rounds.lock();
        let standing = &mut rounds.standing;
        let changed = (standing.term, standing.leader) != (term, leader)
            || standing.voters != conf.voters
            || standing.voters_outgoing != conf.voters_outgoing;
        standing.serves = serves;
        standing.commit = commit;
        if changed {
            (standing.term, standing.leader) = (term, leader);
            standing.voters.clone_from(&conf.voters);
            standing.voters_outgoing.clone_from(&conf.voters_outgoing);
            // Whoever was asked has no say any more.
            rounds.held = false;
            rounds.nearest.clear();
            rounds.begin_again();
            if !rounds.leads() {
                rounds.refuse_others();
            }
        }
        rounds.answer_applied(&self.published);
        self.go_on(&mut rounds)
    }

    /// A tick has passed. Returns those whose time is up.
    fn tick(&self, now: u64) -> (Vec<T>, ReadsDo<T>) {
        let mut rounds = self.rounds.lock();
        rounds.now = now;
        rounds.held = false;
        rounds.nearest.clear();
        let expired = rounds.expired();
        rounds.counts.slow += expired.len() as u64;
        rounds.ask_rest();
        rounds.ask_leader_again(&self.ids);
        (expired, self.go_on(&mut rounds))
    }

    /// A member cannot be reached: it is not worth waiting for.
    fn unreachable(&self, peer: MemberId) -> ReadsDo<T> {
        let mut rounds = self.rounds.lock();
        if rounds.nearest.contains(&peer.get()) {
            rounds.nearest.clear();
            rounds.ask_rest();
        }
        self.go_on(&mut rounds)
    }

    /// Begins a round if there is none and somebody waits for one, and takes what is to be done.
    fn go_on(&self, rounds: &mut Rounds<T>) -> ReadsDo<T> {
        rounds.begin(&self.ids, &self.published);
        std::mem::take(&mut rounds.does)
    }
}

impl<T> Rounds<T> {
    fn say(&mut self, to: MemberId, message: ReadMessage) {
        self.does.send.push((to, Message::Read(message)));
    }

    fn leads(&self) -> bool {
        self.standing.leader == self.own
    }

    /// Starts a round for the reads that have arrived. Reads that arrive later wait for the next one:
    /// an index noted earlier says nothing about writes acknowledged since.
    fn begin(&mut self, ids: &RequestIds, published: &Published) {
        if self.round.is_some() || self.held || self.arrived.is_empty() {
            return;
        }
        // Never the number of an earlier run, whose answer may still be under way.
        let number = || ids.next().get();
        let asked = match self.standing.leader {
            0 => return,
            leader if !self.leads() => {
                let number = number();
                self.say(MemberId::new(leader), ReadMessage::Index { number });
                Asked::Leader {
                    numbers: vec![number],
                    at: self.now,
                }
            }
            // Asked once the first entry of the term is committed.
            _ if !self.standing.serves => return,
            _ => Asked::Voters {
                number: number(),
                index: self.standing.commit,
                confirmed: Vec::new(),
                everybody: false,
            },
        };
        let readers = std::mem::take(&mut self.arrived);
        self.round = Some(Round { asked, readers });
        if !self.leads() {
            return;
        }
        if self.is_majority(&[]) {
            return self.end_round(self.standing.commit, published);
        }
        match self.is_majority(&self.nearest) {
            true => self.ask(&self.nearest.clone()),
            false => self.ask_rest(),
        }
    }

    /// Those who read elsewhere ask whoever leads.
    fn refuse_others(&mut self) {
        let there = |reader: &mut Reader<T>| matches!(reader, Reader::There { .. });
        let refused: Vec<_> = self.arrived.extract_if(.., there).collect();
        for reader in refused {
            if let Reader::There { from, number } = reader {
                self.refuse(from, number);
            }
        }
    }

    fn refuse(&mut self, from: MemberId, number: u64) {
        let index = None;
        self.say(from, ReadMessage::IndexAnswer { number, index });
    }

    /// Asks these voters to confirm the round.
    fn ask(&mut self, voters: &[u64]) {
        let Some(Round {
            asked: Asked::Voters { number, .. },
            ..
        }) = self.round
        else {
            return;
        };
        let term = self.standing.term;
        for voter in voters {
            self.say(MemberId::new(*voter), ReadMessage::Confirm { term, number });
        }
    }

    /// Asks everybody who has not answered. Asking twice does no harm: an answer to this number was
    /// given after the reads arrived.
    fn ask_rest(&mut self) {
        let Some(Round {
            asked:
                Asked::Voters {
                    confirmed,
                    everybody,
                    ..
                },
            ..
        }) = &mut self.round
        else {
            return;
        };
        *everybody = true;
        let Standing {
            voters,
            voters_outgoing,
            ..
        } = &self.standing;
        let mut rest: Vec<u64> = voters.iter().chain(voters_outgoing).copied().collect();
        rest.retain(|voter| *voter != self.own && !confirmed.contains(voter));
        rest.sort_unstable();
        rest.dedup();
        self.ask(&rest);
    }

    /// Whether this member and `others` are a majority, in both configurations if there are two.
    fn is_majority(&self, others: &[u64]) -> bool {
        let agrees = |voters: &[u64]| {
            let with = |voter: &&u64| **voter == self.own || others.contains(voter);
            voters.iter().filter(with).count() > voters.len() / 2
        };
        let Standing {
            voters,
            voters_outgoing,
            ..
        } = &self.standing;
        agrees(voters) && (voters_outgoing.is_empty() || agrees(voters_outgoing))
    }

    /// A member has confirmed a round: its index if that makes a majority.
    fn confirmed_by(&mut self, from: MemberId, of_term: u64, of_round: u64) -> Option<u64> {
        let mut round = self.round.take()?;
        let mut index = None;
        if let Asked::Voters {
            number,
            index: at,
            confirmed,
            everybody,
        } = &mut round.asked
            && of_term == self.standing.term
            && of_round == *number
            && !confirmed.contains(&from.get())
        {
            confirmed.push(from.get());
            if self.is_majority(confirmed) {
                index = Some(*at);
                if *everybody {
                    self.nearest.clone_from(confirmed);
                }
            }
        }
        self.round = Some(round);
        index
    }

    /// Whether the open round is one of the leader's that was asked by this number.
    fn asked_leader(&self, number: u64) -> bool {
        let asked = self.round.as_ref().map(|round| &round.asked);
        matches!(asked, Some(Asked::Leader { numbers, .. }) if numbers.contains(&number))
    }

    /// The round has failed: its reads are the first of the next one.
    fn begin_again(&mut self) {
        let Some(Round { mut readers, .. }) = self.round.take() else {
            return;
        };
        self.counts.failed += 1;
        readers.append(&mut self.arrived);
        self.arrived = readers;
    }

    /// The round has its index.
    fn end_round(&mut self, index: u64, published: &Published) {
        let Some(round) = self.round.take() else {
            return;
        };
        for reader in round.readers {
            match reader {
                Reader::Here { deadline, waiter } => self.confirmed.push((index, deadline, waiter)),
                Reader::There { from, number } => {
                    let index = Some(index);
                    self.say(from, ReadMessage::IndexAnswer { number, index });
                }
            }
        }
        self.answer_applied(published);
    }

    /// Answers those whose index is applied. Looked at under the lock, and again after each publishing:
    /// nobody is overlooked.
    fn answer_applied(&mut self, published: &Published) {
        if self.confirmed.is_empty() {
            return;
        }
        let applied = published.applied();
        let view = published.view();
        let ready = self
            .confirmed
            .extract_if(.., |(index, _, _)| *index <= applied);
        let replies = ready.map(|(_, _, waiter)| (waiter, Reply::View(Arc::clone(&view))));
        self.does.replies.extend(replies);
    }

    /// Takes out the reads whose time is up.
    fn expired(&mut self) -> Vec<T> {
        let now = self.now;
        let over = |reader: &mut Reader<T>| matches!(reader, Reader::Here { deadline, .. } if *deadline <= now);
        let mut expired: Vec<_> = self.arrived.extract_if(.., over).collect();
        if let Some(round) = &mut self.round {
            expired.extend(round.readers.extract_if(.., over));
        }
        let waiters = expired.into_iter().filter_map(|reader| match reader {
            Reader::Here { waiter, .. } => Some(waiter),
            Reader::There { .. } => None,
        });
        let confirmed = self
            .confirmed
            .extract_if(.., |(_, deadline, _)| *deadline <= now);
        waiters
            .chain(confirmed.map(|(_, _, waiter)| waiter))
            .collect()
    }

    /// Asks the leader again, if it has not answered for long: the message may be lost.
    fn ask_leader_again(&mut self, ids: &RequestIds) {
        let (now, leader) = (self.now, self.standing.leader);
        if let Some(Round {
            asked: Asked::Leader { numbers, at },
            ..
        }) = &mut self.round
            && leader != 0
            && now >= *at + ASK_AGAIN_TICKS
        {
            let number = ids.next().get();
            *at = now;
            numbers.push(number);
            self.say(MemberId::new(leader), ReadMessage::Index { number });
        }
    }
}

impl<T> Member<T> {
    /// The reads, for the tasks that serve clients and hear other members.
    pub fn reads(&self) -> Arc<Reads<T>> {
        Arc::clone(&self.reads)
    }

    pub(super) fn tick_reads(&mut self) {
        let (expired, does) = self.reads.tick(self.now);
        for waiter in expired {
            let error = self.timeout(self.now);
            self.fail(waiter, error);
        }
        self.do_for_reads(does);
    }

    pub(super) fn reads_lose(&mut self, peer: MemberId) {
        let does = self.reads.unreachable(peer);
        self.do_for_reads(does);
    }

    pub(super) fn do_for_reads(&mut self, does: ReadsDo<T>) {
        self.send.extend(does.send);
        self.replies.extend(does.replies);
    }
}
