//! `snapshot status`: whether a snapshot is whole, and what is in it.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use ferrite_disk::DiskFile;
use ferrite_storage::etcd::{Database, Status};

use super::progress::Progress;
use crate::cli::Matches;
use crate::data_dir::{stat, unused};
use crate::failure::{Exit, Failure};
use crate::render::{Format, bytes, table};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    hash: u32,
    revision: i64,
    total_key: u64,
    total_size: u64,
    version: String,
}

pub(crate) fn run(matches: &Matches) -> Result<(), Failure> {
    let [path] = &matches.arguments[..] else {
        let message = "snapshot status requires exactly one argument";
        return Err(Failure::with_code(Exit::BadArgs, message));
    };
    let format = Format::of(matches)?;
    let path = Path::new(path);
    stat(path)?;
    // A file of a data directory may be in use.
    let _lock = unused(path, matches)?;
    let file: Arc<dyn DiskFile> = ferrite_disk::RealDisk::open_read_only(path)
        .map_err(|error| Failure::new(format!("open {}: {error}", path.display())))?;
    let database = Database::open(file).map_err(Failure::new)?;
    check(&database)?;
    let mut progress = Progress::new();
    let status = database.status(&mut |done, all| progress.tell("reading", done, all));
    drop(progress);
    print(format, status.map_err(Failure::new)?)
}

fn check(database: &Database) -> Result<(), Failure> {
    let faults = database.faults().map_err(Failure::new)?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "snapshot file integrity check failed. {} errors found.\n{}",
        faults.len(),
        faults.join("\n")
    )))
}

fn print(format: Format, status: Status) -> Result<(), Failure> {
    let Status {
        hash,
        revision,
        total_key,
        total_size,
        version,
    } = status;
    let text = match format {
        Format::Simple => {
            let size = bytes(total_size);
            format!("{hash:x}, {revision}, {total_key}, {size}, {version}\n")
        }
        Format::Json => {
            let json = serde_json::to_string(&Json {
                hash,
                revision,
                total_key,
                total_size,
                version,
            });
            json.map_err(Failure::new)? + "\n"
        }
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}\n\
             \"Size\" : {total_size}\n\"Version\" : {version}\n"
        ),
        Format::Table => table(&[
            ("HASH", format!("{hash:x}")),
            ("REVISION", revision.to_string()),
            ("TOTAL KEYS", total_key.to_string()),
            ("TOTAL SIZE", bytes(total_size)),
            ("VERSION", version),
        ]),
        Format::Protobuf => {
            let what = format!("{{{hash} {revision} {total_key} {total_size} {version}}}");
            return Err(Failure::with_code(
                Exit::BadFeature,
                format!("marshal unsupported for type snapshot.Status ({what})"),
            ));
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
