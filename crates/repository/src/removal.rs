//! Removing a repository's files for good: some at a time, because each waits for the disk, and only under a lock.

use crate::error::Error;
use crate::id::Id;
use crate::lock::Lock;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::repository::Repository;
use crate::storage::{FileKind, StoredFile};

/// Removals that wait at the same time.
const AT_ONCE: usize = 4;

/// Removes files of a kind. Whatever refers to them must be gone before.
pub(crate) fn remove(
    repository: &Repository,
    lock: &Lock,
    kind: FileKind,
    ids: &[Id],
    progress: &dyn Progress,
) -> Result<(), Error> {
    progress.begin(Phase::Remove, Some(ids.len() as u64), None);
    parallel::for_each(
        AT_ONCE,
        ids,
        || (),
        |(), id| {
            go_on(progress)?;
            lock.confirm()?;
            repository.storage().remove(&StoredFile::new(kind, *id))?;
            progress.advance(1, 0);
            Ok(())
        },
    )
}

/// Removing what others rely on takes an exclusive lock.
pub(crate) fn demand_exclusive(lock: &Lock) -> Result<(), Error> {
    if !lock.is_exclusive() {
        return Err(Error::Refused("removing packs or index files needs an exclusive lock".to_owned()));
    }
    lock.confirm()
}

/// Removes the records of backups; their data stays until a prune.
///
/// A shared lock does: nothing that another run needs goes away.
pub fn forget(repository: &Repository, lock: &Lock, backups: &[Id], progress: &dyn Progress) -> Result<(), Error> {
    remove(repository, lock, FileKind::Backup, backups, progress)
}
