//! Why the catalog cannot be used.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the catalog. None of them need stop anything: whatever the catalog says is also in the file systems and
/// in the repositories.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A newer version of this program wrote it. Nothing is read from it, as what it means is not known.
    #[error("the catalog {} is of a newer version of snapback (its format is {found}, known up to {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The newest format this program knows.
        known: i64,
    },
    /// There is no room for what should be written.
    #[error("the catalog {} cannot be written to: the disk is full", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Others write to it without an end.
    #[error("the catalog {} is busy", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot make sense of it, and it could not be moved aside either.
    #[error("the catalog {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Anything else that SQLite refuses.
    #[error("the catalog {}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

impl Error {
    /// An error of a system call: `Error::io("open", path)` fits `map_err`.
    pub(super) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source: source.into() }
    }

    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Newer { path, .. } => {
                Some(format!("use the newer snapback, or move {} away: it is rebuilt", path.display()))
            }
            Error::Full { .. } => Some("make room, then: snapback catalog rebuild".to_owned()),
            Error::Busy { .. } => Some("try again; nothing but this record was missed".to_owned()),
            Error::Damaged { path, .. } => Some(format!("move {} away: it is rebuilt", path.display())),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as root, or as the owner of the state directory".to_owned())
            }
            Error::Io { .. } | Error::Sqlite { .. } => None,
        }
    }
}

/// What an answer of SQLite means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The file is not what we wrote.
    Damaged,
    /// No room.
    Full,
    /// Somebody else had it for longer than we wait.
    Busy,
    /// The file system or its permissions.
    Unavailable,
    /// Perhaps damage, perhaps not: a check decides.
    Unclear,
}

/// What an answer of SQLite means. That a table is missing, or holds another type than is written to it, is damage:
/// the program's own statements are right.
pub(super) fn judge(error: &rusqlite::Error) -> Verdict {
    use rusqlite::{Error as Sqlite, ErrorCode};
    match error {
        Sqlite::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Verdict::Damaged,
            // SQLITE_ERROR: a statement that does not fit the tables.
            ErrorCode::Unknown if failure.extended_code == 1 => Verdict::Damaged,
            ErrorCode::DiskFull => Verdict::Full,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Verdict::Busy,
            ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed => Verdict::Unavailable,
            _ => Verdict::Unclear,
        },
        Sqlite::FromSqlConversionFailure(..)
        | Sqlite::IntegralValueOutOfRange(..)
        | Sqlite::InvalidColumnType(..)
        | Sqlite::Utf8Error(..)
        | Sqlite::SqlInputError { .. }
        | Sqlite::InvalidColumnName(_)
        | Sqlite::InvalidColumnIndex(_)
        | Sqlite::QueryReturnedNoRows => Verdict::Damaged,
        _ => Verdict::Unclear,
    }
}
