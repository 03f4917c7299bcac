//! `snapback diff`

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use backup::read::{self, Change, Difference};
use clap::Args;
use repository::tree::{Node, NodeKind};

use crate::entry::{self, Document};
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Quiet;
use crate::select::{self, BackupPath, Filter};

/// Show what differs between two backups.
#[derive(Args, Debug)]
#[command(after_help = "\
+ only in the second   - only in the first   M another content
T another kind: a file became a link, say    U other owner, mode, times or attributes")]
pub(crate) struct Command {
    /// The earlier one
    #[arg(value_name = "BACKUP[:PATH]", value_parser = BackupPath::parser())]
    before: BackupPath,

    /// The later one; its path is the earlier one's, if none is given
    #[arg(value_name = "BACKUP[:PATH]", value_parser = BackupPath::parser())]
    after: BackupPath,

    /// Show entries too of which only owner, mode, times or attributes differ
    #[arg(long)]
    metadata: bool,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Default)]
struct Totals {
    added: (u64, u64),
    removed: (u64, u64),
    changed: (u64, u64),
    metadata: u64,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let records = select::all(&session.repository, output)?;
    let (_, before) = select::find(&records, &command.before.backup, &command.filter)?;
    let (_, after) = select::find(&records, &command.after.backup, &command.filter)?;
    let index = session.repository.load_index()?;
    let mut reader = session.repository.reader(&index);
    let at = command.before.path.as_deref().unwrap_or(Path::new("/"));
    let at_after = command.after.path.as_deref().unwrap_or(at);
    let no_directory = |path: &Path| {
        CommandError::new(format!("{} is no directory", path.display())).hint("compare the directory above it")
    };
    let tree = select::lookup(&mut reader, before, at)?.tree().ok_or_else(|| no_directory(at))?;
    let tree_after = select::lookup(&mut reader, after, at_after)?.tree().ok_or_else(|| no_directory(at_after))?;

    let progress = Quiet::new(output);
    let mut totals = Totals::default();
    let mut lines = output.lines();
    read::diff(&mut reader, tree, tree_after, at, &progress, &mut |difference: Difference<'_>| {
        totals.add(&difference);
        if difference.change == Change::Metadata && !command.metadata {
            return Ok(());
        }
        if output.json {
            lines.object(&document(&difference))?;
        } else if let Some(node) = difference.after.or(difference.before) {
            lines.path(sign(difference.change), difference.path, &entry::suffix(node, false))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    lines.finish()?;
    totals.show(output);
    Ok(progress.exit_code())
}

fn sign(change: Change) -> &'static str {
    match change {
        Change::Added => "+  ",
        Change::Removed => "-  ",
        Change::Content => "M  ",
        Change::Kind => "T  ",
        Change::Metadata => "U  ",
    }
}

fn document(difference: &Difference<'_>) -> serde_json::Value {
    let change = match difference.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Content => "content",
        Change::Kind => "kind",
        Change::Metadata => "metadata",
    };
    let entry = |node: &Node| Document::new(difference.path, node);
    serde_json::json!({
        "path": difference.path.to_string_lossy(),
        "change": change,
        "before": difference.before.map(entry),
        "after": difference.after.map(entry),
    })
}

impl Totals {
    fn add(&mut self, difference: &Difference<'_>) {
        let size = |node: Option<&Node>| node.map_or(0, |node| node.size);
        let is_directory = |node: Option<&Node>| node.is_none_or(|node| node.kind == NodeKind::Dir);
        let (before, after) = (difference.before, difference.after);
        match difference.change {
            Change::Metadata => self.metadata += 1,
            _ if is_directory(before) && is_directory(after) => {}
            Change::Added => self.added = (self.added.0 + 1, self.added.1 + size(after)),
            Change::Removed => self.removed = (self.removed.0 + 1, self.removed.1 + size(before)),
            Change::Content | Change::Kind => self.changed = (self.changed.0 + 1, self.changed.1 + size(after)),
        }
    }

    fn show(&self, output: &Output) {
        let part = |(files, bytes): (u64, u64), what: &str| {
            format!("{} {what} ({})", human::counted(files, "file"), human::size(bytes))
        };
        output.message(format_args!(
            "{}, {}, {}; {} with other metadata only",
            part(self.added, "added"),
            part(self.removed, "removed"),
            part(self.changed, "changed"),
            human::count(self.metadata),
        ));
    }
}
