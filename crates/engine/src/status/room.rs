//! How much room there is, now and in the weeks before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use policy::{Forecast, Sample, forecast};

use super::facts::{Filesystem, Project};
use super::gather::Sources;
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

fn look(sources: &Sources<'_>, point: PathBuf, holds: Vec<String>) -> Option<Filesystem> {
    let room = rustix::fs::statvfs(&point).ok()?;
    let total = room.f_blocks.saturating_mul(room.f_frsize);
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let now = sources.now.wall;
    let sample = Sample { at: now, free };
    let samples = sources.catalog.and_then(|catalog| {
        let since = now.checked_sub(LOOK_BACK).ok()?;
        let mut samples = catalog.room(&point, since).ok()?;
        if samples.last().is_none_or(|last| now.duration_since(last.at).abs() >= SAMPLE_EVERY) {
            // What cannot be written down now is next time.
            let _ = catalog.record_room(&point, sample, since);
        }
        samples.push(sample);
        Some(samples)
    });
    let forecast = samples.map_or(Forecast::Unknown, |samples| forecast(&samples, now, LEAST));
    (total > 0).then_some(Filesystem { point, total, free, holds, forecast: Some(forecast) })
}
