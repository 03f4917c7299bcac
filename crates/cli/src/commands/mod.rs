//! The commands, one file each.

pub(crate) mod backup;
pub(crate) mod list;
pub(crate) mod repo;
pub(crate) mod restore;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Arguments, Command};
use crate::output::Output;

/// Runs what the arguments say.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Repo(command) => repo::run(command, global, output),
        Command::Backup(command) => backup::run(command, global, output),
        Command::List(command) => list::run(command, global, output),
        Command::Restore(command) => restore::run(command, global, output),
    }
}
