//! The commands, one file each.

pub(crate) mod backup;
pub(crate) mod cat;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod find;
pub(crate) mod forget;
pub(crate) mod list;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod mount;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod tag;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Arguments, Command};
use crate::output::Output;

/// Runs what the arguments say.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Backup(command) => backup::run(command, global, output),
        Command::Cat(command) => cat::run(command, global, output),
        Command::Completions(command) => completions::run(command),
        Command::Diff(command) => diff::run(command, global, output),
        Command::Find(command) => find::run(command, global, output),
        Command::Forget(command) => forget::run(command, global, output),
        Command::List(command) => list::run(command, global, output),
        Command::Ls(command) => ls::run(command, global, output),
        Command::Man(command) => man::run(command),
        Command::Mount(command) => mount::run(command, global, output),
        Command::Repo(command) => repo::run(command, global, output),
        Command::Restore(command) => restore::run(command, global, output),
        Command::Tag(command) => tag::run(command, global, output),
    }
}
