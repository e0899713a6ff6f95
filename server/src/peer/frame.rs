//! Frames: what a stream between members is cut into.
//!
//! A frame is its length in 4 bytes, little-endian, then one byte for its kind, which the length
//! covers, then the rest. The kinds of [`Message`] stay below 0x80; those of the transport itself
//! are from there on.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::message::{Malformed, Message};

const HEARTBEAT: u8 = 0x80;
const QUESTION: u8 = 0x81;
const ANSWER: u8 = 0x82;
const UNANSWERED: u8 = 0x83;

/// Longest frame in bytes, without its length: that of a raft message of etcd's.
const MAX_FRAME: usize = 512 << 20;

/// Bytes of a frame's length.
pub(super) const PREFIX: usize = 4;

/// A heartbeat as it is on the wire; its echo is the same.
pub(super) const HEARTBEAT_FRAME: [u8; PREFIX + 1] = [1, 0, 0, 0, HEARTBEAT];

/// Payloads from this length on are sent from where they are (bytes).
const LARGE: usize = 16 * 1024;

/// Small frames are gathered in pieces of this size (bytes).
const PIECE: usize = 32 * 1024;

/// What arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Message(Message),
    /// Asks for an echo.
    Heartbeat,
    Question {
        number: u64,
        question: Bytes,
    },
    /// `None`: the question was not accepted.
    Answer {
        number: u64,
        answer: Option<Bytes>,
    },
}

impl Frame {
    /// Takes the next frame off the front of `buffer`, if all of it is there; the frame shares the
    /// bytes.
    ///
    /// # Errors
    /// It is none; the rest of the stream means nothing.
    pub(super) fn next(buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        let Some(length) = announced(buffer) else {
            return Ok(None);
        };
        if length == 0 {
            return Err(Malformed("an empty frame"));
        }
        if length > MAX_FRAME {
            return Err(Malformed("a frame that is too long"));
        }
        if buffer.len() - PREFIX < length {
            return Ok(None);
        }
        buffer.advance(PREFIX);
        Self::decode(buffer.split_to(length).freeze()).map(Some)
    }

    fn decode(mut bytes: Bytes) -> Result<Frame, Malformed> {
        let kind = bytes.first().copied().unwrap_or_default();
        if kind < HEARTBEAT {
            return Message::decode(bytes).map(Frame::Message);
        }
        bytes.advance(1);
        if kind == HEARTBEAT {
            return if bytes.is_empty() {
                Ok(Frame::Heartbeat)
            } else {
                Err(Malformed("it goes on after its end"))
            };
        }
        let number = bytes
            .try_get_u64_le()
            .map_err(|_| Malformed("it ends early"))?;
        match kind {
            QUESTION => Ok(Frame::Question {
                number,
                question: bytes,
            }),
            ANSWER => Ok(Frame::Answer {
                number,
                answer: Some(bytes),
            }),
            UNANSWERED if bytes.is_empty() => Ok(Frame::Answer {
                number,
                answer: None,
            }),
            _ => Err(Malformed("its kind is not known")),
        }
    }

    /// How many bytes the frame at the front of `buffer` still lacks, as far as it is known.
    pub(super) fn missing(buffer: &BytesMut) -> usize {
        match announced(buffer) {
            Some(length) => (PREFIX + length.min(MAX_FRAME)).saturating_sub(buffer.len()),
            None => PREFIX - buffer.len(),
        }
    }
}

fn announced(buffer: &BytesMut) -> Option<usize> {
    let length = buffer.first_chunk::<PREFIX>()?;
    Some(u32::from_le_bytes(*length) as usize)
}

/// Frames on their way out: small ones gathered, large payloads where they are.
#[derive(Debug, Default)]
pub(super) struct Frames {
    full: VecDeque<Piece>,
    tail: BytesMut,
    /// How many frames begin in the tail.
    tail_frames: u64,
}

/// A part of the stream.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// How many frames begin in it.
    pub(super) frames: u64,
}

