//! Rows in the table `revisions`: keys, parts, checksums, digests.
//!
//! A key is 15 bytes: main (u64, big-endian), sub (u32, big-endian), kind (0 put, 1 tombstone),
//! part (u16, big-endian), so that bytes order as positions do. A value is the CRC-32C of key and
//! chunk (4 bytes, little-endian), then the chunk.
//!
//! A record is split into chunks: of [`LARGE_BYTES`] while at least [`LARGE_FROM_BYTES`] are left,
//! then of [`SMALL_BYTES`], then a last one that is shorter than that, empty if need be. So the end
//! of a record is known by its last chunk, no total has to be stored, and a part that is missing
//! anywhere is noticed: after a full chunk there must be the next part. The checksum covers the part
//! number through the key, so parts cannot be exchanged either.

use bytes::{Bytes, BytesMut};
use ferrite_api::types::Revision;

use super::batch::RowId;
use super::error::Error;

/// The name of the table of rows in errors.
pub const REVISIONS: &str = "revisions";

/// Length of a row key in bytes.
pub(super) const KEY_BYTES: usize = 15;

/// Bytes of a record in each of its small parts but the last.
///
/// Three such parts fill a 4 KiB leaf page. redb gives a value that does not fit a page a run of 2^k
/// pages to itself, so 10 KiB in one piece would cost 16; with small parts most records cost 4 to
/// 20 % more than their size. See the table in the [module documentation](super).
pub(super) const SMALL_BYTES: usize = 1341;

/// Bytes of a record in each of its large parts: these fill a run of 4 pages.
pub(super) const LARGE_BYTES: usize = 16_357;

/// How much of a record must be left for the next part to be large. A large part in the middle
/// leaves some 2 KiB of the leaf before it empty, and saves 11 small parts of 2 to 5 us each.
pub(super) const LARGE_FROM_BYTES: usize = 32 << 10;

/// Length of the checksum before each chunk.
pub(super) const CRC_BYTES: usize = 4;

/// The longest record that can be stored, in bytes: far below 65,536 large parts.
pub const MAX_RECORD_BYTES: usize = 1 << 29;

const _: () = assert!(MAX_RECORD_BYTES / LARGE_BYTES + LARGE_FROM_BYTES / SMALL_BYTES < 60_000);

/// An encoded row key.
pub(super) type Key = [u8; KEY_BYTES];

/// One part of a row, as its key says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Part {
    pub(super) id: RowId,
    pub(super) part: u16,
}

/// The key of a part.
///
/// # Errors
/// [`Error::Invalid`] when main or sub is outside what a key can hold.
pub(super) fn key(id: RowId, part: u16) -> Result<Key, Error> {
    let Revision { main, sub } = id.revision;
    let (Ok(main), Ok(sub)) = (u64::try_from(main), u32::try_from(sub)) else {
        return Err(Error::Invalid {
            what: format!("revision {} has no key", id.revision),
        });
    };
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8..12].copy_from_slice(&sub.to_be_bytes());
    key[12] = u8::from(id.tombstone);
    key[13..].copy_from_slice(&part.to_be_bytes());
    Ok(key)
}

/// The main revision that a key begins with.
pub(super) fn main(key: &Key) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The same key for another part.
pub(super) fn with_part(mut key: Key, part: u16) -> Key {
    key[13..].copy_from_slice(&part.to_be_bytes());
    key
}

/// What a key stands for; `None` if it is none of ours.
pub(super) fn parse(key: &Key) -> Option<Part> {
    let main = main(key);
    let sub = u32::from_be_bytes(key[8..12].try_into().ok()?);
    let tombstone = match key[12] {
        0 => false,
        1 => true,
        _ => return None,
    };
    let revision = Revision::new(i64::try_from(main).ok()?, i64::from(sub));
    let part = u16::from_be_bytes([key[13], key[14]]);
    Some(Part {
        id: RowId {
            revision,
            tombstone,
        },
        part,
    })
}

