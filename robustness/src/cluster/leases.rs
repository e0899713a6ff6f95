//! Leases: renewals, which the leader answers from its memory, and when leases may end.

use anyhow::{Context, ensure};
use bytes::Bytes;
use ferrite_api::Error as ApiError;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::types::LeaseId;
use ferrite_server::lessor::Renewal;
use ferrite_server::member::{Input, Reply};
use prost::Message;

use super::model::Revoked;
use super::request::{Answer, Ask};
use super::world::{Event, World};

impl World {
    /// A client wants a lease to be renewed. The leader does that; others pass it on.
    pub(super) fn renew(&mut self, at: usize, client: usize, number: u64, lease: i64) {
        let node = &mut self.nodes[at];
        let Some(shell) = &mut node.shell else { return };
        let leader = shell.published.leader();
        let ask = Ask::Renew { lease };
        if leader == node.id.get() {
            self.asked.insert(number, (client, ask));
            self.confirm(at, number);
            return;
        }
        // Whoever is not heard of any more is given up by the client itself.
        let leader = self.nodes.iter().position(|node| node.id.get() == leader);
        if let Some(to) = leader
            && let Some(time) = self.network.arrival(&self.plan, self.now, (at, to))
        {
            self.queue.at(
                time,
                Event::Request {
                    client,
                    number,
                    at: to,
                    ask,
                },
            );
        }
    }

    /// The leader asks a quorum whether it still is one.
    fn confirm(&mut self, at: usize, number: u64) {
        let Some(shell) = &mut self.nodes[at].shell else {
            return;
        };
        if shell.published.reads_locally() {
            let view = shell.published.view();
            self.reply(at, number, Reply::View(view));
            return;
        }
        match shell.member.reads().read(number) {
            Ok(does) => self.do_for_reads(at, does),
            Err(error) => self.reply(at, number, Reply::Failed(error.into())),
        }
    }

    /// It has the answer, and goes on. `None`: it needs more time.
    pub(super) fn renewed(
        &mut self,
        at: usize,
        (client, number): (usize, u64),
        lease: i64,
        reply: &Reply,
    ) -> anyhow::Result<Option<Answer>> {
        let again = Ask::Renew { lease };
        match reply {
            Reply::View(_) => {}
            Reply::Applied(_) => {
                // The checkpoint is taken back.
                self.asked.insert(number, (client, again));
                self.confirm(at, number);
                return Ok(None);
            }
            _ => return Ok(Some(Answer::Unknown)),
        }
        let now = self.now;
        let node = &mut self.nodes[at];
        let clock = node.clock(now);
        let shell = node.shell.as_mut().context("it runs")?;
        let lessor = shell.member.lessor();
        let renewal = lessor.lock().renew(clock, LeaseId::new(lease), || number);
        Ok(Some(match renewal {
            Renewal::Renewed { .. } => Answer::Renewed { lease },
            Renewal::Unknown => {
                ensure!(
                    !self.model.has_lease(lease),
                    "lease {lease} is said not to exist"
                );
                Answer::Refused(ApiError::LeaseNotFound)
            }
            Renewal::Checkpointed => {
                self.counts.one("checkpoints taken back");
                let id = shell.ids.next();
                let checkpoint = pb::LeaseCheckpoint {
                    id: lease,
                    remaining_ttl: 0,
                };
                let request = pb::InternalRaftRequest {
                    header: Some(pb::RequestHeader {
                        id: id.get(),
                        ..Default::default()
                    }),
                    lease_checkpoint: Some(pb::LeaseCheckpointRequest {
                        checkpoints: vec![checkpoint],
                    }),
                    ..Default::default()
                };
                shell.push(Input::Propose {
                    id,
                    payload: Bytes::from(request.encode_to_vec()),
                    urgent: false,
                    waiter: number,
                });
                self.asked.insert(number, (client, again));
                self.plan_turn(at);
                return Ok(None);
            }
            Renewal::Ended | Renewal::NotPrimary => Answer::Unknown,
        }))
    }

    /// A client learns that its lease was renewed.
    pub(super) fn check_renewal(&self, client: usize, lease: i64) -> anyhow::Result<()> {
        let called = self.clients[client].called().context("it waits")?;
        let ended = self.model.ended(lease);
        ensure!(
            ended.is_none_or(|ended| called <= ended),
            "lease {lease} ended at {ended:?}, and was renewed when asked for at {called:?}"
        );
        Ok(())
    }

    /// A lease was revoked, perhaps because its time is up.
    pub(super) fn check_end(&self, revoked: &Revoked) -> anyhow::Result<()> {
        if self.proposed_ids.contains(&revoked.request) {
            return Ok(());
        }
        let lease = revoked.lease;
        let mut leases = self.records.leases.iter();
        let granted = leases.find(|granted| granted.id == lease);
        let granted = granted.with_context(|| format!("nobody granted lease {lease}"))?;
        let renewals = self.records.renewals.iter();
        let of_lease = renewals.filter(|renewed| renewed.id == lease);
        let last = of_lease.map(|renewed| renewed.called).max();
        let due = last.unwrap_or_default().max(granted.called) + granted.ttl;
        ensure!(
            self.now >= due,
            "lease {lease} ends, it has time until {due:?}"
        );
        Ok(())
    }
}
