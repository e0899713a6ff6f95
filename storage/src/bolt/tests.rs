use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferrite_disk::sim::SimDisk;
use ferrite_disk::{Disk, DiskFile};
use proptest::prelude::*;

use super::*;

/// Buckets by name, and their pairs.
type Content = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = SimDisk::new(1).create(Path::new("/bolt")).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn read(bytes: &[u8]) -> Result<Content, Error> {
    let file = BoltFile::open(file(bytes))?;
    let mut content = Content::new();
    for entry in file.entries(&file.root()) {
        let Entry::Bucket { name, bucket } = entry? else {
            continue;
        };
        let mut pairs = BTreeMap::new();
        for entry in file.entries(&bucket) {
            if let Entry::Pair { key, value } = entry? {
                pairs.insert(key.to_vec(), value.to_vec());
            }
        }
        content.insert(name.to_vec(), pairs);
    }
    Ok(content)
}

fn contents(pairs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Contents {
    let mut contents = Contents::default();
    for (key, value) in pairs {
        contents.add(key.len(), value.len());
    }
    contents
}

/// The file of some content, as it is streamed, and what it was said to be long.
fn written(content: &Content) -> Result<(Vec<u8>, u64), Error> {
    let named = |name: &[u8]| Bytes::copy_from_slice(name);
    let mut writer = Writer::new(
        content
            .iter()
            .map(|(name, pairs)| (named(name), contents(pairs))),
    );
    let (mut bytes, len) = (Vec::new(), writer.len());
    for (name, pairs) in content {
        writer.bucket(named(name))?;
        for (key, value) in pairs {
            writer.put(key, value)?;
            if writer.ready() > 100_000 {
                bytes.extend_from_slice(&writer.take());
            }
        }
    }
    let mut tail = writer.finish()?;
    loop {
        let part = tail.take(5000);
        if part.is_empty() {
            return Ok((bytes, len));
        }
        bytes.extend_from_slice(&part);
    }
}

fn faults(bytes: &[u8]) -> Vec<Fault> {
    check(&BoltFile::open(file(bytes)).unwrap()).unwrap()
}

fn numbered(count: usize, value: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..count)
        .map(|at| (format!("{at:09}").into_bytes(), vec![at as u8; value]))
        .collect()
}