/// A key in errors: `<main>.<sub>`, `t` for a tombstone, the part when it is not the first.
pub(super) fn describe(key: &Key) -> String {
    match parse(key) {
        Some(Part { id, part }) => {
            let kind = if id.tombstone { "t" } else { "" };
            let part = if part == 0 {
                String::new()
            } else {
                format!(" part {part}")
            };
            format!("{}{kind}{part}", id.revision)
        }
        None => format!("undecodable key {key:02x?}"),
    }
}

/// The chunks of a record, at least one; see the [module documentation](self).
pub(super) fn chunks(record: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(record);
    std::iter::from_fn(move || {
        let left = rest?;
        let size = match left.len() {
            LARGE_FROM_BYTES.. => LARGE_BYTES,
            SMALL_BYTES.. => SMALL_BYTES,
            _ => {
                rest = None;
                return Some(left);
            }
        };
        let (chunk, after) = left.split_at(size);
        rest = Some(after);
        Some(chunk)
    })
}

/// Makes `out` the value of a part, and returns its checksum. Small tables use the same form.
pub(super) fn encode_value(key: &[u8], chunk: &[u8], out: &mut Vec<u8>) -> u32 {
    let crc = crc(key, chunk);
    out.clear();
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(chunk);
    crc
}

/// The checksum and the chunk of a value, after checking the one against the other.
pub(super) fn decode_value<'v>(key: &[u8], value: &'v [u8]) -> Result<(u32, &'v [u8]), String> {
    let Some((stored, chunk)) = value.split_first_chunk::<CRC_BYTES>() else {
        return Err(format!("value of {} bytes has no checksum", value.len()));
    };
    let (stored, computed) = (u32::from_le_bytes(*stored), crc(key, chunk));
    if stored != computed {
        return Err(format!(
            "checksum {stored:08x} stored, {computed:08x} computed"
        ));
    }
    Ok((stored, chunk))
}

fn crc(key: &[u8], chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), chunk)
}

/// What a row contributes to [`Meta::digest`](super::Meta::digest): a mix of its position and its
/// record. Contributions are added (wrapping), so that a digest depends on which rows there are and
/// not on their order.
///
/// # Errors
/// [`Error::Invalid`] when the revision cannot be stored.
pub fn record_digest(id: RowId, record: &[u8]) -> Result<u64, Error> {
    key(id, 0)?;
    Ok(digest(id, crc32c::crc32c(record)))
}

fn digest(
    RowId {
        revision,
        tombstone,
    }: RowId,
    record_crc: u32,
) -> u64 {
    let kind_and_crc = u64::from(tombstone) << 32 | u64::from(record_crc);
    [
        revision.main.cast_unsigned(),
        revision.sub.cast_unsigned(),
        kind_and_crc,
    ]
    .into_iter()
    .fold(0x9e37_79b9_7f4a_7c15, |state, word| {
        mix(state ^ word).wrapping_add(state)
    })
}

/// What a row of a small table contributes to the digest of all small tables.
pub(super) fn small_digest(table: &str, crc: u32) -> u64 {
    mix(u64::from(crc32c::crc32c(table.as_bytes())) << 32 | u64::from(crc))
}

/// The finalizer of SplitMix64: a bijection in which every input bit flips half of the output.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Whether a chunk is the last of its record, which its length says.
pub(super) fn is_last(chunk: &[u8]) -> Result<bool, String> {
    match chunk.len() {
        SMALL_BYTES | LARGE_BYTES => Ok(false),
        0..SMALL_BYTES => Ok(true),
        len => Err(format!("a part of {len} bytes")),
    }
}

/// Follows the parts of rows in key order: notices when one is missing, and sums up each row.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The part that has to come next, while a row is not complete.
    expected: Option<Part>,
    /// Of the parts of that row so far.
    crc: u32,
    stored_bytes: u64,
}

