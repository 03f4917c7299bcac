//! What differs between two trees: a snapshot's and the live one, or two snapshots'.
//!
//! The storage's own answer ([`Provider::changed_paths`](crate::provider::Provider::changed_paths)) limits where to
//! look; without one, both trees are walked. Either way every difference that is told was seen on both sides.
//! Invariant: what is not told is equal in kind, content, owner, mode, extended attributes and, but for directories,
//! time of modification. Content is read only where the inode does not say that nothing was done to it, and the
//! extents do not say that it is shared.
//!
//! Nested subvolumes and mounts below belong to neither tree. Does not know of providers.

pub(crate) mod compare;
mod content;
mod ranges;
mod walk;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use crate::provider::Summary;
pub use content::{ContentDiff, content};

use crate::error::Error;
use crate::provider::Changed;
use crate::reflink::STORE;

/// How the directory is called in which [`undo`](crate::undo) makes things, before an id.
pub(crate) const STAGING: &str = ".snapback-undo-";

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, fifo or socket.
    Special,
}

/// In which way a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// It is in the second tree alone.
    Added,
    /// It is in the first tree alone.
    Removed,
    /// Its content, where a link leads, or a device's number.
    Modified,
    /// Not its content, but its owner, mode, time or extended attributes.
    Attributes,
    /// It is something else: a file became a directory.
    Replaced,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Relative to the trees' roots; empty for the root itself.
    pub path: PathBuf,
    /// In which way.
    pub what: What,
    /// What it is: in the second tree, or in the first if it is there alone.
    pub kind: Kind,
    /// Its length in the first tree, of files.
    pub size_before: Option<u64>,
    /// Its length in the second tree, of files.
    pub size_after: Option<u64>,
}

/// All differences.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order of the paths.
    pub list: Vec<Change>,
    /// What could not be looked at.
    pub unread: Vec<Error>,
}

impl Changes {
    /// In numbers.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for change in self.list.iter().filter(|change| change.kind != Kind::Directory) {
            match change.what {
                What::Added => summary.added += 1,
                What::Removed => summary.removed += 1,
                _ => summary.changed += 1,
            }
            summary.bytes += change.size_after.unwrap_or(0);
        }
        summary
    }
}

/// Whether a name in a live tree is one that Snapback gave: such things are no part of what they lie in.
pub(crate) fn is_ours(name: &[u8]) -> bool {
    name == STORE.as_bytes() || name.starts_with(STAGING.as_bytes())
}

/// Compares two trees, everywhere or only where `limited` says that they may differ.
///
/// # Errors
/// If one of the roots cannot be opened. What cannot be looked at below is told in [`Changes::unread`].
pub fn between(before: &Path, after: &Path, limited: Option<&[Changed]>) -> Result<Changes, Error> {
    walk::walk(before, after, limited)
}
