//! `snapback repo prune`, and the end of `snapback forget --prune`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use repository::Error;
use repository::lock::Lock;
use repository::prune::{self, MaxUnused, Options, Plan};

use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Meter;

/// Remove the data that no backup needs any more.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[command(flatten)]
    how: How,

    /// Remove nothing, only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// How to prune, here and in `forget`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pruning")]
pub(crate) struct How {
    /// How much unused data may stay in packs that are used: 5%, 500M or unlimited
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = max_unused)]
    max_unused: MaxUnused,

    /// Rewrite at most so many bytes of packs
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    max_repack_size: Option<u64>,

    /// Merge small packs
    #[arg(long)]
    repack_small: bool,

    /// Compress what old versions stored uncompressed
    #[arg(long)]
    repack_uncompressed: bool,

    /// Go on although no backup is left, which removes all data
    #[arg(long)]
    remove_everything: bool,
}

fn max_unused(text: &str) -> Result<MaxUnused, String> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    let Some(percent) = text.strip_suffix('%') else { return human::parse_size(text).map(MaxUnused::Bytes) };
    match percent.trim().parse() {
        Ok(percent) if (0.0..100.0).contains(&percent) => Ok(MaxUnused::Percent(percent)),
        _ => Err(format!("{text:?} is no limit; write 5%, 500M or unlimited")),
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let held = session.lock_to_remove(command.dry_run)?;
    match held.lock() {
        Some(lock) => prune(&session, lock, &command.how)?,
        None => show(&plan(&session, &command.how)?, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prunes under an exclusive lock.
pub(crate) fn prune(session: &Session<'_>, lock: &Arc<Lock>, how: &How) -> Result<()> {
    let plan = plan(session, how)?;
    if plan.is_empty() {
        return show(&plan, session.output);
    }
    show(&plan, session.output)?;
    let figures = plan.figures;
    let outcome = {
        let meter = Meter::start(session.output, "pruning");
        prune::execute(&session.repository, lock, plan, &meter)?
    };
    let freed = figures.freed_bytes + outcome.unfinished_bytes;
    if session.output.json {
        session.output.json(&serde_json::json!({
            "type": "summary",
            "removed_packs": outcome.removed_packs,
            "rewritten_bytes": outcome.repacked.stored_bytes,
            "freed_bytes": freed,
        }))?;
    } else {
        session.output.message(format_args!("{} freed", human::size(freed)));
    }
    Ok(())
}

fn plan(session: &Session<'_>, how: &How) -> Result<Plan> {
    let options = Options {
        max_unused: how.max_unused,
        max_repack_bytes: how.max_repack_size,
        repack_small: how.repack_small,
        repack_uncompressed: how.repack_uncompressed,
        remove_everything: how.remove_everything,
    };
    let meter = Meter::start(session.output, "pruning");
    prune::plan(&session.repository, &options, &meter).map_err(|error| match error {
        Error::Refused(reason) => {
            let hint = "`snapback repo check` tells more; --remove-everything if no backup is left on purpose";
            CommandError::new(format!("nothing was pruned: {reason}")).hint(hint).into()
        }
        error => error.into(),
    })
}

fn show(plan: &Plan, output: &Output) -> Result<()> {
    let figures = &plan.figures;
    let unused: Vec<u64> = plan.remove.iter().chain(&plan.unindexed).map(|(_, bytes)| *bytes).collect();
    let rewritten: u64 = plan.repack.iter().map(|repack| repack.bytes).sum();
    if output.json {
        output.json(&serde_json::json!({
            "type": "plan",
            "remove_packs": unused.len(),
            "remove_bytes": unused.iter().sum::<u64>(),
            "rewrite_packs": plan.repack.len(),
            "rewrite_bytes": rewritten,
            "keep_packs": figures.kept_packs,
            "used_bytes": figures.used_bytes,
            "unused_bytes_after": figures.unused_bytes_after,
            "freed_bytes": figures.freed_bytes,
        }))?;
        return Ok(());
    }
    if output.quiet {
        return Ok(());
    }
    if plan.is_empty() {
        output.line(format_args!("nothing to prune: {} are in use", human::size(figures.used_bytes)))?;
        return Ok(());
    }
    let packs = |count: usize| human::counted(count as u64, "pack");
    let removed = unused.iter().sum();
    output.line(format_args!("in use    {}", human::size(figures.used_bytes)))?;
    output.line(format_args!("remove    {} that nobody uses, {}", packs(unused.len()), human::size(removed)))?;
    output.line(format_args!("rewrite   {}, {}", packs(plan.repack.len()), human::size(rewritten)))?;
    let rest = human::size(figures.unused_bytes_after);
    output.line(format_args!("frees     {}; {rest} unused stay", human::size(figures.freed_bytes)))?;
    Ok(())
}
