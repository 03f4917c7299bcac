//! From a tree's node onto a file that has been restored.
//!
//! The order is the kernel's: chown(2) clears setuid and capabilities, so it comes first; a user's attributes need a
//! file its owner may write, so they come before the mode; an ACL and the mode share the group's bits, so ACLs come
//! after it; everything may touch the times, so these come last.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use repository::tree::{ExtendedAttribute, Node, NodeKind, Timestamp, st_mode_from_file_mode};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmod, chownat, fchmod, fchown, futimens, openat, utimensat,
};
use rustix::io::{Errno, Result};

use super::stat::{Moment, Stat};
use super::xattr::{self, Holder};
use super::{Action, AttributeError, Entry};

const PERMISSIONS: u32 = 0o7777;
const OWNER_ALONE: u32 = 0o700;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// What a file has before attributes are applied, so that only what differs is set.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    uid: u32,
    gid: u32,
    permissions: u32,
    may_have_xattrs: bool,
    mtime: Option<Moment>,
}

impl Before {
    /// A file that existed and whose contents (or, for a directory, entries) were or will have been changed.
    pub fn changed(stat: &Stat) -> Self {
        Self { uid: stat.uid, gid: stat.gid, permissions: stat.mode & PERMISSIONS, may_have_xattrs: true, mtime: None }
    }

    /// A file that existed and was not written to since it was looked at.
    pub fn untouched(stat: &Stat) -> Self {
        Self { mtime: Some(stat.mtime), ..Self::changed(stat) }
    }

    /// A file that was just made in a directory without a default ACL, and so has no extended attributes to remove.
    /// The kernel gives all files that one process makes in one directory with one mode the same owner, group and
    /// mode, so one look at the first of them will do for all.
    pub fn created(stat: &Stat) -> Self {
        Self { may_have_xattrs: false, ..Self::changed(stat) }
    }
}

/// Sets attributes, and remembers which ones this system refuses. Shared between threads.
#[derive(Debug)]
pub struct Applier {
    is_root: bool,
    refused: Mutex<HashSet<Box<str>>>,
}

impl Default for Applier {
    fn default() -> Self {
        Self::new()
    }
}

impl Applier {
    /// For the user that this process runs as.
    pub fn new() -> Self {
        Self { is_root: rustix::process::geteuid().is_root(), refused: Mutex::default() }
    }

    /// Makes the entry's attributes the node's: owner, mode, extended attributes and times. `open` is the file itself
    /// if it is open for reading or writing; links, fifos and devices need not and should not be opened. A directory's
    /// turn comes when nothing below it will change any more, for its times and because its mode may lock us out.
    ///
    /// Extended attributes that the node does not have are removed, except the labels that the kernel's security
    /// modules give each file themselves (`security.*` but `security.capability`).
    ///
    /// What cannot be set is reported, and the rest is set. As an ordinary user one cannot give files away; like
    /// restic, this is not reported, but then the file is not made setuid or setgid for the wrong owner either. An
    /// attribute that this system refuses for any file is reported once.
    pub fn apply(
        &self,
        entry: Entry<'_>,
        open: Option<BorrowedFd<'_>>,
        node: &Node,
        before: &Before,
        report: &mut dyn FnMut(AttributeError),
    ) {
        let mut work = Work { applier: self, entry, open, permissions: Some(before.permissions), report };
        let mut wanted = st_mode_from_file_mode(node.mode) & PERMISSIONS;
        let owner = work.own(node, before);
        if node.kind != NodeKind::Dir {
            wanted &= !if owner.uid { 0 } else { SETUID };
            wanted &= !if owner.gid { 0 } else { SETGID };
        }
        if owner.changed && (wanted | before.permissions) & (SETUID | SETGID) != 0 {
            work.permissions = None;
        }

        let present = if before.may_have_xattrs || !node.extended_attributes.is_empty() {
            Present::look(entry, open, before).map_err(|source| work.failed(Action::ListXattrs, source)).ok()
        } else {
            None
        };
        if let Some(present) = &present {
            work.remove_others(present, node);
            work.set_xattrs(present, node, |name| !is_acl(name));
        }
        if node.kind != NodeKind::Symlink && work.permissions != Some(wanted) {
            work.change_mode(wanted);
        }
        if let Some(present) = &present {
            work.set_xattrs(present, node, is_acl);
        }

        let mtime = Moment { secs: node.mtime.secs, nanos: node.mtime.nanos };
        if before.mtime != Some(mtime) || node.kind == NodeKind::Dir {
            work.set_times(node);
        }
    }

    /// Whether to report that the attribute could not be changed.
    fn is_news(&self, name: &str, error: Errno) -> bool {
        let for_any_file = match error {
            Errno::NOTSUP => true,
            Errno::PERM | Errno::ACCESS | Errno::INVAL => !name.starts_with("user."),
            _ => false,
        };
        // A panic elsewhere cannot leave the set half changed.
        !for_any_file || self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into())
    }
}

fn is_acl(name: &str) -> bool {
    name.starts_with("system.posix_acl_")
}

/// Which parts of the ownership are the node's now.
struct Owner {
    uid: bool,
    gid: bool,
    changed: bool,
}

/// The extended attributes that a file has.
struct Present<'a> {
    holder: Holder<'a>,
    list: Box<[u8]>,
}

