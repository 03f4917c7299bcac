//! `snapback backup`

mod project;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use backup::archive::{self, Outcome, StreamError, StreamFile};
use backup::attributes::{Names, Zone};
use backup::patterns::Patterns;
use clap::Args;
use engine::config::{Config, Project};
use repository::blob_writer::Destination;
use repository::id::Id;
use repository::index::Index;
use repository::record::BackupRecord;
use repository::tree::Timestamp;

use crate::configuration::{self, Target};
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::open::{self, Session};
use crate::output::Output;
use crate::patterns::{Exclude, patterns};
use crate::progress_bar::{Counts, Meter};
use crate::select::{self, Filter};
use crate::signals;
use crate::sources::{self, Scan};

/// The totals are counted only for runs that last: counting takes a core from the work.
const COUNT_AFTER: Duration = Duration::from_millis(500);

/// Back up a project, or files and directories.
#[derive(Args, Debug)]
#[command(after_help = "\
  snapback backup shop
  snapback backup /etc /srv/shop --tag daily --exclude '*.tmp'
  pg_dump shop | snapback backup --stdin-name shop.sql

A project of the configuration is read from snapshots and goes to the repositories of its plans;
what else is done then (hooks, old backups removed) is said there, too. ./shop is the directory.")]
pub(crate) struct Command {
    /// What to back up: projects, or files and directories
    #[arg(value_name = "PROJECT|PATH", required_unless_present = "stdin_name")]
    paths: Vec<PathBuf>,

    /// Into this repository of the configuration, instead of those of the project's plans (may be repeated)
    #[arg(long, value_name = "REPOSITORY")]
    to: Vec<String>,

    /// Look at everything, and not only at what changed since the project's last backup
    #[arg(long)]
    full: bool,

    /// Back up standard input, as one file of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "to", "full", "parent", "one_file_system"])]
    stdin_name: Option<PathBuf>,

    /// A word to find the backup by (may be repeated, or a list with commas)
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,

    /// The host's name in the backup, instead of this machine's
    #[arg(long, value_name = "NAME")]
    host: Option<String>,

    #[command(flatten)]
    exclude: Exclude,

    /// Leave out files larger than this, such as 500M
    #[arg(long, value_name = "SIZE", value_parser = human::parse_size)]
    exclude_larger_than: Option<u64>,

    /// Leave out what lies in directories with a CACHEDIR.TAG
    #[arg(long)]
    exclude_caches: bool,

    /// Stay on the file systems of the paths
    #[arg(short = 'x', long)]
    one_file_system: bool,

    /// Compare with this backup, instead of the newest of the same host and paths
    #[arg(long, value_name = "BACKUP")]
    parent: Option<String>,

    /// Write nothing, only say what would be stored
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if let Some(code) = projects(command, global, output)? {
        return Ok(code);
    }
    let (paths, missing) = match &command.stdin_name {
        Some(name) => (vec![archive::absolute(name, Path::new("/"))], 0),
        None => paths(command, output)?,
    };
    let excludes = command.exclude.texts()?;
    // So that a wrong pattern is told before the password is asked for.
    let exclude = patterns(&excludes)?;
    let session = Session::open(global, output)?;
    let lock = if command.dry_run { session.lock_for_reading()? } else { Some(session.lock_shared()?) };
    let start = open::now();
    let started = Instant::now();
    let host = command.host.clone().unwrap_or_else(|| session.holder.hostname.clone());
    // Before the index: what a record refers to is then in the index for certain.
    let records = select::all(&session.repository, output)?;
    let names: Vec<String> = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let parent = parent(command, &records, &host, &names, start)?;
    signals::check()?;
    let index = Arc::new(session.repository.load_index()?);
    signals::check()?;

    let destination = match lock.clone() {
        Some(lock) if !command.dry_run => Destination::Repository(lock),
        _ => Destination::Nowhere,
    };
    let mut outcome = match command.stdin_name {
        Some(_) => archive_stdin(&paths[0], start, &session, &index, destination)?,
        None => {
            let meter = Meter::start(output, "backing up");
            let options = archive::Options {
                paths,
                elsewhere: Vec::new(),
                changed: None,
                exclude,
                exclude_caches: command.exclude_caches,
                exclude_larger_than: command.exclude_larger_than,
                one_file_system: command.one_file_system,
                parent: parent.map(|(_, record)| record.tree),
                zone: Zone::new(jiff::tz::TimeZone::system()),
                progress: &meter,
            };
            if meter.is_shown() {
                count(&options, patterns(&excludes)?, meter.counts());
            }
            archive::archive(&session.repository, &index, destination, &options)?
        }
    };

