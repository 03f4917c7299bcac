//! `snapback database verify`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use engine::database::proof::{self, Proof, Request};
use engine::job::Context;
use serde::Serialize;
use workload::verify::Verified;

use crate::configuration;
use crate::error::{Code, CommandError};
use crate::global::Global;
use crate::human;
use crate::jobs;
use crate::output::Output;
use crate::snapshots::Session;

/// Prove that databases in a snapshot or a backup are whole, on a throw-away server.
#[derive(Args, Debug)]
#[command(after_help = "\
Of a snapshot, a server is started on a writable clone of it. Of a backup, the dumps are loaded into an
empty one. Its own checks are run (amcheck, CHECK TABLE, integrity_check), and the project's query. The
running servers are not touched, and nothing stays but the result, which `status` and `database list` show.")]
pub(crate) struct Command {
    /// A snapshot, a backup (latest: the newest), or a project, for its newest snapshot
    #[arg(value_name = "SNAPSHOT|BACKUP|PROJECT")]
    of: String,

    /// Only this database, as the configuration calls it
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Where throw-away servers have their files: as much room as the dumps take when loaded
    #[arg(long, value_name = "DIR")]
    room: Option<PathBuf>,

    /// How long a server may take to start, what it has to recover included
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = human::parse_duration)]
    limit: Duration,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    jobs::with_context(global, output, false, |context| {
        let room = command.room.clone().unwrap_or_else(std::env::temp_dir);
        let proofs = command.prove(context, &room, global, output)?;
        let documents: Vec<Document<'_>> = proofs.iter().map(Document::new).collect();
        if output.json {
            output.json(&documents)?;
        } else {
            for proof in &proofs {
                show(proof, output)?;
            }
        }
        let is_good = proofs.iter().all(|proof| proof.outcome.is_ok());
        Ok(if is_good { ExitCode::SUCCESS } else { Code::Failed.into() })
    })
}

impl Command {
    fn prove(
        &self,
        context: &Context<'_>,
        room: &std::path::Path,
        global: &Global,
        output: &Output,
    ) -> Result<Vec<Proof>> {
        let request = |project| Request { project, name: self.name.as_deref(), room, patience: self.limit };
        let config = configuration::load_if_any(global)?.unwrap_or_default();
        let session = Session::open(global, output)?;
        // Of latest, snapshots have one for each directory.
        let snapshot = match self.of.starts_with("latest") {
            true => None,
            false => Some(session.find_or_newest(&self.of, global)),
        };
        let not_found = match snapshot {
            Some(Ok((record, _))) => {
                let project = record.project.as_ref().and_then(|name| config.projects.get(name));
                let project = project
                    .or_else(|| config.projects.values().find(|project| project.paths.contains(&record.directory)));
                return Ok(proof::of_snapshot(context, &request(project), &record)?);
            }
            Some(Err(error)) if config.projects.contains_key(&self.of) => return Err(error),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let (_chosen, dumps) = match super::dumps(&self.of, global, output) {
            Ok(dumps) => dumps,
            Err(error) => return Err(self.neither(not_found, error, global, &config)),
        };
        let project = dumps.project().and_then(|name| config.projects.get(name));
        Ok(proof::of_backup(context, &request(project), &dumps)?)
    }

    /// Where there is no repository to look into, a snapshot was meant.
    fn neither(
        &self,
        snapshot: Option<anyhow::Error>,
        backup: anyhow::Error,
        global: &Global,
        config: &engine::config::Config,
    ) -> anyhow::Error {
        let no_backup = backup.downcast_ref::<CommandError>().is_some();
        match snapshot {
            Some(_) if no_backup && (global.repository.is_some() || !config.repositories.is_empty()) => {
                let error = CommandError::new(format!("there is neither a snapshot nor a backup {:?}", self.of));
                error.hint("`snapback snapshot list` and `snapback list` show them").into()
            }
            Some(snapshot) if no_backup => snapshot,
            _ => backup,
        }
    }
}

/// A proof as `--json` shows it.
#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    at: jiff::Timestamp,
    good: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    databases: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    checks: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_in_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

impl<'a> Document<'a> {
    fn new(proof: &'a Proof) -> Document<'a> {
        let verified = proof.outcome.as_ref().ok();
        Document {
            name: &proof.name,
            at: proof.at,
            good: verified.is_some(),
            error: proof.outcome.as_ref().err().map(ToString::to_string),
            server: verified.map(|verified| verified.server.as_str()),
            databases: verified.map_or(&[], |verified| &verified.databases),
            checks: verified.map_or(&[], |verified| &verified.checks),
            answer: verified.and_then(|verified| verified.answer.as_deref()),
            started_in_seconds: verified.map(|verified| verified.started_in.as_secs_f64()),
            seconds: verified.map(|verified| verified.took.as_secs_f64()),
            warnings: verified.map_or(&[], |verified| &verified.warnings),
        }
    }
}

fn show(proof: &Proof, output: &Output) -> Result<()> {
    match &proof.outcome {
        Ok(verified) => {
            output.line(told(&proof.name, verified))?;
            for warning in &verified.warnings {
                output.warning(format_args!("{}: {warning}", proof.name));
            }
        }
        Err(error) => output.error(&format!("{}: {error}", proof.name), error.hint().as_deref(), Code::Failed as u8),
    }
    Ok(())
}

fn told(name: &str, verified: &Verified) -> String {
    let mut parts = vec![format!("{} started in {}", verified.server, human::duration(verified.started_in))];
    parts.extend(verified.checks.iter().cloned());
    parts.extend(verified.answer.as_ref().map(|answer| format!("the query gave {answer}")));
    format!("{name}: good: {}; {} in all", parts.join(", "), human::duration(verified.took))
}
