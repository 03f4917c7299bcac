//! What backup and repository promise, tried on real file systems and storages that fail: what is saved comes back
//! the same, whatever happens meanwhile.

mod against_restic;
mod changing_files;
mod crash;
mod elsewhere;
mod incremental;
mod restore_over;
mod round_trip;
mod streams;
mod support;
