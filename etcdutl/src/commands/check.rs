//! `check`: everything in a data directory, read and compared.
//!
//! The log is replayed and the page file restored by the code that a start of the member runs, on an
//! overlay that keeps whatever they repair in memory. Beyond that every entry must decode, every
//! record must fit its row, and the log must go on where the page file ends.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_api::types::{MemberId, Revision};
use ferrite_disk::Disk;
use ferrite_disk::wal::{self, Position, TornTail};
use ferrite_raft::log::{self, Logged};
use ferrite_raft::{EntryKind, HardState, Mark, Metadata};
use ferrite_storage::membership::MembershipChange;
use ferrite_storage::mvcc::decode_record;
use ferrite_storage::page::{self, Meta, Options, PageFile};
use ferrite_storage::snapshot;
use ferrite_storage::state::State;
use prost::Message as _;
use serde::Serialize;

use super::progress::Progress;
use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::render::{Format, unsupported};

/// After so many contradictions between records the rest does not matter.
const MAX_PROBLEMS: usize = 16;

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let format = Format::of(matches)?;
    if !matches!(format, Format::Simple | Format::Json) {
        return Err(unsupported());
    }
    let dir = DataDir::open(matches)?;
    let mut report = Report::default();
    let disk = dir.read_only();
    settle_snapshot(&disk, &dir, &mut report);
    let meta = check_page_file(&disk, &dir, &mut report);
    check_log(&disk, &dir, meta.as_ref(), &mut report);
    report.intact = report.problems.is_empty();
    match format {
        Format::Json => {
            let json = serde_json::to_string(&report).map_err(Failure::new)?;
            writeln!(std::io::stdout(), "{json}")?;
        }
        _ => std::io::stdout().write_all(report.text().as_bytes())?,
    }
    match report.problems.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!(
            "{} is damaged: {count} problem(s) found",
            dir.path.display()
        ))),
    }
}

