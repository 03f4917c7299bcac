//! Rollback, and what manages snapshots, against the trait alone.

mod kill;
mod managing;
mod plain;
mod running;
mod site;
