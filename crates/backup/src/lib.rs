//! Files to a repository and back: walk, pipeline, restore, mount.
//!
//! Does not know of snapshots and databases.

pub mod archive;
pub mod attributes;
pub mod mount;
pub mod patterns;
pub mod progress;
pub mod read;
pub mod restore;
