//! Finds the facts: from the configuration, the state directory, the catalog, and the machine.
//!
//! Opens no repository and waits for nothing: what is in a repository is what the catalog knows of it. What cannot be
//! looked at is said ([`Facts::unseen`]), and the rest is found all the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use snapshot::detect;
use snapshot::mounts::{self, Mount};
use snapshot::provider::Provider;
use snapshot::record::Record;

use super::facts::{self, Facts, Growth, GuardPhase, Snapshots, Task, TaskKind, Unreachable};
use super::room;
use super::sources::Sources;
use crate::catalog::{self, Catalog, JobKind, KnownBackup};
use crate::config::{PasswordSource, Project, Repository};
use crate::daemon::{self, Instance, Patience, Scheduler, Standing, ledger};
use crate::guard::document::{Guard, Phase};
use crate::place::{Nearness, Place, Relation};
use crate::{redact, repositories};

/// What a look at the machine as a whole found.
struct Look<'a> {
    sources: &'a Sources<'a>,
    mounts: Vec<Mount>,
    records: Vec<Record>,
    tasks: Vec<(daemon::Task, Task)>,
    unseen: Vec<String>,
}

/// Looks at all projects, or at one of them.
pub fn gather(sources: &Sources<'_>, only: Option<&str>) -> Facts {
    let mut unseen = Vec::new();
    let mut or_nothing = |what: &str, error: &dyn std::fmt::Display| unseen.push(format!("{what}: {error}"));
    let mounts = mounts::mounts().unwrap_or_else(|error| {
        or_nothing("the mounts", &error);
        Vec::new()
    });
    let records = sources.state.records().unwrap_or_else(|error| {
        or_nothing("the snapshots", &error);
        Vec::new()
    });
    let ledger = ledger::look(sources.state.root()).unwrap_or_else(|error| {
        or_nothing("when the plans last ran", &error);
        ledger::Ledger::default()
    });
    if sources.catalog.is_none() {
        unseen.push("the catalog cannot be read, so nothing is known of the backups".to_owned());
    }
    let mut look = Look { sources, mounts, records, tasks: Vec::new(), unseen };
    look.tasks = look.tasks(ledger);
    let is_served = (!look.tasks.is_empty()).then(|| Instance::running(sources.state.root()).is_some());
    let asked = sources.config.projects.values().filter(|project| only.is_none_or(|only| project.name == only));
    let projects: Vec<facts::Project> = asked.map(|project| look.project(project)).collect();
    let filesystems = room::filesystems(sources, &projects);
    Facts { config: sources.config.path.clone(), projects, filesystems, is_served, unseen: look.unseen }
}

