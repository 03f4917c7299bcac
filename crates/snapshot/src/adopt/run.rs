//! A move from its first step to its last, or back to the first one.

use super::job::Job;
use super::perform::Hands;
use super::step::Step;
use crate::error::Error;
use crate::journal;
use crate::runner::Runner;
use crate::state::Lock;

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
