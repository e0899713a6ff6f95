//! The key index against a naive model: a sorted map from keys to lists of changes.
//!
//! Nodes are tiny, so a few dozen keys make splits, joins and archived histories. After every step
//! the invariants are checked, and every read is compared at many revisions and ranges, on the
//! current root and on roots that were pinned earlier.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrite_api::types::Revision;
use ferrite_storage::mvcc::index::{Builder, Change, KeyIndex, KeyMeta, Limits, Row, Totals};
use ferrite_storage::mvcc::range::KeyRange;
use proptest::prelude::*;
use proptest::sample::Index;

type Key = Vec<u8>;

/// All nodes and blocks as small as they can usefully be.
const TINY: Limits = Limits {
    leaf_slots: 4,
    leaf_bytes: 400,
    children: 4,
    inline_history: 24,
    archive_block: 3,
    archive_group: 2,
    build_block: 100,
};

/// What the index should be, kept the slow and obvious way.
#[derive(Clone, Default)]
struct Model {
    /// Every change ever made, oldest first: what reads must show.
    all: BTreeMap<Key, Vec<Change>>,
    /// The changes that pruning has left: what the index must hold.
    kept: BTreeMap<Key, Vec<Change>>,
    /// The store revision.
    main: i64,
    compacted: i64,
}

impl Model {
    fn new() -> Self {
        Self {
            main: 1,
            compacted: -1,
            ..Self::default()
        }
    }

    fn record(&mut self, key: &[u8], change: Change) {
        self.all.entry(key.to_vec()).or_default().push(change);
        self.kept.entry(key.to_vec()).or_default().push(change);
    }

    fn get(&self, key: &[u8], at: i64) -> Option<KeyMeta> {
        let changes = self.all.get(key)?;
        changes
            .iter()
            .rev()
            .find(|change| change.revision.main <= at)?
            .meta()
    }

    fn range(&self, range: &KeyRange, at: i64) -> Vec<(Key, KeyMeta)> {
        let keys = self.all.keys().filter(|key| range.contains(key));
        keys.filter_map(|key| Some((key.clone(), self.get(key, at)?)))
            .collect()
    }

    fn changes(&self, range: &KeyRange, after: i64, upto: i64) -> Vec<(Key, Change)> {
        let rows = self
            .kept
            .iter()
            .flat_map(|(key, changes)| changes.iter().map(move |change| (key.clone(), *change)));
        let inside = |main: i64| after < main && main <= upto;
        rows.filter(|(key, change)| range.contains(key) && inside(change.revision.main))
            .collect()
    }

    fn garbage(&self, compact: i64) -> Vec<(Key, Change)> {
        let rows = self.kept.iter().flat_map(|(key, changes)| {
            let dropped = changes
                .iter()
                .filter(move |change| !survives(changes, change, compact));
            dropped.map(move |change| (key.clone(), *change))
        });
        rows.collect()
    }

    fn prune(&mut self, key: &[u8], compact: i64) -> usize {
        let Some(changes) = self.kept.get_mut(key) else {
            return 0;
        };
        let before = changes.clone();
        changes.retain(|change| survives(&before, change, compact));
        let dropped = before.len() - changes.len();
        if changes.is_empty() {
            self.kept.remove(key);
        }
        dropped
    }
}

/// Whether one of the `changes` of a key survives a compaction, by the words of spec/mvcc.md.
fn survives(changes: &[Change], change: &Change, compact: i64) -> bool {
    let main = change.revision.main;
    let newest = changes
        .iter()
        .rfind(|change| change.revision.main <= compact);
    let live_then = newest == Some(change) && !change.tombstone;
    let tombstone_at = change.tombstone && main == compact;
    main > compact || live_then || tombstone_at
}

fn totals_of(pairs: &[(Key, KeyMeta)]) -> Totals {
    let framed = |meta: &KeyMeta| {
        let len = prost::length_delimiter_len(meta.record_len as usize);
        1 + len as u64 + u64::from(meta.record_len)
    };
    Totals {
        count: pairs.len() as u64,
        framed_bytes: pairs.iter().map(|(_, meta)| framed(meta)).sum(),
    }
}

/// The index and its model, driven together.
struct Pair {
    index: KeyIndex,
    model: Model,
    /// Where stepwise pruning continues.
    cursor: Option<Key>,
}

