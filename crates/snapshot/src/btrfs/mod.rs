//! Snapshots of a btrfs subvolume, by ioctls alone.
//!
//! A snapshot is a read-only subvolume that shares all its blocks with the one it was made of. Snapback keeps them at
//! the top level of the file system (see `top`), out of sight of whoever uses the subvolume and of a rollback of
//! it. A rollback makes a writable snapshot of the snapshot and exchanges the two names in one rename.
//!
//! Neither quotas nor freezing are used: the first slow a busy file system to a halt, the second stops a snapshot from
//! being made at all. Does not know of records and journals.

mod boot;
mod changes;
pub mod convert;
pub(crate) mod ioctl;
mod nested;
mod places;
mod plan;
mod search;
mod space;
mod stream;
mod switch;
mod temporary;
mod top;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;

use self::ioctl::Subvolume;
use self::top::{TREE, Top, id_at, is_root, place};
use crate::attach;
use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};
use crate::place as looking;
use crate::provider::{Abilities, Changed, Handle, Kind, Nested, Provider, Space, Step, View};

/// A directory that is a btrfs subvolume.
#[derive(Debug)]
pub struct Btrfs {
    directory: PathBuf,
    top: Top,
    /// Where the subvolume lies, from the top level. A rollback puts another one in its place.
    path: PathBuf,
}

/// What a path on a btrfs is.
#[derive(Debug)]
pub enum Place {
    /// The root of a subvolume.
    Subvolume(Btrfs),
    /// A directory in a subvolume, whose root this is.
    Inside(PathBuf),
}

/// Finds out what a directory on a btrfs is; `None` if it is on another file system. The path is absolute and without
/// symbolic links. Needs CAP_SYS_ADMIN for a subvolume.
pub fn open(directory: &Path, mounts: &[Mount]) -> Result<Option<Place>, Error> {
    let Some(mount) = mounts::mount_of(mounts, directory).filter(|mount| mount.kind == "btrfs") else {
        return Ok(None);
    };
    let mut root = directory;
    loop {
        let stat = rustix::fs::stat(root).map_err(Error::io("look at", root))?;
        match root.parent() {
            _ if is_root(&stat) => break,
            Some(parent) if root != mount.point => root = parent,
            _ => break,
        }
    }
    if root != directory {
        return Ok(Some(Place::Inside(root.to_owned())));
    }
    let fd = open_directory(directory)?;
    if !is_root(&rustix::fs::fstat(&fd).map_err(Error::io("look at", directory))?) {
        // A bind mount of a directory in a subvolume.
        return Ok(Some(Place::Inside(root.to_owned())));
    }
    let top = Top::open(mount, &fd)?;
    let live = ioctl::subvolume(&fd).map_err(Error::io("ask for the subvolume at", directory))?;
    let path = top.path_of(live.id)?.ok_or_else(|| {
        Error::refused(format!("{} is a subvolume that was deleted", directory.display())).or("mount or make it anew")
    })?;
    // In the middle of a rollback, a mount still shows the old tree, which has got a place of ours already.
    let path = id_at(&path).and_then(|id| top.of(id)).unwrap_or(path);
    Ok(Some(Place::Subvolume(Btrfs { directory: directory.to_owned(), top, path })))
}

fn open_directory(path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("open", path))
}

/// Nothing in a snapshot that is looked at is to be run with other rights, and reading it leaves no trace.
const LOOKING: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOATIME);

/// A snapshot that is mounted to be looked at.
struct Looked {
    at: looking::Place,
}

