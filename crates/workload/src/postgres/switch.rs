//! The restored database takes the name of the old one, in one transaction, while people use the old one.
//!
//! RENAME waits up to five seconds for others to leave, and who comes meanwhile waits for it (`RenameDatabase` takes the
//! lock that every new session needs). So one session renames, and another ends those that are still there. Killed at any
//! moment, the server rolls back, and everything is as it was.

use std::time::{Duration, Instant};

use super::client::{Client, identifier, literal};
use super::quiesce::SOON;
use super::unfinished::{Restore, named};
use crate::error::Error;

/// How often it is tried; each time the server waits five seconds.
const TRIES: u32 = 3;

/// Ends the sessions of a database.
pub(super) fn terminate(database: &str) -> String {
    let others = format!("datname = {} and pid <> pg_backend_pid()", literal(database));
    format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where {others};")
}

/// Switches over; gives the name under which the old one is kept.
pub(super) fn over(mut restore: Restore<'_>, comment: &str) -> Result<Option<String>, Error> {
    let kept = restore.exists.then(|| named(&restore.wanted, &format!("_before_{}", restore.mark)));
    let mut tried = 1;
    loop {
        let error = match rename(&mut restore, kept.as_deref(), comment) {
            Ok(()) => return Ok(kept),
            Err(error) => error,
        };
        let busy = error.to_string().contains("being accessed by other users");
        if busy && tried < TRIES && restore.client.ask("ROLLBACK", "rollback;", SOON).is_ok() {
            tried += 1;
            continue;
        }
        return Err(aside(&mut restore, comment, &error));
    }
}

fn rename(restore: &mut Restore<'_>, kept: Option<&str>, comment: &str) -> Result<(), Error> {
    if restore.client.ask("BEGIN", "begin;", SOON).is_err() {
        // Hours may have passed since it was asked last.
        restore.client = Restore::session(restore.login, restore.server, &restore.wanted)?;
        restore.client.ask("BEGIN", "begin;", SOON)?;
    }
    let client = &mut restore.client;
    // In this order, as the comment's statement names the database as it is called before.
    client.ask("COMMENT ON DATABASE", &format!("{comment};"), SOON)?;
    if let Some(kept) = kept {
        let mut other = Restore::session(restore.login, restore.server, &restore.wanted)?;
        free(client, &mut other, &restore.wanted, kept)?;
    }
    let rename =
        format!("alter database {} rename to {};", identifier(&restore.unfinished), identifier(&restore.wanted));
    client.ask("ALTER DATABASE", &rename, SOON)?;
    client.ask("COMMIT", "commit;", SOON).map(drop)
}

/// Renames the old one, ending whoever is in it.
fn free(client: &mut Client, other: &mut Client, old: &str, new: &str) -> Result<(), Error> {
    let until = Instant::now() + SOON;
    client.send("ALTER DATABASE", &format!("alter database {} rename to {};", identifier(old), identifier(new)))?;
    loop {
        // A session of a superuser's own may not be ended by whoever restores; then the rename says that it is in use.
        let ended = other.ask("pg_terminate_backend", &terminate(old), SOON);
        if let Some(renamed) = client.poll("ALTER DATABASE", Duration::from_millis(100))? {
            return renamed.map(drop);
        }
        if Instant::now() > until {
            return Err(ended.err().unwrap_or_else(|| client.failed("ALTER DATABASE", "no answer".to_owned())));
        }
    }
}

/// What is whole is not thrown away because its name is not free.
fn aside(restore: &mut Restore<'_>, comment: &str, error: &Error) -> Error {
    let name = named(&restore.wanted, &format!("_restored_{}", restore.mark));
    let unfinished = identifier(&restore.unfinished);
    let renamed = Restore::session(restore.login, restore.server, &restore.wanted).and_then(|mut client| {
        // If it is gone, the server has done that.
        let _ = restore.client.ask("ROLLBACK", "rollback;", SOON);
        client.ask("COMMENT ON DATABASE", &format!("{comment};"), SOON)?;
        client.ask("ALTER DATABASE", &format!("alter database {unfinished} rename to {};", identifier(&name)), SOON)
    });
    let reason = match renamed {
        Ok(_) => format!("{error}; the restored database is whole, and is called {name:?}"),
        Err(other) => format!("{error}; the restored database {unfinished} is whole, but cannot be renamed: {other}"),
    };
    restore.client.failed("switching over", reason)
}
