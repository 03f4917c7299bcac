//! What the daemon says: one line each on stderr, objects with `--json`, and what systemd wants to know.

use std::ffi::OsString;
use std::sync::Mutex;
use std::time::Duration;

use engine::daemon::notify::Notifier;
use engine::daemon::{Event, Outcome, State, Task};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::human;
use crate::output::Output;

/// How long a stop may take: a backup ends at its next step, and stores what it has.
const STOP_MAY_TAKE: Duration = Duration::from_secs(300);

/// Where everything is told.
pub(super) struct Log {
    output: Output,
    manager: Option<Notifier>,
    status: Mutex<Option<String>>,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Info,
    Warning,
    Error,
}

impl Log {
    pub(super) fn new(output: &Output) -> Log {
        Log { output: output.clone(), manager: None, status: Mutex::new(None) }
    }

    /// Tells a manager of services as well.
    pub(super) fn with_manager(mut self, socket: Option<OsString>) -> Log {
        if let Some(socket) = socket {
            match Notifier::new(&socket) {
                Ok(manager) => self.manager = Some(manager),
                Err(error) => self.warning(&format!("$NOTIFY_SOCKET cannot be used: {error}")),
            }
        }
        self
    }

    /// How often the manager wants to hear that we are alive: sd_watchdog_enabled(3).
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_ours);
        interval.filter(|_| self.manager.is_some()).map(Duration::from_micros)
    }

    pub(super) fn warning(&self, text: &str) {
        self.output.warning(text);
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        if let Some(manager) = &self.manager {
            match event {
                Event::Stopping(_) => manager.stopping(STOP_MAY_TAKE),
                Event::Reloading => manager.reloading(),
                Event::Reloaded(_) | Event::NotReloaded(_) => manager.ready(),
                _ => {}
            }
        }
        let (level, text) = words(event);
        if is_routine(event) && !self.output.verbose {
            return;
        }
        if self.output.json {
            // Nobody may listen any more; that stops no backup.
            let _ = self.output.json(&document(event, &text));
        } else {
            match level {
                Level::Info => self.output.message(&text),
                Level::Warning => self.output.warning(&text),
                Level::Error => self.output.failure(&text),
            }
        }
    }

    /// The loop goes round. Told the first time, the manager knows that all is up.
    pub(super) fn alive(&self, state: &State<'_>) {
        let Some(manager) = &self.manager else { return };
        let status = summary(state, Timestamp::now());
        let mut told = self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.as_ref() != Some(&status) {
            manager.status(&status);
        }
        if told.replace(status).is_none() {
            manager.ready();
        }
        manager.watchdog();
    }

    pub(super) fn ended(&self) {
        if let Some(manager) = &self.manager {
            manager.status("ended");
        }
    }
}

/// What happens every few minutes, and is of interest only if something comes of it, which is told by itself.
fn is_routine(event: &Event<'_>) -> bool {
    match event {
        Event::Begun(task) | Event::Ended { task, outcome: Outcome::Done, .. } => **task == Task::Expire,
        Event::Reloading => true,
        _ => false,
    }
}

fn words(event: &Event<'_>) -> (Level, String) {
    let tasks = |count: usize| human::counted(count as u64, "task");
    match event {
        Event::Up(count) => (Level::Info, format!("serving; {} planned", tasks(*count))),
        Event::Begun(task) => (Level::Info, format!("{task} begins")),
        Event::Ended { task, outcome, took, again } => ended(task, outcome, *took, *again),
        Event::Reloading => (Level::Info, "the configuration is read again".to_owned()),
        Event::Reloaded(count) => (Level::Info, format!("the configuration was read again; {} planned", tasks(*count))),
        Event::NotReloaded(reason) => {
            (Level::Error, format!("the new configuration cannot be used, the one before stays in force: {reason}"))
        }
        Event::ClockSet(by) => {
            let how = if *by < SignedDuration::ZERO { "back" } else { "forward" };
            (Level::Warning, format!("the clock was set {how} by {}", human::duration(by.unsigned_abs())))
        }
        Event::Stopping(0) => (Level::Info, "ending".to_owned()),
        Event::Stopping(count) => (Level::Info, format!("ending; waiting for {}", tasks(*count))),
        Event::Warning(text) => (Level::Warning, text.clone()),
    }
}

