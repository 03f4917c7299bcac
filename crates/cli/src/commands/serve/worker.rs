//! Tasks as jobs.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use engine::catalog::{JobKind, Task as Recorded};
use engine::config::{Config, Project, Repository};
use engine::daemon::{Outcome, Task, Worker};
use engine::job::{self, BackupRequest, Backups, Context, Error, Made, check, snapshots};
use engine::place::System as Machine;
use engine::repositories::{self, World};
use engine::status;
use jiff::{SignedDuration, Timestamp};
use snapshot::manage::Request;
use snapshot::record::Purpose;
use snapshot::runner::System;

use crate::commands::snapshot::expire::{Expired, expire};
use crate::error::in_one_line;
use crate::global::Global;
use crate::human;
use crate::jobs::with_context;
use crate::output::Output;
use crate::signals;
use crate::snapshots::Session;

/// Does tasks by the jobs of a configuration.
pub(super) struct ByJobs {
    config: Config,
    global: Global,
    output: Output,
}

impl ByJobs {
    pub(super) fn new(config: Config, global: Global, output: Output) -> ByJobs {
        ByJobs { config, global, output }
    }

    fn perform(&self, task: &Task) -> Result<Outcome> {
        match task {
            Task::Expire => self.expire(),
            Task::Snapshot { project, plan } => {
                let project = self.project(project)?;
                let keep = self.config.plans.get(plan).and_then(|plan| plan.snapshot.as_ref()).map(|plan| plan.keep);
                self.in_context(|context| {
                    let keep = keep.and_then(|keep| SignedDuration::try_from(keep).ok());
                    let expires = keep.and_then(|keep| context.clock.wall().checked_add(keep).ok());
                    let note = format!("by plan {plan}");
                    let request = Request { note, expires, is_held: false, purpose: Purpose::Asked };
                    let made = snapshots::create(context, project, &request)?;
                    let without: Vec<String> =
                        made.without.iter().map(|(path, error)| format!("{}: {error}", path.display())).collect();
                    Ok(incomplete_if(without))
                })
            }
            Task::Backup { project, repository, .. } => {
                let (project, repository) = (self.project(project)?, self.repository(repository)?);
                self.in_context(|context| {
                    let request = BackupRequest { config: &self.config, project, to: vec![repository] };
                    self.backed_up(&project.name, job::back_up(context, &request)?)
                })
            }
            Task::Check { repository, plan } => {
                let repository = self.repository(repository)?;
                let plan = self.config.plans.get(plan).and_then(|plan| plan.check.as_ref());
                let percent = plan.and_then(|plan| plan.read_data).map(engine::config::Percentage::percent);
                self.in_context(|context| {
                    let report = check::run(context, repository, percent)?;
                    let first = report.errors.first().map(ToString::to_string);
                    // It will not be better in a minute.
                    Ok(incomplete_if(first.map(|first| format!("the repository is damaged: {first}"))))
                })
            }
        }
    }

    fn expire(&self) -> Result<Outcome> {
        let Expired { failed, .. } = expire(&Session::open(&self.global, &self.output)?, false)?;
        let undeleted =
            (failed > 0).then(|| format!("{} could not be deleted", human::counted(failed as u64, "snapshot")));
        // A disk fills for want of expiry, and not for want of a forecast.
        let unsampled = self.sample().err().map(|error| format!("how full the disks are is not noted: {error:#}"));
        Ok(incomplete_if(undeleted.into_iter().chain(unsampled)))
    }

    /// Notes how full the disks are: when they will be is told from that.
    fn sample(&self) -> Result<()> {
        let machine = Machine::open(Path::new("/"), Arc::new(System))?;
        self.in_context(|context| {
            if let Some(catalog) = context.recorder.catalog() {
                status::sample(&self.config, catalog, &machine, context.clock.wall());
            }
            Ok(Outcome::Done)
        })?;
        Ok(())
    }

