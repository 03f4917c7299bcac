//! One tree made equal to another that may still be changing: copied, compared, and what differs copied again.
//!
//! Content is compared byte by byte once. After that, what the inodes say was not touched since is not read again: a
//! time of change cannot be set, and directories are known by their inode numbers, so that two that changed places are
//! not taken for unchanged.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use crate::changes::{self, Change, What};
use crate::error::Error;
use crate::provider::Changed;
use crate::reflink::attributes::{Attributes, Moment, Place, look};
use crate::reflink::clone::{self, Content, Options};
use crate::reflink::crew::{self, Crew};
use crate::reflink::{descend, remove};

/// What was found equal: the state of the source then.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    since: Moment,
    directories: HashMap<PathBuf, u64>,
}

/// Times of change are as coarse as the kernel's tick; this is more than any.
const MARGIN_SECS: i64 = 2;

/// A tree, as one walk over it finds it.
#[derive(Default)]
struct Survey {
    directories: HashMap<PathBuf, u64>,
    /// Names of files with several, by inode.
    names: HashMap<u64, Vec<PathBuf>>,
    /// What may have changed since.
    suspects: Vec<Changed>,
    bytes: u64,
    files: u64,
}

/// How much there is to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// What the files take on the disk.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

/// Measures a tree.
pub(super) fn measure(tree: &Path) -> Result<Amount, Error> {
    let survey = survey(tree, None)?;
    Ok(Amount { bytes: survey.bytes, files: survey.files })
}

/// Copies a tree into an empty directory.
pub(super) fn copy(source: &Path, target: &Path) -> Result<(), Error> {
    clone::tree(source, target, &Options { content: Content::ShareOrCopy, ..Options::default() }).map(|_| ())
}

/// Compares everything, and copies what differs. Gives the paths that did.
pub(super) fn verify(source: &Path, target: &Path, now: Moment) -> Result<(Verified, Vec<PathBuf>), Error> {
    // Before the comparison: what changes meanwhile is looked at once more.
    let directories = survey(source, None)?.directories;
    let since = Moment { secs: now.secs - MARGIN_SECS, ..now };
    let differing = settle(source, target, None)?;
    Ok((Verified { since, directories }, differing))
}

/// Compares what may have changed since it was verified, and copies what differs. Gives the paths that did.
pub(super) fn verify_since(source: &Path, target: &Path, verified: &Verified) -> Result<Vec<PathBuf>, Error> {
    let suspects = survey(source, Some((verified, target)))?.suspects;
    settle(source, target, Some(&suspects))
}

fn settle(source: &Path, target: &Path, limited: Option<&[Changed]>) -> Result<Vec<PathBuf>, Error> {
    let mut found = changes::between(source, target, limited)?;
    if !found.unread.is_empty() {
        return Err(found.unread.swap_remove(0));
    }
    let mut differing: Vec<PathBuf> = found.list.iter().map(|change| change.path.clone()).collect();
    repair(source, target, &found.list)?;
    differing.extend(repair_links(source, target)?);
    finish_directories(source, target)?;
    let opened = open(target)?;
    rustix::fs::syncfs(&opened).map_err(Error::io("sync the file system of", target))?;
    Ok(differing)
}

fn repair(source: &Path, target: &Path, changes: &[Change]) -> Result<(), Error> {
    let mut done: Option<&Path> = None;
    for change in changes {
        if done.is_some_and(|done| change.path.starts_with(done)) {
            continue;
        }
        let (from, to) = (source.join(&change.path), target.join(&change.path));
        match change.what {
            What::Attributes => copy_attributes(&from, &to)?,
            _ if change.path.as_os_str().is_empty() => {}
            // In the target alone.
            What::Added => {
                take_away(&to)?;
                done = Some(&change.path);
            }
            What::Removed | What::Modified | What::Replaced => {
                take_away(&to)?;
                copy_one(&from, &to)?;
                done = Some(&change.path);
            }
        }
    }
    Ok(())
}

fn take_away(path: &Path) -> Result<(), Error> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(stat) if stat.is_dir() => remove::tree(path),
        Ok(_) => remove::file(path),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

/// What vanished meanwhile is found by the next comparison.
fn copy_one(from: &Path, to: &Path) -> Result<(), Error> {
    let Ok(stat) = std::fs::symlink_metadata(from) else { return Ok(()) };
    let copied = if stat.is_dir() {
        std::fs::create_dir(to).map_err(Error::io("create", to)).and_then(|()| copy(from, to))
    } else {
        clone::file(from, to, Content::ShareOrCopy).map(|_| ())
    };
    match copied {
        Err(Error::Io { path, source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && path.starts_with(from) =>
        {
            Ok(())
        }
        copied => copied,
    }
}

fn copy_attributes(from: &Path, to: &Path) -> Result<(), Error> {
    let read = match place(from)? {
        None => return Ok(()),
        Some((directory, name)) => Attributes::read(Place::Named(directory.as_fd(), &name)),
    };
    let attributes = read.map_err(|failed| failed.at(from))?;
    match place(to)? {
        None => Ok(()),
        Some((directory, name)) => {
            attributes.apply(Place::Named(directory.as_fd(), &name)).map_err(|failed| failed.at(to))
        }
    }
}

/// A name in its directory, which is open; `None` if the directory is gone.
fn place(path: &Path) -> Result<Option<(OwnedFd, CString)>, Error> {
    let (directory, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, name),
        _ => (path, OsStr::new(".")),
    };
    let name = CString::new(name.as_bytes()).map_err(|_| Error::refused(format!("{} has a NUL", path.display())))?;
    match rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        opened => Ok(Some((opened.map_err(Error::io("open", directory))?, name))),
    }
}

