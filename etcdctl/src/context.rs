//! What a command works with besides its arguments: streams and environment.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::failure::Failure;

/// The terminal shows nothing of what is typed while this lives; what is no terminal is as it was.
struct Hidden(Option<Termios>);

impl Hidden {
    fn begin() -> Self {
        let Ok(before) = termios::tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let silenced = termios::tcsetattr(io::stdin(), OptionalActions::Now, &silent);
        Self(silenced.is_ok().then_some(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // There is nobody to tell if the terminal has gone.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// The process's streams and environment, replaceable in tests.
pub(crate) struct Context {
    stdout: BufWriter<Box<dyn Write>>,
    stderr: Box<dyn Write>,
    pub(crate) stdin: Box<dyn BufRead + Send>,
    /// Name and value of every variable, in the process's order.
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Context {
    pub(crate) fn from_process() -> Self {
        let bytes = |text: OsString| text.into_vec();
        Context {
            stdout: BufWriter::new(Box::new(io::stdout())),
            stderr: Box::new(io::stderr()),
            stdin: Box::new(BufReader::new(io::stdin())),
            environment: std::env::vars_os()
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
        }
    }

    /// Standard output, buffered until the end or the next line on stderr.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        &mut self.stdout
    }

    /// Asks for what nobody shall see on the terminal. Without an end of the line it is what there is.
    pub(crate) fn ask_secretly(&mut self, prompt: &str) -> Result<String, Failure> {
        write!(self.stdout, "{prompt}")?;
        self.stdout.flush()?;
        let mut line = Vec::new();
        {
            let _hidden = Hidden::begin();
            self.stdin.read_until(b'\n', &mut line)?;
        }
        writeln!(self.stdout)?;
        let line = String::from_utf8_lossy(&line);
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// Makes what was printed visible now.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.stdout.flush()?)
    }

    /// One line, or a ready block of lines, on standard error, after everything printed so far.
    /// A closed stderr is nobody's problem.
    pub(crate) fn error_line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.stdout.flush()?;
        let mut text = line.as_ref().to_vec();
        text.push(b'\n');
        let _ = self.stderr.write_all(&text);
        Ok(())
    }

    /// Says what went wrong and gives the process's exit code.
    pub(crate) fn finish(mut self, result: Result<(), Failure>) -> u8 {
        let result = result.and_then(|()| self.flush());
        match result {
            Ok(()) => 0,
            Err(Failure::Exit { code, message }) => {
                if let Some(message) = message {
                    // If the output is gone the failure itself still counts.
                    let _ = self.error_line(format!("Error: {message}"));
                }
                let _ = self.stdout.flush();
                code.code()
            }
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Err(Failure::Output(error)) => {
                let _ = writeln!(self.stderr, "Error: {error}");
                1
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::io::Cursor;
    use std::rc::Rc;

    use super::*;

    /// What a context wrote.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Rc<RefCell<Vec<u8>>>);

    impl Captured {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.borrow().clone()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A context with this input and no environment; its stdout and stderr.
    pub(crate) fn captured(stdin: &str) -> (Context, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let context = Context {
            stdout: BufWriter::new(Box::new(out.clone())),
            stderr: Box::new(err.clone()),
            stdin: Box::new(Cursor::new(stdin.as_bytes().to_vec())),
            environment: Vec::new(),
        };
        (context, out, err)
    }

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn exit_code_when_stdout_fails_with(kind: io::ErrorKind) -> u8 {
        let (mut context, ..) = captured("");
        context.stdout = BufWriter::new(Box::new(Failing(kind)));
        let result = writeln!(context.out(), "text").map_err(Failure::from);
        context.finish(result)
    }

    #[test]
    fn a_reader_that_went_away_is_a_success_and_a_full_disk_is_not() {
        assert_eq!(
            exit_code_when_stdout_fails_with(io::ErrorKind::BrokenPipe),
            0
        );
        assert_eq!(
            exit_code_when_stdout_fails_with(io::ErrorKind::StorageFull),
            1
        );
    }
}
