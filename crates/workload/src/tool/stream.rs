//! What a program writes, read as a stream that ends well only if the program did; and what it is fed.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::started;
use crate::dump::part::Dump;
use crate::error::Error;

/// So much of what a program says is kept for its error.
const SAID_BYTES: usize = 8 << 10;

/// How much is read of a dump, and written to a client, at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What a program writes. Dropped before its end, the program is ended and waited for.
pub struct Output {
    child: Child,
    stdout: Option<ChildStdout>,
    said: Option<JoinHandle<String>>,
    address: String,
    what: String,
    ended: bool,
}

impl Output {
    /// Starts a command; `what` of `address` it does, such as "pg_dump of orders", is for its error.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn start(mut command: Command, address: &str, what: &str) -> Result<Output, Error> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| started(Path::new(command.get_program()), source))?;
        let stdout = child.stdout.take();
        let said = child.stderr.take().map(listen);
        Ok(Output { child, stdout, said, address: address.to_owned(), what: what.to_owned(), ended: false })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stdout = None;
        let status = self.child.wait()?;
        self.ended = true;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let reason = if said.is_empty() { status.to_string() } else { said };
        let what = std::mem::take(&mut self.what);
        Err(io::Error::other(Error::Failed { address: self.address.clone(), what, reason }))
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &mut self.stdout else {
            let again = || io::Error::other(format!("{} failed", self.address));
            return if self.ended && self.what.is_empty() { Err(again()) } else { Ok(0) };
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        match stdout.read(buffer) {
            Ok(0) => self.finish().map(|()| 0),
            other => other,
        }
    }
}

impl Dump for Output {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdout.as_ref().map(ChildStdout::as_fd)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command with an input to its end. If the input breaks, the command is killed rather than shown an end of it:
/// what it has done must be taken back by whoever called.
///
/// # Errors
/// [`Error::Failed`] with what it said, or with why the input broke; [`Error::Io`] if it cannot be started.
pub fn feed(mut command: Command, input: &mut dyn Read, address: &str, what: &str) -> Result<(), Error> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| started(Path::new(command.get_program()), source))?;
    let said = child.stderr.take().map(listen);
    let failed = |reason: String| Error::Failed { address: address.to_owned(), what: what.to_owned(), reason };
    let copied = child.stdin.take().map_or(Ok(()), |stdin| copy(input, stdin));
    if copied.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
    copied.map_err(|error| failed(format!("its input broke: {error}")))?;
    match status.success() {
        true => Ok(()),
        false if said.is_empty() => Err(failed(status.to_string())),
        false => Err(failed(said)),
    }
}

/// A program that takes no more input says why by how it ends.
fn copy(input: &mut dyn Read, mut stdin: ChildStdin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match stdin.write_all(&buffer[..length]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
}

fn listen(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut last = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = stderr.read(&mut buffer) {
            if length == 0 {
                break;
            }
            last.extend_from_slice(&buffer[..length]);
            let more = last.len().saturating_sub(SAID_BYTES);
            last.drain(..more);
        }
        said(&String::from_utf8_lossy(&last))
    })
}

/// What a program said as one line, for an error.
pub fn said(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}
