//! From the file system into a tree's node.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use repository::tree::{ExtendedAttribute, Node, NodeKind, Timestamp, file_mode_from_st_mode};
use rustix::fs::readlinkat;
use rustix::io::Errno;

use super::stat::{Moment, Stat};
use super::xattr::{self, Holder};
use super::{Action, AttributeError, Devices, Entry, Names, Zone};

/// What a file's own inode does not tell about it. Shared by all threads of a run.
#[derive(Debug)]
pub struct Context {
    /// Of users and groups.
    pub names: Names,
    /// In which times are written.
    pub zone: Zone,
    /// Numbers of the file systems met.
    pub devices: Devices,
}

impl Context {
    /// Knows no name and no file system yet.
    pub fn new(zone: Zone) -> Self {
        Self { names: Names::new(), zone, devices: Devices::new() }
    }

    fn timestamp(&self, moment: Moment) -> Timestamp {
        Timestamp::from_unix(moment.secs, moment.nanos, self.zone.offset_minutes(moment.secs))
    }
}

/// The node of a file in `directory` (as the backup names it), without content, subtree, link target and extended
/// attributes.
///
/// As in restic, the access time is that of modification, so that reading a file does not change its tree; the size is
/// a regular file's alone; links are not counted for directories and sockets, nor for fifos, unless one has several
/// names (in restic's trees these become several fifos). Unlike restic, which writes `st_dev` into every node unless
/// asked not to, the file system's number is written for hard links only, and is a stable one ([`Devices`]).
pub fn node_from(name: &[u8], stat: &Stat, directory: &Path, context: &Context) -> Node {
    let mode = file_mode_from_st_mode(stat.mode);
    let kind = NodeKind::of_file_mode(mode);
    let links = match kind {
        NodeKind::Dir | NodeKind::Socket => 0,
        NodeKind::Fifo if stat.links < 2 => 0,
        _ => u64::from(stat.links),
    };
    let mtime = context.timestamp(stat.mtime);
    Node {
        name: name.into(),
        mode,
        mtime,
        atime: mtime,
        ctime: context.timestamp(stat.ctime),
        uid: stat.uid,
        gid: stat.gid,
        user: context.names.user(stat.uid),
        group: context.names.group(stat.gid),
        inode: stat.inode,
        device_id: if links > 1 { context.devices.number(stat.device, directory) } else { 0 },
        size: if kind == NodeKind::File { stat.size } else { 0 },
        links,
        link_target: Box::default(),
        extended_attributes: Vec::new(),
        generic_attributes: None,
        device: if matches!(kind, NodeKind::BlockDevice | NodeKind::CharDevice) { stat.rdev } else { 0 },
        content: None,
        subtree: None,
        error: "".into(),
        kind,
    }
}

/// Where a symbolic link points, raw bytes.
///
/// # Errors
/// That of readlink(2).
pub fn link_target(entry: Entry<'_>) -> Result<Box<[u8]>, AttributeError> {
    readlinkat(entry.dir, entry.name, Vec::new())
        .map(|target| target.into_bytes().into())
        .map_err(|source| entry.error(Action::ReadLink, source))
}

/// The extended attributes in the order in which the file system lists them, with ACLs (`system.posix_acl_*`) and
/// capabilities (`security.capability`) among them; `open` is the file itself, opened for reading, if it is.
///
/// A file system without extended attributes has none. What cannot be read is reported and left out.
pub fn extended_attributes(
    entry: Entry<'_>,
    open: Option<BorrowedFd<'_>>,
    report: &mut dyn FnMut(AttributeError),
) -> Vec<ExtendedAttribute> {
    let listed = Holder::new(entry, open).and_then(|holder| Ok((holder.list()?, holder)));
    let (list, holder) = match listed {
        Ok(found) => found,
        Err(source) => {
            report(entry.error(Action::ListXattrs, source));
            return Vec::new();
        }
    };
    let mut attributes = Vec::new();
    for raw in xattr::names(&list) {
        let Ok(name) = std::str::from_utf8(raw) else {
            // The format has text here.
            let source = io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8");
            report(entry.error(Action::ReadXattr(String::from_utf8_lossy(raw).into_owned()), source));
            continue;
        };
        match holder.get(name) {
            Ok(Some(value)) => attributes.push(ExtendedAttribute { name: name.into(), value: Some(value) }),
            Ok(None) => {}
            Err(source) => report(entry.error(Action::ReadXattr(name.into()), source)),
        }
    }
    attributes
}

/// Whether files made in this directory inherit an ACL, see [`Before::created`](super::Before::created).
pub fn has_default_acl(dir: BorrowedFd<'_>) -> bool {
    // Anything but a clear "no" costs its files one look each.
    !matches!(Holder::Open(dir).get("system.posix_acl_default"), Ok(None) | Err(Errno::NOTSUP))
}
