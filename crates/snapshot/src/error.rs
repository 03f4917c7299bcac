//! What can go wrong: each error names the thing, keeps the source, and where there is a way out, tells it.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::Id;

/// An error of a snapshot operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A command failed.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// Program and arguments.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of its standard error.
        output: String,
    },
    /// A command answered something that cannot be understood.
    #[error("{command} answered what cannot be understood: {reason}")]
    Answer {
        /// Program and arguments.
        command: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is asked for is not possible here, or would do harm.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// The way out.
        hint: Option<String>,
    },
    /// A privilege is missing.
    #[error("cannot {action} without {capability}")]
    Privilege {
        /// What was tried: a verb with its object.
        action: String,
        /// As in capabilities(7).
        capability: &'static str,
        /// What works without it.
        hint: Option<String>,
    },
    /// No snapshot has an id that begins so.
    #[error("there is no snapshot {0}")]
    NoSuchSnapshot(String),
    /// Several snapshots have ids that begin so.
    #[error("several snapshots begin with {beginning}: {}", ids.iter().map(Id::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        beginning: String,
        /// Whom it fits.
        ids: Vec<Id>,
    },
    /// A change of a live tree failed, and was taken back.
    #[error("{cause}; the directory is as it was before{}", also.iter().map(|error| format!(", but {error}")).collect::<String>())]
    Reverted {
        /// What failed.
        cause: Box<Error>,
        /// What went wrong besides: units that do not start again.
        also: Option<Box<Error>>,
    },
    /// A change of a live tree failed, and taking it back failed as well. The journal still has it.
    #[error("{cause}; and taking it back failed: {failure}")]
    HalfDone {
        /// What failed first.
        cause: Box<Error>,
        /// What failed then.
        failure: Box<Error>,
    },
    /// A file of the state directory cannot be understood.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
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

    /// Adds the way out to a refusal or to a missing privilege.
    #[must_use]
    pub fn or(self, way_out: impl Into<String>) -> Error {
        match self {
            Error::Refused { message, .. } => Error::Refused { message, hint: Some(way_out.into()) },
            Error::Privilege { action, capability, .. } => {
                Error::Privilege { action, capability, hint: Some(way_out.into()) }
            }
            other => other,
        }
    }

    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Refused { hint, .. } | Error::Privilege { hint, .. } => hint.as_deref(),
            Error::Reverted { cause, .. } => cause.hint(),
            Error::HalfDone { .. } => Some(
                "mend what is wrong; whatever changes something then takes it back first, such as: snapback snapshot expire",
            ),
            _ => None,
        }
    }
}
