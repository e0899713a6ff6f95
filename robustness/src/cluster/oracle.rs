//! What consensus promises, looked at from outside and at every step: one leader a term, committed entries that
//! never change and lie durable on a quorum, leaders that have them all, terms and votes that are not
//! forgotten.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use ferrite_disk::wal::Record;

use super::node::{Entries, Node, Promised, put_entry};
use super::shell::ENTRY_RECORD;

/// The kind of a log record that holds term, vote and commit index.
const HARD_STATE_RECORD: u8 = 3;

/// A committed entry.
#[derive(Clone, Copy, Debug)]
struct Committed {
    term: u64,
    hash: u64,
    /// The term of the member that applied it first: it was committed by then.
    by: u64,
}

/// What has been seen.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    leaders: BTreeMap<u64, usize>,
    committed: BTreeMap<u64, Committed>,
}

impl Oracle {
    /// How many terms have had a leader.
    pub(super) fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// The last committed entry.
    pub(super) fn last(&self) -> u64 {
        self.committed.last_key_value().map_or(1, |(last, _)| *last)
    }

    /// A member leads in `term`, with this log.
    pub(super) fn leads(&mut self, at: usize, term: u64, log: &Entries) -> anyhow::Result<bool> {
        if let Some(leader) = self.leaders.get(&term) {
            ensure!(
                *leader == at,
                "m{leader} and m{at} both lead in term {term}"
            );
            return Ok(false);
        }
        self.leaders.insert(term, at);
        for (index, entry) in &self.committed {
            if entry.by < term {
                ensure!(
                    log.get(index) == Some(&(entry.term, entry.hash)),
                    "m{at} leads in term {term} without the committed entry {index} of term {}",
                    entry.term
                );
            }
        }
        Ok(true)
    }

    /// A member has applied the entry at `index`.
    pub(super) fn applies(&mut self, nodes: &[Node], at: usize, index: u64) -> anyhow::Result<()> {
        let Some((term, hash)) = nodes[at].log.get(&index).copied() else {
            bail!("m{at} applies entry {index}, which is not in its log");
        };
        if let Some(entry) = self.committed.get(&index) {
            ensure!(
                (entry.term, entry.hash) == (term, hash),
                "m{at} applies entry {index} of term {term}, others one of term {} there",
                entry.term
            );
            return Ok(());
        }
        let durable = |node: &&Node| node.promised.entries.get(&index) == Some(&(term, hash));
        let durable = nodes.iter().filter(durable).count();
        ensure!(
            durable > nodes.len() / 2,
            "m{at} applies entry {index}, which is durable on {durable} of {} members",
            nodes.len()
        );
        let by = nodes[at]
            .shell
            .as_ref()
            .map_or(0, |shell| shell.member.driver().status().term);
        self.committed.insert(index, Committed { term, hash, by });
        Ok(())
    }
}

/// Records that a log has been given.
pub(super) fn log_entries(records: &[Record], entries: &mut Entries) {
    for record in records.iter().filter(|record| record.kind == ENTRY_RECORD) {
        let payload = &record.payload[..];
        let (index, term) = (number(payload, 0), number(payload, 8));
        let normal = payload[16] == 0;
        let context = u32::from_le_bytes(array(&payload[20..24])) as usize;
        // What a change of the configuration says is not compared, only that it is one.
        let data = if normal {
            &payload[24 + context..]
        } else {
            &[]
        };
        put_entry(entries, index, term, data);
    }
}

/// Records that a log has promised to keep.
pub(super) fn promise(records: &[Record], promised: &mut Promised) {
    log_entries(records, &mut promised.entries);
    for record in records {
        if record.kind == HARD_STATE_RECORD {
            promised.term = number(&record.payload, 0);
            promised.vote = number(&record.payload, 8);
        }
    }
}

/// Compares what a log has kept with what it promised. Entries from `replaced` on were being replaced
/// when the process ended.
pub(super) fn kept(
    promised: &Promised,
    found: &Promised,
    replaced: Option<u64>,
) -> anyhow::Result<()> {
    ensure!(
        found.term >= promised.term,
        "term {} was promised, {} is in the log",
        promised.term,
        found.term
    );
    ensure!(
        found.term > promised.term || promised.vote == 0 || found.vote == promised.vote,
        "the vote for {:x} in term {} was promised, one for {:x} is in the log",
        promised.vote,
        promised.term,
        found.vote
    );
    for (index, entry) in &promised.entries {
        if replaced.is_some_and(|replaced| *index >= replaced) {
            break;
        }
        ensure!(
            found.entries.get(index) == Some(entry),
            "entry {index} of term {} was promised, the log has {:?}",
            entry.0,
            found.entries.get(index)
        );
    }
    Ok(())
}

fn number(payload: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&payload[at..at + 8]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the record is as long as it says")
}
