//! What can go wrong with a database, and the way out.

use std::path::PathBuf;

/// Why something with a database was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("{address:?} is not the address of a database: {reason}")]
    Address {
        /// As it was written, without a password.
        address: String,
        /// What does not fit, and what would.
        reason: String,
    },
    /// The server does not answer: it is down, or lies elsewhere.
    #[error("{address} cannot be reached: {reason}")]
    Unreachable {
        /// Which, as [`Address`](crate::address::Address) shows it.
        address: String,
        /// What the client said.
        reason: String,
    },
    /// The server answers, but not to this user or password.
    #[error("{address} refuses the login: {reason}")]
    Login {
        /// Which, as [`Address`](crate::address::Address) shows it.
        address: String,
        /// What the client said.
        reason: String,
    },
    /// There is no such database.
    #[error("{address} has no database {database:?}")]
    NoDatabase {
        /// Where.
        address: String,
        /// The database.
        database: String,
    },
    /// A program that is needed is not there, or too old.
    #[error("{program} {reason}; install the package {package}")]
    Tool {
        /// The program.
        program: String,
        /// "is not installed", "15.4 is older than the server, 16.1".
        reason: String,
        /// The Debian package that has the right one.
        package: String,
    },
    /// A program or statement failed.
    #[error("{address}: {what} failed: {reason}")]
    Failed {
        /// Which, as [`Address`](crate::address::Address) shows it.
        address: String,
        /// Such as "pg_dump of orders".
        what: String,
        /// What it said; never a password.
        reason: String,
    },
    /// Not done, for safety.
    #[error("{0}")]
    Refused(String),
    /// A file or pipe failed.
    #[error("cannot {action} {path:?}")]
    Io {
        /// "read", "create".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
