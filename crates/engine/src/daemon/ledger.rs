//! What outlives the daemon: one small file that says of each task when it last ran, what is under way, and how often it
//! failed since.
//!
//! A run is written down before it begins and after it ended. Whoever finds one that began and did not end looks whether
//! its result is there, and only else does it again: so that a death between the two neither loses nor doubles it.
//!
//! The file can be lost: what there is (snapshots, backups) says when it was last made. It is bounded by the tasks of
//! the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snapshot::error::Error;
use snapshot::state;

use crate::moment::Moment;

/// The file's name in the state directory.
pub const FILE: &str = "schedule.json";
const FORMAT: u32 = 1;
/// Of an error's text; a hook that fails may say a lot.
const LONGEST_MESSAGE: usize = 2000;

/// What is remembered of all tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    format: u32,
    /// By [`Task::key`](super::Task::key).
    pub tasks: BTreeMap<String, Entry>,
}

/// What is remembered of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Since when the task is known.
    pub known: Moment,
    /// Whether it was found out when the task was done before it was known here.
    #[serde(default)]
    pub is_looked_up: bool,
    /// When the last run that succeeded began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Moment>,
    /// Since when the clock shows a time long before that: [`policy::schedule::Past`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<Timestamp>,
    /// When the run began that is under way, or was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Moment>,
    /// What went wrong since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Runs that failed since the last that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// How many.
    pub count: u32,
    /// When the first of them ended.
    pub since: Timestamp,
    /// When the last of them ended.
    pub at: Moment,
    /// What was wrong with it.
    pub message: String,
}

impl Failure {
    /// One more failure.
    pub(super) fn after(before: Option<Failure>, at: &Moment, message: &str) -> Failure {
        let cut = message.floor_char_boundary(LONGEST_MESSAGE);
        let (count, since) = before.map_or((0, at.wall), |failure| (failure.count, failure.since));
        Failure { count: count.saturating_add(1), since, at: at.clone(), message: message[..cut].to_owned() }
    }
}

impl Entry {
    /// A task that is seen for the first time.
    pub(super) fn new(known: Moment) -> Entry {
        Entry { known, is_looked_up: false, last: None, behind_since: None, begun: None, failure: None }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { format: FORMAT, tasks: BTreeMap::new() }
    }
}

/// A ledger that was read.
#[derive(Debug)]
pub struct Read {
    /// Empty if there is none that can be used.
    pub ledger: Ledger,
    /// The file was of no use: where it is now, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

/// Reads the ledger without changing anything, for whoever only looks: an empty one if there is none.
pub fn look(root: &Path) -> Result<Ledger, Error> {
    let path = root.join(FILE);
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Ledger::default()),
        text => text.map_err(Error::io("read", &path))?,
    };
    parse(&text).map_err(|reason| Error::Damaged { path, reason })
}

/// Reads the ledger. One that is damaged, or of another version, is kept beside and begun anew.
pub fn read(root: &Path) -> Result<Read, Error> {
    match look(root) {
        Ok(ledger) => Ok(Read { ledger, set_aside: None }),
        Err(Error::Damaged { path, reason }) => {
            let aside = path.with_extension("json.damaged");
            std::fs::rename(&path, &aside).map_err(Error::io("rename", &path))?;
            Ok(Read { ledger: Ledger::default(), set_aside: Some((aside, reason)) })
        }
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Result<Ledger, String> {
    let ledger: Ledger = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if ledger.format == FORMAT { Ok(ledger) } else { Err(format!("it is of version {}", ledger.format)) }
}

/// Writes the ledger, durably.
pub fn write(root: &Path, ledger: &Ledger) -> Result<(), Error> {
    state::write_file(root, FILE, ledger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment { wall: Timestamp::UNIX_EPOCH, boot: "boot".into(), since_boot_ms: 7 }
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let root = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let failure = Failure::after(None, &moment(), &"ä".repeat(LONGEST_MESSAGE));
        assert!(failure.message.len() <= LONGEST_MESSAGE);
        let entry = Entry { begun: Some(moment()), failure: Some(failure), ..Entry::new(moment()) };
        ledger.tasks.insert("expire".into(), entry);
        write(root.path(), &ledger).unwrap();
        let read = read(root.path()).unwrap();
        assert_eq!((read.ledger, read.set_aside), (ledger, None));
    }

    #[test]
    fn one_that_is_damaged_or_newer_is_kept_beside_and_begun_anew() {
        for text in ["", "{", "{\"format\":2,\"tasks\":{}}", "\0\0\0\0"] {
            let root = tempfile::tempdir().unwrap();
            std::fs::write(root.path().join(FILE), text).unwrap();
            assert!(look(root.path()).is_err(), "{text:?}");
            let read = read(root.path()).unwrap();
            assert_eq!(read.ledger, Ledger::default());
            let (aside, _) = read.set_aside.unwrap();
            assert_eq!(std::fs::read_to_string(aside).unwrap(), text);
            assert_eq!(look(root.path()).unwrap(), Ledger::default());
        }
    }
}
