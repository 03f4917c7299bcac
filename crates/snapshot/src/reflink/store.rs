//! Where snapshots by reflink lie, and how Snapback knows its own.
//!
//! ```text
//! /srv/shop                         the directory
//! /srv/.snapback/ID/tree            a snapshot of it
//! /srv/.snapback/ID/snapback.json   its marker
//! ```
//!
//! Beside the directory, so that it is never part of what it holds; inside of it (and then left out of every clone) if
//! the directory is where a file system is mounted, or a subvolume, or if its parent is not the user's to write.
//!
//! The marker is there before the tree and goes after it: what has none was not made by Snapback, and is not touched.
//! The store is its owner's alone, because a snapshot would otherwise show to everybody what the directories above the
//! original hide.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Id;

/// Name of the store.
pub(crate) const NAME: &str = ".snapback";
const MARKER: &str = "snapback.json";
/// The marker's name once the tree is being deleted: a rename needs no room on a disk that is full.
const DEMOTED: &str = "snapback.deleting.json";
const UNFINISHED: &str = "snapback.tmp";
const TREE: &str = "tree";

/// How far a tree in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// Being made or deleted, or a creation or deletion that was cut short.
    Partial,
    /// All there.
    Complete,
}

/// What Snapback writes beside each tree that it makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// The same as the name of the directory it lies in.
    pub(super) id: Id,
    /// Of which directory: its name beside the store, or `.` if the store lies inside.
    pub(super) of: PathBuf,
    pub(super) stage: Stage,
    /// Mounts, nested subvolumes and stores that are not part of the tree, relative to its root.
    pub(super) left_out: Vec<PathBuf>,
}

/// A place for the snapshots of one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    path: PathBuf,
    of: PathBuf,
}

impl Store {
    fn beside(directory: &Path) -> Option<Store> {
        let name = directory.file_name()?;
        Some(Store { path: directory.with_file_name(NAME), of: PathBuf::from(name) })
    }

    fn inside(directory: &Path) -> Store {
        Store { path: directory.join(NAME), of: PathBuf::from(".") }
    }

    /// Where snapshots of a directory may be.
    pub(super) fn all(directory: &Path) -> Vec<Store> {
        let stores = Store::beside(directory).into_iter().chain([Store::inside(directory)]);
        stores.filter(|store| store.is_ours().unwrap_or(false)).collect()
    }

    /// The one for a new snapshot, which is made if it is not there.
    pub(super) fn for_new(directory: &Path) -> Result<Store, Error> {
        if let Some(store) = Store::beside(directory)
            && !is_apart(directory)?
            && store.is_usable(directory.parent().unwrap_or(directory))?
        {
            store.make()?;
            return Ok(store);
        }
        let store = Store::inside(directory);
        if !store.is_usable(directory)? {
            let message = format!("there is no place for snapshots of {}", directory.display());
            return Err(Error::refused(message)
                .or(format!("the directory and {} must belong to whoever makes snapshots", store.path.display())));
        }
        let before = fs::symlink_metadata(directory).map_err(Error::io("look at", directory))?;
        store.make()?;
        // The directory itself must not look changed.
        let times = fs::FileTimes::new()
            .set_accessed(before.accessed().map_err(Error::io("look at", directory))?)
            .set_modified(before.modified().map_err(Error::io("look at", directory))?);
        let kept = File::open(directory).and_then(|opened| opened.set_times(times));
        kept.map_err(Error::io("set the times of", directory))?;
        Ok(store)
    }

