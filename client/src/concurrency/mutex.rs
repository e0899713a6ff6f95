//! A lock: the oldest key below a name owns it.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use tokio::time::{Duration, Instant};

use super::session::Member;
use super::{Place, RecipeError, Session, key_of, oldest, prefix_of, range_at, wait_for_older};
use crate::call::until;
use crate::{Compare, CompareOp, DeleteOptions, Error, GetOptions, PutOptions, Txn, TxnOp};

/// How long a failed wait tries to take its key back before it leaves that to the lease.
const WITHDRAW: Duration = Duration::from_secs(5);

/// A lock that one session at a time has. Sessions get it in the order in which they asked.
///
/// ```no_run
/// # use ferrite_client::{Client, Error, PutOptions, Txn, TxnOp};
/// # use ferrite_client::concurrency::{Mutex, Session, SessionOptions};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let session = Session::open(&client, SessionOptions::new().ttl(10)).await?;
/// let mut mutex = Mutex::new(&session, "locks/job");
/// mutex.lock().await?;
/// let guarded = Txn::new()
///     .when([mutex.is_owner()])
///     .and_then([TxnOp::put("job", "done", PutOptions::new())]);
/// let still_ours = client.txn(guarded).await?.succeeded;
/// mutex.unlock().await?;
/// session.close().await
/// # }
/// ```
///
/// The lock belongs to the session's lease: two of these with one session and one name lock
/// together. Dropping it releases nothing; [`Mutex::unlock`] or [`Session::close`] does.
#[derive(Debug)]
pub struct Mutex {
    member: Member,
    prefix: Bytes,
    place: Option<Place>,
    header: Option<pb::ResponseHeader>,
}

impl Mutex {
    /// The lock of that name; nothing is sent. Keys are `name/<lease in hexadecimal>`.
    pub fn new(session: &Session, name: impl Into<Bytes>) -> Mutex {
        Mutex {
            member: session.member(),
            prefix: prefix_of(name),
            place: None,
            header: None,
        }
    }

    /// Waits for the lock.
    ///
    /// Cancel safety: a dropped future leaves the place in the queue; [`Mutex::lock`] waits on,
    /// [`Mutex::unlock`] gives the place up.
    ///
    /// # Errors
    ///
    /// [`RecipeError::SessionExpired`] if the session ends meanwhile, or someone deletes the key.
    /// After an error the place is given up, as far as the server can be reached.
    pub async fn lock(&mut self) -> Result<(), Error> {
        let (revision, answer) = self.queue().await?;
        if owns(&answer, revision)? {
            self.header = answer.header;
            return Ok(());
        }
        let waited = tokio::select! {
            waited = wait_for_older(&self.member.client, &self.prefix, revision - 1) => waited,
            () = self.member.lost() => Err(RecipeError::SessionExpired.into()),
        };
        let checked = match waited {
            Ok(()) => self.check_place(revision).await,
            Err(error) => Err(error),
        };
        match checked {
            Ok(header) => {
                self.header = header;
                Ok(())
            }
            Err(error) => {
                let deadline = Instant::now() + WITHDRAW;
                // The lease does it otherwise.
                let _ = until(Some(deadline), self.unlock()).await;
                self.place = None;
                Err(error)
            }
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// [`RecipeError::Locked`] if someone has it; then no place in the queue is kept.
    pub async fn try_lock(&mut self) -> Result<(), Error> {
        let (revision, answer) = self.queue().await?;
        if owns(&answer, revision)? {
            self.header = answer.header;
            return Ok(());
        }
        self.unlock().await?;
        Err(RecipeError::Locked.into())
    }

    /// Releases the lock, or gives up the place in the queue.
    ///
    /// # Errors
    ///
    /// [`RecipeError::LockReleased`] if there is nothing to release. After any other error it may
    /// be tried again.
    pub async fn unlock(&mut self) -> Result<(), Error> {
        let Some(place) = &self.place else {
            return Err(RecipeError::LockReleased.into());
        };
        let client = &self.member.client;
        client
            .delete(place.key.clone(), DeleteOptions::new())
            .await?;
        self.place = None;
        Ok(())
    }

    /// Holds in a transaction for as long as the lock is ours. Never holds if it is not locked.
    pub fn is_owner(&self) -> Compare {
        Compare::create_revision(self.key(), CompareOp::Equal, self.revision().unwrap_or(-1))
    }

    /// Our key: empty without a place in the queue.
    pub fn key(&self) -> Bytes {
        self.place
            .as_ref()
            .map_or_else(Bytes::new, |place| place.key.clone())
    }

    /// The revision at which we joined the queue. It grows from owner to owner: a fencing token.
    pub fn revision(&self) -> Option<i64> {
        self.place.as_ref()?.revision
    }

    /// The header of the answer with which the lock became ours.
    pub fn header(&self) -> Option<pb::ResponseHeader> {
        self.header
    }

    /// Joins the queue, or finds the place that the session has in it. Its revision, and the
    /// answer with the owner at index 1.
    async fn queue(&mut self) -> Result<(i64, pb::TxnResponse), Error> {
        let key = key_of(&self.prefix, self.member.lease);
        // Before the call: if its outcome stays unknown the key may be there.
        self.place = Some(Place {
            key: key.clone(),
            revision: None,
        });
        let put = PutOptions::new().lease(self.member.lease);
        let owner = TxnOp::get(self.prefix.clone(), oldest());
        let join = Txn::new()
            .when([Compare::key_missing(key.clone())])
            .and_then([TxnOp::put(key.clone(), "", put), owner.clone()])
            .or_else([TxnOp::get(key.clone(), GetOptions::new()), owner]);
        let result = self.member.client.txn(join).await;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                if !error.may_have_been_applied() {
                    self.place = None;
                }
                return Err(error);
            }
        };
        let revision = revision_of(&answer)?;
        self.place = Some(Place {
            key,
            revision: Some(revision),
        });
        Ok((revision, answer))
    }

    /// Whether our key is still there: all older ones have gone, and ours may have with its lease.
    async fn check_place(&self, revision: i64) -> Result<Option<pb::ResponseHeader>, Error> {
        let client = &self.member.client;
        let found = client.get(self.key(), GetOptions::new()).await?;
        match found.kvs.first() {
            Some(kv) if kv.create_revision == revision => Ok(found.header),
            _ => Err(RecipeError::SessionExpired.into()),
        }
    }
}

/// When the key that a joining transaction is about was created.
pub(super) fn revision_of(answer: &pb::TxnResponse) -> Result<i64, Error> {
    if answer.succeeded {
        return Ok(answer.header.unwrap_or_default().revision);
    }
    let ours = range_at(answer, 0)?.kvs.first();
    ours.map(|kv| kv.create_revision)
        .ok_or_else(super::malformed)
}

/// Whether the oldest key is the one created at `revision`.
fn owns(answer: &pb::TxnResponse, revision: i64) -> Result<bool, Error> {
    let oldest = range_at(answer, 1)?.kvs.first();
    Ok(oldest.is_none_or(|kv| kv.create_revision == revision))
}
