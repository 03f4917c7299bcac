//! `snapback database`: databases of projects, in snapshots and in backups.

mod dump;
mod list;
mod restore;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Subcommand;
use engine::config::{Config, Database, Project};
use engine::database::dumps::Dumps;
use engine::nearest::nearest;

use crate::chosen;
use crate::error::CommandError;
use crate::global::Global;
use crate::output::Output;
use crate::select::Filter;

/// All of them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the databases of projects, or the dumps in a backup
    List(list::Command),
    /// Write a dump to standard output, made now or from a backup
    Dump(dump::Command),
    /// Bring a database back from a backup, beside the present one until it is whole
    Restore(restore::Command),
    /// Prove that databases in a snapshot or a backup are whole, on a throw-away server
    Verify(verify::Command),
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    match command {
        Command::List(command) => list::run(command, global, output),
        Command::Dump(command) => dump::run(command, global, output),
        Command::Restore(command) => restore::run(command, global, output),
        Command::Verify(command) => verify::run(command, global, output),
    }
}

/// The database of a name, which may have its project's before it: `shop/orders`.
fn configured<'c>(config: &'c Config, named: &str) -> Result<(&'c Project, &'c Database)> {
    let (of, name) = named.split_once('/').map_or((None, named), |(of, name)| (Some(of), name));
    let projects = config.projects.values().filter(|project| of.is_none_or(|of| project.name == of));
    let mut found = projects.filter_map(|project| Some((project, project.databases.get(name)?)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some((one, _)), Some((other, _))) => {
            let error = CommandError::usage(format!("{} and {} have a database {name}", one.name, other.name));
            Err(error.hint(format!("{}/{name}, or {}/{name}", one.name, other.name)).into())
        }
        (None, _) => {
            let error = CommandError::usage(format!("there is no database {named:?} in the configuration"));
            let all = config.projects.values().flat_map(|project| project.databases.keys());
            let names: Vec<&str> = all.map(String::as_str).collect();
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => near.to_owned(),
                None if names.is_empty() => "[project.NAME.database.NAME] makes one known".to_owned(),
                None => names.join(", "),
            };
            Err(error.hint(hint).into())
        }
    }
}

/// The dumps of the backup that a text means.
fn dumps(text: &str, global: &Global, output: &Output) -> Result<(chosen::Chosen, Dumps)> {
    let chosen = chosen::find(text, &Filter::default(), global, output)?;
    let index = Arc::new(chosen.repository.load_index()?);
    let dumps = Dumps::of(Arc::clone(&chosen.repository), index, chosen.id, &chosen.record)?;
    Ok((chosen, dumps))
}
