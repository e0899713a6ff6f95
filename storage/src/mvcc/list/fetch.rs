//! Fetching rows into their places: the index tells how long every record is, so a piece of an
//! answer is laid out first and then filled, each record copied once. The page file is read in the
//! order of revisions, whatever order the answer has: neighbours in the history are neighbours in
//! the file, and often in one leaf (`page_read` example).

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use ferrite_api::types::Revision;
use prost::encoding::encode_varint;

use super::KVS;
use crate::error::Error;
use crate::mvcc::index::{KeyMeta, framed_len};
use crate::mvcc::view::{RowError, View};

/// A row to fetch, and how long its record is. Small: sorted lists keep one per pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    main: i64,
    sub: u32,
    record_len: u32,
}

impl Pick {
    pub(super) fn of(meta: &KeyMeta) -> Self {
        Self {
            main: meta.modified.main,
            sub: u32::try_from(meta.modified.sub).expect("rows have keys, which hold 32 bits"),
            record_len: meta.record_len,
        }
    }

    fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }

    /// The bytes that it takes as an element of `kvs`.
    pub(super) fn framed_len(&self) -> u64 {
        framed_len(self.record_len)
    }

    /// Appends tag and length and room for the record; where that is.
    fn lay_out(&self, out: &mut BytesMut) -> Range<usize> {
        out.put_u8(KVS);
        encode_varint(u64::from(self.record_len), out);
        let from = out.len();
        out.put_bytes(0, self.record_len as usize);
        from..out.len()
    }
}

/// Appends one row as an element of `kvs`.
pub(super) fn one(view: &View, pick: &Pick, out: &mut BytesMut) -> Result<(), RowError> {
    let place = pick.lay_out(out);
    let out = &mut out[place];
    if !recent(view, pick.revision(), out)? {
        view.page.fetcher()?.row_into(pick.revision(), out)?;
    }
    Ok(())
}

/// Appends rows as elements of `kvs`, in the order given.
pub(super) fn all(view: &View, picks: &[Pick], out: &mut BytesMut) -> Result<(), RowError> {
    let bytes: u64 = picks.iter().map(Pick::framed_len).sum();
    out.reserve(usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut in_file = Vec::with_capacity(picks.len());
    for pick in picks {
        let place = pick.lay_out(out);
        if !recent(view, pick.revision(), &mut out[place.clone()])? {
            in_file.push((pick.revision(), place));
        }
    }
    if in_file.is_empty() {
        return Ok(());
    }
    in_file.sort_unstable_by_key(|(revision, _)| *revision);
    Ok(view.page.fetcher()?.rows_into(&in_file, out)?)
}

/// Copies the record of the put at `revision` to its place, if it is among the recent rows.
fn recent(view: &View, revision: Revision, place: &mut [u8]) -> Result<bool, RowError> {
    if !view.recent.reaches(revision) {
        return Ok(false);
    }
    let Some(row) = view.recent.get(revision) else {
        return Ok(false);
    };
    if row.record.len() != place.len() {
        return Err(RowError::Storage(Error::Corrupt {
            what: format!(
                "row {revision} has {} bytes, the index says {}",
                row.record.len(),
                place.len()
            ),
        }));
    }
    place.copy_from_slice(&row.record);
    Ok(true)
}
