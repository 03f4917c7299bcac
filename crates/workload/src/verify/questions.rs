//! What is proven, with which questions, and what came of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dump::part::{Dump, Part};
use crate::error::Error;
use crate::quiesce::moment::Beside;
use crate::tool::Tools;

/// The servers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB or MySQL.
    Mysql,
    /// SQLite.
    Sqlite,
}

/// Files of a database that may be written: a clone of a snapshot, a restored backup.
#[derive(Clone, Debug)]
pub struct Copy<'a> {
    /// Whose.
    pub kind: Kind,
    /// The data directory, or of SQLite the file. It belongs to whom the server's files belong to.
    pub directory: &'a Path,
    /// Where what lies outside of the directory (write-ahead log, tablespaces) was copied to: the live path, the copy's.
    pub moved: &'a [(PathBuf, PathBuf)],
    /// What [`Held::release`](crate::quiesce::Held::release) gave to be put beside.
    pub beside: &'a [Beside],
}

/// What to ask, and how.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// The database for the query; `None` for each that is not the server's own.
    pub database: Option<String>,
    /// A query of the project's own. It must succeed and give a row, whose first value is neither empty, `0`, `f`, `false`
    /// nor NULL.
    pub query: Option<String>,
    /// An empty directory in which a throw-away server may keep socket, log and data. With room for the data where a dump
    /// is loaded.
    pub work: PathBuf,
    /// How long the server may take to start, recovery included. Zero for ten minutes.
    pub patience: Duration,
    /// Where the programs are.
    pub tools: Tools,
}

/// What was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Name and version of the server that was started.
    pub server: String,
    /// Databases that were looked at.
    pub databases: Vec<String>,
    /// What was run: `amcheck of 214 indexes`.
    pub checks: Vec<String>,
    /// What the query gave: the first row.
    pub answer: Option<String>,
    /// From the start until the server took queries.
    pub started_in: Duration,
    /// All of it.
    pub took: Duration,
    /// What could not be looked at, such as a check that is not installed.
    pub warnings: Vec<String>,
}

/// Opens the stream of a part.
pub type Open<'a> = dyn FnMut(&Part) -> Result<Box<dyn Dump + 'a>, Error> + 'a;

/// Whether what a query gave says yes.
pub fn agrees(value: &str) -> bool {
    !matches!(value.trim(), "" | "0" | "f" | "false")
}
