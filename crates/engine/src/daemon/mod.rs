//! What runs by the clock: the scheduler's loop.
//!
//! The loop starts what is due, each in a thread of its own, writes down in the ledger what began and what ended, and
//! listens to whoever asks it to stop or to read its configuration again. What to start is decided by the
//! [`Scheduler`], which does no I/O; what is done, by a [`Worker`].
//!
//! - Nothing is kept in memory that must not be lost: a daemon that is killed at any time goes on from the ledger, and from
//!   what there is.
//! - A configuration that cannot be read changes nothing: the one before stays in force.
//! - When asked to stop, it starts nothing any more, and waits for what runs.
//!
//! Does not know of signals, terminals, nor of how anything is done.

mod instance;
pub mod ledger;
pub mod notify;
mod plan;
mod scheduler;
mod task;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use snapshot::error::Error;

pub use self::instance::Instance;
use self::ledger::Ledger;
pub use self::plan::tasks;
pub use self::scheduler::{Outcome, Patience, Scheduler, Standing, Start, Step};
pub use self::task::{Planned, Task};
use crate::moment::{Clock, Moment};

/// Less is the network's time correcting the clock.
const CLOCK_WAS_SET: SignedDuration = SignedDuration::from_secs(5);

/// Does the tasks. It knows by itself when everything is to stop.
pub trait Worker: Send + Sync {
    /// Does one, to its end.
    fn run(&self, task: &Task) -> Outcome;

    /// When the newest of what a task makes was made, as far as that can be found out; its beginning.
    fn made(&self, task: &Task) -> Option<Timestamp>;
}

/// What a configuration comes to.
pub struct Loaded {
    /// What is to be done when.
    pub plan: Vec<Planned>,
    /// By whose clocks.
    pub zone: TimeZone,
    /// Who does it.
    pub worker: Arc<dyn Worker>,
}

/// The program around the loop.
pub trait Host {
    /// Reads the configuration. The error is a text for people.
    fn load(&self) -> Result<Loaded, String>;

