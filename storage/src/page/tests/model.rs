//! Random batches against a naive model.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What the file should hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Model {
    rows: BTreeMap<RowId, Bytes>,
    tables: BTreeMap<(Table, Bytes), Bytes>,
    meta: Meta,
}

impl Model {
    /// The model of a file that [`create`] made.
    pub(super) fn new() -> Self {
        let initial = initial();
        let meta = Meta::new(initial.cluster_id, initial.member_id);
        let mut model = Self {
            rows: BTreeMap::new(),
            tables: BTreeMap::new(),
            meta,
        };
        model.commit(&Batch {
            tables: initial.tables,
            meta: initial.meta,
            ..Batch::default()
        });
        model
    }

    pub(super) fn commit(&mut self, batch: &Batch) {
        for row in &batch.rows {
            let id = RowId {
                revision: row.revision,
                tombstone: row.tombstone,
            };
            self.rows.insert(id, row.record.clone());
        }
        for id in &batch.remove {
            self.rows.remove(id);
        }
        for write in &batch.tables {
            match write.clone() {
                TableWrite::Put { table, key, value } => {
                    self.tables.insert((table, key), value);
                }
                TableWrite::Delete { table, key } => {
                    self.tables.remove(&(table, key));
                }
                TableWrite::Clear { table } => self.tables.retain(|(of, _), _| *of != table),
            }
        }
        self.meta.update(&batch.meta);
        self.count();
    }

    /// Recomputes the counters from nothing.
    fn count(&mut self) {
        let meta = &mut self.meta;
        meta.rows = self.rows.len() as u64;
        meta.digest = 0;
        meta.live_bytes = 0;
        for (id, record) in &self.rows {
            meta.digest = meta
                .digest
                .wrapping_add(record_digest(*id, record).unwrap());
            meta.live_bytes +=
                record.len() as u64 + 19 * super::super::row::chunks(record).count() as u64;
        }
        meta.table_rows = self.tables.len() as u64;
        meta.table_digest = 0;
        for ((table, key), value) in &self.tables {
            let crc = crc32c::crc32c(&[&key[..], value].concat());
            let digest = super::super::row::small_digest(table.name(), crc);
            meta.table_digest = meta.table_digest.wrapping_add(digest);
            meta.live_bytes += (key.len() + value.len()) as u64 + 4;
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn rows(&self) -> &BTreeMap<RowId, Bytes> {
        &self.rows
    }

    pub(super) fn table(&self, table: Table) -> Vec<((Table, Bytes), Bytes)> {
        let rows = self.tables.iter().filter(|((of, _), _)| *of == table);
        rows.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Whether a file holds exactly this.
    pub(super) fn is_in(&self, file: &PageFile) -> bool {
        if file.meta() != self.meta {
            return false;
        }
        self.assert_in(file);
        true
    }

    pub(super) fn assert_in(&self, file: &PageFile) {
        assert_eq!(file.meta(), self.meta);
        let reader = file.reader().unwrap();
        assert_eq!(reader.meta().unwrap(), self.meta);
        let expected: Vec<_> = self
            .rows
            .iter()
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        assert_eq!(all_rows(&reader).unwrap(), expected);
        for sections in 1..=3 {
            assert_eq!(all_rows_of_leaves(file, sections).unwrap(), expected);
        }
        let mut fetcher = file.fetcher().unwrap();
        for (id, record) in &self.rows {
            assert_eq!(reader.row(id.revision, id.tombstone).unwrap(), record);
            if !id.tombstone {
                let mut filled = vec![0; record.len()];
                fetcher.row_into(id.revision, &mut filled).unwrap();
                assert_eq!(&filled, record);
                assert_eq!(fetcher.row(id.revision).unwrap(), record);
            }
            let other = RowId {
                tombstone: !id.tombstone,
                ..*id
            };
            if !self.rows.contains_key(&other) {
                let missing = reader.row(other.revision, other.tombstone);
                assert!(matches!(missing, Err(Error::Missing { .. })), "{missing:?}");
            }
        }
        assert!(
            !fetcher.asked_tree(),
            "a row was not where it is said to be"
        );
        for table in Table::ALL {
            let expected: Vec<_> = self
                .table(table)
                .into_iter()
                .map(|((_, key), value)| (key, value))
                .collect();
            assert_eq!(reader.table(table).unwrap(), expected);
        }
    }
}

/// One commit, as far as it does not depend on what is there already.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Gap to the row before, in main and in sub revisions, kind, length.
    rows: Vec<(i64, i64, bool, usize)>,
    /// Which of the rows that are there are removed.
    remove: Remove,
    /// Table, key, length of the value (none: delete).
    tables: Vec<(usize, u8, Option<usize>)>,
    clear: Option<usize>,
    /// Write some rows again that are there already.
    again: bool,
    reopen: bool,
}

#[derive(Clone, Debug)]
enum Remove {
    Nothing,
    /// These, by index.
    Some(Vec<prop::sample::Index>),
    /// All from one index to another.
    Range(prop::sample::Index, prop::sample::Index),
    /// All but every n-th, and as many that never were.
    Most(usize),
}

fn record_len() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 0..400usize,
        4 => 1330..1350usize,
        3 => 2675..2690usize,
        2 => 4000..20_000usize,
        1 => 32_760..32_780usize,
        1 => 40_000..150_000usize,
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let row = (0..3i64, 1..400i64, prop::bool::weighted(0.2), record_len());
    let remove = prop_oneof![
        3 => Just(Remove::Nothing),
        3 => vec(any::<prop::sample::Index>(), 1..20).prop_map(Remove::Some),
        2 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(a, b)| Remove::Range(a, b)),
        1 => (2..6usize).prop_map(Remove::Most),
    ];
    let table = (
        0..8usize,
        any::<u8>(),
        prop::option::weighted(0.7, 0..5000usize),
    );
    (
        vec(row, 0..40),
        remove,
        vec(table, 0..6),
        prop::option::weighted(0.1, 0..8usize),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(rows, remove, tables, clear, again, reopen)| Step {
            rows,
            remove,
            tables,
            clear,
            again,
            reopen,
        })
}

