//! Files to a repository and back: walk, pipeline, restore, mount.
//!
//! Does not know of snapshots and databases.

pub mod archive;
pub mod attributes;
pub mod exclude;
pub mod mount;
pub mod progress;
pub mod read;
pub mod restore;