    /// Something happened.
    fn tell(&self, event: &Event<'_>);

    /// The loop is alive, and does its work.
    fn alive(&self, state: &State<'_>);
}

/// What there is to tell.
#[derive(Debug)]
pub enum Event<'a> {
    /// It begins to work, with so many tasks.
    Up(usize),
    /// A task begins.
    Begun(&'a Task),
    /// A task ended.
    Ended {
        /// Which.
        task: &'a Task,
        /// How.
        outcome: &'a Outcome,
        /// After which time.
        took: Duration,
        /// When it begins again.
        again: Option<Duration>,
    },
    /// The configuration is read again, from which comes one of the two that follow.
    Reloading,
    /// A new configuration is in force, with so many tasks.
    Reloaded(usize),
    /// A new configuration cannot be used, and the one before stays in force.
    NotReloaded(&'a str),
    /// Somebody set the clock, by so much.
    ClockSet(SignedDuration),
    /// It ends when these have ended.
    Stopping(usize),
    /// Something is amiss that stops nothing.
    Warning(String),
}

/// What is going on.
#[derive(Debug)]
pub struct State<'a> {
    /// What runs.
    pub running: Vec<&'a Task>,
    /// What comes next, and how soon.
    pub next: Option<(&'a Task, Duration)>,
    /// How many tasks failed, and wait to be tried again.
    pub failing: usize,
    /// Whether it is about to end.
    pub is_stopping: bool,
}

/// What the loop is told.
#[derive(Debug)]
pub enum Message {
    /// Read the configuration again.
    Reload,
    /// End, when what runs has ended.
    Stop,
    /// A task has ended. From the loop's own threads.
    Ended(Task, Outcome),
}

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Do what is due, and end.
    pub once: bool,
    /// How often to look at the clock, and to be [`Host::alive`], at least.
    pub look_every: Duration,
}

/// How many tasks of those that were due are not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone(pub usize);

/// Serves a state directory until it is told to stop. Refused while another process does.
pub fn serve(
    root: &Path,
    clock: &dyn Clock,
    host: &dyn Host,
    (sender, receiver): (&Sender<Message>, &Receiver<Message>),
    options: Options,
) -> Result<Undone, Error> {
    let _instance = Instance::acquire(root)?;
    let read = ledger::read(root)?;
    if let Some((aside, reason)) = read.set_aside {
        let what =
            format!("what was remembered of past runs cannot be read ({reason}); it is kept as {}", aside.display());
        host.tell(&Event::Warning(what));
    }
    let loaded = host.load().map_err(Error::refused)?;
    let patience = if options.once { Patience::None } else { Patience::Long };
    let mut daemon = Daemon {
        root,
        clock,
        host,
        sender,
        scheduler: Scheduler::new(read.ledger, Moment::now(clock)?, patience),
        worker: Arc::clone(&loaded.worker),
        written: None,
        is_writable: true,
        is_stopping: false,
        // By how much the wall clock is ahead of the time since the boot.
        ahead: None,
        told: BTreeMap::new(),
    };
    daemon.adopt(loaded)?;
    host.tell(&Event::Up(daemon.scheduler.ledger().tasks.len()));
    loop {
        let now = daemon.look_at_the_clock()?;
        if !daemon.is_stopping {
            daemon.start_due(&now);
        }
        let is_idle = daemon.scheduler.running().next().is_none();
        if is_idle && (options.once || daemon.is_stopping) {
            return Ok(daemon.undone(&now));
        }
        daemon.host.alive(&daemon.state(&now));
        let wait = daemon.scheduler.idle(&now).min(options.look_every);
        match receiver.recv_timeout(wait) {
            Ok(message) => daemon.hear(message)?,
            Err(RecvTimeoutError::Timeout) => {}
            // The loop has a sender itself.
            Err(RecvTimeoutError::Disconnected) => unreachable!(),
        }
    }
}

struct Daemon<'a> {
    root: &'a Path,
    clock: &'a dyn Clock,
    host: &'a dyn Host,
    sender: &'a Sender<Message>,
    scheduler: Scheduler,
    worker: Arc<dyn Worker>,
    /// The ledger as it is on the disk.
    written: Option<Ledger>,
    is_writable: bool,
    is_stopping: bool,
    ahead: Option<SignedDuration>,
    /// Which tasks are impossible, and why, as was told.
    told: BTreeMap<String, String>,
}

impl Daemon<'_> {
    fn adopt(&mut self, loaded: Loaded) -> Result<(), Error> {
        self.scheduler.plan(loaded.plan, loaded.zone, &Moment::now(self.clock)?);
        self.worker = loaded.worker;
        self.write();
        Ok(())
    }

    fn look_at_the_clock(&mut self) -> Result<Moment, Error> {
        let now = Moment::now(self.clock)?;
        let since_boot = SignedDuration::from_millis(i64::try_from(now.since_boot_ms).unwrap_or(i64::MAX));
        let ahead = now.wall.duration_since(Timestamp::UNIX_EPOCH) - since_boot;
        let by = ahead - self.ahead.replace(ahead).unwrap_or(ahead);
        if by.abs() > CLOCK_WAS_SET {
            self.host.tell(&Event::ClockSet(by));
        }
        Ok(now)
    }

