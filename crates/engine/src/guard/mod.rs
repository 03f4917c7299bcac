//! A snapshot around risky work, and the way back.
//!
//! A guard takes a snapshot, runs a command, and looks whether all is well. What becomes of the directory is decided in
//! one place, [`Guards`], under one lock and from one file, so that the guard itself, its watchdog, whoever confirms and
//! whoever comes after a reboot may all try: the first decides, the others find it decided.
//!
//! Where somebody must confirm, the deadline is on the disk and a watchdog is running before the command begins.
//! Whatever dies then (the terminal, the guard, the watchdog, the machine), all goes back unless somebody confirms.
//!
//! Does not know of terminals: who is asked, and what is said, is the caller's.

pub mod command;
pub mod document;
mod store;
pub mod watchdog;

use std::time::Duration;

use jiff::SignedDuration;
use snapshot::id::Id;
use snapshot::manage::{self, Around, Request};
use snapshot::provider::Provider;
use snapshot::record::{Purpose, Record};
use snapshot::state::State;

use self::document::{Confirm, Guard, Next, Other, Outcome, Phase};
use self::store::Store;
use crate::directories::shown;
use crate::moment::{Clock, Moment};
use crate::process::Process;
use crate::rollback::{Services, refuse_if_impossible};
use snapshot::error::Error;

/// The snapshot of a guard that failed is kept at least as long, for whoever looks what went wrong.
const TO_LOOK_AROUND: Duration = Duration::from_secs(24 * 3600);
/// Guards that ended are shown as long.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// Takes the directories of a guard back to its snapshots, together, and gives the snapshot of what was left behind; of
/// several, the first.
pub type RollBack<'a> = dyn Fn(&Guard) -> Result<Id, Error> + Sync + 'a;

/// What is asked of a guard.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What will be run, for people to read.
    pub command: String,
    /// How long the snapshot is kept once all went well.
    pub grace: Duration,
    /// Whether somebody must confirm.
    pub confirm: Option<Times>,
    /// What is stopped and started if it goes back.
    pub services: Services,
    /// The project of the directories, if it is one that is guarded.
    pub project: Option<String>,
}

/// The times of a guard that must be confirmed.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// To confirm, from the command's end.
    pub confirm: Duration,
    /// What the command may take at most: one that hangs because its terminal is gone must not hang for ever.
    pub command: Duration,
}

/// All that are written down, oldest first, to be looked at.
pub fn recorded(state: &State) -> Result<Vec<Guard>, Error> {
    Store::open(state)?.all()
}

/// The guards of a state directory.
pub struct Guards<'a> {
    state: &'a State,
    store: Store<'a>,
    clock: &'a dyn Clock,
    roll_back: &'a RollBack<'a>,
}