impl Look<'_> {
    fn project(&mut self, project: &Project) -> facts::Project {
        let places: Vec<Place> = project.paths.iter().map(|path| Place::of_path(path, self.sources.system)).collect();
        let mut names: Vec<&str> = Vec::new();
        let plans = project.plans.iter().filter_map(|plan| self.sources.config.plans.get(plan));
        for name in plans.filter_map(|plan| plan.backup.as_ref()).flat_map(|backup| &backup.to) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let known = names.iter().filter_map(|name| self.sources.config.repositories.get(*name));
        let repositories: Vec<facts::Repository> =
            known.map(|repository| self.repository(project, repository, &places)).collect();
        let is_its = |task: &daemon::Task| match task.project() {
            Some(name) => name == project.name,
            None => task.repository().is_some_and(|name| names.contains(&name)),
        };
        facts::Project {
            name: project.name.clone(),
            paths: project.paths.clone(),
            snapshots: self.snapshots(project),
            tasks: self.tasks.iter().filter(|(task, _)| is_its(task)).map(|(_, task)| task.clone()).collect(),
            guards: self.sources.guards.iter().filter_map(|guard| self.guard(guard, project)).collect(),
            databases: self.databases(project),
            repositories,
            places,
        }
    }

    fn databases(&self, project: &Project) -> Vec<facts::Database> {
        let proofs = self.sources.catalog.and_then(|catalog| catalog.proofs(&project.name).ok()).unwrap_or_default();
        let last = |name: &String| proofs.iter().find(|proof| proof.database == *name).cloned();
        project.databases.keys().map(|name| facts::Database { name: name.clone(), proof: last(name) }).collect()
    }

    fn tasks(&self, ledger: ledger::Ledger) -> Vec<(daemon::Task, Task)> {
        let Sources { config, host, zone, now, .. } = self.sources;
        let planned = daemon::tasks(config, host);
        let mut scheduler = Scheduler::new(ledger, now.clone(), Patience::None);
        scheduler.plan(planned.clone(), zone.clone(), now);
        for daemon::Planned { task, .. } in planned {
            // What somebody did by hand counts, too, whether the daemon knows of it or not.
            let (made, entry) = (self.made(&task), scheduler.ledger().tasks.get(&task.key()));
            let last = entry.and_then(|entry| entry.last.as_ref()).map(|last| last.wall);
            if made > last || entry.is_some_and(|entry| !entry.is_looked_up) {
                scheduler.end(&task, &daemon::Outcome::Looked(made.max(last)), now);
            }
        }
        let running = self.sources.catalog.and_then(|catalog| catalog.running_jobs().ok()).unwrap_or_default();
        let mut tasks = Vec::new();
        for Standing { task, last, due, failure, .. } in scheduler.standings(now) {
            let kind = match task {
                daemon::Task::Expire => continue,
                daemon::Task::Snapshot { .. } => TaskKind::Snapshot,
                daemon::Task::Backup { .. } => TaskKind::Backup,
                daemon::Task::Check { .. } => TaskKind::Check,
            };
            let is_running = running.iter().any(|job| {
                job.kind.as_str() == task.kind()
                    && job.project.as_deref() == task.project()
                    && job.repository.as_deref() == task.repository()
            });
            let failure = failure.map(|failure| facts::Failure {
                count: failure.count,
                since: failure.since,
                at: failure.at.wall,
                message: redact::text(&failure.message),
            });
            let repository = task.repository().map(str::to_owned);
            tasks.push((task.clone(), Task { kind, repository, last, due, is_running, failure }));
        }
        tasks
    }

    /// When the newest of what a task makes was made, whoever made it.
    fn made(&self, task: &daemon::Task) -> Option<Timestamp> {
        let catalog = self.sources.catalog?;
        match task {
            daemon::Task::Backup { project, repository, .. } => {
                let (_, backup) = catalog.newest_backup(project, Some(repository)).ok()??;
                Some(backup.time)
            }
            daemon::Task::Snapshot { project, .. } => {
                let of = self.records.iter().filter(|record| record.project.as_ref() == Some(project));
                of.filter(|record| record.handle.is_some()).map(|record| record.created).max()
            }
            daemon::Task::Check { repository, .. } => checked(catalog, repository),
            daemon::Task::Expire => None,
        }
    }

    fn guard(&self, guard: &Guard, project: &Project) -> Option<facts::Guard> {
        if !guard.is_open() || !project.paths.iter().any(|path| guard.touches(path)) {
            return None;
        }
        let phase = match guard.phase {
            Phase::Running => GuardPhase::Running,
            Phase::Waiting => GuardPhase::Waiting,
            Phase::RollingBack => GuardPhase::RollingBack,
            Phase::Ended { .. } => return None,
        };
        Some(facts::Guard {
            id: guard.id.to_string(),
            command: guard.command.clone(),
            phase,
            remaining_secs: guard.remaining(&self.sources.now).map(|left| left.as_secs()),
            is_unwatched: guard.is_unwatched(),
        })
    }

    fn snapshots(&self, project: &Project) -> Snapshots {
        let providers: Vec<Option<Box<dyn Provider>>> = project.paths.iter().map(|path| self.provider(path)).collect();
        let covering: Vec<Vec<&Record>> = project
            .paths
            .iter()
            .zip(&providers)
            .map(|(path, provider)| self.covering(path, provider.as_deref()))
            .collect();
        let mut all: BTreeMap<_, &Record> = BTreeMap::new();
        for record in covering.iter().flatten() {
            all.insert(record.id, *record);
        }
        let is_restore_point = |record: &&&Record| record.purpose.is_a_point_to_return_to();
        // The project is as old as the oldest of its parts.
        let newest_of =
            |records: &Vec<&Record>| records.iter().filter(is_restore_point).map(|record| record.created).max();
        let newest: Option<Vec<Timestamp>> = covering.iter().map(newest_of).collect();
        let mechanism =
            providers.iter().map(|provider| provider.as_deref().map(Provider::kind)).collect::<Option<Vec<_>>>();
        let expiring = all.values().filter(|record| !record.is_held).filter_map(|record| record.expires);
        Snapshots {
            mechanism: mechanism.and_then(|kinds| kinds.first().copied()),
            kept: all.len(),
            newest: newest.and_then(|times| times.into_iter().min()),
            next_expires: expiring.min(),
            growth: all.values().min_by_key(|record| record.created).and_then(|oldest| self.growth(oldest)),
        }
    }

    fn provider(&self, path: &Path) -> Option<Box<dyn Provider>> {
        let path = path.canonicalize().ok()?;
        let runner = || Arc::clone(&self.sources.runner);
        let found = detect::enclosing(&path, &self.mounts, runner());
        found.or_else(|_| detect::provider(&path, &self.mounts, runner())).ok()
    }

    /// Finished snapshots that have a path in them: of a directory above it, but not above the subvolume or the mount
    /// that it lies in.
    fn covering(&self, path: &Path, provider: Option<&dyn Provider>) -> Vec<&Record> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mount = mounts::mount_of(&self.mounts, &path).map(|mount| mount.point.as_path());
        let highest = provider.map(Provider::directory).filter(|highest| path.starts_with(highest)).or(mount);
        let covers = |record: &&Record| {
            record.handle.is_some()
                && path.starts_with(&record.directory)
                && highest.is_none_or(|highest| record.directory.starts_with(highest))
        };
        self.records.iter().filter(covers).collect()
    }

    fn growth(&self, oldest: &Record) -> Option<Growth> {
        let handle = oldest.handle.as_ref()?;
        let space = (self.sources.open)(&oldest.directory, handle).ok()?.space(handle).ok()?;
        Some(Growth { bytes: space.grown?, since: oldest.created })
    }

    fn repository(&mut self, project: &Project, repository: &Repository, places: &[Place]) -> facts::Repository {
        let name = &repository.name;
        let catalog = self.sources.catalog;
        let mut or_unseen = |error: crate::catalog::Error| self.unseen.push(error.to_string());
        let backups = catalog.map(|catalog| catalog.backups(Some(&project.name), Some(name)));
        let backups = backups.and_then(|found| found.map_err(&mut or_unseen).ok()).unwrap_or_default();
        let newest = backups.iter().map(|(_, backup)| backup).max_by_key(|backup| backup.time);
        let lacks = newest.filter(|newest| newest.is_incomplete()).map(|newest| self.lacks(project, name, newest));
        let newest = newest.map(|newest| newest.time);
        let size = catalog.and_then(|catalog| catalog.sizes(name, Timestamp::MIN).ok()?.last().copied());
        let seen = catalog.and_then(|catalog| {
            catalog.repositories().ok()?.into_iter().find(|known| known.name == *name).and_then(|known| known.seen)
        });
        let unreachable = unreachable(repository, seen.max(newest));
        let (place, missing) = self.place_of(repository, unreachable.as_ref());
        let relation = match missing {
            Some(doubt) => Relation { nearness: Nearness::SameDisk, doubt: Some(doubt) },
            None => Place::nearest_of(places, &place),
        };
        facts::Repository {
            name: name.clone(),
            url: redact::text(&repository.url),
            arguments: arguments(repository),
            relation,
            is_in_memory: place.is_in_memory,
            exposure: match (repository.offline, repository.append_only) {
                (true, _) => facts::Exposure::Offline,
                (false, true) => facts::Exposure::AppendOnly,
                (false, false) => facts::Exposure::Full,
            },
            backups: backups.len() as u64,
            newest,
            lacks,
            size_bytes: size.map(|size| size.bytes),
            checked: catalog.and_then(|catalog| checked(catalog, name)),
            is_unlisted: seen.is_none() && backups.is_empty() && unreachable.is_none() && has_backups(repository),
            unreachable,
        }
    }

    /// Why a backup is incomplete, if the job that made it is known.
    fn lacks(&self, project: &Project, repository: &str, backup: &KnownBackup) -> String {
        let task =
            catalog::Task { kind: Some(JobKind::Backup), project: Some(&project.name), repository: Some(repository) };
        let jobs = self.sources.catalog.and_then(|catalog| catalog.jobs(task, 20).ok()).unwrap_or_default();
        let ids = [Some(backup.id), backup.original].map(|id| id.map(|id| id.to_string()));
        let ends = jobs.into_iter().filter_map(|job| job.end);
        let made = ends.into_iter().find(|end| end.point.is_some() && ids.contains(&end.point));
        let error = made.and_then(|end| end.error);
        error.map_or_else(|| "a dump of a database".to_owned(), |error| redact::text(&error))
    }

    /// Where a repository lies, and what is said where that cannot be found out because it is not there. A disk that is
    /// not plugged in leaves an empty directory, which lies elsewhere: then what was last known counts. One that never
    /// was will lie where its directory does.
    fn place_of(&self, repository: &Repository, unreachable: Option<&Unreachable>) -> (Place, Option<String>) {
        let Repository { name, url, .. } = repository;
        let (catalog, now) = (self.sources.catalog, || Place::of_repository(url, self.sources.system));
        let known = catalog.and_then(|catalog| catalog.place(name).ok()?);
        match (unreachable, known) {
            (None, _) => {
                let place = now();
                if let Some(catalog) = catalog {
                    // What cannot be written down now is next time.
                    let _ = catalog.record_place(name, &place);
                }
                (place, None)
            }
            (Some(_), Some(known)) => (known, None),
            (Some(Unreachable { is_new: true, .. }), None) => (now(), None),
            (Some(_), None) => {
                let doubt = format!("{name} is not there, so nobody can see where it lies");
                (Place::unknown("it is not there"), Some(doubt))
            }
        }
    }
}

