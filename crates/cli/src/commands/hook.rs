//! `snapback hook`: a snapshot before each run of a package manager.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use engine::guard::Guards;
use engine::guard::document::Phase;
use engine::hook::{self, Installation, apt, dnf};
use engine::process::Process;

use crate::clock::SystemClock;
use crate::commands::guard::GUARD_VARIABLE;
use crate::configuration::Target;
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human::{self, parse_duration};
use crate::output::{Output, printable, words};
use crate::snapshots::{Session, provider_of};

/// By this line we know our own files.
const MARK: &str = "Written by `snapback hook install";

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a snapshot before each run of apt or dnf
    Install(Install),
    /// Take none any more
    Uninstall(Uninstall),
    /// Show which hooks are installed
    Status(Status),
    /// Be called by the package manager
    #[command(hide = true)]
    Run(Run),
}

/// The package managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    Apt,
    Dnf,
}

/// Writes a file of the package manager's configuration. Each run gets one snapshot, with the list of packages as its
/// note.
#[derive(Args, Debug)]
pub(crate) struct Install {
    /// The package manager
    #[arg(value_name = "MANAGER")]
    manager: Which,

    /// Of what: a directory, or a project, of its directories as they are now (may be repeated)
    #[arg(long, value_name = "PROJECT|DIR", default_value = "/")]
    directory: Vec<PathBuf>,

    /// How long the snapshots live
    #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = parse_duration)]
    grace: Duration,

    /// Let the package manager stop if there can be no snapshot, instead of going on without
    #[arg(long)]
    strict: bool,

    /// The file, if it is not where the package manager usually looks
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Removes the file. The snapshots stay until they expire.
#[derive(Args, Debug)]
pub(crate) struct Uninstall {
    /// The package manager
    #[arg(value_name = "MANAGER")]
    manager: Which,

