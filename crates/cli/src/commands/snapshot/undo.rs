//! `snapback snapshot undo`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::rollback::SAFETY_KEPT;
use jiff::Timestamp;
use snapshot::changes;
use snapshot::error::Error;
use snapshot::manage;
use snapshot::provider::{Changed, Provider, View};
use snapshot::record::{Purpose, Record};
use snapshot::state::Lock;
use snapshot::undo::{self, Request};

use super::diff;
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::{Point, Session};

/// Bring back single files or directories from a snapshot; the rest stays as it is.
#[derive(Args, Debug)]
#[command(after_help = "\
A snapshot of the present state is taken first, where that costs nothing.")]
pub(crate) struct Command {
    /// From which, or a project, from its newest
    #[arg(value_name = "SNAPSHOT|PROJECT")]
    snapshot: String,

    /// What: absolute, or from the snapshot's directory; of a project of several directories, absolute
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Remove what was added since, too
    #[arg(long)]
    delete: bool,

    /// Change nothing, only show what differs
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let point = session.find_point(&command.snapshot, global)?;
    let parts = parts(&command.paths, &point)?;
    let records: Vec<Record> = parts.iter().map(|(record, _)| (*record).clone()).collect();
    let providers = engine::rollback::providers(&records, &session.opener())?;
    if command.dry_run {
        for ((record, paths), provider) in parts.iter().zip(&providers) {
            let view = view(&**provider, record)?;
            let limited: Vec<Changed> =
                paths.iter().map(|path| Changed { path: path.clone(), is_tree: true }).collect();
            let changes = changes::between(view.path(), &record.directory, Some(&limited))?;
            diff::show(&changes, &record.directory, true, output)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let lock = session.lock()?;
    let safeties = keep_present(&lock, &records, &providers, session.now)?;
    for ((record, paths), provider) in parts.into_iter().zip(&providers) {
        let view = view(&**provider, record)?;
        let request = Request { paths, removes_added: command.delete };
        let mut observe = |what: &str| output.detail(what);
        let totals = undo::bring_back(&lock, &record.directory, record.id, view.path(), &request, &mut observe)?;
        let safety = safeties.iter().find(|safety| safety.directory == record.directory).map(|safety| safety.id);
        if output.json {
            output.json(&serde_json::json!({ "from": record.id, "safety": safety, "totals": totals }))?;
        }
        output.message(format_args!(
            "{} brought back from {} to {}, {} by their attributes alone; {} removed, {} were equal",
            human::counted(totals.brought_back, "file"),
            record.id,
            printable(&record.directory),
            human::count(totals.attributes),
            human::count(totals.removed),
            human::count(totals.same),
        ));
        if let Some(safety) = safety {
            output.message(format_args!("the state before is kept as {safety}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Which of the paths lie in which directory, relative to it.
fn parts<'p>(paths: &[PathBuf], point: &'p Point) -> Result<Vec<(&'p Record, Vec<PathBuf>)>> {
    let mut parts: Vec<(&Record, Vec<PathBuf>)> = point.records.iter().map(|record| (record, Vec::new())).collect();
    for path in paths {
        let lies_in = |(number, record): (usize, &Record)| {
            let inside = diff::below(path, &record.directory)?;
            Some((record.directory.components().count(), number, inside))
        };
        let found = point.records.iter().enumerate().filter_map(lies_in).max();
        let (number, inside) = match (found, &point.project) {
            (Some((_, number, inside)), _) => (number, inside),
            // From which of them is not said.
            (None, Some(project)) if point.records.len() > 1 => {
                let error = CommandError::usage(format!("{} is in no directory of {project}", printable(path)));
                return Err(error.hint("write the whole path").into());
            }
            (None, _) => (0, diff::within(path, &point.records[0].directory)?),
        };
        parts[number].1.push(inside);
    }
    parts.retain(|(_, paths)| !paths.is_empty());
    Ok(parts)
}

/// Snapshots of the present state, where that costs nothing: cloning a whole tree for a single file costs more than it
/// saves.
fn keep_present(
    lock: &Lock,
    records: &[Record],
    providers: &[Box<dyn Provider>],
    now: Timestamp,
) -> Result<Vec<Record>> {
    let request = |record: &Record| manage::Request {
        note: String::new(),
        expires: now.checked_add(SAFETY_KEPT).ok(),
        is_held: false,
        purpose: Purpose::Undo { brought_back_from: record.id },
    };
    let atomic: Vec<(&Record, &dyn Provider)> = records
        .iter()
        .zip(providers.iter().map(|provider| &**provider))
        .filter(|(_, provider)| provider.abilities().is_atomic)
        .collect();
    match (&atomic[..], records.first().and_then(|record| record.project.as_deref())) {
        ([], _) => Ok(Vec::new()),
        ([(record, _), ..], Some(project)) => {
            let providers: Vec<&dyn Provider> = atomic.iter().map(|(_, provider)| *provider).collect();
            Ok(manage::create_together(lock, &providers, project, &request(record), now, None)?)
        }
        (atomic, None) => {
            atomic.iter().map(|(record, provider)| Ok(manage::create(lock, *provider, request(record), now)?)).collect()
        }
    }
}

fn view(provider: &dyn Provider, record: &Record) -> Result<Box<dyn View>> {
    match &record.handle {
        Some(handle) => Ok(provider.view(handle)?),
        None => Err(Error::NoSuchSnapshot(record.id.to_string()).into()),
    }
}
