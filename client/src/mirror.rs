//! A copy of a part of the keys: first all of it as of one revision, then every change after that.

use bytes::Bytes;
use ferrite_api::pb::mvccpb::KeyValue;

use crate::kv::revision;
use crate::{Client, Error, GetOptions, RangeStream, WatchOptions, Watcher};

/// Reads all pairs with a prefix at one revision, and hands over to a watch that begins there:
/// nothing is missed between the two.
///
/// ```no_run
/// # use ferrite_client::{Client, Error, Mirror};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let mut mirror = Mirror::new(&client, "jobs/");
/// while let Some(pairs) = mirror.next_base().await? {
///     println!("{} pairs", pairs.len());
/// }
/// let mut updates = mirror.updates().await?;
/// loop {
///     println!("{} changes", updates.next().await?.events.len());
/// }
/// # }
/// ```
///
/// When the base takes so long that its revision is compacted meanwhile, or the reader of the
/// updates is that late, the error is [`EtcdError::Compacted`](crate::EtcdError::Compacted): begin
/// again with another mirror.
#[derive(Debug)]
pub struct Mirror {
    client: Client,
    prefix: Bytes,
    revision: i64,
    base: Base,
}

#[derive(Debug)]
enum Base {
    Unread,
    Reading(Box<RangeStream>),
    Read,
}

impl Mirror {
    /// Of all keys with this prefix as of now; with an empty prefix, of all keys. Nothing is sent
    /// yet.
    pub fn new(client: &Client, prefix: impl Into<Bytes>) -> Mirror {
        Mirror::at(client, prefix, 0)
    }

    /// As of this revision: also to go on with a copy of before, for which the base is left out.
    pub fn at(client: &Client, prefix: impl Into<Bytes>, revision: i64) -> Mirror {
        Mirror {
            client: client.clone(),
            prefix: prefix.into(),
            revision,
            base: Base::Unread,
        }
    }

    /// The revision of the base; 0 before it is known.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The next pairs of the base, in the order of their keys; `None` at the end.
    ///
    /// Cancel safety: no pair is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the base. It is not whole then.
    pub async fn next_base(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        loop {
            match &mut self.base {
                Base::Unread => {
                    self.know_revision().await?;
                    let options = GetOptions::new().prefix().revision(self.revision);
                    let stream = self.client.range_stream(self.prefix.clone(), options);
                    self.base = Base::Reading(Box::new(stream.await?));
                }
                Base::Reading(stream) => match stream.next().await? {
                    Some(piece) if piece.kvs.is_empty() => {}
                    Some(piece) => return Ok(Some(piece.kvs)),
                    None => self.base = Base::Read,
                },
                Base::Read => return Ok(None),
            }
        }
    }

    /// The changes after the base.
    ///
    /// # Errors
    ///
    /// Those of [`Client::watch`].
    pub async fn updates(mut self) -> Result<Watcher, Error> {
        self.know_revision().await?;
        let options = WatchOptions::new()
            .prefix()
            .start_revision(self.revision + 1);
        self.client.watch(self.prefix, options).await
    }

    async fn know_revision(&mut self) -> Result<(), Error> {
        if self.revision == 0 {
            let options = GetOptions::new().prefix().limit(1).keys_only();
            let found = self.client.get(self.prefix.clone(), options).await?;
            self.revision = revision(found.header.as_ref());
        }
        Ok(())
    }
}
