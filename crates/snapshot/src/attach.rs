//! Mounts as descriptors: cloned, attached and replaced in place, open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A clone is a mount of its own of the same directory, with the mounts below it where that is asked for, attached
//! nowhere until it is given a place. Clones are private: were one a peer of the mount it was made of, detaching that
//! one would take away what lies upon the clone, too.
//!
//! Does not know of file systems.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use linux_raw_sys::general::mount_attr;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::error::Error;

/// `MOVE_MOUNT_BENEATH` of linux/mount.h, since Linux 6.5.
const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

/// Clones the mount at a path with all mounts below it.
pub(crate) fn clone_with_below(path: &Path) -> Result<OwnedFd, Error> {
    clone(path, OpenTreeFlags::AT_RECURSIVE)
}

/// Clones the mount that a directory lies on, with this directory as its root, without the mounts below.
pub(crate) fn clone_of_directory(path: &Path) -> Result<OwnedFd, Error> {
    clone(path, OpenTreeFlags::empty())
}

fn clone(path: &Path, flags: OpenTreeFlags) -> Result<OwnedFd, Error> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cloned = rustix::mount::open_tree(CWD, path, flags).map_err(Error::io("clone the mount at", path))?;
    let private = mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set(&cloned, libc::AT_RECURSIVE, private).map_err(Error::io("make private the clone of the mount at", path))?;
    Ok(cloned)
}

/// Gives a mount the options of another one, as mountinfo shows them.
pub(crate) fn set_options(mount: &OwnedFd, options: &str) -> Result<(), Error> {
    let attributes = attributes(options);
    let attr_clr = MountAttrFlags::MOUNT_ATTR__ATIME.bits().into();
    let wanted = mount_attr { attr_set: attributes.bits().into(), attr_clr, propagation: 0, userns_fd: 0 };
    set(mount, 0, wanted).map_err(Error::io("set the options of", Path::new("a new mount")))
}

/// What the options in mountinfo stand for.
pub(crate) fn attributes(options: &str) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    for option in options.split(',') {
        let added = match option {
            "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            "nosymfollow" => MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
            "noatime" | "relatime" => {
                attributes -= MountAttrFlags::MOUNT_ATTR__ATIME;
                // MOUNT_ATTR_RELATIME is 0: it is what there is without the others.
                if option == "noatime" { MountAttrFlags::MOUNT_ATTR_NOATIME } else { MountAttrFlags::empty() }
            }
            _ => MountAttrFlags::empty(),
        };
        attributes |= added;
    }
    attributes
}

fn set(mount: &OwnedFd, flags: i32, attributes: mount_attr) -> rustix::io::Result<()> {
    // SAFETY: the path is empty and terminated, the structure has the size that is given, both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<mount_attr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Attaches a mount upon what a path names, relative to a directory.
pub(crate) fn attach(mount: &OwnedFd, directory: impl AsFd, path: &Path) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", directory, path, flags).map_err(Error::io("mount upon", path))
}

/// Attaches a mount under the one that is mounted at a path, which goes on to be what the path shows. `false` if the
/// kernel cannot.
pub(crate) fn attach_beneath(mount: &OwnedFd, point: &Path) -> Result<bool, Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | BENEATH;
    match rustix::mount::move_mount(mount, "", CWD, point, flags) {
        Ok(()) => Ok(true),
        // Before Linux 6.5 the flag is not known.
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(Error::io("mount beneath", point)(error)),
    }
}

/// Attaches mounts upon directories of another.
pub(crate) fn attach_upon(mount: &OwnedFd, upon: &[(PathBuf, OwnedFd)]) -> Result<(), Error> {
    upon.iter().try_for_each(|(path, clone)| attach(clone, mount, path))
}

/// Puts a mount in the place of the one at a path, with clones of what lies upon that: it is slipped beneath, and the
/// upper one is taken away, so that at no moment the path is empty.
pub(crate) fn replace(new: &OwnedFd, point: &Path, upon: &[(PathBuf, OwnedFd)]) -> Result<(), Error> {
    if !attach_beneath(new, point)? {
        return swap(new, point, upon);
    }
    attach_upon(new, upon)?;
    detach(&hold(point)?)
}

