//! Locks on repositories, and who gives way to whom on this machine.
//!
//! A backup says that it wants a repository before it asks for its lock, and until it has given it back: it holds
//! `repository/ID.wanted` in the state directory (flock(2), shared). A prune looks at it all the time, and ends at its
//! next step when somebody holds it. What it did until then is good, and the next one goes on.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use snapshot::error::Error as StateError;

use super::{Context, Error};

/// Between two looks at a repository that somebody else has locked.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);

/// Held by a backup as long as it needs the repository.
pub(super) struct Wanted {
    file: File,
}

impl Drop for Wanted {
    fn drop(&mut self) {
        // Closing it is not enough: a child that another thread starts has it, too, until it runs its program.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Says that a repository is wanted.
pub(super) fn want(state: &Path, repository: &str) -> Result<Wanted, StateError> {
    let (file, path) = open(state, repository)?;
    // Who looks holds it for an instant.
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::LockShared) {
        if error != rustix::io::Errno::INTR {
            return Err(StateError::io("lock", &path)(error));
        }
    }
    Ok(Wanted { file })
}

/// Whether a backup on this machine wants a repository. If that cannot be told, nobody does.
pub(super) fn is_wanted(state: &Path, repository: &str) -> bool {
    let Ok((file, _)) = open(state, repository) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

fn open(state: &Path, repository: &str) -> Result<(File, std::path::PathBuf), StateError> {
    let directory = state.join("repository");
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(StateError::io("create", &directory))?,
    }
    let path = directory.join(format!("{repository}.wanted"));
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    Ok((file.map_err(StateError::io("open", &path))?, path))
}

/// Tries again as long as somebody else has the repository locked, and patience lasts.
pub(super) fn while_locked<T>(
    context: &Context<'_>,
    attempt: &mut dyn FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let until = Instant::now() + context.patience;
    let mut has_told = false;
    loop {
        match attempt() {
            Err(Error::Repository { name, source: repository::Error::Locked(other) }) if Instant::now() < until => {
                if !has_told {
                    context.watch.say(&format!("waiting: repository \"{name}\" is locked by {other}"));
                    has_told = true;
                }
                let next = Instant::now() + LOOK_AGAIN_EVERY;
                while Instant::now() < next {
                    if context.is_cancelled() {
                        return Err(Error::Repository { name, source: repository::Error::Cancelled });
                    }
                    std::thread::sleep(STEP);
                }
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_wanted_as_long_as_one_of_several_backups_wants_it() {
        let state = tempfile::tempdir().unwrap();
        let is_wanted = || is_wanted(state.path(), "abc");
        assert!(!is_wanted());
        let first = want(state.path(), "abc").unwrap();
        let second = want(state.path(), "abc").unwrap();
        assert!(is_wanted() && !super::is_wanted(state.path(), "another"));
        drop(first);
        assert!(is_wanted());
        drop(second);
        assert!(!is_wanted());
    }
}
