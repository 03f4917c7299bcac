//! The walk over both trees at once, by many threads.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Dir, FileType, Mode, OFlags, Statx, StatxAttributes};
use rustix::io::Errno;

use super::compare::{self, Entry};
use super::{Change, Changes, Kind, What, is_ours};
use crate::error::Error;
use crate::provider::Changed;
use crate::reflink::attributes::{Place, look};
use crate::reflink::crew::{self, Crew};
use crate::reflink::descend;

/// Names that one thread takes at once.
const BATCH: usize = 256;

pub(super) fn walk(before: &Path, after: &Path, limited: Option<&[Changed]>) -> Result<Changes, Error> {
    let walk = Walk { sides: [Side::open(before)?, Side::open(after)?], found: Mutex::default() };
    // Nothing stops the walk, so its error is one that cannot be.
    let done: Result<(), std::convert::Infallible> = match limited {
        None => {
            walk.compare_roots();
            crew::run(Work::Directory(PathBuf::new()), |work, crew| {
                walk.perform(work, crew);
                Ok(())
            })
        }
        Some(limited) => crew::run(Work::Limited(by_directory(limited)), |work, crew| {
            walk.perform(work, crew);
            Ok(())
        }),
    };
    match done {
        Ok(()) => {}
    }
    let mut found = walk.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.list.sort();
    // The storage may have told of a directory and of what is in it.
    found.list.dedup();
    Ok(found)
}

/// One tree.
struct Side<'a> {
    path: &'a Path,
    fd: OwnedFd,
    device: (u32, u32),
}

impl Side<'_> {
    fn open(path: &Path) -> Result<Side<'_>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))?;
        let stat = look(Place::Open(fd.as_fd())).map_err(Error::io("look at", path))?;
        Ok(Side { path, fd, device: device(&stat) })
    }

    /// Whether something belongs to another file system: a nested subvolume or a mount.
    fn is_foreign(&self, stat: &Statx) -> bool {
        device(stat) != self.device || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    }
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

/// A directory in both trees; `None` where it is not, or is not a directory.
struct Pair {
    below: PathBuf,
    fds: [Option<OwnedFd>; 2],
}

/// A name, and whether all below it is to be compared too.
struct Name {
    name: CString,
    with_all_below: bool,
}

enum Work {
    Directory(PathBuf),
    Names(Arc<Pair>, Vec<Name>),
    Limited(BTreeMap<PathBuf, Vec<Name>>),
}

/// What the storage told, by the directory it is in.
fn by_directory(limited: &[Changed]) -> BTreeMap<PathBuf, Vec<Name>> {
    let mut directories: BTreeMap<PathBuf, Vec<Name>> = BTreeMap::new();
    let is_foreign = |path: &Path| path.iter().any(|name| is_ours(name.as_bytes()));
    for Changed { path, is_tree } in limited.iter().filter(|changed| !is_foreign(&changed.path)) {
        let (parent, name) = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => (parent, name.as_bytes()),
            // The root itself.
            _ => (Path::new(""), &b"."[..]),
        };
        let Ok(name) = CString::new(name) else { continue };
        directories.entry(parent.to_owned()).or_default().push(Name { name, with_all_below: *is_tree });
    }
    directories
}

struct Walk<'a> {
    sides: [Side<'a>; 2],
    found: Mutex<Changes>,
}

