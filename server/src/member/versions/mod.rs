//! The leader finds out which versions the members are of, decides the cluster version, and ends
//! downgrades that are done.
//!
//! ```text
//!   first entry of the term, every 4 s ─┐                       ┌─▶ ClusterVersionSet
//!   every downgrade-check-time ─────────┴─▶ a round of questions ┴─▶ DowngradeInfoSet, off
//! ```
//!
//! Questions and answers are [`Message`]s, so they can be lost. A member that cannot be reached, or has
//! not answered in an election timeout, is of an unknown version; then nothing changes, unless the cluster
//! has no version yet.

mod rules;

use std::collections::BTreeMap;

use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_api::pb::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use ferrite_api::types::{MemberId, RequestId};

use super::Member;
use crate::peer::Message;
use rules::{Decision, From, decide};

/// What the leader knows of the members' versions.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Questions and answers of one round have the same number.
    number: u64,
    round: Option<Round>,
    /// Ticks before which there is no next round for the cluster version, and for the downgrade.
    decide_at: u64,
    end_at: u64,
    /// The newest proposal of a cluster version.
    proposed: Option<(RequestId, Version)>,
}

/// Members being asked.
#[derive(Debug)]
struct Round {
    /// Every other member, and its version once it has answered.
    answers: BTreeMap<MemberId, Option<Version>>,
    /// Who does not answer before this tick is not waited for.
    deadline: u64,
    /// What it is for: the cluster version, the end of a downgrade.
    decides: bool,
    ends: bool,
}

impl Survey {
    /// This member does not lead any more.
    pub(super) fn give_up(&mut self) {
        self.round = None;
        self.proposed = None;
    }
}

impl<T> Member<T> {
    /// Begins what time has brought, and ends what takes too long.
    pub(super) fn tick_survey(&mut self) {
        if self.leading.is_none() {
            return;
        }
        let decides = self.now >= self.survey.decide_at;
        let check_ticks = self.options.downgrade_check_ticks;
        let ends =
            check_ticks > 0 && self.now >= self.survey.end_at && self.state.downgrade().is_some();
        if decides || ends {
            self.begin_survey(decides, ends);
        }
        let over = |round: &Round| round.deadline <= self.now;
        if self.survey.round.as_ref().is_some_and(over) {
            self.end_survey();
        }
    }

    /// Asks all members for their versions, for one purpose or both.
    pub(super) fn begin_survey(&mut self, decides: bool, ends: bool) {
        if decides {
            self.survey.decide_at = self.now + self.options.version_ticks;
        }
        if ends {
            self.survey.end_at = self.now + self.options.downgrade_check_ticks;
        }
        if let Some(round) = &mut self.survey.round {
            round.decides |= decides;
            round.ends |= ends;
            return;
        }
        self.survey.number += 1;
        let number = self.survey.number;
        let own = self.state.member_id();
        let members = self.state.members().iter();
        let others = members.map(|member| MemberId::new(member.id));
        let others: Vec<MemberId> = others.filter(|id| *id != own).collect();
        let mut awaited = false;
        for id in &others {
            // To others it would be lost.
            if self.links.is_up(*id) {
                awaited = true;
                self.say(*id, Message::VersionQuestion { number });
            }
        }
        self.survey.round = Some(Round {
            answers: others.into_iter().map(|id| (id, None)).collect(),
            deadline: self.now + self.options.election_ticks,
            decides,
            ends,
        });
        if !awaited {
            self.end_survey();
        }
    }

    /// Another member, which leads, asks.
    pub(super) fn version_asked(&mut self, from: MemberId, number: u64) {
        let version = self.options.release;
        self.say(from, Message::VersionAnswer { number, version });
    }

