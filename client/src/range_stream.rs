//! Ranges that arrive in pieces: `KV.RangeStream`, or page by page from servers that lack it.

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb as pb;
use tonic::Code;

use crate::call::Answers;
use crate::kv::SortOrder;
use crate::{Client, Error, GetOptions, rpc};

/// Pairs in a page, where a server knows pages only.
const PAGE: i64 = 1000;

impl Client {
    /// Reads a range in pieces (`KV.RangeStream`, new in 3.7), all at one revision: neither side
    /// ever holds the whole answer.
    ///
    /// From a server without the call the range is read in pages of 1000 pairs, at the revision of
    /// the first; the pieces are the same but for their sizes. Sorting and revision filters are
    /// refused with `Unimplemented`. Never repeated by the client.
    ///
    /// ```no_run
    /// # use ferrite_client::{Client, Error, GetOptions};
    /// # async fn example(client: Client) -> Result<(), Error> {
    /// let mut stream = client.range_stream("", GetOptions::new().prefix()).await?;
    /// while let Some(piece) = stream.next().await? {
    ///     for kv in piece.kvs {
    ///         println!("{:?}", kv.key);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Client::get`]. Most come with the first [`RangeStream::next`].
    pub async fn range_stream(
        &self,
        key: impl Into<Bytes>,
        options: GetOptions,
    ) -> Result<RangeStream, Error> {
        let mut request = options.into_request(key);
        self.scope.namespace.enter_get(&mut request)?;
        let client = self.with_one_deadline();
        let source = match client
            .server_stream(rpc::RANGE_STREAM, request.clone())
            .await
        {
            Ok(answers) => Source::Stream(Box::new(answers)),
            Err(error) if is_missing(&error, &request) => Source::pages(&client, &request),
            Err(error) => return Err(error),
        };
        Ok(RangeStream {
            source,
            client,
            request: Some(request),
        })
    }
}

/// Whether the server lacks the call, and pages do the same.
fn is_missing(error: &Error, request: &pb::RangeRequest) -> bool {
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    error.code() == Some(Code::Unimplemented)
        && request.sort_order() == SortOrder::None
        && filters == [0; 4]
}

/// A range that arrives in pieces: see [`Client::range_stream`].
#[derive(Debug)]
pub struct RangeStream {
    source: Source,
    client: Client,
    /// Until the first piece: what to ask in pages if there will be none.
    request: Option<pb::RangeRequest>,
}

#[derive(Debug)]
enum Source {
    Stream(Box<Answers<pb::RangeStreamResponse>>),
    Pages(Box<Pages>),
}

impl Source {
    fn pages(client: &Client, request: &pb::RangeRequest) -> Source {
        Source::Pages(Box::new(Pages {
            client: client.clone(),
            next: Some(request.clone()),
            limit: request.limit,
            sent: 0,
            first: None,
        }))
    }
}

impl RangeStream {
    /// The next piece: disjoint pairs in key order. Only the last one carries `header`, `more`
    /// and `count`. `None` at the end.
    ///
    /// Cancel safety: no piece is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// End the stream; the pieces before were valid.
    /// [`EtcdError::Compacted`](crate::EtcdError::Compacted) when the revision that is being read
    /// was compacted meanwhile.
    pub async fn next(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        loop {
            let result = match &mut self.source {
                Source::Stream(answers) => {
                    let answer = answers.next().await;
                    answer.map(|answer| {
                        answer.map(|answer| answer.range_response.unwrap_or_default())
                    })
                }
                Source::Pages(pages) => return pages.next().await,
            };
            let request = self.request.take();
            match (result, request) {
                (Err(error), Some(request)) if is_missing(&error, &request) => {
                    self.source = Source::pages(&self.client, &request);
                }
                (Ok(Some(mut piece)), _) => {
                    self.client.scope.namespace.leave_get(&mut piece);
                    return Ok(Some(piece));
                }
                (result, _) => return result,
            }
        }
    }

    /// All pieces as the one answer that [`Client::get`] gives.
    ///
    /// # Errors
    ///
    /// As [`RangeStream::next`]; what arrived before is dropped.
    pub async fn collect(mut self) -> Result<pb::RangeResponse, Error> {
        let mut whole = pb::RangeResponse::default();
        while let Some(piece) = self.next().await? {
            whole.kvs.extend(piece.kvs);
            whole.header = piece.header.or(whole.header);
            whole.more |= piece.more;
            if piece.count != 0 {
                whole.count = piece.count;
            }
        }
        Ok(whole)
    }
}

/// A range page by page.
#[derive(Debug)]
struct Pages {
    client: Client,
    /// The next page, but for its limit; `None` after the last, and after an error.
    next: Option<pb::RangeRequest>,
    /// Pairs that are wanted in all; 0 is no limit.
    limit: i64,
    sent: i64,
    /// Header and count of the first page: those of the whole.
    first: Option<(Option<pb::ResponseHeader>, i64)>,
}

impl Pages {
    /// Cancel safety: a page is asked for again.
    async fn next(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        let Some(request) = &self.next else {
            return Ok(None);
        };
        let limit = match self.limit {
            limit if request.count_only => limit,
            limit if limit > 0 => limit.saturating_sub(self.sent).min(PAGE),
            _ => PAGE,
        };
        let page = pb::RangeRequest {
            limit,
            ..request.clone()
        };
        let answered = self.client.unary(rpc::RANGE, page).await;
        let mut request = self.next.take().unwrap_or_default();
        let mut piece = answered?;
        self.sent += i64::try_from(piece.kvs.len()).unwrap_or(i64::MAX);
        let (header, count) = *self.first.get_or_insert((piece.header, piece.count));
        let is_full = self.limit > 0 && self.sent >= self.limit;
        match piece.kvs.last() {
            Some(last) if piece.more && !is_full => {
                request.key = [last.key.as_ref(), &[0]].concat().into();
                if request.revision <= 0 {
                    request.revision = header.map_or(0, |header| header.revision);
                }
                self.next = Some(request);
                (piece.header, piece.more, piece.count) = (None, false, 0);
            }
            _ => (piece.header, piece.count) = (header, count),
        }
        self.client.scope.namespace.leave_get(&mut piece);
        Ok(Some(piece))
    }
}
