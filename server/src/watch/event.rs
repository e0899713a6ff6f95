//! One change of one key, as watchers get it: encoded once, shared by all of them.

use std::sync::OnceLock;

use bytes::{BufMut, Bytes};
use ferrite_api::pb::mvccpb;
use ferrite_api::types::Revision;
use ferrite_storage::mvcc::view::{RowError, View};
use ferrite_storage::mvcc::{append_field, decode_record};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

/// Field `type` with value DELETE; PUT is the default and not encoded.
const TYPE_DELETE: [u8; 2] = [0x08, 1];
/// Tag of field `kv` of an event.
const KV: u8 = 0x12;
/// Tag of field `prev_kv` of an event.
const PREV_KV: u8 = 0x1a;
/// Tag of field `events` of a response.
const EVENTS: u8 = 0x5a;

/// A change of a key. What it holds is encoded already: [`Event::pieces`] puts it together.
#[derive(Debug)]
pub struct Event {
    revision: Revision,
    key: Bytes,
    kind: Kind,
    /// The encoded `mvccpb.KeyValue` of the event.
    kv: Bytes,
    /// The encoded `KeyValue` before the change; set when the first watcher wants it. `None`: there
    /// was none, or it is compacted.
    prev: OnceLock<Option<Bytes>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first put of a key that did not exist.
    Create,
    Update,
    Delete,
}

impl Event {
    /// The event of a row: a put with its record, or a tombstone.
    ///
    /// # Errors
    /// The record does not decode.
    pub(crate) fn of_row(
        revision: Revision,
        tombstone: bool,
        record: &Bytes,
    ) -> Result<Self, ferrite_storage::Error> {
        let kv = decode_record(revision, record)?;
        if tombstone {
            return Ok(Self::deletion(revision, kv.key));
        }
        let kind = if kv.create_revision == kv.mod_revision {
            Kind::Create
        } else {
            Kind::Update
        };
        Ok(Self {
            revision,
            key: kv.key,
            kind,
            kv: record.clone(),
            prev: OnceLock::new(),
        })
    }

    /// The deletion of a key.
    pub(crate) fn deletion(revision: Revision, key: Bytes) -> Self {
        let kv = mvccpb::KeyValue {
            key: key.clone(),
            mod_revision: revision.main,
            ..mvccpb::KeyValue::default()
        };
        Self {
            revision,
            key,
            kind: Kind::Delete,
            kv: kv.encode_to_vec().into(),
            prev: OnceLock::new(),
        }
    }

    /// Where in the history the change stands.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Whether the key was deleted.
    pub fn is_delete(&self) -> bool {
        self.kind == Kind::Delete
    }

    /// Memory that the event holds (bytes), without the previous pair.
    pub(crate) fn cost(&self) -> usize {
        size_of::<Self>() + self.kv.len()
    }

    /// As [`Event::cost`], with the previous pair.
    pub(crate) fn held(&self) -> usize {
        self.cost() + self.prev().map_or(0, Bytes::len)
    }

    /// Looks up the pair before the change, unless that was done. Returns the bytes that this has
    /// added.
    ///
    /// The pair is absent for the creation of a key, and where a compaction has overtaken the
    /// watcher. A read that fails leaves it out too, as in etcd; the next read of that row reports
    /// the damage to whoever asked for it.
    pub(crate) fn look_up_prev(&self, view: &View) -> usize {
        let mut added = 0;
        self.prev.get_or_init(|| {
            if self.kind == Kind::Create {
                return None;
            }
            let prev = previous(view, &self.key, self.revision.main - 1);
            added = prev.as_ref().map_or(0, Bytes::len);
            prev
        });
        added
    }

    /// The encoded previous pair, once it was looked up and if there is one.
    fn prev(&self) -> Option<&Bytes> {
        self.prev.get().and_then(Option::as_ref)
    }

    /// The previous pair, if it is to be shown: it may have been looked up for an earlier watcher, before
    /// a compaction to `prev_since` (etcd looks it up when it sends).
    fn shown_prev(&self, prev_since: Option<i64>) -> Option<&Bytes> {
        let kept = prev_since.is_some_and(|compacted| self.revision.main > compacted);
        self.prev().filter(|_| kept)
    }

    /// Length of the event as an element of `events` (bytes), tag included. The previous pair is part of
    /// it if it belongs to a revision that is not below `prev_since`; `None`: it is not wanted.
    pub(crate) fn framed_len(&self, prev_since: Option<i64>) -> usize {
        let length = self.encoded_len(prev_since);
        1 + encoded_len_varint(length as u64) + length
    }

    fn encoded_len(&self, prev_since: Option<i64>) -> usize {
        let field = |record: &Bytes| 1 + encoded_len_varint(record.len() as u64) + record.len();
        let kind = if self.is_delete() {
            TYPE_DELETE.len()
        } else {
            0
        };
        let prev = self.shown_prev(prev_since).map_or(0, field);
        kind + field(&self.kv) + prev
    }

    /// The event as an element of `events`, in pieces: what stands before the pair, the pair, and
    /// the same for the previous pair.
    pub(crate) fn pieces(&self, prev_since: Option<i64>, out: &mut impl Pieces) {
        out.small(|buf| {
            buf.put_u8(EVENTS);
            encode_varint(self.encoded_len(prev_since) as u64, buf);
            if self.is_delete() {
                buf.put_slice(&TYPE_DELETE);
            }
            buf.put_u8(KV);
            encode_varint(self.kv.len() as u64, buf);
        });
        out.shared(&self.kv);
        if let Some(prev) = self.shown_prev(prev_since) {
            out.small(|buf| {
                buf.put_u8(PREV_KV);
                encode_varint(prev.len() as u64, buf);
            });
            out.shared(prev);
        }
    }

    /// The event as a message.
    ///
    /// # Panics
    /// Never: what is encoded here was encoded by this program.
    pub fn to_message(&self, prev_since: Option<i64>) -> mvccpb::Event {
        let mut encoded = Vec::new();
        if self.is_delete() {
            encoded.extend(TYPE_DELETE);
        }
        append_field(KV, &self.kv, &mut encoded);
        if let Some(prev) = self.shown_prev(prev_since) {
            append_field(PREV_KV, prev, &mut encoded);
        }
        mvccpb::Event::decode(Bytes::from(encoded))
            .expect("records were checked when they were read")
    }
}

/// What takes an encoded event, piece by piece.
pub(crate) trait Pieces {
    /// A few bytes, written by `write`.
    fn small(&mut self, write: impl FnOnce(&mut bytes::BytesMut));
    /// A piece that others refer to as well.
    fn shared(&mut self, piece: &Bytes);
}

/// The pair that `key` had at main revision `at`, encoded.
fn previous(view: &View, key: &[u8], at: i64) -> Option<Bytes> {
    if at < view.compacted {
        return None;
    }
    let meta = view.index.get(key, at)?;
    match view.rows().get(meta.modified) {
        Ok(record) => Some(record),
        // Compacted meanwhile.
        Err(RowError::Missing(_)) => None,
        Err(RowError::Storage(error)) => {
            tracing::error!(%error, "cannot read the previous pair of a watch event");
            None
        }
    }
}
