//! `snapback ls`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use backup::progress::Progress;
use backup::read::{Descend, Found, walk};
use clap::Args;
use repository::BlobReader;
use repository::record::BackupRecord;
use repository::tree::Node;

use crate::entry::{self, Document};
use crate::global::Global;
use crate::open::Session;
use crate::output::{Lines, Output};
use crate::progress_bar::Quiet;
use crate::select::{self, BackupPath, Filter};

/// List the files of a backup.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which backup
    #[arg(value_name = "BACKUP[:PATH]", value_parser = BackupPath::parser())]
    backup: BackupPath,

    /// Which directory or file of it; what was backed up, if none is given
    #[arg(value_name = "PATH")]
    inside: Option<PathBuf>,

    /// Show modes, owners, sizes and times
    #[arg(short, long)]
    long: bool,

    /// Show what lies in the directories too
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    filter: Filter,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let records = select::all(&session.repository, output)?;
    let (_, record) = select::find(&records, &command.backup.backup, &command.filter)?;
    let index = session.repository.load_index()?;
    let mut reader = session.repository.reader(&index);
    let progress = Quiet::new(output);
    let mut listing = Listing { command, output, lines: output.lines() };
    for path in paths(command, record) {
        let found = select::lookup(&mut reader, record, &path)?;
        listing.list(&mut reader, &path, &found, &progress)?;
    }
    listing.lines.finish()?;
    Ok(progress.exit_code())
}

/// The root of a backup says nothing: what was asked for lies deeper.
fn paths(command: &Command, record: &BackupRecord) -> Vec<PathBuf> {
    match command.inside.as_ref().or(command.backup.path.as_ref()) {
        Some(path) => vec![Path::new("/").join(path)],
        None => record.paths.iter().map(|path| up_to_doubt(Path::new(path))).collect(),
    }
}

/// A record has paths as JSON has text: where something was not UTF-8, which name it was is lost. Above it is known.
fn up_to_doubt(path: &Path) -> PathBuf {
    path.iter().take_while(|name| !name.to_string_lossy().contains(char::REPLACEMENT_CHARACTER)).collect()
}

struct Listing<'a> {
    command: &'a Command,
    output: &'a Output,
    lines: Lines<'a>,
}

impl Listing<'_> {
    fn list(&mut self, reader: &mut BlobReader<'_>, path: &Path, found: &Found, progress: &dyn Progress) -> Result<()> {
        let Some(tree) = found.tree() else {
            if let Found::Entry(node) = found {
                self.show(path, node)?;
            }
            return Ok(());
        };
        let descend = if self.command.recursive { Descend::Into } else { Descend::Over };
        walk(reader, tree, path, progress, &mut |_, path, node| {
            self.show(path, node)?;
            Ok::<_, anyhow::Error>(descend)
        })
    }

    fn show(&mut self, path: &Path, node: &Node) -> Result<()> {
        if self.output.json {
            self.lines.object(&Document::new(path, node))?;
            return Ok(());
        }
        let long = self.command.long;
        let before = if long { entry::long(node, self.output) } else { String::new() };
        self.lines.path(&before, path, &entry::suffix(node, long))?;
        Ok(())
    }
}
