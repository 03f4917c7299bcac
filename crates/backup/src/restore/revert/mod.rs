//! Making a live directory what a backup of it has, touching nothing but what differs.
//!
//! Three steps. [`compare`] looks at both sides and changes nothing: where inode, time of change, time of modification
//! and size are those the backup saw, nothing was done to a file since and it is not read. Then all that has to be made
//! is made in a directory of its own inside of the live one, and synced. Only then it is moved into place, each entry
//! by one rename. Invariant: until the first rename the live tree is as it was, so that a full disk or a damaged
//! repository changes nothing; a name that is in both is never missing, and never shows half a file; no file is ever
//! written to in place, so that a program that runs from it goes on. Doing it once more finishes what was cut short.
//!
//! Left as they are: what [`Options::spared`] matches, mounts with all below them, and sockets, which belong to whoever
//! listens. Does not know of what was cut short before, nor whether somebody wants it back.

mod compare;
mod equal;
mod place;
mod reach;
mod stage;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use repository::id::Id;
use repository::index::Index;
use repository::tree::{Node, Timestamp};
use repository::{Error, Repository};
use rustix::fs::{Mode, Timespec, Timestamps, futimens, mkdirat};
use rustix::io::Errno;

use self::compare::Act;
pub use self::compare::compare;
use crate::attributes::{Applier, AttributeError, Before, Entry, Stat};
use crate::patterns::Patterns;
use crate::progress::Progress;
use crate::restore::remove::{names, remove_all};

/// Room that must be left beside what is made, in bytes.
const ROOM_LEFT: u64 = 16 << 20;

/// The backup.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Where it lies.
    pub repository: &'a Repository,
    /// The repository's.
    pub index: &'a Index,
    /// Its root tree.
    pub tree: Id,
    /// Before any file was looked at. What changed at that time or later may have changed unseen after it was read.
    pub begun: Timestamp,
}

/// What is to be made as it was.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The live directory: absolute, without links, and called so in the backup.
    pub directory: &'a Path,
    /// Left as it is, by absolute path; what the backup has no idea of.
    pub spared: &'a Patterns,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Why the directory was not made as it was.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something stands against it.
    #[error("{0}")]
    Refused(String),
    /// There is no room for what has to be made beside the live files.
    #[error("{} needs {needed} bytes of room for a while, and has {free}", directory.display())]
    NoRoom {
        /// Where.
        directory: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] Error),
}

impl RevertError {
    fn io<E: Into<io::Error>>(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> RevertError {
        let path = path.as_ref().to_owned();
        move |source| RevertError::Io { action, path, source: source.into() }
    }

    /// The live tree changed while it was made as it was: what was there is gone. Looking once more helps.
    fn is_race(&self) -> bool {
        let RevertError::Io { source, .. } = self else { return false };
        let raced = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::EXIST, Errno::ISDIR];
        Errno::from_io_error(source).is_some_and(|error| raced.contains(&error))
    }
}

/// What differs, and how it is mended.
#[derive(Debug, Default)]
pub struct Plan {
    acts: Vec<Act>,
    /// What has to be made, each under its number.
    made: Vec<(u64, Node)>,
    /// Attributes of directories, those above before those below. The root's is apart.
    directories: Vec<(PathBuf, Node)>,
    /// `None` where the backup does not describe it: `/` itself.
    root: Option<Node>,
    is_root_different: bool,
    differences: Vec<Difference>,
    counts: Counts,
    bytes_to_make: u64,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Relative to the directory; empty for itself.
    pub path: PathBuf,
    /// All below it differs, too: it is in one of both alone.
    pub is_tree: bool,
}

/// What differs, in numbers. Directories are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files in both, of which content or attributes differ.
    pub changed: u64,
    /// Files that the backup does not have.
    pub added: u64,
    /// Files that the backup alone has.
    pub removed: u64,
    /// Bytes of the changed and the added ones, as they are now.
    pub bytes: u64,
}

impl Plan {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.acts.is_empty() && self.directories.is_empty() && !self.is_root_different
    }

    /// All that differs. What has other attributes only is among it.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// In numbers.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// How often it is looked once more, while others change the tree.
const TRIES: usize = 3;

