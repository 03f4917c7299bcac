//! A database file that comes into being beside the place that it is for.
//!
//! The invariant: it goes when this value does, unless it was given its name; and what a killed process left goes when the
//! next one begins, known by its name and by nobody holding its lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::database::{Database, beside};
use crate::error::Error;

/// What comes before the mark in its name.
const SUFFIX: &str = ".restoring-";
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// What belongs to a database file, by what comes behind its name.
pub(super) const BELONGINGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The file.
pub(super) struct Unfinished {
    pub(super) path: PathBuf,
    pub(super) file: File,
    is_done: bool,
}

impl Unfinished {
    /// A new and empty one, which only its owner reads.
    pub(super) fn beside(place: &Path, mark: &str) -> Result<Unfinished, Error> {
        remove_left_ones(place);
        let path = beside(place, &format!("{SUFFIX}{mark}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let failed = |source| Error::Io { action: "create", path: path.clone(), source };
        let file = file.map_err(failed)?;
        let unfinished = Unfinished { path: path.clone(), file, is_done: false };
        flock(&unfinished.file, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        Ok(unfinished)
    }

    /// Takes in a dump, and looks whether all of it came.
    pub(super) fn fill(&mut self, dump: &mut dyn Read) -> Result<(), Error> {
        fill(dump, &mut self.file, &self.path)?;
        self.is_whole()
            .map_err(|source| Error::Io { action: "read", path: self.path.clone(), source })?
            .map_or(Ok(()), |reason| {
                Err(Error::Failed { address: "the dump".to_owned(), what: "the restore".to_owned(), reason })
            })
    }

    /// Why it is not, by its header (<https://sqlite.org/fileformat.html>, 1.3).
    fn is_whole(&self) -> io::Result<Option<String>> {
        let length = self.file.metadata()?.len();
        if length == 0 {
            // A database without anything in it.
            return Ok(None);
        }
        let mut header = [0; 100];
        if length < 100 || self.file.read_exact_at(&mut header, 0).is_err() || header[..16] != *MAGIC {
            return Ok(Some("it is no database of SQLite".to_owned()));
        }
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => u64::from(size),
        };
        // The count is good if it was written along with the last change.
        let pages = (number(24) == number(92)).then(|| u64::from(number(28)));
        let wanted = pages.map_or(length - length % size.max(1), |pages| pages * size);
        let reason = || format!("it ended early: there are {length} of {wanted} bytes");
        Ok((length != wanted).then(reason))
    }

    /// Looks through it with SQLite.
    pub(super) fn check(&self) -> Result<(), Error> {
        let database = Database::open(&self.path)?;
        let found: String = database.run("the check of the restored file", |connection| {
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        })?;
        if found == "ok" {
            return Ok(());
        }
        let reason = format!("the dump is of a damaged database: {found}");
        Err(Error::Failed { address: "the dump".to_owned(), what: "the check".to_owned(), reason })
    }

    /// It has its name, and stays.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done {
            remove(&self.path);
        }
    }
}

fn remove(path: &Path) {
    for suffix in BELONGINGS {
        let _ = fs::remove_file(beside(path, suffix));
    }
    let _ = fs::remove_file(path);
}

/// Those that nobody fills any more.
fn remove_left_ones(place: &Path) {
    let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else { return };
    let start = format!("{}{SUFFIX}", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_one = name.starts_with(&start) && !BELONGINGS.into_iter().any(|suffix| name.ends_with(suffix));
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Ok(file) = File::open(entry.path()) else { continue };
        if is_one && is_file && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&entry.path());
        }
    }
}

/// Copies a stream into a file, and tells whose failure it is.
pub(super) fn fill(from: &mut dyn Read, into: &mut File, path: &Path) -> Result<(), Error> {
    let mut buffer = vec![0; 256 << 10];
    let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => into.write_all(&buffer[..length]).map_err(io("write"))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.downcast().unwrap_or_else(io("read the dump for"))),
        }
    }
    into.sync_all().map_err(io("sync"))
}
