//! What consensus promises, looked at from outside and at every step: one leader a term, committed entries that
//! never change and lie durable on a quorum, leaders that have them all, terms and votes that are not
//! forgotten.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use bytes::Bytes;

use super::log::Log;
use super::node::Node;

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

    /// A member leads in `term`, with this log. Whether it is news.
    pub(super) fn leads(&mut self, at: usize, term: u64, log: &Log) -> anyhow::Result<bool> {
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
                    log.covers(*index, entry.term, entry.hash),
                    "m{at} leads in term {term} without the committed entry {index} of term {}",
                    entry.term
                );
            }
        }
        Ok(true)
    }

    /// A member has applied the entry at `index`. `before`: who voted when it began to. The data of the
    /// entry, if nobody has applied it before.
    pub(super) fn applies(
        &mut self,
        nodes: &[Node],
        at: usize,
        index: u64,
        before: &[u64],
    ) -> anyhow::Result<Option<Bytes>> {
        let Some(entry) = nodes[at].log.get(index) else {
            bail!("m{at} applies entry {index}, which is not in its log");
        };
        let (term, hash) = (entry.term, entry.hash);
        if let Some(entry) = self.committed.get(&index) {
            ensure!(
                (entry.term, entry.hash) == (term, hash),
                "m{at} applies entry {index} of term {term}, others one of term {} there",
                entry.term
            );
            return Ok(None);
        }
        let driver = nodes[at].shell.as_ref().map(|shell| shell.member.driver());
        let after = driver.map_or(&[][..], |driver| &driver.conf_state().voters);
        let durable = |voters: &[u64]| {
            // Also what was acknowledged, and lost since: a leader may have counted it before.
            let has = |node: &&Node| {
                let covers = |log: &Log| log.covers(index, term, hash);
                let had = node.lost.as_ref().is_some_and(covers);
                voters.contains(&node.id.get()) && (covers(&node.promised) || had)
            };
            nodes.iter().filter(has).count() > voters.len() / 2
        };
        // Between more than one change of the voters there are quorums that are not known here.
        let changed = |from: &[u64], to: &[u64]| from.iter().filter(|id| !to.contains(id)).count();
        let many = changed(before, after) + changed(after, before) > 1;
        ensure!(
            many || durable(before) || durable(after),
            "m{at} applies entry {index}, which is not durable on a quorum"
        );
        let by = driver.map_or(0, |driver| driver.status().term);
        let data = entry.data.clone();
        self.committed.insert(index, Committed { term, hash, by });
        Ok(Some(data))
    }
}

/// Compares what a log has kept with what it promised. Entries from `replaced` on were being replaced
/// when the process ended.
pub(super) fn kept(promised: &Log, found: &Log, replaced: Option<u64>) -> anyhow::Result<()> {
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
    for (index, entry) in promised.entries() {
        if replaced.is_some_and(|replaced| index >= replaced) {
            break;
        }
        ensure!(
            found.covers(index, entry.term, entry.hash),
            "entry {index} of term {} was promised, the log has {:?}",
            entry.term,
            found.get(index)
        );
    }
    Ok(())
}
