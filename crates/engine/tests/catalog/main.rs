//! The catalog as the daemon and the commands use it: jobs, damage, several processes at once, a full disk.
#![allow(missing_docs)]

mod damage;
mod full;
mod jobs;
mod points;
mod processes;
mod steps;
mod support;
