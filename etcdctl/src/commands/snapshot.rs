//! `snapshot save`: a copy of one member's database in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ferrite_client::Client;

use crate::cli::Matches;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::go::duration;
use crate::log::{self, Value};
use crate::print::rows::size;
use crate::session::Session;

/// What follows the database in the stream: a SHA-256. Databases are whole sectors, so a file
/// that ends otherwise was cut.
const CHECKSUM_BYTES: u64 = 32;
const SECTOR_BYTES: u64 = 512;

pub(crate) fn save(context: &mut Context, matches: &Matches) -> Result<(), Failure> {
    let [path] = matches.args.as_slice() else {
        let message = "snapshot save expects one argument <filename>";
        return Err(Failure::bad_args(message));
    };
    let session = Session::open(context, matches)?;
    if session.endpoints.len() != 1 {
        let endpoints = session.endpoints.join(" ");
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    }
    let mut client = session
        .client()
        .map_err(|failure| failure.with_code(Exit::Interrupted))?;
    // A large database takes as long as it takes, unless the user says otherwise.
    if session.timeout_given {
        client = client.with_deadline(session.timeout().deadline());
    }
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.clone()));
    let part = PartFile::create(&path)?;
    info(
        context,
        "created temporary db file",
        &[("path", &part.shown())],
    )?;
    let (version, part) = session.run(download(context, &client, &session.endpoints[0], part))?;
    part.keep(&path)?;
    info(context, "saved", &[("path", &path.display().to_string())])?;
    writeln!(context.out(), "Snapshot saved at {}", path.display())?;
    if !version.is_empty() {
        writeln!(context.out(), "Server version {version}")?;
    }
    Ok(())
}

/// Fetches the file and makes it durable. The version of its format, and the file.
async fn download(
    context: &mut Context,
    client: &Client,
    endpoint: &str,
    mut part: PartFile,
) -> Result<(String, PartFile), Failure> {
    let start = Instant::now();
    let mut snapshot = client.maintenance().snapshot().await.map_err(interrupted)?;
    info(context, "opened snapshot stream; downloading", &[])?;
    info(context, "fetching snapshot", &[("endpoint", endpoint)])?;
    let mut bytes: u64 = 0;
    let unwritten =
        |error: &dyn std::fmt::Display| interrupted(format!("could not write snapshot: {error}"));
    while let Some(blob) = snapshot.next().await.map_err(|error| unwritten(&error))? {
        part.file
            .write_all(&blob)
            .map_err(|error| unwritten(&error))?;
        bytes += blob.len() as u64;
    }
    info(context, "completed snapshot read; closing", &[])?;
    if bytes % SECTOR_BYTES != CHECKSUM_BYTES {
        let message = format!("sha256 checksum not found [bytes: {bytes}]");
        return Err(interrupted(message));
    }
    part.file
        .sync_all()
        .map_err(|error| interrupted(format!("could not fsync snapshot: {error}")))?;
    let fields = [
        ("endpoint", endpoint),
        ("size", &size(i64::try_from(bytes).unwrap_or(i64::MAX))),
        ("took", &duration::format_elapsed(start.elapsed())),
        ("etcd-version", snapshot.version()),
    ];
    info(context, "fetched snapshot", &fields)?;
    Ok((snapshot.version().to_owned(), part))
}

/// The file while it is not whole. Dropping it removes it.
struct PartFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl PartFile {
    fn create(target: &Path) -> Result<PartFile, Failure> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| {
                let (path, reason) = (path.display(), reason(&error));
                interrupted(format!("could not open {path} (open {path}: {reason})"))
            })?;
        Ok(PartFile {
            file,
            path,
            kept: false,
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Gives the whole file its name.
    fn keep(mut self, target: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, target).map_err(|error| {
            let (from, to) = (self.path.display(), target.display());
            let reason = reason(&error);
            interrupted(format!(
                "could not rename {from} to {to} (rename {from} {to}: {reason})"
            ))
        })?;
        self.kept = true;
        // The name is to be durable, too.
        let directory = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| interrupted(format!("could not fsync snapshot: {error}")))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is marked by its name.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn interrupted(message: impl ToString) -> Failure {
    Failure::new(Exit::Interrupted, message)
}

/// An operating system's error as Go's standard library words it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "file exists".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::StorageFull => "no space left on device".to_owned(),
        _ => error.to_string(),
    }
}

fn info(context: &mut Context, message: &str, fields: &[(&str, &str)]) -> Result<(), Failure> {
    let fields: Vec<(&str, Value<'_>)> = fields
        .iter()
        .map(|(name, value)| (*name, Value::Text(value)))
        .collect();
    let caller = [("caller", "etcdctl/snapshot.rs")];
    context.error_line(log::line("info", &caller, message, &fields))
}
