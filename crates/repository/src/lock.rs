//! Locks: a backup holds a shared one, whatever deletes holds an exclusive one, restic's processes included.
//!
//! A lock is a file. It is refreshed every five minutes by writing a new file and removing the old one; half an
//! hour without that makes it stale, so whoever could not refresh for 22 minutes must stop. There is no atomic
//! test-and-set in a storage: look, write ours, wait, look again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::holder::Holder;
use crate::id::Id;
use crate::lock_record::LockRecord;
use crate::repository::Repository;
use crate::storage::{FileKind, StorageError, StoredFile};

/// How long things take; shorter in tests.
#[derive(Clone, Copy, Debug)]
pub struct LockTimes {
    /// Between writing a lock and looking again for others'.
    pub settle: Duration,
    /// Between refreshments.
    pub refresh: Duration,
    /// Without a refreshment, after which the work must stop.
    pub lost: Duration,
}

impl Default for LockTimes {
    fn default() -> Self {
        LockTimes {
            settle: Duration::from_millis(200),
            refresh: Duration::from_secs(5 * 60),
            lost: Duration::from_secs(22 * 60),
        }
    }
}

/// A lock on a repository, held until it is dropped.
pub struct Lock {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

struct Shared {
    repository: Arc<Repository>,
    holder: Holder,
    exclusive: bool,
    times: LockTimes,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    file: Id,
    standing: Standing,
    released: bool,
}

enum Standing {
    /// Written, but the second look is still to come.
    Settling,
    Held,
    Lost(Option<Error>),
}

impl Lock {
    /// Takes a lock. It returns before the second look at others' locks was had, so that a run can load the
    /// index meanwhile; [`Lock::confirm`] waits for it and must precede the first change.
    pub fn acquire(repository: &Arc<Repository>, exclusive: bool, holder: &Holder) -> Result<Lock, Error> {
        Lock::acquire_with(repository, exclusive, holder, LockTimes::default())
    }

    /// As [`Lock::acquire`], with other times.
    pub fn acquire_with(
        repository: &Arc<Repository>,
        exclusive: bool,
        holder: &Holder,
        times: LockTimes,
    ) -> Result<Lock, Error> {
        look_for_others(repository, exclusive, holder, None)?;
        let file = write(repository, exclusive, holder)?;
        let shared = Arc::new(Shared {
            repository: Arc::clone(repository),
            holder: holder.clone(),
            exclusive,
            times,
            state: Mutex::new(State { file, standing: Standing::Settling, released: false }),
            changed: Condvar::new(),
        });
        let for_keeper = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(move || for_keeper.keep())
            .map_err(|error| Error::Refused(format!("no thread for the lock: {error}")))?;
        Ok(Lock { shared, keeper: Some(keeper) })
    }

    /// Whether nobody else may work meanwhile.
    pub fn is_exclusive(&self) -> bool {
        self.shared.exclusive
    }

