//! The process that keeps to the deadline when everybody else is gone.
//!
//! It has a session of its own, so that no terminal takes it along, and under systemd a unit of its own, because the
//! end of a login's session ends whatever is in its control group.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT};
use snapshot::id::Id;

use super::Guards;
use super::document::{Guard, Next, Outcome, Phase};
use crate::moment::Moment;
use crate::process::Process;
use snapshot::error::Error;

/// How soon a death, or a confirmation, is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A rollback that fails may succeed when something else has ended.
const RETRIES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// How long a watchdog may take to come up.
const COMES_UP: Duration = Duration::from_secs(10);

/// Starts a watchdog: a program that will call [`become_watchdog`] and [`Guards::watch`]. With `systemd`, in a unit of
/// its own. Gives the process to be waited for one day, if it is a child of this one.
pub fn start(id: Id, program: &Path, arguments: &[OsString], systemd: bool) -> Result<Option<Child>, Error> {
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    };
    if systemd {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", &format!("--unit=snapback-guard-{id}")]);
        command.args(["--description=Snapback: roll back unless confirmed", "--"]).arg(program).args(arguments);
        quiet(&mut command);
        if command.status().is_ok_and(|status| status.success()) {
            return Ok(None);
        }
    }
    let mut command = Command::new(program);
    command.args(arguments);
    quiet(&mut command);
    command.spawn().map(Some).map_err(Error::io("start", program))
}

/// Leaves the session and its terminal behind.
pub fn become_watchdog() {
    // The only refusal is that this process leads a group already, which under systemd it does.
    let _ = rustix::process::setsid();
    for signal in [SIGHUP, SIGINT] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
}

impl Guards<'_> {
    /// Waits until a watchdog has come up. Nothing may be risked before.
    pub fn wait_for_watchdog(&self, id: Id) -> Result<(), Error> {
        let step = Duration::from_millis(5);
        for _ in 0..COMES_UP.as_millis() / step.as_millis() {
            if self.get(id)?.watchdog.is_some_and(|watchdog| watchdog.is_alive()) {
                return Ok(());
            }
            self.clock.sleep(step);
        }
        Err(Error::refused("the watchdog that would roll back does not come up").or("look into the system's journal"))
    }

    /// Watches over a guard to its end, as a watchdog.
    pub fn watch(&self, id: Id) -> Result<Guard, Error> {
        {
            let _held = self.store.lock()?;
            let mut guard = self.get(id)?;
            guard.watchdog = Some(Process::current()?);
            self.store.save(&guard)?;
        }
        self.follow(id)
    }

    /// Watches over all guards that have a deadline and no watchdog: after a reboot, or when the watchdog was killed.
    /// Those without a deadline whose command died are ended. Gives how they ended.
    pub fn resume(&self) -> Result<Vec<Result<Guard, Error>>, Error> {
        let orphans = self.unwatched()?;
        Ok(std::thread::scope(|scope| {
            let watched: Vec<_> = orphans.into_iter().map(|id| scope.spawn(move || self.watch(id))).collect();
            watched
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        }))
    }

    /// All guards that have a deadline and no watchdog. Those without a deadline whose command died are ended.
    pub fn unwatched(&self) -> Result<Vec<Id>, Error> {
        let _held = self.store.lock()?;
        let open = self.tidy()?;
        Ok(open.iter().filter(|guard| guard.is_open() && guard.is_unwatched()).map(|guard| guard.id).collect())
    }

    /// Does for a guard what is due until it has ended. Several may do so at once.
    fn follow(&self, id: Id) -> Result<Guard, Error> {
        let mut retries = RETRIES.iter();
        loop {
            let guard = self.get(id)?;
            match guard.next(&Moment::now(self.clock)?, guard.process.is_alive()) {
                Next::Nothing => return Ok(guard),
                Next::Wait(time) => self.clock.sleep(time.min(LOOK_EVERY)),
                Next::Orphaned(_) => self.orphan(id)?,
                Next::RollBack => match (self.go_back_if_due(id), retries.next()) {
                    (Ok(_), _) => {}
                    (Err(_), Some(wait)) => self.clock.sleep(*wait),
                    (Err(error), None) => return self.fail(id, &error),
                },
            }
        }
    }

    /// As long as somebody looks on: what is due is done if the watchdog, which does it first, is not there any more.
    /// Gives the guard as it is now.
    pub fn look(&self, id: Id) -> Result<Guard, Error> {
        let guard = self.get(id)?;
        let is_alone = !guard.watchdog.as_ref().is_some_and(Process::is_alive);
        let is_due = guard.next(&Moment::now(self.clock)?, true) == Next::RollBack;
        if is_alone && is_due { self.go_back_if_due(id) } else { Ok(guard) }
    }

    fn fail(&self, id: Id, error: &Error) -> Result<Guard, Error> {
        let _held = self.store.lock()?;
        let guard = self.get(id)?;
        match guard.phase {
            Phase::Ended { .. } => Ok(guard),
            _ => self.end(guard, Outcome::Failed { message: error.to_string() }),
        }
    }
}
