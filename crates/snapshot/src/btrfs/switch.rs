//! Putting a snapshot's content in the place of the live subvolume.
//!
//! A writable snapshot of the snapshot is made where the old tree is to be kept, then the two exchange their names in
//! one rename: from then on the name is the new tree's, and the old one lies at the place of its id. What is not part
//! of a snapshot (nested subvolumes, mounts) is moved across. Each step finds out by the subvolumes' numbers how far it
//! got, so that it can be performed or reverted from any state in which a crash left it.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Btrfs;
use super::ioctl;
use super::nested::{self, Nested, Way};
use super::places::{self, Place};
use super::top::{TREE, place};
use crate::error::Error;
use crate::id::Id;
use crate::provider::{Handle, Step};

/// A step's arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arguments {
    /// Under which id the old tree is kept.
    pub(super) old: Id,
    /// The subvolume that was live when it was planned.
    pub(super) live: u64,
    #[serde(flatten)]
    pub(super) work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Work {
    /// Make the new tree, with directories for what is to be moved into it.
    Prepare { from: Handle, needed: Vec<Needed> },
    /// Exchange the names; mounts upon directories of the old tree come along.
    Exchange { mounts: Vec<PathBuf> },
    /// Move nested subvolumes across, and make mounts of the old tree show the new one. What is mounted in a nested
    /// subvolume cannot be reached between the two, and waits elsewhere. If the old tree is the root of the running
    /// system, it goes on to be until the next start, and the nested subvolumes are mounted in it, with these options.
    Across { nested: Vec<Nested>, places: Vec<Place>, waiting: Vec<PathBuf>, running: Option<String> },
    /// What is mounted where no subvolume is asked for.
    Default,
}

/// Something upon which a subvolume or a mount will lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Needed {
    pub(super) path: PathBuf,
    pub(super) is_directory: bool,
    /// Whether it must be there itself, or just the directory in which it lies.
    pub(super) is_point: bool,
}

impl Btrfs {
    pub(super) fn do_step(&self, step: &Step) -> Result<(), Error> {
        let Arguments { old, live, work } = arguments(step)?;
        match work {
            Work::Prepare { from, needed } => self.prepare(old, live, &from, &needed),
            Work::Exchange { mounts } => self.exchange(old, live, &mounts, true),
            Work::Across { nested, places, waiting, running } => {
                places::carried(&waiting, &places::waiting(old), &mut || {
                    let trees = [place(old).join(TREE), self.path.clone()];
                    let trees = [trees[0].as_path(), trees[1].as_path()];
                    nested::move_across(&self.top, &nested, trees, Way::Forth)?;
                    if let Some(options) = &running {
                        nested::show_in_root(&self.top, &nested, trees, options)?;
                    }
                    self.switch_mounts(&places, live, self.at(&self.path)?)
                })
            }
            Work::Default => self.make_default(self.at(&self.path)?),
        }
    }

    pub(super) fn undo_step(&self, step: &Step) -> Result<(), Error> {
        let Arguments { old, live, work } = arguments(step)?;
        // Before the exchange, nothing after it was done.
        let is_exchanged = self.is_exchanged(old, live)?;
        match work {
            Work::Prepare { .. } => self.discard(old, live),
            Work::Exchange { mounts } => self.exchange(old, live, &mounts, false),
            _ if !is_exchanged => Ok(()),
            Work::Across { nested, places, waiting, running } => {
                places::carried(&waiting, &places::waiting(old), &mut || {
                    let trees = [place(old).join(TREE), self.path.clone()];
                    if running.is_some() {
                        nested::hide_in_root(&self.top, &nested)?;
                    }
                    let trees = [trees[0].as_path(), trees[1].as_path()];
                    nested::move_across(&self.top, &nested, trees, Way::Back)?;
                    self.switch_mounts(&places, self.at(&self.path)?, live)
                })
            }
            Work::Default => self.make_default(live),
        }
    }

    fn is_exchanged(&self, old: Id, live: u64) -> Result<bool, Error> {
        Ok(self.top.subvolume_at(&place(old).join(TREE))?.is_some_and(|(_, found)| found.id == live))
    }

    /// The number of the subvolume at a path.
    fn at(&self, path: &Path) -> Result<u64, Error> {
        let found = self.top.subvolume_at(path)?;
        let (_, found) = found.ok_or_else(|| Error::io("open", self.top.named(path))(Errno::NOENT))?;
        Ok(found.id)
    }

