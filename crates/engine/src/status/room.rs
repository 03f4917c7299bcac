//! How much room there is, now and in the weeks before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use policy::{Forecast, Sample, forecast};

use super::facts::{Filesystem, Project};
use super::gather::Sources;
use crate::catalog::{Catalog, Error};
use crate::config::Config;
use crate::place::System;
use crate::repositories;

/// Samples that are nearer to each other say nothing new.
const SAMPLE_EVERY: SignedDuration = SignedDuration::from_mins(30);
/// What was before says little about what comes.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(30 * 24);
/// A night of backups is no trend.
const LEAST: SignedDuration = SignedDuration::from_hours(2 * 24);

/// The file systems of projects and of local repositories, each once. Samples their free space.
pub(super) fn filesystems(sources: &Sources<'_>, projects: &[Project]) -> Vec<Filesystem> {
    let mut holds: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    let mut add = |path: &Path, name: &str| {
        let Some(point) = sources.system.mount_point(path) else { return };
        let names = holds.entry(point).or_default();
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    for project in projects {
        for path in &project.paths {
            add(path, &project.name);
        }
        for repository in project.repositories.iter().filter(|repository| repository.unreachable.is_none()) {
            let url = sources.config.repositories.get(&repository.name).map(|known| known.url.as_str());
            if let Some(directory) = url.and_then(repositories::local_directory) {
                add(directory, &repository.name);
            }
        }
    }
    holds.into_iter().filter_map(|(point, holds)| look(sources, point, holds)).collect()
}

/// Samples the free space of all that a configuration names: what the forecast is made of. It may be called as often as
/// one likes: only every half hour something is written.
pub fn sample(config: &Config, catalog: &Catalog, system: &System, now: Timestamp) {
    let repositories = config.repositories.values().filter_map(|known| repositories::local_directory(&known.url));
    let paths = config.projects.values().flat_map(|project| &project.paths).map(PathBuf::as_path);
    let points: BTreeSet<PathBuf> = paths.chain(repositories).filter_map(|path| system.mount_point(path)).collect();
    for point in points {
        if let Some((_, free)) = room(&point) {
            // What cannot be written down now is next time.
            let _ = samples(&point, Sample { at: now, free }, catalog);
        }
    }
}

fn look(sources: &Sources<'_>, point: PathBuf, holds: Vec<String>) -> Option<Filesystem> {
    let (total, free) = room(&point)?;
    let now = sources.now.wall;
    let sample = Sample { at: now, free };
    let samples = sources.catalog.and_then(|catalog| samples(&point, sample, catalog).ok());
    let forecast = samples.map_or(Forecast::Unknown, |samples| forecast(&samples, now, LEAST));
    Some(Filesystem { point, total, free, holds, forecast: Some(forecast) })
}

/// All samples, this one included, which is written down if it says something new.
fn samples(point: &Path, sample: Sample, catalog: &Catalog) -> Result<Vec<Sample>, Error> {
    let since = sample.at.checked_sub(LOOK_BACK).unwrap_or(Timestamp::MIN);
    let mut samples = catalog.room(point, since)?;
    if samples.last().is_none_or(|last| sample.at.duration_since(last.at).abs() >= SAMPLE_EVERY) {
        catalog.record_room(point, sample, since)?;
    }
    samples.push(sample);
    Ok(samples)
}

/// Size and free space in bytes; nothing of what has no size, such as sysfs.
fn room(point: &Path) -> Option<(u64, u64)> {
    let room = rustix::fs::statvfs(point).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
    Some((bytes(room.f_blocks), bytes(room.f_bavail))).filter(|(total, _)| *total > 0)
}
