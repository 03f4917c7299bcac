//! A second tree like the first: content shared or copied, and everything else a Linux file has.
//!
//! Owners, modes, times in nanoseconds (those of directories, too), extended attributes, ACLs, capabilities, hard links
//! within the tree, symbolic links, devices, fifos, sockets, holes. Mounts and nested subvolumes are not entered: an
//! empty directory (or file) stands for each, and [`Totals::left_out`] names them.
//!
//! Three passes: all entries but further links, by many threads; the further links; the directories' attributes, from
//! the deepest up, because their times are those before the passes and their modes may lock us out.
//!
//! The new tree is its maker's alone until the end. Does not know of snapshots.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, IFlags, Mode, OFlags, Statx, StatxAttributes};
use rustix::io::Errno;

use super::attributes::{Attributes, Moment, Place, look};
use super::crew::{self, Crew};
pub use super::entry::Content;
pub(crate) use super::entry::{Entry, Whole};
use super::entry::{cannot_open, regular, special};
use super::{descend, flags};
use crate::error::Error;

/// How to clone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether content is shared.
    pub content: Content,
    /// Entries that are left out, with all below them: paths relative to the tree's root.
    pub exclude: Vec<PathBuf>,
    /// Directories of these names are left out wherever they are, and named in [`Totals::left_out`].
    pub leave_out: Vec<OsString>,
}

/// What was cloned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Everything but directories and further hard links.
    pub files: u64,
    /// The tree's root is one of them.
    pub directories: u64,
    /// Further names of files.
    pub links: u64,
    /// Lengths of the files.
    pub bytes: u64,
    /// Mounts, nested subvolumes and [`Options::leave_out`], relative to the root, in order.
    pub left_out: Vec<PathBuf>,
}

/// Clones the tree below `source` into the empty directory `target`, which takes over the attributes of `source`.
/// Durable when it returns.
///
/// # Errors
/// The first one ends it; what was made until then is left for the caller to remove. An ordinary user cannot clone what
/// belongs to others, or is not readable: [`Error::Privilege`]. Files that vanish meanwhile are no error.
pub fn tree(source: &Path, target: &Path, options: &Options) -> Result<Totals, Error> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
    };
    let (from, to) = (open(source)?, open(target)?);
    // The children must not inherit anything, and nobody else may look in before the modes are right.
    rustix::fs::fchmod(&to, Mode::RWXU).map_err(Error::io("set the mode of", target))?;
    match rustix::fs::fremovexattr(&to, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
        Err(error) => return Err(Error::io("remove the default ACL of", target)(error)),
    }
    // FICLONE waits until a file's dirty pages are written: all at once is much faster than file by file.
    rustix::fs::syncfs(&from).map_err(Error::io("sync the file system of", source))?;
    let stat = look(Place::Open(from.as_fd())).map_err(Error::io("look at", source))?;
    let job = Job {
        source: Root { path: source, fd: from },
        target: Root { path: target, fd: to },
        device: device(&stat),
        options,
        first_names: Mutex::default(),
        directories: Mutex::default(),
        flags: Mutex::default(),
        further_names: Mutex::default(),
        totals: Mutex::default(),
    };
    crew::run(Work::Directory(PathBuf::new()), |work, crew| job.perform(work, crew))?;
    job.link()?;
    job.finish_directories()?;
    job.set_flags()?;
    rustix::fs::syncfs(&job.target.fd).map_err(Error::io("sync the file system of", target))?;
    let mut totals = job.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.left_out.sort();
    Ok(totals)
}

/// Clones anything but a directory to a name that does not exist, as its maker's alone until it is complete. `None` if
/// it is a mount point.
///
/// # Errors
/// That of [`tree`]; the new name is left if it was made.
pub fn file(source: &Path, target: &Path, content: Content) -> Result<Option<Totals>, Error> {
    let (from, from_name) = parent(source)?;
    let (to, to_name) = parent(target)?;
    let entry = Entry { from: from.as_fd(), from_name: &from_name, to: to.as_fd(), to_name: &to_name };
    one(&entry, &Whole { source, target, content })
}

/// The same where the directories are open.
pub(crate) fn one(entry: &Entry<'_>, whole: &Whole<'_>) -> Result<Option<Totals>, Error> {
    let source = whole.source;
    let stat = look(Place::Named(entry.from, entry.from_name)).map_err(Error::io("look at", source))?;
    let mut totals = Totals::default();
    match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::Directory => return Err(Error::refused(format!("{} is a directory", source.display()))),
        _ if is_mount_point(&stat) => return Ok(None),
        FileType::RegularFile => {
            let opened = descend::file(entry.from, entry.from_name).map_err(cannot_open(source))?;
            let stat = look(Place::Open(opened.as_fd())).map_err(Error::io("look at", source))?;
            let opened = File::from(opened);
            let clone = regular(entry, whole, &opened, &stat)?;
            if let Some(kept) = flags::kept(&stat, &opened) {
                flags::add(&clone, kept, whole.target)?;
            }
            totals.bytes = stat.stx_size;
        }
        kind => special(entry, whole, kind, &stat)?,
    }
    totals.files = 1;
    Ok(Some(totals))
}

