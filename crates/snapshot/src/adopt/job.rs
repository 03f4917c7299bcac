//! A move, onto a volume or back, as it is written to the journal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::Step;
use super::volume::Volume;
use crate::error::Error;
use crate::id::Id;
use crate::journal::{self, Entry};
use crate::state::{Lock, State};

/// What the journal calls it.
pub const CHANGE: &str = "adopt";

/// What is to be done, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name in the journal.
    pub id: Id,
    /// From the volume back into the directory.
    pub is_back: bool,
    /// The volume.
    pub volume: Volume,
    /// Its size.
    pub bytes: u64,
    /// Units that are stopped meanwhile.
    pub stopped: Vec<String>,
    /// In their order.
    pub steps: Vec<Step>,
    /// Source and target were found equal while nobody could write, and nothing but the switch was left to do.
    pub is_complete: bool,
}

impl Job {
    /// What a crash left unfinished.
    pub fn unfinished(state: &State) -> Result<Vec<Job>, Error> {
        Ok(journal::of::<Job>(state, CHANGE)?.into_iter().map(|(_, entry)| entry.details).collect())
    }

    /// Writes it to the journal, durably.
    pub(super) fn write(&self, lock: &Lock) -> Result<(), Error> {
        let entry = Entry {
            change: CHANGE.to_owned(),
            directories: vec![self.directory()],
            snapshots: Vec::new(),
            is_switching: true,
            details: self.clone(),
        };
        journal::write(lock, self.id, &entry)
    }

    fn directory(&self) -> PathBuf {
        self.volume.directory.clone()
    }
}
