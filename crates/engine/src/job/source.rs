//! Where a project's files are read: from snapshots of all its volumes, taken together, or as they are.
//!
//! Invariant: paths in a backup are the project's own, wherever they are read. The snapshots are there and can be looked
//! at until the source is dropped; they are deleted by [`Source::discard`], unless they stay as somebody's base. If the
//! process dies before, the next job of the project finds and deletes them ([`sweep`]): they bear its name and purpose.

use std::path::{Path, PathBuf};

use backup::archive::Elsewhere;
use backup::attributes::Moment;
use jiff::{SignedDuration, Timestamp};
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::manage::{self, Request};
use snapshot::provider::{Open, Provider, View};
use snapshot::record::{Purpose, Record};
use snapshot::state::{Lock, State};

use super::survey::{Place, Survey};
use crate::config::Project;
use crate::database::held::{self, Around, InSnapshot};

/// How long a snapshot for a backup lives if nobody deletes it: its process was killed, and the project's next job
/// never came.
const AT_MOST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Where a project's files are read.
pub(super) struct Source {
    pub(super) survey: Survey,
    volumes: Vec<Volume>,
}

/// A volume's snapshot, and where it can be looked at.
struct Volume {
    record: Record,
    at: PathBuf,
}

/// Keeps the snapshots in sight.
#[derive(Default)]
pub(super) struct Views(#[expect(dead_code, reason = "they are held, not used")] Vec<Box<dyn View>>);

impl Source {
    /// Takes the snapshots. Where one fails, or none can be had, all of the project is read as it is, and `told` hears
    /// why.
    pub(super) fn take(
        lock: &dyn Fn() -> Result<Lock, Error>,
        mut survey: Survey,
        project: &Project,
        now: Timestamp,
        told: &dyn Fn(&str),
    ) -> (Source, Views) {
        match snapshots(lock, &survey, project, now) {
            Ok((volumes, views)) => {
                let around = volumes.first().map(|first| Around::of(&first.record)).unwrap_or_default();
                // Of those that lie elsewhere, the backup has dumps.
                let inside = around.databases.iter().filter(|database| database.is_inside());
                inside.filter_map(InSnapshot::warning).for_each(|warning| told(&warning));
                (Source { survey, volumes }, views)
            }
            Err(error) => {
                let way_out = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                let name = &project.name;
                told(&format!("{name} is read as it is, and not from a snapshot: {error}{way_out}"));
                survey.volumes.clear();
                let as_it_is = |path| (path, Error::refused("the snapshot failed"));
                survey.live.extend(survey.places.drain(..).map(|place| as_it_is(place.path)));
                (Source { survey, volumes: Vec::new() }, Views::default())
            }
        }
    }

    /// Whether some of it is read as it is.
    pub(super) fn is_live(&self) -> bool {
        !self.survey.live.is_empty()
    }

    /// The snapshots' records, by volume.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.volumes.iter().map(|volume| &volume.record)
    }

    /// Whether the next backup can be told what changed since these snapshots.
    pub(super) fn can_be_base(&self) -> bool {
        !self.volumes.is_empty() && self.survey.volumes.iter().all(|provider| provider.tells_dirty_paths())
    }

    /// When copying was begun, of a snapshot that is a copy of each file and not of one moment.
    fn copied(&self, volume: usize) -> Option<Moment> {
        let created = self.volumes[volume].record.created;
        let is_copy = !self.survey.volumes[volume].abilities().is_atomic;
        is_copy.then(|| Moment { secs: created.as_second(), nanos: 0 })
    }

    /// Which directories are read somewhere else.
    pub(super) fn elsewhere(&self) -> Vec<Elsewhere> {
        let place = |place: &Place| Elsewhere {
            path: place.path.clone(),
            at: join(&self.volumes[place.volume].at, &place.below),
            copied: self.copied(place.volume),
        };
        let mut list: Vec<Elsewhere> = self.survey.places.iter().map(place).collect();
        // What is read as it is, and lies below what is not.
        for (path, _) in &self.survey.live {
            let is_below = list.iter().any(|other| path != &other.path && path.starts_with(&other.path));
            if is_below && path.is_dir() {
                list.push(Elsewhere { path: path.clone(), at: path.clone(), copied: None });
            }
        }
        list
    }
}

