//! Snapshots: points in time of a directory on the same disk, made by copy-on-write and rolled back in a second.
//!
//! A [`provider::Provider`] is one mechanism (btrfs, ZFS, LVM thin, reflink) applied to one directory. What Snapback
//! knows of the snapshots it made ([`record::Record`]) lies in a [`state::State`] directory, one file each. Everything
//! that changes a live tree is a list of steps ([`provider::Step`]) that is journaled, then performed one by one; each
//! step can be performed again or reverted, so that a crash after any of them is finished or undone.
//!
//! Does not know of backups and repositories, projects and plans; never prints, never reads the environment, is
//! given the time.

pub mod adopt;
mod attach;
pub mod btrfs;
pub mod changes;
pub mod detect;
pub mod error;
pub mod expire;
mod extents;
pub mod holders;
pub mod id;
pub mod journal;
pub mod lvm;
pub mod manage;
pub mod mounts;
mod parked;
mod place;
pub mod provider;
pub mod record;
pub mod reflink;
pub mod rollback;
pub mod runner;
pub mod state;
pub mod undo;
pub mod zfs;
