//! The proof that databases in a snapshot or a backup are whole: a throw-away server on a copy, and what it says.
//!
//! Invariant: production is not touched, and nothing stays of it, however it ends. What one database's proof says keeps no
//! other from its own; each is recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use snapshot::record::Record;
use workload::error::Error as DatabaseError;
use workload::verify::{self, Questions, Verified};

use super::copies::Copy;
use super::dumps::Dumps;
use super::held::{Around, InSnapshot, State};
use super::work::Work;
use super::{Error, chosen};
use crate::catalog::proofs::{self, Outcome};
use crate::config::{Database, Project};
use crate::job::Context;

/// What is to be proven, and with what.
pub struct Request<'a> {
    /// The project, for its databases' own queries, if the configuration has it still.
    pub project: Option<&'a Project>,
    /// One of its databases; all if none.
    pub name: Option<&'a str>,
    /// A directory with room for throw-away servers, and for what they are to be started on where it cannot be cloned.
    pub room: &'a Path,
    /// How long a server may take to start; zero for what [`workload::verify`] thinks right.
    pub patience: Duration,
}

/// What was proven of a database.
#[derive(Debug)]
pub struct Proof {
    /// Which, as the configuration called it.
    pub name: String,
    /// When it began.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Result<Verified, Error>,
}

/// Proves the databases in a snapshot: starts a server on a writable clone of it.
///
/// # Errors
/// [`Error::Refused`] if there are none in it, or none of that name. What fails with one is in its [`Proof`].
pub fn of_snapshot(context: &Context<'_>, request: &Request<'_>, record: &Record) -> Result<Vec<Proof>, Error> {
    let around = Around::of(record);
    let databases: BTreeMap<String, InSnapshot> =
        around.databases.into_iter().map(|database| (database.quiesced.name.clone(), database)).collect();
    if databases.is_empty() {
        return Err(Error::refused(format!("nothing is known of databases in snapshot {}", record.id))
            .or("a snapshot knows of those that its project has in the configuration: [project.NAME.database.NAME]"));
    }
    let chosen = chosen(&databases, request.name, &format!("snapshot {}", record.id))?;
    let group = group(context, record)?;
    let mut proofs = Vec::new();
    for database in chosen {
        let (name, at) = (database.quiesced.name.clone(), context.clock.wall());
        let outcome = one_in_snapshot(context, request, &group, database);
        proofs.push(Proof { name, at, outcome });
    }
    note(context, request, record.project.as_deref(), &proofs::Copy::Snapshot(record.id.to_string()), &proofs);
    Ok(proofs)
}

/// Proves the dumps in a backup: loads them into an empty server.
///
/// # Errors
/// [`Error::Refused`] if there are none in it, or none of that name. What fails with one is in its [`Proof`].
pub fn of_backup(context: &Context<'_>, request: &Request<'_>, dumps: &Dumps) -> Result<Vec<Proof>, Error> {
    let backup = dumps.backup();
    let chosen = chosen(dumps.databases(), request.name, &format!("backup {backup}"))?;
    let mut proofs = Vec::new();
    for database in chosen {
        let (name, at) = (database.name.clone(), context.clock.wall());
        let outcome = Work::new(request.room).map_err(Error::io("make room in", request.room)).and_then(|work| {
            let questions = questions(request, &name, work.directory("server"), request.room)?;
            let parts = dumps.parts(database)?;
            Ok(verify::dump(&parts, &mut |part| dumps.open(database, part), &questions)?)
        });
        proofs.push(Proof { name, at, outcome });
    }
    note(context, request, dumps.project(), &proofs::Copy::Backup(backup.to_string()), &proofs);
    Ok(proofs)
}

/// The snapshots that were made together with one, itself included.
fn group(context: &Context<'_>, record: &Record) -> Result<Vec<Record>, Error> {
    let Some(group) = record.group else { return Ok(vec![record.clone()]) };
    let mut records = context.state.records()?;
    records.retain(|other| other.group == Some(group) && other.handle.is_some());
    Ok(records)
}

fn one_in_snapshot(
    context: &Context<'_>,
    request: &Request<'_>,
    group: &[Record],
    database: &InSnapshot,
) -> Result<Verified, Error> {
    let name = &database.quiesced.name;
    let files = match (&database.files, database.state()) {
        (Some(files), state) if state != State::Outside => files,
        (_, state) => {
            return Err(Error::refused(format!("the database {name} cannot be started: {state}"))
                .or("the dump in a backup can be proven instead: snapback database verify BACKUP"));
        }
    };
    let work = Work::new(request.room).map_err(Error::io("make room in", request.room))?;
    let questions = questions(request, name, work.directory("server"), request.room)?;
    let mut copies: Vec<Copy<'_>> = Vec::new();
    let mut place = |path: &Path| -> Result<PathBuf, Error> {
        if let Some(copy) = copies.iter().find(|copy| copy.holds(path)) {
            return Ok(copy.place(path, &work)?);
        }
        // The innermost, where one directory of the project lies below another.
        let record = group.iter().filter(|record| path.starts_with(&record.directory));
        let record = record.max_by_key(|record| record.directory.components().count());
        let gone = || Error::refused(format!("the snapshot that has {} is gone", path.display()));
        let copy = Copy::of(context, record.ok_or_else(gone)?)?;
        let placed = copy.place(path, &work)?;
        copies.push(copy);
        Ok(placed)
    };
    let directory = place(&files.directory)?;
    let moved = files.others.iter().map(|path| Ok((path.clone(), place(path)?))).collect::<Result<Vec<_>, Error>>()?;
    let copy = verify::Copy {
        kind: database.kind.into(),
        directory: &directory,
        moved: &moved,
        beside: &database.quiesced.beside,
    };
    Ok(verify::data_directory(&copy, &questions)?)
}

fn questions(
    request: &Request<'_>,
    name: &str,
    work: std::io::Result<PathBuf>,
    room: &Path,
) -> Result<Questions, Error> {
    let database: Option<&Database> = request.project.and_then(|project| project.databases.get(name));
    Ok(Questions {
        database: database.and_then(|database| database.login.address.database().map(str::to_owned)),
        query: database.and_then(|database| database.query.clone()),
        work: work.map_err(Error::io("make room in", room))?,
        patience: request.patience,
        tools: database.map(|database| database.login.tools.clone()).unwrap_or_default(),
    })
}

/// Writes down what came of it. What nobody asks for under a project's name is not.
fn note(context: &Context<'_>, request: &Request<'_>, project: Option<&str>, of: &proofs::Copy, proofs: &[Proof]) {
    let Some(project) = request.project.map(|project| project.name.as_str()).or(project) else { return };
    for Proof { name, at, outcome } in proofs {
        let outcome = match outcome {
            Ok(verified) => good(verified),
            Err(Error::Database(DatabaseError::Tool { .. })) => continue,
            Err(error) => Outcome::Failed { reason: error.to_string() },
        };
        let (project, database) = (project.to_owned(), name.clone());
        let proof = proofs::Proof { project, database, of: of.clone(), at: *at, outcome };
        context.recorder.note(|catalog| catalog.record_proof(&proof));
    }
}

fn good(verified: &Verified) -> Outcome {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Outcome::Good {
        server: verified.server.clone(),
        checks: verified.checks.clone(),
        answer: verified.answer.clone(),
        started_in_ms: millis(verified.started_in),
        took_ms: millis(verified.took),
        warnings: verified.warnings.clone(),
    }
}
