//! What can go wrong with a repository.

use crate::blob::BlobKind;
use crate::id::Id;
use crate::lock_record::LockRecord;
use crate::storage::{StorageError, StoredFile};

/// What can go wrong with a repository. Every variant names the thing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage said no.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no `config`.
    #[error("there is no repository at {0}")]
    NoRepository(String),
    /// There is one already.
    #[error("there is a repository at {0} already")]
    AlreadyARepository(String),
    /// No key opens with the password.
    #[error("wrong password for the repository at {0}")]
    WrongPassword(String),
    /// No key file is there at all.
    #[error("the repository at {0} has no key: without a copy of its keys/ it cannot be opened")]
    NoKey(String),
    /// A format we do not know.
    #[error("the repository at {location} has version {version}; versions 1 and 2 are known")]
    Version {
        /// Of which repository.
        location: String,
        /// What its `config` says.
        version: u32,
    },
    /// A file's bytes are not what they should be.
    #[error("{file} is damaged: {reason}")]
    Damaged {
        /// Which.
        file: StoredFile,
        /// What is wrong.
        reason: String,
    },
    /// A blob's bytes are not what they should be.
    #[error("{} blob {} in pack {} is damaged: {reason}", kind.name(), id.short(), pack.short())]
    DamagedBlob {
        /// Its kind.
        kind: BlobKind,
        /// Its id.
        id: Id,
        /// Where it lies.
        pack: Id,
        /// What is wrong.
        reason: String,
    },
    /// No index names the blob.
    #[error("{} blob {} is in no pack of the repository", kind.name(), id.short())]
    MissingBlob {
        /// Its kind.
        kind: BlobKind,
        /// Its id.
        id: Id,
    },
    /// A tree's bytes are no directory.
    #[error("tree {} is not a directory: {reason}", id.short())]
    Tree {
        /// Its id.
        id: Id,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else works with the repository.
    #[error("the repository is locked by {0}")]
    Locked(Box<LockRecord>),
    /// Our own lock could not be refreshed, so others may take it for stale.
    #[error("the lock could not be refreshed for 22 minutes, so the work was stopped: {0}")]
    LockLost(String),
    /// The work was cancelled.
    #[error("interrupted")]
    Cancelled,
    /// Continuing could destroy data.
    #[error("refused: {0}")]
    Refused(String),
    /// No such backup.
    #[error("no backup {0}")]
    NoBackup(String),
    /// More than one backup.
    #[error("{prefix:?} is the beginning of {count} backups")]
    AmbiguousBackup {
        /// What was typed.
        prefix: String,
        /// How many begin so.
        count: usize,
    },
    /// An earlier failure of the same run, reported by another thread.
    #[error("{0}")]
    Earlier(String),
}
