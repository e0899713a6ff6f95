//! Leases: the replicated table of them, and which keys each one holds (spec lease.md sections 1
//! and 5).
//!
//! A lease is an id and a time to live, granted and revoked by log entries. When it is revoked all
//! its keys are deleted. Nothing here knows when that is: deadlines are the leader's, in the
//! server's lessor.
//!
//! Leases are rows of the page file. Attachments are not: each key's newest record names its lease,
//! so they are found again in the scan at the start. A key that names a lease which does not exist
//! is a plain key.
//!
//! Invariants:
//! * `holder` names a lease for a key exactly if `attached` has the pair, and that lease exists.
//! * Every attached key is live, and its newest record names the lease.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ferrite_api::pb::leasepb;
use ferrite_api::types::LeaseId;
use prost::Message;

use crate::error::Error;
use crate::page::{Table, TableWrite};

/// The id that means "no lease".
pub const NO_LEASE: LeaseId = LeaseId::new(0);

/// The longest time to live that can be granted, in seconds.
pub const MAX_TTL: i64 = 9_000_000_000;

/// What is replicated of a lease, beside its keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The time to live that was granted, in seconds.
    pub ttl: i64,
    /// What was left of it at the last checkpoint, in seconds: where a new leader resumes. 0 if
    /// there was none, or if the lease was renewed since.
    pub remaining: i64,
}

/// All leases and their keys.
#[derive(Debug, Default)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    /// Ordered, so that the keys of a lease are found together and in byte order. One copy of a key
    /// serves both maps; it does not keep the request alive that it came with.
    attached: BTreeSet<(LeaseId, Arc<[u8]>)>,
    /// Only looked up, never walked: its order is not that of other members.
    holder: HashMap<Arc<[u8]>, LeaseId>,
    /// Leases whose rows the page file does not have as they are here.
    changed: BTreeSet<LeaseId>,
}

impl Leases {
    /// Leases from rows of the page file: key = id as 8 bytes big endian, value = `leasepb.Lease`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that does not decode.
    pub(crate) fn load(rows: &[(Bytes, Bytes)]) -> Result<Self, Error> {
        let mut by_id = BTreeMap::new();
        for (key, value) in rows {
            let corrupt = |what: String| Error::Corrupt {
                what: format!("leases row \"{}\" {what}", key.escape_ascii()),
            };
            let row = leasepb::Lease::decode(value.clone())
                .map_err(|error| corrupt(format!("does not decode: {error}")))?;
            if key[..] != row.id.to_be_bytes() {
                return Err(corrupt(format!("holds lease {}", LeaseId::new(row.id))));
            }
            let lease = Lease {
                ttl: row.ttl,
                remaining: row.remaining_ttl,
            };
            by_id.insert(LeaseId::new(row.id), lease);
        }
        Ok(Self {
            by_id,
            ..Self::default()
        })
    }

    /// The lease with this id.
    pub fn get(&self, id: LeaseId) -> Option<Lease> {
        self.by_id.get(&id).copied()
    }

    /// All leases, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, Lease)> {
        self.by_id.iter().map(|(id, lease)| (*id, *lease))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The keys attached to a lease, in byte order.
    pub fn keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.keys_of(id).map(|key| &key[..])
    }

    /// The lease that a key is attached to.
    pub fn holder(&self, key: &[u8]) -> Option<LeaseId> {
        self.holder.get(key).copied()
    }

    /// Whether any key is attached to a lease.
    pub(crate) fn any_attached(&self) -> bool {
        !self.holder.is_empty()
    }

    /// Adds a lease that is not there yet.
    pub(crate) fn grant(&mut self, id: LeaseId, ttl: i64) {
        let twice = self.by_id.insert(id, Lease { ttl, remaining: 0 });
        assert!(twice.is_none(), "lease {id} is granted twice");
        self.changed.insert(id);
    }

    /// Notes what is left of a lease; one that does not exist is none of anybody's business.
    pub(crate) fn checkpoint(&mut self, id: LeaseId, remaining: i64) {
        if let Some(lease) = self.by_id.get_mut(&id)
            && lease.remaining != remaining
        {
            lease.remaining = remaining;
            self.changed.insert(id);
        }
    }

    /// Removes a lease whose keys are all gone.
    pub(crate) fn revoke(&mut self, id: LeaseId) {
        assert!(
            self.keys_of(id).next().is_none(),
            "lease {id} is revoked and still has keys"
        );
        let lease = self.by_id.remove(&id);
        assert!(lease.is_some(), "lease {id} is revoked and does not exist");
        self.changed.insert(id);
    }

    /// Attaches a key to a lease, and detaches it from any other. With [`NO_LEASE`], or a lease that
    /// does not exist, it is attached to none afterwards.
    pub(crate) fn attach(&mut self, key: &[u8], id: LeaseId) {
        let id = if self.by_id.contains_key(&id) {
            id
        } else {
            NO_LEASE
        };
        match self.holder.get_mut(key) {
            Some(holder) if *holder == id => {}
            Some(_) if id == NO_LEASE => {
                if let Some((key, old)) = self.holder.remove_entry(key) {
                    self.attached.remove(&(old, key));
                }
            }
            Some(holder) => {
                let pair = (*holder, Arc::from(key));
                *holder = id;
                // The copy that the other map shares moves over.
                let (_, key) = self
                    .attached
                    .take(&pair)
                    .expect("a key that has a holder is attached to it");
                self.attached.insert((id, key));
            }
            None if id == NO_LEASE => {}
            None => {
                let key: Arc<[u8]> = Arc::from(key);
                self.holder.insert(Arc::clone(&key), id);
                self.attached.insert((id, key));
            }
        }
    }

    /// The rows to write so that the page file has every lease as it is now.
    pub(crate) fn take_writes(&mut self) -> impl Iterator<Item = TableWrite> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|id| match self.by_id.get(&id) {
            Some(lease) => row(id, *lease),
            None => TableWrite::delete(Table::Leases, row_key(id)),
        })
    }

    fn keys_of(&self, id: LeaseId) -> impl Iterator<Item = &Arc<[u8]>> {
        let first: (LeaseId, Arc<[u8]>) = (id, Arc::default());
        self.attached
            .range(first..)
            .take_while(move |(of, _)| *of == id)
            .map(|(_, key)| key)
    }

    /// Checks the first invariant of the [module](self).
    ///
    /// # Panics
    /// It is broken.
    pub fn check_invariants(&self) {
        assert_eq!(self.attached.len(), self.holder.len());
        for (id, key) in &self.attached {
            let key_text = key.escape_ascii();
            assert!(self.by_id.contains_key(id), "{key_text} has no lease {id}");
            assert_eq!(self.holder(key), Some(*id), "holder of {key_text}");
        }
    }
}

