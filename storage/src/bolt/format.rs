//! The bytes of pages.

use bytes::{Buf, BufMut};

pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const META: u16 = 4;
pub(super) const FREELIST: u16 = 0x10;

/// Bytes of the header of a page.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of an element of a branch or a leaf, without its key and value.
pub(super) const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket's value, without an inline page.
pub(super) const BUCKET_BYTES: usize = 16;
/// Bytes of a meta page behind its header.
pub(super) const META_BYTES: usize = 64;
/// The flag of a leaf's element whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 1;
/// "There is no freelist."
pub(super) const NO_FREELIST: u64 = u64::MAX;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

/// The header of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Pages that follow and belong to it.
    pub(super) overflow: u32,
}

impl Header {
    /// The header at the beginning of `bytes`, if they are enough.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= HEADER_BYTES).then(|| Self {
            id: bytes.get_u64_le(),
            flags: bytes.get_u16_le(),
            count: bytes.get_u16_le(),
            overflow: bytes.get_u32_le(),
        })
    }

    pub(super) fn write(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.id);
        out.put_u16_le(self.flags);
        out.put_u16_le(self.count);
        out.put_u32_le(self.overflow);
    }
}

/// What a meta page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// The number of pages, free ones included.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

impl Meta {
    /// The meta page whose content behind the header `bytes` begin with, or why it is none.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some(bytes) = bytes.get(..META_BYTES) else {
            return Err("invalid database");
        };
        let (body, mut sum) = bytes.split_at(META_BYTES - 8);
        let mut fields = body;
        if fields.get_u32_le() != MAGIC {
            return Err("invalid database");
        }
        if fields.get_u32_le() != VERSION {
            return Err("version mismatch");
        }
        if sum.get_u64_le() != fnv1a(body) {
            return Err("checksum error");
        }
        let page_bytes = fields.get_u32_le();
        let _flags = fields.get_u32_le();
        let root = fields.get_u64_le();
        let _sequence = fields.get_u64_le();
        Ok(Self {
            page_bytes,
            root,
            freelist: fields.get_u64_le(),
            pages: fields.get_u64_le(),
            transaction: fields.get_u64_le(),
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.page_bytes);
        out.put_u32_le(0);
        out.put_u64_le(self.root);
        out.put_u64_le(0);
        out.put_u64_le(self.freelist);
        out.put_u64_le(self.pages);
        out.put_u64_le(self.transaction);
        let sum = fnv1a(&out[from..]);
        out.put_u64_le(sum);
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// An element of a leaf, its key and value as ranges of the page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LeafElement {
    pub(super) is_bucket: bool,
    pub(super) key: std::ops::Range<usize>,
    pub(super) value: std::ops::Range<usize>,
}

/// Element `at` of the leaf `page`, which begins with its header.
pub(super) fn leaf_element(page: &[u8], at: usize) -> Result<LeafElement, String> {
    let (mut element, from) = element(page, at)?;
    let flags = element.get_u32_le();
    let pos = element.get_u32_le() as usize;
    let (key, value) = (element.get_u32_le() as usize, element.get_u32_le() as usize);
    // None of these sums can overflow: positions in memory, and three numbers of 32 bits.
    let key = from + pos..from + pos + key;
    let value = key.end..key.end + value;
    if value.end > page.len() {
        return Err(format!("element {at} ends outside"));
    }
    Ok(LeafElement {
        is_bucket: flags & IS_BUCKET != 0,
        key,
        value,
    })
}

/// Element `at` of a branch: its key as a range of the page, and its child.
pub(super) fn branch_element(
    page: &[u8],
    at: usize,
) -> Result<(std::ops::Range<usize>, u64), String> {
    let (mut element, from) = element(page, at)?;
    let pos = element.get_u32_le() as usize;
    let key = element.get_u32_le() as usize;
    let key = from + pos..from + pos + key;
    if key.end > page.len() {
        return Err(format!("element {at} ends outside"));
    }
    Ok((key, element.get_u64_le()))
}

/// The bytes of an element, and where they begin.
fn element(page: &[u8], at: usize) -> Result<(&[u8], usize), String> {
    let from = HEADER_BYTES + at * ELEMENT_BYTES;
    match page.get(from..from + ELEMENT_BYTES) {
        Some(element) => Ok((element, from)),
        None => Err(format!("element {at} is outside")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a() {
        // The published values of the empty text, "a" and "foobar".
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn meta_pages_are_what_was_written() {
        let meta = Meta {
            page_bytes: 4096,
            root: 7,
            freelist: NO_FREELIST,
            pages: 9,
            transaction: 3,
        };
        let mut bytes = Vec::new();
        meta.write(&mut bytes);
        assert_eq!(Meta::read(&bytes), Ok(meta));
        assert_eq!(Meta::read(&bytes[..63]), Err("invalid database"));
        for (at, why) in [
            (0, "invalid database"),
            (4, "version mismatch"),
            (40, "checksum error"),
        ] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Meta::read(&bytes), Err(why));
        }
    }
}
