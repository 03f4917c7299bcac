//! The dumps that a backup has, read out of its repository.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backup::read::{Found, find_path, write_content};
use repository::Repository;
use repository::id::Id;
use repository::index::Index;
use repository::record::BackupRecord;
use repository::tree::Node;
use workload::dump::{Dump, Part};
use workload::error::Error as DatabaseError;

use super::{Error, chosen};
use crate::manifest::{DumpedDatabase, DumpedPart, Manifest, directory_of};

/// Pieces that are read ahead of whoever takes them.
const AHEAD: usize = 4;

/// The dumps of a backup.
pub struct Dumps {
    repository: Arc<Repository>,
    index: Arc<Index>,
    backup: Id,
    tree: Id,
    manifest: Manifest,
    databases: BTreeMap<String, DumpedDatabase>,
}

impl Dumps {
    /// Looks what a backup has.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has no dumps, and those of reading.
    pub fn of(repository: Arc<Repository>, index: Arc<Index>, id: Id, record: &BackupRecord) -> Result<Dumps, Error> {
        let none = || {
            Error::refused(format!("backup {} has no dumps of databases", id.short()))
                .or("a project's databases are dumped by `snapback backup PROJECT`")
        };
        let manifest = Manifest::load(&repository, &index, record.tree)?.ok_or_else(none)?;
        let databases: BTreeMap<_, _> =
            manifest.databases.iter().map(|database| (database.name.clone(), database.clone())).collect();
        if databases.is_empty() {
            return Err(none());
        }
        Ok(Dumps { repository, index, backup: id, tree: record.tree, manifest, databases })
    }

    /// Of which backup.
    pub fn backup(&self) -> String {
        self.backup.short()
    }

    /// Of which project it is.
    pub fn project(&self) -> Option<&str> {
        Some(self.manifest.project.as_str()).filter(|name| !name.is_empty())
    }

    /// All, by name.
    pub fn databases(&self) -> &BTreeMap<String, DumpedDatabase> {
        &self.databases
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::Refused`] with those that there are.
    pub fn database(&self, name: &str) -> Result<&DumpedDatabase, Error> {
        Ok(chosen(&self.databases, Some(name), &format!("backup {}", self.backup()))?[0])
    }

    /// The parts of a database.
    ///
    /// # Errors
    /// [`Error::Refused`] if one of them is missing: half a database is none.
    pub fn parts(&self, database: &DumpedDatabase) -> Result<Vec<Part>, Error> {
        let whole = |part: &DumpedPart| match &part.error {
            None => Ok(part.part.clone()),
            Some(why) => Err(self.lacks(database, &part.part.file, why)),
        };
        if let Some(why) = &database.error {
            return Err(self.lacks(database, "a part", why));
        }
        let parts = database.parts.iter().map(whole).collect::<Result<Vec<Part>, Error>>()?;
        if parts.is_empty() {
            return Err(self.lacks(database, "everything", "nothing of it was dumped"));
        }
        Ok(parts)
    }

    fn lacks(&self, database: &DumpedDatabase, what: &str, why: &str) -> Error {
        Error::refused(format!("the dump of {} in backup {} lacks {what}: {why}", database.name, self.backup()))
            .or("take another backup: snapback list")
    }

    /// Reads a part, from a thread of its own. It ends without an error only if it was whole.
    ///
    /// # Errors
    /// If the backup does not have its file.
    pub fn open(&self, database: &DumpedDatabase, part: &Part) -> Result<Box<dyn Dump>, DatabaseError> {
        let path = directory_of(&database.name).join(&part.file);
        let failed = |reason: String| DatabaseError::Failed {
            address: format!("backup {}", self.backup()),
            what: format!("reading {}", path.display()),
            reason,
        };
        let mut reader = self.repository.reader(&self.index);
        let found = find_path(&mut reader, self.tree, &path).map_err(|error| failed(error.to_string()))?;
        let Found::Entry(node) = found else { return Err(failed("it is a directory".to_owned())) };
        let (send, pieces) = sync_channel(AHEAD);
        let (repository, index) = (Arc::clone(&self.repository), Arc::clone(&self.index));
        std::thread::spawn(move || deliver(&repository, &index, &node, send));
        Ok(Box::new(Stored { pieces, piece: Vec::new(), at: 0, is_over: false }))
    }
}

enum Piece {
    Bytes(Vec<u8>),
    /// All was sent.
    End,
    Failed(io::Error),
}

fn deliver(repository: &Repository, index: &Index, node: &Node, to: SyncSender<Piece>) {
    let mut reader = repository.reader(index);
    let written = write_content(repository, index, &mut reader, node, &mut Pipe(&to));
    // Nobody waits for it who has enough.
    let _ = to.send(match written {
        Ok(()) => Piece::End,
        Err(error) => Piece::Failed(io::Error::other(error)),
    });
}

struct Pipe<'a>(&'a SyncSender<Piece>);

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(Piece::Bytes(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of a backup, as it comes.
struct Stored {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Read for Stored {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() && !self.is_over {
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => (self.piece, self.at) = (bytes, 0),
                Ok(Piece::End) => self.is_over = true,
                Ok(Piece::Failed(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("the thread that reads it died")),
            }
        }
        let length = into.len().min(self.piece.len() - self.at);
        into[..length].copy_from_slice(&self.piece[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

impl Dump for Stored {}
