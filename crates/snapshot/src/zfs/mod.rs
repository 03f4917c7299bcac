//! ZFS: a snapshot of the dataset that is mounted on the directory, through the command `zfs`.
//!
//! A snapshot is `DATASET@snapback-ID`. A switch never rolls a dataset back, as that destroys whatever snapshots are
//! newer: it clones the snapshot, promotes the clone, and gives it the dataset's name (zfs-promote(8)). The former
//! dataset becomes a *shell*, `DATASET.snapback-OLD`, that is never mounted: it carries the tree that was left as a
//! snapshot `@snapback-OLD` of its own, and the snapshots that are newer than the one switched to. A shell is
//! destroyed when the last snapshot in it is deleted.
//!
//! So a snapshot may move to another dataset of this *family*. Its handle names the dataset it is of, wherever it lies,
//! and what names it for good is its guid. Children of the
//! dataset are file systems of their own, and no part of a snapshot.
//!
//! All commands are asked with `-Hp`, which every version understands. Does not know of pools.

mod command;
mod diff;
mod family;
mod shell;
mod switch;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};
use crate::provider::{Abilities, Changed, Handle, Kind, Provider, Space, Step, View};
use crate::runner::Runner;

use command::Command;
use family::{Family, Snapshot};

/// The dataset mounted on a directory.
#[derive(Clone)]
pub struct Zfs {
    directory: PathBuf,
    dataset: String,
    command: Command,
}

impl Zfs {
    /// The provider for a directory without symbolic links; `None` if it is not the root of a mounted dataset.
    pub fn open(directory: &Path, mounts: &[Mount], runner: Arc<dyn Runner>) -> Result<Option<Zfs>, Error> {
        let Some(mount) = mounts::mount_of(mounts, directory) else { return Ok(None) };
        // The second is what zfs-fuse calls itself.
        let is_zfs = mount.kind == "zfs" || mount.kind == "fuse.zfs";
        if !is_zfs || mount.point != directory || mount.root != Path::new("/") {
            return Ok(None);
        }
        let Some(dataset) = mount.source.to_str().filter(|source| !source.contains('@')) else { return Ok(None) };
        let dataset = dataset.to_owned();
        Ok(Some(Zfs { directory: directory.to_owned(), dataset, command: Command::new(runner) }))
    }

    /// The provider of which a snapshot was made, when its dataset is not mounted, as in the middle of a switch, so
    /// that [`Zfs::open`] does not find it. `None` if it was another mechanism.
    pub fn reopen(directory: &Path, handle: &Handle, runner: Arc<dyn Runner>) -> Option<Zfs> {
        let Handle::Zfs { dataset, .. } = handle else { return None };
        let (directory, dataset) = (directory.to_owned(), dataset.clone());
        Some(Zfs { directory, dataset, command: Command::new(runner) })
    }

    /// The dataset.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    fn family(&self) -> Result<Family, Error> {
        Family::read(&self.command, &self.dataset)
    }

    fn handle(&self, snapshot: &Snapshot) -> Handle {
        let (dataset, name, guid) = (self.dataset.clone(), snapshot.name.clone(), snapshot.guid.clone());
        Handle::Zfs { dataset, name, guid }
    }

    /// The snapshot that a handle means, wherever in the family it is by now.
    fn find(&self, handle: &Handle) -> Result<Snapshot, Error> {
        let (dataset, name, _) = parts(handle)?;
        let found = self.family()?.find(&self.dataset, handle)?.cloned();
        found.ok_or_else(|| Error::NoSuchSnapshot(format!("{dataset}@{name}")))
    }
}

impl Provider for Zfs {
    fn kind(&self) -> Kind {
        Kind::Zfs
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: true,
            switches_live: false,
            keeps_snapshot: true,
            keeps_old_tree: true,
            // zfs-fuse has no `zfs diff`, and no module in the kernel.
            knows_changes: Path::new("/sys/module/zfs").exists(),
            works_unprivileged: false,
            spares_state: false,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let family = self.family()?;
        let ours = family.snapshots.iter().filter(|snapshot| !snapshot.is_doomed);
        Ok(ours.filter_map(|snapshot| Some((snapshot.id?, self.handle(snapshot)))).collect())
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        // What was written through a memory map is in the page cache only.
        crate::place::sync_file_system(&self.directory)?;
        let name = family::snapshot_name(id);
        let full = format!("{}@{name}", self.dataset);
        self.command.run(&["snapshot", "-o", &format!("{}={id}", family::ID), &full])?;
        let guid = self.command.property("guid", &full)?;
        Ok(Handle::Zfs { dataset: self.dataset.clone(), name, guid })
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        view::sweep(&self.command, &self.dataset)?;
        let family = self.family()?;
        let Some(snapshot) = family.find(&self.dataset, handle)? else { return Ok(()) };
        if snapshot.id.is_none() {
            let message = format!("{} was not made by Snapback, and is not deleted", snapshot.full());
            return Err(Error::refused(message));
        }
        if !snapshot.is_doomed {
            // Deferred: a snapshot that the present tree or a shell was cloned from goes when they no longer need it.
            self.command.run(&["destroy", "-d", &snapshot.full()])?;
        }
        shell::tidy(&self.command, &family, snapshot);
        Ok(())
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        view::open(self, &self.find(handle)?)
    }

    fn space(&self, handle: &Handle) -> Result<Space, Error> {
        let family = self.family()?;
        let (dataset, name, _) = parts(handle)?;
        let Some(snapshot) = family.find(&self.dataset, handle)? else {
            return Err(Error::NoSuchSnapshot(format!("{dataset}@{name}")));
        };
        // The head of a shell is the tree of its newest snapshot, and hides what that holds alone.
        let shell = family.shells.iter().find(|shell| shell.name == snapshot.dataset);
        let head = shell.filter(|_| family.is_newest(snapshot)).map_or(0, |shell| shell.used_by_head);
        let reclaimable = Some(snapshot.used.max(head));
        // Fails for a snapshot that is no ancestor of the present tree, and where the property is not known (OpenZFS
        // has it since 0.6.4).
        let written = self.command.property(&format!("written@{}", snapshot.name), &self.dataset);
        let grown = written.ok().and_then(|written| written.parse().ok());
        Ok(Space { grown, reclaimable })
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        let snapshot = self.find(to)?;
        switch::plan(self, &snapshot, old)
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        switch::perform(self, step)
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        switch::revert(self, step)
    }

    fn changed_paths(&self, from: &Handle, to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        let from = self.find(from)?;
        let to = to.map(|to| self.find(to)).transpose()?;
        Ok(diff::changed_paths(self, &from, to.as_ref()))
    }

    /// Whatever a node of a backup holds changes the ctime, by which `zfs diff` tells.
    fn dirty_paths(&self, from: &Handle, to: &Handle, most: usize) -> Result<Option<Vec<Changed>>, Error> {
        Ok(self.changed_paths(from, Some(to))?.filter(|told| told.len() <= most))
    }

    fn tells_dirty_paths(&self) -> bool {
        true
    }
}

/// Dataset, name and guid of a handle.
fn parts(handle: &Handle) -> Result<(&str, &str, &str), Error> {
    match handle {
        Handle::Zfs { dataset, name, guid } => Ok((dataset, name, guid)),
        _ => Err(Error::refused("this snapshot does not lie on ZFS")),
    }
}
