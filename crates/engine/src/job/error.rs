//! Why a job could not be done.

use snapshot::error::Error as SnapshotError;

use super::hooks::HookError;
use crate::repositories::AccessError;

/// An error of a job. Each names the project or the repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another job of the project runs.
    #[error("a job of {project} is under way{}", if by.is_empty() { String::new() } else { format!(": {by}") })]
    Busy {
        /// The project.
        project: String,
        /// What the other one does, and which process it is.
        by: String,
    },
    /// Snapshots, or the state directory.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// No directory of the project lies where snapshots can be had. Trying again does not help.
    #[error("there are no snapshots of {project}: {source}")]
    NoMechanism {
        /// The project.
        project: String,
        /// Why not of the last of its directories.
        source: Box<SnapshotError>,
    },
    /// A repository, once it was open or while it was being opened.
    #[error("repository \"{name}\": {source}")]
    Repository {
        /// Its name in the configuration.
        name: String,
        /// What happened.
        source: repository::Error,
    },
    /// There is no way to the repository, or no password.
    #[error("repository \"{name}\": {source}")]
    Access {
        /// Its name in the configuration.
        name: String,
        /// What happened.
        source: Box<AccessError>,
    },
    /// A command of the project that had to succeed before the job.
    #[error("{source}; the {job} of {project} was not begun")]
    Hook {
        /// The project.
        project: String,
        /// The job.
        job: &'static str,
        /// What happened.
        source: Box<HookError>,
    },
    /// A pattern or path of the project that cannot be used.
    #[error("project {project}: {reason}")]
    Project {
        /// The project.
        project: String,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// An error of a repository: `Error::repository("offsite")` fits `map_err`.
    pub(super) fn repository(name: &str) -> impl FnOnce(repository::Error) -> Error {
        let name = name.to_owned();
        move |source| Error::Repository { name, source }
    }

    /// There is no way to a repository. What the repository itself said is an error of the repository.
    pub(super) fn access(name: &str, source: AccessError) -> Error {
        match source {
            AccessError::Repository(source) => Error::Repository { name: name.to_owned(), source },
            source => Error::Access { name: name.to_owned(), source: Box::new(source) },
        }
    }

    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Busy { .. } => Some("wait for it to end; the daemon waits by itself".to_owned()),
            Error::Snapshot(error) => error.hint().map(str::to_owned),
            Error::NoMechanism { source, .. } => source.hint().map(str::to_owned),
            Error::Access { source, .. } => source.hint(),
            Error::Hook { .. } => {
                Some("mend what the hook complains about, or take it out of the configuration".to_owned())
            }
            Error::Repository { .. } | Error::Project { .. } => None,
        }
    }

    /// Whether somebody asked for the end.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Error::Repository { source: repository::Error::Cancelled, .. })
    }
}
