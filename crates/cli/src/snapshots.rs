//! From the arguments to the state directory of the snapshots, and to which one is meant.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use engine::config::Project;
use engine::guard::document::Guard;
use engine::nearest::nearest;
use engine::net::{Nets, Place};
use engine::rollback;
use jiff::Timestamp;
use snapshot::adopt::{Ended, Job};
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::{Handle, Kind, Provider, Space};
use snapshot::record::Record;
use snapshot::runner::System;
use snapshot::state::{Lock, State};
use snapshot::{detect, mounts};

use crate::configuration;
use crate::error::CommandError;
use crate::global::Global;
use crate::human;
use crate::open::holder;
use crate::output::{Output, printable};
use crate::signals;

/// The snapshots that this machine, or this user, knows of.
pub(crate) struct Session<'a> {
    pub(crate) state: State,
    /// The mechanisms of storages, and what stands in where there is none.
    pub(crate) nets: Nets,
    pub(crate) now: Timestamp,
    pub(crate) output: &'a Output,
}

impl<'a> Session<'a> {
    /// Opens the state directory.
    pub(crate) fn open(global: &Global, output: &'a Output) -> Result<Self> {
        let state = State::open(directory(global)?)?;
        let nets = Nets {
            place: place(&state, global),
            state: state.root().to_owned(),
            holder: holder(),
            time_zone: jiff::tz::TimeZone::system(),
            is_cancelled: Arc::new(signals::is_cancelled),
        };
        Ok(Session { state, nets, now: Timestamp::now(), output })
    }

    /// For whatever changes something: waits for others, and finishes or takes back what was cut short.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let lock = self.state.lock(&mut || self.tell_waiting())?;
        for recovered in rollback::recover(&lock, &self.opener())? {
            let directories = listed(&recovered.directories);
            let what = format!("a rollback of {directories} to {} was cut short", recovered.to);
            match recovered.ending {
                Ok(ending) => {
                    let now = if ending.is_finished { "it is finished now" } else { "it is taken back now" };
                    self.output.message(format_args!("{what}: {now}"));
                    if let Some(error) = ending.unstarted {
                        self.output.warning(error);
                    }
                }
                // It concerns this directory alone; what is asked for now may be about another.
                Err(error) => self.output.warning(format_args!("{what}, and cannot be gone on with: {error}")),
            }
        }
        self.recover_adoptions(&lock)?;
        for directory in snapshot::undo::recover(&lock)? {
            let directory = printable(&directory);
            self.output.message(format_args!("an undo in {directory} was cut short; do it once more to go on with it"));
        }
        Ok(lock)
    }

    /// How a guard goes back.
    pub(crate) fn roll_back(&self) -> impl Fn(&Guard) -> Result<Id, Error> + Sync {
        let (state, nets) = (self.state.clone(), self.nets.clone());
        move |guard| {
            let open = |directory: &Path, handle: &Handle| nets.reopen(directory, handle);
            rollback::take_back(&state, &open, &guard.snapshots(), &guard.services, guard.started, Timestamp::now())
        }
    }

    /// The mechanism with which a snapshot was made.
    pub(crate) fn reopen(&self, directory: &Path, handle: &Handle) -> Result<Box<dyn Provider>, Error> {
        self.nets.reopen(directory, handle)
    }

    /// As [`Session::reopen`], to be handed on.
    pub(crate) fn opener(&self) -> impl Fn(&Path, &Handle) -> Result<Box<dyn Provider>, Error> + '_ {
        |directory, handle| self.nets.reopen(directory, handle)
    }

    /// Says, before a snapshot is taken, that it will be none. The first may take minutes.
    pub(crate) fn warn_before(&self, provider: &dyn Provider) {
        if provider.kind() != Kind::Backup {
            return;
        }
        let directory = printable(provider.directory());
        let instant = match directory.as_str() {
            "/" => "a root file system on btrfs or a thin volume".to_owned(),
            _ => format!("`snapback adopt {directory}`"),
        };
        self.output.warning(format_args!(
            "no copy-on-write here: using a local backup as net; slower and not atomic; {instant} would make it instant"
        ));
    }

    /// Says what is particular about a snapshot that was taken.
    pub(crate) fn warn_after(&self, provider: &dyn Provider) {
        if !provider.abilities().is_atomic && provider.kind() != Kind::Backup {
            self.output
                .warning("the file system has no snapshots: files were cloned one after the other, not at one moment");
        }
    }

    /// The room that each takes, where it can be told.
    pub(crate) fn spaces(&self, records: &[Record]) -> Vec<Option<Space>> {
        let mut spaces = vec![None; records.len()];
        // All of one directory at once.
        let mut of_directories: BTreeMap<&Path, Vec<(usize, &Record, Handle)>> = BTreeMap::new();
        for (number, record) in records.iter().enumerate() {
            if let Some(handle) = record.handle.clone() {
                of_directories.entry(&record.directory).or_default().push((number, record, handle));
            }
        }
        for (directory, of_directory) in of_directories {
            // Of one directory there may be snapshots of several kinds.
            for same in of_directory.chunk_by(|(.., one), (.., other)| discriminant(one) == discriminant(other)) {
                let handles: Vec<Handle> = same.iter().map(|(.., handle)| handle.clone()).collect();
                let found = match self.reopen(directory, &handles[0]) {
                    Ok(provider) => provider.spaces(&handles),
                    Err(error) => {
                        self.output.warning(format_args!("snapshots of {}: {error}", printable(directory)));
                        continue;
                    }
                };
                for ((number, record, _), space) in same.iter().zip(found) {
                    match space {
                        Ok(space) => spaces[*number] = Some(space),
                        Err(error) => self.output.warning(format_args!("snapshot {}: {error}", record.id)),
                    }
                }
            }
        }
        spaces
    }

    fn recover_adoptions(&self, lock: &Lock) -> Result<()> {
        for recovered in engine::convert::recover(lock, &System)? {
            let now = if recovered.is_subvolume { "it is one now" } else { "it is as before" };
            let directory = printable(&recovered.directory);
            self.output.message(format_args!("making {directory} a subvolume was cut short: {now}"));
        }
        for job in Job::unfinished(&self.state)? {
            let directory = printable(&job.volume.directory);
            let what =
                format!("moving {directory} {} its volume was cut short", if job.is_back { "from" } else { "onto" });
            match job.settle(lock, &System, &mut |what| self.output.detail(what)) {
                Ok(Ended::Finished) => self.output.message(format_args!("{what}: it is finished now")),
                Ok(Ended::Reverted) => self.output.message(format_args!("{what}: it is taken back now")),
                Err(error) => self.output.warning(format_args!("{what}, and cannot be gone on with: {error}")),
            }
        }
        Ok(())
    }

    pub(crate) fn tell_waiting(&self) {
        self.output.message("waiting: another snapback is changing snapshots");
    }

    /// The finished snapshot that a text means.
    pub(crate) fn find(&self, text: &str) -> Result<(Record, Handle)> {
        let record = self.state.find(&text.to_ascii_lowercase(), None)?;
        match record.handle.clone() {
            Some(handle) => Ok((record, handle)),
            None => Err(Error::NoSuchSnapshot(text.to_owned()).into()),
        }
    }
}

