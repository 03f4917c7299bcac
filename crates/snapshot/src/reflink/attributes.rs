//! What an inode has besides its content: owner, mode, times, extended attributes (ACLs and capabilities are such),
//! read from one file and put upon another.
//!
//! [`Attributes::apply`] makes them equal, whatever the file had before. The order is the kernel's: chown(2) clears
//! setuid and capabilities, so it comes first; a user's attributes need a file its owner may write, so they come
//! before the mode; an ACL and the mode share the group's bits, so ACLs come after it; everything may touch the times,
//! so these come last.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;

const PERMISSIONS: u32 = 0o7777;
const OWNER_ALONE: u32 = 0o700;
const OWNER_WRITES: u32 = 0o200;
const SETUID_SETGID: u32 = 0o6000;
/// Permissions that the kernel may have changed: no file has these.
const UNKNOWN: u32 = u32::MAX;

/// Longest list and longest value of extended attributes: `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`, xattr(7).
const MAX_BYTES: usize = 64 << 10;

/// The bytes tried first: the kernel allocates and clears as much as the caller has room for.
const TRY_BYTES: usize = 512;

/// A file, for whoever reads or sets attributes. Symbolic links, fifos and devices cannot or should not be opened:
/// they are named, and never followed.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Open for reading or writing; a mere path (`O_PATH`) will not do.
    Open(BorrowedFd<'a>),
    /// A name in a directory that is open.
    Named(BorrowedFd<'a>, &'a CStr),
}

/// A point in time as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Moment {
    /// Since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// 0 to 999,999,999, always forward from `secs`.
    pub nanos: u32,
}

impl From<rustix::fs::StatxTimestamp> for Moment {
    fn from(time: rustix::fs::StatxTimestamp) -> Moment {
        Moment { secs: time.tv_sec, nanos: time.tv_nsec }
    }
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// With its namespace: `user.comment`.
    pub name: CString,
    /// Any bytes.
    pub value: Vec<u8>,
}

/// The attributes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `st_mode`: type and permissions, inode(7).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub accessed: Moment,
    /// Last modification of the content.
    pub modified: Moment,
    /// In the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

/// An attribute that could not be read or set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    action: &'static str,
    source: Errno,
}

impl Failed {
    /// The system's answer.
    pub fn errno(self) -> Errno {
        self.source
    }

    /// Names the file. What an ordinary user may not do is said to need a privilege.
    pub fn at(self, path: impl AsRef<Path>) -> Error {
        let capability = match (self.source, self.action) {
            (Errno::PERM, CHOWN) => "CAP_CHOWN",
            (Errno::PERM, CHMOD | TIMES) => "CAP_FOWNER",
            (Errno::PERM, SET_XATTR) => "CAP_SETFCAP",
            _ => return Error::io(self.action, path)(self.source),
        };
        if rustix::process::geteuid().is_root() {
            // Not a missing privilege then, but an immutable file for instance.
            return Error::io(self.action, path)(self.source);
        }
        Error::Privilege { action: format!("{} {}", self.action, path.as_ref().display()), capability, hint: None }
    }
}

const STAT: &str = "look at";
const CHOWN: &str = "set the owner of";
const CHMOD: &str = "set the mode of";
const TIMES: &str = "set the times of";
const LIST_XATTRS: &str = "list the extended attributes of";
const GET_XATTR: &str = "read an extended attribute of";
const SET_XATTR: &str = "set an extended attribute of";
const REMOVE_XATTR: &str = "remove an extended attribute of";

fn failed(action: &'static str) -> impl Fn(Errno) -> Failed {
    move |source| Failed { action, source }
}

impl Attributes {
    /// Reads a file's attributes.
    pub fn read(of: Place<'_>) -> Result<Attributes, Failed> {
        Attributes::with(&look(of).map_err(failed(STAT))?, of)
    }

    /// The same where the file has been looked at already.
    pub fn with(stat: &Statx, of: Place<'_>) -> Result<Attributes, Failed> {
        let holder = Holder::new(of)?;
        let list = holder.list().map_err(failed(LIST_XATTRS))?;
        let mut xattrs = Vec::new();
        for name in names(&list) {
            match holder.get(name) {
                // Removed since the listing.
                Err(Errno::NODATA) => {}
                value => xattrs.push(Xattr { name: name.to_owned(), value: value.map_err(failed(GET_XATTR))? }),
            }
        }
        xattrs.sort();
        Ok(Attributes {
            mode: u32::from(stat.stx_mode),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            accessed: stat.stx_atime.into(),
            modified: stat.stx_mtime.into(),
            xattrs,
        })
    }

