//! `snapback backup PROJECT`

use std::process::ExitCode;

use anyhow::Result;
use engine::catalog::Outcome;
use engine::config::{self, Config, Project};
use engine::job::{self, BackupRequest, Backups, Into, Made, MissingDump, Pruned, Retained, Walk};

use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::jobs;
use crate::output::{Output, printable};
use crate::signals;

/// What is asked for, besides the project.
pub(super) struct Wanted<'a> {
    /// Names of repositories; those of the plans if empty.
    pub(super) to: &'a [String],
    /// Look at everything.
    pub(super) is_full: bool,
}

/// Backs up one project after the other.
pub(super) fn run(
    config: &Config,
    projects: &[&Project],
    wanted: &Wanted<'_>,
    global: &Global,
    output: &Output,
) -> Result<ExitCode> {
    // Before the first is begun.
    let destinations: Vec<_> =
        projects.iter().map(|project| destinations(config, project, wanted.to)).collect::<Result<_>>()?;
    jobs::with_context(global, output, wanted.is_full, |context| {
        let mut worst = 0;
        for (project, to) in projects.iter().zip(destinations) {
            let backups = job::back_up(context, &BackupRequest { config, project, to })?;
            show(project, &backups, output)?;
            worst = worst.max(code(backups, output));
            if signals::is_cancelled() {
                return Ok(ExitCode::from(signals::exit_code()));
            }
        }
        Ok(ExitCode::from(worst))
    })
}

fn destinations<'c>(config: &'c Config, project: &Project, names: &[String]) -> Result<Vec<&'c config::Repository>> {
    if names.is_empty() {
        let found = job::destinations(config, project);
        if found.is_empty() {
            let error = CommandError::usage(format!("no plan of {} says where its backups go", project.name));
            return Err(error.hint("give --to REPOSITORY, or add backup = { to = [...] } to its plan").into());
        }
        return Ok(found);
    }
    let find = |name: &String| {
        config.repositories.get(name).ok_or_else(|| {
            let known: Vec<&str> = config.repositories.keys().map(String::as_str).collect();
            let error = CommandError::usage(format!("there is no repository {name:?} in the configuration"));
            error.hint(format!("there are: {}", known.join(", "))).into()
        })
    };
    names.iter().map(find).collect()
}

fn show(project: &Project, backups: &Backups, output: &Output) -> Result<()> {
    for (path, error) in &backups.live {
        output.warning(format_args!("{} was read as it is, not from a snapshot: {error}", printable(path)));
    }
    for into in &backups.into {
        if output.json {
            output.json(&document(project, into, !backups.live.is_empty()))?;
        } else if let (Ok(made), false) = (&into.backup, output.quiet) {
            show_one(project, into, made, output)?;
        }
        if let Some(Err(error)) = &into.retained {
            output.warning(format_args!("no old backup was removed: {error}"));
        }
        if let Some(Err(error)) = &into.pruned {
            output.warning(format_args!("nothing was pruned: {error}"));
        }
    }
    Ok(())
}

fn show_one(project: &Project, into: &Into, made: &Made, output: &Output) -> Result<()> {
    let summary = &made.summary;
    output.line(format_args!(
        "{} → {}: backup {} of {}, {} in {}",
        project.name,
        into.repository,
        made.id.short(),
        human::counted(summary.total_files_processed, "file"),
        human::size(summary.total_bytes_processed),
        human::duration(made.time),
    ))?;
    let stored = match summary.data_added {
        0 => "nothing new".to_owned(),
        bytes => format!("{}, compressed to {}", human::size(bytes), human::size(summary.data_added_packed)),
    };
    output.line(format_args!("  stored   {stored}"))?;
    if let Walk::Full { why } = &made.walk {
        output.detail(format_args!("everything was looked at: {why}"));
    }
    if let Some(Ok(Retained { removed, kept_by_depth, .. })) = &into.retained {
        if !removed.is_empty() {
            output.line(format_args!("  removed  {}", human::counted(removed.len() as u64, "old backup")))?;
        }
        if *kept_by_depth > 0 {
            let count = human::counted(*kept_by_depth as u64, "backup");
            output.message(format_args!("{count} that no rule keeps stay: they are younger than the plan's min-depth"));
        }
    }
    if let Some(Ok(Pruned::Freed(bytes))) = into.pruned {
        output.line(format_args!("  freed    {}", human::size(bytes)))?;
    }
    if made.errors > 0 {
        let count = human::counted(made.errors, "file");
        output.warning(format_args!("{count} could not be read and are not in the backup as they should be"));
    }
    for missing in &made.missing {
        output.warning(format_args!("the backup is incomplete: {missing}"));
    }
    Ok(())
}

fn document(project: &Project, into: &Into, is_live: bool) -> serde_json::Value {
    let mut document = serde_json::json!({
        "type": "summary",
        "project": project.name,
        "repository": into.repository,
        "live": is_live,
    });
    match &into.backup {
        Ok(made) => {
            let why = match &made.walk {
                Walk::Full { why } => Some(why),
                Walk::Changed => None,
            };
            let mut figures = serde_json::to_value(&made.summary).expect("numbers and times are always JSON");
            let more = serde_json::json!({
                "id": made.id,
                "parent": made.parent,
                "errors": made.errors + made.missing.len() as u64,
                "missing_dumps": made.missing.iter().map(missing).collect::<Vec<_>>(),
                "full_walk": why,
                "seconds": made.time.as_secs_f64(),
            });
            for from in [&mut figures, &mut more.clone()] {
                if let (Some(fields), Some(from)) = (document.as_object_mut(), from.as_object_mut()) {
                    fields.append(from);
                }
            }
        }
        Err(error) => document["error"] = error.to_string().into(),
    }
    if let Some(Ok(retained)) = &into.retained {
        document["removed"] = serde_json::json!(retained.removed);
        document["kept_by_depth"] = retained.kept_by_depth.into();
    }
    if let Some(Ok(Pruned::Freed(bytes))) = into.pruned {
        document["freed_bytes"] = bytes.into();
    }
    document
}

fn missing(missing: &MissingDump) -> serde_json::Value {
    serde_json::json!({ "database": missing.database, "file": missing.file, "error": missing.reason })
}

/// Tells what failed, and gives the worst exit code of all.
fn code(backups: Backups, output: &Output) -> u8 {
    let mut worst = 0;
    for into in backups.into {
        let code = match into.backup {
            Ok(made) if made.outcome() == Outcome::Succeeded => 0,
            Ok(_) => Code::Incomplete as u8,
            Err(error) => crate::error::tell(&error.into(), output),
        };
        // A backup that is missing is worse than one that lacks files.
        worst = if code == 0 || (worst != 0 && worst != Code::Incomplete as u8) { worst } else { code };
    }
    worst
}
