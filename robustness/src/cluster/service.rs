//! What clients ask and members answer.

use anyhow::Context;
use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::RequestHeader;
use ferrite_server::member::{Input, ReadsDo, Reply};
use ferrite_storage::mvcc::pins::Pin;
use prost::Message as _;
use rand::Rng;

use super::clients::Verdict;
use super::mutant::Mutant;
use super::request::{Answer, Ask};
use super::world::{Event, Step, World};

impl World {
    pub(super) fn next(&mut self, client: usize) {
        if !self.load {
            return;
        }
        let life = self.nodes[self.clients[client].at].life;
        let Self {
            clients,
            plan,
            records,
            now,
            ..
        } = self;
        let (number, ask, patience) = clients[client].begin(plan, records, *now, life);
        let at = self.clients[client].at;
        self.counts.one("operations");
        self.note(format_args!("c{client} #{number} asks m{at}: {ask:?}"));
        let arrival = self.now + self.network.client_delay(&self.plan);
        let request = Event::Request {
            client,
            number,
            at,
            ask,
        };
        self.queue.at(arrival, request);
        let answer = Answer::Unknown;
        self.queue.at(
            self.now + patience,
            Event::Answer {
                client,
                number,
                answer,
            },
        );
    }

    pub(super) fn request(&mut self, client: usize, number: u64, at: usize, ask: Ask) {
        let (now, stale) = (self.now, self.mutant == Some(Mutant::StaleRead));
        let life = self.nodes[at].life;
        let Some(shell) = &mut self.nodes[at].shell else {
            self.counts.one("nobody listens");
            let answer = Answer::Refused(ferrite_api::Error::Stopped);
            let arrival = now + self.network.client_delay(&self.plan);
            self.queue.at(
                arrival,
                Event::Answer {
                    client,
                    number,
                    answer,
                },
            );
            return;
        };
        self.clients[client].arrived(number, at, life);
        if let Ask::Renew { lease } = ask {
            return self.renew(at, client, number, lease);
        }
        let input = match &ask {
            Ask::Renew { .. } => return,
            Ask::Propose { .. } if shell.published.no_space() => {
                let error = ferrite_api::Error::NoSpace.into();
                Err(Reply::Failed(error))
            }
            Ask::Propose { request, .. } => {
                let id = shell.ids.next();
                self.proposed.insert(number, id.get());
                self.proposed_ids.insert(id.get());
                let mut request = request.clone();
                request.header = Some(RequestHeader {
                    id: id.get(),
                    ..RequestHeader::default()
                });
                Ok(Input::Propose {
                    id,
                    payload: Bytes::from(request.encode_to_vec()),
                    urgent: false,
                    waiter: number,
                })
            }
            Ask::Read { local, .. } if *local || stale || shell.published.reads_locally() => {
                Err(Reply::View(shell.published.view()))
            }
            Ask::Read { .. } => {
                let reads = shell.member.reads();
                self.asked.insert(number, (client, ask));
                match reads.read(number) {
                    Ok(does) => self.do_for_reads(at, does),
                    Err(error) => self.reply(at, number, Reply::Failed(error.into())),
                }
                return;
            }
        };
        self.asked.insert(number, (client, ask));
        match input {
            Ok(input) => {
                shell.push(input);
                self.plan_turn(at);
            }
            Err(reply) => self.reply(at, number, reply),
        }
    }

    /// Does what follows from a read, or from what another member says about one: at once, whatever the
    /// member's thread is at.
    pub(super) fn do_for_reads(&mut self, at: usize, does: ReadsDo<u64>) {
        for (to, message) in does.send {
            self.send(at, to, message);
        }
        for (number, reply) in does.replies {
            self.reply(at, number, reply);
        }
    }

    /// A member has an answer; what is still to be read for it is read a little later.
    pub(super) fn reply(&mut self, at: usize, number: u64, reply: Reply) {
        let pin = match &reply {
            Reply::View(view) => Some(view.pins.pin(view.revision)),
            _ => None,
        };
        let delay = match self.rng.random_range(0..10) {
            0 => self.micros(0..50_000),
            _ => self.micros(0..100),
        };
        self.after(delay, at, Step::Serve { number, reply, pin });
    }

    pub(super) fn serve(
        &mut self,
        at: usize,
        number: u64,
        reply: &Reply,
        pin: Option<Pin>,
    ) -> anyhow::Result<()> {
        let newest = self.nodes[at].published().map(|published| published.view());
        let Some((client, ask)) = self.asked.remove(&number) else {
            return Ok(());
        };
        let newest = newest.context("it runs")?;
        let answer = match ask {
            Ask::Renew { lease } => match self.renewed(at, (client, number), lease, reply)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            _ => ask
                .answer(reply, &newest)
                .with_context(|| format!("request {number}: {ask:?}"))?,
        };
        drop(pin);
        if let Some(id) = self.proposed.get(&number) {
            match (reply, &answer) {
                (Reply::Applied(_), answer) => self.model.told(*id, answer)?,
                (_, Answer::Refused(_)) => self.model.give_up(*id)?,
                _ => {}
            }
        }
        let arrival = self.now + self.network.client_delay(&self.plan);
        self.queue.at(
            arrival,
            Event::Answer {
                client,
                number,
                answer,
            },
        );
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        client: usize,
        number: u64,
        answer: Answer,
    ) -> anyhow::Result<()> {
        if !self.clients[client].waits_for(number) {
            return Ok(());
        }
        self.note(format_args!("c{client} #{number} {answer:?}"));
        if let Answer::Renewed { lease } = answer {
            self.check_renewal(client, lease)?;
            self.counts.one("leases renewed");
        }
        // While all goes wrong, clients may well have an old list of the members.
        let members = match self.chaos {
            true => (0..self.nodes.len()).collect(),
            false => self.member_machines(),
        };
        let Self {
            clients,
            records,
            now,
            counts,
            plan,
            ..
        } = self;
        let verdict = clients[client]
            .end(records, *now, answer)
            .with_context(|| format!("c{client} #{number}"))?;
        match verdict {
            Verdict::Acknowledged => counts.one("acknowledged"),
            Verdict::Refused => counts.one("refused"),
            Verdict::Unknown => counts.one("unknown"),
        }
        if !matches!(verdict, Verdict::Acknowledged) {
            clients[client].turn_away(&members);
        }
        let think = clients[client].think(plan);
        self.queue.at(self.now + think, Event::Next { client });
        Ok(())
    }
}
