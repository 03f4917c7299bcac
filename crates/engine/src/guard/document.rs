//! What is written down of a guard, so that whoever comes after a crash can go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snapshot::id::Id;

use crate::moment::Moment;
use crate::process::Process;
use crate::rollback::Services;

/// A guard: one file in the state directory, `guard/ID.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Of its snapshot; of several, the first.
    pub id: Id,
    /// Around what.
    pub directory: PathBuf,
    /// What else goes back with it, of a project of several directories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Other>,
    /// What is run, for people to read.
    pub command: String,
    /// When it began.
    pub started: Timestamp,
    /// How long the snapshot is kept once all went well.
    pub grace_secs: u64,
    /// What is stopped and started if it goes back.
    #[serde(default)]
    pub services: Services,
    /// Who runs the command.
    pub process: Process,
    /// With a deadline, who keeps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Process>,
    /// Whether, and until when, somebody must confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// How far it is.
    pub phase: Phase,
}

/// A further directory that a guard is around.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its snapshot.
    pub snapshot: Id,
    /// Around what.
    pub directory: PathBuf,
}

/// What must be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// How long there is time from the command's end.
    pub time_secs: u64,
    /// If nobody has confirmed by then, all goes back.
    pub deadline: Moment,
}

/// How far a guard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Phase {
    /// The command runs, or died with whoever ran it.
    Running,
    /// The command has ended, nobody has confirmed yet.
    Waiting,
    /// It goes back; who does it may have died.
    RollingBack,
    /// Nothing more will happen.
    Ended {
        /// When.
        at: Timestamp,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a guard ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// All went well: the snapshot goes after the grace.
    Passed,
    /// Somebody confirmed: the snapshot goes after the grace.
    Confirmed,
    /// The directory is as it was before the command.
    RolledBack {
        /// The snapshot that holds the state that was left behind.
        safety: Id,
    },
    /// Nothing was rolled back, as somebody decided or as nobody could be asked; the snapshot stays.
    Kept,
    /// It could not be rolled back.
    Failed {
        /// Why.
        message: String,
    },
}

/// What to do next about a guard with a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: look again after this time at the latest.
    Wait(Duration),
    /// Whoever ran the command died: from now on the deadline is this.
    Orphaned(Moment),
    /// It goes back now.
    RollBack,
    /// Nothing, ever.
    Nothing,
}

impl Guard {
    /// All directories it is around.
    pub fn directories(&self) -> Vec<PathBuf> {
        std::iter::once(&self.directory).chain(self.others.iter().map(|other| &other.directory)).cloned().collect()
    }

    /// The snapshots of them, in the same order.
    pub fn snapshots(&self) -> Vec<Id> {
        std::iter::once(self.id).chain(self.others.iter().map(|other| other.snapshot)).collect()
    }

    /// Whether it is around a directory, or one above or below it.
    pub fn touches(&self, directory: &Path) -> bool {
        let mut all = self.directories().into_iter();
        all.any(|own| own.starts_with(directory) || directory.starts_with(&own))
    }

    /// Whether something may still happen.
    pub fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether something is to be done and nobody is there who will.
    pub fn is_unwatched(&self) -> bool {
        match (&self.phase, &self.confirm, &self.watchdog) {
            (Phase::Ended { .. }, ..) => false,
            (_, Some(_), Some(watchdog)) => !watchdog.is_alive(),
            // Its watchdog is coming up.
            (_, Some(_), None) => !self.process.is_alive(),
            (_, None, watchdog) => !self.process.is_alive() && !watchdog.as_ref().is_some_and(Process::is_alive),
        }
    }

    /// How long until it goes back.
    pub fn remaining(&self, now: &Moment) -> Option<Duration> {
        let confirm = self.confirm.as_ref()?;
        Some(confirm.deadline.remaining(now, Duration::from_secs(confirm.time_secs)))
    }

    /// What to do about it now. `runs`: whether whoever runs the command is alive.
    pub fn next(&self, now: &Moment, runs: bool) -> Next {
        if self.phase == Phase::RollingBack {
            return Next::RollBack;
        }
        let (Some(confirm), Some(remaining)) = (&self.confirm, self.remaining(now)) else { return Next::Nothing };
        match self.phase {
            Phase::Ended { .. } | Phase::RollingBack => Next::Nothing,
            Phase::Running | Phase::Waiting if remaining.is_zero() => Next::RollBack,
            Phase::Running if !runs => {
                // Never later than what was written: a machine that goes down again and again must not put it off.
                let time = Duration::from_secs(confirm.time_secs).min(remaining);
                Next::Orphaned(now.after(time))
            }
            Phase::Running | Phase::Waiting => Next::Wait(remaining),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64, boot: &str) -> Moment {
        let wall = Timestamp::from_second(secs).unwrap();
        Moment { wall, boot: boot.to_owned(), since_boot_ms: if boot == "a" { secs as u64 * 1000 } else { 10_000 } }
    }

    fn guard(phase: Phase, deadline: Moment) -> Guard {
        Guard {
            id: "0123456789ab".parse().unwrap(),
            directory: PathBuf::from("/srv/shop"),
            others: Vec::new(),
            command: "true".to_owned(),
            started: Timestamp::from_second(1000).unwrap(),
            grace_secs: 7200,
            services: Services::default(),
            process: Process { pid: 1, start: 1, boot: "a".to_owned() },
            watchdog: None,
            confirm: Some(Confirm { time_secs: 300, deadline }),
            phase,
        }
    }

    #[test]
    fn it_waits_until_the_deadline_and_then_goes_back() {
        let waiting = guard(Phase::Waiting, at(1300, "a"));
        assert_eq!(waiting.next(&at(1100, "a"), true), Next::Wait(Duration::from_secs(200)));
        assert_eq!(waiting.next(&at(1100, "a"), false), Next::Wait(Duration::from_secs(200)));
        assert_eq!(waiting.next(&at(1300, "a"), true), Next::RollBack);
        assert_eq!(
            waiting.next(&at(1301, "b"), false),
            Next::RollBack,
            "the deadline passed while the machine was off"
        );
    }

    #[test]
    fn a_command_that_hangs_is_rolled_back_at_the_limit() {
        let running = guard(Phase::Running, at(5000, "a"));
        assert_eq!(running.next(&at(4999, "a"), true), Next::Wait(Duration::from_secs(1)));
        assert_eq!(running.next(&at(5000, "a"), true), Next::RollBack);
    }

    #[test]
    fn once_the_one_who_ran_it_is_dead_the_time_to_confirm_begins() {
        let running = guard(Phase::Running, at(5000, "a"));
        assert_eq!(running.next(&at(1100, "a"), false), Next::Orphaned(at(1400, "a")));
        assert_eq!(running.next(&at(4900, "a"), false), Next::Orphaned(at(5000, "a")), "never later than was written");
    }

    #[test]
    fn a_rollback_that_was_cut_short_is_gone_on_with_and_an_end_is_an_end() {
        assert_eq!(guard(Phase::RollingBack, at(5000, "a")).next(&at(1000, "a"), false), Next::RollBack);
        let ended = Phase::Ended { at: Timestamp::UNIX_EPOCH, outcome: Outcome::Confirmed };
        assert_eq!(guard(ended, at(1000, "a")).next(&at(9000, "a"), false), Next::Nothing);
    }
}
