//! KV.Range, answered while it is read.
//!
//! How many bytes the pairs are is known before the first row is read ([`Listing`]), so an answer
//! of any size can begin at once and never exists as a whole. Short answers are read where the
//! request is handled, into the one allocation in which they leave; answers up to [`WHOLE`] are read
//! at once on a reader thread; longer ones in pieces, ahead of the client (`readers`).

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_storage::mvcc::list::{self, Listing};
use ferrite_storage::mvcc::pins::Pin;
use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::mvcc::read::RangeError;
use ferrite_storage::mvcc::view::View;

use super::Handle;
use super::readers::{self, PIECE, Pieces, Source};
use crate::error::Error;
use crate::metrics::RequestKind;
use crate::validate;

/// Rows above which a read leaves the async workers: some hundred microseconds of work.
pub(super) const LONG_READ: u64 = 64;

/// The same in bytes.
const LONG_READ_BYTES: u64 = 64 * 1024;

/// Longest answer that is read at once, in bytes: two pieces.
const WHOLE: u64 = 2 * PIECE as u64;

/// Bytes left free before the pairs of a short answer: room for what comes before them in a message.
pub(crate) const HEADROOM: usize = 64;

/// Likewise behind them.
pub(crate) const TAILROOM: usize = 16;

/// The answer to a Range with all its pairs, each an already encoded `mvccpb.KeyValue`.
#[derive(Clone, Debug, Default)]
pub struct RangeReply {
    /// Ids, revision and term.
    pub header: pb::ResponseHeader,
    /// Encoded `mvccpb.KeyValue` messages, in answer order.
    pub kvs: Vec<Bytes>,
    /// Whether the limit cut the result.
    pub more: bool,
    /// Keys in the range at the revision, whatever the limit.
    pub count: i64,
}

/// The answer to a Range, its pairs still to come.
#[derive(Debug)]
pub struct List {
    header: pb::ResponseHeader,
    more: bool,
    count: i64,
    /// Bytes of the pairs that are still to come.
    left: u64,
    pairs: Pairs,
}

#[derive(Debug)]
enum Pairs {
    /// All of them, between head room and tail room.
    Whole(BytesMut),
    /// Not begun yet.
    Unread(Box<Reading>),
    Reading(Pieces<Bytes>),
    /// Somebody else's.
    Given(std::vec::IntoIter<Bytes>),
    Ended,
}

impl List {
    /// An answer of pairs that are there already, `bytes` of them as elements of the field `kvs`:
    /// for servers that are no members.
    pub fn given(header: pb::ResponseHeader, more: bool, count: i64, pieces: Vec<Bytes>) -> Self {
        Self {
            header,
            more,
            count,
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pairs: Pairs::Given(pieces.into_iter()),
        }
    }

    /// Ids, revision and term.
    pub fn header(&self) -> pb::ResponseHeader {
        self.header
    }

    /// Whether the limit cut the result.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Keys in the range at the revision, whatever the limit.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The length of all pieces that are still to come, in bytes. Exact.
    pub fn bytes(&self) -> u64 {
        self.left
    }

    /// The next pairs, as elements of the field `kvs` of an encoded `RangeResponse`; `None` after
    /// the last. [`List::pairs`] takes them apart.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The rest cannot be read: it was compacted while the caller took its time, or it is damaged.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if let Pairs::Unread(_) = self.pairs
            && let Pairs::Unread(reading) = std::mem::replace(&mut self.pairs, Pairs::Ended)
        {
            let readers = reading.handle.inner.readers.clone();
            self.pairs = Pairs::Reading(readers.read_ahead(*reading));
        }
        let piece = match &mut self.pairs {
            Pairs::Whole(buffer) => {
                let mut pairs = std::mem::take(buffer).freeze();
                pairs.advance(HEADROOM);
                self.pairs = Pairs::Ended;
                (!pairs.is_empty()).then_some(Ok(pairs))
            }
            Pairs::Reading(pieces) => pieces.next().await,
            Pairs::Given(pieces) => pieces.next().map(Ok),
            Pairs::Unread(_) | Pairs::Ended => None,
        };
        match &piece {
            Some(Ok(piece)) => self.left = self.left.saturating_sub(piece.len() as u64),
            Some(Err(_)) => self.left = 0,
            None if self.left > 0 => {
                self.left = 0;
                return Some(Err(readers::panicked()));
            }
            None => {}
        }
        piece
    }

    /// The encoded `mvccpb.KeyValue`s in a piece, as slices of it.
    pub fn pairs(piece: Bytes) -> impl Iterator<Item = Bytes> {
        list::pairs(piece)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// As [`List::next`].
    pub async fn collect(mut self) -> Result<RangeReply, Error> {
        let mut kvs = Vec::new();
        while let Some(piece) = self.next().await {
            kvs.extend(Self::pairs(piece?));
        }
        Ok(RangeReply {
            header: self.header,
            kvs,
            more: self.more,
            count: self.count,
        })
    }

    /// All pairs of a short answer, behind [`HEADROOM`] unused bytes and with room for
    /// [`TAILROOM`] more.
    pub(crate) fn take_whole(&mut self) -> Option<BytesMut> {
        match &mut self.pairs {
            Pairs::Whole(buffer) => {
                let buffer = std::mem::take(buffer);
                (self.pairs, self.left) = (Pairs::Ended, 0);
                Some(buffer)
            }
            _ => None,
        }
    }
}

