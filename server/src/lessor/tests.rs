//! The rows of spec lease.md sections 2, 3, 6 and 7 that are the lessor's, with time handed in.

use super::*;

const TTL: i64 = 10;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(n: i64) -> LeaseId {
    LeaseId::new(n)
}

fn options() -> Options {
    Options {
        election_timeout: at(1),
        min_ttl: 2,
        retry: at(7),
        checkpoint_interval: None,
    }
}

fn checkpointing() -> Options {
    Options {
        checkpoint_interval: Some(at(300)),
        ..options()
    }
}

/// A lessor with leases 1 to `count` of `ttl` seconds, not primary.
fn follower(options: Options, count: i64, ttl: i64) -> Lessor<u32> {
    let lease = Lease { ttl, remaining: 0 };
    Lessor::new(options, (1..=count).map(|n| (id(n), lease)))
}

/// A primary lessor without leases, promoted at 0.
fn primary(options: Options) -> Lessor<u32> {
    let mut lessor = follower(options, 0, 0);
    lessor.promote(Duration::ZERO);
    lessor
}

fn renew(lessor: &mut Lessor<u32>, now: Duration, n: i64) -> Renewal {
    lessor.renew(now, id(n), || 7)
}

/// All turns that can be taken at `now`; what they hand out for revocation.
fn turns(lessor: &mut Lessor<u32>, now: Duration) -> Vec<LeaseId> {
    let mut revoke = Vec::new();
    loop {
        let turn = lessor.turn(now);
        lessor.check_invariants();
        revoke.extend(turn.revoke);
        if !lessor.is_behind() {
            return revoke;
        }
    }
}

/// Ticks of 100 ms up to `until`, with every revocation applied at once: when each lease went.
fn drain(lessor: &mut Lessor<u32>, from: Duration, until: Duration) -> Vec<(Duration, LeaseId)> {
    let mut gone = Vec::new();
    let mut now = from;
    while now <= until {
        loop {
            let revoke = lessor.turn(now).revoke;
            for id in &revoke {
                assert!(lessor.revoked(*id).ended);
                gone.push((now, *id));
            }
            if !lessor.is_behind() {
                break;
            }
        }
        now += ms(100);
    }
    lessor.check_invariants();
    gone
}

#[test]
fn the_least_time_to_live_is_one_and_a_half_election_timeouts() {
    assert_eq!(Options::min_ttl(10, ms(100)), 2);
    // Ticks are divided first, seconds rounded up last.
    assert_eq!(Options::min_ttl(5, ms(100)), 1);
    assert_eq!(Options::min_ttl(7, ms(500)), 5);
    assert_eq!(Options::min_ttl(20, ms(1000)), 30);
}

#[test]
fn a_grant_on_the_leader_ends_after_its_time_and_on_a_follower_never() {
    let mut leader = primary(options());
    leader.granted(at(5), id(1), TTL);
    assert_eq!(turns(&mut leader, ms(14_999)), []);
    assert_eq!(turns(&mut leader, at(15)), [id(1)]);

    let mut follower = follower(options(), 0, 0);
    follower.granted(at(5), id(1), TTL);
    assert_eq!(turns(&mut follower, at(1_000_000)), []);
    assert_eq!(follower.lookup(at(6), id(1)), Lookup::NotPrimary);
    assert_eq!(renew(&mut follower, at(6), 1), Renewal::NotPrimary);
    assert_eq!(renew(&mut follower, at(6), 9), Renewal::NotPrimary);
}

#[test]
fn a_lease_shorter_than_the_least_time_lives_that_long() {
    let mut lessor = follower(options(), 1, -3);
    lessor.promote(Duration::ZERO);
    lessor.granted(at(1), id(2), 0);
    assert_eq!(renew(&mut lessor, at(2), 2), Renewal::Renewed { ttl: 2 });
    assert_eq!(turns(&mut lessor, ms(2999)), []);
    assert_eq!(turns(&mut lessor, at(3)), [id(1)]);
    assert_eq!(turns(&mut lessor, at(4)), [id(2)]);
}

#[test]
fn a_promotion_gives_every_lease_its_whole_time_and_an_election_timeout() {
    let resumed = Lease {
        ttl: 100,
        remaining: 3,
    };
    let whole = Lease {
        ttl: 10,
        remaining: 0,
    };
    let leases = [(id(1), whole), (id(2), resumed)];
    let mut lessor = Lessor::<u32>::new(options(), leases.into_iter());
    lessor.promote(at(50));
    let found = |granted, left| Lookup::Found { granted, left };
    // Known before a turn has come to them, and the same afterwards.
    for _ in 0..2 {
        assert_eq!(lessor.lookup(at(50), id(1)), found(10, 11));
        assert_eq!(lessor.lookup(at(50), id(2)), found(100, 4));
        turns(&mut lessor, at(50));
    }
    assert_eq!(turns(&mut lessor, at(54)), [id(2)]);
    assert_eq!(turns(&mut lessor, at(61)), [id(1)]);
}

