//! A log whose member decides alone what is in it, because the others are lost for good.

use raft::eraftpb::{Entry, EntryType};

use super::record::{self, HardState, MAX_NUMBER};
use super::recovery::Recovered;
use crate::conf::ConfChange;
use crate::error::Error;

/// Makes everything in a recovered log count as committed, and `changes` of the configuration after
/// it, in a term of their own, for which the member has voted for itself. `drop_from`: entries from
/// here on are replaced instead; none of them may be known to be committed. Durable on return; the
/// log is to be recovered again.
///
/// Only for a member that no other will ever meet again: nobody has agreed to any of it. One append
/// holds all of it, so a power loss in the middle leaves a log that can be recovered, and taken
/// over again.
///
/// # Errors
/// [`Error::Wal`]; [`Error::Config`] if the log cannot go on.
pub fn take_over(
    recovered: Recovered,
    drop_from: Option<u64>,
    changes: &[ConfChange],
) -> Result<(), Error> {
    let Recovered {
        log,
        mut wal,
        hard_state,
        metadata,
        ..
    } = recovered;
    let committed = hard_state.commit.max(log.mark().index);
    let last = match drop_from {
        Some(from) if from <= committed => {
            let why = format!("entry {from} is committed and cannot be dropped");
            return Err(Error::Config(why));
        }
        Some(from) => log.last().min(from - 1),
        None => log.last(),
    };
    let term = hard_state.term + 1;
    if term > MAX_NUMBER {
        return Err(Error::Config("there is no further term".into()));
    }
    let promise = HardState {
        term,
        vote: metadata.member_id,
        commit: hard_state.commit,
    };
    let entries: Vec<Entry> = (last + 1..)
        .zip(changes)
        .map(|(index, change)| Entry {
            entry_type: EntryType::EntryConfChangeV2,
            index,
            term,
            data: change.encode(),
            ..Entry::default()
        })
        .collect();
    let end = last + entries.len() as u64;
    let mut records = vec![record::hard_state(&promise)];
    record::entries(&entries, &mut records);
    records.push(record::hard_state(&HardState {
        commit: end,
        ..promise
    }));
    let head = log.head();
    wal.append(&records, &mut || head.records())?;
    wal.sync()?;
    Ok(())
}
