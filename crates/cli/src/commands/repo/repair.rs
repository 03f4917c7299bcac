//! `snapback repo repair`: plans, shows the plan, and carries it out.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use repository::id::Id;
use repository::repair::{backups, index, packs};
use repository::storage::FileKind;

use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Meter;
use crate::select::{self, Filter};

/// Save what can be saved. `snapback repo check --read-data` tells which of them is needed.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Save what can be read of damaged packs, and remove them
    Packs(Packs),
    /// Make the index agree with the packs that are there
    Index(Index),
    /// Take what is lost out of the backups, so that the rest can be restored
    Backups(Backups),
}

/// Save what can be read of damaged packs, and remove them.
#[derive(Args, Debug)]
pub(crate) struct Packs {
    /// Beginnings of the packs' ids
    #[arg(value_name = "PACK", required = true)]
    packs: Vec<String>,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Make the index agree with the packs that are there.
#[derive(Args, Debug)]
pub(crate) struct Index {
    /// Read the headers of all packs, instead of those alone that the index does not have right
    #[arg(long)]
    read_all_headers: bool,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Take what is lost out of the backups, so that the rest can be restored.
#[derive(Args, Debug)]
pub(crate) struct Backups {
    /// Which backups; all, if none is named
    #[arg(value_name = "BACKUP")]
    backups: Vec<String>,