#[test]
fn a_promotion_spreads_what_would_end_together() {
    let count = SPREAD_PER_SECOND as i64 * 2 + 5;
    let mut lessor = follower(options(), count, TTL);
    lessor.promote(Duration::ZERO);
    turns(&mut lessor, Duration::ZERO);
    let mut per_second = BTreeMap::new();
    for n in 1..=count {
        let Lookup::Found { left, .. } = lessor.lookup(Duration::ZERO, id(n)) else {
            panic!("lease {n} is gone")
        };
        *per_second.entry(left).or_insert(0) += 1;
    }
    let full = SPREAD_PER_SECOND;
    assert_eq!(
        per_second,
        BTreeMap::from([(11, full), (12, full), (13, 5)])
    );
    // A renewal ends that: the lease has its own time again.
    assert_eq!(
        renew(&mut lessor, at(1), count),
        Renewal::Renewed { ttl: TTL }
    );
    assert_eq!(lessor.leases[&id(count)].queued, Some(at(11)));
    lessor.check_invariants();
}

#[test]
fn a_promotion_does_a_bounded_piece_at_a_time() {
    let last = ARMED_PER_TURN as i64 * 2 + 1;
    let mut lessor = follower(options(), last, TTL);
    lessor.promote(Duration::ZERO);
    // What is renewed before its turn has its deadline already.
    assert_eq!(
        renew(&mut lessor, at(5), last),
        Renewal::Renewed { ttl: TTL }
    );
    for armed in [
        ARMED_PER_TURN + 1,
        2 * ARMED_PER_TURN + 1,
        2 * ARMED_PER_TURN + 1,
    ] {
        assert!(lessor.is_behind());
        assert_eq!(lessor.turn(at(5)), Turn::default());
        lessor.check_invariants();
        assert_eq!(lessor.endings.len(), armed);
    }
    assert!(!lessor.is_behind());
    assert!(!turns(&mut lessor, ms(14_999)).contains(&id(last)));
}

#[test]
fn a_demotion_forgets_every_deadline_and_lets_the_waiting_go() {
    let mut lessor = primary(checkpointing());
    for n in 1..=3 {
        lessor.granted(Duration::ZERO, id(n), 400);
    }
    lessor.granted(Duration::ZERO, id(4), TTL);
    assert_eq!(turns(&mut lessor, at(10)), [id(4)]);
    assert_eq!(renew(&mut lessor, at(11), 4), Renewal::Ended);
    assert_eq!(lessor.demote(), [7]);
    lessor.check_invariants();
    assert!(!lessor.is_primary() && !lessor.is_behind());
    // Neither endings nor checkpoints (etcd PR 14087).
    assert_eq!(lessor.turn(at(1000)), Turn::default());
    assert_eq!(lessor.lookup(at(11), id(4)), Lookup::NotPrimary);
    assert!(lessor.demote().is_empty(), "once");
    // The next leader may as well be this member; the lease was not revoked, so it lives again.
    lessor.promote(at(1000));
    assert_eq!(
        renew(&mut lessor, at(1001), 4),
        Renewal::Renewed { ttl: TTL }
    );
    lessor.check_invariants();
}

#[test]
fn a_revocation_of_the_old_term_may_still_be_applied() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    assert_eq!(turns(&mut lessor, at(10)), [id(1)]);
    lessor.demote();
    assert!(!lessor.revoked(id(1)).ended, "nobody counts it as its own");
    lessor.promote(at(11));
    lessor.check_invariants();
    assert_eq!(renew(&mut lessor, at(11), 1), Renewal::Unknown);
}

#[test]
fn a_renewal_gives_the_whole_time_from_now() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    for second in 1..100 {
        assert_eq!(
            renew(&mut lessor, at(second), 1),
            Renewal::Renewed { ttl: TTL }
        );
        assert_eq!(turns(&mut lessor, at(second)), []);
    }
    assert_eq!(
        lessor.lookup(at(99), id(1)),
        Lookup::Found {
            granted: TTL,
            left: TTL
        }
    );
    assert_eq!(turns(&mut lessor, ms(108_999)), []);
    assert_eq!(turns(&mut lessor, at(109)), [id(1)]);
}

#[test]
fn a_renewal_of_an_unknown_lease_says_so() {
    assert_eq!(renew(&mut primary(options()), at(1), 1), Renewal::Unknown);
}

