//! A directory on a real file system, and what is asked of the code under test in it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use backup::attributes::{
    Applier, AttributeError, Before, Context, Entry, Stat, Zone, create, extended_attributes, has_default_acl,
    link_target, node_from,
};
use repository::tree::{Node, NodeKind};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, lsetxattr, mkdirat,
    open, openat, utimensat,
};
use tempfile::TempDir;

/// Says why a part of the tests is not run; where everything must be there, it is a failure.
#[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "the only way a test can tell that it did not run")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    eprintln!("skipped: {why}");
}

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// A directory and everything that is asked of the code under test in it.
pub(crate) struct Place {
    pub(crate) temp: TempDir,
    pub(crate) dir: OwnedFd,
    pub(crate) context: Context,
}

impl Place {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = open(temp.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Self { temp, dir, context: Context::new(Zone::utc()) }
    }

    pub(crate) fn entry<'a>(&'a self, name: &'a [u8]) -> Entry<'a> {
        Entry { dir: self.dir.as_fd(), name, dir_path: self.temp.path() }
    }

    pub(crate) fn path(&self, name: &[u8]) -> std::path::PathBuf {
        self.entry(name).path()
    }

    pub(crate) fn file(&self, name: &[u8]) -> File {
        File::create(self.path(name)).unwrap()
    }

    pub(crate) fn chmod(&self, name: &[u8], mode: u32) {
        chmodat(&self.dir, name, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    }

    pub(crate) fn chown(&self, name: &[u8], uid: u32, gid: u32) {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&self.dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    pub(crate) fn set_mtime(&self, name: &[u8], secs: i64, nanos: u32) {
        let time = Timespec { tv_sec: secs, tv_nsec: nanos.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(&self.dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// Whether the file system took it; some have no attributes of users.
    pub(crate) fn set_xattr(&self, name: &[u8], attribute: &str, value: &[u8]) -> bool {
        match lsetxattr(self.path(name), attribute, value, XattrFlags::empty()) {
            Err(rustix::io::Errno::NOTSUP) => {
                skip(&format!("{} does not take {attribute}", self.temp.path().display()));
                false
            }
            answer => {
                answer.unwrap();
                true
            }
        }
    }

    pub(crate) fn stat(&self, name: &[u8]) -> Stat {
        Stat::at(self.entry(name)).unwrap()
    }

    /// Opened only where that is harmless, as a backup does.
    pub(crate) fn open(&self, name: &[u8]) -> Option<OwnedFd> {
        let kind = FileType::from_raw_mode(self.stat(name).mode);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        matches!(kind, FileType::RegularFile | FileType::Directory)
            .then(|| openat(&self.dir, name, flags, Mode::empty()).ok())
            .flatten()
    }

    pub(crate) fn read(&self, name: &[u8]) -> Node {
        let entry = self.entry(name);
        let mut node = node_from(name, &self.stat(name), self.temp.path(), &self.context);
        if node.kind == NodeKind::Symlink {
            node.link_target = link_target(entry).unwrap();
        }
        let open = self.open(name);
        node.extended_attributes =
            extended_attributes(entry, open.as_ref().map(AsFd::as_fd), &mut |error| panic!("{error}"));
        node
    }

    /// Makes the file anew, unless it exists, and applies the node.
    pub(crate) fn restore(&self, node: &Node, applier: &Applier) -> Vec<AttributeError> {
        let entry = self.entry(&node.name);
        let exists = Stat::at(entry).is_ok();
        if !exists && !create(entry, node).unwrap() {
            match node.kind {
                NodeKind::Dir => mkdirat(&self.dir, &*node.name, Mode::RWXU).unwrap(),
                _ => drop(self.file(&node.name)),
            }
        }
        let stat = self.stat(&node.name);
        let bare = !exists && !has_default_acl(self.dir.as_fd());
        let before = if bare { Before::created(&stat) } else { Before::changed(&stat) };
        self.apply(node, applier, &before)
    }

    pub(crate) fn apply(&self, node: &Node, applier: &Applier, before: &Before) -> Vec<AttributeError> {
        let mut errors = Vec::new();
        let open = self.open(&node.name);
        applier.apply(self.entry(&node.name), open.as_ref().map(AsFd::as_fd), node, before, &mut |error| {
            errors.push(error);
        });
        errors
    }
}
