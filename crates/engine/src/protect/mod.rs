//! From a directory to a project that is protected: what is added to the configuration, and a repository to go with it.
//!
//! The invariant: whatever was in the configuration file stays as it was, comments included, and the file is the old one
//! or the new one, whenever the machine stops. Everything that is added can be there already, so that a second run goes
//! on where a first one was cut short, and one over what is done changes nothing.
//!
//! Does not make the first snapshot and backup: `engine::job` does. The order: password, repository, configuration, so
//! that nothing is named that is not there.

mod file;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use repository::holder::Holder;
use repository::storage::{Local, Storage as _, StorageError, StoredFile};
use repository::{InitOptions, Repository};

use crate::config::{Config, ConfigError};
use crate::repositories::{self, AccessError};

pub use file::{ConfigLock, write_new};
pub use text::{NewDatabase, NewRepository, Planned, Wanted, plan};
pub(crate) use text::{free, last_name, quoted};

/// Why a directory cannot be protected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtectError {
    /// The configuration that is there, or what it would become.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file could not be dealt with.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The repository could not be made or opened.
    #[error("the repository at {url}")]
    Repository {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: repository::Error,
    },
    /// Its password cannot be had.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What is there does not allow it.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
        /// The way out.
        fix: String,
    },
}

impl ProtectError {
    fn io(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }

    fn refused(reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), fix: fix.into() }
    }
}

/// What making a repository came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    New,
    /// It was there, and its password fits.
    WasThere,
}

/// Makes the password and the repository, as far as they are not there.
///
/// # Errors
/// A repository to which the password does not fit is left alone.
pub fn make_repository(new: &NewRepository, holder: &Holder) -> Result<Made, ProtectError> {
    let directory = repositories::local_directory(&new.url)
        .ok_or_else(|| ProtectError::refused(format!("{} is no directory", new.url), "name one"))?;
    let failed = |source| ProtectError::Repository { url: new.url.clone(), source };
    let is_there = |directory: &Path| match Local::new(directory).size(&StoredFile::CONFIG) {
        Ok(_) => Ok(true),
        Err(StorageError::NotFound { .. }) => Ok(false),
        Err(error) => Err(failed(error.into())),
    };
    let was_there = is_there(directory)?;
    if was_there && !new.password_file.exists() {
        return Err(ProtectError::refused(
            format!("there is a repository at {} already, and no password in {}", new.url, new.password_file.display()),
            "write its password into that file, or give --password-file; or choose another place with -r",
        ));
    }
    file::make_password(&new.password_file)?;
    let password = repositories::password_in_file(&new.password_file)?;
    if password.is_empty() {
        let reason = format!("the password file {} is empty", new.password_file.display());
        return Err(ProtectError::refused(reason, "write a password into it, or remove it to get a new one"));
    }
    if was_there {
        Repository::open(Arc::new(Local::new(directory)), &password).map_err(failed)?;
        return Ok(Made::WasThere);
    }
    // Whole or not at all: a key without its repository would open, and fit nothing.
    let mut unfinished = directory.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        let holds = ["data", "index", "snapshots"].into_iter().any(|kind| has_files(&unfinished.join(kind)));
        if holds {
            let reason = format!("{} has backups in it", unfinished.display());
            return Err(ProtectError::refused(reason, "move it away"));
        }
        fs::remove_dir_all(&unfinished).map_err(ProtectError::io("remove", &unfinished))?;
    }
    if let Some(above) = directory.parent() {
        fs::create_dir_all(above).map_err(ProtectError::io("create", above))?;
    }
    Repository::init(Arc::new(Local::new(&unfinished)), &password, &InitOptions::default(), holder).map_err(failed)?;
    fs::rename(&unfinished, directory).map_err(|source| {
        // The directory is there and not empty.
        let _ = fs::remove_dir_all(&unfinished);
        ProtectError::io("make a repository at", directory)(source)
    })?;
    file::sync_above(directory)?;
    Ok(Made::New)
}

fn has_files(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => has_files(&entry.path()),
        _ => true,
    })
}

/// Whether the configuration has the directory in a project, and which.
pub fn project_of<'c>(config: &'c Config, directory: &Path) -> Option<&'c crate::config::Project> {
    let same = |path: &PathBuf| path == directory || path.canonicalize().is_ok_and(|path| path == directory);
    config.projects.values().find(|project| project.paths.iter().any(same))
}