/// The row of the page file that holds a lease.
pub(crate) fn row(id: LeaseId, lease: Lease) -> TableWrite {
    let row = leasepb::Lease {
        id: id.get(),
        ttl: lease.ttl,
        remaining_ttl: lease.remaining,
    };
    let value = Bytes::from(row.encode_to_vec());
    TableWrite::put(Table::Leases, row_key(id), value)
}

fn row_key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.get().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(leases: &Leases, id: i64) -> Vec<&[u8]> {
        leases.keys(LeaseId::new(id)).collect()
    }

    #[test]
    fn a_key_has_one_lease_and_moves() {
        let mut leases = Leases::default();
        let (one, two) = (LeaseId::new(1), LeaseId::new(-2));
        leases.grant(one, 10);
        leases.grant(two, 20);
        for key in [&b"b"[..], b"a", b"", b"\xff"] {
            leases.attach(key, one);
        }
        assert_eq!(keys(&leases, 1), [&b""[..], b"a", b"b", b"\xff"]);
        leases.attach(b"a", two);
        leases.attach(b"a", two);
        leases.attach(b"b", NO_LEASE);
        leases.attach(b"never attached", NO_LEASE);
        leases.check_invariants();
        assert_eq!(
            (keys(&leases, 1), keys(&leases, -2)),
            (vec![&b""[..], b"\xff"], vec![&b"a"[..]])
        );
        // A lease that does not exist is none.
        leases.attach(b"a", LeaseId::new(3));
        leases.check_invariants();
        assert_eq!(leases.holder(b"a"), None);
        leases.revoke(two);
        assert_eq!(leases.get(two), None);
    }

    #[test]
    fn rows_round_trip_with_negative_ids() {
        let mut leases = Leases::default();
        for (id, ttl) in [(i64::MIN, 1), (-1, MAX_TTL), (1, 60), (i64::MAX, 5)] {
            leases.grant(LeaseId::new(id), ttl);
        }
        leases.checkpoint(LeaseId::new(1), 7);
        leases.checkpoint(LeaseId::new(99), 7);
        let rows: Vec<_> = leases
            .take_writes()
            .map(|write| match write {
                TableWrite::Put { key, value, .. } => (key, value),
                other => panic!("{other:?}"),
            })
            .collect();
        let loaded = Leases::load(&rows).unwrap();
        assert_eq!(
            loaded.iter().collect::<Vec<_>>(),
            leases.iter().collect::<Vec<_>>()
        );
        assert_eq!(loaded.get(LeaseId::new(1)).unwrap().remaining, 7);
        assert_eq!(leases.take_writes().count(), 0, "written once");
        leases.revoke(LeaseId::new(-1));
        let deleted = TableWrite::delete(Table::Leases, Bytes::from_static(&[0xff; 8]));
        assert_eq!(leases.take_writes().collect::<Vec<_>>(), [deleted]);
    }

    #[test]
    fn damaged_rows_are_named() {
        let row = leasepb::Lease {
            id: 7,
            ..Default::default()
        };
        let key = Bytes::copy_from_slice(&8u64.to_be_bytes());
        let error = Leases::load(&[(key.clone(), Bytes::from(row.encode_to_vec()))]).unwrap_err();
        assert!(
            error.to_string().ends_with("holds lease 0000000000000007"),
            "{error}"
        );
        assert!(Leases::load(&[(key, Bytes::from_static(b"\xff"))]).is_err());
    }
}
