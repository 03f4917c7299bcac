//! What dumps consist of.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One stream of a dump, which becomes one file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file's name: `orders.pgdump`, `globals.sql`, `shop.sql`, `app.db`.
    pub file: String,
    /// The database that it is of; `None` for what belongs to the server: roles and grants.
    pub database: Option<String>,
    /// How it is restored.
    pub format: Format,
}

/// What a part is restored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// pg_dump's custom format, uncompressed: `pg_restore`.
    PgCustom,
    /// Statements: `psql`.
    PgSql,
    /// Statements: `mariadb` or `mysql`.
    MysqlSql,
    /// The database file itself.
    SqliteFile,
}

/// What there is to dump, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Name and version of the server: `PostgreSQL 15.18`, `MariaDB 10.11.14`, `SQLite 3.50`.
    pub server: String,
    /// Name and version of the dump tool.
    pub tool: String,
    /// What is dumped, in the order in which it is restored: of PostgreSQL the server's own part first, as databases have
    /// owners; of MariaDB last, as a grant on a table needs the table.
    pub parts: Vec<Part>,
}

/// A dump that runs. The invariant: it ends without an error only if it is whole, so whoever reads it to its end has
/// all of it. Dropped before its end, the tool is ended and waited for.
///
/// An error of it bears an [`Error`], which [`io::Error::downcast`] gives back.
pub trait Dump: Read + Send {
    /// What can be waited on (poll(2)) instead of in `read`, if that is what it reads from, and it keeps nothing of it in
    /// a buffer: so whoever reads can be called off while the server stands still.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An error of a dump as a reader bears it.
pub fn broken(error: Error) -> io::Error {
    io::Error::other(error)
}
