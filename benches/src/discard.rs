//! A client that drops a long answer as it comes.
//!
//! An answer of a gigabyte is 65,000 frames, and through an HTTP/2 library it was the client that was measured as well:
//! several lists waited for each other there, so that the first byte of one was seen after seconds that a
//! server had sent at once. So this speaks the little of HTTP/2 that one call needs, over a blocking
//! socket and in a thread of its own: it reads as much as there is, and looks at the frames' and messages'
//! lengths only. It knows no header compression, so it does not know the status of an answer either:
//! one that is not whole is an error here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::BufMut;
use prost::Message;

use crate::rpc::PREFIX_BYTES;

/// What is read at once at most (bytes).
const BUFFER_BYTES: usize = 256 << 10;

/// What the server may send ahead (bytes): for the stream, which is nearly all of its connection. Renewed
/// when half of it has come.
const WINDOW: u32 = 8 << 20;

/// The stream's window and the connection's before anybody enlarges them (RFC 9113, 6.9.2).
const INITIAL_WINDOW: u32 = 65_535;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;
/// The only stream of the connection.
const STREAM: u32 = 1;

// Types of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

// Flags of frames.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What came of an answer that nobody kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Discarded {
    /// Whole messages.
    pub messages: u64,
    /// Their bytes, without prefixes.
    pub bytes: u64,
    /// From the request to the first byte.
    pub first_byte: Duration,
}

/// Calls `path` of `endpoint` (`host:port`, with or without `http://`) over a connection of its
/// own, and drops the answer; counts what it was.
///
/// # Errors
/// The server cannot be reached or breaks off; the answer is compressed or not whole.
pub fn discard(endpoint: &str, path: &str, request: &impl Message) -> anyhow::Result<Discarded> {
    let authority = endpoint
        .strip_prefix("http://")
        .unwrap_or(endpoint)
        .trim_end_matches('/');
    let mut socket =
        TcpStream::connect(authority).with_context(|| format!("cannot connect to {authority}"))?;
    socket.set_nodelay(true)?;
    let sent = Instant::now();
    socket.write_all(&opening(authority, path, request)?)?;
    let mut answer = Answer::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut reply = Vec::new();
    while !answer.ended {
        let read = socket.read(&mut buffer)?;
        ensure!(read > 0, "the server closed the connection in an answer");
        if answer.counted.first_byte.is_zero() {
            answer.counted.first_byte = sent.elapsed();
        }
        answer.take(&buffer[..read], &mut reply)?;
        if !reply.is_empty() {
            socket.write_all(&reply)?;
            reply.clear();
        }
    }
    answer.end()
}

/// Everything that the client says before the answer.
fn opening(authority: &str, path: &str, request: &impl Message) -> anyhow::Result<Vec<u8>> {
    let mut out = PREFACE.to_vec();
    frame(&mut out, SETTINGS, 0, 0, 12);
    out.put_u16(ENABLE_PUSH);
    out.put_u32(0);
    out.put_u16(INITIAL_WINDOW_SIZE);
    out.put_u32(WINDOW);
    window_update(&mut out, 0, WINDOW - INITIAL_WINDOW);
    // POST and http have numbers in the static table (RFC 7541, appendix A), so have the names of
    // the next two; nothing is to be remembered.
    let mut block = vec![0x80 | 3, 0x80 | 6];
    for (name, value) in [(1, authority), (4, path)] {
        block.put_u8(name);
        text(&mut block, value)?;
    }
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc")] {
        block.put_u8(0);
        text(&mut block, name)?;
        text(&mut block, value)?;
    }
    frame(&mut out, HEADERS, END_HEADERS, STREAM, block.len());
    out.extend_from_slice(&block);
    let length = request.encoded_len();
    ensure!(length < 1 << 14, "a request of more than one frame");
    frame(&mut out, DATA, END_STREAM, STREAM, PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    request.encode(&mut out)?;
    Ok(out)
}

/// The header of a frame of `length` bytes.
fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    out.put_uint(length as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

fn window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    frame(out, WINDOW_UPDATE, 0, stream, 4);
    out.put_u32(more);
}

