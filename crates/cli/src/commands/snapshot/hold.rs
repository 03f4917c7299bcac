//! `snapback snapshot hold` and `release`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use snapshot::manage;

use super::document::Document;
use crate::global::Global;
use crate::human;
use crate::output::Output;
use crate::snapshots::Session;

/// A held snapshot is deleted neither by its expiry nor by hand, until it is released.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
}

pub(crate) fn run(command: &Command, is_held: bool, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let lock = session.lock()?;
    let (record, _) = session.find(&command.snapshot)?;
    let record = manage::set_held(&lock, record.id, is_held)?;
    if output.json {
        output.json(&Document::new(&record, None))?;
    }
    match (is_held, record.expires) {
        (true, _) => output.message(format_args!("snapshot {} is held", record.id)),
        (false, None) => output.message(format_args!("snapshot {} is released; it is kept until deleted", record.id)),
        (false, Some(expires)) => {
            let until = human::until(session.now, expires);
            output.message(format_args!("snapshot {} is released; it expires {until}", record.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}
