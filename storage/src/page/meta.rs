//! The meta record: what the file as a whole claims about itself.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::Version;

use super::batch::{ConfState, MetaUpdate};

/// The format that this build writes; see the [module documentation](super) for the layout.
pub const FORMAT_VERSION: u32 = 1;

/// First byte of an encoded meta record.
const CODEC_VERSION: u8 = 1;

/// State of the whole file as of its last commit, written in the same transaction as the rows it
/// describes.
///
/// [`Meta::rows`], [`Meta::digest`] and the other counters are kept by the page file itself and
/// are functions of the rows alone: two files with the same rows have the same counters, whatever
/// the order of the commits that wrote them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Meta {
    /// [`FORMAT_VERSION`] of the build that created the file.
    pub format_version: u32,
    /// etcd's storage version, such as `3.7.0`.
    pub storage_version: String,
    /// The cluster that the file belongs to.
    pub cluster_id: u64,
    /// The member that the file belongs to.
    pub member_id: u64,
    /// The raft index of the last entry whose effects are in the file.
    pub consistent_index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The store revision after that entry.
    pub revision: i64,
    /// The newest compaction that was applied; -1 before the first.
    pub scheduled_compact: i64,
    /// The newest compaction whose rows are all removed; -1 before the first.
    pub finished_compact: i64,
    /// The raft configuration as of that entry.
    pub conf_state: ConfState,
    /// Rows in the key space: puts and tombstones, each counted once however it is split.
    pub rows: u64,
    /// Order-free digest of the rows: a wrapping sum over row keys and checksums.
    pub digest: u64,
    /// Bytes of keys and values that the rows and small tables hold, without the tree around them.
    pub live_bytes: u64,
    /// Rows in all small tables.
    pub table_rows: u64,
    /// The same digest over the small tables.
    pub table_digest: u64,
}

impl Meta {
    /// The meta record of a file without rows, in this program's newest schema.
    pub(crate) fn new(cluster_id: u64, member_id: u64) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            storage_version: Version::RELEASE.level().to_string(),
            cluster_id,
            member_id,
            consistent_index: 0,
            term: 0,
            revision: 1,
            scheduled_compact: -1,
            finished_compact: -1,
            conf_state: ConfState::default(),
            rows: 0,
            digest: 0,
            live_bytes: 0,
            table_rows: 0,
            table_digest: 0,
        }
    }

    pub(crate) fn update(&mut self, update: &MetaUpdate) {
        fn set<T: Clone>(field: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                field.clone_from(value);
            }
        }
        set(&mut self.consistent_index, &update.consistent_index);
        set(&mut self.term, &update.term);
        set(&mut self.revision, &update.revision);
        set(&mut self.scheduled_compact, &update.scheduled_compact);
        set(&mut self.finished_compact, &update.finished_compact);
        set(&mut self.storage_version, &update.storage_version);
        set(&mut self.conf_state, &update.conf_state);
    }

    /// Little-endian fields in the order of the struct; strings and lists have a u32 count first.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u8(CODEC_VERSION);
        out.put_u32_le(self.format_version);
        put_len(&mut out, self.storage_version.len());
        out.put_slice(self.storage_version.as_bytes());
        for field in [
            self.cluster_id,
            self.member_id,
            self.consistent_index,
            self.term,
        ] {
            out.put_u64_le(field);
        }
        for field in [self.revision, self.scheduled_compact, self.finished_compact] {
            out.put_i64_le(field);
        }
        let conf = &self.conf_state;
        for list in [
            &conf.voters,
            &conf.learners,
            &conf.voters_outgoing,
            &conf.learners_next,
        ] {
            put_len(&mut out, list.len());
            list.iter().for_each(|id| out.put_u64_le(*id));
        }
        out.put_u8(u8::from(conf.auto_leave));
        for field in [
            self.rows,
            self.digest,
            self.live_bytes,
            self.table_rows,
            self.table_digest,
        ] {
            out.put_u64_le(field);
        }
        out.freeze()
    }

    /// The record in `bytes`, or what is wrong with them.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let input = &mut bytes;
        let too_short = |_| "the meta record ends early".to_owned();
        let codec = input.try_get_u8().map_err(too_short)?;
        if codec != CODEC_VERSION {
            return Err(format!(
                "meta record codec {codec}, this build reads {CODEC_VERSION}"
            ));
        }
        let u64 = |input: &mut &[u8]| input.try_get_u64_le().map_err(too_short);
        let i64 = |input: &mut &[u8]| input.try_get_i64_le().map_err(too_short);
        let ids = |input: &mut &[u8]| {
            let count = get_len(input, size_of::<u64>())?;
            (0..count)
                .map(|_| u64(input))
                .collect::<Result<Vec<_>, _>>()
        };
        let meta = Self {
            format_version: input.try_get_u32_le().map_err(too_short)?,
            storage_version: {
                let len = get_len(input, 1)?;
                let (text, rest) = input.split_at(len);
                *input = rest;
                String::from_utf8(text.to_vec())
                    .map_err(|_| "the storage version is not UTF-8".to_owned())?
            },
            cluster_id: u64(input)?,
            member_id: u64(input)?,
            consistent_index: u64(input)?,
            term: u64(input)?,
            revision: i64(input)?,
            scheduled_compact: i64(input)?,
            finished_compact: i64(input)?,
            conf_state: ConfState {
                voters: ids(input)?,
                learners: ids(input)?,
                voters_outgoing: ids(input)?,
                learners_next: ids(input)?,
                auto_leave: input.try_get_u8().map_err(too_short)? != 0,
            },
            rows: u64(input)?,
            digest: u64(input)?,
            live_bytes: u64(input)?,
            table_rows: u64(input)?,
            table_digest: u64(input)?,
        };
        if !input.is_empty() {
            return Err(format!("{} bytes after the meta record", input.len()));
        }
        Ok(meta)
    }
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.put_u32_le(u32::try_from(len).expect("a version string or member list is short"));
}

