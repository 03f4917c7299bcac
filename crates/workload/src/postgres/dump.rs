//! Dumps by `pg_dump`, one for each database, and `pg_dumpall` for what belongs to the server.
//!
//! A dump is of one moment: pg_dump reads in one transaction (manual, "pg_dump"). Those of several databases are not of the
//! same one, as no transaction spans them.

use std::path::PathBuf;

use super::client::{self, Client, connection};
use super::quiesce::{SOON, short};
use crate::address::{Login, Server};
use crate::dump::part::{Contents, Dump, Format, Part};
use crate::error::Error;
use crate::tool::{Output, Program, Tools};

const PG_DUMP: Program = Program { names: &["pg_dump"], package: "postgresql-client" };
const PG_DUMPALL: Program = Program { names: &["pg_dumpall"], package: "postgresql-client" };

/// Roles with their passwords, memberships, tablespaces, settings; only a superuser can read it.
const GLOBALS: &str = "globals.sql";

/// Roles and memberships, without passwords.
const ROLES: &str = "roles.sql";

const DATABASES: &str = "select datname from pg_database \
    where datallowconn and datname not in ('template0', 'template1') order by 1;";

/// What there is to dump.
pub(crate) fn contents(login: &Login, server: &Server, all: bool) -> Result<Contents, Error> {
    let mut client = Client::open(login, server)?;
    let version = client.version()?;
    let facts = "select current_setting('server_version'), current_setting('is_superuser');";
    let facts = client.ask("the question for its version", facts, SOON)?.concat();
    let [shown, superuser] = <[String; 2]>::try_from(facts).unwrap_or_default();
    let (_, tool) = fitting(&login.tools, PG_DUMP, version / 10_000)?;
    let databases = match (&server.database, all) {
        (Some(database), false) => vec![database.clone()],
        (_, true) => client.ask("the list of databases", DATABASES, SOON)?.concat(),
        (None, false) => {
            return Err(Error::Refused(format!("{}: name a database, or take all of them", login.address)));
        }
    };
    // Passwords of all roles are no part of one database's dump.
    let own = if all && superuser == "on" { GLOBALS } else { ROLES };
    let mut parts = vec![Part { file: own.to_owned(), database: None, format: Format::PgSql }];
    parts.extend(databases.into_iter().map(|database| Part {
        file: format!("{}.pgdump", file_name(&database)),
        database: Some(database),
        format: Format::PgCustom,
    }));
    Ok(Contents { server: format!("PostgreSQL {}", short(&shown)), tool, parts })
}

/// Begins to dump a part.
pub(crate) fn open(login: &Login, server: &Server, part: &Part) -> Result<Box<dyn Dump>, Error> {
    let version = Client::open(login, server)?.version()?;
    let program = if part.database.is_some() { PG_DUMP } else { PG_DUMPALL };
    let (program, _) = fitting(&login.tools, program, version / 10_000)?;
    let mut command = client::command(login, server, &program)?;
    // Quoted, names stay names where a later version has made them keywords.
    command.args(["--no-password", "--quote-all-identifiers"]);
    let what = match &part.database {
        Some(database) => {
            // Compressed, nothing would deduplicate. Who holds a table for a minute fails the dump rather than stops it.
            command.args(["--format=custom", "--compress=0", "--lock-wait-timeout=60000"]);
            command.arg("--dbname").arg(connection(server, Some(database)));
            format!("pg_dump of {database}")
        }
        None => {
            let what: &[&str] =
                if part.file == ROLES { &["--roles-only", "--no-role-passwords"] } else { &["--globals-only"] };
            command.args(what).arg("--dbname").arg(connection(server, server.database.as_deref()));
            format!("pg_dumpall {}", what[0])
        }
    };
    Ok(Box::new(Output::start(command, &login.address.to_string(), &what)?))
}

/// Of the programs that are installed, the oldest that knows the server's version: what it writes can then be read by that
/// version's own programs. With what it says of itself.
///
/// # Errors
/// [`Error::Tool`] with the package of the server's version.
pub(super) fn fitting(tools: &Tools, program: Program, major: u32) -> Result<(PathBuf, String), Error> {
    tools.find(program)?;
    let mut fit: Option<(u32, PathBuf, String)> = None;
    let mut old: Option<String> = None;
    for path in tools.all(program) {
        let Ok(said) = tools.version(&path) else { continue };
        let Some((version, own)) = version_of(&said) else { continue };
        if own < major {
            old.get_or_insert(version.to_owned());
        } else if fit.as_ref().is_none_or(|(known, _, _)| own < *known) {
            fit = Some((own, path, format!("{} {version}", program.names[0])));
        }
    }
    fit.map(|(_, path, said)| (path, said)).ok_or_else(|| Error::Tool {
        program: program.names[0].to_owned(),
        reason: match old {
            Some(version) => format!("{version} is older than the server, {major}"),
            None => "does not tell its version".to_owned(),
        },
        package: format!("postgresql-client-{major}"),
    })
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`: the version, and its first number. Of `16beta1` 16.
pub(super) fn version_of(said: &str) -> Option<(&str, u32)> {
    let version = said.split(' ').find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let major = version.split(|character: char| !character.is_ascii_digit()).next()?;
    Some((version, major.parse().ok()?))
}

/// A database may be called `a/b`.
fn file_name(database: &str) -> String {
    let mut name = String::new();
    for byte in database.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_tell_them() {
        assert_eq!(version_of("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(("15.18", 15)));
        assert_eq!(version_of("pg_dump (PostgreSQL) 17beta2"), Some(("17beta2", 17)));
        assert_eq!(version_of("no such thing"), None);
    }

    #[test]
    fn no_database_leads_out_of_the_backup_by_its_name() {
        assert_eq!(file_name("orders-2.old"), "orders-2.old");
        assert_eq!(file_name("../ä"), "%2E.%2F%C3%A4");
        assert_eq!(file_name("."), "%2E");
    }
}
