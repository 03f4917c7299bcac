//! Bringing back single files and directories from a snapshot; the rest of the live tree stays.
//!
//! All that has to be made is made first, in a directory of its own inside of the live tree, and synced; only then is
//! it moved into place, each file by one rename. Invariant: until the first rename the live tree is as it was, so that
//! a full disk or a file that cannot be read changes nothing; after a crash between two renames each file is either
//! the live one or the snapshot's, whole, and doing it once more goes on from there.
//!
//! Extents are shared with the snapshot where the file system can. Hard links among what is brought back are kept.
//! What is equal already is left alone. Nested subvolumes and mounts are neither entered nor removed; a path never
//! leads through a symbolic link. Whoever wants to be able to go back makes a snapshot before.

mod place;
mod stage;

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::stage::Staged;
use crate::changes::STAGING;
use crate::error::Error;
use crate::id::Id;
use crate::journal::{self, Entry};
use crate::reflink::attributes::{Attributes, Place, look};
use crate::reflink::remove;
use crate::state::Lock;

const CHANGE: &str = "undo";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Relative to the directory; empty for all of it.
    pub paths: Vec<PathBuf>,
    /// Also removes what was added since inside of a directory that is brought back, and what of the paths themselves
    /// the snapshot does not have.
    pub removes_added: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Files, links, devices that were brought back, hard links counted each.
    pub brought_back: u64,
    /// Those that needed their attributes only.
    pub attributes: u64,
    /// Directories that were made.
    pub directories: u64,
    /// Those that were equal already.
    pub same: u64,
    /// Files and directories that were removed; what was below them is not counted.
    pub removed: u64,
}

/// Written down for the time it takes: the directory that a crash leaves.
#[derive(Debug, Serialize, Deserialize)]
struct Details {
    staging: String,
}

/// Brings back paths from a snapshot, of which `view` is the tree. `observe` is called before each act.
///
/// # Errors
/// Refused if a path is not in the snapshot, leads out of the directory or through a link, or belongs to another file
/// system. Until something was moved into place, an error leaves the directory as it was.
pub fn bring_back(
    lock: &Lock,
    directory: &Path,
    snapshot: Id,
    view: &Path,
    request: &Request,
    observe: &mut dyn FnMut(&str),
) -> Result<Totals, Error> {
    journal::refuse_if_switching(lock.state(), directory)?;
    clean_up(lock, Some(directory))?;
    let paths = outermost(&request.paths)?;
    let id = Id::random();
    let staging = format!("{STAGING}{id}");
    let live = open_root(directory)?;
    // Making the directory for staging changes the root's times, and is nobody's business.
    let root = Attributes::read(Place::Open(live.as_fd())).map_err(|failed| failed.at(directory))?;
    let entry = Entry {
        change: CHANGE.to_owned(),
        directories: vec![directory.to_owned()],
        snapshots: vec![snapshot],
        is_switching: false,
        details: Details { staging: staging.clone() },
    };
    observe("write the journal");
    journal::write(lock, id, &entry)?;
    let done = make(directory, &live, view, &staging, &paths, request.removes_added, observe);
    observe("remove what was only needed meanwhile");
    remove::tree(&directory.join(&staging))?;
    let root = match &done {
        Ok(staged) => staged.root_times(&root),
        Err(_) => Some(&root),
    };
    if let Some(root) = root {
        root.set_times(Place::Open(live.as_fd())).map_err(|failed| failed.at(directory))?;
    }
    observe("clear the journal");
    journal::clear(lock, id)?;
    done.map(|staged| staged.totals)
}

fn make(
    directory: &Path,
    live: &OwnedFd,
    view: &Path,
    staging: &str,
    paths: &BTreeSet<PathBuf>,
    removes_added: bool,
    observe: &mut dyn FnMut(&str),
) -> Result<Staged, Error> {
    let made = directory.join(staging);
    rustix::fs::mkdirat(live, staging, Mode::RWXU).map_err(Error::io("create", &made))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(live, staging, flags, Mode::empty()).map_err(Error::io("open", &made))?;
    let view_fd = open_root(view)?;
    observe("make what is brought back");
    let staged = stage::stage(stage::Trees::new(directory, live, view, &view_fd, &fd)?, paths, removes_added)?;
    rustix::fs::syncfs(&fd).map_err(Error::io("sync the file system of", directory))?;
    place::place(directory, live, &fd, &staged, observe)?;
    rustix::fs::syncfs(&fd).map_err(Error::io("sync the file system of", directory))?;
    Ok(staged)
}

/// Removes what undoings left that were cut short; gives their directories. What they had not brought back yet can be
/// brought back once more.
pub fn recover(lock: &Lock) -> Result<Vec<PathBuf>, Error> {
    clean_up(lock, None)
}

fn clean_up(lock: &Lock, directory: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
    let mut cleaned = Vec::new();
    for (id, entry) in journal::of::<Details>(lock.state(), CHANGE)? {
        if directory.is_none_or(|directory| entry.directories.iter().any(|of| of == directory)) {
            for directory in &entry.directories {
                remove::tree(&directory.join(&entry.details.staging))?;
            }
            journal::clear(lock, id)?;
            cleaned.extend(entry.directories);
        }
    }
    Ok(cleaned)
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

/// The paths without those below others; refuses those that are not plainly below the directory.
fn outermost(paths: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Error> {
    for path in paths {
        if !path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
            return Err(Error::refused(format!("{} does not lie plainly below the directory", path.display()))
                .or("give it relative to the directory, without .."));
        }
    }
    let normal = |path: &PathBuf| path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let all: BTreeSet<PathBuf> = paths.iter().map(normal).collect();
    let is_outermost = |path: &&PathBuf| !path.ancestors().skip(1).any(|above| all.contains(above));
    Ok(all.iter().filter(is_outermost).cloned().collect())
}

/// Whether a name is there, and is what it was.
fn exists(directory: &OwnedFd, name: &std::ffi::CStr) -> Result<Option<rustix::fs::Statx>, Errno> {
    match look(Place::Named(directory.as_fd(), name)) {
        Err(Errno::NOENT) => Ok(None),
        stat => stat.map(Some),
    }
}

/// Makes a further name for a file.
fn link(from: (&OwnedFd, &std::ffi::CStr), to: (&OwnedFd, &str)) -> Result<(), Errno> {
    rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty())
}
