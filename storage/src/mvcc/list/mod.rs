//! [`Listing`]: what a range request selects, found in the index at once and read in pieces.
//!
//! Counting, filtering, sorting and cutting work on index metadata, so when a listing begins it
//! already knows how many pairs follow and how many bytes they are in a response: the answer can be
//! sent while it is read. Rows are fetched a piece at a time, each piece through the newest [`View`]
//! that the caller has and a page-file transaction of its own. Between two pieces a listing holds
//! an index root and nothing else; see [`Run::rest`] for one that has to wait for long.
//!
//! | Request | What is held | When it begins |
//! |---|---|---|
//! | key order | the root | O(log n) |
//! | key order, filtered or keys only | the root | a walk over the range in the index |
//! | by key descending, version, create, mod | 16 bytes a pair that is answered | the same |
//! | by value | the same | reads every row of the range; while it sorts, all values (with a limit, those of two answers) |
//! | sorted, keys only | the encoded pairs | as above |
//!
//! Pairs leave as the elements of the repeated field `kvs` of the response: tag, length, record. The
//! record of a row *is* its encoded `mvccpb.KeyValue`, so it is copied once, from the page to its
//! place in the piece.

mod fetch;
mod key_only;
mod options;
mod run;
mod top;

use bytes::{Buf, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb::RangeRequest;
use ferrite_api::pb::etcdserverpb::range_request::SortTarget;
use prost::encoding::decode_varint;

use self::fetch::Pick;
use self::key_only::KeyOnly;
use self::options::Options;
pub use self::run::Run;
use self::top::Top;
use super::index::{KeyIndex, KeyMeta, Totals, framed_len};
use super::range::{End, KeyRange};
use super::read::RangeError;
use super::record;
use super::view::View;

/// The key byte of `kvs` in `etcdserverpb.RangeResponse`.
pub const KVS: u8 = 0x12;

/// The records in a piece of a [`Listing`], as slices of it.
pub fn pairs(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if !piece.has_remaining() {
            return None;
        }
        piece.advance(1);
        let len = decode_varint(&mut piece).expect("pieces are made here");
        Some(piece.split_to(usize::try_from(len).expect("a record is in memory")))
    })
}

/// The pairs that a range request selects and that are not read yet, in answer order.
#[derive(Debug)]
pub struct Listing {
    /// Live keys in the range at the revision, whatever limit and filters say.
    count: u64,
    /// Whether the limit cut something off.
    more: bool,
    /// What is left.
    left: Totals,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Rows in an order of their own; the next one is the last.
    Picked(Vec<Pick>),
    /// The row of a single key.
    One(Pick),
    /// Encoded pairs in an order of their own; the next one is the last.
    Encoded(Vec<Bytes>),
    /// A part of the range in key order.
    Run(Box<Run>),
}

impl Listing {
    /// Finds what `request` selects in `index` at revision `at`, which the caller has checked. Rows
    /// come from `view`, if the order depends on them.
    ///
    /// # Errors
    /// Of [`RangeError`] only what fetching rows gives, and only when sorting by value.
    pub fn begin(
        view: &View,
        index: &KeyIndex,
        at: i64,
        request: &RangeRequest,
    ) -> Result<Self, RangeError> {
        let options = Options::of(request);
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        if *range.end() == End::Single && !request.keys_only {
            return Ok(Self::single(
                index.get(range.start(), at),
                request,
                &options,
            ));
        }
        let all = index.totals(&range, at);
        if request.count_only || all.count == 0 {
            return Ok(Self::rows(Vec::new(), all.count, false));
        }
        if options.in_key_order() {
            return Self::run(view, (index, at), range, all, request.keys_only, options);
        }
        // etcd reads limit + 1 pairs in key order and sorts those: kept, clients can see it.
        let cut = options.unsorted_cut().map_or(u64::MAX, |limit| limit + 1);
        let pairs = index
            .range(&range, at)
            .filter(|(_, meta)| options.accepts(meta))
            .take(usize::try_from(cut).unwrap_or(usize::MAX));
        let order = Order {
            options: &options,
            count: all.count,
            keys_only: request.keys_only,
        };
        Ok(match options.target {
            SortTarget::Key => order.by((0_u64..).zip(pairs)),
            SortTarget::Version => order.by(pairs.map(|pair| (pair.1.version, pair))),
            SortTarget::Create => order.by(pairs.map(|pair| (pair.1.created, pair))),
            SortTarget::Mod => order.by(pairs.map(|pair| (pair.1.modified.main, pair))),
            SortTarget::Value => order.by_value(view, pairs)?,
        })
    }

    /// Whether [`Listing::begin`] for this request is O(log n), from an index root of its revision.
    pub fn begins_at_once(request: &RangeRequest) -> bool {
        let options = Options::of(request);
        request.count_only || (options.in_key_order() && !options.filtered() && !request.keys_only)
    }

    /// Live keys in the range at the revision, whatever limit and filters say.
    pub fn count(&self) -> i64 {
        i64::try_from(self.count).expect("a count of keys in memory fits i64")
    }

    /// Whether the limit cut something off.
    pub fn more(&self) -> bool {
        self.more
    }

    /// How many pairs are left to be read, and their bytes as elements of `kvs`. Exact.
    pub fn left(&self) -> Totals {
        self.left
    }

