//! Rollback, and what manages snapshots, against the trait alone.

#[path = "../disk/mod.rs"]
mod disk;
mod failing_state;
mod holding;
mod kill;
mod managing;
mod plain;
mod postgresql;
mod running;
mod site;
mod together;