#[derive(Clone, Debug)]
enum Step {
    /// One transaction: which key, whether to put it, and the length of its record.
    Txn(Vec<(Index, bool, u32)>),
    /// A put that the caller has chosen odd metadata for, as a damaged or foreign store may have.
    Odd(Index, i64, i64),
    /// Many puts and deletions of one key in one transaction.
    Flip(Index, Vec<bool>),
    /// The same key again and again, so that its history gets long.
    Hammer(Index, u8),
    /// A compaction somewhere between the last one and now.
    Compact(Index),
    /// Prunes one key.
    PruneKey(Index),
    /// Prunes a few keys, going on where the last step stopped.
    PruneSome(usize),
    /// Prunes everything.
    PruneAll,
    /// Goes on with an index built from the rows that are left.
    Rebuild,
    /// Keeps the current root to the end.
    Pin,
}

impl Pair {
    fn run(&mut self, step: &Step, keys: &[Key]) {
        let Self {
            index,
            model,
            cursor,
        } = self;
        match step {
            Step::Txn(ops) => {
                let ops = ops
                    .iter()
                    .map(|(key, put, len)| (key.get(keys), *put, *len));
                self.transaction(ops);
            }
            Step::Odd(key, created, version) => {
                model.main += 1;
                let modified = Revision::new(model.main, 0);
                let meta = KeyMeta {
                    modified,
                    created: *created,
                    version: *version,
                    record_len: 7,
                };
                let key = key.get(keys);
                index.put(key, meta);
                model.record(key, meta.into());
            }
            Step::Flip(key, puts) => {
                self.transaction(puts.iter().map(|put| (key.get(keys), *put, 100)));
            }
            Step::Hammer(key, times) => {
                for _ in 0..*times {
                    self.transaction([(key.get(keys), true, 100)]);
                }
            }
            Step::Compact(at) => {
                if model.compacted < model.main {
                    let span = (model.main - model.compacted) as usize;
                    model.compacted += 1 + at.index(span) as i64;
                    *cursor = Some(Vec::new());
                }
            }
            Step::PruneKey(key) => {
                let key = key.get(keys);
                let dropped = index.prune(key, model.compacted);
                assert_eq!(
                    dropped,
                    model.prune(key, model.compacted),
                    "dropped of {key:?}"
                );
            }
            Step::PruneSome(max_keys) => self.prune_step(*max_keys),
            Step::PruneAll => {
                *cursor = Some(Vec::new());
                self.prune_step(usize::MAX);
                assert_eq!(self.cursor, None, "an unlimited step is the last one");
                assert_eq!(self.index.garbage(self.model.compacted).count(), 0);
            }
            Step::Rebuild => *index = rebuilt(model, TINY),
            Step::Pin => {}
        }
    }

    fn transaction<'k>(&mut self, ops: impl IntoIterator<Item = (&'k Key, bool, u32)>) {
        let Self { index, model, .. } = self;
        let mut modified = Revision::new(model.main + 1, 0);
        for (key, put, record_len) in ops {
            let before = index.latest(key);
            assert_eq!(before, model.get(key, i64::MAX), "latest state of {key:?}");
            if put {
                let (created, version) = match before {
                    Some(before) => (before.created, before.version.wrapping_add(1)),
                    None => (modified.main, 1),
                };
                let meta = KeyMeta {
                    modified,
                    created,
                    version,
                    record_len,
                };
                index.put(key, meta);
                model.record(key, meta.into());
            } else {
                assert_eq!(
                    index.delete(key, modified),
                    before,
                    "what was deleted of {key:?}"
                );
                if before.is_none() {
                    continue;
                }
                let change = Change {
                    revision: modified,
                    tombstone: true,
                    created: 0,
                    version: 0,
                    record_len: 0,
                };
                model.record(key, change);
            }
            model.main = modified.main;
            modified.sub += 1;
        }
    }

    fn prune_step(&mut self, max_keys: usize) {
        let Some(from) = self.cursor.take() else {
            return;
        };
        let compact = self.model.compacted;
        self.cursor = self.index.prune_step(compact, &from, max_keys);
        let end = self.cursor.clone();
        assert!(
            end.as_ref().is_none_or(|end| *end > from),
            "a step from {from:?} to {end:?}"
        );
        let visited = |key: &Key| *key >= from && end.as_ref().is_none_or(|end| key < end);
        let doomed: Vec<Key> = self
            .model
            .kept
            .keys()
            .filter(|key| visited(key))
            .cloned()
            .collect();
        let touched = doomed
            .iter()
            .filter(|key| self.model.prune(key, compact) > 0)
            .count();
        assert!(
            touched <= max_keys,
            "{touched} keys pruned in a step of {max_keys}"
        );
    }
}