#[test]
fn a_renewal_after_the_end_waits_until_the_lease_is_revoked() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    // Whether it was handed out for revocation or not yet.
    assert_eq!(renew(&mut lessor, at(10), 1), Renewal::Ended);
    assert_eq!(turns(&mut lessor, at(10)), [id(1)]);
    assert_eq!(renew(&mut lessor, at(11), 1), Renewal::Ended);
    // Also if the clock was read before the turn.
    assert_eq!(renew(&mut lessor, ms(9_999), 1), Renewal::Ended);
    lessor.check_invariants();
    let revoked = lessor.revoked(id(1));
    assert_eq!(
        revoked,
        Revoked {
            ended: true,
            waiting: vec![7, 7, 7]
        }
    );
    assert_eq!(renew(&mut lessor, at(12), 1), Renewal::Unknown);
    lessor.check_invariants();
}

#[test]
fn a_renewal_first_takes_back_what_a_checkpoint_has_left() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), 1000);
    lessor.checkpointed(at(300), id(1), 700);
    assert_eq!(renew(&mut lessor, at(400), 1), Renewal::Checkpointed);
    lessor.checkpointed(at(401), id(1), 0);
    assert_eq!(
        renew(&mut lessor, at(401), 1),
        Renewal::Renewed { ttl: 1000 }
    );
    lessor.demote();
    lessor.promote(at(500));
    assert_eq!(
        lessor.lookup(at(500), id(1)),
        Lookup::Found {
            granted: 1000,
            left: 1001
        }
    );
}

#[test]
fn time_to_live_is_whole_seconds_truncated_toward_zero() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    for (now, left) in [
        (0, 10),
        (1, 9),
        (999, 9),
        (1000, 9),
        (9_001, 0),
        (10_000, 0),
        (10_999, 0),
        (11_000, -1),
        (12_500, -2),
    ] {
        assert_eq!(
            lessor.lookup(ms(now), id(1)),
            Lookup::Found { granted: TTL, left },
            "after {now} ms"
        );
    }
    assert_eq!(lessor.lookup(at(1), id(2)), Lookup::Unknown);
}

#[test]
fn the_list_says_when_leases_end() {
    let mut lessor = follower(options(), 2, TTL);
    assert_eq!(lessor.list(), [(None, id(1)), (None, id(2))]);
    lessor.promote(Duration::ZERO);
    lessor.granted(at(1), id(-5), 3);
    renew(&mut lessor, at(20), 1);
    let expected = [(at(4), -5), (at(11), 1), (at(11), 2)];
    assert_eq!(lessor.list(), expected.map(|(end, n)| (Some(end), id(n))));
}

#[test]
fn a_lease_is_handed_out_once() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    assert_eq!(turns(&mut lessor, at(10)), [id(1)]);
    assert_eq!(turns(&mut lessor, at(1000)), []);
}

#[test]
fn a_revocation_that_did_not_reach_the_log_is_tried_again_later() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    assert_eq!(turns(&mut lessor, at(10)), [id(1)]);
    lessor.put_off(at(11), id(1));
    lessor.check_invariants();
    // It is still over for whoever wants to renew it.
    assert_eq!(renew(&mut lessor, at(12), 1), Renewal::Ended);
    assert_eq!(turns(&mut lessor, ms(17_999)), []);
    assert_eq!(turns(&mut lessor, at(18)), [id(1)]);
    // Of a lease that is gone, or was not handed out, nothing is left to try.
    lessor.revoked(id(1));
    lessor.put_off(at(19), id(1));
    lessor.granted(at(20), id(1), TTL);
    lessor.put_off(at(20), id(1));
    lessor.check_invariants();
    assert_eq!(turns(&mut lessor, at(29)), []);
}

#[test]
fn an_id_that_is_granted_again_is_a_new_lease() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), TTL);
    assert!(!lessor.revoked(id(1)).ended, "somebody asked for it");
    lessor.granted(at(5), id(1), TTL);
    assert_eq!(turns(&mut lessor, at(14)), []);
    assert_eq!(lessor.endings.len(), 1, "nothing is left of the old one");
    assert_eq!(turns(&mut lessor, at(15)), [id(1)]);
}

#[test]
fn leases_that_end_together_drain_twelve_thousand_a_second() {
    let mut lessor = primary(options());
    let count = 60_000;
    for n in 1..=count {
        lessor.granted(Duration::ZERO, id(n), TTL);
    }
    lessor.turn(ms(9_900));
    let gone = drain(&mut lessor, at(10), at(20));
    assert_eq!(gone.len(), count as usize);
    let until = |time: Duration| gone.partition_point(|(at, _)| *at <= time);
    // What was saved up before, then by the rate.
    assert!(until(at(10)) <= 1_800, "{}", until(at(10)));
    for second in 11..=14 {
        let expected = 12_000 * (second as usize - 10);
        let drained = until(at(second));
        assert!(
            (expected..=expected + 1_800).contains(&drained),
            "{drained} after {second} s"
        );
    }
    assert_eq!(until(at(15)), count as usize);
}

