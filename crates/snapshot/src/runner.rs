//! External commands: the one seam under everything that runs a program.

use std::ffi::OsString;
use std::io;
use std::process::{Command, Stdio};

use crate::error::Error;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Runs commands: the real ones, or in tests a transcript.
pub trait Runner: Send + Sync {
    /// Runs a program with arguments to its end, without input, in the C locale.
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome>;
}

/// Runs them on this system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Runner for System {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        let output = command.output()?;
        Ok(Outcome { code: output.status.code(), stdout: output.stdout, stderr: output.stderr })
    }
}

/// Runs a command that must succeed, and gives what it wrote to standard output.
pub fn run<S: AsRef<std::ffi::OsStr>>(runner: &dyn Runner, program: &str, arguments: &[S]) -> Result<String, Error> {
    let arguments: Vec<OsString> = arguments.iter().map(|argument| argument.as_ref().to_owned()).collect();
    let line = || {
        let words: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        format!("{program} {}", words.join(" "))
    };
    let failed = |status: String, output: String| Error::Command { command: line(), status, output };
    let outcome = match runner.run(program, &arguments) {
        Ok(outcome) => outcome,
        // The way out is the caller's to tell: which package has it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::refused(format!("the command {program} is not installed")));
        }
        Err(error) => return Err(failed("cannot be started".to_owned(), error.to_string())),
    };
    if outcome.code != Some(0) {
        let status = outcome.code.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
        return Err(failed(status, String::from_utf8_lossy(&outcome.stderr).trim().to_owned()));
    }
    String::from_utf8(outcome.stdout)
        .map_err(|_| Error::Answer { command: line(), reason: "it is not UTF-8".to_owned() })
}
