//! What a run does for a project, on a real btrfs and with real repositories.
#![allow(missing_docs)]

mod backups;
mod hindered;
mod site;
mod upkeep;
