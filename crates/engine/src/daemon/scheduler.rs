//! What to start now, and when to look again: decided from the plan, the ledger, what runs, and the time.
//!
//! The invariant: of each occurrence of a schedule there is one run that succeeds, not two and not none, whatever
//! happens to the clock and to the daemon; of several that were missed, one. Of a project, and of a repository, one
//! task runs at a time.
//!
//! Does no I/O and asks for no time. Whoever calls writes the ledger down after each change, and before what was started
//! does anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use policy::schedule::{Past, Schedule};

use super::ledger::{Entry, Failure, Ledger};
use super::task::{Planned, Task};
use crate::moment::Moment;

/// Until a task that failed is tried again; doubled with each failure.
const RETRY_AFTER: Duration = Duration::from_secs(60);
const RETRY_AT_MOST: Duration = Duration::from_secs(3600);
/// Until one is tried again that found somebody else at work.
const BUSY_AGAIN: Duration = Duration::from_secs(30);
/// What was missed begins spread, too, but soon: after a power cut a whole rack starts in the same minute.
const CATCH_UP_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Done,
    /// It is done, but somebody should look.
    Incomplete(String),
    /// It cannot be done here, and will not be until somebody changes something. Counts as done: there is no use in trying
    /// again before the next time.
    Impossible(String),
    /// It had been done before, at this time: the run that did it did not live to say so.
    Found(Timestamp),
    /// The answer to [`Step::Look`].
    Looked(Option<Timestamp>),
    /// Somebody else works with the project or the repository.
    Busy(String),
    /// It was asked to stop.
    Stopped,
    /// It failed, and is tried again.
    Failed(String),
}

/// A task to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// What.
    pub task: Task,
    /// What is to be done for it.
    pub step: Step,
}

/// What is to be done for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To find out when it was last done: it is new here, or what was remembered is lost.
    Look,
    /// The task.
    Run,
    /// The task, unless what it makes is there, made at this time or later: a run that began then was cut short.
    GoOn(Timestamp),
}

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Which.
    pub task: &'a Task,
    /// When it last succeeded; its beginning.
    pub last: Option<Timestamp>,
    /// When it is due by its schedule; past if it is due.
    pub due: Option<Timestamp>,
    /// How long until it starts, unless something else is in its way.
    pub wait: Option<Duration>,
    /// Whether it runs.
    pub is_running: bool,
    /// What went wrong since it last succeeded.
    pub failure: Option<&'a Failure>,
}

/// The tasks, and what is known of them.
#[derive(Debug)]
pub struct Scheduler {
    plan: Vec<Planned>,
    ledger: Ledger,
    zone: TimeZone,
    running: BTreeMap<Task, Moment>,
    /// Found somebody else at work.
    busy: BTreeMap<Task, Moment>,
    started: Moment,
    patience: Patience,
}

/// How long to wait for what could be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// There is time: what is overdue at the start is made up for soon, but not by all machines in the same minute, where
    /// its schedule is spread.
    Long,
    /// Somebody waits: all that is due begins at once, also what failed shortly before the start.
    None,
}

impl Scheduler {
    /// With nothing planned.
    pub fn new(ledger: Ledger, started: Moment, patience: Patience) -> Scheduler {
        let (running, busy) = (BTreeMap::new(), BTreeMap::new());
        Scheduler { plan: Vec::new(), ledger, zone: TimeZone::UTC, running, busy, started, patience }
    }

    /// What is to be written down.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What runs, and since when.
    pub fn running(&self) -> impl Iterator<Item = (&Task, &Moment)> {
        self.running.iter()
    }

    /// What is to be done from now on, by the clocks of this zone. What runs goes on.
    pub fn plan(&mut self, plan: Vec<Planned>, zone: TimeZone, now: &Moment) {
        let keys: BTreeSet<String> = plan.iter().map(|planned| planned.task.key()).collect();
        self.ledger.tasks.retain(|key, _| keys.contains(key));
        for key in keys {
            self.ledger.tasks.entry(key).or_insert_with(|| Entry::new(now.clone()));
        }
        (self.plan, self.zone) = (plan, zone);
    }

    /// What is due and can begin now, the most overdue first. It counts as running from now on.
    pub fn start(&mut self, now: &Moment) -> Vec<Start> {
        for entry in self.ledger.tasks.values_mut() {
            entry.behind_since = past(entry).seen(now.wall).behind_since;
        }
        let mut found: Vec<(Timestamp, Task)> = Vec::new();
        for planned in &self.plan {
            let Some(entry) = self.ledger.tasks.get(&planned.task.key()) else { continue };
            let due = self.due(planned, entry, now);
            if let Some((due, _)) = due.filter(|(due, wait)| *due <= now.wall && wait.is_zero()) {
                found.push((due, planned.task.clone()));
            }
        }
        found.sort();
        let mut starts = Vec::new();
        for (_, task) in found {
            if self.is_blocked(&task) {
                continue;
            }
            let Some(entry) = self.ledger.tasks.get_mut(&task.key()) else { continue };
            let step = match &entry.begun {
                _ if !entry.is_looked_up => Step::Look,
                Some(begun) => Step::GoOn(begun.wall),
                None => Step::Run,
            };
            if step == Step::Run {
                entry.begun = Some(now.clone());
            }
            self.busy.remove(&task);
            self.running.insert(task.clone(), now.clone());
            starts.push(Start { task, step });
        }
        starts
    }

