//! Snapshots and guards. Their truth is in the state directory, which is on this machine: the catalog repeats it, so that
//! all that is asked is asked in one place.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use snapshot::id::Id;
use snapshot::record::Record;

use super::columns::{self, millis};
use super::{Catalog, Error};
use crate::guard::document::{Guard, Outcome, Phase};
use crate::redact;

/// What is known of a guard. Of its command, the program alone: arguments may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownGuard {
    /// Of its snapshot.
    pub id: Id,
    /// Around what.
    pub directory: std::path::PathBuf,
    /// What was run.
    pub program: String,
    /// When it began.
    pub started: Timestamp,
    /// When and how it ended.
    pub ended: Option<(Timestamp, Outcome)>,
}

impl KnownGuard {
    /// What its document says.
    pub fn of(guard: &Guard) -> KnownGuard {
        let ended = match &guard.phase {
            Phase::Ended { at, outcome: Outcome::Failed { message } } => {
                Some((*at, Outcome::Failed { message: redact::text(message) }))
            }
            Phase::Ended { at, outcome } => Some((*at, outcome.clone())),
            Phase::Running | Phase::Waiting | Phase::RollingBack => None,
        };
        let program = guard.command.split_whitespace().next().unwrap_or_default();
        KnownGuard {
            id: guard.id,
            directory: guard.directory.clone(),
            program: redact::text(program),
            started: guard.started,
            ended,
        }
    }
}

impl Catalog {
    /// Records a snapshot as it is now: when it was made, held, or given another expiry.
    pub fn record_snapshot(&self, record: &Record) -> Result<(), Error> {
        self.write(|connection| insert(connection, record))
    }

    /// Records that a snapshot is gone.
    pub fn forget_snapshot(&self, id: Id) -> Result<(), Error> {
        self.write(|connection| {
            connection.execute("DELETE FROM snapshots WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Records what there is, and that whatever else is known of is gone. `list` is called while nobody else changes the
    /// catalog; as snapshots are in the state directory before they are recorded, none is missed.
    pub fn replace_snapshots<E>(&self, list: impl Fn() -> Result<Vec<Record>, E>) -> Result<Result<usize, E>, Error> {
        self.write(|connection| {
            let records = match list() {
                Ok(records) => records,
                Err(error) => return Ok(Err(error)),
            };
            connection.execute("DELETE FROM snapshots", [])?;
            // One without a handle is being made, or was never finished.
            let finished = records.iter().filter(|record| record.handle.is_some());
            let mut count = 0;
            for record in finished {
                insert(connection, record)?;
                count += 1;
            }
            Ok(Ok(count))
        })
    }

    /// The snapshots that are known, newest first.
    pub fn snapshots(&self) -> Result<Vec<Record>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT document FROM snapshots ORDER BY created DESC, id")?;
            statement.query_map([], |row| columns::document(row, 0))?.collect()
        })
    }

    /// Records guards as they are now.
    pub fn record_guards(&self, guards: &[Guard]) -> Result<(), Error> {
        self.write(|connection| {
            let text = "INSERT OR REPLACE INTO guards (id, directory, started, document) VALUES (?1, ?2, ?3, ?4)";
            let mut statement = connection.prepare(text)?;
            for known in guards.iter().map(KnownGuard::of) {
                let document = serde_json::to_string(&known).expect("our documents have string keys only");
                let directory = known.directory.to_string_lossy();
                statement.execute(params![known.id.to_string(), directory, millis(known.started), document])?;
            }
            Ok(())
        })
    }

    /// The newest guards, newest first. Those that ended long ago are known here alone.
    pub fn guards(&self, at_most: u32) -> Result<Vec<KnownGuard>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT document FROM guards ORDER BY started DESC, id LIMIT ?1")?;
            statement.query_map([at_most], |row| columns::document(row, 0))?.collect()
        })
    }
}

fn insert(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    let clean = Record { note: redact::text(&record.note), ..record.clone() };
    let document = serde_json::to_string(&clean).expect("our documents have string keys only");
    let text = "INSERT OR REPLACE INTO snapshots (id, project, directory, created, document) VALUES (?1,?2,?3,?4,?5)";
    let directory = clean.directory.to_string_lossy();
    connection
        .execute(text, params![clean.id.to_string(), clean.project, directory, millis(clean.created), document])?;
    Ok(())
}
