//! Which snapshots have had their time, and what to warn about.
//!
//! Deciding is a function of the records and the time; the caller may take out of the decision what it knows a reason
//! to keep. Invariant: only what has a record and lies where the record says is deleted, and nothing that is held.
//!
//! Does not know of clocks and schedules.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::error::Error;
use crate::id::Id;
use crate::manage::{self, Deleted};
use crate::provider::{Open, Space};
use crate::record::{Purpose, Record};
use crate::state::Lock;

/// The ids of those that are to go, oldest first. One whose creation was cut short is not among them: cleaning up
/// after it is part of the next change of its directory.
pub fn decide(records: &[Record], now: Timestamp) -> Vec<Id> {
    let is_over = |record: &&Record| {
        !record.is_held && record.handle.is_some() && record.expires.is_some_and(|expires| expires <= now)
    };
    let mut over: Vec<&Record> = records.iter().filter(is_over).collect();
    over.sort_by_key(|record| (record.created, record.id));
    over.into_iter().map(|record| record.id).collect()
}

/// Deletes those that were decided on; one that cannot be deleted does not stop the others. A record that was held or
/// given a longer life since the decision is left alone.
pub fn perform(lock: &Lock, decided: &[Id], now: Timestamp, open: &Open<'_>) -> Vec<(Id, Result<Deleted, Error>)> {
    let delete = |id: Id| {
        let record = lock.state().record(id)?;
        let Some(handle) = record.handle.as_ref().filter(|_| decide(std::slice::from_ref(&record), now) == [id]) else {
            return Err(Error::refused(format!("snapshot {id} is to be kept by now")));
        };
        let provider = open(&record.directory, handle)?;
        manage::delete(lock, &*provider, id)
    };
    decided.iter().map(|id| (*id, delete(*id))).collect()
}

/// From when on to warn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Snapshots older than this.
    pub age: SignedDuration,
    /// Snapshots since which the live tree has grown by more than this, in bytes.
    pub grown: u64,
    /// File systems with less free space than this, in bytes.
    pub free: u64,
}

/// Something to warn about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
pub enum Warning {
    /// A snapshot is older than snapshots are meant to become.
    Old {
        /// Which.
        id: Id,
        /// How old it is.
        age_secs: i64,
    },
    /// A snapshot keeps much that the live tree has replaced since.
    Grown {
        /// Which.
        id: Id,
        /// By how much.
        grown: u64,
    },
    /// The file system under a directory with snapshots runs full.
    LowSpace {
        /// The directory.
        directory: PathBuf,
        /// What is left.
        free: u64,
    },
}

/// What to warn about: `space` says how much room a snapshot takes, `free` how much is left under a directory, each
/// `None` where it is not known.
pub fn warnings(
    records: &[Record],
    now: Timestamp,
    limits: Limits,
    space: &dyn Fn(&Record) -> Option<Space>,
    free: &dyn Fn(&Path) -> Option<u64>,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let finished = || records.iter().filter(|record| record.handle.is_some());
    for record in finished() {
        let age = manage::age(record, now);
        // What the next backup is compared with lives from one backup to the next.
        if age > limits.age && record.purpose != Purpose::Backup {
            warnings.push(Warning::Old { id: record.id, age_secs: age.as_secs() });
        }
        if let Some(grown) = space(record).and_then(|space| space.grown).filter(|grown| *grown > limits.grown) {
            warnings.push(Warning::Grown { id: record.id, grown });
        }
    }
    let mut directories: Vec<&Path> = finished().map(|record| &*record.directory).collect();
    directories.sort_unstable();
    directories.dedup();
    for directory in directories {
        if let Some(free) = free(directory).filter(|free| *free < limits.free) {
            warnings.push(Warning::LowSpace { directory: directory.to_owned(), free });
        }
    }
    warnings
}

/// Bytes that are free for ordinary users on the file system under a path, statvfs(3).
pub fn free_space(path: &Path) -> Result<u64, Error> {
    let answer = rustix::fs::statvfs(path).map_err(Error::io("look for free space under", path))?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}
