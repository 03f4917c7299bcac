//! `snapback repo`: what concerns the repository as a whole.

mod init;

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
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Init(command) => init::run(command, global, output),
    }
}
