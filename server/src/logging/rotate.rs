//! `--enable-log-rotation`: the log file is put aside when it is long enough, as etcd's does it (the
//! rules and names of its library, lumberjack).
//!
//! ```text
//!   etcd.log                               written now
//!   etcd-2026-01-02T15-04-05.678.log       put aside then
//!   etcd-2026-01-01T10-00-00.000.log.gz    and compressed
//! ```
//!
//! Old files are compressed and removed by a thread that is started for it. What fails there is tried
//! again with the next file: a log must not stop the server.
//!
//! Deviation: `localtime` is refused, names are in UTC, as are the times in the log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;
use serde::Deserialize;

use super::time::{parse_rfc3339, rfc3339_millis};

const MEGABYTE: u64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `--log-rotation-config-json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of a file, above 0. Default 100 MiB.
    pub max_bytes: u64,
    /// Older files are removed. Default never.
    pub max_age: Option<Duration>,
    /// Files beside the one that is written. Default all.
    pub max_backups: Option<usize>,
    /// Whether files that were put aside are compressed. Default no.
    pub compress: bool,
}

/// Its JSON, in which 0 means the default.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Json {
    maxsize: u64,
    maxage: u64,
    maxbackups: usize,
    localtime: bool,
    compress: bool,
}

impl Rotation {
    /// Reads the JSON of the flag.
    ///
    /// # Errors
    /// etcd's text, but for what comes from its JSON library.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => format!("invalid log rotation config: {error}"),
            _ => format!("improperly formatted log rotation config: {error}"),
        })?;
        if json.localtime {
            return Err(
                "invalid log rotation config: localtime is not built, names are in UTC".to_owned(),
            );
        }
        let days = u32::try_from(json.maxage).unwrap_or(u32::MAX);
        Ok(Self {
            max_bytes: match json.maxsize {
                0 => 100 * MEGABYTE,
                megabytes => megabytes.saturating_mul(MEGABYTE),
            },
            max_age: (days > 0).then(|| DAY.saturating_mul(days)),
            max_backups: (json.maxbackups > 0).then_some(json.maxbackups),
            compress: json.compress,
        })
    }
}

/// A log file that is put aside when it is long enough.
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    length: u64,
    rotation: Rotation,
    clock: fn() -> SystemTime,
    // Held by the thread that tidies up, so that there is one at a time.
    tidying: Arc<Mutex<()>>,
}

impl RotatingFile {
    /// Goes on with the file of an earlier run, if there is one.
    pub(super) fn open(
        path: &Path,
        rotation: Rotation,
        clock: fn() -> SystemTime,
    ) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self {
            path: path.to_owned(),
            length: file.metadata()?.len(),
            file,
            rotation,
            clock,
            tidying: Arc::default(),
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let now = (self.clock)();
        std::fs::rename(&self.path, backup_name(&self.path, now))?;
        self.file = append_to(&self.path)?;
        self.length = self.file.metadata()?.len();
        let (path, rotation) = (self.path.clone(), self.rotation.clone());
        let tidying = Arc::clone(&self.tidying);
        // Without a thread the next file brings the next attempt.
        let _started = std::thread::Builder::new()
            .name("log-rotation".to_owned())
            .spawn(move || {
                let _one_at_a_time = tidying.lock();
                tidy(&path, &rotation, now);
            });
        Ok(())
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let longer = self.length.saturating_add(line.len() as u64);
        if self.length > 0 && longer > self.rotation.max_bytes {
            // The file that is there is better than none.
            let _kept = self.rotate();
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The parts of a name around the time: `dir/etcd-` and `.log`.
fn around(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(String::new, |extension| {
        format!(".{}", extension.to_string_lossy())
    });
    (format!("{stem}-"), extension)
}

fn backup_name(path: &Path, at: SystemTime) -> PathBuf {
    let (prefix, extension) = around(path);
    // Colons are not for every file system.
    let time = rfc3339_millis(at).replace(':', "-");
    let time = time.trim_end_matches('Z');
    path.with_file_name(format!("{prefix}{time}{extension}"))
}

/// When a file was put aside, by its name; `None` if it is no such file of this log.
fn put_aside(path: &Path, name: &str) -> Option<SystemTime> {
    let (prefix, extension) = around(path);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let time = name.strip_prefix(&prefix)?.strip_suffix(&extension)?;
    let (day, of_day) = time.split_once('T')?;
    parse_rfc3339(&format!("{day}T{}Z", of_day.replace('-', ":")))
}

/// What is to be done with the files that were put aside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chores {
    remove: Vec<String>,
    compress: Vec<String>,
}

fn chores(path: &Path, names: Vec<String>, rotation: &Rotation, now: SystemTime) -> Chores {
    let dated = names.into_iter().filter_map(|name| {
        let at = put_aside(path, &name)?;
        Some((at, name))
    });
    let mut backups: Vec<_> = dated.collect();
    backups.sort_by(|a, b| b.cmp(a));
    let mut chores = Chores::default();
    for (nth, (at, name)) in backups.into_iter().enumerate() {
        let age = now.duration_since(at).unwrap_or_default();
        let too_many = rotation.max_backups.is_some_and(|most| nth >= most);
        let too_old = rotation.max_age.is_some_and(|most| age > most);
        if too_many || too_old {
            chores.remove.push(name);
        } else if rotation.compress && !name.ends_with(".gz") {
            chores.compress.push(name);
        }
    }
    chores
}

fn tidy(path: &Path, rotation: &Rotation, now: SystemTime) {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok()).collect();
    let chores = chores(path, names, rotation, now);
    for name in chores.remove {
        let _next_time = std::fs::remove_file(dir.join(name));
    }
    for name in chores.compress {
        let _next_time = compress(&dir.join(name));
    }
}

/// Replaces a file by its compressed form, which is there as a whole or not at all.
fn compress(path: &Path) -> io::Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let unfinished = with(".gz.tmp");
    let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(&unfinished, with(".gz"))?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str =
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

    fn at(text: &str) -> SystemTime {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn the_json_of_the_flag() {
        let rotation = Rotation::parse(DEFAULT).unwrap();
        let expected = Rotation {
            max_bytes: 100 << 20,
            max_age: None,
            max_backups: None,
            compress: false,
        };
        assert_eq!(rotation, expected);
        assert_eq!(Rotation::parse("{}").unwrap(), expected, "zeros");
        let set = Rotation::parse(r#"{"maxsize":1,"maxage":2,"maxbackups":3,"compress":true}"#);
        assert_eq!(
            set.unwrap(),
            Rotation {
                max_bytes: 1 << 20,
                max_age: Some(2 * DAY),
                max_backups: Some(3),
                compress: true,
            }
        );
        for (text, error) in [
            ("{", "improperly formatted log rotation config: "),
            (r#"{"maxsize":"1"}"#, "invalid log rotation config: "),
            (r#"{"maxsize":-1}"#, "invalid log rotation config: "),
            (r#"{"localtime":true}"#, "invalid log rotation config: "),
        ] {
            let found = Rotation::parse(text).unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
    }

    #[test]
    fn old_files_are_known_by_their_names() {
        let path = Path::new("/var/log/etcd.log");
        let name = backup_name(path, at("2026-01-02T15:04:05.678Z"));
        assert_eq!(name, Path::new("/var/log/etcd-2026-01-02T15-04-05.678.log"));
        let bare = backup_name(Path::new("log"), at("2026-01-02T15:04:05Z"));
        assert_eq!(bare, Path::new("log-2026-01-02T15-04-05.000"));
        for (name, known) in [
            ("etcd-2026-01-02T15-04-05.678.log", true),
            ("etcd-2026-01-02T15-04-05.678.log.gz", true),
            ("etcd.log", false),
            ("etcd-2026-01-02T15-04-05.678.log.gz.tmp", false),
            ("etcd-2026-01-02.log", false),
            ("other-2026-01-02T15-04-05.678.log", false),
        ] {
            assert_eq!(put_aside(path, name).is_some(), known, "{name}");
        }
    }

    #[test]
    fn the_newest_are_kept_and_compressed() {
        let path = Path::new("etcd.log");
        let day = |day: u32| format!("etcd-2026-01-{day:02}T00-00-00.000.log");
        let names: Vec<String> = [day(1), day(4), format!("{}.gz", day(2)), day(3)]
            .into_iter()
            .chain(["etcd.log".to_owned()])
            .collect();
        let now = at("2026-01-04T12:00:00Z");
        let rotation = |max_backups, days: Option<u32>, compress| Rotation {
            max_bytes: 1,
            max_age: days.map(|days| DAY * days),
            max_backups,
            compress,
        };
        let todo = |rotation: &Rotation| chores(path, names.clone(), rotation, now);
        assert_eq!(todo(&rotation(None, None, false)), Chores::default());
        assert_eq!(
            todo(&rotation(Some(2), None, true)),
            Chores {
                remove: vec![format!("{}.gz", day(2)), day(1)],
                compress: vec![day(4), day(3)],
            }
        );
        assert_eq!(
            todo(&rotation(None, Some(2), false)).remove,
            [format!("{}.gz", day(2)), day(1)]
        );
    }

    #[test]
    fn a_full_file_is_put_aside_with_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.log");
        std::fs::write(&path, "earlier\n").unwrap();
        let rotation = Rotation {
            max_bytes: 16,
            max_age: None,
            max_backups: None,
            compress: true,
        };
        let clock = || at("2026-01-02T15:04:05Z");
        let mut log = RotatingFile::open(&path, rotation, clock).unwrap();
        log.write_all(b"fits in\n").unwrap();
        log.write_all(b"a line that is longer than a file\n")
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "a line that is longer than a file\n"
        );
        // Its thread may be at it: it is there in one form or the other, and compressed in the end.
        let backup = backup_name(&path, clock());
        while backup.exists() {
            std::thread::yield_now();
        }
        let packed = File::open(format!("{}.gz", backup.display())).unwrap();
        let mut unpacked = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed), &mut unpacked).unwrap();
        assert_eq!(unpacked, "earlier\nfits in\n");
    }
}