    /// Remove the backups that were repaired, and those of which nothing is left
    #[arg(long)]
    forget: bool,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    match command {
        Command::Packs(command) => repair_packs(command, &session)?,
        Command::Index(command) => repair_index(command, &session)?,
        Command::Backups(command) => repair_backups(command, &session)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn repair_packs(command: &Packs, session: &Session<'_>) -> Result<()> {
    let output = session.output;
    let held = session.lock_to_remove(command.dry_run)?;
    let stored = session.repository.storage().list(FileKind::Pack)?;
    let ids = command.packs.iter().map(|text| pack(text, &stored)).collect::<Result<Vec<Id>>>()?;
    let meter = Meter::start(output, "repairing");
    let plan = packs::plan(&session.repository, &ids, &meter)?;
    let mut documents = Vec::new();
    for salvage in &plan.packs {
        let [saved, elsewhere, lost] = [salvage.saved.len(), salvage.elsewhere.len(), salvage.lost.len()];
        if output.json {
            let lost: Vec<Id> = salvage.lost.iter().map(|(_, id)| *id).collect();
            documents.push(serde_json::json!({
                "pack": salvage.pack, "saved": saved, "elsewhere": elsewhere, "lost": lost,
            }));
        } else {
            output.line(format_args!(
                "pack {}: {} can be saved, {} lie in other packs too, {} are lost",
                salvage.pack.short(),
                human::counted(saved as u64, "blob"),
                human::count(elsewhere as u64),
                human::count(lost as u64),
            ))?;
        }
    }
    let any_lost = plan.packs.iter().any(|salvage| !salvage.lost.is_empty());
    if let Some(lock) = held.lock() {
        packs::execute(&session.repository, lock, plan, &meter)?;
    }
    drop(meter);
    if output.json {
        output.json(&serde_json::json!({ "type": "summary", "dry_run": command.dry_run, "packs": documents }))?;
    }
    if any_lost && !command.dry_run {
        output.message("next: `snapback repo repair backups` takes what is lost out of the backups");
    }
    Ok(())
}

fn pack(text: &str, stored: &[(Id, u64)]) -> Result<Id> {
    let text = text.to_ascii_lowercase();
    let mut matching =
        stored.iter().map(|(id, _)| *id).filter(|id| !text.is_empty() && id.to_string().starts_with(&text));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => {
            let hint = "`snapback repo check --read-data` names the damaged ones";
            Err(CommandError::new(format!("there is no pack {text:?}")).hint(hint).into())
        }
        (Some(_), Some(_)) => {
            Err(CommandError::new(format!("{text:?} is the beginning of several packs")).hint("type more of it").into())
        }
    }
}

fn repair_index(command: &Index, session: &Session<'_>) -> Result<()> {
    let output = session.output;
    let held = session.lock_to_remove(command.dry_run)?;
    let meter = Meter::start(output, "repairing");
    let plan = index::plan(&session.repository, command.read_all_headers, &meter)?;
    if let Some(lock) = held.lock().filter(|_| !plan.is_empty()) {
        index::execute(&session.repository, lock, &plan, &meter)?;
    }
    drop(meter);
    for (id, error) in &plan.damaged {
        output.warning(format_args!("pack {id} cannot be read: {error}; `snapback repo repair packs {id}`"));
    }
    if output.json {
        output.json(&serde_json::json!({
            "type": "summary",
            "dry_run": command.dry_run,
            "unreadable_index_files": plan.unreadable.iter().map(|(id, _)| *id).collect::<Vec<Id>>(),
            "missing_packs": plan.gone,
            "reread_packs": plan.reread.iter().map(|(id, _)| *id).collect::<Vec<Id>>(),
            "damaged_packs": plan.damaged.iter().map(|(id, _)| *id).collect::<Vec<Id>>(),
        }))?;
        return Ok(());
    }
    if output.quiet {
        return Ok(());
    }
    if plan.is_empty() {
        output.line("the index is right")?;
        return Ok(());
    }
    let count = |number: usize, what: &str| human::counted(number as u64, what);
    output.line(format_args!(
        "{} given up, {} taken out, {} read anew",
        count(plan.unreadable.len(), "unreadable index file"),
        count(plan.gone.len(), "missing pack"),
        count(plan.reread.len(), "pack"),
    ))?;
    if command.dry_run {
        output.message("nothing was changed");
    } else if !plan.gone.is_empty() {
        output.message("next: `snapback repo check`, and `snapback repo repair backups` for what it names");
    }
    Ok(())
}

fn repair_backups(command: &Backups, session: &Session<'_>) -> Result<()> {
    let output = session.output;
    let held = session.lock_to_remove(command.dry_run)?;
    let records = select::all(&session.repository, output)?;
    let chosen = select::several_or_all(&records, &command.backups, &command.filter)?;
    let ids: Vec<Id> = chosen.iter().map(|(id, _)| *id).collect();
    let meter = Meter::start(output, "repairing");
    let plan = backups::plan(&session.repository, Some(&ids), &meter)?;
    if !output.json {
        for (place, change) in plan.repairs.iter().flat_map(|repair| &repair.changes) {
            output.line(format_args!("{place} {change}"))?;
        }
        for id in &plan.lost {
            output.line(format_args!("{}: nothing of it is left", id.short()))?;
        }
    }
    let replaced = match held.lock() {
        Some(lock) => backups::execute(&session.repository, lock, &plan, command.forget, &meter)?,
        None => Vec::new(),
    };
    drop(meter);
    if output.json {
        let repairs = plan.repairs.iter().map(|repair| {
            let changes: Vec<String> =
                repair.changes.iter().map(|(place, change)| format!("{place} {change}")).collect();
            let new = replaced.iter().find(|(old, _)| *old == repair.backup).map(|(_, new)| *new);
            serde_json::json!({ "id": repair.backup, "new_id": new, "changes": changes })
        });
        output.json(&serde_json::json!({
            "type": "summary",
            "dry_run": command.dry_run,
            "repairs": repairs.collect::<Vec<_>>(),
            "lost": plan.lost,
            "forgotten": command.forget && !command.dry_run,
        }))?;
        return Ok(());
    }
    for (old, new) in &replaced {
        output.line(format_args!("{} repaired as {}", old.short(), new.short()))?;
    }
    let damaged = plan.repairs.len() + plan.lost.len();
    if damaged == 0 {
        output.message("no backup lacks anything");
    } else if command.dry_run {
        output.message(format_args!("{} would be repaired", human::counted(plan.repairs.len() as u64, "backup")));
    } else if !command.forget {
        output.message("the damaged ones are still there: `snapback repo repair backups --forget` removes them");
    }
    Ok(())
}