    /// Appends the next pairs to `out`: as many as fit `most` bytes, but at least one, if one is
    /// left.
    ///
    /// # Errors
    /// See [`RangeError`]. The listing is of no use afterwards.
    pub fn read(&mut self, view: &View, most: usize, out: &mut BytesMut) -> Result<(), RangeError> {
        let before = out.len();
        let pairs = match &mut self.source {
            Source::Run(run) => run.read(view, self.left.count, most, out)?,
            Source::One(pick) => {
                fetch::one(view, pick, out)?;
                1
            }
            Source::Picked(picks) => {
                let mut bytes = 0;
                let fit = picks.iter().rev().enumerate().take_while(|(at, pick)| {
                    bytes += pick.framed_len();
                    *at == 0 || bytes <= most as u64
                });
                let from = picks.len() - fit.count();
                let mut next = picks.split_off(from);
                next.reverse();
                fetch::all(view, &next, out)?;
                next.len()
            }
            Source::Encoded(pairs) => {
                let (mut count, mut bytes) = (0, 0);
                while let Some(pair) = pairs.pop_if(|pair| {
                    bytes += record::field_len(pair.len());
                    count == 0 || bytes <= most
                }) {
                    record::append_field(KVS, &pair, out);
                    count += 1;
                }
                count
            }
        };
        self.left.count -= pairs as u64;
        let bytes = (out.len() - before) as u64;
        assert!(
            bytes <= self.left.framed_bytes
                && (self.left.count == 0) == (bytes == self.left.framed_bytes),
            "{pairs} pairs of {bytes} bytes were read, {:?} promised",
            self.left
        );
        self.left.framed_bytes -= bytes;
        Ok(())
    }

    /// The part of the index that the listing walks, if it does.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.source {
            Source::Run(run) => Some(run),
            _ => None,
        }
    }

    fn single(found: Option<KeyMeta>, request: &RangeRequest, options: &Options) -> Self {
        let count = u64::from(found.is_some());
        match found {
            Some(meta) if !request.count_only && options.accepts(&meta) => Self {
                count,
                more: false,
                left: Totals {
                    count: 1,
                    framed_bytes: framed_len(meta.record_len),
                },
                source: Source::One(Pick::of(&meta)),
            },
            _ => Self::rows(Vec::new(), count, false),
        }
    }

    fn run(
        view: &View,
        (index, at): (&KeyIndex, i64),
        range: KeyRange,
        all: Totals,
        keys_only: bool,
        options: Options,
    ) -> Result<Self, RangeError> {
        let limit = options.limit.unwrap_or(u64::MAX);
        let plain = !keys_only && !options.filtered();
        let mut run = Run::new(index.clone(), at, range, keys_only, options);
        let (left, more) = if plain && limit >= all.count {
            (all, false)
        } else {
            run.measure(view, limit)?
        };
        Ok(Self {
            count: all.count,
            more,
            left,
            source: Source::Run(Box::new(run)),
        })
    }

    fn rows(picks: Vec<Pick>, count: u64, more: bool) -> Self {
        let left = Totals {
            count: picks.len() as u64,
            framed_bytes: picks.iter().map(Pick::framed_len).sum(),
        };
        Self {
            count,
            more,
            left,
            source: Source::Picked(picks),
        }
    }

    fn encoded(pairs: Vec<Bytes>, count: u64, more: bool) -> Self {
        let framed = |pair: &Bytes| framed_len(u32::try_from(pair.len()).unwrap_or(u32::MAX));
        let left = Totals {
            count: pairs.len() as u64,
            framed_bytes: pairs.iter().map(framed).sum(),
        };
        Self {
            count,
            more,
            left,
            source: Source::Encoded(pairs),
        }
    }
}

/// Puts pairs in an order that is not the index's.
struct Order<'o> {
    options: &'o Options,
    count: u64,
    keys_only: bool,
}

impl Order<'_> {
    /// By something that the index knows.
    fn by<'k, O: Ord>(&self, pairs: impl Iterator<Item = (O, (&'k [u8], KeyMeta))>) -> Listing {
        if self.keys_only {
            let pairs =
                pairs.map(|(order, (key, meta))| (order, KeyOnly::new(key, &meta).encode()));
            let (pairs, more) = self.top(pairs);
            Listing::encoded(pairs, self.count, more)
        } else {
            let pairs = pairs.map(|(order, (_, meta))| (order, Pick::of(&meta)));
            let (picks, more) = self.top(pairs);
            Listing::rows(picks, self.count, more)
        }
    }

    fn by_value<'k>(
        &self,
        view: &View,
        pairs: impl Iterator<Item = (&'k [u8], KeyMeta)>,
    ) -> Result<Listing, RangeError> {
        let mut failure = None;
        let mut rows = view.rows();
        // Stops at the first row that cannot be read.
        let read = pairs.map_while(|(_, meta)| {
            let record = rows.get(meta.modified).map_err(RangeError::from);
            match record.and_then(|record| Ok(record::decode(meta.modified, &record)?)) {
                Ok(kv) => Some((meta, kv)),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            }
        });
        let listing = if self.keys_only {
            // The pair was read to sort it: unlike the index path this keeps the lease.
            let pairs = read.map(|(_, mut kv)| (std::mem::take(&mut kv.value), record::put(&kv)));
            let (pairs, more) = self.top(pairs);
            Listing::encoded(pairs, self.count, more)
        } else {
            let picks = read.map(|(meta, kv)| (kv.value, Pick::of(&meta)));
            let (picks, more) = self.top(picks);
            Listing::rows(picks, self.count, more)
        };
        match failure {
            None => Ok(listing),
            Some(error) => Err(error),
        }
    }

    /// The pairs that are answered, the first one last, and whether the limit cut something off.
    fn top<O: Ord, P>(&self, pairs: impl Iterator<Item = (O, P)>) -> (Vec<P>, bool) {
        let mut top = Top::new(self.options.limit, self.options.descending);
        pairs.for_each(|(order, pair)| top.push(order, pair));
        top.finish()
    }
}
