//! `snapback protect`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use engine::config::{Config, Project};
use engine::job;
use engine::place::{Nearness, Place, System as Machine};
use engine::protect::{self, ConfigLock, Made, NewRepository, Planned, Wanted};
use engine::repositories::{self, World};
use repository::storage::limited::IsCancelled;
use snapshot::manage;
use snapshot::record::Purpose;
use snapshot::runner::System;

use super::backup;
use crate::configuration;
use crate::error::CommandError;
use crate::global::Global;
use crate::jobs;
use crate::open;
use crate::output::{Output, printable};

mod databases;

/// Protect a directory: write it into the configuration, take the first snapshot and the first backup.
#[derive(Args, Debug)]
#[command(after_help = "\
Adds to the configuration what is missing: a project, a plan (every night; 14 daily, 8 weekly and
6 monthly backups are kept), and a repository on this machine with a password in a file. Files of
SQLite in the directory, and servers of databases whose data it has, become a part of the project
if they can be reached. What is there stays as it is; doing it once more goes on where it was cut
short. `snapback serve` then runs the plan.

  snapback protect /srv/shop
  snapback protect /srv/shop -r /mnt/usb/backups")]
pub(crate) struct Command {
    /// The directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The project's name, instead of the directory's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Change nothing, only show what would be added to the configuration
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let directory = directory(&command.directory)?;
    let path = configuration::path(global)?;
    let wanted = Wanted {
        directory: &directory,
        name: command.name.as_deref(),
        repository: repository(&path, global)?,
        is_chosen: global.repository.is_some(),
        databases: &[],
    };
    let inside = Path::new(&wanted.repository.url);
    if directory != Path::new("/") && inside.starts_with(&directory) {
        let error = CommandError::usage(format!("the repository {} lies in what it shall protect", inside.display()));
        return Err(error.hint("name another place with -r, best on another disk").into());
    }
    let home = configuration::home();
    let text = if path.exists() {
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", printable(&path)))?
    } else {
        String::new()
    };
    // Servers may take their time, so they are asked before the file is locked.
    let is_new = protect::project_of(&Config::parse(&path, &text, home.as_deref())?, &directory).is_none();
    let databases = if is_new { databases::reached(&directory, output) } else { Vec::new() };
    let wanted = Wanted { databases: &databases, ..wanted };
    if command.dry_run {
        return show(&protect::plan(&path, &text, home.as_deref(), &wanted)?, &text, output);
    }
    let planned = {
        let lock = ConfigLock::take(&path)?;
        let text = lock.read()?;
        let planned = protect::plan(&path, &text, home.as_deref(), &wanted)?;
        if let Some(new) = &planned.repository {
            make(new, output)?;
        }
        if planned.text != text {
            lock.replace(&planned.text)?;
            output.message(format_args!("{}: added {}", printable(&path), planned.added.join(", ")));
        }
        planned
    };
    let project = &planned.config.projects[&planned.project];
    if planned.added.is_empty() {
        output.message(format_args!("{} is the project {} already", printable(&directory), project.name));
    }
    let code = first(&planned, project, global, output)?;
    missing(&planned.config, project, output)?;
    Ok(code)
}

/// As the configuration shall have it.
fn directory(given: &Path) -> Result<PathBuf> {
    let directory = given.canonicalize().with_context(|| format!("cannot protect {}", printable(given)))?;
    if !directory.is_dir() {
        let error = CommandError::usage(format!("{} is no directory", printable(&directory)));
        let above = directory.parent().unwrap_or(Path::new("/"));
        return Err(error.hint(format!("snapback protect {}", printable(above))).into());
    }
    Ok(directory)
}

/// The repository that was named, or the usual place on this machine.
pub(super) fn repository(config: &Path, global: &Global) -> Result<NewRepository> {
    if global.password_command.is_some() {
        let error = CommandError::usage("a password command cannot be taken over into the configuration from here");
        return Err(error
            .hint("write [repository.NAME] with password-command = \"...\" into it, and run it without -r")
            .into());
    }
    let url = match &global.repository {
        Some(named) => {
            let path = repositories::local_directory(named).map_or_else(|| PathBuf::from(named), Path::to_owned);
            // Whether it is one that is supported is seen when it is opened.
            repositories::storage(named)?;
            std::path::absolute(path)?
        }
        None => usual_place()?,
    };
    let beside = config.parent().unwrap_or(Path::new("/"));
    let name = if global.repository.is_some() { url.file_name().unwrap_or_default() } else { "local".as_ref() };
    let password_file = match &global.password_file {
        Some(given) => std::path::absolute(given)?,
        None => beside.join(format!("{}.password", name.to_string_lossy())),
    };
    let text = url.to_str().map(str::to_owned);
    let url = text.ok_or_else(|| CommandError::usage(format!("{} is no UTF-8", printable(&url))))?;
    Ok(NewRepository { url, password_file })
}