impl Frames {
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.tail.is_empty()
    }

    /// Adds a message. Returns the bytes of the frame, as all of these do.
    pub(super) fn message(&mut self, message: Message) -> usize {
        let length = message.encoded_len();
        match message {
            Message::Raft(bytes) if bytes.len() >= LARGE => {
                self.begin(length, PREFIX + 1);
                Message::Raft(Bytes::new()).encode(&mut self.tail);
                self.shared(bytes);
            }
            message => {
                self.begin(length, PREFIX + length);
                message.encode(&mut self.tail);
            }
        }
        PREFIX + length
    }

    pub(super) fn heartbeat(&mut self) -> usize {
        self.begin(1, HEARTBEAT_FRAME.len());
        self.tail.put_u8(HEARTBEAT);
        HEARTBEAT_FRAME.len()
    }

    pub(super) fn question(&mut self, number: u64, question: Bytes) -> usize {
        self.numbered(QUESTION, number, question)
    }

    /// `None`: it was not accepted.
    pub(super) fn answer(&mut self, number: u64, answer: Option<Bytes>) -> usize {
        match answer {
            Some(answer) => self.numbered(ANSWER, number, answer),
            None => self.numbered(UNANSWERED, number, Bytes::new()),
        }
    }

    fn numbered(&mut self, kind: u8, number: u64, payload: Bytes) -> usize {
        let length = 1 + 8 + payload.len();
        let large = payload.len() >= LARGE;
        self.begin(length, PREFIX + 9 + if large { 0 } else { payload.len() });
        self.tail.put_u8(kind);
        self.tail.put_u64_le(number);
        if large {
            self.shared(payload);
        } else {
            self.tail.put_slice(&payload);
        }
        PREFIX + length
    }

    /// Begins a frame of which `here` bytes, the length included, go to the tail.
    fn begin(&mut self, length: usize, here: usize) {
        if self.tail.capacity() - self.tail.len() < here {
            self.seal();
            self.tail.reserve(here.max(PIECE));
        }
        let length = u32::try_from(length).expect("messages fit into a log entry or its bound");
        self.tail.put_u32_le(length);
        self.tail_frames += 1;
    }

    fn shared(&mut self, bytes: Bytes) {
        self.seal();
        self.full.push_back(Piece { bytes, frames: 0 });
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.full.push_back(Piece {
                bytes: self.tail.split().freeze(),
                frames: std::mem::take(&mut self.tail_frames),
            });
        }
    }

    /// Moves everything to the end of `pieces`.
    pub(super) fn move_to(&mut self, pieces: &mut VecDeque<Piece>) {
        self.seal();
        pieces.append(&mut self.full);
    }

    /// Drops everything. Returns how many frames that were.
    pub(super) fn clear(&mut self) -> u64 {
        let full: u64 = self.full.drain(..).map(|piece| piece.frames).sum();
        self.tail.clear();
        full + std::mem::take(&mut self.tail_frames)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::message::ReadMessage;
    use super::*;

    fn bytes_of(frames: &mut Frames) -> BytesMut {
        let mut pieces = VecDeque::new();
        frames.move_to(&mut pieces);
        pieces
            .iter()
            .flat_map(|piece| piece.bytes.iter().copied())
            .collect()
    }

    fn sample(length: usize) -> Vec<Frame> {
        let payload = Bytes::from(vec![7; length]);
        vec![
            Frame::Message(Message::Raft(payload.clone())),
            Frame::Heartbeat,
            Frame::Message(Message::Read(ReadMessage::Index { number: 3 })),
            Frame::Question {
                number: 1,
                question: payload.clone(),
            },
            Frame::Answer {
                number: u64::MAX,
                answer: Some(payload),
            },
            Frame::Answer {
                number: 2,
                answer: None,
            },
        ]
    }

    fn add(frames: &mut Frames, frame: &Frame) -> usize {
        match frame {
            Frame::Message(message) => frames.message(message.clone()),
            Frame::Heartbeat => frames.heartbeat(),
            Frame::Question { number, question } => frames.question(*number, question.clone()),
            Frame::Answer { number, answer } => frames.answer(*number, answer.clone()),
        }
    }

    #[test]
    fn frames_survive_the_wire_however_it_is_cut() {
        for length in [0, 1, LARGE - 1, LARGE, LARGE + 1, 3 * PIECE] {
            let mut frames = Frames::default();
            let expected: Vec<Frame> = (0..5).flat_map(|_| sample(length)).collect();
            let counted: usize = expected.iter().map(|frame| add(&mut frames, frame)).sum();
            let wire = bytes_of(&mut frames);
            assert_eq!(wire.len(), counted);
            for cut in [1, 2, 5, 1000, wire.len()] {
                let (mut buffer, mut arrived) = (BytesMut::new(), Vec::new());
                for part in wire.chunks(cut) {
                    buffer.extend_from_slice(part);
                    while let Some(frame) = Frame::next(&mut buffer).unwrap() {
                        arrived.push(frame);
                    }
                    assert!(Frame::missing(&buffer) > 0);
                }
                assert_eq!(arrived, expected);
            }
        }
    }

    #[test]
    fn heartbeats_are_the_constant() {
        let mut frames = Frames::default();
        frames.heartbeat();
        assert_eq!(&bytes_of(&mut frames)[..], HEARTBEAT_FRAME);
    }

    #[test]
    fn frames_that_are_dropped_are_counted() {
        let mut frames = Frames::default();
        let all = sample(LARGE);
        for frame in &all {
            add(&mut frames, frame);
        }
        assert_eq!(frames.clear(), all.len() as u64);
        assert!(frames.is_empty());
        assert_eq!(frames.clear(), 0);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &[0, 0, 0, 0][..],
            &[0xff, 0xff, 0xff, 0xff],
            &[1, 0, 0, 0, 0x7f],
            &[1, 0, 0, 0, 0xff],
            &[2, 0, 0, 0, HEARTBEAT, 0],
            &[2, 0, 0, 0, QUESTION, 0],
            &[10, 0, 0, 0, UNANSWERED, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        ] {
            let refused = Frame::next(&mut BytesMut::from(bytes));
            assert!(refused.is_err(), "{bytes:?} {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::next(&mut buffer) {}
        }
    }
}
