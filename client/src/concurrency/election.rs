//! An election: the oldest key below a name leads, and its value is what the leader says.

use std::collections::VecDeque;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::pb::mvccpb::event::EventType;
use ferrite_api::pb::v3electionpb::LeaderResponse;

use super::mutex::revision_of;
use super::session::Member;
use super::{Place, RecipeError, Session, key_of, oldest, prefix_of, range_at, wait_for_older};
use crate::{
    Client, Compare, CompareOp, DeleteOptions, Error, EtcdError, GetOptions, PutOptions, Txn,
    TxnOp, WatchOptions, Watcher,
};

/// An election among sessions. The candidates lead in the order in which they stood.
///
/// ```no_run
/// # use ferrite_client::{Client, Error};
/// # use ferrite_client::concurrency::{Election, Session, SessionOptions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let session = Session::open(&client, SessionOptions::new().ttl(10)).await?;
/// let mut election = Election::new(&session, "leader/scheduler");
/// election.campaign("10.0.0.1:8080").await?;
/// election.proclaim("10.0.0.1:8081").await?;
/// election.resign().await?;
/// session.close().await
/// # }
/// ```
///
/// Dropping it does not resign; [`Election::resign`] or [`Session::close`] does.
#[derive(Debug)]
pub struct Election {
    member: Member,
    prefix: Bytes,
    place: Option<Place>,
    header: Option<pb::ResponseHeader>,
}

impl Election {
    /// The election of that name; nothing is sent. Keys are `name/<lease in hexadecimal>`.
    pub fn new(session: &Session, name: impl Into<Bytes>) -> Election {
        Election {
            member: session.member(),
            prefix: prefix_of(name),
            place: None,
            header: None,
        }
    }

    /// Goes on with a candidacy of before: its key and the revision that created it.
    pub fn resume(
        session: &Session,
        name: impl Into<Bytes>,
        key: impl Into<Bytes>,
        revision: i64,
    ) -> Election {
        Election {
            place: Some(Place {
                key: key.into(),
                revision: Some(revision),
            }),
            ..Election::new(session, name)
        }
    }

    /// Stands with `value` and waits until elected.
    ///
    /// Cancel safety: a dropped future leaves the candidacy; [`Election::campaign`] waits on,
    /// [`Election::resign`] gives it up.
    ///
    /// # Errors
    ///
    /// [`RecipeError::NotLeader`] if the session ends meanwhile, or someone deletes the key. The
    /// candidacy stays after other errors, until [`Election::resign`] or the lease's end.
    ///
    /// Deviation: etcd's client does not look whether the key is still there at last.
    pub async fn campaign(&mut self, value: impl Into<Bytes>) -> Result<(), Error> {
        let value = value.into();
        let key = key_of(&self.prefix, self.member.lease);
        self.place = Some(Place {
            key: key.clone(),
            revision: None,
        });
        let put = PutOptions::new().lease(self.member.lease);
        let stand = Txn::new()
            .when([Compare::key_missing(key.clone())])
            .and_then([TxnOp::put(key.clone(), value.clone(), put)])
            .or_else([TxnOp::get(key.clone(), GetOptions::new())]);
        let answer = self.member.client.txn(stand).await?;
        let revision = revision_of(&answer)?;
        self.place = Some(Place {
            key: key.clone(),
            revision: Some(revision),
        });
        if !answer.succeeded {
            let stands_with = range_at(&answer, 0)?.kvs.first().map(|kv| &kv.value);
            if stands_with != Some(&value)
                && let Err(error) = self.proclaim(value).await
            {
                let _ = self.resign().await;
                return Err(error);
            }
        }
        tokio::select! {
            waited = wait_for_older(&self.member.client, &self.prefix, revision - 1) => waited?,
            () = self.member.lost() => return Err(RecipeError::NotLeader.into()),
        }
        let client = &self.member.client;
        let ours = client.get(key, GetOptions::new()).await?;
        if ours.kvs.first().map(|kv| kv.create_revision) != Some(revision) {
            self.place = None;
            return Err(RecipeError::NotLeader.into());
        }
        self.header = answer.header;
        Ok(())
    }

    /// Changes what the leader says.
    ///
    /// # Errors
    ///
    /// [`RecipeError::NotLeader`] if the key has gone. A candidate that still waits may proclaim,
    /// too: it changes what it stands with.
    pub async fn proclaim(&mut self, value: impl Into<Bytes>) -> Result<(), Error> {
        let Some(place) = &self.place else {
            return Err(RecipeError::NotLeader.into());
        };
        let put = PutOptions::new().lease(self.member.lease);
        let proclaim = Txn::new().when([still_there(place)]).and_then([TxnOp::put(
            place.key.clone(),
            value,
            put,
        )]);
        let answer = self.member.client.txn(proclaim).await?;
        if !answer.succeeded {
            self.place = None;
            return Err(RecipeError::NotLeader.into());
        }
        self.header = answer.header;
        Ok(())
    }