pub(super) fn batch(step: &Step, model: &Model) -> Batch {
    // Past rows that were removed, too.
    let newest = model.rows.keys().next_back().map(|id| id.revision);
    let begin = Revision::new(model.meta.revision + 1, 0);
    let mut last = newest.map_or(begin, |newest| newest.max(begin));
    let mut rows: Vec<_> = step
        .rows
        .iter()
        .map(|(main, sub, tombstone, len)| {
            last = match main {
                0 => Revision::new(last.main, last.sub + sub),
                _ => Revision::new(last.main + main, 0),
            };
            row(
                RowId {
                    revision: last,
                    tombstone: *tombstone,
                },
                *len,
            )
        })
        .collect();
    let there: Vec<_> = model.rows.keys().copied().collect();
    if step.again {
        let again = there.iter().rev().take(7).rev();
        let again = again.map(|id| RowWrite {
            revision: id.revision,
            tombstone: id.tombstone,
            record: model.rows[id].clone(),
        });
        rows = again.chain(rows).collect();
    }
    let remove = match &step.remove {
        _ if there.is_empty() => Vec::new(),
        Remove::Nothing => Vec::new(),
        Remove::Some(indices) => {
            let mut some: Vec<_> = indices.iter().map(|index| *index.get(&there)).collect();
            some.sort_unstable();
            some.dedup();
            some
        }
        Remove::Range(a, b) => {
            let (a, b) = (a.index(there.len()), b.index(there.len()));
            there[a.min(b)..=a.max(b)].to_vec()
        }
        Remove::Most(keep) => {
            let gone = there.iter().enumerate().filter(|(at, _)| at % keep != 0);
            let never = gone.clone().map(|(_, id)| RowId {
                tombstone: !id.tombstone,
                ..*id
            });
            let mut most: Vec<_> = gone.map(|(_, id)| *id).chain(never).collect();
            most.retain(|id| model.rows.contains_key(id) || id.revision.main % 2 == 0);
            most.sort_unstable();
            most
        }
    };
    let clear = step.clear.map(|table| TableWrite::Clear {
        table: Table::ALL[table],
    });
    let tables = step
        .tables
        .iter()
        .map(|(table, key, len)| {
            let (table, key) = (
                Table::ALL[*table],
                Bytes::from(vec![*key; 1 + *key as usize % 3]),
            );
            match len {
                Some(len) => TableWrite::put(table, key, Bytes::from(vec![*len as u8; *len])),
                None => TableWrite::delete(table, key),
            }
        })
        .chain(clear)
        .collect();
    let meta = MetaUpdate {
        consistent_index: Some(model.meta.consistent_index + 1),
        term: Some(model.meta.term + 2),
        revision: Some(last.main),
        ..MetaUpdate::default()
    };
    Batch {
        rows,
        remove,
        tables,
        meta,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_its_model_after_any_batches(steps in vec(step(), 1..12)) {
        let disk = disk_with_directory(SimDisk::new(7));
        let mut file = create(&disk);
        let mut model = Model::new();
        for step in &steps {
            let batch = batch(step, &model);
            model.commit(&batch);
            let meta = file.commit(&batch).unwrap();
            prop_assert_eq!(&meta, model.meta());
            if step.reopen {
                drop(file);
                file = open(&disk).unwrap();
            }
            model.assert_in(&file);
        }
        assert_intact(&file);
    }
}
