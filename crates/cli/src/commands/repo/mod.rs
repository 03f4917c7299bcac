//! `snapback repo`: what concerns the repository as a whole.

mod check;
mod copy;
mod init;
mod key;
pub(crate) mod prune;
mod repair;
mod stats;
mod unlock;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::global::Global;
use crate::output::Output;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository
    Init(init::Command),
    /// Look whether the repository is whole
    Check(check::Command),
    /// Show how much lies in the repository
    Stats(stats::Command),
    /// Remove the data that no backup needs any more
    Prune(prune::Command),
    /// Copy backups to another repository
    Copy(copy::Command),
    /// Remove the locks of processes that are gone
    Unlock(unlock::Command),
    /// Passwords that open the repository
    #[command(subcommand, arg_required_else_help = true)]
    Key(key::Command),
    /// Save what can be saved of a damaged repository
    #[command(subcommand, arg_required_else_help = true)]
    Repair(repair::Command),
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Init(command) => init::run(command, global, output),
        Command::Check(command) => check::run(command, global, output),
        Command::Stats(command) => stats::run(command, global, output),
        Command::Prune(command) => prune::run(command, global, output),
        Command::Copy(command) => copy::run(command, global, output),
        Command::Unlock(command) => unlock::run(command, global, output),
        Command::Key(command) => key::run(command, global, output),
        Command::Repair(command) => repair::run(command, global, output),
    }
}
