//! `snapback config`

mod check;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use engine::config;

use crate::global::Global;
use crate::output::Output;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check the configuration file
    Check(check::Command),
    /// Print the JSON schema of the file, for editors
    Schema(Schema),
}

/// Print the JSON schema of the configuration file, with which editors complete and check it.
#[derive(Args, Debug)]
#[command(after_help = "\
  snapback config schema > /etc/snapback/snapback.schema.json

and as the first line of snapback.toml:  #:schema ./snapback.schema.json")]
pub(crate) struct Schema {}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Check(command) => check::run(command, global, output),
        Command::Schema(_) => {
            if output.json {
                output.json(&config::schema())?;
            } else {
                output.line(format_args!("{:#}", config::schema()))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
