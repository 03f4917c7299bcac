//! A dump brought back: into a new database beside the old one, which takes the old one's name only when it is complete.
//!
//! The invariant: whatever fails, whoever uses the database goes on with the old one, and nothing half restored stays.

pub(crate) mod options;

pub use options::{Options, Restored};

use std::io::Read;

use crate::address::{Address, Login};
use crate::dump::Part;
use crate::error::Error;
use crate::{mysql, postgres, sqlite};

/// Restores a part, to its own database or that of the target's address if it names one.
///
/// # Errors
/// [`Error::Failed`] if the dump breaks, the client fails or the disk is full: then all is as it was before.
pub fn restore(target: &Login, part: &Part, dump: &mut dyn Read, options: &Options) -> Result<Restored, Error> {
    match &target.address {
        Address::Postgres(server) => postgres::restore::restore(target, server, part, dump, options),
        Address::Mysql(server) => mysql::restore::restore(target, server, part, dump, options),
        Address::Sqlite(path) => sqlite::restore::restore(path, part, dump, options),
    }
}
