//! Where a repository's files lie. A storage knows files by kind and name, and bytes; nothing of what they mean.
//!
//! Invariant: a file is whole and durable once [`Storage::write`] returned, or it is not there. Every file but
//! `config` is named by the SHA-256 of its bytes, so writing a file again is harmless and files never change.

pub mod limited;
mod local;
pub mod memory;

use std::fmt;
use std::io;

use crate::id::Id;

pub use local::Local;

/// The kinds of files a repository has, by restic's directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `config`
    Config,
    /// `keys/`
    Key,
    /// `locks/`
    Lock,
    /// `snapshots/`: the records of backups
    Backup,
    /// `index/`
    Index,
    /// `data/xx/`
    Pack,
}

impl FileKind {
    /// All kinds that lie in a directory.
    pub const LISTED: [FileKind; 5] =
        [FileKind::Key, FileKind::Lock, FileKind::Backup, FileKind::Index, FileKind::Pack];

    /// The directory below the repository's root.
    pub fn directory(self) -> &'static str {
        match self {
            FileKind::Config => "",
            FileKind::Key => "keys",
            FileKind::Lock => "locks",
            FileKind::Backup => "snapshots",
            FileKind::Index => "index",
            FileKind::Pack => "data",
        }
    }
}

/// One file of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoredFile {
    /// What it is.
    pub kind: FileKind,
    /// Its name; all zero for `config`.
    pub id: Id,
}

impl StoredFile {
    /// The one file without an id.
    pub const CONFIG: StoredFile = StoredFile { kind: FileKind::Config, id: Id([0; 32]) };

    /// A file by kind and name.
    pub fn new(kind: FileKind, id: Id) -> Self {
        StoredFile { kind, id }
    }

    /// The path below the repository's root, as restic's default layout has it.
    pub fn path(&self) -> String {
        match self.kind {
            FileKind::Config => "config".to_owned(),
            FileKind::Pack => {
                let name = self.id.to_string();
                format!("data/{}/{name}", &name[..2])
            }
            kind => format!("{}/{}", kind.directory(), self.id),
        }
    }
}

impl fmt::Display for StoredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FileKind::Config => return f.write_str("config"),
            FileKind::Key => "key",
            FileKind::Lock => "lock",
            FileKind::Backup => "backup record",
            FileKind::Index => "index file",
            FileKind::Pack => "pack",
        };
        write!(f, "{kind} {}", self.id.short())
    }
}

/// What went wrong between us and the place where the files lie.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file is not there.
    #[error("{file} is missing in {location}")]
    NotFound {
        /// Which.
        file: StoredFile,
        /// Of which repository.
        location: String,
    },
    /// The file ends before the range that was asked for.
    #[error("{file} in {location} is truncated: {wanted} bytes were expected, it ends after {got}")]
    Truncated {
        /// Which.
        file: StoredFile,
        /// Of which repository.
        location: String,
        /// End of the range asked for, in bytes.
        wanted: u64,
        /// Where the file ends.
        got: u64,
    },
    /// There is a file of that name, and it may not be replaced (`config`).
    #[error("{file} exists already in {location}")]
    Exists {
        /// Which.
        file: StoredFile,
        /// Of which repository.
        location: String,
    },
    /// The operating system said no.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// A verb: "read", "write", "list", ...
        action: &'static str,
        /// The path as the user would type it.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A place for a repository's files. Implementations pass the conformance suite in `tests/storage.rs`.
pub trait Storage: Send + Sync {
    /// What to call it in messages; carries no password.
    fn location(&self) -> String;

    /// All whole files of a kind with their sizes in bytes, in no order. Other names, and the temporary
    /// files of unfinished writes, are left out. A directory that is missing is an error, never an empty list.
    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError>;

    /// Replaces what `into` holds by `length` bytes from `offset`.
    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError>;

    /// Replaces what `into` holds by the whole file.
    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError>;

    /// The size in bytes.
    fn size(&self, file: &StoredFile) -> Result<u64, StorageError>;

    /// Stores a file whole and durably. A file of the same name is replaced (it has the same bytes), but
    /// `config` never is.
    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError>;

    /// Removes a file; one that is not there is no error, so that an interrupted removal can be repeated.
    fn remove(&self, file: &StoredFile) -> Result<(), StorageError>;

    /// Makes the directories of a new repository.
    fn create(&self) -> Result<(), StorageError>;

    /// Removes what unfinished writes left behind. Only for the holder of an exclusive lock.
    fn remove_unfinished(&self) -> Result<u64, StorageError> {
        Ok(0)
    }
}
