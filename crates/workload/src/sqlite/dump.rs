//! A dump of SQLite: the database file itself as of one moment, byte for byte what a checkpoint would leave.
//!
//! Read page by page through SQLite within one transaction (`sqlite_dbpage`), so that the write-ahead log is taken into
//! account. With a log, writers go on meanwhile, and the log grows until the dump ends. Without one (a rollback journal)
//! a reader holds up whoever commits: there, what is read is a clone of the file where the file system can clone, or a
//! copy in memory where it is small; only what is left is read under the lock.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{CWD, Mode, OFlags};

use super::database::Database;
use crate::dump::part::{Contents, Dump, Format, Part, broken};
use crate::error::Error;

// The library is built with other flags where .cargo/config.toml is not read.
const _: () = assert!(
    has_dbpage(option_env!("LIBSQLITE3_FLAGS")),
    "SQLite must be built with sqlite_dbpage: set LIBSQLITE3_FLAGS=-DSQLITE_ENABLE_DBPAGE_VTAB (see .cargo/config.toml)"
);

const fn has_dbpage(flags: Option<&str>) -> bool {
    let Some(flags) = flags else { return false };
    let (flags, wanted) = (flags.as_bytes(), b"SQLITE_ENABLE_DBPAGE_VTAB");
    let mut start = 0;
    while start + wanted.len() <= flags.len() {
        let mut length = 0;
        while length < wanted.len() && flags[start + length] == wanted[length] {
            length += 1;
        }
        if length == wanted.len() {
            return true;
        }
        start += 1;
    }
    false
}

/// Up to this a database without a log is copied to memory: tens of milliseconds in which nobody commits.
const SMALL: u64 = 32 << 20;
/// So much is read at once.
const BATCH: usize = 256 << 10;

/// What there is to dump: the file.
///
/// # Errors
/// [`Error::Unreachable`] if it is not there, [`Error::Failed`] if it is no database that can be read.
pub fn contents(path: &Path) -> Result<Contents, Error> {
    Snapshot::begin(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let part = Part { file: name.clone(), database: Some(name), format: Format::SqliteFile };
    Ok(Contents { server: super::version(), tool: super::version(), parts: vec![part] })
}

/// Begins to dump it: the moment of the dump is now.
///
/// # Errors
/// As [`contents`].
pub fn open(path: &Path) -> Result<Box<dyn Dump>, Error> {
    let snapshot = Snapshot::begin(path)?;
    if snapshot.database.has_log()? || snapshot.page_count == 0 {
        return Ok(Box::new(Pages { snapshot: Some(snapshot), read: 0, buffer: Vec::new(), given: 0 }));
    }
    let length = u64::from(snapshot.page_count) * snapshot.page_size as u64;
    if let Ok(clone) = clone(&snapshot.database.path) {
        return Ok(Box::new(Clone { file: clone, left: length }));
    }
    let is_small = length <= SMALL;
    let mut pages = Pages { snapshot: Some(snapshot), read: 0, buffer: Vec::new(), given: 0 };
    if is_small {
        let mut copy = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        pages.read_to_end(&mut copy).map_err(|error| unwrapped(path, error))?;
        return Ok(Box::new(Cursor::new(copy)));
    }
    Ok(Box::new(pages))
}

fn unwrapped(path: &Path, error: io::Error) -> Error {
    error.downcast().unwrap_or_else(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

/// One moment of a database, which stays for as long as this does.
struct Snapshot {
    database: Database,
    page_count: u32,
    page_size: usize,
}

impl Snapshot {
    fn begin(path: &Path) -> Result<Snapshot, Error> {
        let database = Database::open(path)?;
        let begin = |connection: &Connection| {
            connection.pragma_update(None, "query_only", true)?;
            connection.execute_batch("BEGIN")?;
            // The transaction begins with what is read first; this reads the schema as well, and so tells damage early.
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
            let page_count = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let page_size: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
            Ok((page_count, page_size as usize))
        };
        let (page_count, page_size) = database.run("reading it", begin)?;
        Ok(Snapshot { database, page_count, page_size })
    }

    /// Pages from a number on, counted from 0, as many as make a batch.
    fn batch(&self, from: u32, into: &mut Vec<u8>) -> Result<u32, Error> {
        let count = (BATCH / self.page_size).max(1);
        let until = from.saturating_add(u32::try_from(count).unwrap_or(1)).min(self.page_count);
        self.database.run("reading its pages", |connection| {
            let mut page = connection.prepare("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
            for number in from..until {
                page.query_row([number + 1], |row| {
                    let data = row.get_ref(0)?.as_blob()?;
                    into.extend_from_slice(data);
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        Ok(until)
    }
}

/// Reads through SQLite.
struct Pages {
    /// Nothing once all was read: the log is held up no longer.
    snapshot: Option<Snapshot>,
    /// Pages that were read.
    read: u32,
    buffer: Vec<u8>,
    /// Of the buffer.
    given: usize,
}

impl Read for Pages {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.buffer.len() {
            self.buffer.clear();
            self.given = 0;
            let Some(snapshot) = &self.snapshot else { return Ok(0) };
            if self.read < snapshot.page_count {
                self.read = snapshot.batch(self.read, &mut self.buffer).map_err(broken)?;
            }
            if self.read == snapshot.page_count {
                self.snapshot = None;
            }
        }
        let length = into.len().min(self.buffer.len() - self.given);
        into[..length].copy_from_slice(&self.buffer[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

/// A clone of the file that has no name and shares its blocks, made while nobody could write.
fn clone(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let file = File::open(path)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let clone = rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::ioctl_ficlone(&clone, &file)?;
    Ok(clone.into())
}

/// Reads a clone, which may have more behind the database's end.
struct Clone {
    file: File,
    left: u64,
}

impl Read for Clone {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let length = self.file.read(&mut into[..most])?;
        if length == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

impl Dump for Pages {}
impl Dump for Clone {}
/// What was taken to memory.
impl Dump for Cursor<Vec<u8>> {}
