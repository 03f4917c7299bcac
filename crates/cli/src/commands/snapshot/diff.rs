//! `snapback snapshot diff`

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use snapshot::changes::{self, Change, Changes, ContentDiff, Kind, What};
use snapshot::provider::{Handle, Provider, View};
use snapshot::record::Record;

use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// Longer files are not compared by lines.
const LIMIT: u64 = 16 << 20;

/// Show what changed between two snapshots, or since one.
#[derive(Args, Debug)]
#[command(after_help = "\
+ new since   - gone since   M another content   T another kind: a file became a link, say
U other owner, mode, time or attributes")]
pub(crate) struct Command {
    /// The earlier one
    #[arg(value_name = "SNAPSHOT")]
    before: String,

    /// The later one, or `now`
    #[arg(value_name = "SNAPSHOT", default_value = "now")]
    after: String,

    /// Show in which lines this file differs, instead
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,

    /// Show entries too of which only owner, mode, time or attributes differ
    #[arg(long)]
    metadata: bool,
}

/// A tree to compare: a snapshot's, or the live one.
enum Tree {
    Snapshot(Box<dyn View>, Handle),
    Live(PathBuf),
}

impl Tree {
    fn path(&self) -> &Path {
        match self {
            Tree::Snapshot(view, _) => view.path(),
            Tree::Live(directory) => directory,
        }
    }

    fn handle(&self) -> Option<&Handle> {
        match self {
            Tree::Snapshot(_, handle) => Some(handle),
            Tree::Live(_) => None,
        }
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let (record, handle) = session.find(&command.before)?;
    let provider = session.reopen(&record.directory, &handle)?;
    let before = provider.view(&handle)?;
    let after = match command.after.as_str() {
        "now" => Tree::Live(record.directory.clone()),
        text => later(&session, text, &record, &*provider)?,
    };
    if let Some(file) = &command.content {
        return content(before.path(), after.path(), &within(file, &record.directory)?, output);
    }
    let limited = provider.changed_paths(&handle, after.handle())?;
    let changes = changes::between(before.path(), after.path(), limited.as_deref())?;
    show(&changes, &record.directory, command.metadata, output)?;
    for error in &changes.unread {
        output.warning(error);
    }
    Ok(if changes.unread.is_empty() { ExitCode::SUCCESS } else { Code::Incomplete.into() })
}

fn later(session: &Session<'_>, text: &str, before: &Record, provider: &dyn Provider) -> Result<Tree> {
    let (after, handle) = session.find(text)?;
    if after.directory != before.directory {
        let (one, other) = (printable(&before.directory), printable(&after.directory));
        return Err(CommandError::usage(format!("{} is of {one}, and {} of {other}", before.id, after.id)).into());
    }
    Ok(Tree::Snapshot(provider.view(&handle)?, handle))
}

/// A path as it is typed, relative to the directory: absolute, from here, or from the directory.
pub(crate) fn within(path: &Path, directory: &Path) -> Result<PathBuf> {
    match below(path, directory) {
        Some(relative) => Ok(relative),
        None if path.is_relative() => Ok(path.to_owned()),
        None => {
            let (path, directory) = (printable(path), printable(directory));
            Err(CommandError::usage(format!("{path} is not in {directory}, which the snapshot is of")).into())
        }
    }
}

/// A path as it is typed, absolute or from here, relative to the directory, if it lies in it.
pub(crate) fn below(path: &Path, directory: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    if let Ok(relative) = absolute.strip_prefix(directory) {
        return Some(relative.to_owned());
    }
    // The directory may have been named by way of a symbolic link.
    let resolved = absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?);
    resolved.strip_prefix(directory).ok().map(Path::to_owned)
}

fn content(before: &Path, after: &Path, file: &Path, output: &Output) -> Result<ExitCode> {
    let difference = changes::content(before, after, file, LIMIT)?;
    if output.json {
        let (state, text) = match &difference {
            ContentDiff::Same => ("same", None),
            ContentDiff::Text(text) => ("text", Some(String::from_utf8_lossy(text).into_owned())),
            ContentDiff::NotText => ("not-text", None),
        };
        output.json(&serde_json::json!({ "file": file.to_string_lossy(), "content": state, "diff": text }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match difference {
        ContentDiff::Same => output.message("no difference"),
        ContentDiff::NotText => output.message("it is no text, or too long to be compared by lines"),
        ContentDiff::Text(text) => {
            let mut stdout = std::io::stdout().lock();
            let name = printable(file);
            writeln!(stdout, "--- snapshot/{name}\n+++ now/{name}")?;
            stdout.write_all(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The list, and what it comes to.
pub(crate) fn show(changes: &Changes, directory: &Path, with_metadata: bool, output: &Output) -> Result<()> {
    let mut lines = output.lines();
    let mut metadata = 0;
    for change in &changes.list {
        let is_metadata = change.what == What::Attributes;
        metadata += u64::from(is_metadata);
        if is_metadata && !with_metadata {
            continue;
        }
        let path = directory.join(&change.path);
        if output.json {
            lines.object(&document(change, &path))?;
        } else {
            lines.path(sign(change.what), &path, if change.kind == Kind::Directory { "/" } else { "" })?;
        }
    }
    lines.finish()?;
    let summary = changes.summary();
    output.message(format_args!(
        "{} changed, {} new, {} gone; {}; {} with other metadata only",
        human::counted(summary.changed.saturating_sub(files_with_other_metadata(changes)), "file"),
        human::count(summary.added),
        human::count(summary.removed),
        human::size(summary.bytes),
        human::count(metadata),
    ));
    Ok(())
}

fn files_with_other_metadata(changes: &Changes) -> u64 {
    let is_one = |change: &&Change| change.what == What::Attributes && change.kind != Kind::Directory;
    changes.list.iter().filter(is_one).count() as u64
}

fn sign(what: What) -> &'static str {
    match what {
        What::Added => "+  ",
        What::Removed => "-  ",
        What::Modified => "M  ",
        What::Replaced => "T  ",
        What::Attributes => "U  ",
    }
}

fn document(change: &Change, path: &Path) -> serde_json::Value {
    serde_json::json!({
        "path": path.to_string_lossy(),
        "change": change.what,
        "kind": change.kind,
        "size_before": change.size_before,
        "size_after": change.size_after,
    })
}