fn parent(path: &Path) -> Result<(OwnedFd, CString), Error> {
    let invalid = || Error::refused(format!("{} names no file", path.display()));
    let name = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()).ok_or_else(invalid)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).map_err(Error::io("open", directory))?;
    Ok((directory, name))
}

/// `st_dev`: differs between subvolumes of one btrfs.
fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn is_mount_point(stat: &Statx) -> bool {
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// A root, open.
struct Root<'a> {
    path: &'a Path,
    fd: OwnedFd,
}

/// A directory and its clone, open.
struct Pair {
    below: PathBuf,
    from: OwnedFd,
    to: OwnedFd,
}

impl Pair {
    fn entry<'a>(&'a self, name: &'a CStr) -> Entry<'a> {
        Entry { from: self.from.as_fd(), from_name: name, to: self.to.as_fd(), to_name: name }
    }
}

enum Work {
    Directory(PathBuf),
    /// Entries of one directory: a large one is shared out to all threads.
    Entries(Arc<Pair>, Vec<(CString, FileType)>),
}

/// Entries of a directory that one thread takes at once.
const BATCH: usize = 128;

/// An inode of the moment: numbers are given again, to a file born later.
type Inode = (u64, Moment);

struct Job<'a> {
    source: Root<'a>,
    target: Root<'a>,
    device: (u32, u32),
    options: &'a Options,
    first_names: Mutex<HashMap<Inode, PathBuf>>,
    /// Further names and the first one.
    further_names: Mutex<Vec<(PathBuf, PathBuf)>>,
    directories: Mutex<Vec<(PathBuf, Attributes)>>,
    flags: Mutex<Vec<(PathBuf, IFlags)>>,
    totals: Mutex<Totals>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a collection half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job<'_> {
    fn perform(&self, work: Work, crew: &Crew<Work>) -> Result<(), Error> {
        match work {
            Work::Directory(below) => self.list(below, crew),
            Work::Entries(pair, entries) => {
                let mut totals = Totals::default();
                for (name, kind) in entries {
                    if crew.is_over() {
                        return Ok(());
                    }
                    self.clone_entry(&pair, &name, kind, crew, &mut totals)?;
                }
                let mut all = locked(&self.totals);
                all.files += totals.files;
                all.directories += totals.directories;
                all.bytes += totals.bytes;
                all.left_out.append(&mut totals.left_out);
                Ok(())
            }
        }
    }

    fn list(&self, below: PathBuf, crew: &Crew<Work>) -> Result<(), Error> {
        let path = self.source.path.join(&below);
        let from = match descend::directory(self.source.fd.as_fd(), &below) {
            Ok(from) => from,
            // It vanished, or was replaced, since it was looked at.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                let clone = self.target.path.join(&below);
                return std::fs::remove_dir(&clone).map_err(Error::io("remove", &clone));
            }
            // Mounted upon since.
            Err(Errno::XDEV) => {
                locked(&self.totals).left_out.push(below);
                return Ok(());
            }
            Err(error) => return Err(cannot_open(&path)(error)),
        };
        let to = descend::directory(self.target.fd.as_fd(), &below)
            .map_err(Error::io("open", self.target.path.join(&below)))?;
        let stat = look(Place::Open(from.as_fd())).map_err(Error::io("look at", &path))?;
        let attributes = Attributes::with(&stat, Place::Open(from.as_fd())).map_err(|failed| failed.at(&path))?;
        if let Some(kept) = flags::kept(&stat, &from) {
            locked(&self.flags).push((below.clone(), kept));
        }
        locked(&self.directories).push((below.clone(), attributes));
        locked(&self.totals).directories += 1;
        let pair = Arc::new(Pair { below, from, to });
        let list = rustix::fs::Dir::read_from(&pair.from).map_err(Error::io("list", &path))?;
        let mut batch = Vec::new();
        for entry in list {
            let entry = entry.map_err(Error::io("list", &path))?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            batch.push((entry.file_name().to_owned(), entry.file_type()));
            if batch.len() == BATCH {
                crew.add(Work::Entries(Arc::clone(&pair), std::mem::take(&mut batch)));
            }
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.perform(Work::Entries(pair, batch), crew),
        }
    }

    fn clone_entry(
        &self,
        pair: &Pair,
        name: &CStr,
        kind: FileType,
        crew: &Crew<Work>,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let below = pair.below.join(OsStr::from_bytes(name.to_bytes()));
        if self.options.exclude.contains(&below) {
            return Ok(());
        }
        let (source, target) = (self.source.path.join(&below), self.target.path.join(&below));
        let whole = Whole { source: &source, target: &target, content: self.options.content };
        let entry = pair.entry(name);
        let looked_at = |error: Errno| match error {
            Errno::NOENT => Ok(()),
            error => Err(Error::io("look at", &source)(error)),
        };
        // A regular file is opened at once, so that what is looked at is what is read.
        let opened = match kind {
            FileType::RegularFile => match descend::file(entry.from, name) {
                Ok(opened) => Some(File::from(opened)),
                // Vanished, or replaced by a link.
                Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
                Err(error) => return Err(cannot_open(&source)(error)),
            },
            _ => None,
        };
        let place = opened.as_ref().map_or(Place::Named(entry.from, name), |file| Place::Open(file.as_fd()));
        let stat = match look(place) {
            Ok(stat) => stat,
            Err(error) => return looked_at(error),
        };
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        if is_mount_point(&stat) || device(&stat) != self.device {
            return self.stand_in(&entry, &whole, kind, below, totals);
        }
        if kind == FileType::Directory && self.options.leave_out.iter().any(|other| other.as_bytes() == name.to_bytes())
        {
            totals.left_out.push(below);
            return Ok(());
        }
        if kind == FileType::Directory {
            rustix::fs::mkdirat(entry.to, name, Mode::RWXU).map_err(Error::io("create", &target))?;
            crew.add(Work::Directory(below));
            return Ok(());
        }
        if stat.stx_nlink > 1 {
            let inode = (stat.stx_ino, stat.stx_btime.into());
            let mut names = locked(&self.first_names);
            if let Some(first) = names.get(&inode) {
                locked(&self.further_names).push((below, first.clone()));
                return Ok(());
            }
            names.insert(inode, below.clone());
        }
        let opened = match (kind, opened) {
            // The list did not tell the kind, as some file systems do.
            (FileType::RegularFile, None) => {
                Some(File::from(descend::file(entry.from, name).map_err(cannot_open(&source))?))
            }
            (_, opened) => opened,
        };
        let cloned = match &opened {
            Some(file) => regular(&entry, &whole, file, &stat).map(drop),
            None => special(&entry, &whole, kind, &stat),
        };
        match cloned {
            // A link or the like that vanished meanwhile.
            Err(Error::Io { action: "read the link", source: error, .. })
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(());
            }
            cloned => cloned?,
        }
        if let Some(kept) = opened.and_then(|file| flags::kept(&stat, file)) {
            locked(&self.flags).push((below, kept));
        }
        totals.files += 1;
        totals.bytes += if kind == FileType::RegularFile { stat.stx_size } else { 0 };
        Ok(())
    }

    /// An empty directory or file in the place of what is mounted there.
    fn stand_in(
        &self,
        entry: &Entry<'_>,
        whole: &Whole<'_>,
        kind: FileType,
        below: PathBuf,
        totals: &mut Totals,
    ) -> Result<(), Error> {
        let made = match kind {
            FileType::Directory => rustix::fs::mkdirat(entry.to, entry.to_name, Mode::from_raw_mode(0o755)),
            _ => rustix::fs::mknodat(entry.to, entry.to_name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
        };
        made.map_err(Error::io("create", whole.target))?;
        totals.left_out.push(below);
        Ok(())
    }

    fn link(&self) -> Result<(), Error> {
        let names = std::mem::take(&mut *locked(&self.further_names));
        locked(&self.totals).links = names.len() as u64;
        crew::each(&names, |(name, first)| {
            let target = self.target.path.join(name);
            let linked = self.open_parent(first).and_then(|(from, from_name)| {
                let (to, to_name) = self.open_parent(name)?;
                rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty())
            });
            linked.map_err(Error::io("link", target))
        })
    }

    /// In whatever order: files are opened for reading, and below what is immutable nothing but flags is changed.
    fn set_flags(&self) -> Result<(), Error> {
        for (below, flags) in std::mem::take(&mut *locked(&self.flags)) {
            let target = self.target.path.join(&below);
            let opened = match self.open_parent(&below) {
                Ok((parent, name)) => CString::new(name.as_bytes())
                    .map_err(|_| Errno::INVAL)
                    .and_then(|name| descend::file(parent.as_fd(), &name)),
                // The root itself.
                Err(Errno::INVAL) => descend::directory(self.target.fd.as_fd(), &below),
                Err(error) => Err(error),
            };
            flags::add(opened.map_err(Error::io("open", &target))?, flags, &target)?;
        }
        Ok(())
    }

    fn open_parent<'p>(&self, below: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = below.file_name().ok_or(Errno::INVAL)?;
        let parent = below.parent().ok_or(Errno::INVAL)?;
        Ok((descend::directory(self.target.fd.as_fd(), parent)?, name))
    }

    fn finish_directories(&self) -> Result<(), Error> {
        let mut directories = std::mem::take(&mut *locked(&self.directories));
        directories.sort_by_key(|(below, _)| std::cmp::Reverse(below.components().count()));
        for level in directories.chunk_by(|(a, _), (b, _)| a.components().count() == b.components().count()) {
            crew::each(level, |(below, attributes)| {
                let target = || self.target.path.join(below);
                let opened = descend::directory(self.target.fd.as_fd(), below).map_err(Error::io("open", target()))?;
                attributes.apply(Place::Open(opened.as_fd())).map_err(|failed| failed.at(target()))
            })?;
        }
        Ok(())
    }
}
