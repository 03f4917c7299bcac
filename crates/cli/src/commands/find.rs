//! `snapback find`

use std::process::ExitCode;

use anyhow::Result;
use backup::read::{Finder, Match, Version};
use clap::Args;
use repository::id::Id;
use repository::record::BackupRecord;

use crate::entry::{self, Document};
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::Output;
use crate::progress_bar::{Meter, Quiet};
use crate::select::{self, Filter};

/// Find files in all backups, and show which versions there are.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// A name or a path, with *, ?, [a-z] and {a,b}; with a slash, ** is any number of directories
    #[arg(value_name = "PATTERN")]
    pattern: String,

    /// Take capital and small letters for the same
    #[arg(short, long)]
    ignore_case: bool,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let mut finder = Finder::new(&command.pattern, command.ignore_case).map_err(|error| {
        CommandError::usage(format!("{:?} is no pattern: {}", command.pattern, error.kind()))
            .hint("put a \\ before * ? [ { to mean the character itself")
    })?;
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let records = command.filter.apply(select::all(&session.repository, output)?);
    let index = session.repository.load_index()?;
    let progress = Quiet::new(output);
    {
        let meter = (!output.json).then(|| Meter::start(output, "searching"));
        if let Some(meter) = &meter {
            meter.counts().restart("searching", "backup", Some(records.len() as u64), None);
        }
        let mut reader = session.repository.reader(&index);
        for (number, (_, record)) in records.iter().enumerate() {
            finder.search(&mut reader, record.tree, number, &progress)?;
            if let Some(meter) = &meter {
                meter.counts().done(1, 0);
            }
        }
    }
    show(&finder.finish(), &records, output)?;
    Ok(progress.exit_code())
}

fn show(matches: &[Match], records: &[(Id, BackupRecord)], output: &Output) -> Result<()> {
    let now = open::now().secs;
    let mut lines = output.lines();
    for found in matches {
        if output.json {
            let versions = found.versions.iter().map(|version| {
                let backups: Vec<_> = version.backups.iter().map(|number| records[*number].0).collect();
                serde_json::json!({ "entry": Document::new(&found.path, &version.node), "backups": backups })
            });
            let path = found.path.to_string_lossy();
            lines.object(&serde_json::json!({ "path": path, "versions": versions.collect::<Vec<_>>() }))?;
            continue;
        }
        lines.path("", &found.path, found.versions.first().map_or("", suffix))?;
        // The newest first: that is the one people want.
        for version in found.versions.iter().rev() {
            lines.text(&format!("  {}{}", entry::long(&version.node, output), holders(version, records, now)))?;
        }
    }
    lines.finish()?;
    if !output.json {
        output.message(human::counted(matches.len() as u64, "path"));
    }
    Ok(())
}

fn suffix(version: &Version) -> &'static str {
    if version.node.kind == repository::tree::NodeKind::Dir { "/" } else { "" }
}

/// `in 31813c8b (2 days ago)`, or `in 12 backups, 95941162 (2 months ago) to 31813c8b (2 days ago)`.
fn holders(version: &Version, records: &[(Id, BackupRecord)], now: i64) -> String {
    let name = |number: usize| {
        let (id, record) = &records[number];
        format!("{} ({})", id.short(), human::age(now, record.time.secs))
    };
    match version.backups.as_slice() {
        [] => String::new(),
        [one] => format!("in {}", name(*one)),
        [first, .., last] => format!("in {} backups, {} to {}", version.backups.len(), name(*first), name(*last)),
    }
}
