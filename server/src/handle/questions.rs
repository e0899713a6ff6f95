//! What members ask each other on behalf of a client, beside proposals: what only the leader knows.

use std::time::Duration;

use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::{LeaseId, MemberId};
use prost::Message;
use tonic::Code;

use super::Handle;
use crate::error::Error;

/// A question to the leader.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Question {
    /// Renew this lease.
    #[prost(int64, tag = "1")]
    Renew(i64),
    /// What is left of a lease?
    #[prost(message, tag = "2")]
    TimeToLive(pb::LeaseTimeToLiveRequest),
    /// Make this learner a voter.
    #[prost(uint64, tag = "3")]
    Promote(u64),
}

/// The leader's answer.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Answer {
    /// The error for the client.
    #[prost(message, tag = "1")]
    Failed(Failed),
    /// The asked member does not lead: ask again, somebody else.
    #[prost(bool, tag = "2")]
    NotLeader(bool),
    /// The time to live of the renewed lease, seconds; 0 if there is none.
    #[prost(int64, tag = "3")]
    Renewed(i64),
    /// What is left of the lease. The header is the asked member's.
    #[prost(message, tag = "4")]
    TimeToLive(pb::LeaseTimeToLiveResponse),
    /// All members, after the promotion.
    #[prost(message, tag = "5")]
    Promoted(pb::MemberPromoteResponse),
}

/// An [`Error`], as it goes from member to member.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Failed {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(oneof = "Question", tags = "1, 2, 3")]
    question: Option<Question>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answered {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4, 5")]
    answer: Option<Answer>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            code: error.code() as i32,
            text: error.message().into_owned(),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match ApiError::from_message(&failed.text) {
            Some(error) => error.into(),
            None => Error::status(Code::from_i32(failed.code), failed.text),
        }
    }
}

impl Handle {
    /// Asks the member that leads. `None`: it has not answered in time, cannot be reached, or does
    /// not lead; whatever was asked for may have happened.
    ///
    /// # Errors
    /// Its error.
    pub(super) async fn ask_leader(
        &self,
        leader: u64,
        question: Question,
        patience: Duration,
    ) -> Result<Option<Answer>, Error> {
        let Some(peers) = &self.inner.peers else {
            return Ok(None);
        };
        let question = Some(question);
        let asked = Bytes::from(Asked { question }.encode_to_vec());
        let answer = peers.ask(MemberId::new(leader), asked);
        let Ok(Ok(answer)) = tokio::time::timeout(patience, answer).await else {
            return Ok(None);
        };
        match Answered::decode(answer).map(|answered| answered.answer) {
            Ok(Some(Answer::Failed(failed))) => Err(failed.into()),
            Ok(Some(Answer::NotLeader(_)) | None) => Ok(None),
            Ok(Some(answer)) => Ok(Some(answer)),
            Err(error) => {
                tracing::warn!(%error, "the leader's answer does not decode");
                Ok(None)
            }
        }
    }

    /// Answers a question of another member.
    pub(crate) async fn answer(&self, question: Bytes) -> Bytes {
        let answer = match Asked::decode(question).map(|asked| asked.question) {
            Ok(Some(question)) => self.answer_to(question).await,
            Ok(None) => Err(Error::status(Code::Unimplemented, "unknown question")),
            Err(error) => Err(Error::status(Code::Internal, error.to_string())),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(error.into()));
        let answer = Some(answer);
        Bytes::from(Answered { answer }.encode_to_vec())
    }

    async fn answer_to(&self, question: Question) -> Result<Answer, Error> {
        if !self.leads() {
            return Ok(Answer::NotLeader(true));
        }
        Ok(match question {
            Question::Renew(id) => match self.renew_here(LeaseId::new(id)).await? {
                Some(ttl) => Answer::Renewed(ttl),
                None => Answer::NotLeader(true),
            },
            Question::TimeToLive(request) => {
                Answer::TimeToLive(self.time_to_live_here(request).await?)
            }
            Question::Promote(id) => Answer::Promoted(self.promote_here(id).await?),
        })
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.leader() == self.inner.member_id.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_arrive_as_they_were() {
        let errors = [
            Error::Api(ApiError::LearnerNotReady),
            Error::Api(ApiError::MemberNotEnoughStarted),
            Error::status(Code::Unknown, "not a primary lessor"),
        ];
        for error in errors {
            assert_eq!(Error::from(Failed::from(error.clone())), error);
        }
    }
}
