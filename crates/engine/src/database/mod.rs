//! A project's databases: held for the moment of a snapshot, dumped, brought back, and proven to be whole.
//!
//! What is known of a database in a snapshot is written into the snapshot's record ([`held::Around`]): where its files
//! lay, whether all of them are in it, and what was done to it. So a proof needs neither the configuration nor the server
//! of then. Production is only ever asked; what is brought back lies beside it until it is whole.
//!
//! Does not know of servers' own ways ([`workload`]), nor of terminals.

mod copies;
pub mod dumps;
mod error;
pub mod held;
mod layout;
pub mod proof;
pub mod restore;
pub mod rollback;
mod work;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snapshot::provider::{Handle, Provider};
use snapshot::runner::System;
use snapshot::{detect, mounts};

pub use self::error::Error;
use crate::nearest::nearest;

fn reopen(directory: &Path, handle: &Handle) -> Result<Box<dyn Provider>, snapshot::error::Error> {
    detect::reopen(directory, handle, &mounts::mounts()?, Arc::new(System))
}

/// The one of a name, or all of them.
fn chosen<'d, T>(databases: &'d BTreeMap<String, T>, name: Option<&str>, of: &str) -> Result<Vec<&'d T>, Error> {
    let Some(name) = name else { return Ok(databases.values().collect()) };
    let found = databases.get(name).ok_or_else(|| {
        let refused = Error::refused(format!("there is no database {name:?} in {of}"));
        let names: Vec<&str> = databases.keys().map(String::as_str).collect();
        match nearest(name, names.iter().copied()) {
            Some(near) => refused.or(near),
            None if names.is_empty() => refused,
            None => refused.or(names.join(", ")),
        }
    })?;
    Ok(vec![found])
}
