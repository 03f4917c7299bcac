//! The provider: a directory, and clones of it in a [store](super::store).
//!
//! A switch makes the clone the live tree, and the old live tree the one that is kept. So the snapshot is consumed: to
//! clone it once more first would take as long as making it did, and a rollback must not take longer the more files
//! there are.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::clone::{self, Options};
use super::store::{self, Marker, Stage, Store};
use super::{remove, space, switch};
use crate::error::Error;
use crate::id::Id;
use crate::mounts;
use crate::provider::{Abilities, Changed, Handle, Kind, Provider, Space, Step, View};

/// Snapshots of one directory by reflink.
#[derive(Clone, Debug)]
pub struct Reflink {
    directory: PathBuf,
}

/// Whether files in this directory can share extents: two are made there, without names, and it is tried.
///
/// # Errors
/// That of making them: without permission to write there is no answer.
pub fn can_share(directory: &Path) -> Result<bool, Error> {
    let unnamed = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)
    };
    let (one, other) = match unnamed().and_then(|one| Ok((one, unnamed()?))) {
        Ok(files) => files,
        // No file system that shares extents lacks files without names.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => return Ok(false),
        Err(error) => return Err(Error::io("make a file in", directory)(error)),
    };
    // Longer than what btrfs keeps inside of an inode.
    rustix::io::write(&one, &[1; 8192]).map_err(Error::io("write in", directory))?;
    Ok(rustix::fs::ioctl_ficlone(other.as_fd(), one.as_fd()).is_ok())
}

impl Reflink {
    /// Snapshots of a directory, which is given as an absolute path without symbolic links.
    ///
    /// # Errors
    /// Refused where extents cannot be shared.
    pub fn open(directory: &Path) -> Result<Reflink, Error> {
        // Where there are snapshots, nothing is tried out: they are listed and deleted on a full disk, too.
        let mut known = Store::all(directory).into_iter().map(|store| store.list());
        if !known.any(|list| list.is_ok_and(|list| !list.is_empty())) && !can_share(directory)? {
            let message = format!("the file system of {} cannot share extents between files", directory.display());
            return Err(Error::refused(message));
        }
        Ok(Reflink { directory: directory.to_owned() })
    }

    /// The store and marker of a snapshot, if it is one of ours; `None` if it is gone.
    fn find(&self, handle: &Handle) -> Result<Option<(Store, Marker)>, Error> {
        let Handle::Reflink { path } = handle else {
            return Err(Error::refused(format!("{handle:?} is no snapshot by reflink")));
        };
        for store in Store::all(&self.directory) {
            let Some(id) = store.id_of(path) else { continue };
            if let Some(marker) = store.read(id)? {
                return Ok(Some((store, marker)));
            }
            // Something without our marker.
            break;
        }
        match path.symlink_metadata() {
            Err(_) => Ok(None),
            Ok(_) => {
                let message = format!("{} is no snapshot of {}", path.display(), self.directory.display());
                Err(Error::refused(message).or("what Snapback did not make, it does not touch"))
            }
        }
    }

    fn find_complete(&self, handle: &Handle) -> Result<(Store, Marker), Error> {
        match self.find(handle)? {
            Some((store, marker)) if marker.stage == Stage::Complete => Ok((store, marker)),
            Some((_, marker)) => Err(Error::refused(format!("snapshot {} is not complete", marker.id))
                .or("delete it; its making or deleting was cut short")),
            None => Err(Error::refused(format!("a snapshot of {} is gone", self.directory.display()))),
        }
    }
}

impl Provider for Reflink {
    fn kind(&self) -> Kind {
        Kind::Reflink
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            is_atomic: false,
            switches_live: true,
            keeps_snapshot: false,
            keeps_old_tree: true,
            knows_changes: false,
            works_unprivileged: true,
            spares_state: false,
        }
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn list(&self) -> Result<Vec<(Id, Handle)>, Error> {
        let mut found = Vec::new();
        for store in Store::all(&self.directory) {
            let markers = store.list()?.into_iter();
            found.extend(markers.map(|marker| (marker.id, Handle::Reflink { path: store.tree(marker.id) })));
        }
        Ok(found)
    }

