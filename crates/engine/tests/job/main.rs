//! What a run does for a project, on a real btrfs and with real repositories.
#![allow(missing_docs)]

mod backups;
mod dumps;
mod hindered;
#[path = "../../../workload/tests/servers/postgres.rs"]
mod postgres;
mod site;
mod upkeep;