/// The same in two steps: for some microseconds, the path shows what the mounts lie upon.
fn swap(new: &OwnedFd, point: &Path, upon: &[(PathBuf, OwnedFd)]) -> Result<(), Error> {
    let way_back = clone_with_below(point)?;
    detach(&hold(point)?)?;
    attach(new, CWD, point).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = attach(&way_back, CWD, point);
    })?;
    attach_upon(new, upon)
}

/// Holds on to what is mounted at a path, or to what lies there.
pub(crate) fn hold(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("open", path))
}

/// Takes away the mount whose root is held, with the mounts upon it. Who has files open there keeps them. One that is
/// not attached any more is success.
pub(crate) fn detach(root: &OwnedFd) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
        Err(Errno::INVAL) => Ok(()),
        done => done.map_err(Error::io("unmount", &path)),
    }
}

/// The number in mountinfo of the mount that an open file lies on.
pub(crate) fn mount_number(file: &OwnedFd) -> Result<u64, Error> {
    let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    Ok(stat.map_err(Error::io("look at", Path::new("a mount")))?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::mount::{FsMountFlags, FsOpenFlags, MountFlags};

    use super::*;

    /// What is mounted in a directory, and goes with it.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// A tmpfs, and another one upon its directory `below`; each with a file `old`.
        fn new() -> Mounted {
            let mounted = Mounted(tempfile::tempdir().unwrap());
            for point in [mounted.point(), mounted.point().join("below")] {
                fs::create_dir(&point).unwrap();
                rustix::mount::mount("none", &point, "tmpfs", MountFlags::empty(), None).unwrap();
                fs::write(point.join("old"), "").unwrap();
            }
            mounted
        }

        fn point(&self) -> PathBuf {
            self.0.path().join("point")
        }

        fn mounts_at(&self, point: &Path) -> usize {
            let mounts = crate::mounts::mounts().unwrap();
            mounts.iter().filter(|mount| mount.point == point).count()
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            while rustix::mount::unmount(self.point(), UnmountFlags::DETACH).is_ok() {}
        }
    }

    /// A tmpfs that is attached nowhere, with the given directories.
    fn new_tmpfs(directories: &[&str]) -> OwnedFd {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        rustix::mount::fsconfig_create(&context).unwrap();
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        directories.iter().for_each(|name| rustix::fs::mkdirat(&mount, *name, Mode::RWXU).unwrap());
        mount
    }

    #[test]
    fn a_mount_is_replaced_and_keeps_what_lies_upon_it_also_on_an_old_kernel() {
        for by in [replace, swap] {
            let mounted = Mounted::new();
            let point = mounted.point();
            let upon = [(PathBuf::from("below"), clone_with_below(&point.join("below")).unwrap())];
            by(&new_tmpfs(&["below", "new"]), &point, &upon).unwrap();
            assert!(point.join("new").exists() && !point.join("old").exists());
            assert!(point.join("below/old").exists());
            assert_eq!([mounted.mounts_at(&point), mounted.mounts_at(&point.join("below"))], [1, 1]);
        }
    }

    #[test]
    fn on_an_old_kernel_a_mount_that_cannot_be_replaced_stays() {
        let mounted = Mounted::new();
        let point = mounted.point();
        // A directory is no mount.
        let directory = hold(mounted.0.path()).unwrap();
        swap(&directory, &point.join("below"), &[]).unwrap_err();
        assert!(point.join("below/old").exists());
    }

    #[test]
    fn options_of_a_mount_become_attributes() {
        let noatime = MountAttrFlags::MOUNT_ATTR_NOATIME;
        assert_eq!(attributes("rw,noatime"), noatime);
        assert_eq!(attributes("rw,relatime"), MountAttrFlags::empty());
        assert_eq!(attributes("rw"), MountAttrFlags::MOUNT_ATTR_STRICTATIME);
        let strict = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID | noatime;
        assert_eq!(attributes("ro,nosuid,noatime"), strict);
    }
}
