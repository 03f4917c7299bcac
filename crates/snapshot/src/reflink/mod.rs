//! Snapshots by reflink: a second tree whose files share their extents with the first (ioctl_ficlone(2)).
//!
//! Works wherever the file system can share extents (XFS, btrfs, bcachefs), also for an ordinary user in one's own
//! directories. File by file, and so not of one moment: [`crate::provider::Abilities::is_atomic`] says so.

pub mod attributes;
pub mod clone;
mod content;
pub(crate) mod crew;
pub mod descend;
mod entries;
mod entry;
mod flags;
pub mod provider;
pub(crate) mod remove;
mod rename;
mod space;
mod store;
mod switch;

pub(crate) use store::NAME as STORE;
