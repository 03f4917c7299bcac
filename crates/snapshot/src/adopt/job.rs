//! A move, onto a volume or back, as it is written to the journal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::{Hands, Step};
use super::volume::Volume;
use crate::error::Error;
use crate::id::Id;
use crate::journal::{self, Entry};
use crate::runner::Runner;
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

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps were performed.
    Finished,
    /// Everything is as it was before.
    Reverted,
}

/// Told before each step, and once more at the end.
pub type Observe<'a> = dyn FnMut(&'static str) + 'a;

impl Job {
    /// Performs all steps. Where one fails before the switch, everything is put back as it was; after the switch, what is
    /// left to do stays in the journal for [`Job::finish`].
    pub fn run(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<(), Error> {
        journal::refuse_if_switching(lock.state(), &self.volume.directory)?;
        self.write(lock)?;
        let Err(error) = self.go_on(lock, runner, observe) else { return Ok(()) };
        if !self.is_switched()? {
            self.go_back(lock, runner, observe)?;
        }
        Err(error)
    }

    /// What a crash left unfinished.
    pub fn unfinished(state: &State) -> Result<Vec<Job>, Error> {
        Ok(journal::of::<Job>(state, CHANGE)?.into_iter().map(|(_, entry)| entry.details).collect())
    }

    /// Finishes what was cut short.
    pub fn finish(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<(), Error> {
        self.go_on(lock, runner, observe)
    }

    /// Puts everything back as it was before what was cut short.
    ///
    /// # Errors
    /// Refused after the switch: programs may have written to the new place.
    pub fn revert(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<(), Error> {
        if self.is_switched()? {
            let message =
                format!("{} was switched already; what is left can only be finished", self.volume.directory.display());
            return Err(Error::refused(message).or("finish it, and then go the other way"));
        }
        self.go_back(lock, runner, observe)
    }

    /// Finishes it if the switch was reached, else reverts it.
    pub fn settle(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<Ended, Error> {
        match self.is_switched()? {
            true => self.finish(lock, runner, observe).map(|()| Ended::Finished),
            false => self.revert(lock, runner, observe).map(|()| Ended::Reverted),
        }
    }

    fn write(&self, lock: &Lock) -> Result<(), Error> {
        let entry = Entry {
            change: CHANGE.to_owned(),
            directory: self.directory(),
            snapshots: Vec::new(),
            is_switching: true,
            details: self.clone(),
        };
        journal::write(lock, self.id, &entry)
    }

    fn directory(&self) -> PathBuf {
        self.volume.directory.clone()
    }

    fn go_on(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<(), Error> {
        let mut hands = Hands { runner, verified: None };
        let mut job = self.clone();
        for step in &self.steps {
            observe(step.name());
            // What the journal says of an earlier try may be overtaken, unless the switch was reached.
            let is_complete = match step {
                Step::CopyRest if !job.is_switched()? => false,
                // Before the next start of the system would show the other side.
                Step::EnableUnit | Step::DisableUnit | Step::Switch | Step::SwitchBack => true,
                _ => job.is_complete,
            };
            if is_complete != job.is_complete {
                job.is_complete = is_complete;
                job.write(lock)?;
            }
            job.perform_step(*step, &mut hands)?;
        }
        observe("clear the journal");
        journal::clear(lock, self.id)
    }

    fn go_back(&self, lock: &Lock, runner: &dyn Runner, observe: &mut Observe<'_>) -> Result<(), Error> {
        let mut hands = Hands { runner, verified: None };
        for step in self.steps.iter().rev() {
            observe(step.name());
            self.revert_step(*step, &mut hands)?;
        }
        observe("clear the journal");
        journal::clear(lock, self.id)
    }
}
