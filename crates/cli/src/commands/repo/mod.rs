//! `snapback repo`: what concerns the repository as a whole.

mod init;
mod key;
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
    /// Remove the locks of processes that are gone
    Unlock(unlock::Command),
    /// Passwords that open the repository
    #[command(subcommand, arg_required_else_help = true)]
    Key(key::Command),
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Init(command) => init::run(command, global, output),
        Command::Unlock(command) => unlock::run(command, global, output),
        Command::Key(command) => key::run(command, global, output),
    }
}
