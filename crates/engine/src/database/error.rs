//! Why something with a project's databases was not done.

use std::path::PathBuf;

use snapshot::error::Error as SnapshotError;
use workload::error::Error as DatabaseError;

use crate::manifest::ManifestError;

/// An error, with the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not done, for a reason that was known before.
    #[error("{message}")]
    Refused {
        /// What stands against it.
        message: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A server or its programs.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A snapshot, or the state directory.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A repository.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// What a backup says of its dumps.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// "make room in".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// Not done.
    pub(super) fn refused(message: impl Into<String>) -> Error {
        Error::Refused { message: message.into(), hint: None }
    }

    /// With the way out.
    #[must_use]
    pub(super) fn or(self, way_out: impl Into<String>) -> Error {
        match self {
            Error::Refused { message, .. } => Error::Refused { message, hint: Some(way_out.into()) },
            other => other,
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }

    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Refused { hint, .. } => hint.clone(),
            Error::Snapshot(error) => error.hint().map(str::to_owned),
            Error::Database(DatabaseError::Login { .. }) => {
                Some("check the user in url, and what password-file has".to_owned())
            }
            Error::Database(DatabaseError::Unreachable { .. }) => Some("is the server running?".to_owned()),
            Error::Database(_) | Error::Repository(_) | Error::Manifest(_) | Error::Io { .. } => None,
        }
    }
}