/// What was found.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Report {
    intact: bool,
    log: Option<LogFacts>,
    page_file: Option<PageFacts>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogFacts {
    records: u64,
    first_index: u64,
    last_index: u64,
    term: u64,
    commit: u64,
    /// What the next start drops from the end: a write that was never acknowledged.
    torn_tail: Option<Torn>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Torn {
    segment: u64,
    offset: u64,
    bytes: u64,
    valid_after: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PageFacts {
    rows: u64,
    table_rows: u64,
    revision: i64,
    compact_revision: i64,
    consistent_index: u64,
    term: u64,
    allocated_bytes: u64,
    in_use_bytes: u64,
    digest: String,
}

/// Something that is not as it should be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    /// `log`, `page file`, or `data directory` for contradictions between them.
    place: &'static str,
    /// Of the log, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// Of the page file, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    what: String,
}

impl Report {
    fn add(&mut self, place: &'static str, what: impl ToString) -> &mut Problem {
        self.problems.push(Problem {
            place,
            segment: None,
            offset: None,
            table: None,
            what: what.to_string(),
        });
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    fn in_log(&mut self, at: Option<Position>, what: impl ToString) {
        let problem = self.add("log", what);
        problem.segment = at.map(|at| at.segment);
        problem.offset = at.map(|at| at.offset);
    }

    fn in_table(&mut self, table: &str, what: impl ToString) {
        self.add("page file", what).table = Some(table.to_owned());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(log) = &self.log {
            text += &format!(
                "log        {} records, entries {} to {}, term {}, commit {}\n",
                log.records, log.first_index, log.last_index, log.term, log.commit
            );
            if let Some(torn) = &log.torn_tail {
                text += &format!(
                    "note       a torn write of {} bytes ends the log at segment {}, offset {}; the next start drops it{}\n",
                    torn.bytes,
                    torn.segment,
                    torn.offset,
                    match torn.valid_after {
                        true =>
                            ". Whole records follow it: a power loss has kept later parts of the \
                                 last write, or the last write was damaged",
                        false => "",
                    }
                );
            }
        }
        if let Some(page) = &self.page_file {
            text += &format!(
                "page file  {} rows, {} small rows, revision {}, compacted {}, raft index {} of term {}\n\
                 sizes      {} bytes allocated, {} in use\n\
                 digest     {}\n",
                page.rows,
                page.table_rows,
                page.revision,
                page.compact_revision,
                page.consistent_index,
                page.term,
                page.allocated_bytes,
                page.in_use_bytes,
                page.digest
            );
        }
        for problem in &self.problems {
            text += &format!("damaged    {}", problem.place);
            if let (Some(segment), Some(offset)) = (problem.segment, problem.offset) {
                text += &format!(", segment {segment}, offset {offset}");
            }
            if let Some(table) = &problem.table {
                text += &format!(", table {table}");
            }
            text += &format!(": {}\n", problem.what);
        }
        text += match self.problems.is_empty() {
            true => "result     intact\n",
            false => "result     damaged\n",
        };
        text
    }
}

/// Lets the log decide about a snapshot that was received and not installed, as a start does first.
fn settle_snapshot(disk: &Arc<dyn Disk>, dir: &DataDir, report: &mut Report) {
    let settled = snapshot::awaits_decision(disk, &dir.db).and_then(|awaited| {
        // What is wrong with the log is found again, and named, when it is checked.
        let log = awaited.then(|| log::recover(Arc::clone(disk), &dir.wal, &Default::default()));
        match log {
            Some(Ok(log)) => {
                snapshot::settle(disk, &dir.db, log.log.mark().index, &Options::default()).map(drop)
            }
            Some(Err(_)) | None => Ok(()),
        }
    });
    if let Err(error) = settled {
        report.add("page file", format!("a received snapshot: {error}"));
    }
}

/// The meta record, if the file could be opened.
fn check_page_file(disk: &Arc<dyn Disk>, dir: &DataDir, report: &mut Report) -> Option<Meta> {
    let page = match PageFile::open(disk, &dir.db, Options::default()) {
        Ok(page) => page,
        Err(error) => {
            note_page_error(report, error);
            return None;
        }
    };
    let meta = page.meta();
    let sizes = page.sizes();
    report.page_file = Some(PageFacts {
        rows: meta.rows,
        table_rows: meta.table_rows,
        revision: meta.revision,
        compact_revision: meta.scheduled_compact.max(meta.finished_compact),
        consistent_index: meta.consistent_index,
        term: meta.term,
        allocated_bytes: sizes.allocated,
        in_use_bytes: sizes.in_use,
        digest: format!("{:016x}", meta.digest),
    });
    let before = report.problems.len();
    verify(&page, &meta, report);
    if report.problems.len() == before {
        check_records(&page, &meta, report);
    }
    if report.problems.len() == before
        && let Err(error) = State::restore(Arc::new(page))
    {
        report.add("page file", error);
    }
    Some(meta)
}

/// Checksums, counters and digests.
fn verify(page: &PageFile, meta: &Meta, report: &mut Report) {
    let mut progress = Progress::new();
    let verified = page.verify(&mut |rows| {
        progress.tell("checking rows", rows, meta.rows);
        ControlFlow::Continue(())
    });
    drop(progress);
    match verified {
        Ok(found) => {
            for damage in found.damage {
                report.in_table(damage.table, damage.what);
            }
            if !found.complete {
                report.add("page file", "not everything could be read");
            }
        }
        Err(error) => note_page_error(report, error),
    }
}

fn note_page_error(report: &mut Report, error: page::Error) {
    match error {
        page::Error::Corrupt { table, what } => report.in_table(table, what),
        error => drop(report.add("page file", error)),
    }
}

/// Compares every record with the place where it is stored.
fn check_records(page: &PageFile, meta: &Meta, report: &mut Report) {
    let mut problems = Vec::new();
    let scanned = page.reader().and_then(|reader| {
        reader.scan(Revision::default(), &mut |revision, tombstone, record| {
            let checked = match decode_record(revision, &record) {
                Ok(kv) => check_record(revision, tombstone, &kv, meta),
                Err(error) => Err(error.to_string()),
            };
            problems.extend(checked.err().map(|what| format!("{revision}: {what}")));
            match problems.len() < MAX_PROBLEMS {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
    });
    for problem in problems {
        report.in_table(page::REVISIONS, problem);
    }
    if let Err(error) = scanned {
        note_page_error(report, error);
    }
}

fn check_record(
    revision: Revision,
    tombstone: bool,
    kv: &KeyValue,
    meta: &Meta,
) -> Result<(), String> {
    if revision.main > meta.revision {
        return Err(format!("the store is at revision {}", meta.revision));
    }
    if tombstone {
        let only_key = KeyValue {
            key: kv.key.clone(),
            ..KeyValue::default()
        };
        return match *kv == only_key {
            true => Ok(()),
            false => Err("a deletion with more than a key".to_owned()),
        };
    }
    let KeyValue {
        create_revision,
        mod_revision,
        version,
        lease,
        ..
    } = *kv;
    let fits = mod_revision == revision.main
        && (1..=mod_revision).contains(&create_revision)
        && version >= 1
        && lease >= 0;
    match fits {
        true => Ok(()),
        false => Err(format!(
            "a record created at {create_revision}, changed at {mod_revision}, of version {version} \
             and lease {lease}"
        )),
    }
}

/// What the records of the log say, so far.
#[derive(Default)]
struct Seen {
    first: Option<u64>,
    last: u64,
    mark: Mark,
    hard_state: HardState,
    metadata: Option<Metadata>,
    /// The term of the entry that the page file is as of, where the log still has it.
    term_of_page: Option<u64>,
    /// Entries that do not decode.
    odd: Vec<(Position, String)>,
}

impl Seen {
    fn see(&mut self, position: Position, logged: Logged, consistent_index: u64) {
        match logged {
            Logged::Metadata(metadata) => self.metadata = Some(metadata),
            Logged::HardState(state) => self.hard_state = state,
            Logged::Truncated(mark) => {
                self.mark = mark;
                if mark.index == consistent_index {
                    self.term_of_page = Some(mark.term);
                }
            }
            Logged::Snapshot(mark) => {
                self.mark = mark;
                self.first = None;
                self.last = 0;
                self.term_of_page = (mark.index == consistent_index).then_some(mark.term);
            }
            Logged::Entry {
                index,
                term,
                kind,
                data,
            } => {
                self.first.get_or_insert(index);
                self.last = index;
                if index == consistent_index {
                    self.term_of_page = Some(term);
                }
                let decoded = match kind {
                    EntryKind::Normal => InternalRaftRequest::decode(data)
                        .map(drop)
                        .map_err(|error| error.to_string()),
                    EntryKind::ConfChange(change) if change.changes.is_empty() => Ok(()),
                    EntryKind::ConfChange(change) => MembershipChange::decode(&change.context)
                        .map(drop)
                        .map_err(|error| error.to_string()),
                };
                if let Err(error) = decoded
                    && self.odd.len() < MAX_PROBLEMS
                {
                    self.odd
                        .push((position, format!("entry {index} does not decode: {error}")));
                }
            }
        }
    }
}

fn check_log(disk: &Arc<dyn Disk>, dir: &DataDir, meta: Option<&Meta>, report: &mut Report) {
    let consistent_index = meta.map_or(0, |meta| meta.consistent_index);
    let mut seen = Seen::default();
    let recovered = log::recover_watched(
        Arc::clone(disk),
        &dir.wal,
        &log::Options::default(),
        &mut |position, logged| seen.see(position, logged, consistent_index),
    );
    for (position, what) in std::mem::take(&mut seen.odd) {
        report.in_log(Some(position), what);
    }
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(error) => {
            report.in_log(position_of(&error), error);
            return;
        }
    };
    let torn = |torn: TornTail| Torn {
        segment: torn.segment,
        offset: torn.offset,
        bytes: torn.bytes,
        valid_after: torn.valid_after,
    };
    let last = seen.last.max(seen.mark.index);
    report.log = Some(LogFacts {
        records: recovered.report.records,
        first_index: (seen.mark.index + 1).max(seen.first.unwrap_or(0)),
        last_index: last,
        term: seen.hard_state.term,
        commit: seen.hard_state.commit,
        torn_tail: recovered.report.torn.map(torn),
    });
    if let Some(meta) = meta {
        compare(&seen, last, meta, report);
    }
}

/// The log must be the one that goes on where the page file ends.
fn compare(seen: &Seen, last: u64, meta: &Meta, report: &mut Report) {
    const BOTH: &str = "data directory";
    let id = MemberId::new;
    let of_page = (meta.cluster_id, meta.member_id);
    let of_log = seen.metadata.map(|log| (log.cluster_id, log.member_id));
    if let Some(of_log) = of_log.filter(|of_log| *of_log != of_page) {
        let what = format!(
            "the log belongs to member {} of cluster {}, the page file to member {} of cluster {}",
            id(of_log.1),
            id(of_log.0),
            id(of_page.1),
            id(of_page.0)
        );
        report.add(BOTH, what);
        return;
    }
    let index = meta.consistent_index;
    if index > last {
        let what = format!("the page file is as of raft index {index}, the log ends with {last}");
        report.add(BOTH, what);
    }
    if index < seen.mark.index {
        let what = format!(
            "the page file is as of raft index {index}, the log begins after {}",
            seen.mark.index
        );
        report.add(BOTH, what);
    }
    if let Some(term) = seen.term_of_page.filter(|term| *term != meta.term) {
        let what = format!(
            "entry {index} has term {term} in the log, term {} in the page file",
            meta.term
        );
        report.add(BOTH, what);
    }
}

fn position_of(error: &ferrite_raft::Error) -> Option<Position> {
    match error {
        ferrite_raft::Error::Wal(wal::Error::Corrupt {
            segment, offset, ..
        })
        | ferrite_raft::Error::Record {
            segment, offset, ..
        } => Some(Position {
            segment: *segment,
            offset: *offset,
        }),
        _ => None,
    }
}