fn ended(task: &Task, outcome: &Outcome, took: Duration, again: Option<Duration>) -> (Level, String) {
    let took = human::duration(took);
    let in_a_while =
        |how: &str| again.map_or(String::new(), |again| format!("; {how} in {}", human::span(again.as_secs())));
    match outcome {
        Outcome::Done => (Level::Info, format!("{task} done after {took}{}", in_a_while("next"))),
        Outcome::Incomplete(why) => {
            (Level::Warning, format!("{task} done after {took}, but {why}{}", in_a_while("next")))
        }
        Outcome::Impossible(why) => {
            (Level::Warning, format!("{task} cannot be done, which is told once: {why}{}", in_a_while("next")))
        }
        Outcome::Found(_) => {
            (Level::Info, format!("{task} had been done before this daemon was started{}", in_a_while("next")))
        }
        Outcome::Looked(_) => (Level::Info, format!("{task} was looked up")),
        Outcome::Busy(why) => (Level::Info, format!("{task} waits: {why}")),
        Outcome::Stopped => (Level::Info, format!("{task} was asked to end; it is due as before")),
        Outcome::Failed(why) => {
            (Level::Error, format!("{task} failed after {took}: {why}{}", in_a_while("tried again")))
        }
    }
}

fn document(event: &Event<'_>, text: &str) -> Value {
    let of_task = |task: &Task, kind: &str| {
        json!({
            "type": kind, "task": task.kind(), "project": task.project(), "plan": task.plan(),
            "repository": task.repository(), "message": text,
        })
    };
    match event {
        Event::Begun(task) => of_task(task, "begun"),
        Event::Ended { task, outcome, took, again } => {
            let mut document = of_task(task, "ended");
            document["outcome"] = json!(match outcome {
                Outcome::Done | Outcome::Found(_) | Outcome::Looked(_) => "done",
                Outcome::Incomplete(_) => "incomplete",
                Outcome::Impossible(_) => "impossible",
                Outcome::Busy(_) => "busy",
                Outcome::Stopped => "stopped",
                Outcome::Failed(_) => "failed",
            });
            document["took_secs"] = json!(took.as_secs_f64());
            document["again_secs"] = json!(again.map(|again| again.as_secs()));
            document
        }
        Event::Up(count) => json!({ "type": "up", "tasks": count, "message": text }),
        Event::Reloading => json!({ "type": "reloading", "message": text }),
        Event::Reloaded(count) => json!({ "type": "reloaded", "tasks": count, "message": text }),
        Event::NotReloaded(_) => json!({ "type": "not_reloaded", "message": text }),
        Event::Stopping(count) => json!({ "type": "stopping", "running": count, "message": text }),
        Event::ClockSet(by) => json!({ "type": "clock_set", "by_secs": by.as_secs(), "message": text }),
        Event::Warning(_) => json!({ "type": "warning", "message": text }),
    }
}

/// For `systemctl status`.
fn summary(state: &State<'_>, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if state.is_stopping {
        parts.push("ending".to_owned());
    }
    if !state.running.is_empty() {
        let running: Vec<_> = state.running.iter().map(ToString::to_string).collect();
        parts.push(format!("running: {}", running.join(", ")));
    }
    if state.failing > 0 {
        parts.push(format!("{} failed", state.failing));
    }
    if let Some((task, wait)) = &state.next {
        let at = SignedDuration::try_from(*wait).ok().and_then(|wait| now.checked_add(wait).ok());
        // To the minute: else it would be another text each time.
        let at = at.and_then(|at| at.round(jiff::Unit::Minute).ok());
        parts.push(format!(
            "next: {task}{}",
            at.map_or(String::new(), |at| format!(", {}", human::clock_time(at, false)))
        ));
    }
    if parts.is_empty() { "nothing is planned".to_owned() } else { parts.join("; ") }
}
