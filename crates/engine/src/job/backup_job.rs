//! The backup of a project, from its lock to its last hook.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup::patterns::Patterns;
use repository::Repository;
use repository::id::Id as BackupId;
use repository::lock::Lock;
use repository::record::{BackupRecord, Summary};
use repository::storage::FileKind;
use snapshot::error::Error as SnapshotError;
use snapshot::id::Id;
use snapshot::provider::{Handle, Provider};
use snapshot::runner::System;
use snapshot::{detect, mounts};

use super::archive::{self, Target};
use super::base::{self, Base, BaseVolume};
use super::dumps::MissingDump;
use super::hooks::{self, Facts, HookError};
use super::lock::ProjectLock;
use super::prune::{self, Pruned};
use super::retention::{self, Retained};
use super::source::{self, Source};
use super::survey::Survey;
use super::wanted::Wanted;
use super::{Context, Error, priority, wait};
use crate::catalog::{Figures, Job, JobKind, Outcome, Size};
use crate::config::{self, Config, Plan, Project};
use crate::repositories;

/// Where no plan says after how many backups everything is looked at.
const FULL_WALK: u32 = 7;

/// What is asked for.
pub struct BackupRequest<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The project.
    pub project: &'a Project,
    /// Into which repositories, in this order.
    pub to: Vec<&'a config::Repository>,
}

/// What came of a backup.
#[derive(Debug)]
pub struct Backups {
    /// What was not read from a snapshot, and why.
    pub live: Vec<(PathBuf, SnapshotError)>,
    /// Of each repository, in the order asked for.
    pub into: Vec<Into>,
    /// A command after the job that failed.
    pub hook_failed: Option<HookError>,
}

/// What came of the backup into one repository.
#[derive(Debug)]
pub struct Into {
    /// Its name in the configuration.
    pub repository: String,
    /// The backup.
    pub backup: Result<Made, Error>,
    /// What retention did, if there is a plan that says what to keep.
    pub retained: Option<Result<Retained, Error>>,
    /// Whether the repository was pruned, if something was removed.
    pub pruned: Option<Result<Pruned, Error>>,
}

/// A backup that was made.
#[derive(Debug)]
pub struct Made {
    /// Its name.
    pub id: BackupId,
    /// What it was compared with.
    pub parent: Option<BackupId>,
    /// Its record.
    pub record: BackupRecord,
    /// In numbers.
    pub summary: Summary,
    /// Files that could not be read as they should have been.
    pub errors: u64,
    /// Dumps that it lacks.
    pub missing: Vec<MissingDump>,
    /// How much was looked at.
    pub walk: Walk,
    /// What the next backup may go on from; `None` where something could not be read.
    pub(super) content: Option<backup::archive::Base>,
    /// So many backups since everything was looked at.
    pub(super) since_full: u32,
    /// How long it took.
    pub time: Duration,
}

/// How much of a project was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// All of it.
    Full {
        /// Why not only what changed.
        why: String,
    },
    /// Only what changed since the parent.
    Changed,
}

impl Made {
    /// Whether it lacks something.
    pub fn outcome(&self) -> Outcome {
        if self.errors == 0 && self.missing.is_empty() { Outcome::Succeeded } else { Outcome::Incomplete }
    }
}

impl Backups {
    /// How it ended: incomplete if a backup lacks some files or dumps, failed if there is one that was not made.
    pub fn outcome(&self) -> Outcome {
        let of_one = |into: &Into| match &into.backup {
            Ok(made) => made.outcome(),
            Err(error) if error.is_cancelled() => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        };
        let outcomes: Vec<Outcome> = self.into.iter().map(of_one).collect();
        let worst_first = [Outcome::Failed, Outcome::Cancelled, Outcome::Incomplete];
        worst_first.into_iter().find(|outcome| outcomes.contains(outcome)).unwrap_or(Outcome::Succeeded)
    }
}

/// The repositories that a project's plans send it to, each once.
pub fn destinations<'c>(config: &'c Config, project: &Project) -> Vec<&'c config::Repository> {
    let mut found: Vec<&config::Repository> = Vec::new();
    let plans = project.plans.iter().filter_map(|name| config.plans.get(name));
    for name in plans.filter_map(|plan| plan.backup.as_ref()).flat_map(|backup| &backup.to) {
        if let Some(repository) = config.repositories.get(name)
            && found.iter().all(|known| known.name != repository.name)
        {
            found.push(repository);
        }
    }
    found
}

