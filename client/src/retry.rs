//! When a failed call is repeated (`spec/client.md` section 4).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use ferrite_api::Error as EtcdError;
use tonic::Code;

use crate::Error;

pub(crate) const MAX_ATTEMPTS: u32 = 100;
pub(crate) const INTERVAL: Duration = Duration::from_millis(25);

/// How safe it is to send a call twice. Every call of the API has one.
///
/// | Failure | Repeatable | NonRepeatable | Never |
/// |---|---|---|---|
/// | nothing was sent (no connection, the server says it did not process it) | again | again | again |
/// | `rpc not supported for learner`, several endpoints | again | again | – |
/// | Unavailable; Canceled or DeadlineExceeded not from our own deadline | again | – | – |
/// | anything else | – | – | – |
///
/// Deviation: etcd's Go client repeats *every* call that ended with Canceled or DeadlineExceeded
/// while the caller's own context lives, writes included. Such a write may have happened, so it
/// is returned to the caller here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Doing it twice is harmless: reads, and the few writes that are idempotent.
    Repeatable,
    /// A second execution would be visible: only repeated when the first certainly did not happen.
    NonRepeatable,
    /// Streams, which have their own rules for going on after a failure.
    Never,
}

impl Policy {
    /// Whether a call of this class that failed with `error` is sent again. That nothing was sent
    /// is not seen here: such failures never reach the policy.
    pub(crate) fn retries(self, error: &Error, endpoints: usize) -> bool {
        if self == Policy::Never {
            return false;
        }
        if error.etcd() == Some(EtcdError::NotSupportedForLearner) {
            // The learner executed nothing; a voter may be next in the round.
            return endpoints > 1;
        }
        match error {
            Error::Etcd(_) | Error::Status(_) => {
                self == Policy::Repeatable
                    && matches!(
                        error.code(),
                        Some(Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded)
                    )
            }
            Error::DeadlineExceeded { .. }
            | Error::Connect { .. }
            | Error::KeepAliveLost { .. }
            | Error::NoGreaterRevision
            | Error::WatchRefused(_)
            | Error::Cache(_)
            | Error::Recipe(_)
            | Error::OldCluster
            | Error::NoEndpoints
            | Error::InvalidEndpoint { .. }
            | Error::InvalidConfig(_) => false,
        }
    }
}

/// The pause before attempt `attempt` (from 1): one after every quorum of endpoints was tried.
pub(crate) fn pause(attempt: u32, endpoints: usize, interval: Duration) -> Duration {
    let quorum = u32::try_from(endpoints / 2 + 1).unwrap_or(u32::MAX);
    if attempt.is_multiple_of(quorum) {
        jittered(interval, 0.10)
    } else {
        Duration::ZERO
    }
}

/// `duration` changed by up to ± `fraction`, so that clients do not come back in step.
pub(crate) fn jittered(duration: Duration, fraction: f64) -> Duration {
    // The only randomness a client needs: the standard library's per-process hash seeds.
    let random = RandomState::new().build_hasher().finish();
    let unit = (random >> 11) as f64 / (1u64 << 53) as f64;
    duration.mul_f64(1.0 + fraction * (2.0 * unit - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn the_table() {
        let unavailable = || Error::Etcd(EtcdError::Timeout);
        let cancelled = || Error::from(Status::cancelled("context canceled"));
        let late = || Error::from(Status::deadline_exceeded("context deadline exceeded"));
        let learner = || Error::Etcd(EtcdError::NotSupportedForLearner);
        let refused = || Error::Etcd(EtcdError::EmptyKey);
        for (policy, error, endpoints, expected) in [
            (Policy::Repeatable, unavailable(), 1, true),
            (Policy::Repeatable, cancelled(), 1, true),
            (Policy::Repeatable, late(), 1, true),
            (Policy::Repeatable, refused(), 3, false),
            (Policy::Repeatable, learner(), 1, false),
            (Policy::Repeatable, learner(), 2, true),
            (Policy::NonRepeatable, unavailable(), 3, false),
            (Policy::NonRepeatable, cancelled(), 3, false),
            (Policy::NonRepeatable, late(), 3, false),
            (Policy::NonRepeatable, learner(), 1, false),
            (Policy::NonRepeatable, learner(), 2, true),
            (Policy::Never, unavailable(), 3, false),
            (Policy::Never, learner(), 3, false),
            (
                Policy::Repeatable,
                Error::DeadlineExceeded { last: None },
                3,
                false,
            ),
        ] {
            assert_eq!(
                policy.retries(&error, endpoints),
                expected,
                "{policy:?} {error}"
            );
        }
    }

    #[test]
    fn one_pause_per_quorum_of_endpoints() {
        let paused = |endpoints| -> Vec<u32> {
            (1..=6)
                .filter(|&attempt| pause(attempt, endpoints, INTERVAL) > Duration::ZERO)
                .collect()
        };
        assert_eq!(paused(1), [1, 2, 3, 4, 5, 6]);
        assert_eq!(paused(3), [2, 4, 6]);
        assert_eq!(paused(5), [3, 6]);
    }

    #[test]
    fn jitter_stays_within_its_fraction() {
        for _ in 0..1000 {
            let pause = jittered(INTERVAL, 0.10);
            assert!(pause >= INTERVAL.mul_f64(0.899) && pause <= INTERVAL.mul_f64(1.101));
        }
    }
}
