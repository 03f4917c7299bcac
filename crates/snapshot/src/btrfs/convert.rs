//! Making a directory a subvolume of its own, in place: only a subvolume can be snapshot.
//!
//! A new subvolume is made beside the directory, the tree is cloned into it (extents are shared, so it takes some
//! seconds and no room), compared, and then the two exchange their names in one rename. The old directory is kept under
//! a name of its own until it is removed. Nested subvolumes and mounts stay in place.
//!
//! Whoever writes to the directory between the comparison and the exchange, or has files of it open, writes to the old
//! one: whoever calls this stops them first, and looks for holders. Steps are those of a journal, as a provider's are.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use serde::{Deserialize, Serialize};

use super::nested::{self, Nested, Way};
use super::places;
use super::top::{Top, is_root};
use super::{ioctl, open_directory};
use crate::changes;
use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};
use crate::provider::Step;
use crate::reflink::{clone, remove};

/// A directory on a btrfs that becomes a subvolume, or became one by this.
#[derive(Debug)]
pub struct Conversion {
    directory: PathBuf,
    parent: PathBuf,
    top: Top,
    /// Of the directory in which it lies: number of its subvolume, and path in that.
    subvolume: u64,
    inside: PathBuf,
    /// Of the directory in which it lies, from the top level.
    above: PathBuf,
    name: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Arguments {
    /// Which conversion it is; the old directory is kept under this.
    id: Id,
    #[serde(flatten)]
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Work {
    /// Make the subvolume, and clone the tree into it.
    Clone,
    /// Compare the two, and exchange the names; mounts upon directories of the old tree come along.
    Exchange { mounts: Vec<PathBuf> },
    /// Move nested subvolumes across.
    Nested { nested: Vec<Nested> },
}

impl Conversion {
    /// For a directory, which is given as an absolute path without symbolic links; `None` if it is on another file
    /// system. Needs CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// Refused for a mount point: what is mounted has no name that could be exchanged.
    pub fn open(directory: &Path, mounts: &[Mount]) -> Result<Option<Conversion>, Error> {
        let Some(mount) = mounts::mount_of(mounts, directory).filter(|mount| mount.kind == "btrfs") else {
            return Ok(None);
        };
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Err(Error::refused("the root of the system cannot be made a subvolume while it runs"));
        };
        if mount.point == directory {
            return Err(Error::refused(format!("{} is a mount point", directory.display()))
                .or("unmount it, and give the directory that is mounted there"));
        }
        let fd = open_directory(parent)?;
        let top = Top::open(mount, &fd)?;
        let stat = rustix::fs::fstat(&fd).map_err(Error::io("look at", parent))?;
        let found = ioctl::subvolume(&fd).map_err(Error::io("ask for the subvolume of", parent))?;
        let inside = top.directory_path(found.id, stat.st_ino)?;
        let path = top.path_of(found.id)?;
        let path = path.ok_or_else(|| Error::refused(format!("{} lies in a deleted subvolume", parent.display())))?;
        Ok(Some(Conversion {
            directory: directory.to_owned(),
            parent: parent.to_owned(),
            top,
            subvolume: found.id,
            above: path.join(&inside).components().collect(),
            inside: inside.components().collect(),
            name: name.into(),
        }))
    }

    /// The steps. Nothing is changed.
    ///
    /// # Errors
    /// Refused if it is a subvolume already.
    pub fn plan(&self, id: Id) -> Result<Vec<Step>, Error> {
        if self.is_subvolume(&self.live())? {
            return Err(Error::refused(format!("{} is a subvolume already", self.directory.display())));
        }
        let root = self.top.path_of(self.subvolume)?.unwrap_or_default();
        let nested = nested::below(&self.top, self.subvolume, &root, &self.inside.join(&self.name), &|path| {
            // The clone will have the times of the directory.
            self.top.open_at(&self.live().join(path))?.map(|fd| nested::modified(&fd)).transpose()
        })?;
        let nested_paths: Vec<PathBuf> = nested.iter().map(|nested| nested.path.clone()).collect();
        let mounts = mounts::mounts()?;
        let live = Path::new("/").join(self.live());
        let shows_it =
            |mount: &&Mount| places::shows(mount, &self.top, self.subvolume) && mount.root.starts_with(&live);
        if let Some(bound) = mounts.iter().find(shows_it) {
            let (point, directory) = (bound.point.display(), self.directory.display());
            return Err(Error::refused(format!("{directory}, or a part of it, is also mounted at {point}"))
                .or(format!("unmount {point} until it is a subvolume")));
        }
        // Mounts hang upon a mount of what the directory lies in; none shows the subvolume that is yet to be made.
        let below = places::below(&self.top, &mounts, 0, &self.live(), &nested_paths);
        let mounts: Vec<PathBuf> = below.into_iter().map(|(point, _)| point).collect();
        let mut steps = vec![
            ("make a subvolume, and clone the directory into it".to_owned(), Work::Clone),
            ("exchange it with the directory".to_owned(), Work::Exchange { mounts }),
        ];
        if !nested.is_empty() {
            steps.push((format!("move {} nested subvolumes across", nested.len()), Work::Nested { nested }));
        }
        let steps = steps.into_iter().map(|(name, work)| {
            let arguments = serde_json::to_value(Arguments { id, work });
            Ok(Step { name, arguments: arguments.map_err(|error| Error::refused(error.to_string()))? })
        });
        steps.collect()
    }

    /// Performs a step. One that was performed already, in part or as a whole, is success.
    pub fn perform(&self, step: &Step) -> Result<(), Error> {
        let Arguments { id, work } = arguments(step)?;
        match work {
            Work::Clone => self.clone_tree(id),
            Work::Exchange { mounts } => self.exchange(id, &mounts, true),
            Work::Nested { nested } => {
                nested::move_across(&self.top, &nested, [&self.beside(id), &self.live()], Way::Forth)
            }
        }
    }

    /// Takes a step back. One that was never performed, or only in part, is success. Steps are reverted in the opposite
    /// order.
    pub fn revert(&self, step: &Step) -> Result<(), Error> {
        let Arguments { id, work } = arguments(step)?;
        match work {
            Work::Clone => self.discard(id),
            Work::Exchange { mounts } => self.exchange(id, &mounts, false),
            Work::Nested { .. } if !self.is_subvolume(&self.live())? => Ok(()),
            Work::Nested { nested } => {
                nested::move_across(&self.top, &nested, [&self.beside(id), &self.live()], Way::Back)
            }
        }
    }

    /// Where the old directory lies after the last step.
    pub fn old(&self, id: Id) -> PathBuf {
        self.parent.join(beside(id))
    }

    /// Removes the old directory. One that is gone is success.
    ///
    /// # Errors
    /// Refused if the conversion is not complete, or something is mounted in it.
    pub fn remove_old(&self, id: Id) -> Result<(), Error> {
        let old = self.old(id);
        if !self.is_subvolume(&self.live())? || self.is_subvolume(&self.beside(id))? {
            return Err(Error::refused(format!("{} is not the old directory", old.display()))
                .or("let the conversion be finished or taken back first"));
        }
        remove::tree(&old)
    }

    /// The directory, from the top level.
    fn live(&self) -> PathBuf {
        self.above.join(&self.name)
    }

    /// The new subvolume before the exchange, and the old directory after it, from the top level.
    fn beside(&self, id: Id) -> PathBuf {
        self.above.join(beside(id))
    }

    /// Whether a subvolume lies at a path from the top level.
    fn is_subvolume(&self, path: &Path) -> Result<bool, Error> {
        let Some(fd) = self.top.open_at(path)? else { return Ok(false) };
        Ok(is_root(&rustix::fs::fstat(&fd).map_err(Error::io("look at", self.top.named(path)))?))
    }

    fn above(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = if self.above.as_os_str().is_empty() { Path::new(".") } else { &self.above };
        rustix::fs::openat(self.top.root(), above, flags, Mode::empty()).map_err(Error::io("open", &self.parent))
    }

    fn clone_tree(&self, id: Id) -> Result<(), Error> {
        if self.is_subvolume(&self.live())? {
            return Ok(());
        }
        // Whatever a try that was cut off left behind.
        self.discard(id)?;
        let new = self.old(id);
        ioctl::create_subvolume(self.above()?, &beside(id)).map_err(Error::io("make the subvolume", &new))?;
        clone::tree(&self.directory, &new, &clone::Options::default()).map(drop)
    }

    /// Takes back what `clone_tree` made.
    fn discard(&self, id: Id) -> Result<(), Error> {
        let path = self.beside(id);
        let Some(fd) = self.top.open_at(&path)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&fd).map_err(Error::io("look at", self.old(id)))?;
        let old = self.old(id);
        if !is_root(&stat) {
            return Err(Error::refused(format!("{} holds what was live", old.display())));
        }
        let found = ioctl::subvolume(&fd).map_err(Error::io("ask for the subvolume at", &old))?;
        places::refuse_mounted(&self.top, found.id, &old.display().to_string())?;
        ioctl::destroy_subvolume(self.above()?, &beside(id)).map_err(Error::io("delete", &old))
    }

