//! `snapback rollback`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use engine::rollback::SAFETY_KEPT;
use snapshot::changes::{self, Summary};
use snapshot::holders::Holder;
use snapshot::id::Id;
use snapshot::provider::Provider;
use snapshot::record::{Purpose, Record};
use snapshot::rollback::{self, Member, Part, Plan, Request};
use snapshot::runner::System;

use crate::ask::{self, Answer};
use crate::configuration::{self, Target};
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::signals;
use crate::snapshots::{Session, listed};

/// Of a root directory, every process is one.
const HOLDERS_SHOWN: usize = 20;

/// Take a directory or a project back to a snapshot, live and mounted, as a whole.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows first what will be lost since, and who uses the directory, and asks. The present state is kept
as a snapshot for a day: --undo returns to it. What was taken together, of a project of several
directories, goes back together: all of it or nothing. Units and probe of a project are those of the
configuration. `snapback snapshot undo` brings back single files instead.")]
pub(crate) struct Command {
    /// To which, or a project, to its newest; with --undo, a project or directory (the last that was rolled back, if
    /// none is given)
    #[arg(value_name = "SNAPSHOT|PROJECT", required_unless_present = "undo")]
    to: Option<String>,

    /// Return to the state before the last rollback
    #[arg(long)]
    undo: bool,

    /// Take back the directory of this snapshot alone, not what was taken together with it
    #[arg(long)]
    alone: bool,

    /// Change nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,

    /// Stop this unit of systemd before, and start it after (may be repeated)
    #[arg(long, value_name = "UNIT")]
    stop: Vec<String>,

    /// Restart this unit after (may be repeated)
    #[arg(long, value_name = "UNIT")]
    restart: Vec<String>,

    /// A command for the shell that must succeed afterwards, or all is taken back
    #[arg(long, value_name = "COMMAND")]
    probe: Option<String>,

    /// How long the probe is tried again, as a service may need a while until it answers, and how long a try may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = human::parse_duration)]
    probe_limit: Duration,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    // What was cut short before is put in order first.
    let lock = session.lock()?;
    let mut records = match (&command.to, command.undo) {
        (named, true) => session.together(last_safety(&session, named.as_deref(), global)?)?,
        (Some(to), false) => {
            let point = session.find_point(to, global)?;
            if let (true, Some(project)) = (command.alone, point.project) {
                let error = CommandError::usage(format!("--alone is about one snapshot, and {project} is a project"));
                return Err(error.hint(format!("snapback snapshot list {project}")).into());
            }
            point.records
        }
        (None, false) => return Err(CommandError::usage("no snapshot is named").into()),
    };
    if command.alone {
        records.truncate(1);
    }
    let providers = rollback_providers(&records, &session)?;
    let providers: Vec<&dyn Provider> = providers.iter().map(|provider| &**provider).collect();
    let project = configuration::project_of(&records[0].directory, global, output);
    let probe = command.probe.as_ref().or(project.as_ref().and_then(|project| project.probe.as_ref()));
    let probe_limit = match (&command.probe, &project) {
        (None, Some(project)) => project.probe_limit,
        _ => command.probe_limit,
    };
    let stop = match (&command.stop[..], &project) {
        ([], Some(project)) => project.units.clone(),
        _ => command.stop.clone(),
    };
    let request = Request {
        stop,
        restart: command.restart.clone(),
        probe: probe.iter().flat_map(|probe| engine::rollback::probe(probe, probe_limit)).collect(),
        probe_secs: probe_limit.as_secs(),
        safety_expires: session.now.checked_add(SAFETY_KEPT).ok(),
    };
    let member = |(provider, snapshot)| {
        let losses = losses(provider, snapshot, output);
        Member { losses, ..Member::new(provider, snapshot) }
    };
    let members: Vec<Member<'_>> = providers.iter().copied().zip(&records).map(member).collect();
    let plan = engine::rollback::plan(&session.state, members, request)?;
    show(&plan, &records[0], &session)?;
    if command.dry_run {
        if output.json {
            output.json(&document(&plan))?;
        }
        return Ok(if plan.refusals.is_empty() { ExitCode::SUCCESS } else { Code::Failed.into() });
    }
    if plan.refusals.is_empty() && !command.yes {
        // Others may go on while somebody thinks.
        drop(lock);
        match ask::yes_or_no("Go on?", output) {
            Answer::Yes => {}
            Answer::No => {
                output.message("nothing was changed");
                return Ok(Code::Failed.into());
            }
            Answer::Nobody => {
                let error = CommandError::usage("there is no terminal to ask on, and nothing was changed");
                return Err(error.hint("--dry-run shows what would be done, --yes does it").into());
            }
        }
        return perform(plan, &providers, &session.lock()?, &session);
    }
    perform(plan, &providers, &lock, &session)
}

