//! A client held open as a child: statements in, rows out, each within a time limit.
//!
//! The invariant: the session lives no longer than this value. Dropped, the client's input ends, and if it does not go by
//! itself it is killed; when this process is killed the kernel closes its end of the pipe, the client sees the end of its
//! input, and the server gives back whatever the session held.
//!
//! Does not know of any client's language.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::tool::{said, started};

/// So long a client may take to go once its input has ended.
const FAREWELL: Duration = Duration::from_millis(200);

/// How a client is made to say that an answer is over.
pub type Mark = fn(&str) -> String;

/// A client that waits for statements.
#[derive(Debug)]
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// What has come and was not asked for yet.
    rest: Vec<u8>,
    mark: Mark,
    asked: u64,
}

/// What came back for a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// All that the client wrote, its errors included, in the order in which it wrote it.
    pub output: String,
    /// What stood behind the mark on its line: with `psql` whether the statement failed.
    pub ended: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Silence {
    /// It took longer than it may. [`Session::answer`] can go on waiting; nothing else can be asked.
    Limit(Duration),
    /// The client ended, and this is what it said.
    Ended(String),
}

impl Session {
    /// Starts a client. `mark(text)` is a statement or command of it that writes a line that begins with `text`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started. That the server refuses is heard by the first [`Session::ask`].
    pub fn start(mut command: Command, mark: Mark) -> Result<Session, Error> {
        let failed = |source| started(Path::new(""), source);
        // One pipe for both, so that an error comes before the mark of its own statement.
        let (mut reader, writer) = io::pipe().map_err(failed)?;
        let errors = writer.try_clone().map_err(failed)?;
        command.stdin(std::process::Stdio::piped()).stdout(writer).stderr(errors);
        let mut child = command.spawn().map_err(|source| started(Path::new(command.get_program()), source))?;
        // It holds our copies of the writing end: with them the output would never end.
        drop(command);
        let stdin = child.stdin.take();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) if sender.send(buffer[..length].to_vec()).is_ok() => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        });
        Ok(Session { child, stdin, output, rest: Vec::new(), mark, asked: 0 })
    }

    /// The client's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends statements, and waits for all that comes back.
    ///
    /// # Errors
    /// [`Silence`]
    pub fn ask(&mut self, statements: &str, limit: Duration) -> Result<Answer, Silence> {
        self.send(statements)?;
        self.answer(limit)
    }

    /// Sends statements without waiting: [`Session::answer`] does.
    ///
    /// # Errors
    /// [`Silence::Ended`]
    pub fn send(&mut self, statements: &str) -> Result<(), Silence> {
        self.asked += 1;
        let text = format!("{statements}\n{}\n", (self.mark)(&mark(self.asked)));
        let sent = self.stdin.as_mut().is_some_and(|stdin| stdin.write_all(text.as_bytes()).is_ok());
        // Whoever does not listen has said why, and that is read instead of the answer.
        if sent { Ok(()) } else { Err(Silence::Ended(self.last_words())) }
    }

    /// Waits for the answer to what was sent last.
    ///
    /// # Errors
    /// [`Silence`]
    pub fn answer(&mut self, limit: Duration) -> Result<Answer, Silence> {
        let until = Instant::now() + limit;
        let mark = mark(self.asked);
        let (mut looked, mut found) = (0, None);
        loop {
            // A mark can lie across two chunks, and so can what stands behind it.
            found = found.or_else(|| position(&self.rest[looked..], mark.as_bytes()).map(|at| looked + at));
            looked = self.rest.len().saturating_sub(mark.len());
            if let Some(start) = found
                && let Some(length) = self.rest[start..].iter().position(|&byte| byte == b'\n')
            {
                let ended = String::from_utf8_lossy(&self.rest[start + mark.len()..start + length]).trim().to_owned();
                let output = String::from_utf8_lossy(&self.rest[..start]).into_owned();
                self.rest.drain(..=start + length);
                return Ok(Answer { output, ended });
            }
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.rest.extend(chunk),
                Err(RecvTimeoutError::Timeout) => return Err(Silence::Limit(limit)),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Ended(self.last_words())),
            }
        }
    }

    fn last_words(&mut self) -> String {
        while let Ok(chunk) = self.output.recv_timeout(FAREWELL) {
            self.rest.extend(chunk);
        }
        let words = said(&String::from_utf8_lossy(&self.rest));
        if words.is_empty() { "the client ended".to_owned() } else { words }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stdin = None;
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No data has such a line by chance.
fn mark(number: u64) -> String {
    format!("=snapback=={number}==answered=")
}

fn position(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}