    /// Gives up the leadership or the candidacy. Without one there is nothing to do.
    ///
    /// # Errors
    ///
    /// May be tried again.
    pub async fn resign(&mut self) -> Result<(), Error> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        let delete = TxnOp::delete(place.key.clone(), DeleteOptions::new());
        let resign = Txn::new().when([still_there(place)]).and_then([delete]);
        let answer = self.member.client.txn(resign).await?;
        self.header = answer.header;
        self.place = None;
        Ok(())
    }

    /// Who leads, and what the leader says.
    ///
    /// # Errors
    ///
    /// [`RecipeError::NoLeader`] if nobody does.
    pub async fn leader(&self) -> Result<LeaderResponse, Error> {
        let client = &self.member.client;
        let found = client.get(self.prefix.clone(), oldest()).await?;
        match found.kvs.into_iter().next() {
            None => Err(RecipeError::NoLeader.into()),
            kv => Ok(LeaderResponse {
                header: found.header,
                kv,
            }),
        }
    }

    /// Follows who leads and what the leader says: see [`Observer`].
    pub fn observe(&self) -> Observer {
        Observer::new(self.member.client.clone(), self.prefix.clone())
    }

    /// Our key: empty without a candidacy.
    pub fn key(&self) -> Bytes {
        self.place
            .as_ref()
            .map_or_else(Bytes::new, |place| place.key.clone())
    }

    /// The revision at which we stood. It grows from leader to leader: a fencing token.
    pub fn revision(&self) -> Option<i64> {
        self.place.as_ref()?.revision
    }

    /// The header of the last answer that changed anything for us.
    pub fn header(&self) -> Option<pb::ResponseHeader> {
        self.header
    }
}

/// Holds while the key is the one of the candidacy. While its revision is unknown the lease in
/// the key's name must do.
fn still_there(place: &Place) -> Compare {
    match place.revision {
        Some(revision) => Compare::create_revision(place.key.clone(), CompareOp::Equal, revision),
        None => Compare::key_exists(place.key.clone()),
    }
}

/// The leader, again whenever it or what it says changes: see [`Election::observe`].
///
/// The latest is always seen, in order; values in between may be left out when leaders change.
#[derive(Debug)]
pub struct Observer {
    client: Client,
    prefix: Bytes,
    stage: Stage,
    /// Seen and not handed over.
    ready: VecDeque<LeaderResponse>,
    /// Key and revision of what was seen last, while its leader leads.
    last: Option<(Bytes, i64)>,
}

#[derive(Debug)]
enum Stage {
    /// Who leads?
    Look,
    /// Nobody: the first to stand will.
    Await { from: i64, watcher: Option<Watcher> },
    /// The owner of this key.
    Follow {
        key: Bytes,
        from: i64,
        watcher: Option<Watcher>,
    },
}

impl Observer {
    fn new(client: Client, prefix: Bytes) -> Observer {
        Observer {
            client,
            prefix,
            stage: Stage::Look,
            ready: VecDeque::new(),
            last: None,
        }
    }

    /// The next leader or value. Waits while nobody leads.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// Those of reads and watches. Asked again, it looks who leads now.
    pub async fn next(&mut self) -> Result<LeaderResponse, Error> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            match self.advance().await {
                Ok(()) => {}
                // The watch fell behind a compaction.
                Err(Error::Etcd(EtcdError::Compacted)) => self.stage = Stage::Look,
                Err(error) => {
                    self.stage = Stage::Look;
                    return Err(error);
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Look => {
                let found = self.client.get(self.prefix.clone(), oldest()).await?;
                let revision = found.header.unwrap_or_default().revision;
                match found.kvs.into_iter().next() {
                    Some(kv) => self.see(found.header, kv, revision + 1),
                    None => {
                        self.last = None;
                        self.stage = Stage::Await {
                            from: revision,
                            watcher: None,
                        };
                    }
                }
            }
            Stage::Await { from, watcher } => {
                let options = WatchOptions::new().prefix().start_revision(*from);
                let watcher = opened(&self.client, watcher, &self.prefix, options).await?;
                let response = watcher.next().await?;
                // Only puts: after a deletion there would be nobody again.
                let put = |kind| kind == EventType::Put;
                let first = response
                    .events
                    .into_iter()
                    .find(|event| put(event.r#type()));
                if let Some(kv) = first.and_then(|event| event.kv) {
                    let header = response.header.map(|header| pb::ResponseHeader {
                        revision: kv.mod_revision,
                        ..header
                    });
                    let from = kv.mod_revision + 1;
                    self.see(header, kv, from);
                }
            }
            Stage::Follow { key, from, watcher } => {
                let options = WatchOptions::new().start_revision(*from);
                let watcher = opened(&self.client, watcher, key, options).await?;
                let response = watcher.next().await?;
                for event in response.events {
                    if event.r#type() == EventType::Delete {
                        self.last = None;
                        self.stage = Stage::Look;
                        break;
                    }
                    if let Some(kv) = event.kv {
                        self.last = Some((kv.key.clone(), kv.mod_revision));
                        self.ready.push_back(LeaderResponse {
                            header: response.header,
                            kv: Some(kv),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Hands a leader over, unless it was the last already, and follows it.
    fn see(&mut self, header: Option<pb::ResponseHeader>, kv: KeyValue, from: i64) {
        self.stage = Stage::Follow {
            key: kv.key.clone(),
            from,
            watcher: None,
        };
        let seen = Some((kv.key.clone(), kv.mod_revision));
        if self.last != seen {
            self.last = seen;
            self.ready.push_back(LeaderResponse {
                header,
                kv: Some(kv),
            });
        }
    }
}

/// The watcher of a stage, opened if it is not.
async fn opened<'a>(
    client: &Client,
    watcher: &'a mut Option<Watcher>,
    key: &Bytes,
    options: WatchOptions,
) -> Result<&'a mut Watcher, Error> {
    let opened = match watcher.take() {
        Some(watcher) => watcher,
        None => client.watch(key.clone(), options).await?,
    };
    Ok(watcher.insert(opened))
}