fn checked(catalog: &Catalog, repository: &str) -> Option<Timestamp> {
    let verifications = catalog.verifications(repository).ok()?;
    verifications.iter().filter(|verification| verification.is_good).map(|verification| verification.at).max()
}

/// Whether a directory has backups in it, of whatever.
fn has_backups(repository: &Repository) -> bool {
    let directory = repositories::local_directory(&repository.url).map(|directory| directory.join("snapshots"));
    directory.and_then(|directory| std::fs::read_dir(directory).ok()?.next()).is_some()
}

/// What a command takes to be about a repository. Of a password only where it is found, and only where that is a file.
fn arguments(repository: &Repository) -> String {
    let quoted = |text: &str| {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:@+=,".contains(letter);
        if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
    };
    let url = quoted(&redact::text(&repository.url));
    match &repository.password {
        PasswordSource::File(path) => format!("-r {url} --password-file {}", quoted(&path.to_string_lossy())),
        _ => format!("-r {url}"),
    }
}

/// A directory can be looked at without opening the repository; of others the failures of the runs tell.
fn unreachable(repository: &Repository, last_seen: Option<Timestamp>) -> Option<Unreachable> {
    let directory = repositories::local_directory(&repository.url)?;
    let reason = match std::fs::symlink_metadata(directory.join("config")) {
        Ok(_) => return None,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match directory.exists() {
            true => format!("there is no repository in {}", directory.display()),
            false => format!("{} does not exist", directory.display()),
        },
        Err(error) => format!("{}: {error}", directory.display()),
    };
    Some(Unreachable { since: last_seen, reason, is_new: last_seen.is_none() })
}