    fn exchange(&self, id: Id, points: &[PathBuf], forward: bool) -> Result<(), Error> {
        let (live, beside) = (self.live(), self.beside(id));
        let is_done = self.is_subvolume(&live)? == forward;
        if !is_done && forward {
            self.compare(id)?;
        }
        places::carried(points, &places::waiting(id), &mut || match is_done {
            true => Ok(()),
            false => rustix::fs::renameat_with(self.top.root(), &beside, self.top.root(), &live, RenameFlags::EXCHANGE)
                .map_err(Error::io("exchange with the new subvolume", &self.directory)),
        })?;
        self.top.commit()
    }

    /// Refused if the clone is not what the directory is now.
    fn compare(&self, id: Id) -> Result<(), Error> {
        let new = self.old(id);
        let changes = changes::between(&self.directory, &new, None)?;
        if let Some(error) = changes.unread.into_iter().next() {
            return Err(error);
        }
        let changed = changes.list.iter().find(|change| !self.stands_in(&change.path));
        match changed {
            None => Ok(()),
            Some(change) => Err(Error::refused(format!(
                "{} was changed while {} was cloned",
                self.directory.join(&change.path).display(),
                self.directory.display()
            ))
            .or("stop what writes there, and try again")),
        }
    }

    /// Whether something else is mounted, or another subvolume lies, at a path of the directory: in the clone, an empty
    /// directory or file stands for it.
    fn stands_in(&self, path: &Path) -> bool {
        let path = self.directory.join(path);
        let device = |path: &Path| rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW);
        match (device(&path), device(&self.directory)) {
            (Ok(one), Ok(other)) => one.st_dev != other.st_dev,
            _ => false,
        }
    }
}

fn beside(id: Id) -> String {
    format!(".snapback-{id}")
}

fn arguments(step: &Step) -> Result<Arguments, Error> {
    Arguments::deserialize(&step.arguments)
        .map_err(|error| Error::refused(format!("the step \"{}\" cannot be understood: {error}", step.name)))
}