impl View for Looked {
    fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Btrfs {
    /// The subvolume that is live now. Refused if the directory shows another one than has its name.
    fn live(&self) -> Result<(OwnedFd, Subvolume), Error> {
        let fd = open_directory(&self.directory)?;
        let live = ioctl::subvolume(&fd).map_err(Error::io("ask for the subvolume at", &self.directory))?;
        if self.top.path_of(live.id)?.as_ref() != Some(&self.path) {
            let directory = self.directory.display();
            let way_out = match self.directory.parent() {
                Some(_) => format!("let the rollback be finished or taken back, or mount {directory} again"),
                None => "restart the system: it goes on with the old tree until then".to_owned(),
            };
            return Err(
                Error::refused(format!("{directory} shows a snapshot, or the tree of before a rollback")).or(way_out)
            );
        }
        Ok((fd, live))
    }

    /// The id under which a handle's tree lies; `None` if it is gone. Refused if it is not what the handle says, or
    /// not a tree of this directory that Snapback made.
    fn find(&self, handle: &Handle) -> Result<Option<(Id, OwnedFd, Subvolume)>, Error> {
        let Handle::Btrfs { filesystem, subvolume, uuid } = handle else {
            return Err(Error::refused(format!("{handle:?} is not a snapshot on a btrfs")));
        };
        if *filesystem != self.top.filesystem {
            return Err(Error::refused(format!(
                "the snapshot lies on the btrfs {filesystem}, and {} on {}",
                self.directory.display(),
                self.top.filesystem
            ))
            .or("mount the file system that the snapshot lies on"));
        }
        let Some(path) = self.top.path_of(*subvolume)? else { return Ok(None) };
        let stranger = |why: &str| {
            let path = self.top.named(&path);
            Error::refused(format!("the subvolume {subvolume} ({}) {why}", path.display()))
        };
        let Some(id) = id_at(&path) else { return Err(stranger("is not a snapshot that Snapback made")) };
        if self.top.of(id).as_ref() != Some(&self.path) {
            return Err(stranger(&format!("is not a snapshot of {}", self.directory.display())));
        }
        let Some((fd, found)) = self.top.subvolume_at(&path)? else { return Ok(None) };
        if found.id != *subvolume || found.uuid != *uuid {
            return Err(stranger(&format!("has the UUID {}, and not {uuid}", found.uuid)));
        }
        Ok(Some((id, fd, found)))
    }

    /// As `find`, but it must be there.
    fn found(&self, handle: &Handle) -> Result<(Id, OwnedFd, Subvolume), Error> {
        self.find(handle)?.ok_or_else(|| {
            let Handle::Btrfs { subvolume, .. } = handle else { unreachable!("`find` refuses others") };
            Error::refused(format!("the snapshot's subvolume {subvolume} is gone from {}", self.top.filesystem))
                .or("delete the snapshot to forget it")
        })
    }

    /// Deletes the tree of an id.
    fn destroy(&self, id: Id, tree: &Subvolume) -> Result<(), Error> {
        places::refuse_mounted(&self.top, tree.id, &format!("the tree of {id}"))?;
        let Some(directory) = self.top.open_at(&place(id))? else { return Ok(()) };
        let path = place(id).join(TREE);
        ioctl::destroy_subvolume(&directory, TREE).map_err(Error::io("delete", self.top.named(&path)))
    }

    /// Makes the tree of an id, of another one.
    fn copy(&self, of: &OwnedFd, id: Id, is_read_only: bool) -> Result<Handle, Error> {
        let place = self.top.make_place(id, &self.path)?;
        let made = ioctl::create_snapshot(of.as_fd(), &place, TREE, is_read_only);
        let failed = |error: std::io::Error| match error.raw_os_error() {
            Some(libc::ETXTBSY) => Error::refused(format!("a swap file is in use in {}", self.directory.display()))
                .or("move it to a subvolume of its own (swapoff, then swapon)"),
            _ => Error::io("take a snapshot of", &self.directory)(error),
        };
        made.map_err(failed).inspect_err(|_| {
            // The error of the snapshot is the one to tell.
            let _ = self.top.remove_place(id);
        })?;
        let path = top::place(id).join(TREE);
        let (_, found) = self
            .top
            .subvolume_at(&path)?
            .ok_or_else(|| Error::refused(format!("the new snapshot {} is gone", self.top.named(&path).display())))?;
        Ok(self.handle(&found))
    }

    /// Mounts a tree somewhere.
    fn show(&self, handle: &Handle, attributes: MountAttrFlags, who: looking::For) -> Result<Box<dyn View>, Error> {
        let (_, _, found) = self.found(handle)?;
        let mount = self.top.mount(found.id, attributes)?;
        looking::sweep()?;
        let at = looking::Place::made(who)?;
        attach::attach(&mount, CWD, at.path())?;
        Ok(Box::new(Looked { at }))
    }

    fn handle(&self, subvolume: &Subvolume) -> Handle {
        let (subvolume, uuid) = (subvolume.id, subvolume.uuid.clone());
        Handle::Btrfs { filesystem: self.top.filesystem.clone(), subvolume, uuid }
    }
}

impl Provider for Btrfs {
    fn kind(&self) -> Kind {
        Kind::Btrfs
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: true,
            switches_live: true,
            keeps_snapshot: true,
            keeps_old_tree: true,
            knows_changes: true,
            works_unprivileged: false,
            spares_state: false,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let mut list = Vec::new();
        for id in self.top.ids()? {
            if self.top.of(id).as_ref() == Some(&self.path)
                && let Some((_, found)) = self.top.subvolume_at(&place(id).join(TREE))?
            {
                list.push((id, self.handle(&found)));
            }
        }
        list.sort_by_key(|(id, _)| *id);
        Ok(list)
    }

