//! `dump-log`: the log for people, an entry or a record a line.

use std::io::{BufWriter, Write};

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use ferrite_api::types::{ClusterId, MemberId};
use ferrite_disk::wal::Position;
use ferrite_raft::log::{self, Logged};
use ferrite_raft::{Change, ConfChange, EntryKind};
use ferrite_storage::membership::{MembershipAction, MembershipChange};
use prost::Message as _;

use super::request;
use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::render::quote;

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let dir = DataDir::open(matches)?;
    let mut dump = Dump {
        out: BufWriter::new(std::io::stdout().lock()),
        indices: number(matches, "start-index", 0)..number(matches, "end-index", i64::MAX),
        raw: matches.switch("raw"),
        shown: 0,
        failure: None,
    };
    if !dump.raw {
        writeln!(dump.out, "term\t     index\ttype\tdata")?;
    }
    let recovered = log::recover_watched(
        dir.read_only(),
        &dir.wal,
        &log::Options::default(),
        &mut |position, logged| dump.see(position, logged),
    );
    if let Some(error) = dump.failure {
        return Err(error.into());
    }
    match recovered {
        Err(error) => {
            dump.out.flush()?;
            return Err(Failure::new(error));
        }
        Ok(_) if dump.raw => {}
        Ok(recovered) => writeln!(
            dump.out,
            "\nmember {} of cluster {}, term {}, vote {}, commit {}, entries {} to {}, {} shown",
            MemberId::new(recovered.metadata.member_id),
            ClusterId::new(recovered.metadata.cluster_id),
            recovered.hard_state.term,
            MemberId::new(recovered.hard_state.vote),
            recovered.hard_state.commit,
            recovered.log.first(),
            recovered.log.last(),
            dump.shown
        )?,
    }
    Ok(dump.out.flush()?)
}

fn number(matches: &Matches, flag: &str, default: i64) -> u64 {
    matches.number(flag, default).max(0).cast_unsigned()
}

struct Dump<'o> {
    out: BufWriter<std::io::StdoutLock<'o>>,
    indices: std::ops::Range<u64>,
    raw: bool,
    shown: u64,
    /// Why nothing more is shown.
    failure: Option<std::io::Error>,
}

impl Dump<'_> {
    fn see(&mut self, position: Position, logged: Logged) {
        if self.failure.is_none() {
            self.failure = self.show(position, logged).err();
        }
    }

    fn show(&mut self, position: Position, logged: Logged) -> std::io::Result<()> {
        if self.raw {
            let Position { segment, offset } = position;
            write!(self.out, "{segment:016x}.wal\t{offset:>10}\t")?;
        }
        match logged {
            Logged::Entry {
                index,
                term,
                kind,
                data,
            } => {
                if !self.indices.contains(&index) {
                    return match self.raw {
                        true => writeln!(self.out, "entry {index} term {term}"),
                        false => Ok(()),
                    };
                }
                self.shown += 1;
                let (name, text) = match kind {
                    EntryKind::Normal => ("norm", normal(&data)),
                    EntryKind::ConfChange(change) => ("conf", conf_change(&change)),
                };
                match self.raw {
                    true => writeln!(self.out, "entry {index} term {term} {name} {text}"),
                    false => writeln!(self.out, "{term:4}\t{index:10}\t{name}\t{text}"),
                }
            }
            _ if !self.raw => Ok(()),
            Logged::Metadata(metadata) => writeln!(
                self.out,
                "metadata member {} cluster {}",
                MemberId::new(metadata.member_id),
                ClusterId::new(metadata.cluster_id)
            ),
            Logged::HardState(state) => writeln!(
                self.out,
                "hard state term {} vote {} commit {}",
                state.term,
                MemberId::new(state.vote),
                state.commit
            ),
            Logged::Truncated(mark) => {
                writeln!(
                    self.out,
                    "truncated index {} term {}",
                    mark.index, mark.term
                )
            }
            Logged::Snapshot(mark) => {
                writeln!(self.out, "snapshot index {} term {}", mark.index, mark.term)
            }
        }
    }
}

/// A proposal; a leader begins its term with an empty one.
fn normal(data: &Bytes) -> String {
    match InternalRaftRequest::decode(data.clone()) {
        Ok(request) => request::text(&request),
        Err(_) => format!("??? {}", quote(data)),
    }
}

fn conf_change(change: &ConfChange) -> String {
    let changes = change.changes.iter().map(|change| {
        let (method, id) = match change {
            Change::AddVoter(id) => ("ConfChangeAddNode", id),
            Change::AddLearner(id) => ("ConfChangeAddLearnerNode", id),
            Change::Remove(id) => ("ConfChangeRemoveNode", id),
        };
        format!("method={method} id={}", MemberId::new(*id))
    });
    let changes: Vec<String> = changes.collect();
    let changes = match changes.is_empty() {
        true => "leaves the joint configuration".to_owned(),
        false => changes.join(" "),
    };
    match MembershipChange::decode(&change.context) {
        Ok(change) => format!("{changes} {}", membership(&change.action)),
        Err(_) if change.context.is_empty() => changes,
        Err(_) => format!("{changes} ??? {}", quote(&change.context)),
    }
}

/// What of a change of the membership raft does not know.
fn membership(action: &MembershipAction) -> String {
    let with_urls = |what: &str, urls: &[String]| {
        let urls = quote(urls.join(",").as_bytes());
        format!("{what} peer_urls={urls}")
    };
    match action {
        MembershipAction::Add { member } => {
            let raft = member.raft_attributes.clone().unwrap_or_default();
            with_urls("add", &raft.peer_urls)
        }
        MembershipAction::Promote { .. } => "promote".to_owned(),
        MembershipAction::Remove { .. } => "remove".to_owned(),
        MembershipAction::Update { peer_urls, .. } => with_urls("update", peer_urls),
    }
}

#[cfg(test)]
mod tests {
    use ferrite_api::types::RequestId;
    use ferrite_storage::members;

    use super::*;

    #[test]
    fn changes_of_the_membership_are_shown() {
        let id = MemberId::new(0x2a);
        let change = |raft, action| {
            let request = RequestId::new(7);
            let context = MembershipChange { request, action }.encode();
            conf_change(&ConfChange::new(raft, context))
        };
        let urls = vec!["http://a".to_owned(), "http://b".to_owned()];
        let member = members::unstarted(id, urls.clone());
        let add = MembershipAction::Add { member };
        let text = "method=ConfChangeAddNode id=2a add peer_urls=\"http://a,http://b\"";
        assert_eq!(change(Change::AddVoter(0x2a), add), text);
        let peer_urls = urls[1..].to_vec();
        let update = MembershipAction::Update { id, peer_urls };
        let text = "method=ConfChangeAddLearnerNode id=2a update peer_urls=\"http://b\"";
        assert_eq!(change(Change::AddLearner(0x2a), update), text);
        let text = "method=ConfChangeRemoveNode id=2a remove";
        let remove = MembershipAction::Remove { id };
        assert_eq!(change(Change::Remove(0x2a), remove), text);
        let odd = ConfChange::new(Change::Remove(0x2a), Bytes::from_static(b"odd"));
        let text = "method=ConfChangeRemoveNode id=2a ??? \"odd\"";
        assert_eq!(conf_change(&odd), text);
    }
}
