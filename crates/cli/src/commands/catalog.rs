//! `snapback catalog`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use engine::catalog::{self, Catalog, Rebuilt, Recorder};
use engine::redact;
use serde::Serialize;

use crate::configuration;
use crate::configured::Repositories;
use crate::error::Code;
use crate::global::Global;
use crate::human;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find out again what there is, from the file systems and the repositories
    Rebuild(Rebuild),
}

/// Look at all snapshots, and at all repositories of the configuration, and write down what there is.
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing depends on the catalog: a lost or damaged one costs what was known of past jobs, and nothing else.
A damaged one is moved aside. What is known of a repository that cannot be reached stays.")]
pub(crate) struct Rebuild {}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::Rebuild(Rebuild {}) => rebuild(global, output),
    }
}

/// As `--json` shows it.
#[derive(Serialize)]
struct Document<'a> {
    catalog: String,
    /// Where a damaged one went.
    moved_aside: Vec<String>,
    snapshots: usize,
    guards: usize,
    repositories: Vec<RepositoryDocument<'a>>,
    problems: &'a [String],
}

#[derive(Serialize)]
struct RepositoryDocument<'a> {
    name: &'a str,
    backups: Option<usize>,
    error: Option<String>,
}

fn rebuild(global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let configuration = configuration::load_if_any(global)?;
    let path = session.state.root().join(catalog::FILE_NAME);
    let catalog = Catalog::open(path, session.now)?;
    let moved = catalog.take_moved();
    for moved in &moved {
        output.message(format_args!("the catalog was damaged ({}); it is now {}", moved.reason, printable(&moved.to)));
    }
    let repositories = Repositories::of(configuration.as_ref());
    let rebuilt = repositories.with_sources(|sources| catalog.rebuild(&session.state, sources, session.now))?;
    if output.json {
        let repositories = rebuilt.repositories.iter().map(|(name, found)| RepositoryDocument {
            name,
            backups: found.as_ref().ok().copied(),
            error: found.as_ref().err().map(|error| redact::text(error)),
        });
        output.json(&Document {
            catalog: printable(catalog.path()),
            moved_aside: moved.iter().map(|moved| printable(&moved.to)).collect(),
            snapshots: rebuilt.snapshots,
            guards: rebuilt.guards,
            repositories: repositories.collect(),
            problems: &rebuilt.problems,
        })?;
    } else {
        show(&rebuilt, output)?;
    }
    if configuration.is_none() {
        output.message("there is no configuration, and so no repository that could be looked at");
    }
    Ok(if rebuilt.is_whole() { ExitCode::SUCCESS } else { Code::Failed.into() })
}

fn show(rebuilt: &Rebuilt, output: &Output) -> Result<()> {
    output.line(human::counted(rebuilt.snapshots as u64, "snapshot"))?;
    for (name, found) in &rebuilt.repositories {
        match found {
            Ok(count) => output.line(format_args!("{} in {name}", human::counted(*count as u64, "backup")))?,
            Err(reason) => output.warning(format_args!(
                "repository {name} cannot be looked at: {}; what was known of it stays",
                redact::text(reason)
            )),
        }
    }
    for problem in &rebuilt.problems {
        output.warning(redact::text(problem));
    }
    Ok(())
}

/// Through which a command writes to the catalog.
pub(crate) fn recorder<'a>(session: &Session<'_>, output: &'a Output) -> Recorder<'a> {
    let path = session.state.root().join(catalog::FILE_NAME);
    Recorder::open(&path, session.now, move |text| output.warning(text))
}

/// Tells the catalog what snapshots and guards there are now. That it cannot be told is said, and nothing else.
pub(crate) fn sync(global: &Global, output: &Output) {
    let Ok(session) = Session::open(global, output) else { return };
    recorder(&session, output).note(|catalog| catalog.sync(&session.state));
}