impl<'a> Guards<'a> {
    /// Opens them.
    pub fn open(state: &'a State, clock: &'a dyn Clock, roll_back: &'a RollBack<'a>) -> Result<Guards<'a>, Error> {
        Ok(Guards { state, store: Store::open(state)?, clock, roll_back })
    }

    /// All that are open, and those that ended within a day, oldest first.
    pub fn all(&self) -> Result<Vec<Guard>, Error> {
        self.store.all()
    }

    /// One of them.
    pub fn get(&self, id: Id) -> Result<Guard, Error> {
        self.store.get(id)?.ok_or_else(|| Error::NoSuchSnapshot(id.to_string()))
    }

    /// How long until a guard goes back, if it has a deadline.
    pub fn remaining(&self, guard: &Guard) -> Result<Option<Duration>, Error> {
        Ok(guard.remaining(&Moment::now(self.clock)?))
    }

    /// Takes the snapshots, of several directories together, and writes down the guard. Refused while another guards
    /// one of the directories, or one above or below it, and where a rollback would be refused. `around` brackets the
    /// snapshots' moment.
    pub fn begin(
        &self,
        providers: &[&dyn Provider],
        asked: Asked,
        around: Option<Around<'_>>,
        waiting: &mut dyn FnMut(),
    ) -> Result<(Guard, Vec<Record>), Error> {
        let _held = self.store.lock()?;
        for other in self.tidy()? {
            if other.is_open() && providers.iter().any(|provider| other.touches(provider.directory())) {
                return Err(refuse(&other));
            }
        }
        let now = Moment::now(self.clock)?;
        let note = format!("before {}", asked.command);
        // Held only once the guard is written down: what dies before leaves a snapshot that goes by itself.
        let expires = now.wall.checked_add(asked.grace.max(TO_LOOK_AROUND)).ok();
        let request = Request { note, expires, is_held: false, purpose: Purpose::Guard };
        let lock = self.state.lock(waiting)?;
        let records = match (&asked.project, providers) {
            (Some(project), _) => manage::create_together(&lock, providers, project, &request, now.wall, around)?,
            (None, [provider]) => vec![manage::create_around(&lock, *provider, request, now.wall, around)?],
            (None, _) => return Err(Error::refused("several directories are guarded together as a project only")),
        };
        if let Err(error) = refuse_if_impossible(self.state, providers, &records, &asked.services, now.wall) {
            for (provider, record) in providers.iter().zip(&records) {
                manage::delete(&lock, *provider, record.id)?;
            }
            return Err(error);
        }
        let mut parts = records.iter().map(|record| (record.id, record.directory.clone()));
        let Some((id, directory)) = parts.next() else {
            return Err(Error::refused("there is nothing to guard"));
        };
        let others = parts.map(|(snapshot, directory)| Other { snapshot, directory }).collect();
        let confirm = asked.confirm.map(|times| Confirm {
            time_secs: times.confirm.as_secs(),
            deadline: now.after(times.command.saturating_add(times.confirm)),
        });
        let guard = Guard {
            id,
            directory,
            others,
            command: asked.command,
            started: now.wall,
            grace_secs: asked.grace.as_secs(),
            services: asked.services,
            process: Process::current()?,
            watchdog: None,
            confirm,
            phase: Phase::Running,
        };
        self.store.save(&guard)?;
        // Neither expiry nor somebody's hand takes away what may be needed.
        let held = records.iter().map(|record| manage::set_held(&lock, record.id, true));
        let records = held.collect::<Result<_, _>>()?;
        Ok((guard, records))
    }

    /// The command was never begun: the snapshots go. `providers` are those of the beginning.
    pub fn cancel(&self, id: Id, providers: &[&dyn Provider]) -> Result<(), Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        let lock = self.state.lock(&mut || ())?;
        // Released while the guard is still written down: whatever dies in between leaves none that is held for ever.
        for snapshot in guard.snapshots() {
            manage::set_held(&lock, snapshot, false)?;
        }
        self.store.forget(id)?;
        for (snapshot, provider) in guard.snapshots().into_iter().zip(providers) {
            manage::delete(&lock, *provider, snapshot)?;
        }
        Ok(())
    }

    /// The command has ended: from now on there is the time to confirm. Gives the guard as it is now; somebody may have
    /// decided already.
    pub fn ended(&self, id: Id) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let mut guard = self.get(id)?;
        if let (Phase::Running, Some(confirm)) = (&guard.phase, &mut guard.confirm) {
            confirm.deadline = Moment::now(self.clock)?.after(Duration::from_secs(confirm.time_secs));
            guard.phase = Phase::Waiting;
            self.store.save(&guard)?;
        }
        Ok(guard)
    }

    /// Somebody says that all is well.
    pub fn confirm(&self, id: Id) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        match &guard.phase {
            Phase::Running if guard.process.is_alive() => {
                let pid = guard.process.pid;
                Err(Error::refused(format!("the command of guard {id} still runs (process {pid}): {}", guard.command))
                    .or("confirm once it has ended"))
            }
            _ if guard.confirm.is_none() => Err(Error::refused(format!("guard {id} needs no confirmation"))),
            Phase::Running | Phase::Waiting => self.end(guard, Outcome::Confirmed),
            Phase::RollingBack => Err(Error::refused(format!("guard {id} is being rolled back")).or(
                "`snapback guard --status` shows how it goes on, `snapback rollback --undo` returns to the later state",
            )),
            Phase::Ended { outcome: Outcome::Confirmed, .. } => Ok(guard),
            Phase::Ended { outcome, .. } => Err(too_late(&guard, outcome)),
        }
    }

    /// All went well, and nobody needs to confirm.
    pub fn pass(&self, id: Id) -> Result<Guard, Error> {
        self.decide(id, Outcome::Passed)
    }

    /// Nothing is rolled back, though not all went well.
    pub fn keep(&self, id: Id) -> Result<Guard, Error> {
        self.decide(id, Outcome::Kept)
    }

    fn decide(&self, id: Id, outcome: Outcome) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        if guard.is_open() { self.end(guard, outcome) } else { Ok(guard) }
    }

    /// Takes the directory back now. Gives the guard as it is then; somebody may have confirmed meanwhile.
    pub fn go_back(&self, id: Id) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        if !guard.is_open() {
            return Ok(guard);
        }
        let is_watched = guard.confirm.is_some();
        match self.perform(guard.clone()) {
            // With a deadline there is a watchdog, which tries again.
            Err(error) if !is_watched => self.end(guard, Outcome::Failed { message: error.to_string() }),
            performed => performed,
        }
    }

    /// Takes the directory back if it is time to.
    fn go_back_if_due(&self, id: Id) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        match guard.next(&Moment::now(self.clock)?, guard.process.is_alive()) {
            Next::RollBack => self.perform(guard),
            _ => Ok(guard),
        }
    }

    fn perform(&self, mut guard: Guard) -> Result<Guard, Error> {
        if guard.phase != Phase::RollingBack {
            guard.phase = Phase::RollingBack;
            self.store.save(&guard)?;
        }
        let safety = (self.roll_back)(&guard)?;
        self.end(guard, Outcome::RolledBack { safety })
    }

    /// Whoever ran the command died: from now on there is the time to confirm.
    fn orphan(&self, id: Id) -> Result<(), Error> {
        let _held = self.store.lock()?;
        let mut guard = self.get(id)?;
        let next = guard.next(&Moment::now(self.clock)?, guard.process.is_alive());
        if let (Next::Orphaned(deadline), Some(confirm)) = (next, &mut guard.confirm) {
            confirm.deadline = deadline;
            guard.phase = Phase::Waiting;
            self.store.save(&guard)?;
        }
        Ok(())
    }

    /// Writes down how it ended, the snapshot's end first: a crash between the two leaves a guard that is decided again.
    fn end(&self, mut guard: Guard, outcome: Outcome) -> Result<Guard, Error> {
        let at = self.clock.wall();
        let grace = Duration::from_secs(guard.grace_secs);
        let kept = match outcome {
            Outcome::Passed | Outcome::Confirmed => Some(grace),
            Outcome::RolledBack { .. } | Outcome::Kept => Some(grace.max(TO_LOOK_AROUND)),
            Outcome::Failed { .. } => None,
        };
        if let Some(kept) = kept {
            let _lock = self.state.lock(&mut || ())?;
            for snapshot in guard.snapshots() {
                // A rollback may have used it up.
                if let Ok(mut record) = self.state.record(snapshot) {
                    record.is_held = false;
                    record.expires = at.checked_add(kept).ok();
                    self.state.save(&record)?;
                }
            }
        }
        guard.phase = Phase::Ended { at, outcome };
        self.store.save(&guard)?;
        Ok(guard)
    }

    /// Ends guards without a deadline whose process died, and forgets those that ended long ago. Gives the rest.
    fn tidy(&self) -> Result<Vec<Guard>, Error> {
        let now = self.clock.wall();
        let mut left = Vec::new();
        for guard in self.store.all()? {
            match &guard.phase {
                Phase::Ended { at, .. } if now.duration_since(*at) > REMEMBERED => self.store.forget(guard.id)?,
                Phase::Running if guard.confirm.is_none() && !guard.process.is_alive() => {
                    left.push(self.end(guard, Outcome::Kept)?);
                }
                _ => left.push(guard),
            }
        }
        Ok(left)
    }
}

fn refuse(other: &Guard) -> Error {
    let directory = shown(&other.directories());
    let way_out = match other.phase {
        _ if other.is_unwatched() => "`snapback guard --resume` goes on with it".to_owned(),
        Phase::Running => format!("wait until its command has ended: {}", other.command),
        _ => format!("`snapback confirm {}` if all is well; else wait until it has gone back", other.id),
    };
    Error::refused(format!("guard {} is around {directory} already", other.id)).or(way_out)
}

fn too_late(guard: &Guard, outcome: &Outcome) -> Error {
    let id = guard.id;
    match outcome {
        Outcome::RolledBack { safety } => {
            Error::refused(format!("too late: {} was rolled back to {id}", shown(&guard.directories())))
                .or(format!("`snapback rollback {safety}` returns to the later state"))
        }
        _ => Error::refused(format!("guard {id} has ended already")),
    }
}
