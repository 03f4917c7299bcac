//! A project's own commands around a job.
//!
//! Each is a line for `/bin/sh -c`, run in turn, with the job's facts in its environment. A `before` that fails stops the
//! job; an `after` is run however the job ended, and its failure is told without changing how it ended. What it prints
//! goes to the caller's standard error; its standard input is empty. Passwords of repositories are not in its
//! environment.
//!
//! Does not know of what the job does.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Between two looks at whether a command has ended.
const STEP: Duration = Duration::from_millis(20);
/// What a command that is to end has time for.
const GRACE: Duration = Duration::from_secs(5);

/// What a command is told of the job, in variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    told: Vec<(&'static str, String)>,
    withheld: Vec<String>,
}

impl Facts {
    /// Of a job of a project.
    pub fn new(project: &str, job: &str) -> Facts {
        Facts::default().with("SNAPBACK_PROJECT", project).with("SNAPBACK_JOB", job)
    }

    /// The same, and one more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Facts {
        // A variable cannot hold a NUL.
        self.told.push((name, value.to_string().replace('\0', "")));
        self
    }

    /// The same, without a variable that this process has: it holds a password.
    #[must_use]
    pub fn without(mut self, name: &str) -> Facts {
        self.withheld.push(name.to_owned());
        self
    }
}

/// A command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hook {command:?} {how}")]
pub struct HookError {
    /// The line.
    pub command: String,
    /// "ended with exit status: 1".
    pub how: String,
}

/// Runs the commands one after the other, up to the first that fails. `is_cancelled` is asked meanwhile; once it says
/// so, the command that runs is ended, with all that it started.
pub fn run(commands: &[String], facts: &Facts, is_cancelled: &dyn Fn() -> bool) -> Result<(), HookError> {
    commands.iter().try_for_each(|line| {
        let failed = |how: String| Err(HookError { command: line.clone(), how });
        match run_one(line, facts, is_cancelled) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => failed(format!("ended with {status}")),
            Ok(None) => failed("was interrupted".to_owned()),
            Err(error) => failed(format!("could not be run: {error}")),
        }
    })
}

/// `None` if it was ended.
fn run_one(line: &str, facts: &Facts, is_cancelled: &dyn Fn() -> bool) -> io::Result<Option<ExitStatus>> {
    let mut command = Command::new("/bin/sh");
    // Standard output is for what the command line itself has to say.
    command.arg("-c").arg(line).stdin(Stdio::null()).stdout(io::stderr());
    for name in &facts.withheld {
        command.env_remove(name);
    }
    command.envs(facts.told.iter().map(|(name, value)| (name, value)));
    // A group of its own, so that what it started ends with it.
    let mut child = command.process_group(0).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if is_cancelled() {
            end(&mut child)?;
            return Ok(None);
        }
        std::thread::sleep(STEP);
    }
}

fn end(child: &mut Child) -> io::Result<()> {
    // It has not been waited for, so its number is still its own.
    let group = Pid::from_child(child);
    let _ = kill_process_group(group, Signal::TERM);
    let until = Instant::now() + GRACE;
    while Instant::now() < until {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(STEP);
    }
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn commands_run_in_turn_with_the_facts_until_one_fails() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("told");
        let facts = Facts::new("shop", "backup").with("TOLD", file.display());
        let tell = r#"echo "$SNAPBACK_PROJECT $SNAPBACK_JOB" >> "$TOLD""#;
        let failed = run(&lines(&[tell, "exit 3", tell]), &facts, &|| false).unwrap_err();
        assert_eq!(failed.to_string(), r#"the hook "exit 3" ended with exit status: 3"#);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "shop backup\n");
    }

    #[test]
    fn a_variable_that_is_withheld_is_not_seen() {
        let facts = Facts::new("shop", "backup").without("PATH");
        // The shell sets one of its own, but does not export it.
        run(&lines(&["! /usr/bin/env | /bin/grep -q ^PATH="]), &facts, &|| false).unwrap();
    }

    #[test]
    fn who_cancels_waits_for_no_hook_and_nothing_of_it_stays() {
        let start = Instant::now();
        let failed = run(&lines(&["sleep 60 & sleep 60"]), &Facts::default(), &|| true).unwrap_err();
        assert!(failed.how.contains("interrupted"), "{failed}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
