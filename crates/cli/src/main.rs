//! The binary `snapback`: arguments, output, exit codes. What it does is done by the crates below.
#![expect(clippy::disallowed_methods, reason = "the program reads its environment and its clock, and passes them on")]

mod args;
mod ask;
mod chosen;
mod clock;
mod commands;
mod configuration;
mod configured;
mod databases;
mod entry;
mod error;
mod global;
mod human;
mod jobs;
mod open;
mod output;
mod password;
mod patterns;
mod progress_bar;
mod select;
mod signals;
mod snapshots;
mod sources;
mod status_line;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::args::{Arguments, Command};
use crate::global::Global;
use crate::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(&arguments.global);
    allow_many_open_files();
    match run(&arguments, &output) {
        Ok(code) => code,
        Err(error) => error::report(&error, &output),
    }
}

/// Runs what the arguments say.
fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let global = &arguments.global;
    let done = dispatch(&arguments.command, global, output);
    if changes_snapshots(&arguments.command) {
        commands::catalog::sync(global, output);
    }
    done
}

/// Whether a command may have made, changed or deleted snapshots or guards.
fn changes_snapshots(command: &Command) -> bool {
    match command {
        Command::Snapshot(command) => command.changes(),
        Command::Guard(_) | Command::Confirm(_) | Command::Rollback(_) | Command::Hook(_) => true,
        _ => false,
    }
}

fn dispatch(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Adopt(command) => commands::adopt::run(command, global, output),
        Command::Backup(command) => commands::backup::run(command, global, output),
        Command::Cat(command) => commands::cat::run(command, global, output),
        Command::Catalog(command) => commands::catalog::run(command, global, output),
        Command::Completions(command) => commands::completions::run(command, Arguments::command()),
        Command::Config(command) => commands::config::run(command, global, output),
        Command::Confirm(command) => commands::confirm::run(command, global, output),
        Command::Database(command) => commands::database::run(command, global, output),
        Command::Diff(command) => commands::diff::run(command, global, output),
        Command::Find(command) => commands::find::run(command, global, output),
        Command::Forget(command) => commands::forget::run(command, global, output),
        Command::Guard(command) => commands::guard::run(command, global, output),
        Command::Hook(command) => commands::hook::run(command, global, output),
        Command::Init(command) => commands::init::run(command, global, output),
        Command::List(command) => commands::list::run(command, global, output),
        Command::Ls(command) => commands::ls::run(command, global, output),
        Command::Man(command) => commands::man::run(command, Arguments::command()),
        Command::Mount(command) => commands::mount::run(command, global, output),
        Command::Protect(command) => commands::protect::run(command, global, output),
        Command::Repo(command) => commands::repo::run(command, global, output),
        Command::Restore(command) => commands::restore::run(command, global, output),
        Command::Rollback(command) => commands::rollback::run(command, global, output),
        Command::Serve(command) => commands::serve::run(command, global, output),
        Command::Snapshot(command) => commands::snapshot::run(command, global, output),
        Command::Status(command) => commands::status::run(command, global, output),
        Command::Tag(command) => commands::tag::run(command, global, output),
    }
}

/// A walk holds one descriptor for each level of a tree that branches at each of them; the usual 1024 is what old
/// programs can cope with, not what the system has. Where it may not be raised, 1024 serves nearly everywhere.
fn allow_many_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