/// A file of five pages of 512 bytes, put together from bbolt's description of its format: a branch
/// over two leaves, one of which goes on over the page after it, an inline bucket, a list of the one
/// free page, and of the two meta pages the second is newer.
fn golden() -> Vec<u8> {
    const PAGE: usize = 512;
    let mut file = vec![0; 9 * PAGE];
    fn put(file: &mut [u8], at: usize, parts: &[&[u8]]) {
        let bytes = parts.concat();
        file[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    let header = |id: u64, flags: u16, count: u16, overflow: u32| {
        [
            &id.to_le_bytes()[..],
            &flags.to_le_bytes(),
            &count.to_le_bytes(),
            &overflow.to_le_bytes(),
        ]
        .concat()
    };
    let words =
        |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let longs =
        |longs: &[u64]| -> Vec<u8> { longs.iter().flat_map(|long| long.to_le_bytes()).collect() };
    for (id, transaction) in [(0, 4), (1, 5)] {
        let mut meta = words(&[0xed0c_daed, 2, 512, 0]);
        // The root is page 3, its sequence 0; the freelist is page 2; nine pages are in use.
        meta.extend(longs(&[3, 0, 2, 9, transaction]));
        let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in &meta {
            sum ^= u64::from(*byte);
            sum = sum.wrapping_mul(1_099_511_628_211);
        }
        meta.extend(sum.to_le_bytes());
        put(&mut file, id * PAGE, &[&header(id as u64, 4, 0, 0), &meta]);
    }
    put(&mut file, 2 * PAGE, &[&header(2, 16, 1, 0), &longs(&[8])]);
    // The bucket "inline" holds x=y in a leaf of its own within its value: header, element, "xy".
    let inline = [
        &longs(&[0, 0])[..],
        &header(0, 2, 1, 0),
        &words(&[0, 16, 1, 1]),
        b"xy",
    ]
    .concat();
    let inline_len = inline.len() as u32;
    put(
        &mut file,
        3 * PAGE,
        &[
            &header(3, 2, 2, 0),
            // The second element is 16 bytes nearer to the keys; "inline" and its value are before it.
            &words(&[1, 32, 6, inline_len]),
            &words(&[1, 16 + 6 + inline_len, 4, 16]),
            b"inline",
            &inline,
            b"tree",
            &longs(&[4, 7]),
        ],
    );
    put(
        &mut file,
        4 * PAGE,
        &[
            &header(4, 1, 2, 0),
            &words(&[32, 1]),
            &longs(&[5]),
            &words(&[17, 1]),
            &longs(&[6]),
            b"ac",
        ],
    );
    put(
        &mut file,
        5 * PAGE,
        &[
            &header(5, 2, 2, 0),
            &words(&[0, 32, 1, 3]),
            &words(&[0, 20, 1, 0]),
            b"aone",
            b"b",
        ],
    );
    put(
        &mut file,
        6 * PAGE,
        &[
            &header(6, 2, 1, 1),
            &words(&[0, 16, 1, 900]),
            b"c",
            &[7; 900],
        ],
    );
    file
}

#[test]
fn a_file_made_by_hand_is_read() {
    let content = read(&golden()).unwrap();
    let pairs = |pairs: &[(&str, &[u8])]| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let owned = |(key, value): &(&str, &[u8])| (key.as_bytes().to_vec(), value.to_vec());
        pairs.iter().map(owned).collect()
    };
    let expected = Content::from([
        (b"inline".to_vec(), pairs(&[("x", b"y")])),
        (
            b"tree".to_vec(),
            pairs(&[("a", b"one"), ("b", b""), ("c", &[7; 900])]),
        ),
    ]);
    assert_eq!(content, expected);
    assert_eq!(faults(&golden()), Vec::<Fault>::new());
    let file = BoltFile::open(file(&golden())).unwrap();
    assert_eq!(file.len(), 9 * 512);
    assert!(file.bucket(b"tree").unwrap().is_some());
    assert!(file.bucket(b"tre").unwrap().is_none());
}

#[test]
fn a_damaged_meta_page_gives_way_to_the_other() {
    let whole = golden();
    let mut bytes = whole.clone();
    bytes[512 + 40] ^= 1;
    assert_eq!(read(&bytes).unwrap(), read(&whole).unwrap());
    // With the first one, the size of pages is gone: the second is looked for.
    let (mut bytes, _) = written(&Content::new()).unwrap();
    bytes[40] ^= 1;
    assert_eq!(read(&bytes).unwrap(), Content::new());

    let mut bytes = whole;
    bytes[40] ^= 1;
    bytes[512 + 40] ^= 1;
    let error = read(&bytes).unwrap_err().to_string();
    assert_eq!(error, "checksum error");
    assert_eq!(read(b"").unwrap_err().to_string(), "invalid database");
}

#[test]
fn what_is_no_tree_is_named() {
    type Damage = fn(&mut [u8]);
    let damages: [(Damage, &str); 7] = [
        (|file| file[4 * 512 + 24] = 4, "page 4: multiple references"),
        (|file| file[4 * 512 + 24] = 9, "page 9: is none of 2..9"),
        (
            |file| file[4 * 512 + 24] = 8,
            "page 8: says that it is page 0",
        ),
        (
            |file| file[5 * 512 + 16 + 32] = b'z',
            "page 5: element 1 is out of order",
        ),
        (
            |file| file[6 * 512 + 12] = 9,
            "page 6: goes on over 10 pages, beyond the last",
        ),
        (|file| file[2 * 512 + 10] = 0, "page 8: unreachable unfreed"),
        (|file| file[2 * 512 + 16] = 5, "page 5: reachable freed"),
    ];
    for (damage, text) in damages {
        let mut bytes = golden();
        damage(&mut bytes);
        let faults = faults(&bytes);
        assert!(
            faults.iter().any(|fault| fault == text),
            "{text}: {faults:?}"
        );
    }
}

#[test]
fn a_cut_file_is_no_file() {
    let whole = golden();
    for cut in [0, 100, 512, 8 * 512, 9 * 512 - 1] {
        let error = read(&whole[..cut]).unwrap_err();
        assert!(
            matches!(error, Error::Invalid(_) | Error::Cut { .. }),
            "{cut}: {error}"
        );
    }
    // What follows the pages is not looked at: it is the checksum of a snapshot.
    let longer = [&whole[..], &[1; 32]].concat();
    assert_eq!(read(&longer).unwrap(), read(&whole).unwrap());
}

#[test]
fn trees_of_several_levels_are_written_and_the_bound_is_near() {
    // Long keys make branches of few children.
    let long: BTreeMap<Vec<u8>, Vec<u8>> = (0..60_000_u32)
        .map(|at| {
            let mut key = at.to_be_bytes().to_vec();
            key.resize(1500, 1);
            (key, vec![2; 20])
        })
        .collect();
    let content = Content::from([
        (b"empty".to_vec(), BTreeMap::new()),
        (b"long".to_vec(), long),
        (b"many".to_vec(), numbered(50_000, 100)),
        (b"one".to_vec(), numbered(1, 3_000_000)),
    ]);
    let (bytes, len) = written(&content).unwrap();
    assert_eq!(bytes.len() as u64, len);
    let pairs: usize = content
        .values()
        .flatten()
        .map(|(key, value)| ELEMENT + key.len() + value.len())
        .sum();
    assert!(bytes.len() < pairs + pairs / 10, "{len} for {pairs}");
    assert!(read(&bytes).unwrap() == content);
    assert_eq!(faults(&bytes), Vec::<Fault>::new());
}

const ELEMENT: usize = 16;

#[test]
fn what_is_not_announced_is_refused() {
    let name = Bytes::from_static(b"b");
    let announced = Contents {
        entries: 10,
        bytes: 100,
        longest_key: 9,
    };
    let mut writer = Writer::new([(name.clone(), announced)]);
    writer.bucket(name.clone()).unwrap();
    let refused = numbered(100, 5000)
        .iter()
        .find_map(|(key, value)| writer.put(key, value).err())
        .unwrap();
    assert!(refused.to_string().contains("were announced"), "{refused}");

    let mut writer = Writer::new([(name.clone(), announced)]);
    assert!(writer.put(b"key", b"value").is_err());
    writer.bucket(name).unwrap();
    assert!(writer.put(b"", b"value").is_err());
    assert!(writer.put(&[1; 32_769], b"value").is_err());
}

fn any_content() -> impl Strategy<Value = Content> {
    let bytes = |len| prop::collection::vec(any::<u8>(), len);
    let value = prop_oneof![
        8 => bytes(0..200),
        1 => bytes(3000..9000),
        1 => (60_000..200_000usize).prop_map(|len| vec![1; len]),
    ];
    let pairs = prop::collection::btree_map(bytes(1..40), value, 0..60);
    prop::collection::btree_map(bytes(1..20), pairs, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read(content in any_content()) {
        let (bytes, len) = written(&content).unwrap();
        prop_assert_eq!(bytes.len() as u64, len);
        prop_assert!(read(&bytes).unwrap() == content);
        prop_assert_eq!(faults(&bytes), Vec::<Fault>::new());
    }

    #[test]
    fn damage_is_an_error_or_other_content_and_never_a_panic(
        content in any_content(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        for whole in [written(&content).unwrap().0, golden()] {
            // The heads of pages decide most; the rest is values.
            let mut bytes = whole.clone();
            for (at, flip) in &places {
                let at = at.index(bytes.len());
                let at = if flip % 3 == 0 { at } else { at / 512 * 512 + at % 64 };
                bytes[at] ^= flip;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = read(&bytes);
            if let Ok(opened) = BoltFile::open(file(&bytes)) {
                check(&opened).unwrap();
            }
        }
    }
}
