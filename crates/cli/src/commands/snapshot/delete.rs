//! `snapback snapshot delete`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use snapshot::manage;

use crate::global::Global;
use crate::output::{Output, printable};
use crate::snapshots::{self, Session};

/// Delete snapshots. The live directory is not touched.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let lock = session.lock()?;
    // All of them are there, or nothing is deleted; `latest latest~1` means two, not the same one twice.
    let chosen = command.snapshots.iter().map(|text| session.find(text)).collect::<Result<Vec<_>>>()?;
    let chosen: BTreeMap<_, _> = chosen.into_iter().map(|(record, handle)| (record.id, (record, handle))).collect();
    for (record, handle) in chosen.into_values() {
        let provider = snapshots::open(&record.directory, &handle)?;
        manage::delete(&lock, &*provider, record.id)?;
        output.message(format_args!("snapshot {} of {} deleted", record.id, printable(&record.directory)));
    }
    Ok(ExitCode::SUCCESS)
}
