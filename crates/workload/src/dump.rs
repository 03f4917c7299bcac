//! Dumps: what a server's own dump tool writes, read as a stream. Nothing is written on the way.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

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
    /// What is dumped, the server's own part first.
    pub parts: Vec<Part>,
}

/// A dump that runs. The invariant: it ends without an error only if it is whole, so whoever reads it to its end has
/// all of it. Dropped before its end, the tool is ended and waited for.
pub trait Dump: Read + Send {}

impl<T: Read + Send> Dump for T {}

/// An error of a dump as a reader bears it.
pub fn broken(error: crate::error::Error) -> io::Error {
    io::Error::other(error)
}
