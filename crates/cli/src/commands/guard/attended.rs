//! The guard itself, with somebody at the terminal or nobody.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use engine::config::Project;
use engine::database::held;
use engine::guard::command::{Signals, exit_code};
use engine::guard::document::{Guard, Outcome, Phase};
use engine::guard::{Asked, Guards, Times};
use engine::net::Nets;
use engine::rollback::Services;
use jiff::Timestamp;
use snapshot::id::Id;
use snapshot::provider::{Kind, Provider};
use snapshot::record::Record;

use super::{Command, GUARD_VARIABLE, start_watchdog};
use crate::ask::{self, Answer};
use crate::configuration::Target;
use crate::databases;
use crate::error::Code;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::{Session, listed};

/// How often the countdown is drawn, and somebody's decision looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Between two tries of a check.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// A guard that runs in the foreground.
struct Attended<'a> {
    command: &'a Command,
    guards: &'a Guards<'a>,
    output: &'a Output,
    signals: Signals,
    id: Id,
    created: Timestamp,
}

pub(crate) fn run(
    command: &Command,
    target: &Target,
    project: Option<&Project>,
    session: &Session<'_>,
    guards: &Guards<'_>,
) -> Result<ExitCode> {
    let output = session.output;
    let signals = Signals::survive()?;
    let nets = Nets { is_cancelled: Arc::new(signals.watch()), ..session.nets.clone() };
    let providers = session.providers(&nets, target.directories())?;
    let providers: Vec<&dyn Provider> = providers.iter().map(|provider| &**provider).collect();
    providers.iter().for_each(|provider| session.warn_before(*provider));
    // What was cut short before is put in order first.
    drop(session.lock()?);
    let begun = Instant::now();
    let times = command.confirm.map(|confirm| Times { confirm, command: command.limit });
    let services = Services { stop: command.stop.clone(), restart: command.restart.clone() };
    let named = target.project().map(|project| project.name.clone());
    let asked =
        Asked { command: shown(&command.command), grace: command.grace, confirm: times, services, project: named };
    let (guard, records) = begin(&providers, asked, session, guards, project)?;
    let id = guard.id;
    let millis = begun.elapsed().as_secs_f64() * 1000.0;
    for (provider, record) in providers.iter().zip(&records) {
        let of = match records.len() {
            1 => String::new(),
            _ => format!(" of {}", printable(&record.directory)),
        };
        let (id, stood_still) = (record.id, databases::stood_still(record));
        match provider.kind() {
            Kind::Backup => output.message(format_args!("backup {id}{of} taken as net in {millis:.0} ms")),
            _ => output.message(format_args!("snapshot {id}{of} taken in {millis:.0} ms{stood_still}")),
        }
        databases::tell(record, output);
        session.warn_after(*provider);
    }
    let attended = Attended { command, guards, output, signals, id, created: records[0].created };
    // Dropping it leaves the watchdog running.
    let _watchdog = match attended.with_watchdog(session) {
        Ok(watchdog) => watchdog,
        Err(error) => {
            guards.cancel(id, &providers)?;
            return Err(error);
        }
    };
    let started = Instant::now();
    match attended.run_command() {
        Ok(status) => attended.after(status, started.elapsed()),
        Err(error) => {
            guards.cancel(id, &providers)?;
            // As shells have it.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            let program = printable(Path::new(&command.command[0]));
            output.error(&format!("cannot run {program}: {error}"), None, code);
            Ok(ExitCode::from(code))
        }
    }
}

/// Takes the snapshots, with the project's databases held for their moment.
fn begin(
    providers: &[&dyn Provider],
    asked: Asked,
    session: &Session<'_>,
    guards: &Guards<'_>,
    project: Option<&Project>,
) -> Result<(Guard, Vec<Record>), snapshot::error::Error> {
    held::around(project, providers, |around| guards.begin(providers, asked, around, &mut || session.tell_waiting()))
}

