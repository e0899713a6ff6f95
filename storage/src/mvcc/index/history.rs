//! How the revisions of one key are written down: a chain of changes, newest first, in few bytes.
//!
//! The first change of a chain is complete, every further one is written relative to the newer one
//! before it, so dropping the oldest changes cuts bytes off and adding one rewrites two.
//!
//! ```text
//! tag | main, 1 to 8 bytes | sub? | created, version? | record_len?
//! ```
//!
//! The tag says how many bytes `main` takes (its upper three bits, minus one) and which of the
//! optional parts are there; most changes of real stores have none but the length of the record,
//! and not even that when it is the length of the newer record. `main` is itself in the first
//! change and the distance to the newer `main` in the others. Any values of the fields can be
//! written, also ones that no correct store would produce.

use ferrite_api::types::Revision;

use super::Change;

/// The change is a deletion: nothing but the revision follows.
const TOMBSTONE: u8 = 1;
/// `sub` follows; it is 0 otherwise.
const SUB: u8 = 2;
/// The change created the key: `created` is its own `main`, `version` is 1.
const FIRST: u8 = 4;
/// The change is the version before the newer one: same `created`, `version` one less.
const OLDER: u8 = 8;
/// `record_len` is that of the newer change.
const SAME_LEN: u8 = 16;
const MAIN_BYTES_SHIFT: u32 = 5;

/// Most bytes that one change can take: tag, main, three varints of 64 bits, one of 32.
const MAX_CHANGE: usize = 1 + 8 + 3 * 10 + 5;

/// A small buffer on the stack for one or two encoded changes.
pub(super) struct Encoded {
    bytes: [u8; 2 * MAX_CHANGE],
    len: usize,
}

impl Encoded {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; 2 * MAX_CHANGE],
            len: 0,
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Appends a varint.
    pub(super) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Appends `change`, relative to `newer` unless it is the first of its chain.
    pub(super) fn push(&mut self, change: &Change, newer: Option<&Change>) {
        let Revision { main, sub } = change.revision;
        let number = newer.map_or(main, |newer| newer.revision.main.wrapping_sub(main)) as u64;
        let main_bytes = (8 - number.leading_zeros() as usize / 8).max(1);
        let continues = newer.is_some_and(|newer| {
            !newer.tombstone
                && newer.created == change.created
                && newer.version.wrapping_sub(1) == change.version
        });
        let first = change.created == main && change.version == 1;
        let same_len = newer.is_some_and(|newer| newer.record_len == change.record_len);

        let mut tag = ((main_bytes - 1) as u8) << MAIN_BYTES_SHIFT;
        if sub != 0 {
            tag |= SUB;
        }
        if change.tombstone {
            tag |= TOMBSTONE;
        } else {
            tag |= if first { FIRST } else { 0 };
            tag |= if continues { OLDER } else { 0 };
            tag |= if same_len { SAME_LEN } else { 0 };
        }

        self.byte(tag);
        self.bytes[self.len..self.len + 8].copy_from_slice(&number.to_le_bytes());
        self.len += main_bytes;
        if sub != 0 {
            self.varint(sub as u64);
        }
        if change.tombstone {
            return;
        }
        if !first && !continues {
            self.varint(main.wrapping_sub(change.created) as u64);
            self.varint(change.version as u64);
        }
        if !same_len {
            self.varint(u64::from(change.record_len));
        }
    }
}

/// Writes a chain of `changes`, which come newest first.
pub(super) fn encode<'c>(changes: impl IntoIterator<Item = &'c Change>, out: &mut Vec<u8>) {
    let mut newer = None;
    for change in changes {
        let mut encoded = Encoded::new();
        encoded.push(change, newer);
        out.extend_from_slice(encoded.as_slice());
        newer = Some(change);
    }
}

/// Reads a chain, newest change first.
#[derive(Clone)]
pub(super) struct Chain<'a> {
    /// Begins with the chain and may go on after it: that makes reading words cheap.
    bytes: &'a [u8],
    at: usize,
    end: usize,
    newer: Option<Change>,
}

impl<'a> Chain<'a> {
    /// The chain in the first `len` of `bytes`.
    pub(super) fn new(bytes: &'a [u8], len: usize) -> Self {
        Self {
            bytes,
            at: 0,
            end: len,
            newer: None,
        }
    }

    /// The bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }
}

impl Iterator for Chain<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if self.at >= self.end {
            return None;
        }
        let (bytes, at) = (self.bytes, &mut self.at);
        let tag = bytes[*at];
        let number = main_number(bytes, *at) as i64;
        *at += 2 + usize::from(tag >> MAIN_BYTES_SHIFT);
        let main = self
            .newer
            .map_or(number, |newer| newer.revision.main.wrapping_sub(number));
        let sub = if tag & SUB != 0 {
            read_varint(bytes, at) as i64
        } else {
            0
        };
        let revision = Revision::new(main, sub);
        let change = if tag & TOMBSTONE != 0 {
            Change::tombstone(revision)
        } else {
            let newer = self.newer.unwrap_or(Change::tombstone(Revision::default()));
            let (created, version) = if tag & FIRST != 0 {
                (main, 1)
            } else if tag & OLDER != 0 {
                (newer.created, newer.version.wrapping_sub(1))
            } else {
                let age = read_varint(bytes, at) as i64;
                (main.wrapping_sub(age), read_varint(bytes, at) as i64)
            };
            let record_len = if tag & SAME_LEN != 0 {
                newer.record_len
            } else {
                read_varint(bytes, at) as u32
            };
            Change {
                revision,
                tombstone: false,
                created,
                version,
                record_len,
            }
        };
        self.newer = Some(change);
        Some(change)
    }
}

