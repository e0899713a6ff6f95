//! Cluster version, storage schemas and downgrades, with members of two versions.

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::{InternalRaftRequest, PutRequest};
use ferrite_api::pb::membershippb::DowngradeInfoSetRequest;
use ferrite_api::types::MemberId;
use ferrite_disk::sim::{PowerLoss, SimDisk};
use ferrite_robustness::sim::{Error, SimMember, bootstrap_options, member_options};
use ferrite_server::bootstrap;
use ferrite_server::member::Fatal;
use ferrite_storage::schema;

use crate::group::Group;

const OLD: Version = Version::new(3, 6, 11);
const NEW: Version = Version::RELEASE;

/// Ticks in which whatever is looked at now and then has been looked at.
const A_WHILE: u32 = 60;

fn levels(group: &Group) -> Vec<(Option<Version>, Version)> {
    let members = group.members.values();
    members.map(level).collect()
}

/// Cluster version and schema of a member.
fn level(member: &SimMember) -> (Option<Version>, Version) {
    let state = member.member().state();
    let meta = state.store().page().meta();
    (state.cluster_version(), schema::detect(&meta).unwrap())
}

fn all_at(group: &Group, level: Version) -> bool {
    let level = level.level();
    levels(group).iter().all(|it| *it == (Some(level), level))
}

fn wait(group: &mut Group) {
    for _ in 0..A_WHILE {
        group.tick();
    }
}

fn downgrade(target: Option<Version>) -> InternalRaftRequest {
    InternalRaftRequest {
        downgrade_info_set: Some(DowngradeInfoSetRequest {
            enabled: target.is_some(),
            ver: target.map_or_else(String::new, |target| target.to_string()),
        }),
        ..InternalRaftRequest::default()
    }
}

fn put(key: String) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: Bytes::from(key),
            value: Bytes::from_static(b"v"),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

fn propose(group: &mut Group, request: InternalRaftRequest) {
    let leader = group.leader();
    let leader = group.members.get_mut(&leader).unwrap();
    leader.propose(request).unwrap();
    group.settle();
}

fn ids(group: &Group) -> Vec<MemberId> {
    group.members.keys().copied().collect()
}

/// Restarts every member, the leader last.
fn restart_all(group: &mut Group, release: Version) {
    let leader = group.leader();
    let mut ids = ids(group);
    ids.sort_by_key(|id| *id == leader);
    for id in ids {
        group.kill(id);
        propose_somewhere(group);
        group.start(id, release).unwrap();
        wait(group);
    }
}

/// Two of three go on.
fn propose_somewhere(group: &mut Group) {
    let before = revision(group);
    group.until(|group| {
        let leader = group.leader();
        group
            .members
            .get(&leader)
            .is_some_and(|it| it.member().is_leader())
    });
    propose(group, put(format!("while at {before}")));
    group.until(|group| revision(group) > before);
}

fn revision(group: &Group) -> i64 {
    let members = group.members.values();
    members
        .map(|it| it.published().view().revision)
        .min()
        .unwrap()
}

#[test]
fn a_new_cluster_is_what_all_its_members_can_be() {
    let mut group = Group::of(&[OLD, NEW, NEW]);
    group.until(Group::ready);
    wait(&mut group);
    assert!(all_at(&group, OLD), "{:?}", levels(&group));
    // The last one that is upgraded takes all of it along.
    for id in ids(&group) {
        group.kill(id);
        group.start(id, NEW).unwrap();
        wait(&mut group);
    }
    assert!(all_at(&group, NEW), "{:?}", levels(&group));
}

#[test]
fn while_not_all_members_have_answered_the_first_version_is_the_oldest() {
    let mut group = Group::new(3);
    let missing = ids(&group)[0];
    group.kill(missing);
    group.until(Group::ready);
    wait(&mut group);
    // No schema is that old: it stays what it was.
    let expected = (Some(Version::OLDEST_CLUSTER), NEW.level());
    assert_eq!(levels(&group), [expected; 2]);
    group.start(missing, NEW).unwrap();
    group.until(|group| all_at(group, NEW));
}

