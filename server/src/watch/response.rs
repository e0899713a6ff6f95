//! What a watch stream answers.

use std::sync::Arc;

use bytes::BytesMut;
use ferrite_api::pb::etcdserverpb as pb;
use prost::Message;

use super::event::{Event, Pieces};

/// A message of a watch stream.
#[derive(Clone, Debug)]
pub struct Response {
    /// Ids, term, and a revision whose meaning depends on the content.
    pub header: pb::ResponseHeader,
    /// The watcher; -1 for a refused request and for progress of the whole stream.
    pub watch_id: i64,
    /// What it says.
    pub content: Content,
}

/// What a [`Response`] says.
#[derive(Clone, Debug)]
pub enum Content {
    /// The watcher exists. `header.revision` is the store revision: a watcher that starts "now" sees
    /// every later change and none up to it.
    Created,
    /// The watcher was not created, for this reason.
    Refused(String),
    /// The client has cancelled the watcher.
    Canceled,
    /// The watcher has ended: it needs revisions below this compaction. `header.revision` is 0, as
    /// etcd's.
    Compacted(i64),
    /// Every change up to `header.revision` that concerns the watcher was delivered.
    Progress,
    /// Changes, of whole revisions in order.
    Events {
        /// The changes.
        events: Arc<[Arc<Event>]>,
        /// They carry the previous pairs that are not below this compaction; `None`: they carry none.
        prev_since: Option<i64>,
        /// Whether more of this response follows.
        more: bool,
    },
}

impl Response {
    /// The changes in it.
    pub fn events(&self) -> &[Arc<Event>] {
        match &self.content {
            Content::Events { events, .. } => events,
            _ => &[],
        }
    }

    /// Everything but the events.
    fn head(&self) -> pb::WatchResponse {
        let mut head = pb::WatchResponse {
            header: Some(self.header),
            watch_id: self.watch_id,
            ..pb::WatchResponse::default()
        };
        match &self.content {
            Content::Created => head.created = true,
            Content::Refused(reason) => {
                head.created = true;
                head.canceled = true;
                head.cancel_reason.clone_from(reason);
            }
            Content::Canceled => head.canceled = true,
            Content::Compacted(revision) => {
                head.canceled = true;
                head.compact_revision = *revision;
            }
            Content::Progress => {}
            Content::Events { more, .. } => head.fragment = *more,
        }
        head
    }

    /// Length of the encoded message (bytes).
    pub(crate) fn encoded_len(&self) -> usize {
        let events = match &self.content {
            Content::Events {
                events, prev_since, ..
            } => events
                .iter()
                .map(|event| event.framed_len(*prev_since))
                .sum(),
            _ => 0,
        };
        self.head().encoded_len() + events
    }

    /// The encoded message in pieces.
    pub(crate) fn pieces(&self, out: &mut impl Pieces) {
        let head = self.head();
        out.small(|buf: &mut BytesMut| head.encode_raw(buf));
        if let Content::Events {
            events, prev_since, ..
        } = &self.content
        {
            for event in events.iter() {
                event.pieces(*prev_since, out);
            }
        }
    }

    /// The response as the message of the API.
    pub fn to_message(&self) -> pb::WatchResponse {
        let mut message = self.head();
        if let Content::Events {
            events, prev_since, ..
        } = &self.content
        {
            let events = events.iter().map(|event| event.to_message(*prev_since));
            message.events = events.collect();
        }
        message
    }

    /// The response in parts that stay below `limit` bytes, unless a single event exceeds it. All
    /// but the last say that more follows.
    pub(super) fn split(self, limit: usize) -> Vec<Response> {
        let Content::Events {
            events, prev_since, ..
        } = &self.content
        else {
            return vec![self];
        };
        if events.len() < 2 || self.encoded_len() < limit {
            return vec![self];
        }
        let part = |events: &[Arc<Event>], more| Response {
            content: Content::Events {
                events: events.into(),
                prev_since: *prev_since,
                more,
            },
            ..self.clone()
        };
        let head = part(&[], true).encoded_len();
        let (mut parts, mut from, mut length) = (Vec::new(), 0, head);
        for (at, event) in events.iter().enumerate() {
            let event = event.framed_len(*prev_since);
            if at > from && length + event >= limit {
                parts.push(part(&events[from..at], true));
                (from, length) = (at, head);
            }
            length += event;
        }
        parts.push(part(&events[from..], false));
        parts
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes};
    use ferrite_api::types::Revision;

    use super::*;

    impl Pieces for BytesMut {
        fn small(&mut self, write: impl FnOnce(&mut BytesMut)) {
            write(self);
        }
        fn shared(&mut self, piece: &Bytes) {
            self.put_slice(piece);
        }
    }

    fn response(content: Content) -> Response {
        let header = pb::ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 2,
            revision: 300,
            raft_term: 4,
        };
        Response {
            header,
            watch_id: 5,
            content,
        }
    }

    fn deletions(count: i64) -> Arc<[Arc<Event>]> {
        (0..count)
            .map(|sub| Event::deletion(Revision::new(7, sub), Bytes::from(vec![b'k'; 40])))
            .map(Arc::new)
            .collect()
    }

    fn events(events: Arc<[Arc<Event>]>) -> Content {
        Content::Events {
            events,
            prev_since: Some(0),
            more: false,
        }
    }

    #[test]
    fn pieces_are_the_encoded_message() {
        for content in [
            Content::Created,
            Content::Refused("why".into()),
            Content::Canceled,
            Content::Compacted(9),
            Content::Progress,
            events(deletions(3)),
        ] {
            let response = response(content);
            let mut pieces = BytesMut::new();
            response.pieces(&mut pieces);
            assert_eq!(pieces.len(), response.encoded_len());
            assert_eq!(pieces[..], response.to_message().encode_to_vec()[..]);
        }
    }

    #[test]
    fn fragments_are_below_the_limit_and_packed() {
        let whole = response(events(deletions(10)));
        let one = whole.events()[0].framed_len(Some(0));
        let head = response(events(deletions(0))).encoded_len() + 2; // and the flag
        for per_part in 1..=10 {
            let limit = head + per_part * one + 1;
            let parts = whole.clone().split(limit);
            let unsplit = whole.encoded_len() < limit;
            let expected = if unsplit {
                1
            } else {
                10_usize.div_ceil(per_part)
            };
            assert_eq!(parts.len(), expected, "{per_part} events a part");
            for (n, part) in parts.iter().enumerate() {
                assert!(part.encoded_len() < limit);
                assert_eq!(part.to_message().fragment, n + 1 < parts.len());
            }
            let subs = parts
                .iter()
                .flat_map(|part| part.events())
                .map(|e| e.revision().sub);
            assert_eq!(subs.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        }
        // A limit that no event meets: one event a part.
        assert_eq!(whole.clone().split(1).len(), 10);
        assert_eq!(response(events(deletions(1))).split(1).len(), 1);
    }
}
