//! What is done with snapshots and, later, with backups as a whole.
//!
//! - [`catalog`]: what was done and what there is, written down
//! - [`config`]: what a person wrote down: repositories, plans, projects
//! - [`convert`]: making a directory a subvolume, so that there can be snapshots of it
//! - [`daemon`]: what runs by the clock
//! - [`database`]: a project's databases, held, dumped, brought back and proven
//! - [`discover`]: what a server has that is worth protecting
//! - [`guard`]: a snapshot around risky work, and the way back if nobody confirms it
//! - [`hook`]: a snapshot before each run of a package manager
//! - [`job`]: what a run does for a project: snapshots, backups, retention, prune, check
//! - [`manifest`]: what a backup says of itself
//! - [`nearest`]: the word that was probably meant
//! - [`net`]: a local backup where the storage has no snapshots
//! - [`place`]: on which disks something lies, and how near two things are
//! - [`repositories`]: from a repository in the configuration to an open one
//! - [`protect`]: from a directory to a project with a plan and a repository
//! - [`rollback`]: taking a directory back without anybody to ask, and going on with what was cut short
//! - [`status`]: how well all is protected, and what needs attention
//! - [`timeline`]: all points in time that a project can go back to
//!
//! Does not know of terminals and of HTTP: whoever calls asks and shows. Never reads the environment, and is given the
//! time ([`moment::Clock`]).

pub mod catalog;
pub mod config;
pub mod convert;
pub mod daemon;
pub mod database;
pub mod directories;
pub mod discover;
pub mod guard;
pub mod hook;
pub mod job;
pub mod manifest;
pub mod moment;
pub mod nearest;
pub mod net;
pub mod place;
pub mod process;
pub mod protect;
pub mod redact;
pub mod repositories;
pub mod rollback;
pub mod status;
pub mod timeline;