#[test]
fn a_member_that_does_not_answer_is_not_waited_for() {
    let mut group = Group::new(3);
    // It is taken for reachable.
    group.away = Some(ids(&group)[2]);
    group.until(|group| {
        let mut others = group
            .members
            .iter()
            .filter(|(id, _)| group.away != Some(**id));
        others.all(|(_, it)| it.published().ready())
    });
    let first = group.members.values().next().unwrap();
    assert_eq!(level(first).0, Some(Version::OLDEST_CLUSTER));
    group.away = None;
    group.until(|group| all_at(group, NEW));
}

#[test]
fn a_rolling_downgrade_and_upgrade() {
    let mut group = Group::new(3);
    group.until(Group::ready);
    assert!(all_at(&group, NEW));
    propose(&mut group, downgrade(Some(OLD.level())));
    group.until(|group| all_at(group, OLD));
    // Nothing goes on by itself until the programs have changed.
    wait(&mut group);
    assert!(all_at(&group, OLD));
    let target = |group: &Group| {
        group
            .members
            .values()
            .next()
            .unwrap()
            .member()
            .state()
            .downgrade()
    };
    assert_eq!(target(&group), Some(OLD.level()));
    restart_all(&mut group, OLD);
    group.until(|group| target(group).is_none());
    wait(&mut group);
    assert!(all_at(&group, OLD), "{:?}", levels(&group));

    restart_all(&mut group, NEW);
    group.until(|group| all_at(group, NEW));
    assert_eq!(target(&group), None);
}

#[test]
fn a_downgrade_that_is_cancelled_comes_to_nothing() {
    let mut group = Group::new(3);
    group.until(Group::ready);
    propose(&mut group, downgrade(Some(OLD.level())));
    group.until(|group| all_at(group, OLD));
    let one = ids(&group)[0];
    group.kill(one);
    group.start(one, OLD).unwrap();
    wait(&mut group);
    propose(&mut group, downgrade(None));
    wait(&mut group);
    // One member is of the version before, so all stay there.
    assert!(all_at(&group, OLD), "{:?}", levels(&group));
    group.kill(one);
    group.start(one, NEW).unwrap();
    group.until(|group| all_at(group, NEW));
}

#[test]
fn a_downgrade_by_two_levels_is_not_begun() {
    let mut group = Group::new(1);
    group.until(Group::ready);
    // The service refuses it; a member that is asked anyway does nothing.
    propose(&mut group, downgrade(Some(Version::new(3, 5, 0))));
    wait(&mut group);
    assert!(all_at(&group, NEW));
}

#[test]
fn an_old_program_refuses_a_new_schema_and_leaves_it_alone() {
    let disk = SimDisk::new(1);
    let mut member = SimMember::boot(&disk, 1).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    drop(member);
    let disk = disk.power_loss(PowerLoss::KeepAll);
    let refused = boot(&disk, 2, OLD).err().unwrap();
    assert!(
        matches!(&refused, Error::Boot(bootstrap::Error::Schema { .. })),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains("version \"3.7.0\" is not supported; this program is 3.6.11"),
        "{text}"
    );
    let disk = disk.power_loss(PowerLoss::LoseAll);
    let member = boot(&disk, 3, NEW).unwrap();
    assert_eq!(level(&member), (Some(NEW.level()), NEW.level()));
}

#[test]
fn a_program_below_the_cluster_version_refuses() {
    let mut group = Group::of(&[OLD, NEW, NEW]);
    group.until(Group::ready);
    wait(&mut group);
    // A leader that does not look: the entry itself is refused.
    let ver = NEW.level().to_string();
    let set = ferrite_api::pb::membershippb::ClusterVersionSetRequest { ver };
    let leader = group.leader();
    let leader = group.members.get_mut(&leader).unwrap();
    leader
        .propose(InternalRaftRequest {
            cluster_version_set: Some(set),
            ..InternalRaftRequest::default()
        })
        .unwrap();
    let failed = group.try_settle().unwrap_err();
    assert!(
        matches!(&failed, Error::Fatal(Fatal::InvalidDowngrade(_))),
        "{failed}"
    );
    let text = failed.to_string();
    let expected = "invalid downgrade; server version is lower than determined cluster version";
    assert!(text.starts_with(expected), "{text}");
}

