//! From a URL and a password to an open repository, and the locks on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use engine::repositories;
use repository::holder::Holder;
use repository::lock::Lock;
use repository::storage::{Storage, StorageError};
use repository::tree::Timestamp;
use repository::{Error, Repository};
use rustix::io::Errno;

use crate::error::CommandError;
use crate::global::Global;
use crate::output::Output;
use crate::password::Sources;
use crate::signals;

/// Between two looks at a repository that somebody else has locked.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// An open repository and who we are.
pub(crate) struct Session<'a> {
    pub(crate) repository: Arc<Repository>,
    pub(crate) holder: Holder,
    pub(crate) global: &'a Global,
    pub(crate) output: &'a Output,
}

impl<'a> Session<'a> {
    /// Opens the repository that the arguments name.
    pub(crate) fn open(global: &'a Global, output: &'a Output) -> Result<Self> {
        let storage = storage(location(global)?)?;
        let repository = open(storage, &Sources::of(global))?;
        Ok(Session { repository: Arc::new(repository), holder: holder(), global, output })
    }

    /// A lock that others may share: for whatever adds.
    pub(crate) fn lock_shared(&self) -> Result<Arc<Lock>> {
        lock(&self.repository, false, self.global.wait_lock, &self.holder, self.output).map(Arc::new)
    }

    /// A certain lock that nobody shares: for whatever removes or replaces.
    pub(crate) fn lock_exclusive(&self) -> Result<Arc<Lock>> {
        lock(&self.repository, true, self.global.wait_lock, &self.holder, self.output).map(Arc::new)
    }

    /// The lock of a command that removes: exclusive, or for reading if nothing shall be done.
    pub(crate) fn lock_to_remove(&self, dry_run: bool) -> Result<ToRemove> {
        if dry_run {
            Ok(ToRemove::OnlyLook(self.lock_for_reading()?))
        } else {
            self.lock_exclusive().map(ToRemove::Remove)
        }
    }

    /// A shared lock for reading. A repository that cannot be written to is read without.
    pub(crate) fn lock_for_reading(&self) -> Result<Option<Arc<Lock>>> {
        lock_for_reading(&self.repository, self.global, self.output)
    }
}

/// What a command that removes may do.
pub(crate) enum ToRemove {
    /// It may.
    Remove(Arc<Lock>),
    /// A dry run.
    OnlyLook(#[expect(dead_code, reason = "it is held, not used")] Option<Arc<Lock>>),
}

impl ToRemove {
    /// The lock, if anything may be removed.
    pub(crate) fn lock(&self) -> Option<&Arc<Lock>> {
        match self {
            ToRemove::Remove(lock) => Some(lock),
            ToRemove::OnlyLook(_) => None,
        }
    }
}

fn is_read_only(error: &Error) -> bool {
    let Error::Storage(StorageError::Io { source, .. }) = error else { return false };
    matches!(Errno::from_io_error(source), Some(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

/// A shared lock for reading. A repository that cannot be written to is read without.
pub(crate) fn lock_for_reading(
    repository: &Arc<Repository>,
    global: &Global,
    output: &Output,
) -> Result<Option<Arc<Lock>>> {
    if global.no_lock {
        signals::watch();
        return Ok(None);
    }
    match lock(repository, false, global.wait_lock, &holder(), output) {
        Ok(lock) => Ok(Some(Arc::new(lock))),
        Err(error) if error.downcast_ref::<Error>().is_some_and(is_read_only) => {
            output.message("the repository cannot be written to: read without a lock");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Takes a lock, waiting for others up to `wait`.
pub(crate) fn lock(
    repository: &Arc<Repository>,
    exclusive: bool,
    wait: Duration,
    holder: &Holder,
    output: &Output,
) -> Result<Lock> {
    // From now on there is something to tidy away.
    signals::watch();
    let until = Instant::now() + wait;
    let mut told = false;
    loop {
        let locked = Lock::acquire(repository, exclusive, holder).and_then(|lock| {
            // A run that adds goes on while the lock settles; who deletes, or is willing to wait, wants it certain.
            if exclusive || !wait.is_zero() {
                lock.confirm()?;
            }
            Ok(lock)
        });
        match locked {
            Err(Error::Locked(other)) if Instant::now() < until => {
                if !told {
                    output.message(format_args!("waiting: the repository is locked by {other}"));
                    told = true;
                }
                let next = Instant::now() + LOOK_AGAIN_EVERY.min(until - Instant::now());
                while Instant::now() < next {
                    signals::check()?;
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            locked => return Ok(locked?),
        }
    }
}

/// What `-r` or the environment says.
pub(crate) fn location(global: &Global) -> Result<&str> {
    let hint = "give -r DIRECTORY, or set SNAPBACK_REPOSITORY";
    match global.repository.as_deref() {
        None => Err(CommandError::usage("no repository is named").hint(hint).into()),
        Some("") => Err(CommandError::usage("the repository's name is empty").hint(hint).into()),
        Some(location) => Ok(location),
    }
}

/// The storage of a URL: a path, or `local:` and a path.
pub(crate) fn storage(url: &str) -> Result<Arc<dyn Storage>> {
    repositories::storage(url).map_err(|error| {
        let usage = CommandError::usage(error.to_string());
        match error.hint() {
            Some(hint) => usage.hint(hint).into(),
            None => usage.into(),
        }
    })
}

/// Opens a repository, telling apart a missing one before the password is asked for.
pub(crate) fn open(storage: Arc<dyn Storage>, password: &Sources<'_>) -> Result<Repository> {
    match storage.size(&repository::storage::StoredFile::CONFIG) {
        Err(StorageError::NotFound { .. }) => return Err(Error::NoRepository(storage.location()).into()),
        Err(error) => return Err(Error::from(error).into()),
        Ok(_) => {}
    }
    let password = password.get(&storage.location())?;
    Ok(Repository::open(storage, &password)?)
}

/// Who we are.
pub(crate) fn holder() -> Holder {
    let uid = rustix::process::getuid().as_raw();
    Holder {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        username: backup::attributes::Names::new().user(uid).to_string(),
        uid,
        gid: rustix::process::getgid().as_raw(),
        pid: std::process::id(),
        now,
    }
}

/// This moment, with this machine's offset from UTC.
pub(crate) fn now() -> Timestamp {
    let now = jiff::Timestamp::now();
    let offset_minutes = jiff::tz::TimeZone::system().to_offset(now).seconds() / 60;
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Timestamp::from_unix(now.as_second(), nanos, i16::try_from(offset_minutes).unwrap_or(0))
}
