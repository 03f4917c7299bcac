//! Dumps: what a server's own dump tool writes, read as a stream. Nothing is written on the way.

pub(crate) mod part;

pub use part::{Contents, Dump, Format, Part, broken};

use crate::address::{Address, Login};
use crate::error::Error;
use crate::{mysql, postgres, sqlite};

/// What there is to dump: the address's database, or with `all` every one of the server, with roles and grants.
///
/// # Errors
/// Whatever keeps a dump from being made and can be known before: [`Error::Unreachable`], [`Error::Login`],
/// [`Error::NoDatabase`], and [`Error::Tool`] if the dump tool is missing or older than the server.
pub fn contents(login: &Login, all: bool) -> Result<Contents, Error> {
    match &login.address {
        Address::Postgres(server) => postgres::dump::contents(login, server, all),
        Address::Mysql(server) => mysql::dump::contents(login, server, all),
        Address::Sqlite(path) => sqlite::dump::contents(path),
    }
}

/// Begins to dump a part that [`contents`] named.
///
/// # Errors
/// As [`contents`].
pub fn open(login: &Login, part: &Part) -> Result<Box<dyn Dump>, Error> {
    match &login.address {
        Address::Postgres(server) => postgres::dump::open(login, server, part),
        Address::Mysql(server) => mysql::dump::open(login, server, part),
        Address::Sqlite(path) => sqlite::dump::open(path),
    }
}