    /// A task has ended.
    pub fn end(&mut self, task: &Task, outcome: &Outcome, now: &Moment) {
        let started = self.running.remove(task).unwrap_or_else(|| now.clone());
        // Not planned any more.
        let Some(entry) = self.ledger.tasks.get_mut(&task.key()) else { return };
        entry.begun = None;
        let known = Entry { is_looked_up: true, ..Entry::new(entry.known.clone()) };
        match outcome {
            Outcome::Done | Outcome::Incomplete(_) | Outcome::Impossible(_) => {
                *entry = Entry { last: Some(started), ..known }
            }
            Outcome::Found(made) => *entry = Entry { last: Some(of_no_boot(*made)), ..known },
            Outcome::Looked(made) => *entry = Entry { last: made.map(of_no_boot), ..known },
            Outcome::Busy(_) => drop(self.busy.insert(task.clone(), now.clone())),
            Outcome::Stopped => {}
            Outcome::Failed(message) => {
                entry.failure = Some(Failure::after(entry.failure.take(), now, message));
            }
        }
    }

    /// How long nothing can be started, if nothing ends and nobody sets the clock.
    pub fn idle(&self, now: &Moment) -> Duration {
        let waits = self.standings(now).into_iter().filter(|standing| !self.is_blocked(standing.task));
        waits.filter_map(|standing| standing.wait).min().unwrap_or(Duration::MAX)
    }

    /// All tasks, in the order of the plan.
    pub fn standings(&self, now: &Moment) -> Vec<Standing<'_>> {
        let mut standings = Vec::new();
        for planned in &self.plan {
            let task = &planned.task;
            let Some(entry) = self.ledger.tasks.get(&task.key()) else { continue };
            let due = self.due(planned, entry, now);
            standings.push(Standing {
                task,
                last: entry.last.as_ref().map(|last| last.wall),
                due: due.map(|(due, _)| due),
                wait: due.map(|(_, wait)| wait),
                is_running: self.running.contains_key(task),
                failure: entry.failure.as_ref(),
            });
        }
        standings
    }

    /// When a task is due by its schedule, and how long it has to wait from now: also after a failure, or when it found
    /// somebody at work.
    fn due(&self, planned: &Planned, entry: &Entry, now: &Moment) -> Option<(Timestamp, Duration)> {
        if !entry.is_looked_up {
            return Some((now.wall, Duration::ZERO));
        }
        let Planned { task, schedule, seed } = planned;
        let due = by_schedule(planned, entry, now, &self.zone)?;
        let rest = |from: &Moment, time: Duration| from.after(time).remaining(now, time);
        let failure = entry.failure.as_ref().filter(|failure| {
            let is_since_start =
                failure.at.boot == self.started.boot && failure.at.since_boot_ms >= self.started.since_boot_ms;
            self.patience == Patience::Long || is_since_start
        });
        let failed = failure.map(|failure| rest(&failure.at, retry_after(failure.count)));
        let busy = self.busy.get(task).map(|from| rest(from, BUSY_AGAIN));
        let is_overdue = self.patience == Patience::Long && due <= self.started.wall;
        let catches_up = is_overdue.then(|| {
            let late = schedule.late(self.started.wall, &self.zone, seed, CATCH_UP_WITHIN);
            rest(&self.started, Duration::try_from(late).unwrap_or_default())
        });
        let until_due = Duration::try_from(due.duration_since(now.wall)).unwrap_or_default();
        let waits = [failed, busy, catches_up].into_iter().flatten();
        Some((due, waits.fold(until_due, Duration::max)))
    }

    /// Whether something that runs is in the way of a task.
    fn is_blocked(&self, task: &Task) -> bool {
        self.running.keys().any(|running| excludes(running, task))
    }
}

/// Whether a task must wait for the end of another.
fn excludes(running: &Task, other: &Task) -> bool {
    let is_same = |one: Option<&str>, two: Option<&str>| one.is_some() && one == two;
    running == other || is_same(running.project(), other.project()) || is_same(running.repository(), other.repository())
}

/// Only the wall clock tells how long ago it was.
fn of_no_boot(wall: Timestamp) -> Moment {
    Moment { wall, boot: String::new(), since_boot_ms: 0 }
}

fn past(entry: &Entry) -> Past {
    let last = entry.last.as_ref().unwrap_or(&entry.known).wall;
    Past { last, behind_since: entry.behind_since }
}

/// When a task is due, on the clock as it shows now.
fn by_schedule(planned: &Planned, entry: &Entry, now: &Moment, zone: &TimeZone) -> Option<Timestamp> {
    let covered = match (&planned.schedule, &entry.last) {
        // Never done, and to be done every so often. A check has time: there may be nothing yet to be checked.
        (Schedule::Every(_), None) if !matches!(planned.task, Task::Check { .. }) => {
            return Some(entry.known.wall.min(now.wall));
        }
        // Whatever the clock showed: so long ago it was.
        (Schedule::Every(_), Some(last)) if last.boot == now.boot => {
            let ago = now.since_boot_ms.saturating_sub(last.since_boot_ms);
            let ago = SignedDuration::from_millis(i64::try_from(ago).unwrap_or(i64::MAX));
            now.wall.checked_sub(ago).unwrap_or(Timestamp::MIN)
        }
        _ => past(entry).seen(now.wall).covered_until(),
    };
    planned.schedule.next(covered, zone, &planned.seed)
}

fn retry_after(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY_AFTER.saturating_mul(doubled).min(RETRY_AT_MOST)
}

#[cfg(test)]
mod tests;
