//! A walk over a part of the key space in key order, in pieces.

use bytes::{BufMut, Bytes, BytesMut};

use super::fetch::{self, Pick};
use super::key_only::KeyOnly;
use super::options::Options;
use crate::mvcc::index::{KeyIndex, KeyMeta, Totals};
use crate::mvcc::range::KeyRange;
use crate::mvcc::read::RangeError;
use crate::mvcc::view::View;

/// The live keys of a range at one revision, ascending, those that were not read yet.
///
/// It holds an index root of the revision. A root costs what was copied of it since; whoever keeps a
/// run for long trades it for a newer one now and then ([`Run::renew`]), and gives it up while the
/// run has to wait ([`Run::rest`]).
#[derive(Debug)]
pub struct Run {
    /// `None` while it rests.
    root: Option<KeyIndex>,
    at: i64,
    rest: KeyRange,
    keys_only: bool,
    options: Options,
}

impl Run {
    /// The keys of `range` that were live at revision `at`, which the caller has checked.
    pub fn all(index: KeyIndex, at: i64, range: KeyRange, keys_only: bool) -> Self {
        Self::new(index, at, range, keys_only, Options::none())
    }

    pub(super) fn new(
        index: KeyIndex,
        at: i64,
        range: KeyRange,
        keys_only: bool,
        options: Options,
    ) -> Self {
        Self {
            root: Some(index),
            at,
            rest: range,
            keys_only,
            options,
        }
    }

    /// The revision that is read.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Counts the next pairs, at most `limit`, and their bytes as elements of `kvs`; also whether
    /// there are more. O(log n) for all pairs with their values, where nothing changed since.
    ///
    /// # Errors
    /// [`RangeError::Compacted`] after a rest.
    pub fn measure(&mut self, view: &View, limit: u64) -> Result<(Totals, bool), RangeError> {
        let (at, keys_only) = (self.at, self.keys_only);
        let (root, rest, options) = self.parts(view)?;
        if !keys_only && !options.filtered() {
            let (totals, next) = root.prefix_totals(rest, at, limit);
            return Ok((totals, next.is_some()));
        }
        let mut totals = Totals::default();
        for (key, meta) in root
            .range(rest, at)
            .filter(|(_, meta)| options.accepts(meta))
        {
            if totals.count == limit {
                return Ok((totals, true));
            }
            totals.count += 1;
            totals.framed_bytes += framed_len(key, &meta, keys_only);
        }
        Ok((totals, false))
    }

    /// Counts the pairs that are left. O(log n) where nothing changed since.
    ///
    /// # Errors
    /// [`RangeError::Compacted`] after a rest.
    pub fn count(&mut self, view: &View) -> Result<u64, RangeError> {
        let at = self.at;
        let (root, rest, _) = self.parts(view)?;
        Ok(root.count(rest, at))
    }

    /// Appends the next pairs to `out` as elements of `kvs`: at most `pairs`, and no more than fit
    /// `most` bytes, but at least one. Returns how many.
    ///
    /// # Errors
    /// See [`RangeError`]. The run is of no use afterwards.
    pub fn read(
        &mut self,
        view: &View,
        pairs: u64,
        most: usize,
        out: &mut BytesMut,
    ) -> Result<usize, RangeError> {
        let (at, keys_only) = (self.at, self.keys_only);
        let (root, rest, options) = self.parts(view)?;
        let (mut count, mut bytes, mut last) = (0, 0, None);
        let mut picks = Vec::new();
        let walk = root
            .range(rest, at)
            .filter(|(_, meta)| options.accepts(meta));
        for (key, meta) in walk.take(usize::try_from(pairs).unwrap_or(usize::MAX)) {
            bytes += framed_len(key, &meta, keys_only);
            if count > 0 && bytes > most as u64 {
                break;
            }
            if keys_only {
                KeyOnly::new(key, &meta).append_to(out);
            } else {
                picks.push(Pick::of(&meta));
            }
            count += 1;
            last = Some(key);
        }
        let next = last.map(just_behind);
        fetch::all(view, &picks, out)?;
        if let Some(next) = next {
            self.rest = self.rest.from(next);
        }
        Ok(count)
    }

    /// Takes the newest root, if the revision can still be read from it. Reads from then on cost a
    /// look at everything that changed between the two.
    pub fn renew(&mut self, view: &View) {
        if view.compacted <= self.at {
            self.root = Some(view.index.clone());
        }
    }

    /// Gives the root up. The next call takes the newest one, unless the revision was compacted
    /// meanwhile.
    pub fn rest(&mut self) {
        self.root = None;
    }

    fn parts(&mut self, view: &View) -> Result<(&KeyIndex, &KeyRange, &Options), RangeError> {
        if self.root.is_none() {
            self.renew(view);
        }
        match &self.root {
            Some(root) => Ok((root, &self.rest, &self.options)),
            None => Err(RangeError::Compacted {
                at: self.at,
                compacted: view.compacted,
            }),
        }
    }
}

fn framed_len(key: &[u8], meta: &KeyMeta, keys_only: bool) -> u64 {
    if keys_only {
        KeyOnly::new(key, meta).framed_len()
    } else {
        crate::mvcc::index::framed_len(meta.record_len)
    }
}

/// The least key that is greater than `key`.
fn just_behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
