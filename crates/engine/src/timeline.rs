//! All points in time that a project can go back to, snapshots and backups in all repositories, as one line.
//!
//! Invariant: what is on the line was seen. Where a repository cannot be looked at now, its backups are those that the
//! catalog saw last, and [`View`] says when that was; where there is no catalog either, that is said, and nothing is
//! shown for it. Nothing that fails here hides the rest.
//!
//! Does not know how a point is shown, nor how one goes back to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use snapshot::id::Id;
use snapshot::provider::Space;
use snapshot::record::Record;
use snapshot::state::State;

use crate::catalog::{self, Catalog, KnownBackup, Recorder, Source, Verified};

/// The tag of backups that lack some of the files.

/// Whose points are meant.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The project's name.
    pub name: &'a str,
    /// What it consists of.
    pub paths: &'a [PathBuf],
}

/// A point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// When it is of.
    pub time: Timestamp,
    /// What and where it is.
    pub net: Net,
}

/// In which net a point is.
#[derive(Clone, Debug, PartialEq)]
pub enum Net {
    /// On the same disk.
    Snapshot {
        /// One for each directory; those of one moment are one point. Never empty.
        records: Vec<Record>,
        /// What they take together, if that is known of all of them.
        space: Option<Space>,
    },
    /// In a repository.
    Backup {
        /// Its name in the configuration.
        repository: String,
        /// What its record says.
        backup: Box<KnownBackup>,
        /// Whether it was seen to be restorable.
        verified: Verified,
        /// Whether some of the files could not be read.
        is_incomplete: bool,
    },
}

/// As of when a repository is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// It was looked at.
    Now,
    /// As the catalog knows it.
    AsOf {
        /// When it was last looked at.
        time: Timestamp,
        /// Why not now; `None` if that was not wanted.
        reason: Option<String>,
    },
    /// Nothing is known.
    Unknown {
        /// Why it could not be looked at; `None` if that was not wanted.
        reason: Option<String>,
    },
}

/// The line.
#[derive(Debug)]
pub struct Timeline {
    /// Newest first.
    pub points: Vec<Point>,
    /// How each repository was seen, in the order they were given.
    pub repositories: Vec<(String, View)>,
    /// What could not be read, in words.
    pub problems: Vec<String>,
}

/// How the line is put together.
pub struct Request<'a> {
    /// Of whom.
    pub subject: Subject<'a>,
    /// The repositories.
    pub sources: &'a [Source<'a>],
    /// Whether repositories are looked at, or only the catalog.
    pub is_offline: bool,
    /// What snapshots take, in the order they are given.
    pub spaces: &'a dyn Fn(&[Record]) -> Vec<Option<Space>>,
}

impl Timeline {
    /// Looks at everything, and tells the catalog what was seen.
    pub fn gather(request: &Request<'_>, state: &State, recorder: &Recorder<'_>, now: Timestamp) -> Timeline {
        let mut line = Timeline { points: Vec::new(), repositories: Vec::new(), problems: Vec::new() };
        line.add_snapshots(request, state, recorder);
        for source in request.sources {
            line.add_repository(request, source, recorder, now);
        }
        line.points.sort_by_key(|point| Reverse((point.time, point.id())));
        line
    }

    fn add_snapshots(&mut self, request: &Request<'_>, state: &State, recorder: &Recorder<'_>) {
        let mut records = state.records().unwrap_or_else(|error| {
            self.problems.push(format!("{error}; snapshots are shown as the catalog knows them"));
            recorder.note(Catalog::snapshots).unwrap_or_default()
        });
        recorder.note(|catalog| catalog.sync(state));
        // One without a handle is being made, or was never finished.
        records.retain(|record| record.handle.is_some() && request.subject.has_snapshot(record));
        let spaces = (request.spaces)(&records);
        let mut groups: BTreeMap<Id, Vec<(Record, Option<Space>)>> = BTreeMap::new();
        for (record, space) in records.into_iter().zip(spaces) {
            groups.entry(record.group.unwrap_or(record.id)).or_default().push((record, space));
        }
        for members in groups.into_values() {
            let (records, spaces): (Vec<Record>, Vec<Option<Space>>) = members.into_iter().unzip();
            let time = records.iter().map(|record| record.created).min().unwrap_or_default();
            self.points.push(Point { time, net: Net::Snapshot { records, space: sum(&spaces) } });
        }
    }