    fn backed_up(&self, project: &str, backups: Backups) -> Result<Outcome> {
        let mut amiss: Vec<String> = backups.hook_failed.iter().map(ToString::to_string).collect();
        for into in backups.into {
            let Made { summary, errors, missing, .. } = into.backup?;
            self.output.message(format_args!(
                "{project} to {}: {} looked at, {} new, {} stored",
                into.repository,
                human::counted(summary.total_files_processed, "file"),
                human::count(summary.files_new + summary.files_changed),
                human::size(summary.data_added_packed),
            ));
            if errors > 0 {
                amiss.push(format!("{} could not be read", human::counted(errors, "file")));
            }
            amiss.extend(missing.iter().map(ToString::to_string));
            if let Some(Err(error)) = into.retained {
                amiss.push(format!("old backups could not be removed: {error}"));
            }
            match into.pruned {
                Some(Err(error)) if !error.is_cancelled() => amiss.push(format!("it could not be pruned: {error}")),
                _ => {}
            }
        }
        Ok(incomplete_if(amiss))
    }

    fn in_context(&self, act: impl FnOnce(&Context<'_>) -> Result<Outcome>) -> Result<Outcome> {
        with_context(&self.global, &self.output.of_a_job(), false, act)
    }

    fn project(&self, name: &str) -> Result<&Project> {
        let Some(project) = self.config.projects.get(name) else { bail!("there is no project {name} any more") };
        Ok(project)
    }

    fn repository(&self, name: &str) -> Result<&Repository> {
        let Some(repository) = self.config.repositories.get(name) else {
            bail!("there is no repository {name} any more")
        };
        Ok(repository)
    }

    fn newest(&self, task: &Task) -> Result<Option<Timestamp>> {
        match task {
            Task::Expire => Ok(None),
            Task::Snapshot { project, .. } => {
                let records = Session::open(&self.global, &self.output)?.state.records()?;
                let of_plan = records.iter().filter(|record| {
                    record.project.as_ref() == Some(project)
                        && record.handle.is_some()
                        && record.purpose == Purpose::Asked
                });
                Ok(of_plan.map(|record| record.created).max())
            }
            Task::Backup { project, repository, .. } => {
                let mut newest = None;
                self.in_context(|context| {
                    let world = World { variable: context.variable, is_cancelled: &context.is_cancelled };
                    let (records, _) = repositories::open(self.repository(repository)?, world)?.backups()?;
                    let tag = job::tag(project);
                    let ours = records
                        .iter()
                        .map(|(_, record)| record)
                        .filter(|record| record.hostname == context.holder.hostname && record.tags.contains(&tag));
                    let times =
                        ours.filter_map(|record| Timestamp::new(record.time.secs, record.time.nanos as i32).ok());
                    newest = times.max();
                    Ok(Outcome::Done)
                })?;
                Ok(newest)
            }
            Task::Check { repository, .. } => {
                let mut newest = None;
                self.in_context(|context| {
                    let task = Recorded { kind: Some(JobKind::Check), project: None, repository: Some(repository) };
                    let last = context.recorder.note(|catalog| catalog.last_success(task)).flatten();
                    newest = last.map(|job| job.started);
                    Ok(Outcome::Done)
                })?;
                Ok(newest)
            }
        }
    }
}

impl Worker for ByJobs {
    fn run(&self, task: &Task) -> Outcome {
        match self.perform(task) {
            Ok(outcome) => outcome,
            Err(_) if signals::is_cancelled() => Outcome::Stopped,
            Err(error) => match error.downcast_ref::<Error>() {
                Some(error @ Error::Busy { .. }) => Outcome::Busy(error.to_string()),
                Some(error @ Error::NoMechanism { .. }) => Outcome::Impossible(error.to_string()),
                _ => Outcome::Failed(in_one_line(&error)),
            },
        }
    }

    fn made(&self, task: &Task) -> Option<Timestamp> {
        // A repository that cannot be reached is told by the run that then fails.
        self.newest(task).ok().flatten()
    }
}

fn incomplete_if(amiss: impl IntoIterator<Item = String>) -> Outcome {
    let amiss: Vec<String> = amiss.into_iter().collect();
    if amiss.is_empty() { Outcome::Done } else { Outcome::Incomplete(amiss.join("; ")) }
}
