//! `snapback restore`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use backup::archive::absolute;
use backup::patterns::Patterns;
use backup::read::find_path;
use backup::restore::{self, Outcome, Overwrite};
use clap::{Args, ValueEnum};
use engine::manifest;
use repository::index::Index;
use repository::record::BackupRecord;

use crate::error::Code;
use crate::global::Global;
use crate::human;
use crate::open::Session;
use crate::output::Output;
use crate::patterns::{Exclude, patterns};
use crate::progress_bar::Meter;
use crate::select::{self, BackupPath, Filter};

/// Bring files back from a backup.
#[derive(Args, Debug)]
#[command(after_help = "\
The full path of the backup is laid below DIR. A file that exists is, by --overwrite,
  always      made as in the backup; only the pieces that differ are read and written
  if-changed  the same, but left as it is where size and time agree
  if-newer    only replaced where the backup's is newer
  never       left as it is

Dumps of databases, which a project's backup has below /.snapback, are not laid into / unless
they are asked for: snapback restore BACKUP:/.snapback/databases --to DIR

  snapback restore latest --to /tmp/look
  snapback restore latest:/srv/shop --to / --delete")]
pub(crate) struct Command {
    /// Which backup, and which file or directory of it
    #[arg(value_name = "BACKUP[:PATH]", value_parser = BackupPath::parser())]
    backup: BackupPath,

    /// Below which directory; `/` brings everything back to where it was
    #[arg(long, value_name = "DIR")]
    to: PathBuf,

    /// Only what matches (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,

    #[command(flatten)]
    exclude: Exclude,

    /// Remove what the backup does not have from the directories that are restored
    #[arg(long)]
    delete: bool,

    /// What to do with files that exist
    #[arg(long, value_name = "MODE", value_enum, default_value_t = OverwriteMode::Always)]
    overwrite: OverwriteMode,

    /// Write nothing, only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read everything back afterwards, and compare
    #[arg(long)]
    verify: bool,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteMode {
    Always,
    IfChanged,
    IfNewer,
    Never,
}

impl From<OverwriteMode> for Overwrite {
    fn from(mode: OverwriteMode) -> Self {
        match mode {
            OverwriteMode::Always => Overwrite::Always,
            OverwriteMode::IfChanged => Overwrite::IfChanged,
            OverwriteMode::IfNewer => Overwrite::IfNewer,
            OverwriteMode::Never => Overwrite::Never,
        }
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let target = target(&command.to)?;
    let include = patterns(&command.include)?;
    let exclude = patterns(&command.exclude.texts()?)?;
    let session = Session::open(global, output)?;
    let _lock = session.lock_for_reading()?;
    let records = select::all(&session.repository, output)?;
    let (id, record) = select::find(&records, &command.backup.backup, &command.filter)?;
    let index = session.repository.load_index()?;
    // So that a mistyped path is told before anything is made.
    command.backup.find(&mut session.repository.reader(&index), record)?;
    let exclude = match is_all_into_root(command, &target) && has_dumps(&session, &index, record) {
        true => {
            output.message(
                "the dumps of databases in its /.snapback are left out; --to another directory brings them, too",
            );
            let dumps = Patterns::new([manifest::DIRECTORY])?;
            Some(match exclude {
                Some(exclude) => exclude.or(dumps),
                None => dumps,
            })
        }
        false => exclude,
    };
    let started = Instant::now();
    let outcome = {
        let meter = Meter::start(output, "restoring");
        // What a part of it has, nobody has counted.
        let is_whole = command.backup.path.is_none() && include.is_none() && exclude.is_none();
        if let Some(summary) = record.summary().filter(|_| is_whole) {
            meter.counts().found(summary.total_files_processed, summary.total_bytes_processed);
            meter.counts().found_all();
        }
        let options = restore::Options {
            path: command.backup.path.clone(),
            include,
            exclude,
            delete: if command.delete { record.paths.iter().map(PathBuf::from).collect() } else { Vec::new() },
            overwrite: command.overwrite.into(),
            dry_run: command.dry_run,
            verify: command.verify,
            progress: &meter,
        };
        restore::restore(&session.repository, &index, record.tree, &target, &options)?
    };
    let time = started.elapsed();
    if output.json {
        output.json(&serde_json::json!({
            "type": "summary",
            "id": id,
            "target": target.display().to_string(),
            "dry_run": command.dry_run,
            "files_restored": outcome.files_restored,
            "files_unchanged": outcome.files_unchanged,
            "others": outcome.others,
            "deleted": outcome.deleted,
            "bytes_total": outcome.bytes_total,
            "bytes_written": outcome.bytes_written,
            "errors": outcome.errors,
            "verified": outcome.verified,
            "seconds": time.as_secs_f64(),
        }))?;
    } else if !output.quiet {
        show(command, &outcome, &id.short(), &target, time, output)?;
    }
    Ok(if outcome.errors == 0 { ExitCode::SUCCESS } else { Code::Failed.into() })
}

/// Whether everything goes to where it was.
fn is_all_into_root(command: &Command, target: &Path) -> bool {
    let is_all = command.backup.path.as_deref().is_none_or(|path| path == Path::new("/")) && command.include.is_empty();
    is_all && absolute(target, Path::new("/")) == Path::new("/")
}

/// Whether a backup's `/.snapback` is what a project's job put there, and no directory of the machine.
fn has_dumps(session: &Session<'_>, index: &Index, record: &BackupRecord) -> bool {
    let mut reader = session.repository.reader(index);
    find_path(&mut reader, record.tree, Path::new(manifest::PATH)).is_ok()
}

/// An absolute path, so that messages say where things lie.
fn target(to: &Path) -> Result<PathBuf> {
    let directory = std::env::current_dir().context("the working directory is gone")?;
    Ok(directory.join(to))
}

fn show(
    command: &Command,
    outcome: &Outcome,
    id: &str,
    target: &Path,
    time: std::time::Duration,
    output: &Output,
) -> Result<()> {
    let verb = if command.dry_run { "would restore" } else { "restored" };
    output.line(format_args!(
        "{verb} backup {id} to {}: {}, {} in {}",
        target.display(),
        human::counted(outcome.files_restored + outcome.files_unchanged, "file"),
        human::size(outcome.bytes_total),
        human::duration(time),
    ))?;
    output.line(format_args!(
        "  files    {} written, {} were as in the backup; {} written",
        human::count(outcome.files_restored),
        human::count(outcome.files_unchanged),
        human::size(outcome.bytes_written),
    ))?;
    if command.delete {
        output.line(format_args!("  deleted  {}", human::count(outcome.deleted)))?;
    }
    if command.verify {
        output.line(format_args!("  verified {}", human::counted(outcome.verified, "file")))?;
    }
    if outcome.errors > 0 {
        output.warning(format_args!("{} could not be restored", human::counted(outcome.errors, "file")));
    }
    Ok(())
}