    /// Another member has answered.
    pub(super) fn version_answered(&mut self, from: MemberId, number: u64, version: Version) {
        let Some(round) = &mut self.survey.round else {
            return;
        };
        if number != self.survey.number {
            return;
        }
        if let Some(answer) = round.answers.get_mut(&from) {
            *answer = Some(version);
        }
        // Those that cannot be reached have nothing to say.
        let links = &self.links;
        let awaited =
            |(id, answer): (&MemberId, &Option<Version>)| answer.is_none() && links.is_up(*id);
        if !round.answers.iter().any(awaited) {
            self.end_survey();
        }
    }

    fn end_survey(&mut self) {
        let (Some(round), Some(term)) = (self.survey.round.take(), self.leading) else {
            return;
        };
        let own = (self.state.member_id(), self.options.release);
        let versions: Option<BTreeMap<MemberId, Version>> = round
            .answers
            .iter()
            .map(|(id, version)| Some((*id, (*version)?)))
            .chain([Some(own)])
            .collect();
        for (id, version) in &round.answers {
            match version {
                None => tracing::warn!("remote-member-id" = %id, "failed to get version"),
                Some(version) if *version > own.1 && round.decides => tracing::warn!(
                    "local-member-version" = %own.1,
                    "remote-member-id" = %id,
                    "remote-member-version" = %version,
                    "leader found higher-versioned member"
                ),
                Some(_) => {}
            }
        }
        if round.decides {
            let lowest = versions.as_ref().and_then(|all| all.values().min());
            self.decide_cluster_version(term, lowest.copied());
        }
        if round.ends
            && let Some(versions) = versions
        {
            self.end_downgrade(term, &versions);
        }
    }

    fn decide_cluster_version(&mut self, term: u64, lowest: Option<Version>) {
        let cluster = self.state.cluster_version();
        let version = match decide(cluster, lowest, self.state.downgrade()) {
            Decision::Keep => return,
            Decision::Set(version) => version,
            Decision::CannotDowngrade { from, target } => {
                match from {
                    From::Cluster(from) => tracing::error!(
                        "downgrade-target" = %target,
                        "cluster-version" = %from,
                        "Cannot downgrade from cluster-version to downgrade-target"
                    ),
                    From::Members(from) => tracing::error!(
                        "downgrade-target" = %target,
                        "minimal-server-version" = %from,
                        "Cannot downgrade from minimal-server-version to downgrade-target"
                    ),
                }
                tracing::error!(
                    error = "invalid downgrade target",
                    "Failed to monitor cluster version"
                );
                return;
            }
        };
        match cluster {
            None => tracing::info!(
                "cluster-version" = version.short(),
                "setting up initial cluster version using v3 API"
            ),
            Some(from) => tracing::info!(
                from = from.short(),
                to = version.short(),
                "updating cluster version using v3 API"
            ),
        }
        let ver = version.to_string();
        let request = InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest { ver }),
            ..InternalRaftRequest::default()
        };
        let proposed = self.propose_as_leader(term, None, request);
        self.survey.proposed = Some((proposed, version));
    }

    /// Notes that a request was applied.
    pub(super) fn note_cluster_version(&mut self, request: RequestId) {
        if let Some((proposed, version)) = self.survey.proposed
            && proposed == request
        {
            self.survey.proposed = None;
            tracing::info!(
                "cluster-version" = version.short(),
                "cluster version is updated"
            );
        }
    }

    /// Ends the downgrade under way if all members are at its target.
    fn end_downgrade(&mut self, term: u64, versions: &BTreeMap<MemberId, Version>) {
        let Some(target) = self.state.downgrade() else {
            return;
        };
        for (id, version) in versions {
            if version.level() != target.level() {
                tracing::warn!(
                    "remote-member-id" = %id,
                    "current-server-version" = %version.level(),
                    "target-version" = %target,
                    "remotes server has mismatching etcd version"
                );
                return;
            }
        }
        tracing::info!("cluster-version" = %target, "the cluster has been downgraded");
        let request = InternalRaftRequest {
            downgrade_info_set: Some(DowngradeInfoSetRequest::default()),
            ..InternalRaftRequest::default()
        };
        self.propose_as_leader(term, None, request);
    }
}
