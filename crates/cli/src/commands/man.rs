//! `snapback man`: the manual pages, from the same definitions as the arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

/// Write the manual pages, one for each command.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Into which directory
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

pub(crate) fn run(command: &Command, arguments: clap::Command) -> Result<ExitCode> {
    let into = || format!("cannot write into {}", command.to.display());
    std::fs::create_dir_all(&command.to).with_context(into)?;
    clap_mangen::generate_to(arguments, &command.to).with_context(into)?;
    Ok(ExitCode::SUCCESS)
}