/// Makes the directory what the backup has. `staging` is the name of a directory in it that is only needed meanwhile;
/// one that is left from a run that was cut short is removed first.
///
/// # Errors
/// Before something was moved into place, the directory is as it was; else it is to be done once more.
pub fn revert(source: Source<'_>, options: Options<'_>, staging: &str) -> Result<Counts, RevertError> {
    clean_up(options.directory, staging)?;
    let root = reach::root(options.directory)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let done = compare(source, options)
            .and_then(|plan| perform(source, options, &root, &plan, staging).map(|()| plan.counts));
        match done {
            Err(error) if error.is_race() && tries < TRIES => {}
            done => return done,
        }
    }
}

fn perform(
    source: Source<'_>,
    options: Options<'_>,
    root: &OwnedFd,
    plan: &Plan,
    staging: &str,
) -> Result<(), RevertError> {
    if plan.is_empty() {
        return Ok(());
    }
    let directory = options.directory;
    let before = Stat::of(root.as_fd()).map_err(RevertError::io("look at", directory))?;
    let free = rustix::fs::statvfs(directory).map_err(RevertError::io("look for free space under", directory))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if plan.bytes_to_make > 0 && free < plan.bytes_to_make.saturating_add(ROOM_LEFT) {
        let needed = plan.bytes_to_make.saturating_add(ROOM_LEFT);
        return Err(RevertError::NoRoom { directory: directory.to_owned(), needed, free });
    }
    let path = directory.join(staging);
    mkdirat(root, staging, Mode::RWXU).map_err(RevertError::io("create", &path))?;
    let done = stage_and_place(source, options, root, plan, staging);
    let removed = remove_staging(root, staging).map_err(RevertError::io("remove", &path));
    // Making the directory for staging changed the root's times.
    match (&plan.root, &done) {
        (Some(node), Ok(())) => {
            let entry = Entry { dir: root.as_fd(), name: b".", dir_path: directory };
            let report = &mut |error: AttributeError| options.progress.warning(&error.to_string());
            Applier::new().apply(entry, Some(root.as_fd()), node, &Before::changed(&before), report);
        }
        _ => {
            let time = Timespec { tv_sec: before.mtime.secs, tv_nsec: before.mtime.nanos.into() };
            let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
            let times = Timestamps { last_access: now, last_modification: time };
            futimens(root, &times).map_err(RevertError::io("set the times of", directory))?;
        }
    }
    done?;
    removed?;
    sync(root, directory)
}

fn stage_and_place(
    source: Source<'_>,
    options: Options<'_>,
    root: &OwnedFd,
    plan: &Plan,
    staging: &str,
) -> Result<(), RevertError> {
    let path = options.directory.join(staging);
    let made = reach::directory(root, Path::new(staging)).map_err(RevertError::io("open", &path))?;
    stage::stage(source, options, &path, &plan.made)?;
    if !plan.made.is_empty() {
        sync(root, options.directory)?;
    }
    place::place(options, root, &made, plan)
}

/// Threads that remove what was replaced: each waits while the storage takes blocks back.
const REMOVERS: usize = 4;

fn remove_staging(root: &OwnedFd, staging: &str) -> Result<(), Errno> {
    let open = reach::directory(root, Path::new(staging))?;
    let names = names(&open)?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..REMOVERS.min(names.len() / 16) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // What does not go is met once more below.
                    let _ = remove_all(&open, name);
                }
            });
        }
    });
    remove_all(root, staging.as_bytes()).map(drop)
}

fn sync(root: &OwnedFd, directory: &Path) -> Result<(), RevertError> {
    rustix::fs::syncfs(root).map_err(RevertError::io("sync the file system of", directory))
}

/// Removes what a run that was cut short left, if it did.
pub fn clean_up(directory: &Path, staging: &str) -> Result<(), RevertError> {
    match remove_all(&reach::root(directory)?, staging.as_bytes()) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(RevertError::io("remove", directory.join(staging))(error)),
    }
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().unwrap_or(OsStr::new(".")).as_bytes()
}

fn is_directory(stat: &Stat) -> bool {
    stat.mode & 0o170_000 == 0o040_000
}

fn is_socket(stat: &Stat) -> bool {
    stat.mode & 0o170_000 == 0o140_000
}