impl Walk<'_> {
    fn found(&self) -> MutexGuard<'_, Changes> {
        // A panic elsewhere cannot leave the lists half changed.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, work: Work, crew: &Crew<Work, std::convert::Infallible>) {
        match work {
            Work::Directory(below) => {
                let pair = self.open(below);
                let mut names = self.list(&pair);
                let pair = Arc::new(pair);
                while names.len() > BATCH {
                    let batch = names.split_off(names.len() - BATCH);
                    crew.add(Work::Names(Arc::clone(&pair), batch));
                }
                self.compare(&pair, names, crew);
            }
            Work::Names(pair, names) => self.compare(&pair, names, crew),
            Work::Limited(directories) => {
                for (below, names) in directories {
                    self.compare(&self.open(below), names, crew);
                }
            }
        }
    }

    fn compare_roots(&self) {
        let [before, after] = &self.sides;
        let pair = [before, after].map(|side| side.fd.as_fd());
        if let Some(change) = self.compare_name(PathBuf::new(), c".", pair.map(Some)).0 {
            self.found().list.push(change);
        }
    }

    fn open(&self, below: PathBuf) -> Pair {
        let open = |side: &Side<'_>| match descend::directory(side.fd.as_fd(), &below) {
            Ok(fd) => {
                // Looking is to change nothing; only the owner may say so.
                let _ = rustix::fs::fcntl_setfl(&fd, OFlags::NOATIME);
                Some(fd)
            }
            // Not there, or something else, or of another file system.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => None,
            Err(error) => {
                self.found().unread.push(Error::io("open", side.path.join(&below))(error));
                None
            }
        };
        let fds = [open(&self.sides[0]), open(&self.sides[1])];
        Pair { below, fds }
    }

    /// The names in either.
    fn list(&self, pair: &Pair) -> Vec<Name> {
        let mut names: Vec<CString> = Vec::new();
        for (side, fd) in self.sides.iter().zip(&pair.fds) {
            let Some(fd) = fd else { continue };
            let listed = Dir::read_from(fd).and_then(|dir| {
                for entry in dir {
                    names.push(entry?.file_name().to_owned());
                }
                Ok(())
            });
            if let Err(error) = listed {
                self.found().unread.push(Error::io("list", side.path.join(&pair.below))(error));
            }
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| !matches!(name.to_bytes(), b"." | b"..") && !is_ours(name.to_bytes()));
        names.into_iter().map(|name| Name { name, with_all_below: true }).collect()
    }

    fn compare(&self, pair: &Pair, names: Vec<Name>, crew: &Crew<Work, std::convert::Infallible>) {
        let fds = [0, 1].map(|side| pair.fds[side].as_ref().map(AsFd::as_fd));
        let mut changes = Vec::new();
        for Name { name, with_all_below } in names {
            let below = match name.to_bytes() {
                b"." => pair.below.clone(),
                bytes => pair.below.join(OsStr::from_bytes(bytes)),
            };
            let (change, directories) = self.compare_name(below.clone(), &name, fds);
            let is_in_one = change
                .as_ref()
                .is_some_and(|change| matches!(change.what, What::Added | What::Removed | What::Replaced));
            if directories > 0 && (with_all_below || is_in_one) {
                crew.add(Work::Directory(below));
            }
            changes.extend(change);
        }
        self.found().list.append(&mut changes);
    }

    /// How a name differs, and in how many of the trees it is a directory to go into.
    fn compare_name(&self, below: PathBuf, name: &CStr, fds: [Option<BorrowedFd<'_>>; 2]) -> (Option<Change>, usize) {
        let mut entries = [None, None];
        for ((side, fd), entry) in self.sides.iter().zip(fds).zip(&mut entries) {
            let Some(dir) = fd else { continue };
            match look(Place::Named(dir, name)) {
                // Neither what is mounted there nor what it hides belongs to the tree.
                Ok(stat) if name != c"." && side.is_foreign(&stat) => return (None, 0),
                Ok(stat) => *entry = Some(Entry { dir, name, stat }),
                Err(Errno::NOENT) => {}
                Err(error) => {
                    self.found().unread.push(Error::io("look at", side.path.join(&below))(error));
                    return (None, 0);
                }
            }
        }
        let [before, after] = &entries;
        let directories = entries.iter().flatten().filter(|entry| entry.kind() == Kind::Directory).count();
        let what = match (before, after) {
            (None, None) => None,
            (None, Some(_)) => Some(What::Added),
            (Some(_), None) => Some(What::Removed),
            (Some(before), Some(after)) if before.file_type() != after.file_type() => Some(What::Replaced),
            (Some(before), Some(after)) => match compare::compare(before, after) {
                Ok(what) => what,
                // It vanished meanwhile.
                Err(Errno::NOENT) => None,
                Err(error) => {
                    self.found().unread.push(Error::io("compare", self.sides[1].path.join(&below))(error));
                    None
                }
            },
        };
        let Some((what, entry)) = what.zip(after.as_ref().or(before.as_ref())) else { return (None, directories) };
        let size = |entry: &Option<Entry<'_>>| {
            entry.as_ref().filter(|entry| entry.file_type() == FileType::RegularFile).map(|entry| entry.stat.stx_size)
        };
        let change =
            Change { path: below, what, kind: entry.kind(), size_before: size(before), size_after: size(after) };
        (Some(change), directories)
    }
}
