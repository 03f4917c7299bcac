//! `snapback repo`: what concerns the repository as a whole.

mod check;
mod init;
mod key;
pub(crate) mod prune;
mod unlock;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::args::Global;
use crate::output::Output;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(init::Command),
    /// Look whether the repository is whole
    Check(check::Command),
    /// Remove the data that no backup needs any more
    Prune(prune::Command),
    /// Remove the locks of processes that are gone
    Unlock(unlock::Command),
    /// Passwords that open the repository
    #[command(subcommand, arg_required_else_help = true)]
    Key(key::Command),
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Check(command) => check::run(command, global, output),
        Command::Prune(command) => prune::run(command, global, output),
        Command::Init(command) => init::run(command, global, output),
        Command::Unlock(command) => unlock::run(command, global, output),
        Command::Key(command) => key::run(command, global, output),
    }
}
