//! The catalog: what was done and what there is, in one SQLite file beside the state of the snapshots.
//!
//! Invariant: it is never needed for correctness. All that it says of snapshots, guards and backups is found in the
//! file systems and in the repositories, and it is rebuilt from them ([`Catalog::rebuild`]); what only it knows (how past jobs
//! went, how repositories grew) is history. So nothing that fails here stops anything: a command writes through a
//! [`Recorder`], which says once what could not be recorded.
//!
//! - The daemon and any number of commands write at once. Each change is one transaction, and is made whole or not at
//!   all, whenever a process is killed.
//! - A file that is damaged is moved aside and begun anew; one that was deleted is made again, also under the feet of
//!   a process that has it open. One of a newer program is left alone.
//! - No secret gets in: addresses and texts go through [`crate::redact`].
//!
//! Does not know of plans, of what is overdue, nor of how anything is done.

mod backups;
mod columns;
mod error;
mod event;
mod file;
mod job;
pub mod proofs;
mod rebuild;
mod recorder;
mod room;
mod schema;
mod snapshots;
mod tidy;
mod verifications;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, TransactionBehavior};

pub use self::backups::{INCOMPLETE_TAG, KnownBackup, KnownRepository, LIVE_TAG, Listing, PROJECT_TAG, Size};
pub use self::error::Error;
use self::error::{Verdict, judge};
pub use self::event::{Event, Level};
use self::file::{Identity, Opened};
pub use self::job::{End, Figures, Job, JobKind, Outcome, Task};
pub use self::rebuild::{Found, Rebuilt, Source, list};
pub use self::recorder::Recorder;
pub use self::snapshots::KnownGuard;
pub use self::verifications::{Verification, Verified, Way};

/// The catalog's name in the state directory.
pub const FILE_NAME: &str = "catalog.sqlite";

/// An open catalog. Threads may share it.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    /// When it was opened, by the caller's clock and by one that nobody sets.
    opened: (Timestamp, Instant),
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    /// Of the file that is open.
    identity: Identity,
    moved: Vec<Moved>,
}

/// A damaged catalog was moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it is now.
    pub to: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

impl Catalog {
    /// Opens the file; makes it if it is not there. One that is damaged is moved aside, and begun anew: see
    /// [`Catalog::take_moved`].
    pub fn open(path: impl Into<PathBuf>, now: Timestamp) -> Result<Catalog, Error> {
        let path = path.into();
        let Opened { connection, identity, moved } = file::open(&path, schema::STEPS, now)?;
        let mut inner = Inner { connection, identity, moved: Vec::new() };
        inner.note(moved);
        Ok(Catalog { path, opened: (now, Instant::now()), inner: Mutex::new(inner) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Damaged catalogs that were moved aside since this was last asked.
    pub fn take_moved(&self) -> Vec<Moved> {
        std::mem::take(&mut self.inner().moved)
    }

    /// Looks at something, all of it as of one moment.
    fn read<T>(&self, act: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        self.run(TransactionBehavior::Deferred, act)
    }

    /// Changes something, whole or not at all.
    fn write<T>(&self, act: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        // A transaction that begins by reading may find that it cannot write any more.
        self.run(TransactionBehavior::Immediate, act)
    }

    fn run<T>(
        &self,
        behavior: TransactionBehavior,
        act: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let mut inner = self.inner();
        if !self.is_in_place(&inner) {
            // Deleted, or moved aside by somebody else: what is written to it would be lost.
            self.reopen(&mut inner)?;
        }
        let attempt = |inner: &mut Inner| -> Result<T, Attempt> {
            let transaction = inner.connection.transaction_with_behavior(behavior)?;
            let (found, known) = (schema::format(&transaction)?, schema::known(schema::STEPS));
            if found > known {
                // A newer program came since.
                return Err(Attempt::Newer(Error::Newer { path: self.path.clone(), found, known }));
            }
            let answer = act(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        };
        let source = match attempt(&mut inner) {
            Ok(answer) => return Ok(answer),
            Err(Attempt::Newer(error)) => return Err(error),
            Err(Attempt::Sqlite(source)) => source,
        };
        if self.is_in_place(&inner) {
            let verdict = match judge(&source) {
                Verdict::Unclear if !matches!(file::flaw(&inner.connection), Ok(None)) => Verdict::Damaged,
                verdict => verdict,
            };
            if verdict != Verdict::Damaged {
                return Err(file::error(&self.path, source, verdict));
            }
            if let Some(to) = file::move_aside(&self.path, inner.identity, self.now())? {
                inner.moved.push(Moved { to, reason: source.to_string() });
            }
        }
        self.reopen(&mut inner)?;
        attempt(&mut inner).map_err(|again| match again {
            Attempt::Newer(error) => error,
            Attempt::Sqlite(source) => {
                let verdict = judge(&source);
                file::error(&self.path, source, verdict)
            }
        })
    }

    /// Whether the file that is open still has its name.
    fn is_in_place(&self, inner: &Inner) -> bool {
        Identity::of(&self.path) == Some(inner.identity)
    }

    fn reopen(&self, inner: &mut Inner) -> Result<(), Error> {
        let Opened { connection, identity, moved } = file::open(&self.path, schema::STEPS, self.now())?;
        inner.connection = connection;
        inner.identity = identity;
        inner.note(moved);
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere rolled its transaction back.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time for the name of a damaged file, where nobody is there to tell it.
    fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.opened.1.elapsed()).unwrap_or_default();
        self.opened.0.checked_add(since).unwrap_or(self.opened.0)
    }
}

enum Attempt {
    Newer(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Attempt {
    fn from(error: rusqlite::Error) -> Attempt {
        Attempt::Sqlite(error)
    }
}

impl Inner {
    fn note(&mut self, moved: Option<(PathBuf, String)>) {
        self.moved.extend(moved.map(|(to, reason)| Moved { to, reason }));
    }
}