    /// Makes a file's attributes these. Extended attributes that are not among them are removed, except the labels
    /// that the kernel's security modules give each file themselves.
    pub fn apply(&self, to: Place<'_>) -> Result<(), Failed> {
        let now = look(to).map_err(failed(STAT))?;
        let is_link = self.mode & libc::S_IFMT == libc::S_IFLNK;
        let mut permissions = u32::from(now.stx_mode) & PERMISSIONS;
        if (now.stx_uid, now.stx_gid) != (self.uid, self.gid) {
            self.own(to, &now).map_err(failed(CHOWN))?;
            if permissions & SETUID_SETGID != 0 {
                // The kernel may have cleared them.
                permissions = UNKNOWN;
            }
        }
        if !is_link && !self.xattrs.is_empty() && permissions & OWNER_WRITES == 0 {
            // A user's attributes are refused even to the owner of a file that the mode forbids to write.
            permissions = OWNER_ALONE;
            change_mode(to, permissions).map_err(failed(CHMOD))?;
        }
        let holder = Holder::new(to)?;
        let present = holder.list().map_err(failed(LIST_XATTRS))?;
        self.remove_others(&holder, &present)?;
        self.set_xattrs(&holder, &present, |name| !is_acl(name))?;
        if !is_link && permissions != self.mode & PERMISSIONS {
            change_mode(to, self.mode & PERMISSIONS).map_err(failed(CHMOD))?;
        }
        self.set_xattrs(&holder, &present, is_acl)?;
        // Not for nothing: what is immutable refuses even the times that it has.
        if (Moment::from(now.stx_atime), Moment::from(now.stx_mtime)) != (self.accessed, self.modified) {
            self.set_times(to)?;
        }
        Ok(())
    }

    fn own(&self, to: Place<'_>, now: &Statx) -> Result<(), Errno> {
        let uid = (now.stx_uid != self.uid).then(|| Uid::from_raw(self.uid));
        let gid = (now.stx_gid != self.gid).then(|| Gid::from_raw(self.gid));
        match to {
            Place::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Place::Named(dir, name) => rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn remove_others(&self, holder: &Holder<'_>, present: &[u8]) -> Result<(), Failed> {
        for name in names(present) {
            if is_label(name) || self.xattrs.iter().any(|xattr| *xattr.name == *name) {
                continue;
            }
            match holder.remove(name) {
                Err(Errno::NODATA) => {}
                removed => removed.map_err(failed(REMOVE_XATTR))?,
            }
        }
        Ok(())
    }

    fn set_xattrs(&self, holder: &Holder<'_>, present: &[u8], which: impl Fn(&CStr) -> bool) -> Result<(), Failed> {
        for Xattr { name, value } in self.xattrs.iter().filter(|xattr| which(&xattr.name)) {
            let is_there = names(present).any(|other| *other == **name);
            if is_there && holder.get(name).is_ok_and(|now| now == *value) {
                continue;
            }
            match holder.set(name, value) {
                // The security module's policy decides about its labels.
                Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) if is_label(name) => {}
                set => set.map_err(failed(SET_XATTR))?,
            }
        }
        Ok(())
    }

    /// Sets the times alone: for a file whose content or entries were changed after [`Attributes::apply`].
    pub fn set_times(&self, to: Place<'_>) -> Result<(), Failed> {
        let timespec = |time: Moment| Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
        let times = Timestamps { last_access: timespec(self.accessed), last_modification: timespec(self.modified) };
        match to {
            Place::Open(fd) => rustix::fs::futimens(fd, &times),
            Place::Named(dir, name) => rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        }
        .map_err(failed(TIMES))
    }
}

/// Looks at a file, without following a link or setting an automounter to work.
pub fn look(at: Place<'_>) -> Result<Statx, Errno> {
    let what = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    match at {
        Place::Open(fd) => rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, what),
        Place::Named(dir, name) => {
            rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, what)
        }
    }
}

fn change_mode(of: Place<'_>, permissions: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(permissions);
    match of {
        Place::Open(fd) => rustix::fs::fchmod(fd, mode),
        Place::Named(dir, name) => {
            // Before Linux 6.6 there is no call that changes the mode of a name without following a link that somebody
            // may have put in its place. Opened as a mere path it is neither followed nor, as a device, set to work.
            let path = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), mode)
        }
    }
}

fn is_acl(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"system.posix_acl_")
}

/// Whether it is a security module's label. Capabilities are not.
fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.") && name != c"security.capability"
}

fn names(list: &[u8]) -> impl Iterator<Item = &CStr> {
    list.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok())
}

/// What extended attributes are read from and set on.
enum Holder<'a> {
    Open(BorrowedFd<'a>),
    /// There are calls for paths only, so it leads through the directory's descriptor in `/proc`.
    Path(CString),
}

impl<'a> Holder<'a> {
    fn new(place: Place<'a>) -> Result<Holder<'a>, Failed> {
        Ok(match place {
            Place::Open(fd) => Holder::Open(fd),
            Place::Named(dir, name) => {
                let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.to_bytes());
                Holder::Path(CString::new(path).map_err(|_| failed(LIST_XATTRS)(Errno::INVAL))?)
            }
        })
    }

    /// The names, each ended by a NUL; empty where the file system has no extended attributes.
    fn list(&self) -> Result<Vec<u8>, Errno> {
        match sized(|buffer| match self {
            Holder::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            Holder::Path(path) => rustix::fs::llistxattr(path.as_c_str(), buffer),
        }) {
            Err(Errno::NOTSUP) => Ok(Vec::new()),
            list => list,
        }
    }

    fn get(&self, name: &CStr) -> Result<Vec<u8>, Errno> {
        sized(|buffer| match self {
            Holder::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Holder::Path(path) => rustix::fs::lgetxattr(path.as_c_str(), name, buffer),
        })
    }

    fn set(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            Holder::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Holder::Path(path) => rustix::fs::lsetxattr(path.as_c_str(), name, value, XattrFlags::empty()),
        }
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            Holder::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Holder::Path(path) => rustix::fs::lremovexattr(path.as_c_str(), name),
        }
    }
}

fn sized(mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; TRY_BYTES];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; MAX_BYTES];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}
