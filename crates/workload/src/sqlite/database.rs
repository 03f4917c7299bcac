//! One open database of somebody else's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::locks::Locking;
use crate::address::Address;
use crate::error::Error;

/// An open database. Everything that SQLite does with it is done within [`Database::run`].
pub(super) struct Database {
    /// Taken when it is dropped.
    connection: Option<Connection>,
    /// Without symbolic links: what belongs to it lies beside this one.
    pub(super) path: PathBuf,
}

impl Database {
    /// Opens a file that is there. Nothing is read yet.
    pub(super) fn open(path: &Path) -> Result<Database, Error> {
        let address = || Address::Sqlite(path.to_owned()).to_string();
        let unreachable = |reason: String| Error::Unreachable { address: address(), reason };
        // Never opened here: closing it again would cost locks of ours.
        let path = match fs::canonicalize(path).and_then(|path| Ok((fs::metadata(&path)?, path))) {
            Ok((found, path)) if found.is_file() => path,
            Ok(_) => return Err(unreachable("it is no file".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(unreachable("there is no such file".to_owned()));
            }
            Err(error) => return Err(unreachable(error.to_string())),
        };
        let _locking = locking()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&path, flags)?;
            // Neither triggers nor views of a file that we only copy are run.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            // A log that was there stays for whoever wrote it; one that comes with this opening goes again.
            let log = beside(&path, "-wal");
            if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
                connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            }
            connection.busy_timeout(Duration::from_secs(5))?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(&path, "opening it", &error))?;
        Ok(Database { connection: Some(connection), path })
    }

    /// Does something with it. `what` is for the error: "reading it".
    pub(super) fn run<T>(&self, what: &str, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let _locking = locking()?;
        let connection = self.connection.as_ref().ok_or_else(|| Error::Refused("it is closed".to_owned()))?;
        run(connection).map_err(|error| failed(&self.path, what, &error))
    }

    /// Whether it has a write-ahead log.
    pub(super) fn has_log(&self) -> Result<bool, Error> {
        let mode = |connection: &Connection| connection.query_row("PRAGMA journal_mode", [], |row| row.get(0));
        let mode: String = self.run("reading it", mode)?;
        Ok(mode.eq_ignore_ascii_case("wal"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _locking = Locking::begin();
        drop(self.connection.take());
    }
}

fn locking() -> Result<Locking, Error> {
    Locking::begin()
        .ok_or_else(|| Error::Refused("SQLite files in use cannot be locked safely on this system".to_owned()))
}

/// A file that belongs to a database: its name with something behind it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What SQLite says, with what it means for this file.
pub(super) fn failed(path: &Path, what: &str, error: &rusqlite::Error) -> Error {
    let address = Address::Sqlite(path.to_owned()).to_string();
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            "it is no SQLite database, or an encrypted one, which only its own program can read".to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}); snapback database restore brings back an older state")
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has it locked, and did not let go in time".to_owned()
        }
        Some(ErrorCode::CannotOpen) => return Error::Unreachable { address, reason: error.to_string() },
        _ => error.to_string(),
    };
    Error::Failed { address, what: what.to_owned(), reason }
}
