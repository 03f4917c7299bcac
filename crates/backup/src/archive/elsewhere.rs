//! Directories that are read in another place than the one they are stored under: `/srv/shop` from a snapshot of it.
//!
//! Invariant: the tree is the one that reading the directory's own path would have given, had it been as the other place
//! is. Names, patterns, the parent backup's entries and the numbers of file systems all go by the stored path; only
//! system calls go to the other place.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::archive::targets::Target;
use crate::attributes::Moment;

/// A directory that is read in another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Under which it is stored: absolute, without `.` and `..`. It may lie above a path of the backup, be one, or lie
    /// below one, as a nested subvolume that has a snapshot of its own.
    pub path: PathBuf,
    /// Where it is read; an absolute path to a directory.
    pub at: PathBuf,
    /// When its copying began, if what lies there has inodes of its own: a clone by reflink, and not a snapshot of a volume.
    pub copied: Option<Moment>,
}

/// All of a run, by the stored path.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_path: HashMap<PathBuf, Elsewhere>,
    /// Directories that have one of them as an entry.
    above: HashSet<PathBuf>,
    /// Whether nothing is read where it is stored.
    everything: bool,
}

impl Places {
    pub(super) fn new(list: &[Elsewhere], targets: &Target) -> Places {
        let by_path: HashMap<_, _> = list.iter().map(|place| (place.path.clone(), place.clone())).collect();
        let above = list.iter().filter_map(|place| place.path.parent()).map(Path::to_owned).collect();
        let everything = covers(&by_path, Path::new("/"), targets);
        Places { by_path, above, everything }
    }

    /// Where a directory is read, if it is somewhere else.
    pub(super) fn of(&self, path: &Path) -> Option<&Elsewhere> {
        if self.by_path.is_empty() { None } else { self.by_path.get(path) }
    }

    /// Whether an entry of this directory is somewhere else.
    pub(super) fn any_in(&self, directory: &Path) -> bool {
        !self.above.is_empty() && self.above.contains(directory)
    }

    /// As [`Places::of`], for an entry of a directory.
    pub(super) fn of_entry(&self, directory: &Path, name: &OsStr) -> Option<&Elsewhere> {
        self.of(&directory.join(name))
    }

    /// Whether a file system read elsewhere may bear the number of the one that is live there. Not where both are in one
    /// backup: an inode number that was given again since would make two files one.
    pub(super) fn stand_for_live(&self) -> bool {
        self.everything
    }
}

fn covers(places: &HashMap<PathBuf, Elsewhere>, path: &Path, target: &Target) -> bool {
    places.contains_key(path)
        || match target {
            Target::Whole => false,
            Target::Above(below) => below.iter().all(|(name, target)| covers(places, &path.join(name), target)),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::targets;

    fn places(list: &[&str], targets: &[&str]) -> Places {
        let list: Vec<_> =
            list.iter().map(|path| Elsewhere { path: path.into(), at: "/x".into(), copied: None }).collect();
        let targets: Vec<_> = targets.iter().map(PathBuf::from).collect();
        Places::new(&list, &targets::tree(&targets))
    }

    #[test]
    fn places_stand_for_the_live_file_systems_only_if_nothing_is_read_live() {
        assert!(places(&["/srv"], &["/srv/shop", "/srv/blog"]).stand_for_live());
        assert!(places(&["/srv/shop", "/srv/shop/db"], &["/srv/shop"]).stand_for_live());
        assert!(!places(&["/srv/shop"], &["/srv/shop", "/etc"]).stand_for_live());
        assert!(!places(&["/srv/shop/db"], &["/srv/shop"]).stand_for_live());
    }

    #[test]
    fn a_place_is_found_by_its_own_path_and_by_the_directory_it_is_in() {
        let places = places(&["/srv/shop"], &["/srv/shop"]);
        assert_eq!(places.of(Path::new("/srv/shop")).map(|place| &*place.at), Some(Path::new("/x")));
        assert_eq!(places.of(Path::new("/srv/shop/a")), None);
        assert!(places.any_in(Path::new("/srv")) && !places.any_in(Path::new("/srv/shop")));
    }
}