/// Backs a project up.
///
/// # Errors
/// If nothing was begun: another job of the project runs, or a `before` hook failed. What fails in a repository is told
/// with it in [`Backups::into`].
pub fn back_up(context: &Context<'_>, request: &BackupRequest<'_>) -> Result<Backups, Error> {
    let Project { name, hooks, .. } = request.project;
    let taken = ProjectLock::take(context.state.root(), name, "backup")?;
    let _lock = taken.map_err(|busy| Error::Busy { project: name.clone(), by: busy.by })?;
    let jobs: Vec<Job> =
        request.to.iter().map(|to| begin(context, JobKind::Backup, name, &to.name)).collect::<Result<_, _>>()?;
    let facts = facts(request);
    if let Err(source) = hooks::run(&hooks.before, &facts, &|| context.is_cancelled()) {
        let error = Error::Hook { project: name.clone(), job: "backup", source: Box::new(source) };
        for job in jobs {
            end(context, job.ended(context.clock.wall(), Outcome::Failed).with_error(&error));
        }
        return Err(error);
    }
    let mut backups = match from_snapshots(context, request, &jobs) {
        Ok(backups) => backups,
        Err(error) => {
            let now = context.clock.wall();
            jobs.into_iter().for_each(|job| end(context, job.ended(now, Outcome::Failed).with_error(&error)));
            let facts = facts.with("SNAPBACK_OUTCOME", Outcome::Failed.as_str()).with("SNAPBACK_ERROR", &error);
            tell_after(context, request.project, &facts);
            return Err(error);
        }
    };
    let mut facts = facts.with("SNAPBACK_OUTCOME", backups.outcome().as_str());
    let ids = |into: &Into| into.backup.as_ref().ok().map(|made| format!("{}={}", into.repository, made.id));
    facts = facts.with("SNAPBACK_BACKUPS", backups.into.iter().filter_map(ids).collect::<Vec<_>>().join(" "));
    if let Some(error) = backups.into.iter().find_map(|into| into.backup.as_ref().err()) {
        facts = facts.with("SNAPBACK_ERROR", error);
    }
    backups.hook_failed = tell_after(context, request.project, &facts);
    Ok(backups)
}

/// What hooks are told of a backup before it.
fn facts(request: &BackupRequest<'_>) -> Facts {
    let names: Vec<&str> = request.to.iter().map(|to| to.name.as_str()).collect();
    let mut facts = Facts::new(&request.project.name, "backup").with("SNAPBACK_TO", names.join(" "));
    facts = facts.without("SNAPBACK_PASSWORD").without("CREDENTIALS_DIRECTORY");
    for repository in request.config.repositories.values() {
        if let config::PasswordSource::Environment(name) = &repository.password {
            facts = facts.without(name);
        }
    }
    facts
}

/// Runs the hooks after a job, also after one that was cancelled.
fn tell_after(context: &Context<'_>, project: &Project, facts: &Facts) -> Option<HookError> {
    let failed = hooks::run(&project.hooks.after, facts, &|| false).err();
    if let Some(error) = &failed {
        context.watch.warn(&format!("{error}; the job of {} itself is done", project.name));
    }
    failed
}

/// From the snapshots to their end.
fn from_snapshots(context: &Context<'_>, request: &BackupRequest<'_>, jobs: &[Job]) -> Result<Backups, Error> {
    let BackupRequest { config, project, to } = request;
    let survey = survey(project)?;
    let told = |text: &str| context.watch.warn(text);
    let tidy_up = || {
        // What is left is found by the next job.
        if let Err(error) = tidy(context, request) {
            told(&format!("snapshots that are needed no more stay: {error}"));
        }
    };
    tidy_up();
    let (source, views) = Source::take(context.lock_snapshots, survey, project, context.clock.wall(), &told);
    let wanted = wanted(config, project, &source);
    let mut into = Vec::new();
    for (repository, job) in to.iter().zip(jobs) {
        let plans = match repository.append_only {
            // Its other side lets nobody here remove anything, and does that itself.
            true => Vec::new(),
            false => retention::plans(config, project, &repository.name),
        };
        let job = job.clone();
        into.push(priority::run(repository.low_priority, || one(context, repository, &plans, &wanted, &source, job)));
    }
    drop(views);
    tidy_up();
    Ok(Backups { live: source.survey.live, into, hook_failed: None })
}

/// Deletes the snapshots that are nobody's base any more: those of this run at its end, and at the beginning what one
/// left that was killed.
fn tidy(context: &Context<'_>, request: &BackupRequest<'_>) -> Result<(), Error> {
    let name = &request.project.name;
    let lock = (context.lock_snapshots)()?;
    let mut names: Vec<&str> =
        destinations(request.config, request.project).iter().map(|to| to.name.as_str()).collect();
    names.extend(request.to.iter().map(|to| to.name.as_str()));
    base::forget_others(&lock, name, &names)?;
    let kept = base::snapshots(context.state, name)?;
    Ok(source::sweep(&lock, name, &kept, &reopen, &|text| context.watch.warn(text))?)
}

