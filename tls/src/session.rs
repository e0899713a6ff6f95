//! A connection that several threads read and write without waiting.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use parking_lot::Mutex;
use rustls::Connection;

use crate::text;

/// A socket that is read and written without waiting.
pub trait Socket {
    /// # Errors
    /// `WouldBlock` when nothing has come; others of the system.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// # Errors
    /// `WouldBlock` when there is no room; others of the system.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// The part of a connection over TLS that is not its socket, after the handshake.
#[derive(Debug)]
pub struct Session {
    // Held while a record is made or opened, and over system calls that do not block.
    connection: Mutex<Connection>,
}

/// A socket as rustls wants it.
struct Io<'a, S>(&'a S);

impl<S: Socket> Read for Io<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl<S: Socket> Write for Io<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Of a connection whose handshake is done.
    pub fn new(connection: impl Into<Connection>) -> Self {
        Self {
            connection: Mutex::new(connection.into()),
        }
    }

    /// Whether something can be read that has left the socket already.
    pub fn has_read(&self) -> bool {
        let mut connection = self.connection.lock();
        let state = connection.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Whether everything that was written is in the socket.
    pub fn is_flushed(&self) -> bool {
        !self.connection.lock().wants_write()
    }

    /// Reads what has come. 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has come; Go's text for failures of TLS.
    pub fn try_read(&self, socket: &impl Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut connection = self.connection.lock();
        loop {
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Who has not said goodbye is gone all the same: what is above has its own ends.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            take(&mut connection, socket)?;
        }
    }

    /// Writes as much as there is room for. What was written may have to be flushed.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; Go's text for failures of TLS.
    pub fn try_write(&self, socket: &impl Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut connection = self.connection.lock();
        give(&mut connection, socket)?;
        let written = connection.writer().write_vectored(slices)?;
        match give(&mut connection, socket) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }

    /// Puts into the socket what was written.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room for the rest; others of the system.
    pub fn try_flush(&self, socket: &impl Socket) -> io::Result<()> {
        give(&mut self.connection.lock(), socket)
    }

    /// Says that nothing more will be written. To be flushed.
    pub fn close(&self) {
        self.connection.lock().send_close_notify();
    }
}

/// Takes from the socket what has come, once.
fn take(connection: &mut Connection, socket: &impl Socket) -> io::Result<()> {
    connection.read_tls(&mut Io(socket))?;
    let taken = connection.process_new_packets();
    // Answers to what has come, and what the other side must know of a failure.
    if let Err(error) = give(connection, socket)
        && error.kind() != ErrorKind::WouldBlock
        && taken.is_ok()
    {
        return Err(error);
    }
    let failed = |error| text::explain(io::Error::new(ErrorKind::InvalidData, error));
    taken.map(drop).map_err(failed)
}

fn give(connection: &mut Connection, socket: &impl Socket) -> io::Result<()> {
    while connection.wants_write() {
        match connection.write_tls(&mut Io(socket)) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
            Err(error) => return Err(last_word(connection, socket).unwrap_or(error)),
        }
    }
    Ok(())
}

/// What the other side has said before it left: a refusal, perhaps.
fn last_word(connection: &mut Connection, socket: &impl Socket) -> Option<io::Error> {
    connection.read_tls(&mut Io(socket)).ok()?;
    let said = connection.process_new_packets().err()?;
    Some(text::explain(io::Error::new(ErrorKind::InvalidData, said)))
}
