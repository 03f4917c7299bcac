//! Trees cloned by reflink, on real file systems.

#[path = "../disk/mod.rs"]
mod disk;
mod snapshots;
mod trees;