/// The index that a restart would build.
fn rebuilt(model: &Model, limits: Limits) -> KeyIndex {
    let mut rows: Vec<(Revision, &Key, Row)> = Vec::new();
    for (key, changes) in &model.kept {
        rows.extend(changes.iter().map(|change| {
            let Change {
                revision,
                created,
                version,
                record_len,
                ..
            } = *change;
            let row = match change.tombstone {
                true => Row::Tombstone,
                false => Row::Put {
                    created,
                    version,
                    record_len,
                },
            };
            (revision, key, row)
        }));
    }
    rows.sort_by_key(|(revision, ..)| *revision);
    let mut builder = Builder::with_limits(limits);
    let threads = 1 + rows.len() % 4;
    for (revision, key, row) in rows {
        builder.push(key, revision, row);
    }
    builder.finish(threads)
}

/// Compares everything that can be read from `index`.
fn check(index: &KeyIndex, model: &Model, ranges: &[KeyRange], revisions: &[Index]) {
    index.check_invariants();
    assert_eq!(
        index.len(),
        model.range(&KeyRange::all(), i64::MAX).len() as u64,
        "len"
    );
    let oldest = model.compacted.max(0);
    let pick = |at: &Index| oldest + at.index((model.main - oldest + 2) as usize) as i64;
    let mut at: Vec<i64> = revisions.iter().map(pick).collect();
    at.extend([oldest, model.main]);
    for range in ranges {
        at.iter()
            .for_each(|at| check_reads(index, model, range, *at));
        for pair in at.windows(2) {
            let (after, upto) = (pair[0].min(pair[1]) - 1, pair[0].max(pair[1]));
            let changes = index.changes(range, after, upto);
            let changes: Vec<_> = changes
                .map(|(key, change)| (key.to_vec(), change))
                .collect();
            assert_eq!(
                changes,
                model.changes(range, after, upto),
                "changes of {range:?} in ({after}, {upto}]"
            );
        }
    }
    for compact in at {
        let garbage: Vec<_> = index
            .garbage(compact)
            .map(|(key, change)| (key.to_vec(), change))
            .collect();
        assert_eq!(
            garbage,
            model.garbage(compact),
            "garbage of a compaction at {compact}"
        );
    }
}

fn check_reads(index: &KeyIndex, model: &Model, range: &KeyRange, at: i64) {
    let expected = model.range(range, at);
    let found: Vec<_> = index
        .range(range, at)
        .map(|(key, meta)| (key.to_vec(), meta))
        .collect();
    assert_eq!(found, expected, "{range:?} at {at}");
    assert_eq!(
        index.totals(range, at),
        totals_of(&expected),
        "totals of {range:?} at {at}"
    );
    assert_eq!(
        index.count(range, at),
        expected.len() as u64,
        "count of {range:?} at {at}"
    );
    for limit in (0..=expected.len() + 1).step_by(expected.len() / 3 + 1) {
        let (first, next) = expected.split_at(limit.min(expected.len()));
        let found = index.prefix_totals(range, at, limit as u64);
        let next = next.first().map(|(key, _)| key.as_slice());
        assert_eq!(
            found,
            (totals_of(first), next),
            "first {limit} of {range:?} at {at}"
        );
    }
    let key = range.start();
    assert_eq!(index.get(key, at), model.get(key, at), "{key:?} at {at}");
}