impl<'a> Present<'a> {
    fn look(entry: Entry<'_>, open: Option<BorrowedFd<'a>>, before: &Before) -> Result<Self> {
        let holder = Holder::new(entry, open)?;
        let list = if before.may_have_xattrs { holder.list()? } else { Box::default() };
        Ok(Self { holder, list })
    }

    fn has(&self, name: &str) -> bool {
        xattr::names(&self.list).any(|present| present == name.as_bytes())
    }
}

/// One file's turn.
struct Work<'a> {
    applier: &'a Applier,
    entry: Entry<'a>,
    open: Option<BorrowedFd<'a>>,
    /// What the file has now; `None` if the kernel may have changed them.
    permissions: Option<u32>,
    report: &'a mut dyn FnMut(AttributeError),
}

impl Work<'_> {
    fn failed(&mut self, action: Action, source: Errno) {
        (self.report)(self.entry.error(action, source));
    }

    fn own(&mut self, node: &Node, before: &Before) -> Owner {
        let uid = (node.uid != before.uid).then_some(node.uid);
        let gid = (node.gid != before.gid).then_some(node.gid);
        let same = Owner { uid: uid.is_none(), gid: gid.is_none(), changed: false };
        if same.uid && same.gid {
            return same;
        }
        let mut answer = self.chown(uid, gid);
        if answer == Err(Errno::PERM) && uid.is_some() && gid.is_some() {
            // One may give a file to another group that one is in, though not to another user.
            if self.chown(None, gid).is_ok() {
                return Owner { uid: false, gid: true, changed: true };
            }
        }
        if answer == Err(Errno::PERM) && !self.applier.is_root {
            answer = Ok(());
        } else if answer.is_ok() {
            return Owner { uid: true, gid: true, changed: true };
        }
        if let Err(source) = answer {
            self.failed(Action::Chown { uid: node.uid, gid: node.gid }, source);
        }
        same
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        // -1 means "leave it" to the kernel, and cannot be asked for.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self.open {
            Some(fd) => fchown(fd, uid, gid),
            None => chownat(self.entry.dir, self.entry.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        }
    }

    fn change_mode(&mut self, permissions: u32) {
        match self.chmod(permissions) {
            Ok(()) => self.permissions = Some(permissions),
            Err(source) => self.failed(Action::Chmod(permissions), source),
        }
    }

    fn chmod(&self, permissions: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(permissions);
        if let Some(fd) = self.open {
            return fchmod(fd, mode);
        }
        // Before Linux 6.6 there is no call that changes the mode of a name without following a link that somebody
        // may have put in its place. Opened as a mere path it is neither followed nor, as a device, set to work.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = openat(self.entry.dir, self.entry.name, flags, Mode::empty())?;
        chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), mode)
    }

    fn remove_others(&mut self, present: &Present<'_>, node: &Node) {
        for raw in xattr::names(&present.list) {
            let is_label = raw.starts_with(b"security.") && raw != b"security.capability";
            let is_wanted = node.extended_attributes.iter().any(|attribute| attribute.name.as_bytes() == raw);
            if is_label || is_wanted {
                continue;
            }
            if let Err(source) = self.as_writer(raw, || present.holder.remove(raw)) {
                let name = String::from_utf8_lossy(raw);
                if self.applier.is_news(&name, source) {
                    self.failed(Action::RemoveXattr(name.into_owned()), source);
                }
            }
        }
    }

    fn set_xattrs(&mut self, present: &Present<'_>, node: &Node, which: impl Fn(&str) -> bool) {
        for ExtendedAttribute { name, value } in node.extended_attributes.iter().filter(|one| which(&one.name)) {
            let value = value.as_deref().unwrap_or_default();
            if present.has(name) && matches!(present.holder.get(name), Ok(Some(now)) if *now == *value) {
                continue;
            }
            if let Err(source) = self.as_writer(name.as_bytes(), || present.holder.set(name, value))
                && self.applier.is_news(name, source)
            {
                self.failed(Action::SetXattr(name.to_string()), source);
            }
        }
    }

    /// Changing a user's attribute needs permission to write the file, which the mode may deny even to its owner. The
    /// file then is its owner's alone until it gets its final mode.
    fn as_writer(&mut self, name: &[u8], change: impl Fn() -> Result<()>) -> Result<()> {
        match change() {
            Err(Errno::ACCESS) if name.starts_with(b"user.") && self.permissions != Some(OWNER_ALONE) => {
                self.chmod(OWNER_ALONE)?;
                self.permissions = Some(OWNER_ALONE);
                change()
            }
            answer => answer,
        }
    }

    fn set_times(&mut self, node: &Node) {
        let times = Timestamps { last_access: timespec(node.atime), last_modification: timespec(node.mtime) };
        let answer = match self.open {
            Some(fd) => futimens(fd, &times),
            None => utimensat(self.entry.dir, self.entry.name, &times, AtFlags::SYMLINK_NOFOLLOW),
        };
        if let Err(source) = answer {
            self.failed(Action::SetTimes, source);
        }
    }
}

fn timespec(time: Timestamp) -> Timespec {
    // Beyond this the kernel takes the nanoseconds for a command such as "now".
    Timespec { tv_sec: time.secs, tv_nsec: time.nanos.min(999_999_999).into() }
}
