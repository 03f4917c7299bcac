//! What Linux keeps about a file besides its bytes, both ways: from the file system into a tree's [`Node`], and back.
//!
//! The invariant: a node describes exactly one look at the file (one `statx`), and nothing here follows a symbolic
//! link or looks up more than one name, so that nobody who renames directories meanwhile can lead it elsewhere. What
//! cannot be read or set is an [`AttributeError`] handed to the caller's `report`, and the rest is done nevertheless.
//!
//! It does not know of contents, trees and their order, or of which files belong to a backup. The zone and the moment
//! come from the caller.

mod apply;
mod create;
mod devices;
mod names;
mod read;
mod stat;
mod xattr;
mod zone;

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use apply::{Applier, Before};
pub use create::create;
pub use devices::Devices;
pub use names::Names;
pub use read::{Context, extended_attributes, link_target, node_from};
pub use stat::{Moment, Stat};
pub use zone::Zone;

#[cfg(doc)]
use repository::tree::Node;

/// A name in an open directory. The name has no `/`; `.` is the directory itself.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The directory, opened for reading or as a mere path (`O_PATH`).
    pub dir: BorrowedFd<'a>,
    /// Raw bytes.
    pub name: &'a [u8],
    /// The directory's path, for messages only.
    pub dir_path: &'a Path,
}

impl Entry<'_> {
    /// The entry's path, for messages.
    pub fn path(&self) -> PathBuf {
        self.dir_path.join(std::ffi::OsStr::from_bytes(self.name))
    }

    fn error(&self, action: Action, source: impl Into<io::Error>) -> AttributeError {
        AttributeError { path: self.path(), action, source: source.into() }
    }
}

/// One thing about one file that could not be read or set.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot {action}", path.display())]
pub struct AttributeError {
    /// The file.
    pub path: PathBuf,
    /// What was tried.
    pub action: Action,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// What was tried when an [`AttributeError`] came up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Action {
    /// Any of the metadata.
    #[error("read its metadata")]
    Stat,
    /// A symbolic link's target.
    #[error("read where the link points")]
    ReadLink,
    /// Names of the extended attributes.
    #[error("list its extended attributes")]
    ListXattrs,
    /// An extended attribute's value.
    #[error("read the extended attribute {0}")]
    ReadXattr(String),
    /// Setting an extended attribute.
    #[error("set the extended attribute {0}")]
    SetXattr(String),
    /// Removing an extended attribute that the backup does not have.
    #[error("remove the extended attribute {0}")]
    RemoveXattr(String),
    /// Owner and group.
    #[error("change its owner to {uid}:{gid}")]
    Chown {
        /// The backup's.
        uid: u32,
        /// The backup's.
        gid: u32,
    },
    /// Permissions.
    #[error("change its mode to {0:04o}")]
    Chmod(u32),
    /// Times of modification and access.
    #[error("set its times")]
    SetTimes,
    /// Making a symbolic link, fifo or device.
    #[error("create the {0}")]
    Create(&'static str),
}
