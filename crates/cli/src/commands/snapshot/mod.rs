//! `snapback snapshot`: points in time on the same disk.

mod create;
mod delete;
mod diff;
mod document;
pub(crate) mod expire;
mod hold;
pub(crate) mod list;
mod mount;
mod undo;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::global::Global;
use crate::output::Output;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a snapshot of a directory, or of a project
    Create(create::Command),
    /// List the snapshots
    List(list::Command),
    /// Show what changed between two snapshots, or since one
    Diff(diff::Command),
    /// Bring back single files or directories
    Undo(undo::Command),
    /// Show a snapshot as a read-only directory
    Mount(mount::Command),
    /// Keep a snapshot from being deleted
    Hold(hold::Command),
    /// Let a held snapshot be deleted again
    Release(hold::Command),
    /// Delete snapshots
    Delete(delete::Command),
    /// Delete the snapshots that have had their time
    Expire(expire::Command),
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Create(command) => create::run(command, global, output),
        Command::List(command) => list::run(command, global, output),
        Command::Diff(command) => diff::run(command, global, output),
        Command::Undo(command) => undo::run(command, global, output),
        Command::Mount(command) => mount::run(command, global, output),
        Command::Hold(command) => hold::run(command, true, global, output),
        Command::Release(command) => hold::run(command, false, global, output),
        Command::Delete(command) => delete::run(command, global, output),
        Command::Expire(command) => expire::run(command, global, output),
    }
}

impl Command {
    /// Whether snapshots may be others after it.
    pub(crate) fn changes(&self) -> bool {
        !matches!(self, Command::List(_) | Command::Diff(_) | Command::Mount(_))
    }
}
