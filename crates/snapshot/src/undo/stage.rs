//! The first half: what has to be done is found out, and all that has to be made is made, beside the live tree.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Statx, StatxAttributes};
use rustix::io::Errno;

use super::{Totals, exists};
use crate::changes::compare::{self, Entry};
use crate::changes::{What, is_ours};
use crate::error::Error;
use crate::reflink::attributes::{Attributes, Place, look};
use crate::reflink::clone::{self, Content};
use crate::reflink::descend;

/// One change of the live tree. Paths are relative to it; a number names something that was made.
#[derive(Debug)]
pub(super) enum Act {
    /// Makes a directory, for its maker alone.
    MakeDirectory(PathBuf),
    /// Makes a directory in the place of something else, which gets the number.
    ReplaceByDirectory(PathBuf, u64),
    /// Moves what was made into place.
    Move(u64, PathBuf),
    /// Makes a further name of what then lies at the first path; the number is needed meanwhile.
    Link(PathBuf, PathBuf, u64),
    /// Sets attributes.
    Apply(PathBuf, Attributes),
    /// Moves something out of the tree, under the number.
    Remove(PathBuf, u64),
}

/// What is to be done with what was made.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// In this order.
    pub(super) acts: Vec<Act>,
    /// After all acts, from the last to the first.
    pub(super) directories: Vec<(PathBuf, Attributes)>,
    pub(super) totals: Totals,
}

impl Staged {
    /// Which times the root of the live tree gets when all is done: those of the snapshot if it was brought back, the
    /// present ones, `None`, if something in it was, else those of `before`.
    pub(super) fn root_times<'a>(&'a self, before: &'a Attributes) -> Option<&'a Attributes> {
        let root = Path::new("");
        if let Some((_, wanted)) = self.directories.iter().find(|(path, _)| path == root) {
            return Some(wanted);
        }
        let changed = self.acts.iter().filter_map(|act| match act {
            Act::MakeDirectory(path) | Act::ReplaceByDirectory(path, _) | Act::Move(_, path) => Some(path),
            Act::Link(_, path, _) | Act::Remove(path, _) => Some(path),
            Act::Apply(..) => None,
        });
        let mut changed = changed.filter(|path| path.parent() == Some(root));
        changed.next().is_none().then_some(before)
    }
}

/// The three trees.
pub(super) struct Trees<'a> {
    live_path: &'a Path,
    live: &'a OwnedFd,
    live_device: (u32, u32),
    view_path: &'a Path,
    view: &'a OwnedFd,
    view_device: (u32, u32),
    staging: &'a OwnedFd,
}

impl<'a> Trees<'a> {
    pub(super) fn new(
        live_path: &'a Path,
        live: &'a OwnedFd,
        view_path: &'a Path,
        view: &'a OwnedFd,
        staging: &'a OwnedFd,
    ) -> Result<Trees<'a>, Error> {
        let device_of = |fd: &OwnedFd, path: &Path| {
            look(Place::Open(fd.as_fd())).map(|stat| device(&stat)).map_err(Error::io("look at", path))
        };
        let (live_device, view_device) = (device_of(live, live_path)?, device_of(view, view_path)?);
        Ok(Trees { live_path, live, live_device, view_path, view, view_device, staging })
    }
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

fn is_directory(stat: &Statx) -> bool {
    FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory
}

fn is_foreign(stat: &Statx, root: (u32, u32)) -> bool {
    device(stat) != root || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// Finds out and makes what it takes to bring the paths back.
pub(super) fn stage(trees: Trees<'_>, paths: &BTreeSet<PathBuf>, removes_added: bool) -> Result<Staged, Error> {
    let mut stage = Stage {
        trees,
        removes_added,
        staged: Staged::default(),
        numbers: 0,
        first_names: HashMap::new(),
        made: BTreeSet::new(),
        waiting: Vec::new(),
    };
    for path in paths {
        stage.path(path)?;
        while let Some(below) = stage.waiting.pop() {
            stage.directory(&below)?;
        }
    }
    Ok(stage.staged)
}

struct Stage<'a> {
    trees: Trees<'a>,
    removes_added: bool,
    staged: Staged,
    numbers: u64,
    /// Of inodes of the snapshot with several names: the first that was met, and the inode that it has and keeps in the
    /// live tree.
    first_names: HashMap<u64, (PathBuf, Option<u64>)>,
    /// Directories above the paths that are to be made.
    made: BTreeSet<PathBuf>,
    /// Directories that are still to be gone into.
    waiting: Vec<PathBuf>,
}

