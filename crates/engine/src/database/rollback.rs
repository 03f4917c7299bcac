//! What databases ask of a rollback of the directory that their files lie in.

use std::path::PathBuf;

use snapshot::record::Record;
use snapshot::rollback::Plan;
use snapshot::rollback::plan::Refusal;

use crate::directories::shown;

use super::held::{Around, InSnapshot, Kind, Taken};

/// The locks that servers left in a snapshot, relative to its directory. PostgreSQL refuses to start if the process that
/// its `postmaster.pid` names is there, whatever it is.
pub fn stale(record: &Record) -> Vec<PathBuf> {
    let postgres = |database: &&InSnapshot| database.kind == Kind::Postgres && database.is_inside();
    let mut locks: Vec<PathBuf> = Vec::new();
    for database in Around::of(record).databases.iter().filter(postgres) {
        let inside = database.files.as_ref().and_then(|files| files.directory.strip_prefix(&record.directory).ok());
        if let Some(lock) = inside.map(|inside| inside.join("postmaster.pid"))
            && !locks.contains(&lock)
        {
            locks.push(lock);
        }
    }
    locks
}

/// Adds what stands against a rollback for the sake of databases: a server that runs in the directory and would go on with
/// the old files, and one of which only some of the files would go back.
pub fn refuse(plan: &mut Plan, records: &[&Record]) {
    let directories = plan.directories();
    let goes_back = |path: &PathBuf| directories.iter().any(|directory| path.starts_with(directory));
    let mut known: Vec<String> = Vec::new();
    // Snapshots that were made together tell of the same databases.
    for database in records.iter().flat_map(|record| Around::of(record).databases) {
        if known.contains(&database.quiesced.name) {
            continue;
        }
        known.push(database.quiesced.name.clone());
        let (Some(files), name) = (&database.files, &database.quiesced.name) else { continue };
        let all: Vec<&PathBuf> = std::iter::once(&files.directory).chain(&files.others).collect();
        let concerned = all.iter().filter(|path| goes_back(path)).count();
        if concerned == 0 || database.kind == Kind::Sqlite {
            continue;
        }
        if files.taken == Taken::Several && concerned < all.len() {
            let message = format!(
                "the database {name} has files outside of {}, which would not go back with it",
                shown(&directories)
            );
            plan.refusals
                .push(Refusal::new(message).or("bring it back from a backup: snapback database restore BACKUP NAME"));
            continue;
        }
        let holders = plan.parts.iter().flat_map(|part| &part.holders).filter(|holder| {
            let is_stopped = holder.unit.as_ref().is_some_and(|unit| plan.stop.contains(unit));
            let holds = holder.holds.iter().any(|hold| hold.path.starts_with(&files.directory));
            !is_stopped && holds && is_server(&holder.command)
        });
        if let Some(holder) = holders.min_by_key(|holder| holder.pid) {
            let message = format!("the server of the database {name} runs in the directory: {holder}");
            let unit = holder.unit.as_deref().unwrap_or("UNIT");
            let way_out = format!(
                "name its unit, to be stopped and started again: --stop {unit}, or units = [\"{unit}\"] of the project; \
                 or stop the server first"
            );
            plan.refusals.push(Refusal::new(message).or(way_out));
        }
    }
}

/// Servers' programs, by what they call themselves.
fn is_server(command: &str) -> bool {
    let program = command.split(' ').next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().trim_end_matches(':');
    matches!(name, "postgres" | "postmaster" | "mariadbd" | "mysqld")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_known_by_what_they_call_themselves() {
        for command in ["/usr/lib/postgresql/15/bin/postgres -D /srv/data", "postgres: checkpointer ", "mariadbd"] {
            assert!(is_server(command), "{command}");
        }
        for command in ["vi postgres", "", "psql orders", "bash"] {
            assert!(!is_server(command), "{command}");
        }
    }
}
