use ferrite_api::types::MemberId;

use super::*;
use crate::handle::tests::Store;

const TICKS: u64 = 70;

/// The reads of member 1.
struct Own {
    reads: Reads<&'static str>,
    published: Arc<Published>,
    store: Store,
    conf: ConfState,
}

impl Own {
    fn of(voters: &[u64]) -> Self {
        let store = Store::new();
        let published = Arc::clone(&store.published);
        let own = MemberId::new(1);
        let ids = Arc::new(RequestIds::new(own, 1));
        Self {
            reads: Reads::new(own, TICKS, Arc::clone(&published), ids),
            published,
            store,
            conf: ConfState::new(voters.to_vec(), vec![9]),
        }
    }

    /// Everything up to `index` is applied.
    fn apply(&self, index: u64) {
        self.published.set_view(self.store.state.view());
        self.published.set_applied(index);
    }

    fn stand(&self, term: u64, leader: u64, commit: u64) -> Did {
        let serves = leader == 1;
        Did::of(self.reads.stand(Consensus {
            term,
            leader,
            serves,
            commit,
            conf: &self.conf,
        }))
    }

    fn read(&self, waiter: &'static str) -> Did {
        Did::of(self.reads.read(waiter).unwrap())
    }

    fn hear(&self, from: u64, message: ReadMessage) -> Did {
        Did::of(self.reads.hear(MemberId::new(from), message))
    }