impl Stage<'_> {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// One of the paths that were asked for.
    fn path(&mut self, path: &Path) -> Result<(), Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            // The root.
            self.go_into(PathBuf::new(), Place::Open(self.trees.view.as_fd()))?;
            return Ok(());
        };
        self.parents(parent)?;
        let name = c_string(name)?;
        let view = self.open_view(parent)?;
        let live = self.open_live(parent)?;
        let in_view = match &view {
            Some(view) => exists(view, &name).map_err(Error::io("look at", self.trees.view_path.join(path)))?,
            None => None,
        };
        let in_live = match &live {
            Some(live) => exists(live, &name).map_err(Error::io("look at", self.trees.live_path.join(path)))?,
            None => None,
        };
        if in_live.is_some_and(|stat| is_foreign(&stat, self.trees.live_device)) {
            let message = format!("{} is another file system", self.trees.live_path.join(path).display());
            return Err(Error::refused(message).or("what is mounted there has snapshots of its own, or none"));
        }
        match (view, in_view) {
            (Some(view), Some(stat)) => self.entry(&view, live.as_ref(), &name, &stat, path.to_owned()),
            _ if self.removes_added && in_live.is_some() => self.remove(path.to_owned()),
            _ => Err(Error::refused(format!("the snapshot has no {}", path.display()))
                .or("see what differs: snapback snapshot diff")),
        }
    }

    /// Directories above a path that the live tree lacks.
    fn parents(&mut self, parent: &Path) -> Result<(), Error> {
        let mut above: Vec<&Path> = parent.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for path in above {
            if self.made.contains(path) || self.open_live(path)?.is_some() {
                continue;
            }
            let Some(view) = self.open_view(path)? else { return Ok(()) };
            let attributes = Attributes::read(Place::Open(view.as_fd()));
            let attributes = attributes.map_err(|failed| failed.at(self.trees.view_path.join(path)))?;
            self.made.insert(path.to_owned());
            self.staged.totals.directories += 1;
            self.staged.acts.push(Act::MakeDirectory(path.to_owned()));
            self.staged.directories.push((path.to_owned(), attributes));
        }
        Ok(())
    }

    fn open_view(&self, below: &Path) -> Result<Option<OwnedFd>, Error> {
        open(self.trees.view, self.trees.view_path, below)
    }

    fn open_live(&self, below: &Path) -> Result<Option<OwnedFd>, Error> {
        open(self.trees.live, self.trees.live_path, below)
    }

    /// All that is in a directory of the snapshot.
    fn directory(&mut self, below: &Path) -> Result<(), Error> {
        let (view_path, live_path) = (self.trees.view_path.join(below), self.trees.live_path.join(below));
        let Some(view) = self.open_view(below)? else { return Ok(()) };
        let wanted = names(&view).map_err(Error::io("list", &view_path))?;
        // Something else may be there as yet.
        let live = match descend::directory(self.trees.live.as_fd(), below) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
            live => Some(live.map_err(Error::io("open", &live_path))?),
        };
        for name in &wanted {
            let stat = look(Place::Named(view.as_fd(), name)).map_err(Error::io("look at", &view_path))?;
            self.entry(&view, live.as_ref(), name, &stat, below.join(OsStr::from_bytes(name.to_bytes())))?;
        }
        let Some(live) = live.filter(|_| self.removes_added) else { return Ok(()) };
        for name in names(&live).map_err(Error::io("list", &live_path))? {
            if is_ours(name.to_bytes()) || wanted.binary_search(&name).is_ok() {
                continue;
            }
            let path = below.join(OsStr::from_bytes(name.to_bytes()));
            match exists(&live, &name).map_err(Error::io("look at", self.trees.live_path.join(&path)))? {
                Some(stat) if !is_foreign(&stat, self.trees.live_device) => self.remove(path)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// One entry of the snapshot.
    fn entry(
        &mut self,
        view: &OwnedFd,
        live: Option<&OwnedFd>,
        name: &CStr,
        wanted: &Statx,
        path: PathBuf,
    ) -> Result<(), Error> {
        let live_path = self.trees.live_path.join(&path);
        let present = match live {
            Some(live) => exists(live, name).map_err(Error::io("look at", &live_path))?,
            None => None,
        };
        let is_outside = present.is_some_and(|stat| is_foreign(&stat, self.trees.live_device));
        if is_outside || is_foreign(wanted, self.trees.view_device) {
            return Ok(());
        }
        if is_directory(wanted) {
            match present {
                Some(stat) if is_directory(&stat) => {}
                Some(_) => {
                    let number = self.number();
                    self.staged.acts.push(Act::ReplaceByDirectory(path.clone(), number));
                    self.staged.totals.directories += 1;
                }
                None => {
                    self.staged.acts.push(Act::MakeDirectory(path.clone()));
                    self.staged.totals.directories += 1;
                }
            }
            return self.go_into(path, Place::Named(view.as_fd(), name));
        }
        if present.is_some_and(|stat| is_directory(&stat)) {
            self.refuse_foreign_below(&path)?;
        }
        if wanted.stx_nlink > 1 {
            if let Some((first, kept)) = self.first_names.get(&wanted.stx_ino).cloned() {
                if kept.is_some() && present.map(|stat| stat.stx_ino) == kept {
                    self.staged.totals.same += 1;
                    return Ok(());
                }
                let number = self.number();
                self.staged.acts.push(Act::Link(first, path, number));
                self.staged.totals.brought_back += 1;
                return Ok(());
            }
            self.first_names.insert(wanted.stx_ino, (path.clone(), None));
        }
        if let (Some(live), Some(present)) = (live, present) {
            let before = Entry { dir: live.as_fd(), name, stat: present };
            let after = Entry { dir: view.as_fd(), name, stat: *wanted };
            // A file of which the live tree has more names than the snapshot is not the snapshot's.
            let is_alone = present.stx_nlink == 1 || wanted.stx_nlink > 1;
            if before.file_type() == after.file_type() && is_alone {
                match compare::compare(&before, &after).map_err(Error::io("compare", &live_path))? {
                    None => {
                        if let Some((_, kept)) = self.first_names.get_mut(&wanted.stx_ino) {
                            *kept = Some(present.stx_ino);
                        }
                        self.staged.totals.same += 1;
                        return Ok(());
                    }
                    Some(What::Attributes) if present.stx_nlink == 1 => {
                        let attributes = Attributes::with(wanted, Place::Named(view.as_fd(), name));
                        let attributes = attributes.map_err(|failed| failed.at(self.trees.view_path.join(&path)))?;
                        self.staged.acts.push(Act::Apply(path, attributes));
                        self.staged.totals.attributes += 1;
                        return Ok(());
                    }
                    Some(_) => {}
                }
            }
        }
        let number = self.number();
        let made = c_string(OsStr::new(&number.to_string()))?;
        let entry =
            clone::Entry { from: view.as_fd(), from_name: name, to: self.trees.staging.as_fd(), to_name: &made };
        let source = self.trees.view_path.join(&path);
        let whole = clone::Whole { source: &source, target: &live_path, content: Content::ShareOrCopy };
        if clone::one(&entry, &whole)?.is_some() {
            self.staged.acts.push(Act::Move(number, path));
            self.staged.totals.brought_back += 1;
        }
        Ok(())
    }

    fn go_into(&mut self, below: PathBuf, view: Place<'_>) -> Result<(), Error> {
        let attributes = Attributes::read(view).map_err(|failed| failed.at(self.trees.view_path.join(&below)))?;
        self.staged.directories.push((below.clone(), attributes));
        self.waiting.push(below);
        Ok(())
    }

    fn remove(&mut self, path: PathBuf) -> Result<(), Error> {
        self.refuse_foreign_below(&path)?;
        let number = self.number();
        self.staged.acts.push(Act::Remove(path, number));
        self.staged.totals.removed += 1;
        Ok(())
    }

    /// Refuses to remove what has another file system below it.
    fn refuse_foreign_below(&self, path: &Path) -> Result<(), Error> {
        let mut waiting = vec![path.to_owned()];
        while let Some(below) = waiting.pop() {
            let full = self.trees.live_path.join(&below);
            let directory = match descend::directory(self.trees.live.as_fd(), &below) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                opened => opened.map_err(Error::io("open", &full))?,
            };
            for name in names(&directory).map_err(Error::io("list", &full))? {
                let Some(stat) = exists(&directory, &name).map_err(Error::io("look at", &full))? else { continue };
                let path = below.join(OsStr::from_bytes(name.to_bytes()));
                if is_foreign(&stat, self.trees.live_device) {
                    let message = format!("{} is another file system", self.trees.live_path.join(path).display());
                    return Err(Error::refused(message).or("unmount or move it first, or do not remove what is above"));
                }
                if is_directory(&stat) {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }
}

fn c_string(name: &OsStr) -> Result<CString, Error> {
    CString::new(name.as_bytes()).map_err(|_| Error::refused("a name cannot hold a NUL"))
}

/// Opens a directory of one of the trees; `None` if it is not there.
fn open(root: &OwnedFd, root_path: &Path, below: &Path) -> Result<Option<OwnedFd>, Error> {
    let path = || root_path.join(below);
    match descend::directory(root.as_fd(), below) {
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            Err(Error::refused(format!("{} is no directory, or leads through a link", path().display()))
                .or("bring back what is above it"))
        }
        Err(Errno::XDEV) => Err(Error::refused(format!("{} lies in another file system", path().display()))),
        opened => opened.map(Some).map_err(Error::io("open", path())),
    }
}

/// In order.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let entries = Dir::read_from(directory)?;
    let mut names = entries.map(|entry| Ok(entry?.file_name().to_owned())).collect::<Result<Vec<_>, Errno>>()?;
    names.retain(|name| !matches!(name.to_bytes(), b"." | b".."));
    names.sort_unstable();
    Ok(names)
}
