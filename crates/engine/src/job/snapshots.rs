//! Snapshots of a project: of all its directories, together.
//!
//! Not a matter of the project's lock: they take milliseconds, and the backup that runs for hours reads from its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::error::Error as SnapshotError;
use snapshot::manage::{self, Request};
use snapshot::provider::Provider;
use snapshot::record::Record;
use snapshot::runner::System;
use snapshot::{detect, mounts};

use super::hooks::{self, Facts};
use super::{Context, Error};
use crate::catalog::{Job, JobKind, Outcome};
use crate::config::Project;
use crate::database::held;

/// What was made.
#[derive(Debug)]
pub struct Snapshots {
    /// Of each directory that can have one, in the order of the project's paths.
    pub records: Vec<Record>,
    /// The directories that cannot, and why.
    pub without: Vec<(PathBuf, SnapshotError)>,
    /// Whether all files of each are of the same moment.
    pub is_atomic: bool,
}

/// Takes snapshots of all directories of a project that can have one.
///
/// # Errors
/// If none can ([`Error::NoMechanism`] if no directory lies where there are any), or one that can fails; then none is
/// left. Backups are no stand-in here: a project has its own.
pub fn create(context: &Context<'_>, project: &Project, request: &Request) -> Result<Snapshots, Error> {
    let name = &project.name;
    let job = Job::begin(JobKind::Snapshot, Some(name), None, context.clock.wall())?;
    let facts = Facts::new(name, "snapshot").without("SNAPBACK_PASSWORD");
    let made = hooks::run(&project.hooks.before, &facts, &|| context.is_cancelled())
        .map_err(|source| Error::Hook { project: name.clone(), job: "snapshot", source: Box::new(source) })
        .and_then(|()| {
            let made = take(context, project, request);
            let outcome = if made.is_ok() { Outcome::Succeeded } else { Outcome::Failed };
            let facts = facts.clone().with("SNAPBACK_OUTCOME", outcome.as_str());
            if let Err(error) = hooks::run(&project.hooks.after, &facts, &|| false) {
                context.watch.warn(&format!("{error}; the snapshots of {name} themselves are made"));
            }
            made
        });
    let now = context.clock.wall();
    let ended = match &made {
        Ok(made) => {
            let ids: Vec<String> = made.records.iter().map(|record| record.id.to_string()).collect();
            job.ended(now, Outcome::Succeeded).with_point(ids.join(" "))
        }
        Err(error) => job.ended(now, Outcome::Failed).with_error(error),
    };
    context.recorder.note(|catalog| catalog.record_job(&ended));
    made
}

fn take(context: &Context<'_>, project: &Project, request: &Request) -> Result<Snapshots, Error> {
    let mounts = mounts::mounts()?;
    let find = |path: &Path| {
        let directory = path.canonicalize().map_err(SnapshotError::io("look at", path))?;
        detect::provider(&directory, &mounts, Arc::new(System))
    };
    let mut providers: Vec<Box<dyn Provider>> = Vec::new();
    let mut without = Vec::new();
    for path in &project.paths {
        match find(path) {
            Ok(provider) if providers.iter().any(|known| known.directory() == provider.directory()) => {}
            Ok(provider) => providers.push(provider),
            Err(error) => without.push((path.clone(), error)),
        }
    }
    if providers.is_empty()
        && let Some((_, error)) = without.pop()
    {
        // Of a path that is not there, nobody knows.
        let refused = |error: &SnapshotError| matches!(error, SnapshotError::Refused { .. });
        if refused(&error) && without.iter().all(|(_, error)| refused(error)) {
            return Err(Error::NoMechanism { project: project.name.clone(), source: Box::new(error) });
        }
        return Err(error.into());
    }
    let all: Vec<&dyn Provider> = providers.iter().map(|provider| &**provider).collect();
    let records = held::around(Some(project), &all, |around| {
        let lock = (context.lock_snapshots)()?;
        manage::create_together(&lock, &all, &project.name, request, context.clock.wall(), around)
    })?;
    let is_atomic = providers.iter().all(|provider| provider.abilities().is_atomic);
    Ok(Snapshots { records, without, is_atomic })
}