    fn start_due(&mut self, now: &Moment) {
        let starts = self.scheduler.start(now);
        self.write();
        for start in starts {
            // What is impossible was told of, and is not begun in earnest.
            if start.step != Step::Look && !self.told.contains_key(&start.task.key()) {
                self.host.tell(&Event::Begun(&start.task));
            }
            let (worker, sender, task) = (Arc::clone(&self.worker), self.sender.clone(), start.task.clone());
            let thread = std::thread::Builder::new().name(task.kind().to_owned());
            let spawned = thread.spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| perform(&*worker, &start)))
                    .unwrap_or_else(|_| Outcome::Failed("it ended in a defect of this program".to_owned()));
                // The loop listens as long as anything runs.
                let _ = sender.send(Message::Ended(start.task, outcome));
            });
            if let Err(error) = spawned {
                let outcome = Outcome::Failed(format!("cannot start a thread: {error}"));
                let _ = self.sender.send(Message::Ended(task, outcome));
            }
        }
    }

    fn hear(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Ended(task, outcome) => self.ended(&task, &outcome)?,
            Message::Stop => {
                self.is_stopping = true;
                self.host.tell(&Event::Stopping(self.scheduler.running().count()));
            }
            Message::Reload if self.is_stopping => {}
            Message::Reload => {
                self.host.tell(&Event::Reloading);
                match self.host.load() {
                    Ok(loaded) => {
                        // What could not be done may be possible now, and is told once more if not.
                        self.told.clear();
                        self.adopt(loaded)?;
                        self.host.tell(&Event::Reloaded(self.scheduler.ledger().tasks.len()));
                    }
                    Err(reason) => self.host.tell(&Event::NotReloaded(&reason)),
                }
            }
        }
        Ok(())
    }

    fn ended(&mut self, task: &Task, outcome: &Outcome) -> Result<(), Error> {
        let now = Moment::now(self.clock)?;
        let began = self.scheduler.running().find(|(running, _)| *running == task);
        let took = began.map_or(0, |(_, began)| now.since_boot_ms.saturating_sub(began.since_boot_ms));
        self.scheduler.end(task, outcome, &now);
        self.write();
        if matches!(outcome, Outcome::Looked(_)) || self.is_told(task, outcome) {
            return Ok(());
        }
        let standings = self.scheduler.standings(&now);
        let again = standings.iter().find(|standing| standing.task == task).and_then(|standing| standing.wait);
        self.host.tell(&Event::Ended { task, outcome, took: Duration::from_millis(took), again });
        Ok(())
    }

    /// Whether there is nothing new: what is impossible stays so from run to run.
    fn is_told(&mut self, task: &Task, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Impossible(why) => self.told.insert(task.key(), why.clone()).as_ref() == Some(why),
            _ => {
                self.told.remove(&task.key());
                false
            }
        }
    }

    /// Without a ledger backups go on all the same; a restart may then do something once more.
    fn write(&mut self) {
        let ledger = self.scheduler.ledger();
        if self.written.as_ref() == Some(ledger) {
            return;
        }
        match ledger::write(self.root, ledger) {
            Ok(()) => (self.written, self.is_writable) = (Some(ledger.clone()), true),
            Err(error) => {
                if std::mem::replace(&mut self.is_writable, false) {
                    self.host.tell(&Event::Warning(format!("what was done cannot be written down: {error}")));
                }
            }
        }
    }

    fn state(&self, now: &Moment) -> State<'_> {
        let standings = self.scheduler.standings(now);
        let waiting = standings.iter().filter(|standing| !standing.is_running);
        let next = waiting.filter_map(|standing| Some((standing.task, standing.wait?))).min_by_key(|(_, wait)| *wait);
        State {
            running: self.scheduler.running().map(|(task, _)| task).collect(),
            next,
            failing: standings.iter().filter(|standing| standing.failure.is_some()).count(),
            is_stopping: self.is_stopping,
        }
    }

    fn undone(&self, now: &Moment) -> Undone {
        let standings = self.scheduler.standings(now);
        Undone(standings.iter().filter(|standing| standing.due.is_some_and(|due| due <= now.wall)).count())
    }
}

/// In a thread of its own.
fn perform(worker: &dyn Worker, start: &Start) -> Outcome {
    match start.step {
        Step::Look => Outcome::Looked(worker.made(&start.task)),
        Step::Run => worker.run(&start.task),
        Step::GoOn(begun) => match worker.made(&start.task).filter(|made| *made >= begun) {
            Some(made) => Outcome::Found(made),
            None => worker.run(&start.task),
        },
    }
}

#[cfg(test)]
mod tests;
