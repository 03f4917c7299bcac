//! `snapback confirm`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::guard::Guards;
use engine::guard::document::{Guard, Phase};
use snapshot::id::Id;

use crate::clock::SystemClock;
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::output::Output;
use crate::snapshots::{Session, listed};

/// Say that all is well after a command that was guarded with --confirm, so that nothing is rolled back.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Of which guard, if several wait
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let back = session.roll_back();
    let guards = Guards::open(&session.state, &SystemClock, &back)?;
    let id = which(&guards.all()?, command.snapshot.as_deref())?;
    let guard = guards.confirm(id)?;
    if output.json {
        output.json(&guard)?;
    }
    let (directories, grace) = (listed(&guard.directories()), human::span(guard.grace_secs));
    let stays = if guard.others.is_empty() { "stays" } else { "stay" };
    output.message(format_args!("confirmed: {directories} {stays} as it is; snapshot {id} goes in {grace}"));
    Ok(ExitCode::SUCCESS)
}

/// The guard that is meant: the one that waits, or was the last to wait, if none is named.
fn which(guards: &[Guard], text: Option<&str>) -> Result<Id> {
    let is_meant =
        |guard: &&Guard| text.is_none_or(|text| guard.id.to_string().starts_with(&text.to_ascii_lowercase()));
    let meant: Vec<&Guard> = guards.iter().filter(is_meant).filter(|guard| guard.confirm.is_some()).collect();
    let waiting: Vec<&&Guard> = meant.iter().filter(|guard| guard.is_open()).collect();
    let hint = "`snapback guard --status` shows the guards";
    match (waiting.as_slice(), meant.last()) {
        ([one], _) => Ok(one.id),
        ([_, _, ..], _) => Err(CommandError::usage("several guards wait: say which").hint(hint).into()),
        // What became of it, it will be told.
        ([], Some(last)) if matches!(last.phase, Phase::Ended { .. }) => Ok(last.id),
        _ => Err(CommandError::new("no guard waits for a confirmation").hint(hint).into()),
    }
}
