//! Changes of the membership and of the leadership (spec cluster.md section 3).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::membershippb::{Member, RaftAttributes};
use ferrite_api::types::MemberId;
use ferrite_storage::membership::{MAX_CHANGE_BYTES, MembershipAction, MembershipChange};

use super::questions::{Answer, Question};
use super::{Handle, mixed_up};
use crate::bootstrap;
use crate::config::Url;
use crate::error::Error;
use crate::member::{Input, Reply};

impl Handle {
    /// Cluster.MemberAdd.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_add(
        &self,
        request: pb::MemberAddRequest,
    ) -> Result<pb::MemberAddResponse, Error> {
        let urls: Result<Vec<Url>, String> = request
            .peer_ur_ls
            .iter()
            .map(|url| Url::parse(url))
            .collect();
        let mut peer_urls: Vec<String> = match urls {
            Ok(urls) if !urls.is_empty() => {
                urls.iter().map(|url| url.as_str().to_owned()).collect()
            }
            _ => return Err(ApiError::MemberBadURLs.into()),
        };
        self.check_admin().await?;
        peer_urls.sort_unstable();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let member = Member {
            // The time stands where the token stands at the bootstrap, so that a member which was
            // removed can come back under another id.
            id: bootstrap::member_id(&peer_urls, &now.as_secs().to_string()).get(),
            raft_attributes: Some(RaftAttributes {
                peer_urls: peer_urls.clone(),
                is_learner: request.is_learner,
            }),
            member_attributes: None,
        };
        let added = pb::Member {
            id: member.id,
            peer_ur_ls: peer_urls,
            is_learner: request.is_learner,
            ..pb::Member::default()
        };
        let members = self
            .change_members(MembershipAction::Add { member })
            .await?;
        Ok(pb::MemberAddResponse {
            header: Some(self.header(0)),
            member: Some(added),
            members,
        })
    }

    /// Cluster.MemberRemove.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_remove(
        &self,
        request: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, Error> {
        self.check_admin().await?;
        let id = MemberId::new(request.id);
        let members = self.change_members(MembershipAction::Remove { id }).await?;
        Ok(pb::MemberRemoveResponse {
            header: Some(self.header(0)),
            members,
        })
    }

    /// Cluster.MemberUpdate.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_update(
        &self,
        request: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, Error> {
        self.check_admin().await?;
        let action = MembershipAction::Update {
            id: MemberId::new(request.id),
            peer_urls: request.peer_ur_ls,
        };
        let members = self.change_members(action).await?;
        Ok(pb::MemberUpdateResponse {
            header: Some(self.header(0)),
            members,
        })
    }

    /// Cluster.MemberPromote. The leader alone knows how far the learner is; others ask it.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn member_promote(
        &self,
        request: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, Error> {
        self.check_admin().await?;
        let give_up = Instant::now() + self.inner.limits.request_timeout;
        loop {
            let leader = self.leader();
            if self.leads() {
                return self.promote_here(request.id).await;
            }
            if leader != 0 {
                let left = give_up.saturating_duration_since(Instant::now());
                let question = Question::Promote(request.id);
                match self.ask_leader(leader, question, left).await {
                    Ok(Some(Answer::Promoted(mut response))) => {
                        response.header = Some(self.header(0));
                        return Ok(response);
                    }
                    Ok(Some(_)) => return Err(mixed_up()),
                    // Another one leads by now, or will.
                    Ok(None) | Err(Error::Api(ApiError::NotLeader)) => {}
                    Err(error) => return Err(error),
                }
            }
            self.look_again(give_up).await?;
        }
    }

    /// As [`Handle::member_promote`], on the leader.
    pub(super) async fn promote_here(&self, id: u64) -> Result<pb::MemberPromoteResponse, Error> {
        let id = MemberId::new(id);
        self.await_applied().await?;
        let promoted = self.change_members(MembershipAction::Promote { id }).await;
        let metrics = &self.inner.metrics.server;
        match &promoted {
            Ok(_) => metrics.learner_promote_successes.inc(),
            Err(Error::Api(ApiError::NotLeader)) => {}
            Err(error) => {
                let failures = &metrics.learner_promote_failures;
                failures.with_label_values(&[&reason(error)]).inc();
            }
        }
        Ok(pb::MemberPromoteResponse {
            header: Some(self.header(0)),
            members: promoted?,
        })
    }

    /// Maintenance.MoveLeader. The answer has no header.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn move_leader(
        &self,
        request: pb::MoveLeaderRequest,
    ) -> Result<pb::MoveLeaderResponse, Error> {
        self.check_admin().await?;
        let to = MemberId::new(request.target_id);
        match self.ask(|waiter| Input::MoveLeader { to, waiter }).await? {
            Reply::Done => Ok(pb::MoveLeaderResponse::default()),
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }

    /// Changes the membership: all members after it.
    async fn change_members(&self, action: MembershipAction) -> Result<Vec<pb::Member>, Error> {
        let change = MembershipChange {
            request: self.inner.ids.next(),
            action,
        };
        if change.encode().len() > MAX_CHANGE_BYTES {
            return Err(ApiError::RequestTooLarge.into());
        }
        match self
            .ask(|waiter| Input::ChangeMembers { change, waiter })
            .await?
        {
            Reply::Applied(applied) => {
                applied.result?;
                Ok(self.inner.published.cluster().members.to_api())
            }
            Reply::Failed(error) => Err(error),
            _ => Err(mixed_up()),
        }
    }
}

/// Why a promotion has failed, in the words of etcd's metric: those of its error before it gets the text of
/// the API.
fn reason(error: &Error) -> String {
    match error {
        Error::Api(ApiError::MemberNotLearner) => {
            "membership: can only promote a learner member".to_owned()
        }
        Error::Api(ApiError::MemberNotFound) => "membership: ID not found".to_owned(),
        error => error.to_string(),
    }
}