impl Handle {
    /// KV.Range. Validates, waits for linearizability unless `serializable`, finds what to answer.
    /// The pairs are read as the caller takes them, from one revision: that is kept from compaction
    /// while the caller goes on taking, and for some seconds if it pauses.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn list(&self, request: pb::RangeRequest) -> Result<List, Error> {
        validate::range(&request)?;
        let begun = Instant::now();
        let result = self.begin_list(request).await;
        self.observe(RequestKind::Range, begun, result.is_ok());
        result
    }

    /// As [`Handle::list`], with all pairs in memory.
    ///
    /// # Errors
    /// As etcd's.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<RangeReply, Error> {
        self.list(request).await?.collect().await
    }

    /// Bytes of answers that were read and that no client has taken.
    pub fn bytes_read_ahead(&self) -> u64 {
        self.inner.readers.bytes_ahead()
    }

    pub(super) async fn begin_list(&self, request: pb::RangeRequest) -> Result<List, Error> {
        let view = self.view(request.serializable).await?;
        self.check_read(&request.key, &request.range_end).await?;
        if let Some(list) = self.start(&view, &request, Place::Worker)? {
            return Ok(list);
        }
        let this = self.clone();
        let list = move || this.start(&view, &request, Place::Reader);
        let list = self.inner.readers.run(list).await?;
        list.ok_or_else(super::mixed_up)
    }

    /// Begins, again on a newer view if a compaction has overtaken a read of the newest revision.
    /// `None`: it takes too long for this place.
    fn start(
        &self,
        view: &Arc<View>,
        request: &pb::RangeRequest,
        place: Place,
    ) -> Result<Option<List>, Error> {
        let begun = Instant::now();
        let mut newer;
        let mut view = view;
        let result = loop {
            match self.try_start(view, request, place) {
                Err(RangeError::Missing(_))
                    if request.revision <= 0 && self.compacted() > view.revision =>
                {
                    newer = self.inner.published.view();
                    view = &newer;
                }
                result => break result,
            }
        };
        if !matches!(result, Ok(None)) {
            let metrics = &self.inner.metrics;
            metrics.mvcc.range.inc();
            metrics
                .server
                .observe_range(result.is_ok(), begun.elapsed());
        }
        let at = if request.revision <= 0 {
            view.revision
        } else {
            request.revision
        };
        result.map_err(|error| self.failed(error, at))
    }

    fn try_start(
        &self,
        view: &View,
        request: &pb::RangeRequest,
        place: Place,
    ) -> Result<Option<List>, RangeError> {
        let roots = self.inner.published.roots();
        let at = view.resolve(request.revision)?;
        let kept = (at < view.revision).then(|| roots.get(at)).flatten();
        let current = at == view.revision;
        if place == Place::Worker && !begins_soon(view, request, current || kept.is_some()) {
            return Ok(None);
        }
        // A short read needs no pin: what it may miss it asks for again.
        let pin = (place == Place::Reader).then(|| view.pins.pin(at));
        let index = kept.as_ref().unwrap_or(&view.index);
        let mut listing = Listing::begin(view, index, at, request)?;
        if current && listing.more() {
            roots.keep(view);
        }
        let left = listing.left();
        let long = left.count > LONG_READ || left.framed_bytes > LONG_READ_BYTES;
        if place == Place::Worker && long {
            return Ok(None);
        }
        let (more, count) = (listing.more(), listing.count());
        let pairs = match usize::try_from(left.framed_bytes) {
            Ok(bytes) if left.framed_bytes <= WHOLE => {
                let mut buffer = BytesMut::with_capacity(HEADROOM + bytes + TAILROOM);
                buffer.resize(HEADROOM, 0);
                while listing.left().count > 0 {
                    listing.read(view, PIECE, &mut buffer)?;
                }
                Pairs::Whole(buffer)
            }
            _ => Pairs::Unread(Box::new(Reading {
                handle: self.clone(),
                listing,
                at,
                pin,
            })),
        };
        Ok(Some(List {
            header: self.header(view.revision),
            more,
            count,
            left: left.framed_bytes,
            pairs,
        }))
    }
}

/// Where a read runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On an async worker, where nothing may take long.
    Worker,
    /// On a reader thread.
    Reader,
}

/// Whether finding what to answer is quick enough for an async worker. `exact`: there is an index
/// root of the very revision.
fn begins_soon(view: &View, request: &pb::RangeRequest, exact: bool) -> bool {
    if request.range_end.is_empty() || (exact && Listing::begins_at_once(request)) {
        return true;
    }
    let range = KeyRange::new(request.key.clone(), &request.range_end);
    let now = view.index.totals(&range, view.revision);
    exact && now.count <= LONG_READ && now.framed_bytes <= LONG_READ_BYTES
}

/// A long answer that is being read.
#[derive(Debug)]
struct Reading {
    handle: Handle,
    listing: Listing,
    at: i64,
    /// Keeps compaction off.
    pin: Option<Pin>,
}

impl Source for Reading {
    type Piece = Bytes;

    fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let left = self.listing.left();
        if left.count == 0 {
            return None;
        }
        let room = usize::try_from(left.framed_bytes).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = BytesMut::with_capacity(room);
        let view = self.handle.inner.published.view();
        if self.pin.is_none() {
            self.pin = Some(view.pins.pin(self.at));
        }
        let read = self.listing.read(&view, PIECE, &mut piece);
        Some(match read {
            Ok(()) => Ok(piece.freeze()),
            Err(error) => Err(self.handle.failed(error, self.at)),
        })
    }

    fn renew(&mut self) {
        if let Some(run) = self.listing.run_mut() {
            run.renew(&self.handle.inner.published.view());
        }
    }

    fn rest(&mut self) {
        self.pin = None;
        if let Some(run) = self.listing.run_mut() {
            run.rest();
        }
    }

    fn len(piece: &Bytes) -> usize {
        piece.len()
    }
}