impl Attended<'_> {
    fn with_watchdog(&self, session: &Session<'_>) -> Result<Option<Child>> {
        if self.command.confirm.is_none() {
            return Ok(None);
        }
        if !goes_on_after_reboot() {
            self.output.warning(
                "snapback-guard-resume.service is not enabled: after a reboot nobody goes on with this, unless \
                 somebody runs `snapback guard --resume`",
            );
        }
        let child = start_watchdog(self.id, session.state.root())?;
        self.guards.wait_for_watchdog(self.id)?;
        Ok(child)
    }

    fn run_command(&self) -> std::io::Result<ExitStatus> {
        let mut command = std::process::Command::new(&self.command.command[0]);
        command.args(&self.command.command[1..]).env(GUARD_VARIABLE, self.id.to_string());
        self.signals.run(&mut command)
    }

    /// The command has ended.
    fn after(&self, status: ExitStatus, took: Duration) -> Result<ExitCode> {
        let code = exit_code(status);
        self.output.message(format_args!("command ended with {code} after {}", human::duration(took)));
        let passed = status.success() && self.check()?;
        // From now on the time to confirm runs, whatever is answered, or not answered, below.
        let mut guard = self.guards.ended(self.id)?;
        if guard.is_open() && !passed {
            guard = self.failed(guard)?;
        } else if guard.is_open() && self.command.confirm.is_none() {
            guard = self.guards.pass(self.id)?;
        }
        if guard.is_open() {
            guard = match self.wait_for_confirmation()? {
                Some(guard) => guard,
                None => return Ok(ExitCode::from(if code == 0 { 130 } else { code })),
            };
        }
        self.tell(&guard);
        if self.output.json {
            self.output
                .json(&serde_json::json!({ "type": "guard", "code": code, "passed": passed, "guard": guard }))?;
        }
        let is_well =
            passed && matches!(guard.phase, Phase::Ended { outcome: Outcome::Passed | Outcome::Confirmed, .. });
        Ok(if code == 0 && !is_well { Code::Failed.into() } else { ExitCode::from(code) })
    }

    /// Whether the check succeeds within its time; without one, it does.
    fn check(&self) -> Result<bool> {
        let Some(check) = &self.command.check else { return Ok(true) };
        let until = Instant::now() + self.command.check_limit;
        let how = loop {
            match try_check(check, until)? {
                Some(status) if status.success() => break None,
                // What was started needs a while until it answers.
                Some(_) if Instant::now() + CHECK_EVERY < until => std::thread::sleep(CHECK_EVERY),
                Some(status) => break Some(format!("failed with {}", exit_code(status))),
                None => break Some(format!("did not end within {}", human::duration(self.command.check_limit))),
            }
        };
        self.output.message(format_args!("check {check:?} {}", how.as_deref().unwrap_or("passed")));
        Ok(how.is_none())
    }

    /// The command or the check failed: back, if somebody says so.
    fn failed(&self, guard: Guard) -> Result<Guard> {
        let directories = listed(&guard.directories());
        let to = human::clock_time(self.created, false);
        let question = format!("Take {directories} back to {to}?");
        let mut is_over = || self.signals.received().is_some() || self.is_decided();
        let answer = match self.command.yes {
            true => Answer::Yes,
            false => ask::yes_or_no_until(&question, self.output, &mut is_over),
        };
        match answer {
            Answer::Yes => Ok(self.guards.go_back(self.id)?),
            Answer::Nobody if guard.confirm.is_some() => Ok(guard),
            Answer::No | Answer::Nobody => Ok(self.guards.keep(self.id)?),
        }
    }

    fn is_decided(&self) -> bool {
        self.guards.get(self.id).is_ok_and(|guard| !guard.is_open())
    }

    /// Counts down until somebody decides, or the deadline does. Nothing if a signal ends the waiting: the watchdog
    /// goes on.
    fn wait_for_confirmation(&self) -> Result<Option<Guard>> {
        let to = human::clock_time(self.created, false);
        let mut told = false;
        loop {
            let guard = self.guards.look(self.id)?;
            if !guard.is_open() {
                self.output.status.clear();
                return Ok(Some(guard));
            }
            let left = self.guards.remaining(&guard)?.unwrap_or_default().as_millis().div_ceil(1000);
            let left = format!("{}:{:02}", left / 60, left % 60);
            if !told {
                self.output
                    .message(format_args!("Reachable? Run `snapback confirm`, best from a new login, within {left},"));
                self.output.message(format_args!("or everything goes back to {to}."));
            }
            told = true;
            if self.output.wants_bar() {
                self.output.status.draw(format!("goes back in {left}"));
            }
            if self.signals.received().is_some() {
                self.output.status.clear();
                self.output.message(format_args!("the watchdog goes on: `snapback confirm {}` confirms", self.id));
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// How it ended.
    fn tell(&self, guard: &Guard) {
        let Phase::Ended { outcome, .. } = &guard.phase else { return };
        let (id, directories) = (self.id, listed(&guard.directories()));
        let (is, stays) = if guard.others.is_empty() { ("is", "stays") } else { ("are", "stay") };
        match outcome {
            Outcome::Passed => {
                let grace = human::span(guard.grace_secs);
                self.output.message(format_args!("all went well; snapshot {id} goes in {grace}"));
            }
            Outcome::Confirmed => {
                let grace = human::span(guard.grace_secs);
                self.output.message(format_args!("confirmed; snapshot {id} goes in {grace}"));
            }
            Outcome::RolledBack { safety } => {
                let to = human::clock_time(self.created, false);
                self.output.message(format_args!("{directories} {is} back as it was at {to}"));
                self.output.message(format_args!(
                    "  the state left behind is kept as {safety}; `snapback rollback --undo` returns to it"
                ));
            }
            Outcome::Kept => self.output.message(format_args!(
                "{directories} {stays} as it is now. `snapback rollback {id}` takes it back, `snapback snapshot delete {id}` forgets the state before"
            )),
            Outcome::Failed { message } => {
                self.output.error(&format!("{directories} could not be taken back: {message}"), Some(&format!("snapback rollback {id}")), 1);
            }
        }
    }
}

/// Runs a check to its end; nothing if its time is over before.
fn try_check(check: &str, until: Instant) -> Result<Option<ExitStatus>> {
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg(check).stdin(Stdio::null()).stdout(std::io::stderr());
    // A group of its own, so that all of it can be ended.
    let mut child = shell.process_group(0).spawn().context("cannot start /bin/sh")?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the system starts what goes on with guards.
fn goes_on_after_reboot() -> bool {
    let enabled = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    enabled.iter().any(|units| {
        Path::new(units).join("multi-user.target.wants/snapback-guard-resume.service").symlink_metadata().is_ok()
    })
}

/// A command as somebody would type it, more or less.
fn shown(words: &[OsString]) -> String {
    let word = |word: &OsString| match word.to_string_lossy() {
        text if text.is_empty() || text.contains(char::is_whitespace) => format!("{:?}", printable(Path::new(word))),
        _ => printable(Path::new(word)),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let words = ["sh", "-c", "echo a b", ""].map(OsString::from);
        assert_eq!(shown(&words), r#"sh -c "echo a b" """#);
    }
}
