//! `--log-outputs systemd/journal`: the native protocol of systemd's journal, one datagram a line. Own
//! code: the libraries for it make records of their own form, while etcd's are the lines as elsewhere.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::Level;

/// Where the journal takes records.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    identifier: String,
}

impl Journal {
    /// # Errors
    /// Those of the system: there is no journal.
    pub(super) fn connect(path: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let program = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or_default();
        Ok(Self {
            socket,
            identifier: name.to_string_lossy().into_owned(),
        })
    }

    /// Hands a line over. One that the journal does not take, because it is gone or the line is longer
    /// than a datagram may be, goes to standard error.
    pub(super) fn write(&self, level: Level, caller: Option<&str>, line: &str) {
        let package = caller.and_then(|caller| caller.rsplit_once('/'));
        let fields = [
            ("PRIORITY", priority(level)),
            ("MESSAGE", line.trim_end_matches('\n')),
            ("PACKAGE", package.map_or(".", |(directory, _)| directory)),
            ("SYSLOG_IDENTIFIER", &self.identifier),
        ];
        let mut record = Vec::with_capacity(line.len() + 96);
        for (name, value) in fields {
            push(&mut record, name, value);
        }
        if self.socket.send(&record).is_err() {
            let _nowhere_else = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Syslog's number for a level.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Debug => "7",
        Level::Info => "6",
        Level::Warn => "4",
        Level::Error => "3",
        Level::DPanic | Level::Panic | Level::Fatal => "2",
    }
}

/// A field; a value of several lines goes with its length.
fn push(record: &mut Vec<u8>, name: &str, value: &str) {
    record.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        record.push(b'\n');
        record.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        record.push(b'=');
    }
    record.extend_from_slice(value.as_bytes());
    record.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let there_is_none = Journal::connect(&path).unwrap_err();
        assert_eq!(there_is_none.kind(), std::io::ErrorKind::NotFound);
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::connect(&path).unwrap();
        journal.identifier = "etcd".to_owned();
        let received = || {
            let mut record = [0; 1000];
            let length = socket.recv(&mut record).unwrap();
            record[..length].to_vec()
        };
        journal.write(
            Level::Warn,
            Some("server/mod.rs:7"),
            "{\"level\":\"warn\"}\n",
        );
        assert_eq!(
            received(),
            b"PRIORITY=4\nMESSAGE={\"level\":\"warn\"}\nPACKAGE=server\nSYSLOG_IDENTIFIER=etcd\n"
        );
        journal.write(Level::Fatal, None, "two\nlines\n");
        assert_eq!(
            received(),
            b"PRIORITY=2\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPACKAGE=.\nSYSLOG_IDENTIFIER=etcd\n"
        );
    }
}