/// `main` of the newest change of the chain that begins `bytes`.
pub(super) fn newest_main(bytes: &[u8]) -> i64 {
    main_number(bytes, 0) as i64
}

/// The number behind the tag at `at`.
fn main_number(bytes: &[u8], at: usize) -> u64 {
    let len = usize::from(bytes[at] >> MAIN_BYTES_SHIFT) + 1;
    let start = at + 1;
    if let Some(word) = bytes.get(start..start + 8) {
        let word = u64::from_le_bytes(word.try_into().expect("the slice has 8 bytes"));
        return word & (u64::MAX >> (64 - 8 * len));
    }
    let mut word = [0; 8];
    word[..len].copy_from_slice(&bytes[start..start + len]);
    u64::from_le_bytes(word)
}

/// Reads a varint at `at` and moves it on.
pub(super) fn read_varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Appends a varint.
pub(super) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes that `value` takes as a varint.
pub(super) fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Which changes a compaction at `compact` leaves, asked newest first (spec: mvcc.md section 6):
/// everything above it, the newest change at or below it if that is a put, and tombstones exactly
/// at it, which watchers that start there still get.
pub(super) struct Survivors {
    compact: i64,
    /// Whether a change at or below the compaction was seen: older puts are superseded.
    settled: bool,
}

impl Survivors {
    pub(super) fn new(compact: i64) -> Self {
        Self {
            compact,
            settled: false,
        }
    }

    /// Whether `change` survives. It must be older than those asked about before.
    pub(super) fn keep(&mut self, change: &Change) -> bool {
        if change.revision.main > self.compact {
            return true;
        }
        let newest = !std::mem::replace(&mut self.settled, true);
        if change.tombstone {
            change.revision.main == self.compact
        } else {
            newest
        }
    }
}

/// The lowest compaction that would drop some of `changes` (newest first); `i64::MAX` if none would.
pub(super) fn first_garbage(changes: impl Iterator<Item = Change>, newer: Option<i64>) -> i64 {
    let mut newer = newer;
    let mut first = i64::MAX;
    for change in changes {
        let main = change.revision.main;
        if change.tombstone {
            first = first.min(main.saturating_add(1));
        } else if let Some(newer) = newer {
            first = first.min(newer);
        }
        newer = Some(main);
    }
    first
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(main: i64, sub: i64, created: i64, version: i64, record_len: u32) -> Change {
        let revision = Revision::new(main, sub);
        Change {
            revision,
            tombstone: false,
            created,
            version,
            record_len,
        }
    }

    #[test]
    fn a_new_key_takes_few_bytes_and_an_update_fewer() {
        let changes = [
            put(1_000_003, 0, 1_000_000, 4, 300),
            put(1_000_002, 0, 1_000_000, 3, 300),
        ];
        let size = |changes: &[Change]| {
            let mut bytes = Vec::new();
            encode(changes, &mut bytes);
            bytes.len()
        };
        assert_eq!(size(&[put(1_000_000, 0, 1_000_000, 1, 300)]), 6);
        assert_eq!(size(&changes) - size(&changes[..1]), 2);
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let number = || prop_oneof![Just(0), Just(1), 0i64..300, any::<i64>()];
        (
            number(),
            number(),
            number(),
            number(),
            any::<bool>(),
            any::<u32>(),
        )
            .prop_map(|(main, sub, created, version, tombstone, len)| {
                if tombstone {
                    Change::tombstone(Revision::new(main, sub))
                } else {
                    put(main, sub, created, version, len)
                }
            })
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(changes in prop::collection::vec(any_change(), 0..8)) {
            let mut bytes = Vec::new();
            encode(&changes, &mut bytes);
            let len = bytes.len();
            let read: Vec<Change> = Chain::new(&bytes, len).collect();
            prop_assert_eq!(&read, &changes);
            // The same in the middle of an arena.
            bytes.extend([0xff; 9]);
            let read: Vec<Change> = Chain::new(&bytes, len).collect();
            prop_assert_eq!(&read, &changes);
            if let Some(first) = changes.first() {
                prop_assert_eq!(newest_main(&bytes), first.revision.main);
            }
        }

        #[test]
        fn varint_lengths(value in prop_oneof![any::<u64>(), 0u64..20_000]) {
            let mut bytes = Vec::new();
            write_varint(value, &mut bytes);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(read_varint(&bytes, &mut 0), value);
        }
    }
}
