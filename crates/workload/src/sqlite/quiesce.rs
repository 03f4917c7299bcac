//! A SQLite file at the moment of a snapshot: its write lock is held, so that no transaction is under way, neither the
//! database nor its log is begun anew, and also a snapshot that takes one file after the other has both as they belong
//! together. Readers go on.
//!
//! The lock is a file's (`BEGIN IMMEDIATE`), and is gone when this process is.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::database::Database;
use crate::error::Error;
use crate::quiesce::moment::{Files, How, Layout, LayoutOf, Released};

/// So long is waited for a transaction that is under way, while nobody is held yet.
const PATIENCE: Duration = Duration::from_secs(2);
/// And while other databases may be held.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// Between two tries: short, as between two transactions of a busy writer there is little time.
const PAUSE: Duration = Duration::from_micros(200);

/// Where it is: the file, and its log beside it.
pub(crate) fn files(path: &Path) -> Result<Files, Error> {
    Ok(found(&Database::open(path)?))
}

fn found(database: &Database) -> Files {
    Files { server: super::version(), directory: database.path.clone(), others: Vec::new(), log: None }
}

/// A file that is open, and that nobody else was writing to.
pub(crate) struct Approached {
    database: Database,
    server: String,
}

impl Approached {
    pub(crate) fn new(path: &Path, layout: &LayoutOf<'_>) -> Result<Approached, Error> {
        let database = Database::open(path)?;
        if layout(&found(&database)) == Layout::Outside {
            return Err(Error::Refused("its file is not in the snapshot".to_owned()));
        }
        let approached = Approached { database, server: super::version() };
        // A long transaction is noticed before anything else is held, and what a crash left is recovered.
        approached.lock(PATIENCE)?;
        approached.unlock()?;
        Ok(approached)
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn hold(&mut self) -> Result<(), Error> {
        self.lock(IMPATIENCE)
    }

    pub(crate) fn release(self) -> Result<Released, Error> {
        self.unlock()?;
        Ok(Released { how: How::WriteLock, beside: Vec::new() })
    }

    fn lock(&self, patience: Duration) -> Result<(), Error> {
        let until = Instant::now() + patience;
        loop {
            let locked = self.database.run("locking it", |connection: &Connection| {
                connection.busy_timeout(Duration::ZERO)?;
                match connection.execute_batch("BEGIN IMMEDIATE") {
                    Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
                    begun => begun.map(|()| true),
                }
            })?;
            if locked {
                return Ok(());
            }
            if Instant::now() >= until {
                let why = format!("another program has been writing to it for {} ms", patience.as_millis());
                return Err(Error::Refused(why));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn unlock(&self) -> Result<(), Error> {
        self.database.run("letting it go", |connection| connection.execute_batch("ROLLBACK"))
    }
}