    outcome.summary.backup_start = start;
    outcome.summary.backup_end = open::now();
    let mut record = BackupRecord {
        time: start,
        parent: parent.map(|(id, _)| *id),
        tree: outcome.tree.context("the run gave no root directory")?,
        paths: names,
        hostname: host,
        username: session.holder.username.clone(),
        uid: session.holder.uid,
        gid: session.holder.gid,
        excludes,
        tags: tags(&command.tag),
        original: None,
        program_version: concat!("snapback ", env!("CARGO_PKG_VERSION")).to_owned(),
        summary: None,
    };
    record.set_summary(&outcome.summary);
    let id = match lock.as_ref().filter(|_| !command.dry_run) {
        Some(lock) => {
            // A run that added nothing may have come here before the lock was certain.
            lock.confirm()?;
            Some(session.repository.save_record(&record)?)
        }
        None => None,
    };
    drop(lock);

    let errors = outcome.errors + missing;
    let done = Done { id, parent: parent.map(|(id, _)| *id), record, outcome, errors, time: started.elapsed() };
    done.show(output)?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { Code::Incomplete.into() })
}

/// Backs up projects, if that is what is meant.
fn projects(command: &Command, global: &Global, output: &Output) -> Result<Option<ExitCode>> {
    let targets: Vec<Target> = command.paths.iter().map(|path| Target::find(path, global)).collect::<Result<_>>()?;
    let found: Vec<&Project> = targets.iter().filter_map(Target::project).collect();
    let of_projects = [(!command.to.is_empty(), "--to"), (command.full, "--full")];
    let of_paths = [
        (!command.tag.is_empty(), "--tag"),
        (command.host.is_some(), "--host"),
        (!command.exclude.texts()?.is_empty(), "--exclude"),
        (command.exclude_larger_than.is_some(), "--exclude-larger-than"),
        (command.exclude_caches, "--exclude-caches"),
        (command.one_file_system, "--one-file-system"),
        (command.parent.is_some(), "--parent"),
        (command.dry_run, "--dry-run"),
        (global.repository != std::env::var("SNAPBACK_REPOSITORY").ok(), "--repository"),
    ];
    let option = |options: &[(bool, &'static str)]| options.iter().find(|(given, _)| *given).map(|(_, name)| *name);
    let first = || command.paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    if found.is_empty() {
        let Some(option) = option(&of_projects) else { return Ok(None) };
        let error = CommandError::usage(format!("{option} is for projects, and {} is a directory", first()));
        return Err(error.hint("-r names the repository for directories").into());
    }
    if let Some(option) = option(&of_paths) {
        let error = CommandError::usage(format!("{option} is not for projects: the configuration says it"));
        return Err(error.hint(format!("./{} is the directory of that name", first())).into());
    }
    if found.len() < targets.len() {
        let error = CommandError::usage("projects and directories in one command");
        return Err(error.hint("back them up by a command each").into());
    }
    let wanted = project::Wanted { to: &command.to, is_full: command.full };
    project::run(&configuration::load(global)?, &found, &wanted, global, output).map(Some)
}

/// Backs one project up into some of its repositories.
pub(super) fn project(
    config: &Config,
    project: &Project,
    to: &[String],
    global: &Global,
    output: &Output,
) -> Result<ExitCode> {
    project::run(config, &[project], &project::Wanted { to, is_full: false }, global, output)
}

/// Counts what there is while the run goes on. It ends by itself when the run does; without it there are no totals.
fn count(options: &archive::Options<'_>, exclude: Option<Patterns>, counts: &Arc<Counts>) {
    let scan = Scan {
        paths: options.paths.clone(),
        exclude,
        exclude_caches: options.exclude_caches,
        exclude_larger_than: options.exclude_larger_than,
        one_file_system: options.one_file_system,
    };
    let counts = Arc::clone(counts);
    let _ = std::thread::Builder::new().name("scan".to_owned()).spawn(move || {
        if !counts.wait(COUNT_AFTER) {
            scan.run(&counts);
        }
    });
}

fn archive_stdin(
    path: &Path,
    time: Timestamp,
    session: &Session<'_>,
    index: &Arc<Index>,
    destination: Destination,
) -> Result<Outcome> {
    let meter = Meter::start(session.output, "backing up");
    let known = Names::new();
    let file = StreamFile {
        path: path.to_owned(),
        permissions: 0o644,
        time,
        uid: session.holder.uid,
        gid: session.holder.gid,
        user: known.user(session.holder.uid),
        group: known.group(session.holder.gid),
    };
    let mut stdin = std::io::stdin().lock();
    let archived = archive::archive_stream(&session.repository, index, destination, &mut stdin, file, &meter);
    archived.map_err(|error| match error {
        StreamError::Repository(error) => error.into(),
        StreamError::Path(_) => {
            CommandError::usage(error.to_string()).hint("--stdin-name dump.sql, or /db/dump.sql").into()
        }
        error => error.into(),
    })
}

/// Where the paths really are, and how many are not there.
fn paths(command: &Command, output: &Output) -> Result<(Vec<PathBuf>, u64)> {
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for path in &command.paths {
        match sources::resolve(path) {
            Ok(resolved) => {
                if resolved.is_symlink() {
                    let path = path.display();
                    output.warning(format_args!(
                        "{path} is a link, and only the link is saved; {path}/ is what it points to"
                    ));
                }
                if !found.contains(&resolved) {
                    found.push(resolved);
                }
            }
            Err(error) => errors.push((path, error)),
        }
    }
    if found.is_empty()
        && let Some((path, error)) = errors.first()
    {
        let error = CommandError::new(format!("cannot back up {}: {error}", path.display()));
        return Err(error.hint("nothing was stored; check the path").into());
    }
    for (path, error) in &errors {
        output.file_error(path, error);
    }
    Ok((found, errors.len() as u64))
}

fn parent<'r>(
    command: &Command,
    records: &'r [(Id, BackupRecord)],
    host: &str,
    paths: &[String],
    before: Timestamp,
) -> Result<Option<&'r (Id, BackupRecord)>> {
    match &command.parent {
        Some(text) => select::find(records, text, &Filter::default()).map(Some),
        None => Ok(archive::find_parent(records, host, paths, before)),
    }
}

