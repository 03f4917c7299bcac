//! How snapshots take a database's files: all in one moment, one after the other, or not.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use snapshot::provider::Provider;
use workload::quiesce::{Files, Layout};

/// A directory of which there will be a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume<'a> {
    pub(super) directory: &'a Path,
    /// Whether all of its files are of the same moment.
    pub(super) is_atomic: bool,
}

impl<'a> Volume<'a> {
    pub(super) fn of(provider: &'a dyn Provider) -> Volume<'a> {
        Volume { directory: provider.directory(), is_atomic: provider.abilities().is_atomic }
    }

    /// Whether a path is in the snapshot: below the directory, and not in a mount or subvolume of its own there.
    fn holds(&self, path: &Path) -> bool {
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
        path.starts_with(self.directory) && device(path).is_some() && device(path) == device(self.directory)
    }
}

/// The volume that a path lies on.
pub(super) fn volume<'v, 'a>(path: &Path, volumes: &'v [Volume<'a>]) -> Option<&'v Volume<'a>> {
    // The innermost, where one lies below another.
    let on = volumes.iter().filter(|volume| volume.holds(path));
    on.max_by_key(|volume| volume.directory.components().count())
}

/// The volumes of a database's files; `None` if one of the files lies on none.
fn all<'v, 'a>(files: &Files, volumes: &'v [Volume<'a>]) -> Option<Vec<&'v Volume<'a>>> {
    std::iter::once(&files.directory).chain(&files.others).map(|path| volume(path, volumes)).collect()
}

/// How snapshots of these volumes, taken together, take the files.
pub(super) fn of(files: &Files, volumes: &[Volume<'_>]) -> Layout {
    match all(files, volumes).as_deref() {
        Some([first, others @ ..])
            if first.is_atomic && others.iter().all(|other| other.directory == first.directory) =>
        {
            Layout::OneMoment
        }
        Some(_) => Layout::Several,
        None => Layout::Outside,
    }
}

/// Whether some of the files are copied one after the other.
pub(super) fn is_copied(files: &Files, volumes: &[Volume<'_>]) -> bool {
    all(files, volumes).is_some_and(|on| on.iter().any(|volume| !volume.is_atomic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_of_one_moment_only_where_one_snapshot_has_all_of_them_at_once() {
        let place = tempfile::tempdir().unwrap();
        let [data, log] = ["data", "log"].map(|name| place.path().join(name));
        for path in [&data, &log] {
            std::fs::create_dir_all(path.join("pg")).unwrap();
        }
        let files = |directory: &Path, others: &[&Path]| Files {
            server: String::new(),
            directory: directory.join("pg"),
            others: others.iter().map(|path| path.join("pg")).collect(),
            log: None,
        };
        let volume = |directory, is_atomic| Volume { directory, is_atomic };
        let (both, one, two) = (volume(place.path(), true), volume(&data, true), volume(&log, true));
        assert_eq!(of(&files(&data, &[&log]), &[both]), Layout::OneMoment);
        assert_eq!(of(&files(&data, &[&log]), &[one, two]), Layout::Several);
        assert_eq!(of(&files(&data, &[&log]), &[one]), Layout::Outside);
        assert_eq!(of(&files(&data, &[]), &[one, two]), Layout::OneMoment);
        assert_eq!(of(&files(&data, &[]), &[volume(&data, false)]), Layout::Several);
        assert_eq!(of(&files(Path::new("/proc"), &[]), &[volume(Path::new("/"), true)]), Layout::Outside);
    }
}