/// A point in time to go back to.
pub(crate) struct Point {
    /// Snapshots of one directory each; the one that was named is the first.
    pub(crate) records: Vec<Record>,
    /// The project of which it is the newest, if one was named.
    pub(crate) project: Option<String>,
}

impl Session<'_> {
    /// The snapshot that a text means and what was taken together with it, or the newest point in time of the project
    /// of this name.
    pub(crate) fn find_point(&self, text: &str, global: &Global) -> Result<Point> {
        let found =
            self.find(text).and_then(|(record, _)| Ok(Point { records: self.together(record)?, project: None }));
        // A mistake in the configuration is no reason to leave a broken server as it is.
        let config = match configuration::load_if_any(global) {
            Ok(config) => config.unwrap_or_default(),
            Err(_) if found.is_ok() => return found,
            Err(error) => return Err(error),
        };
        let Some(project) = config.projects.get(text) else {
            let near = nearest(text, config.projects.keys().map(String::as_str));
            return match (found, near) {
                (Err(error), Some(near)) if matches!(error.downcast_ref(), Some(Error::NoSuchSnapshot(_))) => {
                    let error = CommandError::usage(format!("there is neither a snapshot nor a project {text:?}"));
                    Err(error.hint(near).into())
                }
                (found, _) => found,
            };
        };
        if let Ok(point) = found {
            let id = point.records[0].id;
            let error = CommandError::usage(format!("{text:?} is a project and the beginning of snapshot {id}"));
            return Err(error.hint("write the whole id, or latest").into());
        }
        Ok(Point { records: self.newest_of(project)?, project: Some(text.to_owned()) })
    }

    /// As [`Session::find_point`], for what is about one snapshot: the one that was named, or the project's first.
    pub(crate) fn find_or_newest(&self, text: &str, global: &Global) -> Result<(Record, Handle)> {
        let record = self.find_point(text, global)?.records.swap_remove(0);
        self.find(&record.id.to_string())
    }

    /// A snapshot, and those that were taken together with it.
    pub(crate) fn together(&self, record: Record) -> Result<Vec<Record>> {
        let mut all = vec![record];
        if all[0].group.is_some() {
            let is_other =
                |other: &Record| other.group == all[0].group && other.id != all[0].id && other.handle.is_some();
            let others: Vec<Record> = self.state.records()?.into_iter().filter(is_other).collect();
            all.extend(others);
        }
        Ok(all)
    }

    /// The newest snapshot of a project: of each of its directories one, all taken together.
    fn newest_of(&self, project: &Project) -> Result<Vec<Record>> {
        let mut directories = Vec::new();
        for path in &project.paths {
            let directory = path.canonicalize().map_err(Error::io("look at", path))?;
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        let none = || {
            let error = CommandError::new(format!("there is no snapshot of the project {}", project.name));
            error.hint(format!("snapback snapshot create {}", project.name))
        };
        if let [directory] = &directories[..] {
            return match self.state.find("latest", Some(directory)) {
                Err(Error::NoSuchSnapshot(_)) => Err(none().into()),
                found => Ok(vec![found?]),
            };
        }
        let is_one = |record: &Record| {
            let is_ours = record.project.as_ref() == Some(&project.name) && directories.contains(&record.directory);
            is_ours && record.handle.is_some() && record.purpose.is_a_point_to_return_to()
        };
        let records: Vec<Record> = self.state.records()?.into_iter().filter(is_one).collect();
        let newest = records.iter().rfind(|record| record.group.is_some()).ok_or_else(none)?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for directory in &directories {
            match records.iter().find(|record| record.group == newest.group && record.directory == *directory) {
                Some(record) => found.push(record.clone()),
                None => missing.push(directory.clone()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        // Half of a project from one moment and half from another is worse than either.
        let (at, id) = (human::age(self.now.as_second(), newest.created.as_second()), newest.id);
        let error = CommandError::new(format!(
            "the newest snapshot of the project, of {at}, has nothing of {}",
            listed(&missing)
        ));
        Err(error.hint(format!("{id} is the others': snapback rollback {id}")).into())
    }

    /// The mechanisms for directories of which there may be no snapshots yet, each once.
    pub(crate) fn providers(&self, nets: &Nets, directories: &[PathBuf]) -> Result<Vec<Box<dyn Provider>>, Error> {
        let mut providers: Vec<Box<dyn Provider>> = Vec::new();
        for directory in directories {
            let provider = nets.provider(directory)?;
            if !providers.iter().any(|known| known.directory() == provider.directory()) {
                providers.push(provider);
            }
        }
        Ok(providers)
    }
}

/// Directories, for people to read.
pub(crate) fn listed(directories: &[PathBuf]) -> String {
    directories.iter().map(|directory| printable(directory)).collect::<Vec<_>>().join(" and ")
}

/// The storage's own mechanism for a directory of which there may be no snapshot yet.
pub(crate) fn provider_of(directory: &Path) -> Result<Box<dyn Provider>, Error> {
    let directory = directory.canonicalize().map_err(Error::io("look at", directory))?;
    detect::provider(&directory, &mounts::mounts()?, Arc::new(System))
}

/// Where nets are kept. With a configuration that cannot be read, where they are by default: a mistake in it must not
/// stop a rollback.
fn place(state: &State, global: &Global) -> Place {
    let config = configuration::load_if_any(global).ok().flatten();
    match config.and_then(|config| config.net_directory) {
        Some(directory) => Place::in_directory(&directory, state.root()),
        None => Place::in_state(state.root()),
    }
}

/// `--state-dir`; else where the system keeps such things, for all or for the user.
fn directory(global: &Global) -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let found = match &global.state_dir {
        Some(given) => return Ok(std::path::absolute(given)?),
        None if rustix::process::geteuid().is_root() => Some(PathBuf::from("/var/lib/snapback")),
        None => absolute("XDG_STATE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".local/state")))
            .map(|states| states.join("snapback")),
    };
    let error = || CommandError::usage("HOME is not set").hint("give --state-dir, or set SNAPBACK_STATE_DIRECTORY");
    Ok(found.ok_or_else(error)?)
}