    /// Where the store lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn is_usable(&self, parent: &Path) -> Result<bool, Error> {
        match rustix::fs::accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Ok(()) => Ok(!self.path.exists() || self.is_ours()?),
            Err(Errno::ACCESS | Errno::PERM) => Ok(false),
            Err(error) => Err(Error::io("look at", parent)(error)),
        }
    }

    /// Whether it is a directory of our own that nobody else can write to.
    fn is_ours(&self) -> Result<bool, Error> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            stat => {
                let stat = stat.map_err(Error::io("look at", &self.path))?;
                let is_private = stat.mode() & 0o077 == 0;
                Ok(stat.is_dir() && is_private && stat.uid() == rustix::process::geteuid().as_raw())
            }
        }
    }

    fn make(&self) -> Result<(), Error> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
            made => made.map_err(Error::io("create", &self.path))?,
        }
        // Nothing below may inherit a group or an ACL from the directory that the store lies in.
        rustix::fs::chmod(&self.path, Mode::RWXU).map_err(Error::io("set the mode of", &self.path))?;
        for acl in [c"system.posix_acl_default", c"system.posix_acl_access"] {
            match rustix::fs::lremovexattr(&self.path, acl) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(Error::io("remove an ACL of", &self.path)(error)),
            }
        }
        sync(self.path.parent().unwrap_or(&self.path))
    }

    fn home(&self, id: Id) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Where a tree lies, or would lie.
    pub(super) fn tree(&self, id: Id) -> PathBuf {
        self.home(id).join(TREE)
    }

    /// A new marker of this store.
    pub(super) fn marker(&self, id: Id, stage: Stage) -> Marker {
        Marker { id, of: self.of.clone(), stage, left_out: Vec::new() }
    }

    /// Makes the place of a tree, with its marker. One that is there already is success.
    pub(super) fn reserve(&self, marker: &Marker) -> Result<(), Error> {
        let home = self.home(marker.id);
        if self.read(marker.id)?.is_some() {
            return Ok(());
        }
        // Under another name until the marker is in it.
        let unfinished = self.path.join(format!("{}.new", marker.id));
        match DirBuilder::new().mode(0o700).create(&unfinished) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::io("create", &unfinished))?,
        }
        write(&unfinished, marker).inspect_err(|_| {
            // A disk that is full; without a marker nobody finds it again.
            let _ = fs::remove_file(unfinished.join(UNFINISHED));
            let _ = fs::remove_dir(&unfinished);
        })?;
        fs::rename(&unfinished, &home).map_err(Error::io("create", &home))?;
        sync(&self.path)
    }

    /// The marker of a tree that Snapback made of this directory; `None` if there is no such thing.
    pub(super) fn read(&self, id: Id) -> Result<Option<Marker>, Error> {
        let home = self.home(id);
        let Some((path, mut marker)) =
            read(home.join(MARKER))?.map_or_else(|| read(home.join(DEMOTED)), |it| Ok(Some(it)))?
        else {
            return Ok(None);
        };
        if path.ends_with(DEMOTED) {
            marker.stage = Stage::Partial;
        }
        if marker.id != id {
            let reason = format!("it is the marker of {}", marker.id);
            return Err(Error::Damaged { path, reason });
        }
        Ok((marker.of == self.of).then_some(marker))
    }

    /// Changes the marker of a tree, durably.
    pub(super) fn write(&self, marker: &Marker) -> Result<(), Error> {
        write(&self.home(marker.id), marker)
    }

    /// Says that a tree is not complete any more, before it is deleted. Works on a full disk.
    pub(super) fn demote(&self, id: Id) -> Result<(), Error> {
        let home = self.home(id);
        fs::rename(home.join(MARKER), home.join(DEMOTED)).map_err(Error::io("rename", home.join(MARKER)))?;
        sync(&home)
    }

    /// Removes the place of a tree that is not there any more. One that is gone is success.
    pub(super) fn release(&self, id: Id) -> Result<(), Error> {
        let home = self.home(id);
        for path in [home.join(MARKER), home.join(DEMOTED), home.join(UNFINISHED)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::io("remove", &path))?,
            }
        }
        match fs::remove_dir(&home) {
            // Somebody still reads the tree that was here; the mount point goes with the reader.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY)) => {}
            removed => removed.map_err(Error::io("remove", &home))?,
        }
        sync(&self.path)
    }

    /// The trees of this directory, in the order of their ids.
    pub(super) fn list(&self) -> Result<Vec<Marker>, Error> {
        let mut markers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::io("list", &self.path))? {
            let name = entry.map_err(Error::io("list", &self.path))?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            markers.extend(self.read(id)?);
        }
        markers.sort_by_key(|marker| marker.id);
        Ok(markers)
    }

    /// The id of a tree, if its path is one in this store.
    pub(super) fn id_of(&self, tree: &Path) -> Option<Id> {
        let id = tree.parent()?.file_name()?.to_str()?.parse().ok()?;
        (self.tree(id) == tree).then_some(id)
    }
}

fn read(path: PathBuf) -> Result<Option<(PathBuf, Marker)>, Error> {
    let text = match fs::read(&path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(None),
        text => text.map_err(Error::io("read", &path))?,
    };
    match serde_json::from_slice(&text) {
        Ok(marker) => Ok(Some((path, marker))),
        Err(error) => Err(Error::Damaged { path, reason: error.to_string() }),
    }
}

fn write(home: &Path, marker: &Marker) -> Result<(), Error> {
    let (path, unfinished) = (home.join(MARKER), home.join(UNFINISHED));
    let unwritable = |error: serde_json::Error| Error::refused(format!("{}: {error}", home.display()));
    let text = serde_json::to_vec(marker).map_err(unwritable)?;
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = file.open(&unfinished).map_err(Error::io("create", &unfinished))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
    sync(home)
}

/// Makes the names in a directory durable.
pub(super) fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", directory))
}

/// Whether the directory cannot change places with another one beside its parent's other entries: a mount point, or
/// a subvolume (names of one subvolume cannot move to another).
pub(super) fn is_apart(directory: &Path) -> Result<bool, Error> {
    let look = |path: &Path| {
        let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        stat.map_err(Error::io("look at", path))
    };
    let stat = look(directory)?;
    let Some(parent) = directory.parent() else { return Ok(true) };
    let above = look(parent)?;
    let is_mount_point = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(is_mount_point || (stat.stx_dev_major, stat.stx_dev_minor) != (above.stx_dev_major, above.stx_dev_minor))
}
