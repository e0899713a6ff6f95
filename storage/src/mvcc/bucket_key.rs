//! The key of a row in etcd's bucket `key`: main as 8 bytes big-endian, `_`, sub likewise, then `t` if
//! it is a tombstone. Ascending keys are ascending rows.

use ferrite_api::types::Revision;

/// Bytes of the longest key.
pub(crate) const MAX_BYTES: usize = 18;

/// Such a key.
pub(crate) struct BucketKey {
    bytes: [u8; MAX_BYTES],
    len: usize,
}

impl BucketKey {
    pub(crate) fn new(revision: Revision, tombstone: bool) -> Self {
        let mut bytes = [0; MAX_BYTES];
        bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&revision.sub.to_be_bytes());
        bytes[17] = b't';
        let len = if tombstone { MAX_BYTES } else { MAX_BYTES - 1 };
        Self { bytes, len }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The row that a key stands for, and whether it is a tombstone; or why it is no key. The texts are
/// etcd's.
pub(crate) fn parse(key: &[u8]) -> Result<(Revision, bool), String> {
    let tombstone = match key {
        [_, .., b't'] if key.len() == MAX_BYTES => true,
        _ if key.len() == MAX_BYTES - 1 => false,
        _ => return Err(format!("invalid revision length: {}", key.len())),
    };
    if key[8] != b'_' {
        return Err(format!("invalid separator in bucket key: {:02x}", key[8]));
    }
    let number = |bytes: &[u8]| {
        let bytes = bytes.iter();
        bytes
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
            .cast_signed()
    };
    let (main, sub) = (number(&key[..8]), number(&key[9..17]));
    if main < 0 || sub < 0 {
        return Err("negative revision".to_owned());
    }
    Ok((Revision::new(main, sub), tombstone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_etcds() {
        let put = BucketKey::new(Revision::new(0x0102, 3), false);
        assert_eq!(put.as_slice(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03");
        let tombstone = BucketKey::new(Revision::new(2, 0), true);
        assert_eq!(
            tombstone.as_slice(),
            b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0t"
        );
    }

    #[test]
    fn keys_are_read_as_they_were_written() {
        for (main, sub, tombstone) in [(0, 0, false), (i64::MAX, 7, true), (5, i64::MAX, false)] {
            let revision = Revision::new(main, sub);
            let key = BucketKey::new(revision, tombstone);
            assert_eq!(parse(key.as_slice()), Ok((revision, tombstone)));
        }
        for (key, why) in [
            (&b"0"[..], "invalid revision length: 1"),
            (
                b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0x",
                "invalid revision length: 18",
            ),
            (
                b"\0\0\0\0\0\0\0\x02-\0\0\0\0\0\0\0\0",
                "invalid separator in bucket key: 2d",
            ),
            (
                b"\x80\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0",
                "negative revision",
            ),
        ] {
            assert_eq!(parse(key), Err(why.to_owned()));
        }
    }
}