fn any_key() -> impl Strategy<Value = Key> {
    let byte = prop_oneof![Just(0u8), Just(b'a'), Just(b'b'), Just(0xff)];
    let tail = prop_oneof![Just(0u8), Just(0xff)];
    prop_oneof![
        6 => prop::collection::vec(byte.clone(), 0..5),
        1 => (prop::collection::vec(byte, 0..3), tail, 120usize..300)
            .prop_map(|(mut key, tail, len)| { key.resize(len, tail); key }),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    let key = || any_key().prop_map(Bytes::from);
    prop_oneof![
        2 => key().prop_map(KeyRange::single),
        2 => (key(), key()).prop_map(|(a, b)| KeyRange::new(a.clone().min(b.clone()), &a.max(b))),
        1 => (key(), key()).prop_map(|(key, end)| KeyRange::new(key, &end)),
        1 => key().prop_map(|key| KeyRange::new(key, &Bytes::from_static(&[0]))),
        2 => key().prop_map(KeyRange::prefix),
        1 => Just(KeyRange::all()),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![0u32..200, Just(127), Just(128), Just(16_384), any::<u32>()];
    let op = |puts: u32| {
        let put = prop_oneof![puts => Just(true), 2 => Just(false)];
        (any::<Index>(), put, len())
    };
    prop_oneof![
        12 => prop::collection::vec(op(5), 1..2).prop_map(Step::Txn),
        6 => prop::collection::vec(op(2), 2..8).prop_map(Step::Txn),
        // Mostly deletions, so that leaves become empty.
        2 => prop::collection::vec(op(0), 4..20).prop_map(Step::Txn),
        1 => (any::<Index>(), any::<i64>(), any::<i64>())
            .prop_map(|(key, created, version)| Step::Odd(key, created, version)),
        1 => (any::<Index>(), prop::collection::vec(any::<bool>(), 2..40))
            .prop_map(|(key, puts)| Step::Flip(key, puts)),
        2 => (any::<Index>(), 3u8..60).prop_map(|(key, times)| Step::Hammer(key, times)),
        3 => any::<Index>().prop_map(Step::Compact),
        2 => any::<Index>().prop_map(Step::PruneKey),
        4 => (1usize..6).prop_map(Step::PruneSome),
        2 => Just(Step::PruneAll),
        1 => Just(Step::Rebuild),
        1 => Just(Step::Pin),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        keys in prop::collection::vec(any_key(), 1..60),
        steps in prop::collection::vec(any_step(), 1..60),
        ranges in prop::collection::vec(any_range(), 4),
        revisions in prop::collection::vec(any::<Index>(), 3),
    ) {
        let mut pair =
            Pair { index: KeyIndex::with_limits(TINY), model: Model::new(), cursor: None };
        let mut pinned = Vec::new();
        for step in &steps {
            if let Step::Pin = step {
                pinned.push((pair.index.clone(), pair.model.clone()));
            }
            pair.run(step, &keys);
            check(&pair.index, &pair.model, &ranges, &revisions);
        }
        for (index, model) in &pinned {
            check(index, model, &ranges, &revisions);
        }
        for limits in [TINY, Limits::default()] {
            check(&rebuilt(&pair.model, limits), &pair.model, &ranges, &revisions);
        }
    }
}

/// Puts with usual metadata: the first of each key creates it.
fn put(index: &mut KeyIndex, key: &[u8], main: i64) {
    let modified = Revision::new(main, 0);
    let (created, version) = index
        .latest(key)
        .map_or((main, 1), |meta| (meta.created, meta.version + 1));
    index.put(
        key,
        KeyMeta {
            modified,
            created,
            version,
            record_len: 300,
        },
    );
}

/// A number that is anywhere in the order of `u64`, different for each `n`.
fn scattered(n: u64) -> [u8; 8] {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

#[test]
fn deleting_everything_frees_everything() {
    let mut index = KeyIndex::new();
    for n in 0..20_000 {
        put(&mut index, &scattered(n as u64), n + 2);
    }
    let full = index.heap_bytes();
    for n in 0..20_000 {
        let deleted = index.delete(&scattered(n as u64), Revision::new(30_000 + n, 0));
        assert_eq!(deleted.map(|meta| meta.modified.main), Some(n + 2));
    }
    index.check_invariants();
    assert_eq!(index.len(), 0);
    // At the last deletion only its own tombstone is left.
    assert_eq!(index.prune_step(49_999, b"", usize::MAX), None);
    index.check_invariants();
    let left: Vec<_> = index.changes(&KeyRange::all(), 0, i64::MAX).collect();
    assert_eq!(left.len(), 1);
    assert!(
        index.heap_bytes() < full / 1000,
        "{} of {full} bytes left",
        index.heap_bytes()
    );
    assert_eq!(index.prune_step(50_000, b"", usize::MAX), None);
    assert_eq!(index.heap_bytes(), 0);
}

#[test]
fn thinning_out_joins_nodes() {
    let mut index = KeyIndex::new();
    for n in 0..20_000 {
        put(&mut index, &scattered(n as u64), n + 2);
    }
    let full = index.heap_bytes();
    for n in (0..20_000).filter(|n| n % 20 != 0) {
        index.delete(&scattered(n as u64), Revision::new(30_000 + n, 0));
    }
    let mut from = Some(Vec::new());
    while let Some(key) = from {
        from = index.prune_step(60_000, &key, 100);
        index.check_invariants();
    }
    assert_eq!(index.len(), 1000);
    assert!(
        index.heap_bytes() < full / 10,
        "{} of {full} bytes left",
        index.heap_bytes()
    );
}

#[test]
fn a_key_with_a_long_history() {
    let mut index = KeyIndex::new();
    for main in 2..20_002 {
        put(&mut index, b"hot", main);
        put(&mut index, &scattered(main as u64), main);
    }
    let pinned = index.clone();
    for main in (2..20_002).step_by(97) {
        let meta = index.get(b"hot", main).unwrap();
        assert_eq!(
            (meta.modified.main, meta.version, meta.created),
            (main, main - 1, 2)
        );
    }
    for compact in (5..20_002).step_by(1999) {
        assert_eq!(index.prune_step(compact, b"", usize::MAX), None);
        index.check_invariants();
        assert_eq!(index.garbage(compact).count(), 0);
        let oldest = index
            .changes(&KeyRange::single(Bytes::from_static(b"hot")), 0, i64::MAX)
            .next();
        assert_eq!(oldest.unwrap().1.revision.main, compact);
        assert_eq!(index.get(b"hot", compact).unwrap().version, compact - 1);
    }
    assert_eq!(pinned.get(b"hot", 2).unwrap().version, 1);
    pinned.check_invariants();
}

#[test]
fn keys_of_a_megabyte() {
    let mut index = KeyIndex::new();
    let key = |n: u8| [vec![b'k'; 1 << 20], vec![n]].concat();
    for (main, n) in [5u8, 1, 9, 3, 7].into_iter().enumerate() {
        put(&mut index, &key(n), main as i64 + 2);
        put(&mut index, &[n], main as i64 + 2);
        index.check_invariants();
    }
    let order: Vec<_> = index
        .range(&KeyRange::all(), 9)
        .map(|(key, _)| key.last().copied())
        .collect();
    assert_eq!(order, [1, 3, 5, 7, 9, 1, 3, 5, 7, 9].map(Some));
}

#[test]
fn rows_out_of_order_are_sorted() {
    let mut builder = Builder::new();
    let row = |version| Row::Put {
        created: 2,
        version,
        record_len: 1,
    };
    for (main, version) in [(4, 3), (2, 1), (3, 2), (3, 20)] {
        builder.push(b"k", Revision::new(main, 0), row(version));
    }
    let index = builder.finish(2);
    index.check_invariants();
    let versions = [2, 3, 4].map(|at| index.get(b"k", at).map(|meta| meta.version));
    assert_eq!(versions, [Some(1), Some(20), Some(3)]);
}

#[test]
#[should_panic(expected = "change 5.0 of a key that was changed at 5.0")]
fn a_revision_is_used_once_per_key() {
    let mut index = KeyIndex::new();
    put(&mut index, b"k", 5);
    put(&mut index, b"k", 5);
}

#[test]
fn roots_are_read_while_the_writer_goes_on() {
    let mut index = KeyIndex::new();
    let total = KeyRange::all();
    std::thread::scope(|scope| {
        for main in 2..5_000 {
            put(&mut index, &scattered(main as u64 % 701), main);
            if main % 500 == 0 {
                let root = index.clone();
                let total = &total;
                scope.spawn(move || {
                    root.check_invariants();
                    let live = (main - 1).min(701) as u64;
                    assert_eq!(root.count(total, main), live);
                    assert_eq!(root.range(total, main).count() as u64, live);
                    assert_eq!(root.changes(total, 0, i64::MAX).count() as i64, main - 1);
                });
            }
        }
    });
}
