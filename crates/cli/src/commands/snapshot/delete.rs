//! `snapback snapshot delete`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use snapshot::manage;
use snapshot::provider::{Handle, Provider};
use snapshot::record::Record;
use snapshot::state::Lock;

use crate::error::CommandError;
use crate::global::Global;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// Delete snapshots. The live directory is not touched.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,

    /// Only forget them: their file system is gone, and they with it
    #[arg(long)]
    forget: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let lock = session.lock()?;
    // All of them are there, or nothing is deleted; `latest latest~1` means two, not the same one twice.
    let chosen = command.snapshots.iter().map(|text| session.find(text)).collect::<Result<Vec<_>>>()?;
    let chosen: BTreeMap<_, _> = chosen.into_iter().map(|(record, handle)| (record.id, (record, handle))).collect();
    let mut deleted = Vec::new();
    for (record, handle) in chosen.into_values() {
        let (id, directory) = (record.id, printable(&record.directory));
        if command.forget {
            forget(&session, &lock, &record, &handle)?;
            output.message(format_args!("snapshot {id} of {directory} forgotten"));
        } else {
            let provider = session.reopen(&record.directory, &handle)?;
            manage::delete(&lock, &*provider, id)?;
            output.message(format_args!("snapshot {id} of {directory} deleted"));
        }
        deleted.push(id);
    }
    if output.json {
        output.json(&serde_json::json!({ "deleted": deleted }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What lies somewhere nevertheless, and is forgotten, would never be deleted.
fn forget(session: &Session<'_>, lock: &Lock, record: &Record, handle: &Handle) -> Result<()> {
    let is_there = |provider: Box<dyn Provider>| Ok(provider.list()?.iter().any(|(id, _)| *id == record.id));
    if session.reopen(&record.directory, handle).and_then(is_there).unwrap_or(false) {
        let error = CommandError::new(format!("snapshot {} is still there", record.id));
        return Err(error.hint("delete it without --forget").into());
    }
    Ok(lock.state().forget(record.id)?)
}
