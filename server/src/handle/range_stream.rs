//! KV.RangeStream: the same answer as Range in many messages, cut where etcd cuts them (spec:
//! validation.md section 4.2).
//!
//! Every message is measured in the index before its first row is read, like the one message of
//! Range, and read by the same reader threads in the same pieces, so a message of any size costs no
//! more memory than a piece.
//!
//! A sort target other than the key, without a sort order, sorts as in Range: such an answer is one
//! message, which is what etcd sends as long as it is short. (It sorts each message for itself and
//! continues behind its last key, so that in longer answers keys repeat or are missing.)
//!
//! Deviations: a negative revision is pinned like 0, where etcd reads every message at the newest
//! revision of its moment. A compaction ends a stream that goes on only when its patience with readers ends, not at once.

use std::cmp::min;

use bytes::{BufMut, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb as pb;
use ferrite_storage::mvcc::index::Totals;
use ferrite_storage::mvcc::list::Run;
use ferrite_storage::mvcc::pins::Pin;
use ferrite_storage::mvcc::range::KeyRange;
use ferrite_storage::mvcc::read::RangeError;
use ferrite_storage::mvcc::view::View;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::Handle;
use super::auth::AuthGuard;
use super::encoding::{MAX_HEADER, MAX_TAIL, header_len, put_header, put_tail, tail_len};
use super::list::List;
use super::readers::{self, PIECE, Pieces, Source};
use crate::error::Error;
use crate::validate;

/// Pairs of the first message.
const FIRST_LIMIT: u64 = 10;

/// The key byte of `range_response` in `etcdserverpb.RangeStreamResponse`.
const RANGE_RESPONSE: u8 = 0x0a;

/// The messages of a stream, in pieces.
#[derive(Debug)]
pub struct Messages {
    source: Origin,
    /// Bytes that are to come before the next message can begin or the stream end.
    left: usize,
    /// Whether the last message was seen.
    ended: bool,
    /// To be looked at in the end.
    guard: Option<AuthGuard>,
}

#[derive(Debug)]
enum Origin {
    Reader(Pieces<Piece>),
    Sorted(Box<Sorted>),
    Given(std::vec::IntoIter<Piece>),
}

/// A part of an encoded `RangeStreamResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The length of the message in bytes, in its first piece.
    pub begins: Option<usize>,
    /// Whether the message is the last.
    pub last: bool,
    /// The bytes.
    pub bytes: Bytes,
}

impl Messages {
    /// Messages that are there already: for servers that are no members.
    pub fn given(pieces: Vec<Piece>) -> Self {
        Self {
            source: Origin::Given(pieces.into_iter()),
            left: 0,
            ended: false,
            guard: None,
        }
    }

    /// The next piece; `None` at the end. A message begins only when the one before is complete.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The rest cannot be read: it was compacted while the caller took its time, or it is damaged. After
    /// the last piece, when users or roles have changed meanwhile.
    pub async fn next(&mut self) -> Option<Result<Piece, Error>> {
        let piece = match &mut self.source {
            Origin::Reader(pieces) => pieces.next().await,
            Origin::Sorted(message) => message.next().await,
            Origin::Given(pieces) => pieces.next().map(Ok),
        };
        match &piece {
            Some(Ok(piece)) => {
                self.left += piece.begins.unwrap_or(0);
                self.left = self.left.saturating_sub(piece.bytes.len());
                self.ended = piece.last;
            }
            Some(Err(_)) => (self.left, self.ended) = (0, true),
            None if self.left > 0 || !self.ended => {
                (self.left, self.ended) = (0, true);
                return Some(Err(readers::panicked()));
            }
            None => {
                let guard = self.guard.take();
                return guard.and_then(AuthGuard::check).map(Err);
            }
        }
        piece
    }
}

