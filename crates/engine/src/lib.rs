//! What is done with snapshots and, later, with backups as a whole.
//!
//! - [`convert`]: making a directory a subvolume, so that there can be snapshots of it
//! - [`guard`]: a snapshot around risky work, and the way back if nobody confirms it
//! - [`hook`]: a snapshot before each run of a package manager
//! - [`net`]: a local backup where the storage has no snapshots
//! - [`rollback`]: taking a directory back without anybody to ask, and going on with what was cut short
//!
//! Does not know of terminals and of HTTP: whoever calls asks and shows. Never reads the environment, and is given the
//! time ([`moment::Clock`]).

pub mod convert;
pub mod guard;
pub mod hook;
pub mod moment;
pub mod net;
pub mod process;
pub mod rollback;