fn reopen(directory: &Path, handle: &Handle) -> Result<Box<dyn Provider>, SnapshotError> {
    detect::reopen(directory, handle, &mounts::mounts()?, Arc::new(System))
}

fn survey(project: &Project) -> Result<Survey, Error> {
    let wrong = |reason: String| Error::Project { project: project.name.clone(), reason };
    let exclude = Patterns::new(project.exclude.iter().map(String::as_str));
    let exclude = exclude.map_err(|error| wrong(error.to_string()))?;
    let mounts = mounts::mounts()?;
    let find = |path: &Path| detect::enclosing(path, &mounts, Arc::new(System));
    Ok(Survey::of(project, &mounts, &exclude, &find))
}

fn wanted<'a>(config: &Config, project: &'a Project, source: &Source) -> Wanted<'a> {
    let mut left_out = source.survey.left_out.clone();
    // A repository that backs itself up never comes to an end.
    let locals = config.repositories.values().filter_map(|repository| repositories::local_directory(&repository.url));
    left_out
        .extend(locals.filter(|local| project.paths.iter().any(|path| local.starts_with(path))).map(Path::to_owned));
    let left_out = source::contents_of(&left_out);
    let plans = project.plans.iter().filter_map(|name| config.plans.get(name));
    let full_walk = plans.filter_map(|plan| plan.backup.as_ref()).map(|backup| backup.full_walk).min();
    let volumes: Vec<&Path> = source.records().map(|record| &*record.directory).collect();
    let live: Vec<&Path> = source.survey.live.iter().map(|(path, _)| &**path).collect();
    let places: Vec<_> =
        source.survey.places.iter().map(|place| (&place.path, volumes[place.volume], &place.below)).collect();
    let Project { paths, exclude, one_file_system, .. } = project;
    let settings = format!("{paths:?} {exclude:?} {one_file_system} {left_out:?} {places:?} {live:?}");
    Wanted { project, left_out, settings, full_walk: full_walk.unwrap_or(FULL_WALK) }
}

/// Into one repository, with what keeps it in order.
fn one(
    context: &Context<'_>,
    repository: &config::Repository,
    plans: &[&Plan],
    wanted: &Wanted<'_>,
    source: &Source,
    job: Job,
) -> Into {
    let name = &repository.name;
    let opened = || {
        if context.is_cancelled() {
            return Err(Error::repository(name)(repository::Error::Cancelled));
        }
        repositories::open(repository, context.world()).map_err(|source| Error::access(name, source))
    };
    let into = |backup, retained, pruned| Into { repository: name.clone(), backup, retained, pruned };
    let opened = match opened() {
        Ok(opened) => opened,
        Err(error) => {
            let backup = Err(error);
            end_backup(context, job, &backup);
            return into(backup, None, None);
        }
    };
    context.recorder.note(|catalog| catalog.record_repository(name, &repository.url));
    let is_wanted = wait::want(context.state.root(), &opened.config().id.to_string());
    let done = wait::while_locked(context, &mut || {
        let lock = Lock::acquire(&opened, false, context.holder).map_err(Error::repository(name))?;
        let target = Target { name, repository: &opened, lock: Arc::new(lock) };
        Ok((archive::back_up(context, &target, wanted, source)?, target))
    });
    let mut retained = None;
    let (made, target) = match done {
        Ok((made, target)) => (Ok(made), Some(target)),
        Err(error) => (Err(error), None),
    };
    end_backup(context, job, &made);
    if let (Ok(made), Some(target)) = (&made, target) {
        if let Err(error) = keep_base(context, name, &opened, wanted, source, made) {
            context.watch.warn(&format!("the next backup to \"{name}\" will look at everything: {error}"));
        }
        if !plans.is_empty() {
            retained = Some(retain(context, &target, wanted.project, plans));
        }
    }
    // Nobody prunes against himself.
    drop(is_wanted);
    let may_prune = matches!(&retained, Some(Ok(_)));
    let pruned = may_prune.then(|| prune(context, name, &opened, wanted.project));
    record_size(context, name, &opened);
    into(made, retained, pruned)
}

