//! The databases that a restore has to do with, and statements in them.

use std::io::Read;

use super::client::{Client, feeder, literal, reason};
use crate::address::{Login, Server};
use crate::error::Error;
use crate::tool::feed;

/// Tells our databases from others that happen to be named like them, and keeps what a switch needs to be settled.
pub(super) const JOURNAL: &str = "snapback_restore";

/// The databases of one restore.
pub(super) struct Names {
    /// The final one.
    pub(super) name: String,
    /// The one that is loaded.
    pub(super) loading: String,
    /// Where the old tables go, if there are any.
    pub(super) kept: Option<String>,
}

pub(super) fn exists(control: &mut Client, database: &str) -> Result<bool, Error> {
    let query = format!("select count(*) from information_schema.schemata where schema_name = {};", literal(database));
    Ok(control.value("the list of databases", &query)?.is_some_and(|count| count != "0"))
}

/// Runs statements that were not written by us.
pub(super) fn run(
    login: &Login,
    server: &Server,
    database: Option<&str>,
    input: &mut dyn Read,
    what: &str,
) -> Result<(), Error> {
    let address = login.address.to_string();
    feed(feeder(login, server, database)?, input, &address, what).map_err(|error| match error {
        Error::Failed { address, what, reason: said } => Error::Failed { address, what, reason: reason(&said) },
        other => other,
    })
}