    fn create(&self, id: Id) -> Result<Handle, Error> {
        let store = Store::for_new(&self.directory)?;
        let mut marker = store.marker(id, Stage::Partial);
        let path = store.tree(id);
        if store.read(id)?.is_some() {
            return Err(Error::refused(format!("there is a snapshot {id} already")));
        }
        store.reserve(&marker)?;
        let options = Options { leave_out: vec![store::NAME.into()], ..Options::default() };
        let made = std::fs::create_dir(&path).map_err(Error::io("create", &path));
        match made.and_then(|()| clone::tree(&self.directory, &path, &options)) {
            Ok(totals) => marker.left_out = totals.left_out,
            Err(error) => {
                // What cannot be removed is found by `list`.
                let _ = remove::tree(&path).and_then(|()| store.release(id));
                return Err(error);
            }
        }
        marker.stage = Stage::Complete;
        store.write(&marker)?;
        Ok(Handle::Reflink { path })
    }

    fn delete(&self, handle: &Handle) -> Result<(), Error> {
        let Some((store, marker)) = self.find(handle)? else { return Ok(()) };
        let path = store.tree(marker.id);
        refuse_if_mounted(&path)?;
        if marker.stage == Stage::Complete {
            store.demote(marker.id)?;
        }
        remove::tree(&path)?;
        store.release(marker.id)
    }

    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        let (store, marker) = self.find_complete(handle)?;
        let tree = store.tree(marker.id);
        let point = tree.with_file_name(format!("{VIEW}{}.{}", std::process::id(), Id::random()));
        std::fs::create_dir(&point).map_err(Error::io("create", &point))?;
        let mounted = mount_read_only(&tree, &point);
        match mounted {
            Ok(()) => Ok(Box::new(Mounted { point })),
            Err(error) => {
                std::fs::remove_dir(&point).map_err(Error::io("remove", &point))?;
                match error {
                    Errno::PERM => Ok(Box::new(Direct { tree })),
                    error => Err(Error::io("mount", tree)(error)),
                }
            }
        }
    }

    fn space(&self, handle: &Handle) -> Result<Space, Error> {
        let (store, marker) = self.find_complete(handle)?;
        space::space(&self.directory, &store.tree(marker.id), &marker.left_out)
    }

    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        let (store, marker) = self.find_complete(to)?;
        switch::plan(&self.directory, &store, &marker, old)
    }

    fn perform(&self, step: &Step) -> Result<(), Error> {
        switch::perform(&self.directory, step)
    }

    fn revert(&self, step: &Step) -> Result<(), Error> {
        switch::revert(&self.directory, step)
    }

    fn changed_paths(&self, from: &Handle, to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error> {
        self.find_complete(from)?;
        to.map_or(Ok(None), |to| self.find_complete(to).map(|_| None))
    }
}

/// Beginning of the names of mount points, beside the tree.
const VIEW: &str = "view.";

/// A snapshot, mounted read-only.
struct Mounted {
    point: PathBuf,
}

impl View for Mounted {
    fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is left is removed when the snapshot is deleted.
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.point);
        // Empty only if the snapshot became the live tree meanwhile.
        let _ = self.point.parent().map(std::fs::remove_dir);
    }
}

/// Without the privilege to mount: the tree itself, which its owner could write to.
struct Direct {
    tree: PathBuf,
}

impl View for Direct {
    fn path(&self) -> &Path {
        &self.tree
    }
}

fn mount_read_only(tree: &Path, point: &Path) -> Result<(), Errno> {
    rustix::mount::mount_bind(tree, point)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    let read_only = rustix::mount::mount_remount(point, flags, c"");
    read_only.inspect_err(|_| {
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
    })
}

/// Refuses if somebody mounted a tree, or something in it. Views whose process died are taken away.
fn refuse_if_mounted(tree: &Path) -> Result<(), Error> {
    let home = tree.parent().unwrap_or(tree);
    for entry in std::fs::read_dir(home).map_err(Error::io("list", home))? {
        let path = entry.map_err(Error::io("list", home))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(VIEW));
        let Some(process) = name.and_then(|name| name.split('.').next()) else { continue };
        if Path::new("/proc").join(process).exists() {
            let message = format!("{} is being read by process {process}", tree.display());
            return Err(Error::refused(message).or("wait until it has ended"));
        }
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        std::fs::remove_dir(&path).map_err(Error::io("remove", &path))?;
    }
    let mounts = mounts::mounts()?;
    let Some(mount) = mounts::mount_of(&mounts, tree) else { return Ok(()) };
    let inside = mount.inside(tree);
    let of_tree = |other: &&mounts::Mount| {
        other.device == mount.device && inside.as_ref().is_some_and(|inside| other.root.starts_with(inside))
    };
    match mounts.iter().find(of_tree).or(mounts::below(&mounts, home).next()) {
        None => Ok(()),
        Some(other) => Err(Error::refused(format!("{} is mounted at {}", tree.display(), other.point.display()))
            .or("unmount it and delete once more")),
    }
}
