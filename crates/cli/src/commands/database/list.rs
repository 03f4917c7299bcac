//! `snapback database list`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use engine::catalog::proofs::{Copy, Outcome, Proof};
use engine::config::{Database, Project};
use engine::manifest::DumpedDatabase;
use jiff::Timestamp;
use serde::Serialize;

use crate::commands::catalog::recorder;
use crate::configuration;
use crate::global::Global;
use crate::human;
use crate::output::{Output, numbers, words};
use crate::snapshots::Session;

/// List the databases of projects, or the dumps in a backup.
#[derive(Args, Debug)]
#[command(after_help = "\
\"Proven\" is the last proof of each by `snapback database verify`, and of what.")]
pub(crate) struct Command {
    /// Only of this project
    #[arg(value_name = "PROJECT", conflicts_with = "from")]
    project: Option<String>,

    /// The dumps that this backup has
    #[arg(long, value_name = "BACKUP")]
    from: Option<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if let Some(backup) = &command.from {
        return dumps(backup, global, output);
    }
    let config = configuration::load(global)?;
    let projects: Vec<&Project> = match &command.project {
        Some(name) => vec![configuration::project(&config, name)?],
        None => config.projects.values().collect(),
    };
    let session = Session::open(global, output)?;
    let recorder = recorder(&session, output);
    let mut found = Vec::new();
    for project in projects {
        let proofs = recorder.note(|catalog| catalog.proofs(&project.name)).unwrap_or_default();
        for database in project.databases.values() {
            let proof = proofs.iter().find(|proof| proof.database == database.name).cloned();
            found.push(Listed::new(project, database, proof));
        }
    }
    if output.json {
        output.json(&found)?;
    } else if found.is_empty() {
        output.message("no databases are configured: [project.NAME.database.NAME] makes one known");
    } else {
        table(&found, session.now, output)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A database of the configuration, as `--json` shows it.
#[derive(Serialize)]
struct Listed {
    project: String,
    name: String,
    url: String,
    dump: bool,
    all: bool,
    quiesce: bool,
    query: Option<String>,
    proof: Option<Proof>,
}

impl Listed {
    fn new(project: &Project, database: &Database, proof: Option<Proof>) -> Listed {
        Listed {
            project: project.name.clone(),
            name: database.name.clone(),
            url: database.login.address.to_string(),
            dump: database.dump,
            all: database.all,
            quiesce: database.quiesce,
            query: database.query.clone(),
            proof,
        }
    }
}

fn table(found: &[Listed], now: Timestamp, output: &Output) -> Result<()> {
    let columns = [
        words("Project"),
        words("Name"),
        words("Address"),
        words("In backups"),
        words("In snapshots").less_important(),
        words("Proven"),
    ];
    let rows = found.iter().map(|listed| {
        let dump = match (listed.dump, listed.all) {
            (false, _) => "no",
            (true, false) => "dump",
            (true, true) => "dump of all",
        };
        vec![
            listed.project.clone(),
            listed.name.clone(),
            listed.url.clone(),
            dump.to_owned(),
            if listed.quiesce { "held" } else { "not held" }.to_owned(),
            listed.proof.as_ref().map_or("no".to_owned(), |proof| proven(proof, now)),
        ]
    });
    output.table(&columns, rows.collect())?;
    Ok(())
}

/// When, and of what.
pub(crate) fn proven(proof: &Proof, now: Timestamp) -> String {
    let age = human::age(now.as_second(), proof.at.as_second());
    let of = match &proof.of {
        Copy::Snapshot(id) => format!("snapshot {id}"),
        Copy::Backup(id) => format!("backup {id}"),
    };
    match proof.outcome {
        Outcome::Good { .. } => format!("{age}, {of}"),
        Outcome::Failed { .. } => format!("FAILED {age}, {of}"),
    }
}

fn dumps(backup: &str, global: &Global, output: &Output) -> Result<ExitCode> {
    let (_, dumps) = super::dumps(backup, global, output)?;
    let databases: Vec<&DumpedDatabase> = dumps.databases().values().collect();
    if output.json {
        output.json(&databases)?;
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [words("Name"), words("Server"), words("File"), numbers("Size"), words("Made with").less_important()];
    let mut rows = Vec::new();
    for database in databases {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        for part in &database.parts {
            rows.push(vec![
                database.name.clone(),
                text(&database.server),
                part.part.file.clone(),
                part.bytes.map_or("missing".to_owned(), human::size),
                text(&database.tool),
            ]);
            if let Some(error) = &part.error {
                output.warning(format_args!("{} of {} is missing: {error}", part.part.file, database.name));
            }
        }
        if let Some(error) = &database.error {
            output.warning(format_args!("{} is missing, or not whole: {error}", database.name));
        }
    }
    output.table(&columns, rows)?;
    Ok(ExitCode::SUCCESS)
}
