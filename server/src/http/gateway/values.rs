//! JSON values out of a request body, one after another, without waiting for the end of the body: the
//! requests of a stream come while it is open.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Body;

/// Why no further value comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client is gone.
    Gone,
    /// A value is longer than the limit (bytes).
    TooLong(usize),
}

/// The JSON values of a body. Where one ends is found by brackets and quotes alone; whether it is JSON
/// is for the parser to say.
#[derive(Debug)]
pub(super) struct Values<B> {
    body: B,
    /// What has arrived and is not taken. Memory is bounded by the limit and one frame.
    arrived: BytesMut,
    /// How much of it the scanner has seen.
    scanned: usize,
    scanner: Scanner,
    /// Longest value, in bytes.
    limit: usize,
    ended: bool,
}

impl<B> Values<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self {
            body,
            arrived: BytesMut::new(),
            scanned: 0,
            scanner: Scanner::default(),
            limit,
            ended: false,
        }
    }

    /// The next value; what the body ends with is one, complete or not. `None` at the end.
    ///
    /// Cancel safety: nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            if let Some(value) = self.take() {
                return Poll::Ready(Ok(Some(value)));
            }
            if self.arrived.len() > self.limit {
                return Poll::Ready(Err(Fault::TooLong(self.limit)));
            }
            if self.ended {
                self.scanned = 0;
                let rest = std::mem::take(&mut self.arrived).freeze();
                return Poll::Ready(Ok((!rest.is_empty()).then_some(rest)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.arrived.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                None => self.ended = true,
            }
        }
    }

    /// Reads the body to its end.
    pub(super) async fn drain(&mut self) -> Result<(), Fault> {
        self.arrived.clear();
        self.scanned = 0;
        while !self.ended {
            match std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return Err(Fault::Gone),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// Takes a value out of what has arrived, if one is complete.
    fn take(&mut self) -> Option<Bytes> {
        if self.scanner.is_between() {
            let blank = self.arrived.iter().take_while(|b| is_blank(**b)).count();
            drop(self.arrived.split_to(blank));
            self.scanned = 0;
        }
        let end = self.scanner.scan(&self.arrived[self.scanned..]);
        let Some(end) = end else {
            self.scanned = self.arrived.len();
            return None;
        };
        let value = self.arrived.split_to(self.scanned + end).freeze();
        self.scanned = 0;
        Some(value)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Finds the end of a value.
#[derive(Debug, Default)]
struct Scanner {
    /// Brackets that are open.
    depth: usize,
    place: Place,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between tokens.
    #[default]
    Outside,
    InString,
    /// Behind a backslash in a string.
    Escaped,
    /// In a number, a literal, or what is none.
    InWord,
}

impl Scanner {
    /// Whether no value has begun.
    fn is_between(&self) -> bool {
        self.depth == 0 && self.place == Place::Outside
    }

    /// Goes on with `bytes`; the length up to the end of the value if it is among them.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            let end = match (&self.place, byte) {
                (Place::Escaped, _) => {
                    self.place = Place::InString;
                    continue;
                }
                (Place::InString, b'\\') => {
                    self.place = Place::Escaped;
                    continue;
                }
                (Place::InString, b'"') => {
                    self.place = Place::Outside;
                    at + 1
                }
                (Place::InString, _) => continue,
                // A word at the top ends where something else begins.
                (Place::InWord, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'[' | b'"')
                    if self.depth == 0 =>
                {
                    self.place = Place::Outside;
                    return Some(at);
                }
                (_, b'"') => {
                    self.place = Place::InString;
                    continue;
                }
                (_, b'{' | b'[') => {
                    self.depth += 1;
                    self.place = Place::Outside;
                    continue;
                }
                (_, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.place = Place::Outside;
                    at + 1
                }
                (_, byte) if self.depth == 0 && !is_blank(*byte) => {
                    self.place = Place::InWord;
                    continue;
                }
                _ => continue,
            };
            if self.depth == 0 {
                return Some(end);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;
    use crate::grpc::message::tests::Frames;

    fn read(frames: Vec<Vec<u8>>, limit: usize) -> Result<Vec<String>, Fault> {
        let frames = Frames(frames.into_iter().map(Bytes::from).collect());
        let mut values = Values::new(frames, limit);
        let mut got = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match values.poll_next(&mut cx) {
                Poll::Ready(Ok(Some(value))) => {
                    got.push(String::from_utf8(value.to_vec()).unwrap());
                }
                Poll::Ready(Ok(None)) => return Ok(got),
                Poll::Ready(Err(fault)) => return Err(fault),
                Poll::Pending => unreachable!("the body is always ready"),
            }
        }
    }

    fn whole(text: &str) -> Vec<String> {
        read(vec![text.as_bytes().to_vec()], 1000).unwrap()
    }

    #[test]
    fn values_follow_one_another() {
        assert_eq!(whole(""), Vec::<String>::new());
        assert_eq!(whole(" \n"), Vec::<String>::new());
        assert_eq!(whole("{}"), ["{}"]);
        assert_eq!(
            whole("{\"a\":[1,{}]}{} \n[2]"),
            ["{\"a\":[1,{}]}", "{}", "[2]"]
        );
        assert_eq!(
            whole(r#"{"a":"}\"{"}{"b":1}"#),
            [r#"{"a":"}\"{"}"#, r#"{"b":1}"#]
        );
        assert_eq!(whole(r#""\\"{}"#), [r#""\\""#, "{}"]);
        assert_eq!(whole("12 null{}x\"s\""), ["12", "null", "{}", "x", "\"s\""]);
    }

    #[test]
    fn what_is_no_json_is_for_the_parser() {
        assert_eq!(whole("}{}"), ["}", "{}"]);
        assert_eq!(whole("{]{}"), ["{]", "{}"]);
        assert_eq!(whole("{\"a\":"), ["{\"a\":"]);
        assert_eq!(whole("nonsense"), ["nonsense"]);
    }

    #[test]
    fn a_value_is_bounded_and_a_body_is_not() {
        let many = "{\"a\":1}".repeat(100);
        assert_eq!(read(vec![many.into_bytes()], 10).unwrap().len(), 100);
        let long = vec![b"{\"a\":".to_vec(), b"123456".to_vec(), b"7}".to_vec()];
        assert_eq!(read(long, 10), Err(Fault::TooLong(10)));
    }

    proptest! {
        #[test]
        fn frames_do_not_matter(
            values in prop::collection::vec(r#"\{"a":"[\\{}a]{0,5}"?\}?|\[1,\[\]\]|[a-z]{1,3} "#, 0..6),
            cuts in prop::collection::vec(1_usize..7, 0..30),
        ) {
            let text = values.concat();
            let mut rest = text.as_bytes();
            let mut frames = Vec::new();
            for cut in cuts {
                let (frame, after) = rest.split_at(cut.min(rest.len()));
                frames.push(frame.to_vec());
                rest = after;
            }
            frames.push(rest.to_vec());
            prop_assert_eq!(read(frames, 1000), Ok(whole(&text)));
        }
    }
}
