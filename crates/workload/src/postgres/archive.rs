//! A dump in pg_dump's custom format that comes as a stream: its table of contents lies in front, and says what is in it
//! before anything is restored.
//!
//! A stream can be read only once, so what is read of the front is kept, and given once more to whoever restores.

use std::io::{self, Cursor, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::client;
use super::dump::fitting;
use crate::address::{Login, Server};
use crate::error::Error;
use crate::tool::{Program, Secret, said, started};

pub(super) const PG_RESTORE: Program = Program { names: &["pg_restore"], package: "postgresql-client" };

/// Every definition is in it, and a schema may be large; larger than this it is none.
const FRONT_BYTES: usize = 1 << 30;

const CHUNK_BYTES: usize = 64 << 10;

/// A dump whose front was read.
pub(super) struct Archive<'a> {
    login: &'a Login,
    server: &'a Server,
    program: PathBuf,
    front: Vec<u8>,
    rest: &'a mut dyn Read,
    entries: Vec<String>,
}

impl<'a> Archive<'a> {
    /// Reads the table of contents, with the pg_restore of the target's version, or if that cannot, with the newest.
    pub(super) fn open(
        login: &'a Login,
        server: &'a Server,
        major: u32,
        rest: &'a mut dyn Read,
    ) -> Result<Archive<'a>, Error> {
        let (program, _) = fitting(&login.tools, PG_RESTORE, major)?;
        let mut archive = Archive { login, server, program, front: Vec::new(), rest, entries: Vec::new() };
        let mut list = archive.ask(&["--list", "--create"], None);
        if list.as_ref().is_err_and(|error| error.to_string().contains("unsupported version")) {
            archive.program = login.tools.find(PG_RESTORE)?;
            list = archive.ask(&["--list", "--create"], None);
        }
        archive.entries = list?.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect();
        Ok(archive)
    }

    /// The entries as `pg_restore --list` writes them: `215; 1259 16390 TABLE public t postgres`.
    pub(super) fn entries(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(String::as_str)
    }

    /// The statements that make the database itself: its encoding, owner, settings and grants.
    pub(super) fn database(&mut self) -> Result<String, Error> {
        let list: Vec<&str> = self.entries().filter(|entry| entry.contains(" DATABASE ")).collect();
        let list = list.join("\n") + "\n";
        self.ask(&["--create", "--schema-only", "--file=-"], Some(&list))
    }

    /// A command that restores; to be fed with [`Archive::stream`].
    pub(super) fn restore(&self, arguments: &[&str], list: Option<&str>) -> Result<Command, Error> {
        let mut command = client::command(self.login, self.server, &self.program)?;
        command.args(arguments);
        if let Some(list) = list {
            let list = Secret::new(list.as_bytes(), client::account(self.login, self.server).as_ref())?;
            command.arg(format!("--use-list={}", list.path()));
            list.give(&mut command);
        }
        Ok(command)
    }

    /// The dump from its beginning.
    pub(super) fn stream(self) -> impl Read + 'a {
        Cursor::new(self.front).chain(self.rest)
    }

    /// Runs a command that needs the front alone: it ends without having read the rest.
    fn ask(&mut self, arguments: &[&str], list: Option<&str>) -> Result<String, Error> {
        let mut command = self.restore(arguments, list)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| started(&self.program, source))?;
        let stdin = child.stdin.take();
        let asked = std::thread::scope(|scope| {
            let asked = scope.spawn(move || child.wait_with_output());
            let fed = stdin.map_or(Ok(()), |stdin| self.feed(stdin));
            fed.and(asked.join().unwrap_or_else(|_| Err(io::Error::other("its thread died"))))
        });
        let failed = |reason: String| Error::Failed {
            address: self.login.address.to_string(),
            what: "reading the dump".to_owned(),
            reason,
        };
        let output = asked.map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(said(&String::from_utf8_lossy(&output.stderr))));
        }
        String::from_utf8(output.stdout).map_err(|_| failed("it is not UTF-8".to_owned()))
    }

    fn feed(&mut self, mut stdin: impl Write) -> io::Result<()> {
        let enough = |error: io::Error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) };
        if let Err(error) = stdin.write_all(&self.front) {
            return enough(error);
        }
        loop {
            let begin = self.front.len();
            if begin > FRONT_BYTES {
                return Err(io::Error::other("its table of contents has no end"));
            }
            self.front.resize(begin + CHUNK_BYTES, 0);
            let read = self.rest.read(&mut self.front[begin..]);
            self.front.truncate(begin + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if let Err(error) = stdin.write_all(&self.front[begin..]) {
                return enough(error);
            }
        }
    }
}
