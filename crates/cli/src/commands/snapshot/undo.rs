//! `snapback snapshot undo`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::rollback::SAFETY_KEPT;
use snapshot::changes;
use snapshot::manage;
use snapshot::provider::Changed;
use snapshot::record::Purpose;
use snapshot::undo::{self, Request};

use super::diff;
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// Bring back single files or directories from a snapshot; the rest stays as it is.
#[derive(Args, Debug)]
#[command(after_help = "\
A snapshot of the present state is taken first, where that costs nothing.")]
pub(crate) struct Command {
    /// From which, or a project, from its newest
    #[arg(value_name = "SNAPSHOT|PROJECT")]
    snapshot: String,

    /// What: absolute, or from the snapshot's directory
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
    let (record, handle) = session.find_or_newest(&command.snapshot, global)?;
    let provider = session.reopen(&record.directory, &handle)?;
    let paths = command.paths.iter().map(|path| diff::within(path, &record.directory)).collect::<Result<Vec<_>>>()?;
    let view = provider.view(&handle)?;
    if command.dry_run {
        let limited: Vec<Changed> = paths.iter().map(|path| Changed { path: path.clone(), is_tree: true }).collect();
        let changes = changes::between(view.path(), &record.directory, Some(&limited))?;
        diff::show(&changes, &record.directory, true, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lock = session.lock()?;
    let safety = match provider.abilities().is_atomic {
        // Cloning a whole tree for a single file costs more than it saves.
        false => None,
        true => {
            let request = manage::Request {
                note: String::new(),
                expires: session.now.checked_add(SAFETY_KEPT).ok(),
                is_held: false,
                purpose: Purpose::Undo { brought_back_from: record.id },
            };
            Some(manage::create(&lock, &*provider, request, session.now)?.id)
        }
    };
    let request = Request { paths, removes_added: command.delete };
    let mut observe = |what: &str| output.detail(what);
    let totals = undo::bring_back(&lock, &record.directory, record.id, view.path(), &request, &mut observe)?;
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
    Ok(ExitCode::SUCCESS)
}
