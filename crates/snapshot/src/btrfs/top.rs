//! The top level of a btrfs: the subvolume 5, in which all others lie, and what Snapback keeps there.
//!
//! ```text
//! .snapback/ID/of      a symbolic link: of which subvolume, as a path from the top level
//! .snapback/ID/tree    the snapshot, read-only, or a tree that was live before a rollback
//! ```
//!
//! It is reached by a mount of its own that is attached nowhere: nobody sees it, it moves no mount of the system, and
//! it is gone when its descriptor is closed, however the process ends.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use linux_raw_sys::btrfs::{
    BTRFS_DIR_ITEM_KEY, BTRFS_FS_TREE_OBJECTID, BTRFS_ROOT_BACKREF_KEY, BTRFS_ROOT_REF_KEY,
    BTRFS_ROOT_TREE_DIR_OBJECTID,
};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::ioctl::{self, Subvolume};
use super::search::{ROOT_TREE, Search, number, search};
use crate::error::Error;
use crate::id::Id;
use crate::mounts::Mount;

/// The number of the top level.
pub(crate) const TOP: u64 = BTRFS_FS_TREE_OBJECTID as u64;
/// The directory at the top level that is ours.
pub(crate) const OURS: &str = ".snapback";
const OF: &str = "of";
pub(crate) const TREE: &str = "tree";

/// The top level of one file system.
#[derive(Debug)]
pub(crate) struct Top {
    root: OwnedFd,
    /// Keeps the mount, which the descriptor of its root alone does not.
    _mount: OwnedFd,
    /// The UUID of the file system.
    pub(crate) filesystem: String,
    /// What names it in mountinfo.
    pub(crate) device: (u32, u32),
    source: OsString,
    is_read_only: bool,
}

impl Top {
    /// Reaches the top level of the file system that a mount shows. `inside` is any file on it.
    pub(crate) fn open(mount: &Mount, inside: impl AsFd) -> Result<Top, Error> {
        let path = &mount.point;
        let filesystem = ioctl::filesystem(&inside).map_err(Error::io("ask for the file system of", path))?;
        // A file system that is read-only cannot be mounted writable a second time.
        let is_read_only = mount.super_options.split(',').next() == Some("ro");
        let mut sources = vec![mount.source.clone()];
        let mut tried = detached(&mount.source, TOP, is_read_only, MountAttrFlags::empty());
        if matches!(tried, Err(Errno::NOENT | Errno::NOTBLK | Errno::INVAL | Errno::ACCESS)) {
            // mountinfo has the name by which it was mounted, in whichever namespace, however long ago.
            let devices = ioctl::devices(&inside).map_err(Error::io("ask for the devices of", path))?;
            sources = devices.into_iter().map(OsString::from_vec).collect();
            for source in &sources {
                tried = detached(source, TOP, is_read_only, MountAttrFlags::empty());
                if tried.is_ok() {
                    sources = vec![source.clone()];
                    break;
                }
            }
        }
        let mount_fd = tried.map_err(|errno| match errno {
            Errno::PERM => Error::Privilege {
                action: format!("reach the top level of the btrfs at {}", path.display()),
                capability: "CAP_SYS_ADMIN",
                hint: Some("run it as root; in your own directories, snapshots by reflink work without".to_owned()),
            },
            errno => Error::io("mount the top level of the btrfs at", path)(errno),
        })?;
        // A mount's own descriptor takes no ioctls: it is an O_PATH one.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&mount_fd, ".", flags, Mode::empty())
            .map_err(Error::io("open the top level of the btrfs at", path))?;
        let top = Top {
            root,
            _mount: mount_fd,
            filesystem,
            device: mount.device,
            source: sources.swap_remove(0),
            is_read_only,
        };
        // A device can be given to another file system while the old one is still mounted.
        let found = ioctl::filesystem(&top.root).map_err(Error::io("ask for the file system of", path))?;
        if found != top.filesystem {
            let source = top.source.to_string_lossy();
            return Err(Error::refused(format!("{source} is not the file system at {} any more", path.display())));
        }
        Ok(top)
    }

