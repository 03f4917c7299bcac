//! `snapback list`

mod project;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use repository::id::Id;
use repository::record::BackupRecord;
use serde::Serialize;

use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::{Output, numbers, words};
use crate::select::{self, Filter};

/// List the backups in a repository, oldest first; or all points in time of a project, newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
With a PROJECT, its snapshots and its backups in all repositories of the configuration are one
line. A repository that cannot be reached is shown as the catalog knows it.")]
pub(crate) struct Command {
    /// A project of the configuration
    #[arg(conflicts_with_all = ["host", "tag", "path"])]
    project: Option<String>,

    /// Do not look at the repositories: show what the catalog knows of them
    #[arg(long, requires = "project")]
    offline: bool,

    #[command(flatten)]
    filter: Filter,
}

/// A record with its name, as `--json` shows it.
#[derive(Serialize)]
pub(crate) struct Named<'a> {
    pub(crate) id: Id,
    pub(crate) short_id: String,
    #[serde(flatten)]
    pub(crate) record: &'a BackupRecord,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if let Some(name) = &command.project {
        return project::run(name, command.offline, global, output);
    }
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let records = command.filter.apply(select::all(&session.repository, output)?);
    if output.json {
        let named: Vec<_> =
            records.iter().map(|(id, record)| Named { id: *id, short_id: id.short(), record }).collect();
        output.json(&named)?;
        return Ok(ExitCode::SUCCESS);
    }
    if records.is_empty() {
        output.message("no backups");
        return Ok(ExitCode::SUCCESS);
    }
    table(&records, output)?;
    output.message(human::counted(records.len() as u64, "backup"));
    Ok(ExitCode::SUCCESS)
}

fn table(records: &[(Id, BackupRecord)], output: &Output) -> Result<()> {
    let now = open::now().secs;
    let with_tags = records.iter().any(|(_, record)| !record.tags.is_empty());
    let mut columns = vec![words("ID"), words("Time"), words("Age").less_important(), words("Host")];
    if with_tags {
        columns.push(words("Tags").less_important());
    }
    columns.extend([
        numbers("Files").less_important(),
        numbers("Size").less_important(),
        numbers("Added").less_important(),
        words("Paths"),
    ]);
    let rows = records.iter().map(|(id, record)| {
        let summary = record.summary();
        let figure =
            |figure: fn(&repository::record::Summary) -> String| summary.as_ref().map(figure).unwrap_or_default();
        let id = if output.verbose { id.to_string() } else { id.short() };
        let time = if output.verbose { human::exact_time(record.time) } else { human::local_time(record.time) };
        let mut row = vec![id, time, human::age(now, record.time.secs), record.hostname.clone()];
        if with_tags {
            row.push(record.tags.join(", "));
        }
        row.push(figure(|summary| human::count(summary.total_files_processed)));
        row.push(figure(|summary| human::size(summary.total_bytes_processed)));
        row.push(figure(|summary| human::size(summary.data_added_packed)));
        row.push(if output.verbose { record.paths.join(", ") } else { human::few(&record.paths) });
        row
    });
    output.table(&columns, rows.collect())?;
    Ok(())
}
