//! One entry of a directory.

use std::fmt;
use std::sync::Arc;

use crate::id::Id;
use crate::tree::{Timestamp, mode};

/// What an entry is; restic's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// "file"
    File,
    /// "dir"
    Dir,
    /// "symlink"
    Symlink,
    /// "dev", a block device
    BlockDevice,
    /// "chardev"
    CharDevice,
    /// "fifo"
    Fifo,
    /// "socket"
    Socket,
    /// "irregular" and whatever a later restic may name
    Other(Box<str>),
}

impl NodeKind {
    /// As the tree says it.
    pub fn as_str(&self) -> &str {
        match self {
            NodeKind::File => "file",
            NodeKind::Dir => "dir",
            NodeKind::Symlink => "symlink",
            NodeKind::BlockDevice => "dev",
            NodeKind::CharDevice => "chardev",
            NodeKind::Fifo => "fifo",
            NodeKind::Socket => "socket",
            NodeKind::Other(kind) => kind,
        }
    }

    /// From Go's mode, as restic does it; a mode with two types is "".
    pub fn of_file_mode(file_mode: u32) -> NodeKind {
        const CHAR_DEVICE: u32 = mode::DEVICE | mode::CHAR_DEVICE;
        match file_mode & mode::TYPE {
            0 => NodeKind::File,
            mode::DIR => NodeKind::Dir,
            mode::SYMLINK => NodeKind::Symlink,
            mode::DEVICE => NodeKind::BlockDevice,
            CHAR_DEVICE => NodeKind::CharDevice,
            mode::NAMED_PIPE => NodeKind::Fifo,
            mode::SOCKET => NodeKind::Socket,
            mode::IRREGULAR => NodeKind::Other("irregular".into()),
            _ => NodeKind::Other("".into()),
        }
    }
}

impl From<&str> for NodeKind {
    fn from(text: &str) -> Self {
        match text {
            "file" => NodeKind::File,
            "dir" => NodeKind::Dir,
            "symlink" => NodeKind::Symlink,
            "dev" => NodeKind::BlockDevice,
            "chardev" => NodeKind::CharDevice,
            "fifo" => NodeKind::Fifo,
            "socket" => NodeKind::Socket,
            other => NodeKind::Other(other.into()),
        }
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An extended attribute; restic writes `null` for a value it did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// With its namespace: `user.x`, `security.capability`, `system.posix_acl_access`. The format has no way to keep bytes
    /// that are not UTF-8 here.
    pub name: Box<str>,
    /// `None` is JSON's `null`.
    pub value: Option<Box<[u8]>>,
}

/// One entry of a directory, as restic's `Node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Raw bytes, no `/`.
    pub name: Box<[u8]>,
    /// What it is.
    pub kind: NodeKind,
    /// Go's FileMode, not `st_mode`: permissions in the low nine bits, type and setuid bits on top.
    pub mode: u32,
    /// Modification.
    pub mtime: Timestamp,
    /// Access; restic and we write `mtime` here, so that reading a file does not change its tree.
    pub atime: Timestamp,
    /// Change of the inode.
    pub ctime: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name, empty if unknown. Shared between the nodes of a run.
    pub user: Arc<str>,
    /// Group's name, empty if unknown.
    pub group: Arc<str>,
    /// Inode number.
    pub inode: u64,
    /// Only for hard links: tells which inodes belong together.
    pub device_id: u64,
    /// Bytes; of regular files alone.
    pub size: u64,
    /// Number of hard links.
    pub links: u64,
    /// Where a symbolic link points, raw bytes.
    pub link_target: Box<[u8]>,
    /// In the order they are written.
    pub extended_attributes: Vec<ExtendedAttribute>,
    /// Other systems' attributes, raw JSON (`{...}`), kept as they are.
    pub generic_attributes: Option<Box<str>>,
    /// `st_rdev` of a device.
    pub device: u64,
    /// A file's blobs in order; `None` is JSON's `null`.
    pub content: Option<Vec<Id>>,
    /// A directory's tree.
    pub subtree: Option<Id>,
    /// An error restic recorded.
    pub error: Box<str>,
}

impl Node {
    /// Whether the name can be one directory's entry, so that joining it to a path stays below that path. False for what
    /// only a forged or damaged tree holds: an empty name, `.`, `..`, a `/` or a NUL in it.
    pub fn has_safe_name(&self) -> bool {
        !matches!(&*self.name, b"" | b"." | b"..") && !self.name.iter().any(|byte| matches!(byte, b'/' | 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_keep_their_text_also_those_of_a_later_restic() {
        for text in ["file", "dir", "symlink", "dev", "chardev", "fifo", "socket", "irregular", "door", ""] {
            assert_eq!(NodeKind::from(text).as_str(), text);
        }
        assert_eq!(NodeKind::from("door"), NodeKind::Other("door".into()));
    }

    #[test]
    fn kinds_follow_from_the_mode() {
        for (st_mode, kind) in [
            (0o100_644, NodeKind::File),
            (0o042_775, NodeKind::Dir),
            (0o120_777, NodeKind::Symlink),
            (0o060_660, NodeKind::BlockDevice),
            (0o020_666, NodeKind::CharDevice),
            (0o010_600, NodeKind::Fifo),
            (0o140_755, NodeKind::Socket),
        ] {
            assert_eq!(NodeKind::of_file_mode(mode::file_mode_from_st_mode(st_mode)), kind);
        }
        assert_eq!(NodeKind::of_file_mode(mode::DIR | mode::SYMLINK).as_str(), "");
    }
}
