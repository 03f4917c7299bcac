//! `snapback repo unlock`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::lock;

use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;

/// Remove the locks of processes that are gone.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// All locks, also of processes that may still run: only if you know that none does
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let removed = lock::remove(&session.repository, &session.holder, command.all)?;
    let left = lock::list(&session.repository)?;
    if output.json {
        let left: Vec<_> = left.iter().map(|(_, record)| record).collect();
        output.json(&serde_json::json!({ "removed": removed, "left": left }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !output.quiet {
        output.line(format_args!("{} removed", human::counted(removed as u64, "lock")))?;
    }
    for (_, record) in left {
        output.message(format_args!("still locked by {record}"));
    }
    Ok(ExitCode::SUCCESS)
}