    fn prepare(&self, old: Id, live: u64, from: &Handle, needed: &[Needed]) -> Result<(), Error> {
        if self.is_exchanged(old, live)? {
            return Ok(());
        }
        // Whatever a try that was cut off left behind.
        self.discard(old, live)?;
        let path = place(old).join(TREE);
        let (_, snapshot, _) = self.found(from)?;
        let directory = self.top.make_place(old, &self.path)?;
        ioctl::create_snapshot(snapshot.as_fd(), &directory, TREE, false)
            .map_err(Error::io("make a writable snapshot at", self.top.named(&path)))?;
        for needed in needed {
            self.make_needed(&path, needed)?;
        }
        self.top.commit()
    }

    /// Makes a place in the new tree as the live one has it, where the new tree does not have it.
    fn make_needed(&self, tree: &Path, needed: &Needed) -> Result<(), Error> {
        let last = if needed.is_point { Some(needed.path.as_path()) } else { None };
        let mut missing: Vec<&Path> = needed.path.ancestors().skip(1).collect();
        missing.reverse();
        for path in missing.into_iter().chain(last).filter(|path| !path.as_os_str().is_empty()) {
            let target = tree.join(path);
            if self.top.open_at(&target)?.is_some() {
                continue;
            }
            let is_directory = needed.is_directory || path != needed.path;
            let parent = target.parent().unwrap_or(&target).to_owned();
            self.keeping_times(&parent, || {
                if is_directory {
                    rustix::fs::mkdirat(self.top.root(), &target, Mode::RWXU)
                } else {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                    rustix::fs::openat(self.top.root(), &target, flags, Mode::RUSR | Mode::WUSR).map(drop)
                }
                .map_err(Error::io("create", self.top.named(&target)))
            })?;
            let (Some(model), Some(made)) = (self.top.open_at(&self.path.join(path))?, self.top.open_at(&target)?)
            else {
                continue;
            };
            let failed = || Error::io("set the owner and mode of", self.top.named(&target));
            let stat = rustix::fs::fstat(&model).map_err(failed())?;
            let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
            rustix::fs::fchown(&made, Some(owner.0), Some(owner.1)).map_err(failed())?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode)).map_err(failed())?;
        }
        Ok(())
    }

    /// Makes something in a directory, and gives it back the time it had.
    fn keeping_times(&self, directory: &Path, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let Some(fd) = self.top.open_at(directory)? else { return work() };
        let (tv_sec, tv_nsec) = nested::modified(&fd)?;
        work()?;
        let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = Timestamps { last_access, last_modification: Timespec { tv_sec, tv_nsec } };
        rustix::fs::futimens(&fd, &times).map_err(Error::io("set the times of", self.top.named(directory)))
    }

    /// Takes back what `prepare` made.
    fn discard(&self, old: Id, live: u64) -> Result<(), Error> {
        let path = place(old).join(TREE);
        if let Some((_, found)) = self.top.subvolume_at(&path)? {
            if found.id == live || !self.top.nested(found.id)?.is_empty() {
                let path = self.top.named(&path);
                return Err(Error::refused(format!("{} still holds what was live", path.display())));
            }
            self.destroy(old, &found)?;
        }
        match self.top.of(old) {
            Some(of) if of == self.path => self.top.remove_place(old),
            _ => Ok(()),
        }
    }

    fn exchange(&self, old: Id, live: u64, points: &[PathBuf], forward: bool) -> Result<(), Error> {
        let kept = place(old).join(TREE);
        if !forward && self.top.subvolume_at(&kept)?.is_none() {
            return Ok(());
        }
        places::carried(points, &places::waiting(old), &mut || {
            if self.is_exchanged(old, live)? == forward {
                return Ok(());
            }
            rustix::fs::renameat_with(self.top.root(), &kept, self.top.root(), &self.path, RenameFlags::EXCHANGE)
                .map_err(Error::io("exchange the subvolume at", self.top.named(&self.path)))
        })?;
        self.top.commit()
    }

    fn switch_mounts(&self, places: &[Place], from: u64, to: u64) -> Result<(), Error> {
        places.iter().try_for_each(|place| places::switch(&self.top, place, from, to, &self.directory))
    }

    fn make_default(&self, subvolume: u64) -> Result<(), Error> {
        ioctl::set_default(self.top.root(), subvolume)
            .map_err(Error::io("set the default subvolume of", self.top.named(Path::new(""))))?;
        self.top.commit()
    }
}

fn arguments(step: &Step) -> Result<Arguments, Error> {
    Arguments::deserialize(&step.arguments)
        .map_err(|error| Error::refused(format!("the step \"{}\" cannot be understood: {error}", step.name)))
}