    /// Waits until the lock is certain. Fails if somebody else came at the same moment, or if it was lost.
    pub fn confirm(&self) -> Result<(), Error> {
        let mut state = self.shared.lock_state();
        loop {
            match &mut state.standing {
                Standing::Settling => {
                    state = self.shared.changed.wait(state).expect("no panic while the lock is held");
                }
                Standing::Held => return Ok(()),
                Standing::Lost(error) => {
                    return Err(error.take().unwrap_or_else(|| Error::Earlier("the lock was lost".to_owned())));
                }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.shared.lock_state().released = true;
        self.shared.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        let file = StoredFile::new(FileKind::Lock, self.shared.lock_state().file);
        // If it cannot be removed it goes stale, which every reader understands.
        let _ = self.shared.repository.storage().remove(&file);
    }
}

impl Shared {
    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// Waits, unless the lock is released meanwhile. Returns whether it was.
    fn wait(&self, time: Duration) -> bool {
        let state = self.lock_state();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.released);
        waited.expect("no panic while the lock is held").0.released
    }

    fn set_standing(&self, standing: Standing) {
        self.lock_state().standing = standing;
        self.changed.notify_all();
    }

    fn keep(&self) {
        if self.wait(self.times.settle) {
            return;
        }
        let own = self.lock_state().file;
        match look_for_others(&self.repository, self.exclusive, &self.holder, Some(own)) {
            Ok(()) => self.set_standing(Standing::Held),
            Err(error) => return self.set_standing(Standing::Lost(Some(error))),
        }
        let mut refreshed = (Instant::now(), (self.holder.now)());
        while !self.wait(self.times.refresh) {
            match self.refresh() {
                Ok(()) => refreshed = (Instant::now(), (self.holder.now)()),
                Err(error) => {
                    // The monotonic clock stands still while the machine sleeps; the other one does not.
                    let slept = (self.holder.now)().secs - refreshed.1.secs;
                    let since = refreshed.0.elapsed().max(Duration::from_secs(slept.max(0).unsigned_abs()));
                    if since + self.times.refresh > self.times.lost || matches!(error, Error::LockLost(_)) {
                        let lost = Error::LockLost(error.to_string());
                        return self.set_standing(Standing::Lost(Some(lost)));
                    }
                }
            }
        }
    }

    fn refresh(&self) -> Result<(), Error> {
        let old = StoredFile::new(FileKind::Lock, self.lock_state().file);
        // Whoever took us for dead removed it, and may be deleting what we rely on.
        match self.repository.storage().size(&old) {
            Ok(_) => {}
            Err(StorageError::NotFound { .. }) => {
                return Err(Error::LockLost("somebody removed the lock".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        let new = write(&self.repository, self.exclusive, &self.holder)?;
        self.lock_state().file = new;
        self.repository.storage().remove(&old)?;
        Ok(())
    }
}

fn write(repository: &Repository, exclusive: bool, holder: &Holder) -> Result<Id, Error> {
    let record = LockRecord::ours(exclusive, holder);
    repository.save(FileKind::Lock, &serde_json::to_vec(&record).expect("a lock record is always JSON"))
}

/// All locks that can be read; those that vanish meanwhile and empty files (a full disk) are no locks.
pub fn list(repository: &Repository) -> Result<Vec<(Id, LockRecord)>, Error> {
    let mut locks = Vec::new();
    for (id, size) in repository.storage().list(FileKind::Lock)? {
        if size == 0 {
            continue;
        }
        let file = StoredFile::new(FileKind::Lock, id);
        let bytes = match repository.load(&file) {
            Err(Error::Storage(StorageError::NotFound { .. })) => continue,
            loaded => loaded?,
        };
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged { file, reason: format!("it is not a lock record: {error}") })?;
        locks.push((id, record));
    }
    Ok(locks)
}

/// Removes the locks of processes that are gone, or all. Returns how many.
pub fn remove(repository: &Repository, holder: &Holder, all: bool) -> Result<usize, Error> {
    let mut removed = 0;
    if all {
        // Unreadable ones too: this is the way out of a damaged lock.
        for (id, _) in repository.storage().list(FileKind::Lock)? {
            repository.storage().remove(&StoredFile::new(FileKind::Lock, id))?;
            removed += 1;
        }
        return Ok(removed);
    }
    for (id, record) in list(repository)? {
        if record.is_stale(holder) {
            repository.storage().remove(&StoredFile::new(FileKind::Lock, id))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn look_for_others(repository: &Repository, exclusive: bool, holder: &Holder, own: Option<Id>) -> Result<(), Error> {
    for (id, record) in list(repository)? {
        if Some(id) == own {
            continue;
        }
        if record.is_stale(holder) {
            repository.storage().remove(&StoredFile::new(FileKind::Lock, id))?;
        } else if exclusive || record.exclusive {
            return Err(Error::Locked(Box::new(record)));
        }
    }
    Ok(())
}