/// A count of items of `size` bytes, all of which are in the input.
fn get_len(input: &mut &[u8], size: usize) -> Result<usize, String> {
    let count = input
        .try_get_u32_le()
        .map_err(|_| "the meta record ends early".to_owned())?;
    let count = count as usize;
    match count.checked_mul(size) {
        Some(bytes) if bytes <= input.len() => Ok(count),
        _ => Err(format!(
            "the meta record counts {count} items in {} bytes",
            input.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Meta {
        let mut meta = Meta::new(0x1234, 0xabcd);
        meta.update(&MetaUpdate {
            consistent_index: Some(17),
            term: Some(3),
            revision: Some(40),
            scheduled_compact: Some(30),
            finished_compact: Some(20),
            storage_version: Some("3.6.0".to_owned()),
            conf_state: Some(ConfState {
                voters: vec![1, 2, u64::MAX],
                learners: vec![4],
                voters_outgoing: vec![1, 2],
                learners_next: vec![],
                auto_leave: true,
            }),
        });
        meta.rows = 9;
        meta.digest = u64::MAX;
        meta.live_bytes = 12345;
        meta.table_rows = 2;
        meta.table_digest = 7;
        meta
    }

    #[test]
    fn round_trip() {
        for meta in [Meta::new(1, 2), sample()] {
            assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(
                Meta::decode(&bytes[..len]).is_err(),
                "prefix of {len} bytes"
            );
        }
    }

    #[test]
    fn a_missing_field_keeps_the_old_value() {
        let mut meta = sample();
        meta.update(&MetaUpdate {
            term: Some(4),
            ..MetaUpdate::default()
        });
        assert_eq!(
            meta,
            Meta {
                term: 4,
                ..sample()
            }
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Meta::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = CODEC_VERSION;
            }
            let _ = Meta::decode(&bytes);
        }
    }
}