    fn confirmed(&self, from: u64, term: u64, number: u64) -> Did {
        self.hear(from, ReadMessage::Confirmed { term, number })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Did {
    said: Vec<(u64, ReadMessage)>,
    answered: Vec<&'static str>,
}

impl Did {
    fn of(does: ReadsDo<&'static str>) -> Self {
        let said = does.send.into_iter().map(|(to, message)| match message {
            Message::Read(message) => (to.get(), message),
            other => panic!("not about reads: {other:?}"),
        });
        let answered = does.replies.into_iter().map(|(waiter, reply)| {
            assert!(matches!(reply, Reply::View(_)), "{reply:?}");
            waiter
        });
        Self {
            said: said.collect(),
            answered: answered.collect(),
        }
    }

    #[track_caller]
    fn nothing(&self) {
        assert!(self.said.is_empty() && self.answered.is_empty(), "{self:?}");
    }

    /// Who was asked to confirm which round of this term.
    #[track_caller]
    fn asked(&self, of_term: u64) -> (Vec<u64>, u64) {
        let mut numbers = Vec::new();
        let asked = self.said.iter().map(|(to, message)| match message {
            ReadMessage::Confirm { term, number } if *term == of_term => {
                numbers.push(*number);
                *to
            }
            other => panic!("{other:?}"),
        });
        let asked = asked.collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 1, "one round: {self:?}");
        (asked, numbers[0])
    }
}

#[test]
fn a_majority_confirms_and_those_who_were_first_are_asked_again_until_the_next_tick() {
    let own = Own::of(&[1, 2, 3]);
    own.apply(7);
    own.stand(4, 1, 7).nothing();
    let (asked, first) = own.read("first").asked(4);
    assert_eq!(asked, [2, 3]);
    assert_eq!(own.confirmed(3, 4, first).answered, ["first"]);
    let (asked, second) = own.read("second").asked(4);
    assert_eq!(asked, [3], "it was the first to answer");
    own.confirmed(2, 4, first).nothing();
    // A tick without an answer: the others are asked, too.
    let (expired, does) = own.reads.tick(1);
    assert!(expired.is_empty());
    assert_eq!(Did::of(does).asked(4), (vec![2, 3], second));
    assert_eq!(own.confirmed(2, 4, second).answered, ["second"]);
    assert_eq!(own.read("third").asked(4).0, [2]);
}

#[test]
fn who_cannot_be_reached_is_not_waited_for() {
    let own = Own::of(&[1, 2, 3]);
    own.stand(4, 1, 0);
    let (_, first) = own.read("first").asked(4);
    own.confirmed(3, 4, first);
    let (_, second) = own.read("second").asked(4);
    let lost = Did::of(own.reads.unreachable(MemberId::new(3)));
    assert_eq!(lost.asked(4), (vec![2, 3], second));
    assert_eq!(own.confirmed(2, 4, second).answered, ["second"]);
}

#[test]
fn a_member_confirms_a_term_unless_it_knows_of_a_later_one() {
    let own = Own::of(&[1, 2, 3]);
    own.stand(4, 2, 0);
    for (term, confirms) in [(3, false), (4, true), (5, true)] {
        let said = own.hear(2, ReadMessage::Confirm { term, number: 8 }).said;
        let confirmed = (2, ReadMessage::Confirmed { term, number: 8 });
        assert_eq!(said.contains(&confirmed), confirms, "term {term}");
    }
    own.stand(6, 0, 0);
    let message = ReadMessage::Confirm { term: 5, number: 9 };
    own.hear(2, message).nothing();
}

#[test]
fn only_a_majority_of_the_voters_in_this_term_and_for_this_round_counts() {
    let own = Own::of(&[1, 2, 3, 4, 5]);
    own.stand(4, 1, 0);
    let (_, number) = own.read("read").asked(4);
    own.confirmed(2, 4, number).nothing();
    own.confirmed(2, 4, number).nothing();
    own.confirmed(9, 4, number).nothing();
    own.confirmed(3, 3, number).nothing();
    own.confirmed(3, 4, number + 1).nothing();
    assert_eq!(own.confirmed(3, 4, number).answered, ["read"]);
    own.confirmed(4, 4, number).nothing();
}

#[test]
fn both_majorities_count_while_a_configuration_is_being_left() {
    let mut own = Own::of(&[1, 2, 3]);
    own.conf.voters_outgoing = vec![1, 4, 5];
    own.stand(4, 1, 0);
    let (asked, number) = own.read("read").asked(4);
    assert_eq!(asked, [2, 3, 4, 5]);
    own.confirmed(2, 4, number).nothing();
    own.confirmed(3, 4, number).nothing();
    assert_eq!(own.confirmed(5, 4, number).answered, ["read"]);
}

/// What was acknowledged after a round began is not covered by its index.
#[test]
fn reads_that_come_later_wait_for_the_next_round_and_its_index() {
    let own = Own::of(&[1, 2, 3]);
    own.apply(7);
    own.stand(4, 1, 7);
    let (_, first) = own.read("first").asked(4);
    own.stand(4, 1, 8).nothing();
    own.read("later").nothing();
    let ended = own.confirmed(2, 4, first);
    assert_eq!(ended.answered, ["first"]);
    let second = match ended.said[..] {
        [(2, ReadMessage::Confirm { number, .. })] => number,
        ref other => panic!("{other:?}"),
    };
    // Confirmed, but not applied here yet.
    own.confirmed(2, 4, second).nothing();
    own.apply(8);
    assert_eq!(own.stand(4, 1, 8).answered, ["later"]);
}

#[test]
fn a_leader_asks_nobody_before_an_entry_of_its_term_is_committed() {
    let own = Own::of(&[1, 2, 3]);
    let standing = |serves| {
        Did::of(own.reads.stand(Consensus {
            term: 4,
            leader: 1,
            serves,
            commit: 7,
            conf: &own.conf,
        }))
    };
    standing(false);
    own.read("read").nothing();
    own.hear(2, ReadMessage::Index { number: 5 }).nothing();
    assert_eq!(standing(true).asked(4).0, [2, 3]);
}

#[test]
fn a_sole_voter_has_its_majority_at_once() {
    let own = Own::of(&[1]);
    own.stand(4, 1, 0);
    assert_eq!(own.read("read").answered, ["read"]);
}

#[test]
fn a_member_that_does_not_lead_asks_the_leader_and_waits_until_the_index_is_applied() {
    let own = Own::of(&[1, 2, 3]);
    own.read("early").nothing();
    let asked = own.stand(4, 2, 3).said;
    let [(2, ReadMessage::Index { number })] = asked[..] else {
        panic!("{asked:?}");
    };
    own.read("late").nothing();
    let answer = |number, index| ReadMessage::IndexAnswer { number, index };
    own.hear(2, answer(number + 77, Some(1))).nothing();
    let said = own.hear(2, answer(number, Some(5))).said;
    assert!(matches!(said[..], [(2, ReadMessage::Index { .. })]));
    own.apply(4);
    own.stand(4, 2, 4).nothing();
    own.apply(5);
    assert_eq!(own.stand(4, 2, 5).answered, ["early"]);
    // Its message may be lost: it asks again, and either answer will do.
    for now in 1..ASK_AGAIN_TICKS {
        Did::of(own.reads.tick(now).1).nothing();
    }
    let again = Did::of(own.reads.tick(ASK_AGAIN_TICKS).1).said;
    let [(2, ReadMessage::Index { number })] = again[..] else {
        panic!("{again:?}");
    };
    assert_eq!(own.hear(2, answer(number, Some(5))).answered, ["late"]);
}

#[test]
fn a_round_begins_again_with_the_next_leader_and_others_are_told_to_ask_it() {
    let own = Own::of(&[1, 2, 3]);
    own.stand(4, 1, 0);
    let (_, number) = own.read("read").asked(4);
    own.hear(3, ReadMessage::Index { number: 5 }).nothing();
    let said = own.stand(5, 2, 0).said;
    let refused = ReadMessage::IndexAnswer {
        number: 5,
        index: None,
    };
    assert!(said.contains(&(3, refused)), "{said:?}");
    assert!(
        said.iter()
            .any(|(to, message)| *to == 2 && matches!(message, ReadMessage::Index { .. }))
    );
    own.confirmed(2, 4, number).nothing();
    assert_eq!(own.reads.take_counts().failed, 1);
    assert_eq!(own.reads.take_counts(), ReadCounts::default());
    let refused = own.hear(3, ReadMessage::Index { number: 6 }).said;
    let answer = ReadMessage::IndexAnswer {
        number: 6,
        index: None,
    };
    assert_eq!(refused, [(3, answer)]);
}

/// Whoever was asked and does not lead is not asked again before there is news.
#[test]
fn a_refused_member_waits_for_a_tick_or_a_leader() {
    let own = Own::of(&[1, 2, 3]);
    own.stand(4, 2, 0);
    let said = own.read("read").said;
    let [(2, ReadMessage::Index { number })] = said[..] else {
        panic!("{said:?}");
    };
    let index = None;
    own.hear(2, ReadMessage::IndexAnswer { number, index })
        .nothing();
    own.read("another").nothing();
    assert_eq!(Did::of(own.reads.tick(1).1).said.len(), 1);
}

#[test]
fn every_read_ends_at_its_deadline_wherever_it_waits() {
    let own = Own::of(&[1, 2, 3]);
    own.stand(4, 1, 1);
    let (_, number) = own.read("confirmed").asked(4);
    own.confirmed(2, 4, number).nothing();
    own.read("asked");
    own.read("arrived").nothing();
    assert!(own.reads.tick(TICKS - 1).0.is_empty());
    let mut expired = own.reads.tick(TICKS).0;
    expired.sort_unstable();
    assert_eq!(expired, ["arrived", "asked", "confirmed"]);
    assert_eq!(own.reads.take_counts().slow, 3);
}

/// The code of "too many requests" is UNKNOWN on the wire.
#[test]
fn s1_2_1_too_many_reads_are_refused_and_all_of_them_end_when_the_member_stops() {
    let own = Own::of(&[1, 2, 3]);
    for _ in 0..CAPACITY {
        own.read("read").nothing();
    }
    let refusal = own.reads.read("one more").unwrap_err();
    assert_eq!(refusal, ferrite_api::Error::RequestTooManyRequests);
    assert_eq!(own.reads.close().len(), CAPACITY);
    let refusal = own.reads.read("late").unwrap_err();
    assert_eq!(refusal, ferrite_api::Error::Stopped);
    own.hear(2, ReadMessage::Index { number: 1 }).nothing();
}
