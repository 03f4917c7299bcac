//! One entry of a directory.

use std::sync::Arc;

use crate::id::Id;
use crate::tree::Timestamp;

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

/// An extended attribute; restic writes `null` for an empty value it could not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// With its namespace: `user.x`, `security.capability`, `system.posix_acl_access`.
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