/// What was done since the snapshot. Nothing if it cannot be told, which stops no rollback.
fn losses(provider: &dyn Provider, record: &Record, output: &Output) -> Option<Summary> {
    let handle = record.handle.as_ref()?;
    let compare = || {
        if let Some(summary) = provider.summary(handle)? {
            return Ok(summary);
        }
        let view = provider.view(handle)?;
        let limited = provider.changed_paths(handle, None)?;
        let changes = changes::between(view.path(), provider.directory(), limited.as_deref())?;
        Ok::<_, snapshot::error::Error>(changes.summary())
    };
    match compare() {
        Ok(summary) => Some(summary),
        Err(error) => {
            output.warning(format_args!("what will be lost cannot be told: {error}"));
            None
        }
    }
}

fn rollback_providers(records: &[Record], session: &Session<'_>) -> Result<Vec<Box<dyn Provider>>> {
    Ok(engine::rollback::providers(records, &session.opener())?)
}

/// The state before the last rollback, of a directory, of any of a project's, or of any.
fn last_safety(session: &Session<'_>, named: Option<&str>, global: &Global) -> Result<Record> {
    let find = |named: &str| {
        let target = Target::find(Path::new(named), global)?;
        let canonical = target.directories().iter().map(|directory| Ok(directory.canonicalize()?));
        canonical.collect::<Result<Vec<PathBuf>>>()
    };
    let directories = named.map(find).transpose()?;
    let is_meant = |record: &Record| {
        let is_safety = matches!(record.purpose, Purpose::Safety { .. }) && record.handle.is_some();
        is_safety && directories.as_ref().is_none_or(|directories| directories.contains(&record.directory))
    };
    let last = session.state.records()?.into_iter().rev().find(is_meant);
    let none =
        || CommandError::new("there is no rollback to undo").hint("`snapback snapshot list` shows the snapshots");
    Ok(last.ok_or_else(none)?)
}

fn perform(
    plan: Plan,
    providers: &[&dyn Provider],
    lock: &snapshot::state::Lock,
    session: &Session<'_>,
) -> Result<ExitCode> {
    // It takes a second, and is better finished than left to its journal; a second signal ends it all the same.
    signals::watch();
    let output = session.output;
    let (begun, to, directories) = (Instant::now(), plan.parts[0].to, plan.directories());
    let mut observe = |what: &str| output.detail(what);
    let outcome = rollback::run::run(lock, providers, &System, plan, session.now, &mut observe)?;
    if output.json {
        let of = |safety: &Record| {
            let to = match safety.purpose {
                Purpose::Safety { rolled_back_to } => rolled_back_to,
                _ => to,
            };
            serde_json::json!({ "directory": safety.directory, "rolled_back_to": to, "safety": safety.id })
        };
        let parts: Vec<serde_json::Value> = outcome.safeties.iter().map(of).collect();
        let first = outcome.safeties.first().map(|safety| safety.id);
        output.json(&serde_json::json!({
            "rolled_back_to": to, "safety": first, "directories": parts, "holders": outcome.holders
        }))?;
    }
    let took = human::duration(begun.elapsed());
    let are = if directories.len() == 1 { "is" } else { "are" };
    output.message(format_args!("{} {are} back at {to}, in {took}", listed(&directories)));
    let kept = ids(outcome.safeties.iter().map(|safety| safety.id));
    output.message(format_args!("the state left behind is kept as {kept}; `snapback rollback --undo` returns to it"));
    for holder in &outcome.holders {
        output.warning(format_args!("still in the old state, and writes into it: {}", told(holder)));
    }
    match outcome.unstarted {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => {
            output.warning(error);
            Ok(Code::Failed.into())
        }
    }
}

