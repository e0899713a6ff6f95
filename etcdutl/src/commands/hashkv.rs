//! `hashkv`: the hash of the key space in a page file, a snapshot or a database of etcd's, as the members
//! compare it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use ferrite_api::Error as ApiError;
use ferrite_disk::RealDisk;
use ferrite_storage::etcd::Database;
use ferrite_storage::mvcc::hash::{HashError, Hashing, KeyValueHash};
use ferrite_storage::page::{Options, PageFile};
use ferrite_storage::state::State;

use crate::cli::Matches;
use crate::data_dir::{LoneFile, is_bbolt, stat, unused};
use crate::failure::{Exit, Failure};
use crate::render::{Format, table};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    hash: u32,
    hash_revision: i64,
    compact_revision: i64,
}

/// The hash is that of the file, which may be behind what its member has acknowledged: entries of
/// the log that are not in the file yet are not in the hash.
pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let format = Format::of(matches)?;
    let path = Path::new(&matches.arguments[0]);
    stat(path)?;
    if is_bbolt(path) {
        return print(format, of_etcds_file(path, matches)?);
    }
    let file = LoneFile::open(path, matches)?;
    let page = PageFile::open(&file.disk, path, Options::default()).map_err(Failure::new)?;
    let state = State::restore(Arc::new(page)).map_err(Failure::new)?;
    let hash = Hashing::at(state.view(), matches.number("rev", 0))
        .and_then(Hashing::run)
        .map_err(|error| match error {
            HashError::Compacted => Failure::new(mvcc_text(&ApiError::Compacted)),
            HashError::Future => Failure::new(mvcc_text(&ApiError::FutureRev)),
            HashError::Storage(error) => Failure::new(error),
            HashError::Overtaken => Failure::new("a compaction has overtaken the hash"),
        })?;
    print(format, hash)
}

/// The hash of a snapshot, or of the database of an etcd that does not run.
fn of_etcds_file(path: &Path, matches: &Matches) -> Result<KeyValueHash, Failure> {
    let _lock = unused(path, matches)?;
    let file = RealDisk::open_read_only(path)
        .map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
    let database = Database::open(file).map_err(Failure::new)?;
    let hash = database.hash_kv(matches.number("rev", 0));
    hash.map_err(Failure::new)
}

/// The text of an error without the `etcdserver: ` that clients see in front.
fn mvcc_text(error: &ApiError) -> String {
    let text = error.to_string();
    text.trim_start_matches("etcdserver: ").to_owned()
}

fn print(format: Format, hash: KeyValueHash) -> Result<(), Failure> {
    let KeyValueHash {
        hash,
        compact_revision,
        revision,
    } = hash;
    let text = match format {
        Format::Simple => format!("{hash}, {revision}, {compact_revision}\n"),
        Format::Json => {
            let json = serde_json::to_string(&Json {
                hash,
                hash_revision: revision,
                compact_revision,
            });
            json.map_err(Failure::new)? + "\n"
        }
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\"Compact revision\" : {compact_revision}\n"
        ),
        Format::Table => table(&[
            ("HASH", hash.to_string()),
            ("HASH REVISION", revision.to_string()),
            ("COMPACT REVISION", compact_revision.to_string()),
        ]),
        Format::Protobuf => {
            let what = format!("{{{hash} {revision} {compact_revision}}}");
            return Err(Failure::with_code(
                Exit::BadFeature,
                format!("marshal unsupported for type etcdutl.HashKV ({what})"),
            ));
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