/// What a complete row adds to the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) id: RowId,
    pub(super) digest: u64,
    /// Bytes of keys and values of all its parts.
    pub(super) stored_bytes: u64,
}

impl Sequence {
    /// Takes the next part; the summary of the row when this was the last.
    pub(super) fn step(&mut self, part: Part, chunk: &[u8]) -> Result<Option<Summary>, String> {
        match self.expected.take() {
            Some(expected) if expected != part => return Err(missing(expected)),
            None if part.part != 0 => return Err(missing(Part { part: 0, ..part })),
            _ => {}
        }
        self.crc = crc32c::crc32c_append(self.crc, chunk);
        self.stored_bytes += (KEY_BYTES + CRC_BYTES + chunk.len()) as u64;
        if !is_last(chunk)? {
            let next = part
                .part
                .checked_add(1)
                .ok_or("a row with too many parts")?;
            self.expected = Some(Part { part: next, ..part });
            return Ok(None);
        }
        let Self {
            crc, stored_bytes, ..
        } = std::mem::take(self);
        Ok(Some(Summary {
            id: part.id,
            digest: digest(part.id, crc),
            stored_bytes,
        }))
    }

    /// Whether the last row still lacks a part.
    pub(super) fn is_open(&self) -> bool {
        self.expected.is_some()
    }

    /// No part follows.
    pub(super) fn end(&self) -> Result<(), String> {
        self.expected
            .map_or(Ok(()), |expected| Err(missing(expected)))
    }
}

fn missing(Part { id, part }: Part) -> String {
    format!(
        "part {part} of {}{} is missing",
        id.revision,
        if id.tombstone { "t" } else { "" }
    )
}

/// Puts the chunks of one record together again.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// The chunks before the last, when there are any.
    joined: BytesMut,
}

