//! The two ways out of a rollback, the same whether it runs or is recovered: to its end, or back.

use std::time::{Duration, Instant};

use super::journal::{Journal, Phase};
use super::plan::Plan;
use super::{stale, units};
use crate::error::Error;
use crate::manage;
use crate::provider::Provider;
use crate::runner::{self, Runner};
use crate::state::Lock;

/// Between two tries of a probe.
const PAUSE: Duration = Duration::from_millis(250);

/// Called before every act, with what it does: for a display of progress.
pub type Observer<'a> = dyn FnMut(&str) + 'a;

/// What acting needs.
pub(super) struct Act<'a> {
    pub(super) lock: &'a Lock,
    pub(super) provider: &'a dyn Provider,
    pub(super) runner: &'a dyn Runner,
    pub(super) observe: &'a mut Observer<'a>,
}

impl Act<'_> {
    /// Up to the point of no return, and behind it. On an error all of it can be taken back.
    pub(super) fn switch(&mut self, journal: &mut Journal) -> Result<(), Error> {
        let plan = journal.plan.clone();
        self.units("stop", &plan.stop)?;
        if plan.is_safety_made {
            (self.observe)("keep the present state");
            manage::create_recorded(self.lock, self.provider, journal.safety.clone())?;
        } else {
            (self.observe)("record the present state");
            self.lock.state().save(&journal.safety)?;
        }
        for (index, step) in plan.switch.iter().enumerate() {
            (self.observe)("note the step");
            journal.phase = Phase::Switching(index + 1);
            journal.write(self.lock)?;
            (self.observe)(&step.name);
            self.provider.perform(step)?;
        }
        if !plan.is_safety_made {
            (self.observe)("record where the old tree lies");
            let kept = self.provider.list()?.into_iter().find(|(id, _)| *id == journal.id());
            let Some((_, handle)) = kept else {
                return Err(Error::refused("the old tree is not where the switch should have kept it"));
            };
            let mut safety = journal.safety.clone();
            safety.handle = Some(handle);
            self.lock.state().save(&safety)?;
        }
        if !plan.probe.is_empty() {
            self.start(journal)?;
            (self.observe)("probe");
            self.probe(&plan)?;
        }
        (self.observe)("note the switch");
        let switched = Journal { phase: Phase::Switched, ..journal.clone() };
        switched.write(self.lock)?;
        *journal = switched;
        Ok(())
    }

    /// From behind the point of no return to the end. Gives what went wrong and does not hinder it: units that do not
    /// start. `is_started` if they were started for the probe.
    pub(super) fn finish(&mut self, journal: &Journal, is_started: bool) -> Result<Option<Error>, Error> {
        let plan = &journal.plan;
        let started = if is_started { Ok(()) } else { self.start(journal) };
        if plan.is_snapshot_used_up && !self.provider.list()?.iter().any(|(id, _)| *id == plan.to) {
            (self.observe)("forget the snapshot that was used up");
            self.lock.state().forget(plan.to)?;
        }
        (self.observe)("clear the journal");
        journal.clear(self.lock)?;
        Ok(started.err())
    }

    /// Back to the state of before. Gives what went wrong and does not hinder it: units that do not start.
    pub(super) fn revert(&mut self, journal: &Journal) -> Result<Option<Error>, Error> {
        let Phase::Switching(begun) = journal.phase else {
            return Err(Error::refused("the rollback is past the point where it is taken back"));
        };
        let plan = &journal.plan;
        // They may have been started already, or never stopped; and one that cannot be stopped does not keep the old
        // tree from coming back.
        let _ = self.units("stop", &plan.stop);
        for step in plan.switch[..begun].iter().rev() {
            (self.observe)(&format!("take back: {}", step.name));
            self.provider.revert(step)?;
        }
        (self.observe)("forget the state that was kept");
        if plan.is_safety_made {
            manage::abandon(self.lock, self.provider, journal.id())?;
        } else if self.provider.list()?.iter().any(|(id, _)| *id == journal.id()) {
            // It is the only copy of the old state: never to be deleted here.
            return Err(Error::refused("the old tree is still where the switch kept it"));
        } else {
            self.lock.state().forget(journal.id())?;
        }
        let started = self.units("start", &plan.stop);
        (self.observe)("clear the journal");
        journal.clear(self.lock)?;
        Ok(started.err())
    }

    /// Tries until it succeeds, or the time is over.
    fn probe(&self, plan: &Plan) -> Result<(), Error> {
        let begin = Instant::now();
        loop {
            match runner::run(self.runner, &plan.probe[0], &plan.probe[1..]) {
                Err(_) if begin.elapsed() < Duration::from_secs(plan.probe_secs) => std::thread::sleep(PAUSE),
                tried => return tried.map(drop),
            }
        }
    }

    /// Starts and restarts; does both even if the first fails.
    fn start(&mut self, journal: &Journal) -> Result<(), Error> {
        for path in &journal.plan.stale {
            (self.observe)(&format!("remove the stale {}", path.display()));
            stale::remove(&journal.plan.directory.join(path))?;
        }
        let started = self.units("start", &journal.plan.stop);
        let restarted = self.units("restart", &journal.plan.restart);
        started.and(restarted)
    }

    fn units(&mut self, verb: &'static str, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        (self.observe)(verb);
        match verb {
            "stop" => units::stop(self.runner, names),
            "start" => units::start(self.runner, names),
            _ => units::restart(self.runner, names),
        }
    }
}
