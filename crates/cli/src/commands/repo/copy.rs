//! `snapback repo copy`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use repository::copy::{self, Outcome};
use repository::id::Id;

use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::Output;
use crate::password::Sources;
use crate::progress_bar::Meter;
use crate::select::{self, Filter};

/// Copy backups to another repository.
#[derive(Args, Debug)]
#[command(after_help = "\
The other repository must exist; what it has already is not copied.
Make it with `snapback repo init --like URL`: then both cut files alike, and share their data.")]
pub(crate) struct Command {
    /// Which backups; all, if none is named
    #[arg(value_name = "BACKUP")]
    backups: Vec<String>,

    /// The other repository
    #[arg(long, value_name = "URL")]
    to: String,

    /// Read the other repository's password from a file; without, it is taken to be the same
    #[arg(long, value_name = "FILE", conflicts_with = "to_password_command")]
    to_password_file: Option<PathBuf>,

    /// Run a command that prints the other repository's password; SNAPBACK_TO_PASSWORD does too
    #[arg(long, value_name = "COMMAND")]
    to_password_command: Option<String>,

    /// Write nothing, only say what would be copied
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let from = Session::open(global, output)?;
    let others = Sources {
        file: command.to_password_file.as_deref(),
        command: command.to_password_command.as_deref(),
        variable: Some("SNAPBACK_TO_PASSWORD"),
    };
    let to = Arc::new(open::open(open::storage(&command.to)?, &others.or(Sources::of(global)))?);
    let _from_lock = from.lock_for_reading()?;
    let lock = Arc::new(open::lock(&to, false, global.wait_lock, &from.holder, output)?);
    let records = select::all(&from.repository, output)?;
    let chosen = select::several_or_all(&records, &command.backups, &command.filter)?;
    let ids: Vec<Id> = chosen.iter().map(|(id, _)| *id).collect();
    let meter = Meter::start(output, "copying");
    let plan = copy::plan(&from.repository, &to, &ids, &meter)?;
    let (present, to_copy) = (plan.present.len() as u64, plan.backups.len() as u64);
    let (blobs, bytes) = (plan.blobs, plan.bytes);
    let outcome = match command.dry_run {
        true => Outcome::default(),
        false => copy::execute(&from.repository, &to, &lock, plan, &meter)?,
    };
    drop(meter);
    if output.json {
        let copied: Vec<_> =
            outcome.backups.iter().map(|(old, new)| serde_json::json!({ "id": old, "copy": new })).collect();
        output.json(&serde_json::json!({
            "type": "summary",
            "dry_run": command.dry_run,
            "to_copy": to_copy,
            "present": present,
            "copied": copied,
            "blobs": blobs,
            "bytes": bytes,
            "added_bytes": outcome.added.stored_bytes,
        }))?;
    } else if !output.quiet {
        for (old, new) in &outcome.backups {
            output.line(format_args!("{} copied as {}", old.short(), new.short()))?;
        }
        let verb = if command.dry_run { "to copy" } else { "copied" };
        output.message(format_args!(
            "{} {verb} to {}, {}; {} there already",
            human::counted(to_copy, "backup"),
            to.storage().location(),
            human::size(bytes),
            human::count(present),
        ));
    }
    Ok(ExitCode::SUCCESS)
}
