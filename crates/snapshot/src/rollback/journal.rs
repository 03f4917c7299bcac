//! What a rollback writes down before it does it.

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::error::Error;
use crate::id::Id;
use crate::journal::{self, Entry};
use crate::record::Record;
use crate::state::{Lock, State};

const CHANGE: &str = "rollback";

/// How far a rollback has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Up to so many steps of the switch may have been performed. To be taken back if it is cut short.
    Switching(usize),
    /// The point of no return is behind. To be finished if it is cut short.
    Switched,
}

/// One rollback under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) phase: Phase,
    pub(super) plan: Plan,
    /// The records of the present state that is kept, one for each part of the plan; without their handles.
    pub(super) safeties: Vec<Record>,
}

impl Journal {
    /// Its name: that of the first state that is kept.
    fn id(&self) -> Id {
        self.plan.parts[0].safety
    }

    pub(super) fn write(&self, lock: &Lock) -> Result<(), Error> {
        let entry = Entry {
            change: CHANGE.to_owned(),
            directories: self.plan.directories(),
            snapshots: self.plan.parts.iter().flat_map(|part| [part.to, part.safety]).collect(),
            is_switching: true,
            details: self,
        };
        journal::write(lock, self.id(), &entry)
    }

    pub(super) fn clear(&self, lock: &Lock) -> Result<(), Error> {
        journal::clear(lock, self.id())
    }

    /// All that were cut short.
    pub(super) fn all(state: &State) -> Result<Vec<Journal>, Error> {
        let all = journal::of::<Journal>(state, CHANGE)?.into_iter().map(|(_, entry)| entry.details);
        // One of no directory has nothing to finish.
        Ok(all.filter(|journal| !journal.plan.parts.is_empty()).collect())
    }
}
