//! The two ways out of a rollback, the same whether it runs or is recovered: to its end, or back.

use std::time::{Duration, Instant};

use super::journal::{Journal, Phase};
use super::plan::Plan;
use super::{stale, units};
use crate::error::Error;
use crate::manage;
use crate::provider::{Provider, Step};
use crate::record::Record;
use crate::runner::{self, Runner};
use crate::state::Lock;

/// Between two tries of a probe.
const PAUSE: Duration = Duration::from_millis(250);

/// Called before every act, with what it does: for a display of progress.
pub type Observer<'a> = dyn FnMut(&str) + 'a;

/// What acting needs.
pub(super) struct Act<'a> {
    pub(super) lock: &'a Lock,
    /// Of the plan's parts, in their order.
    pub(super) providers: &'a [&'a dyn Provider],
    pub(super) runner: &'a dyn Runner,
    pub(super) observe: &'a mut Observer<'a>,
}

impl<'a> Act<'a> {
    /// Up to the point of no return, and behind it. On an error all of it can be taken back.
    pub(super) fn switch(&mut self, journal: &mut Journal) -> Result<(), Error> {
        let plan = journal.plan.clone();
        self.units("stop", &plan.stop)?;
        for ((part, provider), safety) in plan.parts.iter().zip(self.providers).zip(&journal.safeties) {
            if part.is_safety_made {
                (self.observe)("keep the present state");
                manage::create_recorded(self.lock, *provider, safety.clone())?;
            } else {
                (self.observe)("record the present state");
                self.lock.state().save(safety)?;
            }
        }
        for (index, (provider, step)) in self.steps(&plan).enumerate() {
            (self.observe)("note the step");
            journal.phase = Phase::Switching(index + 1);
            journal.write(self.lock)?;
            (self.observe)(&step.name);
            provider.perform(step)?;
        }
        for ((part, provider), safety) in plan.parts.iter().zip(self.providers).zip(&journal.safeties) {
            if part.is_safety_made {
                continue;
            }
            (self.observe)("record where the old tree lies");
            let kept = provider.list()?.into_iter().find(|(id, _)| *id == part.safety);
            let Some((_, handle)) = kept else {
                return Err(Error::refused("the old tree is not where the switch should have kept it"));
            };
            self.lock.state().save(&Record { handle: Some(handle), ..safety.clone() })?;
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
        for (part, provider) in plan.parts.iter().zip(self.providers) {
            if part.is_snapshot_used_up && !provider.list()?.iter().any(|(id, _)| *id == part.to) {
                (self.observe)("forget the snapshot that was used up");
                self.lock.state().forget(part.to)?;
            }
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
        let steps: Vec<_> = self.steps(plan).take(begun).collect();
        for (provider, step) in steps.into_iter().rev() {
            (self.observe)(&format!("take back: {}", step.name));
            provider.revert(step)?;
        }
        for (part, provider) in plan.parts.iter().zip(self.providers) {
            (self.observe)("forget the state that was kept");
            if part.is_safety_made {
                manage::abandon(self.lock, *provider, part.safety)?;
            } else if provider.list()?.iter().any(|(id, _)| *id == part.safety) {
                // It is the only copy of the old state: never to be deleted here.
                return Err(Error::refused("the old tree is still where the switch kept it"));
            } else {
                self.lock.state().forget(part.safety)?;
            }
        }
        let started = self.units("start", &plan.stop);
        (self.observe)("clear the journal");
        journal.clear(self.lock)?;
        Ok(started.err())
    }

    /// The steps of all parts, in the order in which the journal counts them.
    fn steps<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = (&'a dyn Provider, &'p Step)> + use<'a, 'p> {
        let parts = plan.parts.iter().zip(self.providers);
        parts.flat_map(|(part, provider)| part.switch.iter().map(move |step| (*provider, step)))
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
        for part in &journal.plan.parts {
            for path in &part.stale {
                (self.observe)(&format!("remove the stale {}", path.display()));
                stale::remove(&part.directory.join(path))?;
            }
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