    fn add_repository(&mut self, request: &Request<'_>, source: &Source<'_>, recorder: &Recorder<'_>, now: Timestamp) {
        recorder.note(|catalog| catalog.record_repository(source.name, source.url));
        let looked = if request.is_offline { Err(None) } else { self.look(source, recorder, now).map_err(Some) };
        let (backups, view) = match looked {
            Ok(backups) => (backups, View::Now),
            Err(reason) => known(source.name, reason, recorder),
        };
        self.repositories.push((source.name.to_owned(), view));
        let verifications = recorder.note(|catalog| catalog.verifications(source.name)).unwrap_or_default();
        let incomplete = recorder.note(|catalog| catalog.incomplete_points(source.name)).unwrap_or_default();
        for backup in backups {
            if backup.project() != Some(request.subject.name) {
                continue;
            }
            let verified = Verified::of(&backup, &verifications);
            let is_incomplete = is_incomplete(&backup, &incomplete);
            let repository = source.name.to_owned();
            let time = backup.time;
            self.points.push(Point {
                time,
                net: Net::Backup { repository, backup: Box::new(backup), verified, is_incomplete },
            });
        }
    }

    fn look(
        &mut self,
        source: &Source<'_>,
        recorder: &Recorder<'_>,
        now: Timestamp,
    ) -> Result<Vec<KnownBackup>, String> {
        let repository = (source.open)()?;
        let listing = recorder.note(|catalog| catalog.begin_listing(source.name));
        let (backups, damaged) = catalog::list(&repository)?;
        self.problems.extend(damaged.iter().map(|error| format!("{}: {error}", source.name)));
        if let Some(listing) = listing {
            recorder.note(|catalog| catalog.end_listing(&listing, &backups, now));
        }
        Ok(backups)
    }
}

/// What the catalog knows of a repository.
fn known(name: &str, reason: Option<String>, recorder: &Recorder<'_>) -> (Vec<KnownBackup>, View) {
    let backups = recorder.note(|catalog| catalog.backups(None, Some(name))).unwrap_or_default();
    let backups: Vec<KnownBackup> = backups.into_iter().map(|(_, backup)| backup).collect();
    let repositories = recorder.note(Catalog::repositories).unwrap_or_default();
    let seen = repositories.into_iter().find(|repository| repository.name == name).and_then(|found| found.seen);
    // One that was never listed is known by the backups that were made.
    match seen.max(backups.first().map(|backup| backup.time)) {
        Some(time) => (backups, View::AsOf { time, reason }),
        None => (backups, View::Unknown { reason }),
    }
}

/// Somebody may have changed its tags since, which gives it another id.
fn is_incomplete(backup: &KnownBackup, incomplete: &HashSet<String>) -> bool {
    let ids = [Some(backup.id), backup.original];
    backup.is_incomplete() || ids.into_iter().flatten().any(|id| incomplete.contains(&id.to_string()))
}

fn sum(spaces: &[Option<Space>]) -> Option<Space> {
    let add = |one: Option<u64>, other: Option<u64>| one.zip(other).map(|(one, other)| one.saturating_add(other));
    let mut spaces = spaces.iter().copied();
    let first = spaces.next()??;
    spaces.try_fold(first, |sum, space| {
        let space = space?;
        Some(Space { grown: add(sum.grown, space.grown), reclaimable: add(sum.reclaimable, space.reclaimable) })
    })
}

impl Subject<'_> {
    /// A snapshot that was made of a directory is of every project that has a part in it.
    fn has_snapshot(&self, record: &Record) -> bool {
        let touches = |path: &PathBuf| Path::starts_with(path, &record.directory) || record.directory.starts_with(path);
        match &record.project {
            Some(project) => project == self.name,
            None => self.paths.iter().any(touches),
        }
    }
}

impl Point {
    /// By which it is named: of several snapshots the first.
    pub fn id(&self) -> String {
        match &self.net {
            Net::Snapshot { records, .. } => records[0].id.to_string(),
            Net::Backup { backup, .. } => backup.id.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_one_is_not_known_of_all() {
        let space = |grown, reclaimable| Some(Space { grown, reclaimable });
        assert_eq!(sum(&[space(Some(1), Some(2))]), space(Some(1), Some(2)));
        assert_eq!(sum(&[space(Some(1), Some(2)), space(Some(3), None)]), space(Some(4), None));
        assert_eq!(sum(&[space(Some(1), Some(2)), None]), None);
        assert_eq!(sum(&[]), None);
    }
}