/// A name or a value as it is (RFC 7541, section 5.2).
fn text(out: &mut Vec<u8>, text: &str) -> anyhow::Result<()> {
    ensure!(text.len() < 127, "`{text}` is too long for a header");
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// What has come of an answer.
#[derive(Debug, Default)]
struct Answer {
    counted: Discarded,
    /// Bytes of a frame's header that is not whole yet.
    header: Vec<u8>,
    frame: Frame,
    /// Bytes of a message's prefix that is not whole yet.
    prefix: Vec<u8>,
    /// Bytes to come of the message.
    message_left: u64,
    /// Bytes that came and that the server's window has not got back.
    unrenewed: u32,
    ended: bool,
}

/// The frame that is coming.
#[derive(Debug, Default)]
struct Frame {
    kind: u8,
    flags: u8,
    /// Bytes to come.
    left: usize,
    /// What has come of it, if it is one that is read.
    payload: Vec<u8>,
}

impl Answer {
    /// Takes what was read; `reply` gets what is to be sent.
    fn take(&mut self, mut data: &[u8], reply: &mut Vec<u8>) -> anyhow::Result<()> {
        while !data.is_empty() && !self.ended {
            if self.header.len() < FRAME_HEADER {
                self.header
                    .extend(split(&mut data, FRAME_HEADER - self.header.len()));
                let [a, b, c, kind, flags, ..] = self.header[..] else {
                    continue;
                };
                if self.header.len() < FRAME_HEADER {
                    continue;
                }
                self.frame = Frame {
                    kind,
                    flags,
                    left: u32::from_be_bytes([0, a, b, c]) as usize,
                    payload: Vec::new(),
                };
                if kind == DATA {
                    ensure!(flags & PADDED == 0, "a padded frame");
                    self.renew(reply);
                }
            }
            let part = split(&mut data, self.frame.left);
            self.frame.left -= part.len();
            match self.frame.kind {
                DATA => self.count(part)?,
                RST_STREAM | PING | GOAWAY => self.frame.payload.extend(part),
                _ => {}
            }
            if self.frame.left == 0 {
                self.header.clear();
                self.end_of_frame(reply)?;
            }
        }
        Ok(())
    }

    fn end_of_frame(&mut self, reply: &mut Vec<u8>) -> anyhow::Result<()> {
        let Frame {
            kind,
            flags,
            payload,
            ..
        } = &self.frame;
        match *kind {
            DATA | HEADERS => self.ended = flags & END_STREAM != 0,
            SETTINGS if flags & ACK == 0 => frame(reply, SETTINGS, ACK, 0, 0),
            PING if flags & ACK == 0 => {
                frame(reply, PING, ACK, 0, payload.len());
                reply.extend_from_slice(payload);
            }
            RST_STREAM => bail!("the server reset the stream: {payload:?}"),
            GOAWAY => bail!("the server closes the connection: {payload:?}"),
            _ => {}
        }
        Ok(())
    }

    /// Counts the bytes of a frame of data that begins, and gives them back when they are many.
    fn renew(&mut self, reply: &mut Vec<u8>) {
        self.unrenewed += self.frame.left as u32;
        if self.unrenewed >= WINDOW / 2 {
            window_update(reply, 0, self.unrenewed);
            window_update(reply, STREAM, self.unrenewed);
            self.unrenewed = 0;
        }
    }

    fn count(&mut self, mut data: &[u8]) -> anyhow::Result<()> {
        while !data.is_empty() {
            if self.message_left == 0 {
                self.prefix
                    .extend(split(&mut data, PREFIX_BYTES - self.prefix.len()));
                if let [compressed, a, b, c, d] = self.prefix[..] {
                    ensure!(compressed == 0, "a compressed answer");
                    self.message_left = u64::from(u32::from_be_bytes([a, b, c, d]));
                    self.counted.messages += 1;
                    self.counted.bytes += self.message_left;
                    self.prefix.clear();
                }
                continue;
            }
            let most = usize::try_from(self.message_left).unwrap_or(usize::MAX);
            self.message_left -= split(&mut data, most).len() as u64;
        }
        Ok(())
    }

    fn end(self) -> anyhow::Result<Discarded> {
        ensure!(
            self.message_left == 0 && self.prefix.is_empty() && self.counted.messages > 0,
            "an answer that is not whole: its call has failed"
        );
        Ok(self.counted)
    }
}

/// Takes at most `most` bytes off the front.
fn split<'d>(data: &mut &'d [u8], most: usize) -> &'d [u8] {
    let (taken, rest) = data.split_at(most.min(data.len()));
    *data = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, kind, flags, STREAM, payload.len());
        out.extend_from_slice(payload);
        out
    }

    /// An answer of two messages over three frames of data.
    fn an_answer() -> Vec<u8> {
        let mut body = vec![0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 1, 0];
        body.extend([7; 256]);
        let (a, rest) = body.split_at(3);
        let (b, c) = rest.split_at(9);
        [
            a_frame(SETTINGS, 0, &[]),
            a_frame(HEADERS, END_HEADERS, b"headers"),
            a_frame(DATA, 0, a),
            a_frame(PING, 0, b"12345678"),
            a_frame(DATA, 0, b),
            a_frame(DATA, 0, c),
            a_frame(HEADERS, END_HEADERS | END_STREAM, b"trailers"),
        ]
        .concat()
    }

    #[test]
    fn messages_are_counted_however_they_come() {
        let bytes = an_answer();
        for size in 1..=bytes.len() {
            let (mut answer, mut reply) = (Answer::default(), Vec::new());
            for data in bytes.chunks(size) {
                assert!(!answer.ended);
                answer.take(data, &mut reply).unwrap();
            }
            assert!(answer.ended);
            let expected = Discarded {
                messages: 2,
                bytes: 259,
                first_byte: Duration::ZERO,
            };
            assert_eq!(answer.end().unwrap(), expected, "{size} bytes at a time");
            let mut replies = Vec::new();
            frame(&mut replies, SETTINGS, ACK, 0, 0);
            frame(&mut replies, PING, ACK, 0, 8);
            replies.extend(b"12345678");
            assert_eq!(reply, replies);
        }
    }

    #[test]
    fn windows_are_renewed() {
        let (mut answer, mut reply) = (Answer::default(), Vec::new());
        let message = [&[0, 0, 0, 0x3f, 0xfb], &[0; 0x3ffb][..]].concat();
        let data = a_frame(DATA, 0, &message);
        for _ in 0..WINDOW / 2 / 0x4000 {
            assert!(reply.is_empty());
            answer.take(&data, &mut reply).unwrap();
        }
        let mut replies = Vec::new();
        window_update(&mut replies, 0, WINDOW / 2);
        window_update(&mut replies, STREAM, WINDOW / 2);
        assert_eq!(reply, replies);
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        let whole = [0, 0, 0, 0, 1, 9];
        for body in [&[][..], &whole[..5], &whole[..3], &[1, 0, 0, 0, 0]] {
            let mut answer = Answer::default();
            let taken = answer.take(&a_frame(DATA, END_STREAM, body), &mut Vec::new());
            assert!(taken.is_err() || answer.end().is_err(), "{body:?}");
        }
        for kind in [RST_STREAM, GOAWAY] {
            let mut answer = Answer::default();
            let data = a_frame(kind, 0, &[0; 8]);
            assert!(answer.take(&data, &mut Vec::new()).is_err());
        }
    }
}