    /// The descriptor that paths from the top level are relative to.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A mount of a subvolume that is attached nowhere.
    pub(crate) fn mount(&self, subvolume: u64, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        detached(&self.source, subvolume, self.is_read_only, attributes)
            .map_err(Error::io("mount a subvolume of", Path::new(&self.source)))
    }

    /// Opens what lies at a path from the top level; `None` if nothing does. Symbolic links are not followed, nor are
    /// mounts entered.
    pub(crate) fn open_at(&self, path: &Path) -> Result<Option<OwnedFd>, Error> {
        self.open_in(&self.root, path)
    }

    /// The same in a tree of which the root is open.
    pub(crate) fn open_in(&self, tree: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Error> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(tree, path, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("open", self.named(path))(error)),
        }
    }

    /// A path from the top level, as errors call it.
    pub(crate) fn named(&self, path: &Path) -> PathBuf {
        Path::new(&format!("<btrfs {}>", self.filesystem)).join(path)
    }

    /// The subvolume at a path from the top level, with its root; `None` if nothing lies there.
    pub(crate) fn subvolume_at(&self, path: &Path) -> Result<Option<(OwnedFd, Subvolume)>, Error> {
        let Some(fd) = self.open_at(path)? else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd).map_err(Error::io("look at", self.named(path)))?;
        if !is_root(&stat) {
            return Err(Error::refused(format!("{} is not a subvolume", self.named(path).display())));
        }
        let subvolume = ioctl::subvolume(&fd).map_err(Error::io("ask for the subvolume at", self.named(path)))?;
        Ok(Some((fd, subvolume)))
    }

    /// Where a subvolume lies, from the top level; `None` if there is none of this number.
    pub(crate) fn path_of(&self, subvolume: u64) -> Result<Option<PathBuf>, Error> {
        let mut path = PathBuf::new();
        let mut child = subvolume;
        while child != TOP {
            let what = Search { tree: ROOT_TREE, objects: (child, child), kind: BTRFS_ROOT_BACKREF_KEY, since: 0 };
            let mut found = None;
            search(&self.root, what, &mut |item| {
                found = Some((item.offset, number(item.data, 0), reference_name(item.data)));
                false
            })
            .map_err(self.searching())?;
            let Some((parent, directory, name)) = found else { return Ok(None) };
            path = self.directory_path(parent, directory)?.join(name).join(path);
            child = parent;
        }
        // `join("")` leaves a slash at the end.
        Ok(Some(path.components().collect()))
    }

    /// The subvolumes that lie in another, not those that lie in these: numbers, and paths from the root of the one they
    /// lie in.
    pub(crate) fn nested(&self, subvolume: u64) -> Result<Vec<(u64, PathBuf)>, Error> {
        let what = Search { tree: ROOT_TREE, objects: (subvolume, subvolume), kind: BTRFS_ROOT_REF_KEY, since: 0 };
        let mut found = Vec::new();
        search(&self.root, what, &mut |item| {
            found.push((item.offset, number(item.data, 0), reference_name(item.data)));
            true
        })
        .map_err(self.searching())?;
        let located = found
            .into_iter()
            .map(|(id, directory, name)| Ok((id, self.directory_path(subvolume, directory)?.join(name))));
        located.collect()
    }

    /// Where a directory lies in its subvolume.
    pub(crate) fn directory_path(&self, subvolume: u64, inode: u64) -> Result<PathBuf, Error> {
        let path = ioctl::directory_path(&self.root, subvolume, inode).map_err(self.searching())?;
        Ok(PathBuf::from(OsString::from_vec(path)))
    }

    pub(crate) fn searching(&self) -> impl FnOnce(std::io::Error) -> Error {
        Error::io("search the trees of", self.named(Path::new("")))
    }

    /// The subvolume that is mounted where no other is asked for.
    pub(crate) fn default_subvolume(&self) -> Result<u64, Error> {
        // A directory of one entry, `default`, whose key begins with the subvolume's number.
        let objects = (BTRFS_ROOT_TREE_DIR_OBJECTID.into(), BTRFS_ROOT_TREE_DIR_OBJECTID.into());
        let mut default = TOP;
        search(&self.root, Search { tree: ROOT_TREE, objects, kind: BTRFS_DIR_ITEM_KEY, since: 0 }, &mut |item| {
            default = number(item.data, 0);
            false
        })
        .map_err(self.searching())?;
        Ok(default)
    }

    /// Makes the directory of an id, and notes of which subvolume.
    pub(crate) fn make_place(&self, id: Id, of: &Path) -> Result<OwnedFd, Error> {
        let path = place(id);
        let make = |path: &Path, mode| match rustix::fs::mkdirat(&self.root, path, mode) {
            Err(Errno::EXIST) => Ok(()),
            made => made.map_err(Error::io("create", self.named(path))),
        };
        make(Path::new(OURS), Mode::RWXU)?;
        make(&path, Mode::RWXU)?;
        match rustix::fs::symlinkat(Path::new("/").join(of), &self.root, path.join(OF)) {
            Err(Errno::EXIST) if self.of(id).as_deref() == Some(of) => {}
            made => made.map_err(Error::io("create", self.named(&path.join(OF))))?,
        }
        let place = self.open_at(&path)?;
        place.ok_or_else(|| Error::io("open", self.named(&path))(Errno::NOENT))
    }

    /// Removes the directory of an id, once its tree is gone.
    pub(crate) fn remove_place(&self, id: Id) -> Result<(), Error> {
        let path = place(id);
        for (path, flags) in [(path.join(OF), AtFlags::empty()), (path, AtFlags::REMOVEDIR)] {
            match rustix::fs::unlinkat(&self.root, &path, flags) {
                Err(Errno::NOENT) => {}
                removed => removed.map_err(Error::io("remove", self.named(&path)))?,
            }
        }
        Ok(())
    }

    /// Of which subvolume an id is, as a path from the top level.
    pub(crate) fn of(&self, id: Id) -> Option<PathBuf> {
        let target = rustix::fs::readlinkat(&self.root, place(id).join(OF), Vec::new()).ok()?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        target.strip_prefix("/").map(Path::to_owned).ok()
    }

    /// The ids that have a directory.
    pub(crate) fn ids(&self) -> Result<Vec<Id>, Error> {
        let path = Path::new(OURS);
        let Some(directory) = self.open_at(path)? else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for entry in rustix::fs::Dir::new(directory).map_err(Error::io("list", self.named(path)))? {
            let entry = entry.map_err(Error::io("list", self.named(path)))?;
            ids.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<Id>().ok()));
        }
        Ok(ids)
    }

    /// Waits until names and trees are on the disk.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        ioctl::commit(&self.root).map_err(Error::io("sync", self.named(Path::new(""))))
    }
}