    /// The file, if it is not where the package manager usually looks
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Which hooks are installed.
#[derive(Args, Debug)]
pub(crate) struct Status {}

/// As the package manager calls it.
#[derive(Args, Debug)]
pub(crate) struct Run {
    manager: Which,
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    directory: Vec<PathBuf>,
    #[arg(long, value_parser = parse_duration)]
    grace: Duration,
    #[arg(long)]
    strict: bool,
    #[arg(long)]
    package: Vec<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Install(command) => install(command, global, output),
        Command::Uninstall(command) => uninstall(command, output),
        Command::Status(_) => status(output),
        Command::Run(command) => called(command, global, output),
    }
}

/// Where the files of a package manager lie, and how each version's is written.
fn files(manager: Which) -> Vec<(PathBuf, Write)> {
    match manager {
        Which::Apt => vec![(PathBuf::from(apt::FILE), apt::configuration as Write)],
        Which::Dnf => {
            vec![
                (PathBuf::from(dnf::FILE_4), dnf::configuration_4 as Write),
                (dnf::FILE_5.into(), dnf::configuration_5),
            ]
        }
    }
}

type Write = fn(&Installation<'_>) -> Result<String, snapshot::error::Error>;

fn install(command: &Install, global: &Global, output: &Output) -> Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut directories = Vec::new();
    for named in &command.directory {
        for directory in Target::find(named, global)?.directories() {
            let found = directory.canonicalize();
            let found = found.with_context(|| format!("cannot take snapshots of {}", directory.display()))?;
            if !directories.contains(&found) {
                directories.push(found);
            }
        }
    }
    for directory in &directories {
        // Better told now than in the midst of an upgrade.
        provider_of(directory)?;
    }
    let state = global.state_dir.as_ref().map(std::path::absolute).transpose()?;
    let installation = Installation {
        program: &program,
        directories: &directories,
        state: state.as_deref(),
        grace_secs: command.grace.as_secs(),
        is_strict: command.strict,
    };
    let mut installed = Vec::new();
    for (file, text) in chosen(command.manager, command.file.as_deref())? {
        write(&file, &text(&installation)?)?;
        output.message(format_args!("{} written", printable(&file)));
        installed.push(file.to_string_lossy().into_owned());
    }
    if output.json {
        output.json(&serde_json::json!({ "installed": installed }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The file that is named, or those of the versions that are on this machine.
fn chosen(manager: Which, named: Option<&Path>) -> Result<Vec<(PathBuf, Write)>> {
    let mut files = files(manager);
    if let Some(named) = named {
        // Both versions of dnf tell their files by the ending.
        let ending = |file: &Path| file.extension().map(ToOwned::to_owned);
        files.retain(|(file, _)| manager == Which::Apt || ending(file) == ending(named));
        let Some((_, text)) = files.pop() else {
            let error =
                CommandError::usage("dnf reads files that end with .action (version 4) or .actions (version 5)");
            return Err(error.into());
        };
        return Ok(vec![(named.to_owned(), text)]);
    }
    files.retain(|(file, _)| file.parent().is_some_and(Path::is_dir));
    if files.is_empty() {
        let (what, hint) = match manager {
            Which::Apt => ("apt", "it is for Debian and what comes of it; --file names another place"),
            Which::Dnf => (
                "dnf with a plugin for actions",
                "install python3-dnf-plugin-pre-transaction-actions (dnf 4) or libdnf5-plugin-actions (dnf 5)",
            ),
        };
        return Err(CommandError::new(format!("there is no {what} on this machine")).hint(hint).into());
    }
    Ok(files)
}

/// Whole or not at all: a package manager stops at half a file.
fn write(file: &Path, text: &str) -> Result<()> {
    if file.exists() && !is_ours(file)? {
        let error = CommandError::new(format!("{} was not written by Snapback", file.display()));
        return Err(error.hint("remove it, or name another with --file").into());
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // apt and dnf pass over names with a dot in front.
    let name = format!(".{}.new", file.file_name().unwrap_or_default().to_string_lossy());
    let unfinished = directory.join(name);
    let written = fs::write(&unfinished, text)
        .and_then(|()| fs::File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, file))
        .and_then(|()| fs::File::open(directory)?.sync_all());
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn is_ours(file: &Path) -> Result<bool> {
    Ok(fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?.contains(MARK))
}

fn uninstall(command: &Uninstall, output: &Output) -> Result<ExitCode> {
    let files = match &command.file {
        Some(file) => vec![file.clone()],
        None => files(command.manager).into_iter().map(|(file, _)| file).collect(),
    };
    let mut removed = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        if !is_ours(file)? {
            return Err(CommandError::new(format!("{} was not written by Snapback", file.display())).into());
        }
        fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        output.message(format_args!("{} removed", printable(file)));
        removed.push(file.to_string_lossy().into_owned());
    }
    if removed.is_empty() {
        output.message("no hook was installed");
    }
    if output.json {
        output.json(&serde_json::json!({ "removed": removed }))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(output: &Output) -> Result<ExitCode> {
    let mut rows = Vec::new();
    for (name, manager) in [("apt", Which::Apt), ("dnf", Which::Dnf)] {
        for (file, _) in files(manager) {
            let is_installed = file.exists() && is_ours(&file)?;
            rows.push((name, is_installed, printable(&file)));
        }
    }
    if output.json {
        let document = |(name, is_installed, file): &(&str, bool, String)| serde_json::json!({ "manager": name, "installed": is_installed, "file": file });
        output.json(&rows.iter().map(document).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [words("Manager"), words("Hook"), words("File")];
    let row = |(name, is_installed, file): (&str, bool, String)| {
        vec![name.to_owned(), if is_installed { "installed" } else { "not installed" }.to_owned(), file]
    };
    output.table(&columns, rows.into_iter().map(row).collect())?;
    Ok(ExitCode::SUCCESS)
}

/// What goes wrong here is told, and is no reason to stop an upgrade.
fn called(command: &Run, global: &Global, output: &Output) -> Result<ExitCode> {
    match take(command, global, output) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) if command.strict => Ok(Code::Failed.into()),
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(error) if command.strict => Err(error),
        Err(error) => {
            output.warning(format_args!("no snapshot before this run: {error:#}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether every directory has its snapshot.
fn take(command: &Run, global: &Global, output: &Output) -> Result<bool> {
    let mut packages = command.package.clone();
    if command.manager == Which::Apt && !std::io::stdin().is_terminal() {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text)?;
        packages.extend(apt::packages(&String::from_utf8_lossy(&text)));
    }
    let session = Session::open(global, output)?;
    let process = Process::of(command.parent)?;
    let lock = session.lock()?;
    let run = hook::Run { process, command: called_as(command.parent), packages };
    let expires = session.now.checked_add(command.grace).ok();
    let guarded = guarded(&session)?;
    let directories: Vec<PathBuf> =
        command.directory.iter().filter(|directory| !guarded.contains(directory)).cloned().collect();
    let done = hook::before(&lock, &run, &directories, &provider_of, expires, session.now)?;
    for record in &done.made {
        let directory = printable(&record.directory);
        let until = record.expires.map(|expires| format!("; expires {}", human::until(session.now, expires)));
        let until = until.unwrap_or_default();
        output.message(format_args!("snapback: snapshot {} of {directory} taken{until}", record.id));
    }
    for error in &done.failed {
        output.warning(format_args!("no snapshot before this run: {error}"));
    }
    Ok(done.failed.is_empty())
}

/// The directories of the guard whose command the package manager is, or is called by: they have their snapshots.
fn guarded(session: &Session<'_>) -> Result<Vec<PathBuf>> {
    let Some(id) = std::env::var(GUARD_VARIABLE).ok().and_then(|id| id.parse().ok()) else { return Ok(Vec::new()) };
    let back = session.roll_back();
    let guards = Guards::open(&session.state, &SystemClock, &back)?;
    let guard = guards.all()?.into_iter().find(|guard| guard.id == id && guard.phase == Phase::Running);
    Ok(guard.map(|guard| guard.directories()).unwrap_or_default())
}

/// How the package manager was called.
fn called_as(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let name = words.first().map(|first| first.rsplit('/').next().unwrap_or(first).to_owned());
    name.into_iter().chain(words.into_iter().skip(1)).collect::<Vec<_>>().join(" ")
}