fn boot(disk: &SimDisk, life: u64, release: Version) -> Result<SimMember, Error> {
    let mut bootstrap = bootstrap_options();
    bootstrap.release = release;
    let mut options = member_options();
    options.release = release;
    // Everything is looked at soon.
    options.version_ticks = 2;
    options.downgrade_check_ticks = 2;
    SimMember::boot_as(disk, life, &bootstrap, options)
}

/// Goes on until a member is where it is to come to.
fn settle(member: &mut SimMember, target: Version, context: &str) {
    for _ in 0..A_WHILE {
        if level(member) == (Some(target.level()), target.level()) {
            return;
        }
        member
            .tick()
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    panic!("{context}: {:?}", level(member));
}

/// A member that goes down and up again, with power losses at every operation of the disk on the way.
#[test]
fn power_loss_at_every_operation_of_a_migration() {
    let disk = SimDisk::new(3);
    let mut member = boot(&disk, 1, NEW).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    for n in 0..10 {
        member.propose(put(format!("k{n}"))).unwrap();
        member.carry_out().unwrap();
    }
    drop(member);
    let disk = disk.power_loss(PowerLoss::KeepAll);

    let down = disk.fork();
    down.start_recording();
    let mut member = boot(&down, 2, NEW).unwrap();
    while !member.published().ready() {
        member.tick().unwrap();
    }
    member.propose(downgrade(Some(OLD.level()))).unwrap();
    member.carry_out().unwrap();
    let begun = down.op_count();
    settle(&mut member, OLD, "undisturbed");
    drop(member);
    crash(&down, begun, &|crashed, context| {
        // Cut off in the middle, the file is of one schema or the other; an old program starts on one
        // and refuses the other.
        let found = match boot(&crashed.fork(), 3, OLD) {
            Ok(mut member) => {
                settle(&mut member, OLD, context);
                OLD
            }
            Err(Error::Boot(
                bootstrap::Error::Schema { .. } | bootstrap::Error::InvalidDowngrade(_),
            )) => NEW,
            Err(error) => panic!("{context}: {error}"),
        };
        let mut member = boot(crashed, 3, NEW).unwrap();
        assert_eq!(level(&member).1, found.level(), "{context}");
        settle(&mut member, OLD, context);
        check(&member, context);
    });

    let down = down.power_loss(PowerLoss::KeepAll);
    let mut member = boot(&down, 3, OLD).unwrap();
    for _ in 0..A_WHILE {
        member.tick().unwrap();
    }
    assert_eq!(member.member().state().downgrade(), None);
    drop(member);
    let up = down.power_loss(PowerLoss::KeepAll);
    up.start_recording();
    let begun = up.op_count();
    settle(&mut boot(&up, 4, NEW).unwrap(), NEW, "undisturbed");
    crash(&up, begun, &|crashed, context| {
        let mut member = boot(crashed, 5, NEW).unwrap();
        assert!(level(&member).1 >= OLD.level(), "{context}");
        settle(&mut member, NEW, context);
        check(&member, context);
    });
}

/// Shows what power losses leave of a recorded run, from operation `from` on.
fn crash(disk: &SimDisk, from: u64, look: &dyn Fn(&SimDisk, &str)) {
    let mut history = disk.history();
    let from = usize::try_from(from).unwrap();
    assert!(history.len() > from + 5, "the disk has little to do");
    for k in from..=history.len() {
        for policy in [
            PowerLoss::LoseAll,
            PowerLoss::KeepAll,
            PowerLoss::Random(k as u64),
        ] {
            let crashed = history.power_loss_at(k, policy);
            look(&crashed, &format!("operation {k}, {policy:?}"));
        }
    }
}

fn check(member: &SimMember, context: &str) {
    let view = member.published().view();
    for n in 0..10 {
        let key = format!("k{n}");
        assert!(
            view.index.latest(key.as_bytes()).is_some(),
            "{context}: {key}"
        );
    }
}
