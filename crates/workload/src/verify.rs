//! The proof that a copy of a database is good: a throw-away server is started on it, or loaded with it, and asked.
//!
//! The invariant: production is not touched. The server has a socket in its own directory and no network, and opens no
//! file outside of what it was given: a link in the copy that leads elsewhere is turned to its own copy, or refused.

pub(crate) mod questions;

pub use questions::{Copy, Kind, Open, Questions, Verified, agrees};

use crate::dump::part::{Format, Part};
use crate::error::Error;
use crate::{mysql, postgres, sqlite};

/// Starts a server on a copy of its files, and asks it.
///
/// # Errors
/// [`Error::Failed`] if it does not start, or a check or the query fails; [`Error::Refused`] if it could touch production.
pub fn data_directory(copy: &Copy<'_>, questions: &Questions) -> Result<Verified, Error> {
    match copy.kind {
        Kind::Postgres => postgres::verify::data_directory(copy, questions),
        Kind::Mysql => mysql::verify::data_directory(copy, questions),
        Kind::Sqlite => sqlite::verify::file(copy.directory, questions),
    }
}

/// Loads a dump into an empty server, and asks it. The parts are all of one database server, its own part first.
///
/// # Errors
/// As [`data_directory`]; also if a part's stream breaks.
pub fn dump(parts: &[Part], open: &mut Open<'_>, questions: &Questions) -> Result<Verified, Error> {
    match parts.first().map(|part| part.format) {
        Some(Format::PgCustom | Format::PgSql) => postgres::verify::dump(parts, open, questions),
        Some(Format::MysqlSql) => mysql::verify::dump(parts, open, questions),
        Some(Format::SqliteFile) => sqlite::verify::dump(parts, open, questions),
        None => Err(Error::Refused("there is no dump".to_owned())),
    }
}
