//! What is done with snapshots and, later, with backups as a whole.
//!
//! - [`guard`]: a snapshot around risky work, and the way back if nobody confirms it
//! - [`hook`]: a snapshot before each run of a package manager
//!
//! Does not know of terminals and of HTTP: whoever calls asks and shows. Never reads the environment, and is given the
//! time ([`moment::Clock`]).

pub mod error;
pub mod guard;
pub mod moment;
pub mod process;