/// Names that are one file in one tree, and not in the other.
fn repair_links(source: &Path, target: &Path) -> Result<Vec<PathBuf>, Error> {
    let (wanted, found) = (groups(survey(source, None)?), groups(survey(target, None)?));
    let mut differing = Vec::new();
    for name in wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name))) {
        let first = wanted.get(name).unwrap_or(name);
        if first == found.get(name).unwrap_or(name) {
            continue;
        }
        let (to, first_of_target) = (target.join(name), target.join(first));
        take_away(&to)?;
        if first == name {
            copy_one(&source.join(name), &to)?;
        } else if first_of_target.symlink_metadata().is_ok() {
            std::fs::hard_link(&first_of_target, &to).map_err(Error::io("link", &to))?;
        }
        differing.push(name.clone());
    }
    Ok(differing)
}

/// For each name of a file with several in the tree, the first of them.
fn groups(survey: Survey) -> BTreeMap<PathBuf, PathBuf> {
    let mut groups = BTreeMap::new();
    for mut names in survey.names.into_values().filter(|names| names.len() > 1) {
        names.sort();
        let first = names[0].clone();
        groups.extend(names.into_iter().map(|name| (name, first.clone())));
    }
    groups
}

/// The times of directories, which copying into them changed.
fn finish_directories(source: &Path, target: &Path) -> Result<(), Error> {
    let (from, to) = (open(source)?, open(target)?);
    let directories: Vec<_> = survey(source, None)?.directories.into_keys().collect();
    crew::each(&directories, |below| {
        let opened =
            descend::directory(from.as_fd(), below).and_then(|from| Ok((from, descend::directory(to.as_fd(), below)?)));
        let (one, other) = match opened {
            // Changed meanwhile: the next comparison finds it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened.map_err(Error::io("open", source.join(below)))?,
        };
        let attributes = Attributes::read(Place::Open(one.as_fd())).map_err(|failed| failed.at(source.join(below)))?;
        attributes.apply(Place::Open(other.as_fd())).map_err(|failed| failed.at(target.join(below)))
    })
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn survey(tree: &Path, verified: Option<(&Verified, &Path)>) -> Result<Survey, Error> {
    let root = open(tree)?;
    let other = verified.map(|(_, other)| open(other)).transpose()?;
    let found = Mutex::new(Survey::default());
    crew::run(PathBuf::new(), |below: PathBuf, crew: &Crew<PathBuf>| {
        let path = tree.join(&below);
        let directory = match descend::directory(root.as_fd(), &below) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
            directory => directory.map_err(Error::io("open", &path))?,
        };
        let mut part = Survey::default();
        let stat = look(Place::Open(directory.as_fd())).map_err(Error::io("look at", &path))?;
        let is_suspect = |stat: &Statx, since: Moment| Moment::from(stat.stx_ctime) >= since;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).map_err(Error::io("list", &path))? {
            let name = entry.map_err(Error::io("list", &path))?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        if let Some((verified, _)) = verified {
            if verified.directories.get(&below) != Some(&stat.stx_ino) {
                part.suspects.push(Changed { path: below.clone(), is_tree: true });
            } else if is_suspect(&stat, verified.since) {
                part.suspects.push(Changed { path: below.clone(), is_tree: false });
                // Also what is in the copy alone.
                let copy = other.as_ref().and_then(|other| descend::directory(other.as_fd(), &below).ok());
                let copied = copy.and_then(|copy| rustix::fs::Dir::read_from(&copy).ok());
                let copied = copied.into_iter().flatten().flatten().map(|entry| entry.file_name().to_owned());
                let all = names.iter().cloned().chain(copied);
                let all = all.filter(|name| !matches!(name.to_bytes(), b"." | b".."));
                let child = |name: CString| below.join(OsStr::from_bytes(name.to_bytes()));
                part.suspects.extend(all.map(|name| Changed { path: child(name), is_tree: false }));
            }
        }
        for name in names {
            let child = below.join(OsStr::from_bytes(name.to_bytes()));
            let stat = match look(Place::Named(directory.as_fd(), &name)) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(Error::io("look at", tree.join(&child)))?,
            };
            part.files += 1;
            part.bytes += stat.stx_blocks * 512 / u64::from(stat.stx_nlink.max(1));
            if FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory {
                crew.add(child);
                continue;
            }
            if verified.is_some_and(|(verified, _)| is_suspect(&stat, verified.since)) {
                part.suspects.push(Changed { path: child.clone(), is_tree: false });
            }
            if stat.stx_nlink > 1 {
                part.names.entry(stat.stx_ino).or_default().push(child);
            }
        }
        let mut all = found.lock().unwrap_or_else(PoisonError::into_inner);
        all.directories.insert(below, stat.stx_ino);
        all.suspects.append(&mut part.suspects);
        for (inode, mut names) in part.names {
            all.names.entry(inode).or_default().append(&mut names);
        }
        all.files += part.files;
        all.bytes += part.bytes;
        Ok::<(), Error>(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}