fn usual_place() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/backups/snapback"));
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(configuration::home()?.join(".local/share")));
    let error = || CommandError::usage("HOME is not set").hint("name a repository with -r");
    Ok(data.ok_or_else(error)?.join("snapback/repository"))
}

pub(super) fn make(new: &NewRepository, output: &Output) -> Result<()> {
    match protect::make_repository(new, &open::holder())? {
        Made::WasThere => output.message(format_args!("backups go to the repository at {}", new.url)),
        Made::New => {
            output.message(format_args!("repository created at {}", new.url));
            output.message(format_args!(
                "its password is in {}: keep a copy on another machine, without it nobody can read the backups",
                printable(&new.password_file)
            ));
        }
    }
    Ok(())
}

fn show(planned: &Planned, text: &str, output: &Output) -> Result<ExitCode> {
    if output.json {
        output.json(&serde_json::json!({
            "project": planned.project, "added": planned.added, "configuration": planned.text,
        }))?;
    } else if planned.added.is_empty() {
        output.message(format_args!("it is the project {} already; nothing would be added", planned.project));
    } else {
        output.line(planned.text.strip_prefix(text).unwrap_or(&planned.text).trim())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first snapshot and the first backup, where there is none.
fn first(planned: &Planned, project: &Project, global: &Global, output: &Output) -> Result<ExitCode> {
    let missing = without_backup(&planned.config, project)?;
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    jobs::with_context(global, output, false, |context| {
        let request = manage::Request {
            note: "the first".to_owned(),
            expires: context.clock.wall().checked_add(project.snapshot.expire).ok(),
            is_held: false,
            purpose: Purpose::Asked,
        };
        match job::snapshots::create(context, project, &request) {
            Ok(made) => {
                for record in &made.records {
                    output.message(format_args!("snapshot {} of {} taken", record.id, printable(&record.directory)));
                }
            }
            Err(error) => {
                output.message(format_args!("no snapshots: {error}"));
            }
        }
        Ok(())
    })?;
    backup::project(&planned.config, project, &missing, global, output)
}

/// The repositories of the project's plans in which it has no backup yet.
fn without_backup(config: &Config, project: &Project) -> Result<Vec<String>> {
    let variable = |name: &str| std::env::var_os(name);
    let is_cancelled: IsCancelled = Arc::new(|| false);
    let world = World { variable: &variable, is_cancelled: &is_cancelled };
    let mut missing = Vec::new();
    for to in job::destinations(config, project) {
        let opened = repositories::open(to, world)?;
        let (backups, _) = opened.backups()?;
        let host = open::holder().hostname;
        let is_of = |record: &repository::record::BackupRecord| {
            record.hostname == host && record.tags.contains(&job::tag(&project.name))
        };
        if !backups.iter().any(|(_, record)| is_of(record)) {
            missing.push(to.name.clone());
        }
    }
    Ok(missing)
}

/// What would still be lost with this disk, or with this machine.
fn missing(config: &Config, project: &Project, output: &Output) -> Result<()> {
    let machine = Machine::open(Path::new("/"), Arc::new(System))?;
    let sources: Vec<Place> = project.paths.iter().map(|path| Place::of_path(path, &machine)).collect();
    let destinations = job::destinations(config, project);
    let nearness = destinations.iter().map(|to| {
        let place = Place::of_repository(&to.url, &machine);
        Place::nearest_of(&sources, &place).nearness
    });
    let farthest = nearness.max();
    let offsite = format!("add [repository.offsite] to {} and its name to the plan", config.path.display());
    let lacks = match farthest {
        None | Some(Nearness::SameFilesystem | Nearness::SameDisk) => {
            "a copy off this disk: if it dies, the backups die with it; and one off this machine"
        }
        Some(Nearness::SameMachine) => "a copy off this machine: if it is lost, the backups are lost with it",
        Some(Nearness::Elsewhere) => "",
    };
    if output.json {
        let nearness = farthest.map(|nearness| serde_json::to_value(nearness).unwrap_or_default());
        output.json(&serde_json::json!({
            "type": "protected", "project": project.name, "farthest_copy": nearness, "missing": lacks,
        }))?;
    } else {
        if !lacks.is_empty() {
            output.message(format_args!("missing: {lacks}\n  {offsite}"));
        }
        output.message("`snapback serve` runs the plan; `snapback config check` checks what you change");
    }
    Ok(())
}
