//! `snapback cat`

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use backup::read::{Found, write_content, write_tar};
use clap::Args;
use repository::tree::NodeKind;

use crate::error::CommandError;
use crate::global::Global;
use crate::open::Session;
use crate::output::Output;
use crate::progress_bar::Quiet;
use crate::select::{self, BackupPath, Filter};

/// Print a file of a backup; a directory comes as tar, with owners, modes, times, links, devices and attributes.
#[derive(Args, Debug)]
#[command(after_help = "\
  snapback cat latest:/etc/fstab
  snapback cat latest:/srv/shop | tar -x -C /tmp/look")]
pub(crate) struct Command {
    /// Which backup, and which file or directory of it
    #[arg(value_name = "BACKUP:PATH", value_parser = BackupPath::parser())]
    backup: BackupPath,

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
    let found = command.backup.find(&mut reader, record)?;
    let path = command.backup.path.as_deref().unwrap_or(Path::new("/"));
    let mut stdout = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let progress = Quiet::new(output);
    let written = match &found {
        Found::Entry(node) if node.kind == NodeKind::File => {
            write_content(&session.repository, &index, &mut reader, node, &mut stdout)
        }
        Found::Entry(node) if node.kind != NodeKind::Dir => {
            let error = CommandError::new(format!("{} is a {}, which has no bytes", path.display(), node.kind));
            let hint = match node.kind {
                NodeKind::Symlink => format!("what it points to: {}", String::from_utf8_lossy(&node.link_target)),
                _ => "`snapback restore` makes it again".to_owned(),
            };
            return Err(error.hint(hint).into());
        }
        _ if io::stdout().is_terminal() => {
            let error =
                CommandError::usage(format!("{} is a directory, and tar is nothing for a terminal", path.display()));
            return Err(error.hint("append `| tar -x -C DIR`, or `> FILE.tar`").into());
        }
        _ => write_tar(&session.repository, &index, &found, path, &progress, &mut stdout),
    };
    match written {
        Err(backup::read::ContentError::Write(error)) => return Err(error.into()),
        Err(backup::read::ContentError::Repository(error)) => return Err(error.into()),
        written => written.with_context(|| path.display().to_string())?,
    }
    stdout.flush()?;
    Ok(progress.exit_code())
}
