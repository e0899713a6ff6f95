//! `dump-db`: the page file for people.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

use bytes::Bytes;
use ferrite_api::pb::{leasepb, membershippb};
use ferrite_api::types::{ClusterId, LeaseId, MemberId, Revision};
use ferrite_storage::mvcc::decode_record;
use ferrite_storage::page::{self, Meta, Options, PageFile, Reader, Table};
use prost::Message as _;

use crate::cli::Matches;
use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::render::quote;

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let dir = DataDir::open(matches)?;
    let page = PageFile::open(&dir.read_only(), &dir.db, Options::default());
    let page = page.map_err(Failure::new)?;
    let reader = page.reader().map_err(Failure::new)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let limit = match matches.number("limit", 0) {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(0),
    };
    match matches.arguments.first() {
        None => tables(&mut out, &reader, &page.meta())?,
        Some(name) if name == page::REVISIONS => revisions(&mut out, &reader, limit)?,
        Some(name) => {
            let table = Table::ALL.into_iter().find(|table| name == table.name());
            let table = table.ok_or_else(|| {
                Failure::new(format!("there is no table {}", name.to_string_lossy()))
            })?;
            let rows = reader.table(table).map_err(Failure::new)?;
            for (key, value) in rows.iter().take(limit) {
                writeln!(out, "{}", small_row(table, key, value))?;
            }
        }
    }
    Ok(out.flush()?)
}

/// Every table with its number of rows, and the meta record.
fn tables(out: &mut impl Write, reader: &Reader, meta: &Meta) -> Result<(), Failure> {
    writeln!(out, "{:16} {} rows", page::REVISIONS, meta.rows)?;
    for table in Table::ALL {
        let rows = reader.table(table).map_err(Failure::new)?.len();
        writeln!(out, "{:16} {rows} rows", table.name())?;
    }
    writeln!(out, "meta")?;
    let ids = |ids: &[u64]| {
        let ids: Vec<String> = ids
            .iter()
            .map(|id| MemberId::new(*id).to_string())
            .collect();
        ids.join(",")
    };
    let conf = &meta.conf_state;
    for (name, value) in [
        ("format version", meta.format_version.to_string()),
        ("storage version", meta.storage_version.clone()),
        ("cluster", ClusterId::new(meta.cluster_id).to_string()),
        ("member", MemberId::new(meta.member_id).to_string()),
        ("consistent index", meta.consistent_index.to_string()),
        ("term", meta.term.to_string()),
        ("revision", meta.revision.to_string()),
        ("scheduled compaction", meta.scheduled_compact.to_string()),
        ("finished compaction", meta.finished_compact.to_string()),
        ("voters", ids(&conf.voters)),
        ("learners", ids(&conf.learners)),
        ("voters outgoing", ids(&conf.voters_outgoing)),
        ("learners next", ids(&conf.learners_next)),
        ("auto leave", conf.auto_leave.to_string()),
        ("digest", format!("{:016x}", meta.digest)),
        ("bytes in use", meta.live_bytes.to_string()),
        ("digest of tables", format!("{:016x}", meta.table_digest)),
    ] {
        writeln!(out, "  {name:20} {value}")?;
    }
    Ok(())
}

fn revisions(out: &mut impl Write, reader: &Reader, limit: usize) -> Result<(), Failure> {
    let (mut left, mut failure) = (limit, None);
    let mut show = |revision: Revision, tombstone: bool, record: Bytes| -> Result<(), Failure> {
        let kv = decode_record(revision, &record).map_err(Failure::new)?;
        let Revision { main, sub } = revision;
        write!(
            out,
            "rev={{Revision:{{Main:{main} Sub:{sub}}} tombstone:{tombstone}}}, value=[key {}",
            quote(&kv.key)
        )?;
        if !tombstone {
            write!(
                out,
                " | val {} | created {} | mod {} | ver {}",
                quote(&kv.value),
                kv.create_revision,
                kv.mod_revision,
                kv.version
            )?;
        }
        if kv.lease != 0 {
            write!(out, " | lease {}", LeaseId::new(kv.lease))?;
        }
        Ok(writeln!(out, "]")?)
    };
    let scanned = reader.scan(Revision::default(), &mut |revision, tombstone, record| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        match show(revision, tombstone, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    // What was read before the damage is shown.
    out.flush()?;
    failure.map_or(scanned.map_err(Failure::new), Err)
}

fn small_row(table: Table, key: &Bytes, value: &Bytes) -> String {
    let shown = match table {
        Table::Leases => lease(value),
        Table::Members => member(value),
        Table::MembersRemoved => removed(key),
        // Its value holds a password, as a hash.
        Table::AuthUsers => Some(format!("user={}", quote(key))),
        _ => None,
    };
    shown.unwrap_or_else(|| format!("key={}, value={}", quote(key), quote(value)))
}

fn lease(value: &Bytes) -> Option<String> {
    let lease = leasepb::Lease::decode(value.clone()).ok()?;
    Some(format!(
        "lease ID={}, TTL={}s, remaining TTL={}s",
        LeaseId::new(lease.id),
        lease.ttl,
        lease.remaining_ttl
    ))
}

fn member(value: &Bytes) -> Option<String> {
    let member = membershippb::Member::decode(value.clone()).ok()?;
    let raft = member.raft_attributes.unwrap_or_default();
    let own = member.member_attributes.unwrap_or_default();
    Some(format!(
        "member ID={}, name={}, peer URLs={}, client URLs={}, learner={}",
        MemberId::new(member.id),
        quote(own.name.as_bytes()),
        quote(raft.peer_urls.join(",").as_bytes()),
        quote(own.client_urls.join(",").as_bytes()),
        raft.is_learner
    ))
}

fn removed(key: &Bytes) -> Option<String> {
    let id = key.first_chunk().filter(|id| id.len() == key.len())?;
    let id = MemberId::new(u64::from_be_bytes(*id));
    Some(format!("member ID={id}"))
}