fn snapshots(
    lock: &dyn Fn() -> Result<Lock, Error>,
    survey: &Survey,
    project: &Project,
    now: Timestamp,
) -> Result<(Vec<Volume>, Views), Error> {
    if survey.volumes.is_empty() {
        return Ok((Vec::new(), Views::default()));
    }
    let providers: Vec<&dyn Provider> = survey.volumes.iter().map(|provider| &**provider).collect();
    let name = &project.name;
    let expires = now.checked_add(AT_MOST).ok();
    let note = format!("for a backup of {name}");
    let request = Request { note, expires, is_held: false, purpose: Purpose::Backup };
    let (lock, records) = held::around(Some(project), &providers, |around| {
        let lock = lock()?;
        let records = manage::create_together(&lock, &providers, name, &request, now, around)?;
        Ok::<_, Error>((lock, records))
    })?;
    let view = |(provider, record): (&&dyn Provider, &Record)| {
        provider.view(record.handle.as_ref().expect("a snapshot that was made has a handle"))
    };
    let views: Result<Vec<_>, Error> = providers.iter().zip(&records).map(view).collect();
    match views {
        Ok(views) => {
            let at = views.iter().map(|view| view.path().to_owned());
            let volumes = records.into_iter().zip(at).map(|(record, at)| Volume { record, at }).collect();
            Ok((volumes, Views(views)))
        }
        Err(error) => {
            for (provider, record) in providers.iter().zip(&records) {
                // What stays is found by the next job.
                let _ = manage::delete(&lock, *provider, record.id);
            }
            Err(error)
        }
    }
}

/// Makes snapshots stay until they are deleted.
pub(super) fn keep(lock: &Lock, snapshots: &[Id]) -> Result<(), Error> {
    snapshots.iter().try_for_each(|id| match lock.state().record(*id)? {
        Record { expires: None, .. } => Ok(()),
        record => lock.state().save(&Record { expires: None, ..record }),
    })
}

/// Deletes the snapshots that earlier jobs of the project left, but for those that are `kept`. Whoever calls holds the
/// project's lock, so nobody reads from them any more. What cannot be deleted is told, and stays for the next time.
pub(super) fn sweep(
    lock: &Lock,
    project: &str,
    kept: &[Id],
    open: &Open<'_>,
    told: &dyn Fn(&str),
) -> Result<(), Error> {
    for record in left(lock.state(), project)? {
        if kept.contains(&record.id) || record.is_held {
            continue;
        }
        let deleted = match &record.handle {
            Some(handle) => open(&record.directory, handle)
                .and_then(|provider| manage::delete(lock, &*provider, record.id).map(drop)),
            // It is removed by the next snapshot of its directory.
            None => Ok(()),
        };
        if let Err(error) = deleted {
            let Record { id, directory, .. } = &record;
            told(&format!("snapshot {id} of {}, which is needed no more, stays: {error}", directory.display()));
        }
    }
    Ok(())
}

fn left(state: &State, project: &str) -> Result<Vec<Record>, Error> {
    let mut records = state.records()?;
    records.retain(|record| record.purpose == Purpose::Backup && record.project.as_deref() == Some(project));
    Ok(records)
}

/// Patterns that leave out what is in directories, and not the directories.
pub(super) fn contents_of(directories: &[PathBuf]) -> Vec<String> {
    directories.iter().map(|directory| format!("{}/*", escaped(directory))).collect()
}

/// `join("")` leaves a slash at the end.
pub(super) fn join(path: &Path, inside: &Path) -> PathBuf {
    if inside.as_os_str().is_empty() { path.to_owned() } else { path.join(inside) }
}

/// A path as a pattern that means it alone.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().trim_end_matches('/').chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}