/// What will be lost and who is concerned, before anything is done.
fn show(plan: &Plan, record: &Record, session: &Session<'_>) -> Result<()> {
    let output = session.output;
    if output.json {
        // With --yes the result is the one document.
        return Ok(());
    }
    let at = human::clock_time(record.created, output.verbose);
    let age = human::age(session.now.as_second(), record.created.as_second());
    let together = if plan.parts.len() == 1 { "" } else { ", together" };
    output.message(format_args!("This takes {} back to {at} ({age}){together}:", listed(&plan.directories())));
    for part in &plan.parts {
        if plan.parts.len() > 1 {
            output.message(format_args!("  {}", printable(&part.directory)));
        }
        show_part(part, &plan.stop, output);
    }
    if !plan.stop.is_empty() {
        let is_stopped = |holder: &&Holder| holder.unit.as_ref().is_some_and(|unit| plan.stop.contains(unit));
        let holders = plan.parts.iter().flat_map(|part| &part.holders).filter(is_stopped);
        let processes: BTreeSet<u32> = holders.map(|holder| holder.pid).collect();
        let processes = human::counted(processes.len() as u64, "process").replace("processs", "processes");
        line(output, "stopped", &format!("{} ({processes}), and started again", plan.stop.join(", ")));
    }
    if !plan.restart.is_empty() {
        line(output, "restarted", &plan.restart.join(", "));
    }
    let kept = ids(plan.parts.iter().map(|part| part.safety));
    line(output, "safety", &format!("the present state is kept as {kept}; `snapback rollback --undo` returns to it"));
    for step in plan.steps() {
        output.detail(format_args!("  step      {step}"));
    }
    for refusal in &plan.refusals {
        line(output, "refused", &refusal.message);
    }
    Ok(())
}

/// What `--dry-run --json` prints.
fn document(plan: &Plan) -> serde_json::Value {
    let part = |part: &Part| {
        serde_json::json!({
            "directory": part.directory,
            "snapshot": part.to,
            "losses": part.losses,
            "holders": part.holders,
            "mounts_that_stay": part.mounts_below,
        })
    };
    let refusals: Vec<&str> = plan.refusals.iter().map(|refusal| refusal.message.as_str()).collect();
    serde_json::json!({
        "dry_run": true,
        "directories": plan.parts.iter().map(part).collect::<Vec<_>>(),
        "stopped": plan.stop,
        "restarted": plan.restart,
        "steps": plan.steps(),
        "refusals": refusals,
    })
}

fn show_part(part: &Part, stopped: &[String], output: &Output) {
    if let Some(losses) = &part.losses {
        let text = format!(
            "{} changed since, {} new, {} deleted come back; {}    (`snapback snapshot diff {}` shows them)",
            human::counted(losses.changed, "file"),
            human::count(losses.added),
            human::count(losses.removed),
            human::size(losses.bytes),
            part.to
        );
        line(output, "lost", &text);
    }
    let goes_on = |holder: &&Holder| !holder.unit.as_ref().is_some_and(|unit| stopped.contains(unit));
    let going_on: Vec<&Holder> = part.holders.iter().filter(goes_on).collect();
    let shown = if output.verbose { going_on.len() } else { HOLDERS_SHOWN };
    for (number, holder) in going_on.iter().take(shown).enumerate() {
        line(output, if number == 0 { "in use by" } else { "" }, &told(holder));
    }
    if going_on.len() > shown {
        let more = human::count((going_on.len() - shown) as u64);
        line(output, "", &format!("and {more} more (--verbose shows them)"));
    }
    if !going_on.is_empty() {
        line(output, "", "which go on in the old state until they are restarted (--stop, --restart)");
    }
    for mount in &part.mounts_below {
        line(output, "stays", &format!("the mount {}", printable(mount)));
    }
    if part.is_snapshot_used_up {
        line(output, "used up", &format!("snapshot {} becomes the live state", part.to));
    }
}

fn line(output: &Output, title: &str, text: &str) {
    output.message(format_args!("  {title:<9} {text}"));
}

fn ids(ids: impl Iterator<Item = Id>) -> String {
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" and ")
}

fn told(holder: &Holder) -> String {
    let unit = holder.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
    format!("{} (process {}{unit})", printable(Path::new(&holder.command)), holder.pid)
}
