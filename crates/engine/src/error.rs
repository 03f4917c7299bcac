//! What can go wrong: each error names the thing, keeps the source, and where there is a way out, tells it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the snapshots.
    #[error(transparent)]
    Snapshot(#[from] snapshot::error::Error),
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
    /// What is asked for is not possible now, or would do harm.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// The way out.
        hint: Option<String>,
    },
}

impl Error {
    /// An error of a system call: `Error::io("open", path)` fits `map_err`.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Io { action, path, source: source.into() }
    }

    /// A refusal without a hint.
    pub fn refused(message: impl Into<String>) -> Error {
        Error::Refused { message: message.into(), hint: None }
    }

    /// Adds the way out to a refusal.
    #[must_use]
    pub fn or(self, way_out: impl Into<String>) -> Error {
        match self {
            Error::Refused { message, .. } => Error::Refused { message, hint: Some(way_out.into()) },
            other => other,
        }
    }

    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Refused { hint, .. } => hint.as_deref(),
            Error::Snapshot(error) => error.hint(),
            Error::Io { .. } => None,
        }
    }
}