impl Handle {
    /// KV.RangeStream. Validates and waits for linearizability unless `serializable`; the messages
    /// are read as the caller takes them, from one revision, as by [`Handle::list`].
    ///
    /// # Errors
    /// As etcd's.
    pub async fn range_stream(&self, request: pb::RangeRequest) -> Result<Messages, Error> {
        validate::range_stream(&request)?;
        let guard = self.auth_guard();
        if request.sort_target != pb::range_request::SortTarget::Key as i32 {
            let list = self.begin_list(request).await?;
            return Ok(Messages {
                source: Origin::Sorted(Box::new(Sorted {
                    list,
                    begun: false,
                    ended: false,
                })),
                left: 0,
                ended: false,
                guard,
            });
        }
        let mut view = self.view(request.serializable).await?;
        self.check_read(&request.key, &request.range_end).await?;
        let (at, pin) = loop {
            let at = view.resolve(request.revision);
            let at = at.map_err(|error| self.failed(error, request.revision))?;
            let pin = view.pins.pin(at);
            // The pin holds compactions off only from now on.
            if request.revision > 0 || self.compacted() <= at {
                break (at, pin);
            }
            view = self.inner.published.view();
        };
        let kept = (at < view.revision).then(|| self.inner.published.roots().get(at));
        let index = kept.flatten().unwrap_or_else(|| view.index.clone());
        let range = KeyRange::new(request.key.clone(), &request.range_end);
        let (limit, message_limit) = match u64::try_from(request.limit) {
            Ok(0) => (u64::MAX, FIRST_LIMIT),
            Ok(limit) => (limit, min(limit, FIRST_LIMIT)),
            // Everything in one message, as etcd.
            Err(_) => (u64::MAX, u64::MAX),
        };
        let reading = Reading {
            handle: self.clone(),
            run: Run::all(index, at, range, request.keys_only),
            pin: Some(pin),
            revision: view.revision,
            count_only: request.count_only,
            limit,
            message_limit,
            sent: 0,
            message: None,
            ended: false,
        };
        Ok(Messages {
            source: Origin::Reader(self.inner.readers.read_ahead(reading)),
            left: 0,
            ended: false,
            guard,
        })
    }
}

/// An answer that is not in the order of keys: one message.
#[derive(Debug)]
struct Sorted {
    list: List,
    begun: bool,
    ended: bool,
}

impl Sorted {
    async fn next(&mut self) -> Option<Result<Piece, Error>> {
        if self.ended {
            return None;
        }
        let (header, more, count) = (self.list.header(), self.list.more(), self.list.count());
        let pairs_len = usize::try_from(self.list.bytes()).unwrap_or(usize::MAX);
        let pairs = match self.list.next().await.transpose() {
            Ok(pairs) => pairs.unwrap_or_default(),
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        let mut bytes = BytesMut::with_capacity(2 * MAX_HEADER + pairs.len() + MAX_TAIL);
        let mut begins = None;
        if !std::mem::replace(&mut self.begun, true) {
            let around = header_len(&header) + tail_len(more, count);
            let inner = pairs_len.saturating_add(around);
            bytes.put_u8(RANGE_RESPONSE);
            encode_varint(inner as u64, &mut bytes);
            begins = Some(inner.saturating_add(bytes.len()));
            put_header(&header, &mut bytes);
        }
        bytes.extend_from_slice(&pairs);
        if self.list.bytes() == 0 {
            put_tail(more, count, &mut bytes);
            self.ended = true;
        }
        Some(Ok(Piece {
            begins,
            last: true,
            bytes: bytes.freeze(),
        }))
    }
}

/// A stream that is being read.
struct Reading {
    handle: Handle,
    run: Run,
    /// Keeps compaction off.
    pin: Option<Pin>,
    /// The store revision when the stream began.
    revision: i64,
    count_only: bool,
    /// Pairs in all messages, and in the next one, at most.
    limit: u64,
    message_limit: u64,
    /// Pairs in the messages so far.
    sent: u64,
    message: Option<Message>,
    /// Whether the last message has begun.
    ended: bool,
}

/// A message of which a part was read.
struct Message {
    left: Totals,
    /// What follows the pairs.
    tail: BytesMut,
}

impl Reading {
    fn piece(&mut self) -> Result<Piece, RangeError> {
        let view = self.handle.inner.published.view();
        if self.pin.is_none() {
            self.pin = Some(view.pins.pin(self.run.at()));
        }
        let mut bytes = BytesMut::new();
        let mut begins = None;
        let mut message = match self.message.take() {
            Some(message) => message,
            None => {
                let (message, length) = self.begin(&view, &mut bytes)?;
                begins = Some(length);
                message
            }
        };
        if message.left.count > 0 {
            let before = bytes.len();
            let pairs = self
                .run
                .read(&view, message.left.count, PIECE, &mut bytes)?;
            message.left.count -= pairs as u64;
            message.left.framed_bytes -= (bytes.len() - before) as u64;
        }
        if message.left.count == 0 {
            assert_eq!(message.left.framed_bytes, 0, "other bytes than measured");
            bytes.extend_from_slice(&message.tail);
        } else {
            self.message = Some(message);
        }
        Ok(Piece {
            begins,
            last: self.ended,
            bytes: bytes.freeze(),
        })
    }

