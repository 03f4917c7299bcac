//! What a project's paths consist of: volumes of which there are snapshots, and what can only be read as it is.
//!
//! A snapshot ends where a volume ends: what is mounted below, and a subvolume in a subvolume, looks like an empty
//! directory in it. So each of those is looked for and becomes a volume of its own, or is read live. Invariant: what a
//! walk of the live paths would find is in one of the places, or is told to be left out.
//!
//! Looks, and changes nothing.

use std::path::{Path, PathBuf};

use backup::patterns::Patterns;
use snapshot::error::Error;
use snapshot::mounts::{self, Mount};
use snapshot::provider::Provider;

use crate::config::Project;

/// File systems that the kernel or a service makes up: nothing in them could be brought back.
const MADE_UP: [&str; 22] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// All of a project.
pub(super) struct Survey {
    /// Of which snapshots are taken, each once.
    pub(super) volumes: Vec<Box<dyn Provider>>,
    /// Directories that lie on them.
    pub(super) places: Vec<Place>,
    /// What is read as it is, and why.
    pub(super) live: Vec<(PathBuf, Error)>,
    /// Where something is mounted that no backup needs, or that lies in the backup's own way.
    pub(super) left_out: Vec<PathBuf>,
}

/// A directory on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The path it is stored under.
    pub(super) path: PathBuf,
    /// Which volume.
    pub(super) volume: usize,
    /// Where on it, from its root.
    pub(super) below: PathBuf,
}

/// Finds the mechanism whose snapshots have a path in them.
pub(super) type Find<'a> = dyn Fn(&Path) -> Result<Box<dyn Provider>, Error> + 'a;

impl Survey {
    /// Looks at the paths, which are absolute.
    pub(super) fn of(project: &Project, mounts: &[Mount], exclude: &Patterns, find: &Find<'_>) -> Survey {
        let Project { paths, one_file_system, .. } = project;
        let survey = Survey { volumes: Vec::new(), places: Vec::new(), live: Vec::new(), left_out: Vec::new() };
        let mut surveying = Surveying { survey, mounts, exclude, find, one_file_system: *one_file_system };
        for path in paths {
            let is_below_another = paths.iter().any(|other| other != path && path.starts_with(other));
            if !is_below_another {
                surveying.path(path);
            }
        }
        surveying.survey
    }
}

struct Surveying<'a> {
    survey: Survey,
    mounts: &'a [Mount],
    exclude: &'a Patterns,
    find: &'a Find<'a>,
    /// What lies below on another one is not part of the project.
    one_file_system: bool,
}

impl Surveying<'_> {
    /// A path as it was asked for.
    fn path(&mut self, path: &Path) {
        let is_directory = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        // Of anything else its directory is read elsewhere, and of that only what was asked for.
        let directory = if is_directory { path } else { path.parent().unwrap_or(path) };
        match std::fs::canonicalize(directory) {
            Ok(real) => {
                self.directory(directory, &real);
                if is_directory && !self.one_file_system {
                    self.below(directory, &real);
                }
            }
            // The walk tells it, as it tells of every path that is not there.
            Err(error) => self.survey.live.push((path.to_owned(), Error::io("look at", path)(error))),
        }
    }

    /// A directory and its volume, and the subvolumes in it.
    fn directory(&mut self, path: &Path, real: &Path) {
        let found = (self.find)(real).and_then(|provider| Ok((provider.nested()?, provider)));
        let (nested, provider) = match found {
            Ok(found) => found,
            Err(error) => return self.survey.live.push((path.to_owned(), error)),
        };
        let root = provider.directory().to_owned();
        let Ok(below) = real.strip_prefix(&root) else { return };
        let known = self.survey.volumes.iter().position(|volume| volume.directory() == root);
        let volume = known.unwrap_or(self.survey.volumes.len());
        let place = Place { path: path.to_owned(), volume, below: below.to_owned() };
        if self.survey.places.contains(&place) {
            return;
        }
        self.survey.places.push(place);
        if known.is_none() {
            self.survey.volumes.push(provider);
        }
        let one_file_system = self.one_file_system;
        for part in nested.into_iter().filter(|_| !one_file_system) {
            let Ok(inside) = part.path.strip_prefix(below) else { continue };
            let (inner, real_inner) = (path.join(inside), real.join(inside));
            // What is mounted upon it hides it, and is looked at as a mount.
            if inside.as_os_str().is_empty() || self.is_excluded(&inner) || self.is_hidden(&real_inner, real) {
                continue;
            }
            if part.is_read_only {
                self.survey.left_out.push(inner);
            } else {
                self.directory(&inner, &real_inner);
            }
        }
    }

    /// What is mounted below a directory.
    fn below(&mut self, path: &Path, real: &Path) {
        let mut points: Vec<&Path> = mounts::below(self.mounts, real).map(|mount| &*mount.point).collect();
        points.sort_unstable();
        points.dedup();
        for point in points {
            let Ok(inside) = point.strip_prefix(real) else { continue };
            let inner = path.join(inside);
            let is_out = self.survey.left_out.iter().any(|out| inner.starts_with(out));
            if is_out || self.is_excluded(&inner) || !point.is_dir() {
                continue;
            }
            match mounts::on_top(self.mounts, point) {
                Some(mount) if MADE_UP.contains(&mount.kind.as_str()) => self.survey.left_out.push(inner),
                _ => self.directory(&inner, point),
            }
        }
    }

    /// Whether a mount lies upon a directory, or upon one between it and `above`.
    fn is_hidden(&self, directory: &Path, above: &Path) -> bool {
        let covers = |mount: &Mount| directory.starts_with(&mount.point) && !above.starts_with(&mount.point);
        self.mounts.iter().any(covers)
    }

    /// Whether a directory, or one above it, is left out by the project's own patterns.
    fn is_excluded(&self, directory: &Path) -> bool {
        self.exclude.matches(directory, true)
    }
}