#[test]
fn one_turn_and_all_turns_together_are_bounded() {
    let mut lessor = primary(options());
    for n in 1..=5000 {
        lessor.granted(Duration::ZERO, id(n), TTL);
    }
    assert_eq!(lessor.turn(at(10)).revoke.len(), REVOKES_PER_TURN);
    // Nothing is applied: the disk is slow.
    let mut handed_out = REVOKES_PER_TURN;
    for tick in 0..50 {
        handed_out += turns(&mut lessor, at(10) + ms(100) * tick).len();
    }
    assert_eq!(handed_out, MAX_REVOKING);
    lessor.revoked(id(1));
    assert!(lessor.is_behind());
    assert_eq!(turns(&mut lessor, at(15)), [id(MAX_REVOKING as i64 + 1)]);
}

#[test]
fn what_was_renewed_does_not_make_a_turn_longer() {
    let mut lessor = primary(options());
    let count = LOOKS_PER_TURN as i64 + 10;
    for n in 1..=count {
        lessor.granted(Duration::ZERO, id(n), TTL);
        renew(&mut lessor, at(5), n);
    }
    assert_eq!(lessor.turn(at(10)), Turn::default());
    assert!(lessor.is_behind());
    assert_eq!(turns(&mut lessor, at(10)), []);
}

#[test]
fn long_leases_are_checkpointed_every_interval() {
    let mut lessor = primary(checkpointing());
    lessor.granted(Duration::ZERO, id(1), 1000);
    lessor.granted(Duration::ZERO, id(2), 300);
    assert_eq!(lessor.turn(ms(299_999)).checkpoint, []);
    // Rounded up: a later leader must not end it too early.
    assert_eq!(lessor.turn(ms(300_500)).checkpoint, [(id(1), 700)]);
    // The next one is planned when this one is applied.
    assert_eq!(lessor.turn(at(900)).checkpoint, []);
    lessor.revoked(id(2));
    lessor.checkpointed(at(301), id(1), 700);
    assert_eq!(lessor.turn(at(601)).checkpoint, [(id(1), 399)]);
    lessor.checkpointed(at(601), id(1), 399);
    assert_eq!(lessor.turn(at(901)).checkpoint, [(id(1), 99)]);
    // So little is left that no other is needed.
    lessor.checkpointed(at(901), id(1), 99);
    assert_eq!(lessor.checkpoints.len(), 0);
    lessor.check_invariants();
    assert_eq!(turns(&mut lessor, at(1000)), [id(1)]);
}

#[test]
fn no_checkpoint_is_written_of_what_was_renewed_just_now_or_has_ended() {
    let mut lessor = primary(checkpointing());
    lessor.granted(Duration::ZERO, id(1), 400);
    renew(&mut lessor, at(300), 1);
    assert_eq!(lessor.turn(at(300)).checkpoint, []);
    // It is looked at again after another interval.
    assert_eq!(lessor.turn(at(600)).checkpoint, [(id(1), 100)]);

    let mut lessor = primary(checkpointing());
    lessor.granted(Duration::ZERO, id(2), 301);
    let turn = lessor.turn(at(301));
    assert_eq!((turn.revoke, turn.checkpoint), (vec![id(2)], vec![]));
}

#[test]
fn an_entry_holds_a_thousand_checkpoints() {
    let mut lessor = primary(checkpointing());
    for n in 1..=1500 {
        lessor.granted(Duration::ZERO, id(n), 1000);
    }
    let sizes: Vec<_> = (0..2)
        .map(|_| {
            assert!(lessor.is_behind() || lessor.checkpoints.len() == 1500);
            lessor.turn(at(300)).checkpoint.len()
        })
        .collect();
    assert_eq!(sizes, [1000, 500]);
    assert!(!lessor.is_behind());
}

#[test]
fn a_promotion_plans_checkpoints_from_what_is_left() {
    let left = |remaining| Lease {
        ttl: 1000,
        remaining,
    };
    let leases = [(id(1), left(0)), (id(2), left(300)), (id(3), left(301))];
    let mut lessor = Lessor::<u32>::new(checkpointing(), leases.into_iter());
    lessor.promote(Duration::ZERO);
    turns(&mut lessor, Duration::ZERO);
    let checkpoint = lessor.turn(at(300)).checkpoint;
    assert_eq!(checkpoint, [(id(1), 701), (id(3), 2)]);
}

#[test]
fn without_the_feature_nothing_is_checkpointed() {
    let mut lessor = primary(options());
    lessor.granted(Duration::ZERO, id(1), 100_000);
    for hour in 1..10 {
        assert_eq!(lessor.turn(at(3600 * hour)), Turn::default());
    }
}