    fn nested(&self) -> Result<Vec<Nested>, Error> {
        let (_, live) = self.live()?;
        let mut found = Vec::new();
        for (_, path) in self.top.nested(live.id)? {
            let place = self.path.join(&path);
            let Some((_, subvolume)) = self.top.subvolume_at(&place)? else { continue };
            if id_at(&place).is_none() {
                found.push(Nested { path, is_read_only: subvolume.is_read_only });
            }
        }
        Ok(found)
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        let (live, _) = self.live()?;
        self.copy(&live, id, true)
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        let Some((id, _, found)) = self.find(handle)? else { return Ok(()) };
        // Who looked at it and died does not stand against it.
        looking::sweep()?;
        let nested = self.top.nested(found.id)?;
        if let Some((_, first)) = nested.first() {
            let path = self.top.named(&place(id).join(TREE).join(first));
            return Err(Error::refused(format!("the subvolume {} lies in the tree of {id}", path.display()))
                .or("move or delete that subvolume first"));
        }
        self.destroy(id, &found)?;
        self.top.remove_place(id)
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        self.show(handle, MountAttrFlags::MOUNT_ATTR_RDONLY | LOOKING, looking::For::Owner)
    }

    fn clone_of(&self, snapshot: &Handle, id: Id) -> Result<Option<Handle>, Error> {
        let (_, tree, _) = self.found(snapshot)?;
        self.copy(&tree, id, false).map(Some)
    }

    fn view_clone(&self, clone: &Handle) -> Result<Box<dyn View>, Error> {
        self.show(clone, LOOKING, looking::For::Servers)
    }

    fn space(&self, handle: &Handle) -> Result<Space, Error> {
        self.spaces(std::slice::from_ref(handle)).swap_remove(0)
    }

    fn spaces(&self, handles: &[Handle]) -> Vec<Result<Space, Error>> {
        match self.present() {
            Ok(present) => handles.iter().map(|handle| self.space_of(handle, &present)).collect(),
            Err(error) => {
                let message = error.to_string();
                let mut first = Some(error);
                let again = |_| Err(first.take().unwrap_or_else(|| Error::refused(message.clone())));
                handles.iter().map(again).collect()
            }
        }
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        self.plan(to, old)
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        self.do_step(step)
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        self.undo_step(step)
    }

    fn changed_paths(&self, from: &Handle, to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        self.changes(from, to, usize::MAX)
    }

    fn tells_dirty_paths(&self) -> bool {
        true
    }

    fn dirty_paths(&self, from: &Handle, to: &Handle, most: usize) -> Result<Option<Vec<Changed>>, Error> {
        self.changes(from, Some(to), most)
    }
}