/// Writes down what the next backup is compared with. One that lacks files is not, and has no such content: what was not
/// read would not be looked at again. Dumps are made each time, whatever the last one had.
fn keep_base(
    context: &Context<'_>,
    name: &str,
    repository: &Repository,
    wanted: &Wanted<'_>,
    source: &Source,
    made: &Made,
) -> Result<(), SnapshotError> {
    let Some(content) = &made.content else { return Ok(()) };
    if !source.can_be_base() || !wanted.project.snapshot.keep_base {
        return Ok(());
    }
    let volume =
        |record: &snapshot::record::Record| BaseVolume { directory: record.directory.clone(), snapshot: record.id };
    let base = Base {
        project: wanted.project.name.clone(),
        name: name.to_owned(),
        repository: repository.config().id.to_string(),
        backup: made.id,
        content: content.clone(),
        volumes: source.records().map(volume).collect(),
        settings: wanted.settings.clone(),
        since_full: made.since_full,
    };
    let lock = (context.lock_snapshots)()?;
    let snapshots: Vec<Id> = base.volumes.iter().map(|volume| volume.snapshot).collect();
    source::keep(&lock, &snapshots)?;
    base.save(&lock)
}

fn retain(context: &Context<'_>, target: &Target<'_>, project: &Project, plans: &[&Plan]) -> Result<Retained, Error> {
    let job = begin(context, JobKind::Retention, &project.name, target.name)?;
    let retained = retention::apply(context, target, &project.name, plans).and_then(|retained| {
        if !retained.removed.is_empty() {
            prune::note(context, &target.repository.config().id.to_string(), retained.added_by_removed)?;
        }
        Ok(retained)
    });
    if let Ok(Retained { removed, .. }) = &retained {
        context.recorder.note(|catalog| catalog.forget_backups(target.name, removed));
    }
    let removed = retained.as_ref().ok().map(|retained| retained.removed.len() as u64);
    // That nothing had its time is not worth remembering.
    if removed != Some(0) {
        end_other(context, job, retained.as_ref().err(), Figures { removed, ..Figures::default() });
    }
    retained
}

fn prune(context: &Context<'_>, name: &str, opened: &Arc<Repository>, project: &Project) -> Result<Pruned, Error> {
    let job = begin(context, JobKind::Prune, &project.name, name)?;
    let pruned = prune::if_it_pays(context, name, opened);
    match &pruned {
        Ok(Pruned::NotWorthIt | Pruned::InUse | Pruned::GaveWay) => {}
        Ok(Pruned::Freed(bytes)) => {
            end_other(context, job, None, Figures { freed_bytes: Some(*bytes), ..Figures::default() });
        }
        Err(error) => end_other(context, job, Some(error), Figures::default()),
    }
    pruned
}

/// How large the repository is now, for whoever asks when it will be full.
fn record_size(context: &Context<'_>, name: &str, opened: &Repository) {
    let count = |kind| opened.storage().list(kind).ok();
    let (Some(packs), Some(backups)) = (count(FileKind::Pack), count(FileKind::Backup)) else { return };
    let bytes = packs.iter().map(|(_, bytes)| bytes).sum();
    let size = Size { at: context.clock.wall(), bytes, backups: backups.len() as u64 };
    context.recorder.note(|catalog| catalog.record_size(name, size));
}

fn begin(context: &Context<'_>, kind: JobKind, project: &str, repository: &str) -> Result<Job, SnapshotError> {
    let job = Job::begin(kind, Some(project), Some(repository), context.clock.wall())?;
    // The others end at once, if there is anything to tell of them.
    if kind == JobKind::Backup {
        context.recorder.note(|catalog| catalog.record_job(&job));
    }
    Ok(job)
}

fn end(context: &Context<'_>, job: Job) {
    context.recorder.note(|catalog| catalog.record_job(&job));
}

fn end_backup(context: &Context<'_>, job: Job, made: &Result<Made, Error>) {
    let now = context.clock.wall();
    end(
        context,
        match made {
            Ok(made) => {
                let job = job.ended(now, made.outcome()).with_point(made.id);
                let missing: Vec<String> = made.missing.iter().map(ToString::to_string).collect();
                let job = if missing.is_empty() { job } else { job.with_error(missing.join("; ")) };
                job.with_figures(Figures {
                    files: Some(made.summary.total_files_processed),
                    bytes: Some(made.summary.total_bytes_processed),
                    added_bytes: Some(made.summary.data_added_packed),
                    errors: Some(made.errors + made.missing.len() as u64),
                    ..Figures::default()
                })
            }
            Err(error) if error.is_cancelled() => job.ended(now, Outcome::Cancelled),
            Err(error) => job.ended(now, Outcome::Failed).with_error(error),
        },
    );
}

fn end_other(context: &Context<'_>, job: Job, error: Option<&Error>, figures: Figures) {
    let now = context.clock.wall();
    let ended = match error {
        None => job.ended(now, Outcome::Succeeded),
        Some(error) if error.is_cancelled() => job.ended(now, Outcome::Cancelled),
        Some(error) => job.ended(now, Outcome::Failed).with_error(error),
    };
    end(context, ended.with_figures(figures));
}
