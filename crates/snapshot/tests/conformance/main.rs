//! One suite of promises, run on every provider upon real storage. Needs root.
//!
//! A provider joins by a module of its own that implements `suite::Fixture` and calls `suite::conformance`.

mod btrfs;
mod convert;
mod detect;
mod lvm;
mod process;
mod reflink;
mod storage;
mod suite;
mod tree;
mod zfs;