    /// Measures the next message and appends what comes before its pairs. Returns it and its length.
    fn begin(&mut self, view: &View, out: &mut BytesMut) -> Result<(Message, usize), RangeError> {
        self.handle.inner.metrics.mvcc.range.inc();
        let (pairs, more) = if self.count_only {
            (Totals::default(), false)
        } else {
            self.run.measure(view, self.message_limit)?
        };
        self.sent += pairs.count;
        self.ended = !more || self.sent == self.limit;
        let (mut head, mut tail) = (BytesMut::new(), BytesMut::new());
        if self.ended {
            let mut count = self.sent;
            if more || self.count_only {
                count += self.run.count(view)? - pairs.count;
            }
            head.reserve(MAX_HEADER);
            put_header(&self.handle.header(self.revision), &mut head);
            tail.reserve(MAX_TAIL);
            put_tail(more, signed(count), &mut tail);
        } else {
            self.message_limit = self.next_limit(view, &pairs);
        }
        let pairs_len = usize::try_from(pairs.framed_bytes).unwrap_or(usize::MAX);
        let inner = pairs_len.saturating_add(head.len() + tail.len());
        let prefix = 1 + encoded_len_varint(inner as u64);
        out.reserve(prefix + head.len() + min(pairs_len, PIECE) + tail.len());
        out.put_u8(RANGE_RESPONSE);
        encode_varint(inner as u64, out);
        out.extend_from_slice(&head);
        let message = Message { left: pairs, tail };
        Ok((message, inner.saturating_add(prefix)))
    }

    /// How many pairs the message after this one has at most. etcd looks at the size of what it has
    /// read for this one: a response with the store revision in its header, and a count of the pairs
    /// and one more.
    fn next_limit(&self, view: &View, pairs: &Totals) -> u64 {
        let header = pb::ResponseHeader {
            revision: view.revision,
            ..Default::default()
        };
        let around = header_len(&header) + tail_len(true, signed(pairs.count + 1));
        let size = pairs.framed_bytes.saturating_add(around as u64);
        let target = self.handle.inner.limits.max_request_bytes as u64;
        let limit = if size < target / 2 {
            self.message_limit.saturating_mul(2)
        } else if size > target.saturating_mul(2) {
            self.message_limit / 2
        } else {
            self.message_limit
        };
        limit.max(1).min(self.limit - self.sent)
    }
}

impl Source for Reading {
    type Piece = Piece;

    fn next(&mut self) -> Option<Result<Piece, Error>> {
        if self.ended && self.message.is_none() {
            return None;
        }
        let at = self.run.at();
        Some(self.piece().map_err(|error| self.handle.failed(error, at)))
    }

    fn renew(&mut self) {
        self.run.renew(&self.handle.inner.published.view());
    }

    fn rest(&mut self) {
        self.pin = None;
        self.run.rest();
    }

    fn len(piece: &Piece) -> usize {
        piece.bytes.len()
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).expect("a count of keys in memory fits i64")
}