/// In the order given, each once.
fn tags(given: &[String]) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for tag in given.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty()) {
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    tags
}

/// What a run has done.
struct Done {
    id: Option<Id>,
    parent: Option<Id>,
    record: BackupRecord,
    outcome: Outcome,
    errors: u64,
    time: Duration,
}

impl Done {
    fn show(&self, output: &Output) -> Result<()> {
        let summary = &self.outcome.summary;
        if output.json {
            let mut document = serde_json::to_value(summary)?;
            if let Some(fields) = document.as_object_mut() {
                fields.insert("type".to_owned(), "summary".into());
                fields.insert("id".to_owned(), serde_json::to_value(self.id)?);
                fields.insert("parent".to_owned(), serde_json::to_value(self.parent)?);
                fields.insert("dry_run".to_owned(), self.id.is_none().into());
                fields.insert("errors".to_owned(), self.errors.into());
                fields.insert("seconds".to_owned(), self.time.as_secs_f64().into());
            }
            output.json(&document)?;
            return Ok(());
        }
        if output.quiet {
            return Ok(());
        }
        let rate = summary.total_bytes_processed as f64 / self.time.as_secs_f64().max(1e-3);
        output.line(format_args!(
            "{} of {}: {}, {} in {} ({}/s)",
            self.id.map_or_else(|| "a backup".to_owned(), |id| format!("backup {}", id.short())),
            human::few(&self.record.paths),
            human::counted(summary.total_files_processed, "file"),
            human::size(summary.total_bytes_processed),
            human::duration(self.time),
            human::size(rate as u64),
        ))?;
        output.line(format_args!(
            "  files    {} new, {} changed, {} unchanged",
            human::count(summary.files_new),
            human::count(summary.files_changed),
            human::count(summary.files_unmodified),
        ))?;
        let verb = if self.id.is_some() { "stored  " } else { "to store" };
        let stored = match summary.data_added {
            0 => "nothing new".to_owned(),
            bytes => format!("{}, compressed to {}", human::size(bytes), human::size(summary.data_added_packed)),
        };
        output.line(format_args!("  {verb} {stored}"))?;
        if self.errors > 0 {
            let count = human::counted(self.errors, "file");
            output.warning(format_args!("{count} could not be read and are not in the backup as they should be"));
        }
        Ok(())
    }
}