/// The directory of an id, from the top level.
pub(crate) fn place(id: Id) -> PathBuf {
    Path::new(OURS).join(id.to_string())
}

/// The id whose tree lies at a path from the top level.
pub(crate) fn id_at(path: &Path) -> Option<Id> {
    let mut parts = path.components().map(|part| part.as_os_str());
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        (ours, id, tree, None) if ours == OURS && tree == TREE => id.to_str()?.parse().ok(),
        _ => None,
    }
}

/// Whether this is the root of a subvolume: these have one inode number, BTRFS_FIRST_FREE_OBJECTID.
pub(crate) fn is_root(stat: &rustix::fs::Stat) -> bool {
    stat.st_ino == 256 && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()
}

/// The name in a ROOT_REF or ROOT_BACKREF: behind directory, sequence and length.
fn reference_name(data: &[u8]) -> OsString {
    let length = (number(data, 16) & 0xffff) as usize;
    let name = data.get(18..).map(|name| &name[..length.min(name.len())]);
    std::ffi::OsStr::from_bytes(name.unwrap_or_default()).to_owned()
}

fn detached(
    source: &std::ffi::OsStr,
    subvolume: u64,
    is_read_only: bool,
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", source)?;
    rustix::mount::fsconfig_set_string(&context, "subvolid", subvolume.to_string())?;
    if is_read_only {
        rustix::mount::fsconfig_set_flag(&context, "ro")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