impl Joiner {
    /// Adds the next chunk; the record when this was the last.
    pub(super) fn push(&mut self, chunk: &[u8], last: bool) -> Option<Bytes> {
        if last && self.joined.is_empty() {
            return Some(Bytes::copy_from_slice(chunk));
        }
        self.joined.extend_from_slice(chunk);
        last.then(|| std::mem::take(&mut self.joined).freeze())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(main: i64, sub: i64, tombstone: bool) -> RowId {
        RowId {
            revision: Revision::new(main, sub),
            tombstone,
        }
    }

    #[test]
    fn keys_order_as_positions_do() {
        let ids = [
            id(0, 0, false),
            id(1, 0, false),
            id(1, 0, true),
            id(1, 1, false),
            id(1, 255, false),
            id(1, 256, true),
            id(255, 0, false),
            id(256, 0, false),
            id(i64::MAX, i64::from(u32::MAX), true),
        ];
        let parts = [0, 1, 255, 256, u16::MAX];
        let keys: Vec<_> = ids
            .iter()
            .flat_map(|id| parts.map(|part| key(*id, part).unwrap()))
            .collect();
        assert!(keys.is_sorted());
        for (at, found) in keys.iter().enumerate() {
            let expected = Part {
                id: ids[at / parts.len()],
                part: parts[at % parts.len()],
            };
            assert_eq!(parse(found), Some(expected));
        }
    }

    #[test]
    fn positions_without_a_key_are_refused() {
        for id in [id(-1, 0, false), id(1, -1, false), id(1, 1 << 32, false)] {
            assert!(matches!(key(id, 0), Err(Error::Invalid { .. })), "{id:?}");
        }
    }

    #[test]
    fn a_record_is_its_chunks_and_the_last_one_is_short() {
        const SMALL: usize = SMALL_BYTES;
        let around = [SMALL, 2 * SMALL, 3 * SMALL, LARGE_BYTES, LARGE_FROM_BYTES]
            .into_iter()
            .flat_map(|len| len - 1..=len + 1);
        for len in around.chain([0, 1, 70_000, LARGE_FROM_BYTES + 3 * LARGE_BYTES, 3 << 20]) {
            let record: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let parts: Vec<_> = chunks(&record).collect();
            let (last, full) = parts.split_last().unwrap();
            let large = full
                .iter()
                .take_while(|chunk| chunk.len() == LARGE_BYTES)
                .count();
            assert!(full[large..].iter().all(|chunk| chunk.len() == SMALL));
            assert!(last.len() < SMALL);
            let (mut joiner, mut sequence) = (Joiner::default(), Sequence::default());
            let mut joined = None;
            for (part, chunk) in (0..).zip(&parts) {
                assert_eq!(joined, None, "{len} bytes end early");
                let part = Part {
                    id: id(1, 0, false),
                    part,
                };
                let summary = sequence.step(part, chunk).unwrap();
                joined = joiner.push(chunk, summary.is_some());
                let Some(summary) = summary else { continue };
                assert_eq!(summary.digest, record_digest(part.id, &record).unwrap());
                let overhead = parts.len() * (KEY_BYTES + CRC_BYTES);
                assert_eq!(summary.stored_bytes, (len + overhead) as u64);
            }
            assert_eq!(sequence.end(), Ok(()));
            assert_eq!(joined.unwrap(), record);
        }
    }

    #[test]
    fn digests_differ_in_everything_they_cover() {
        let base = record_digest(id(5, 6, false), b"record").unwrap();
        for (main, sub, tombstone, record) in [
            (6, 5, false, &b"record"[..]),
            (5, 7, false, b"record"),
            (4, 6, false, b"record"),
            (5, 6, true, b"record"),
            (5, 6, false, b"recorc"),
            (5, 6, false, b""),
        ] {
            assert_ne!(
                record_digest(id(main, sub, tombstone), record).unwrap(),
                base
            );
        }
        assert_ne!(small_digest("leases", 1), small_digest("leases", 2));
        assert_ne!(small_digest("leases", 1), small_digest("alarms", 1));
    }

    #[test]
    fn a_missing_part_is_noticed_wherever_it_was() {
        let full = [0; SMALL_BYTES];
        let part = |main, part| Part {
            id: id(main, 0, false),
            part,
        };
        let steps = |parts: &[(Part, &[u8])]| {
            let mut sequence = Sequence::default();
            for (part, chunk) in parts {
                sequence.step(*part, chunk)?;
            }
            sequence.end()
        };
        let row = [
            (part(1, 0), &full[..]),
            (part(1, 1), &full),
            (part(1, 2), &[]),
            (part(2, 0), &[]),
        ];
        assert_eq!(steps(&row), Ok(()));
        for gone in 0..3 {
            let mut row = row.to_vec();
            row.remove(gone);
            let expected = format!("part {gone} of 1.0 is missing");
            assert_eq!(steps(&row), Err(expected));
        }
        assert_eq!(steps(&row[..2]), Err("part 2 of 1.0 is missing".to_owned()));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_key_or_value_is_noticed(
            chunk in proptest::collection::vec(any::<u8>(), 0..100),
            bit in any::<prop::sample::Index>(),
        ) {
            let key = key(id(7, 1, false), 2).unwrap();
            let mut value = Vec::new();
            encode_value(&key, &chunk, &mut value);
            let (_, decoded) = decode_value(&key, &value).unwrap();
            prop_assert_eq!(decoded, &chunk[..]);

            let mut all = [&key[..], &value].concat();
            let bit = bit.index(all.len() * 8);
            all[bit / 8] ^= 1 << (bit % 8);
            let (key2, value2) = all.split_at(KEY_BYTES);
            prop_assert!(decode_value(key2, value2).is_err());
        }

        #[test]
        fn arbitrary_keys_parse_or_not_and_never_panic(bytes in any::<[u8; KEY_BYTES]>()) {
            if let Some(part) = parse(&bytes) {
                prop_assert_eq!(key(part.id, part.part).unwrap(), bytes);
            }
            describe(&bytes);
        }
    }
}
