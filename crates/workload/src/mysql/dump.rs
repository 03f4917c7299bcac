//! Dumps by mariadb-dump and mysqldump: one database each, in one transaction, and the accounts.

use std::io::{self, Cursor, Read};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::Command;

use super::accounts;
use super::client::{Client, Flavour, SYSTEM, Version, command, identifier, literal, reason, refusal};
use crate::address::{Login, Server};
use crate::dump::part::{Contents, Dump, Format, Part, broken};
use crate::error::Error;
use crate::tool::{Output, Program, Tools};

const MARIADB_DUMP: Program = Program { names: &["mariadb-dump", "mysqldump"], package: "mariadb-client" };
const MYSQLDUMP: Program = Program { names: &["mysqldump"], package: "mysql-client" };

/// The part with the accounts, of the server or of those that may use one database.
const ACCOUNTS: &str = "globals.sql";

/// Written out even where they are the tool's own: files of options can turn each of them off, and `force` on.
const OPTIONS: [&str; 13] = [
    "--opt",
    "--comments",
    "--tz-utc",
    "--quote-names",
    "--hex-blob",
    "--routines",
    "--events",
    "--triggers",
    "--no-tablespaces",
    // Two dumps of the same content are the same bytes.
    "--skip-dump-date",
    "--skip-add-drop-trigger",
    "--skip-force",
    "--max-allowed-packet=1G",
];

pub(crate) fn contents(login: &Login, server: &Server, all: bool) -> Result<Contents, Error> {
    let database = if all { None } else { server.database.as_deref() };
    if database.is_none() && !all {
        let why = "names no database; write one after the last slash, or all = true";
        return Err(Error::Address { address: login.address.to_string(), reason: why.to_owned() });
    }
    let mut client = Client::open_database(login, server, database)?;
    let (_, tool) = dump_tool(&login.tools, &client.version)?;
    let query =
        format!("select schema_name from information_schema.schemata where schema_name not in ({SYSTEM}) order by 1;");
    let databases = match database {
        Some(database) => vec![database.to_owned()],
        None => client.column("the list of databases", &query)?,
    };
    let mut parts: Vec<Part> = databases
        .into_iter()
        .map(|database| Part { file: file(&database), database: Some(database), format: Format::MysqlSql })
        .collect();
    let server = client.version.to_string();
    // A login that sees one database alone does not see who else may use it: that is no reason to dump nothing.
    if all || accounts::statements(&mut client, database).is_ok() {
        // Last, as a grant on a table needs the table.
        parts.push(Part { file: ACCOUNTS.to_owned(), database: None, format: Format::MysqlSql });
    }
    Ok(Contents { server, tool, parts })
}

pub(crate) fn open(login: &Login, server: &Server, part: &Part) -> Result<Box<dyn Dump>, Error> {
    let Some(database) = &part.database else {
        let mut client = Client::open_database(login, server, None)?;
        let statements = accounts::statements(&mut client, server.database.as_deref())?;
        return Ok(Box::new(Cursor::new(statements.into_bytes())));
    };
    let mut client = Client::open_database(login, server, Some(database))?;
    let (mut command, what) = dump_command(login, server, &client.version)?;
    command.args(["--single-transaction", "--quick"]);
    if has_history(&mut client, database)? {
        command.arg("--dump-history");
    }
    command.arg("--").arg(database);
    let address = login.address.to_string();
    let output = Output::start(command, &address, &format!("{what} of {database}"))?;
    // Without CREATE DATABASE in it, it can be restored under any name; this is what it would have said.
    let head = Cursor::new(character_set(&mut client, database)?.into_bytes());
    let whole = Whole { head, output, tail: Vec::new(), address, what, database: database.clone(), ended: false };
    Ok(Box::new(whole))
}

/// The statement that gives the database that is in use the character set of this one.
pub(super) fn character_set(client: &mut Client, database: &str) -> Result<String, Error> {
    let query = format!(
        "select default_character_set_name, default_collation_name from information_schema.schemata \
         where schema_name = {};",
        literal(database)
    );
    let rows = client.ask("the database's character set", &query, super::client::PATIENCE)?;
    let Some([set, collation]) = rows.first().map(Vec::as_slice) else {
        return Err(client.failed("the database's character set", format!("{} is not there", identifier(database))));
    };
    Ok(format!("ALTER DATABASE CHARACTER SET {set} COLLATE {collation};\n"))
}

/// MariaDB's tables can keep their history, which is not dumped unasked.
fn has_history(client: &mut Client, database: &str) -> Result<bool, Error> {
    let query = format!(
        "select count(*) from information_schema.tables where table_schema = {} and table_type = 'SYSTEM VERSIONED';",
        literal(database)
    );
    let count = client.value("the tables with a history", &query)?;
    Ok(count.is_some_and(|count| count != "0") && client.version.series() >= (10, 11))
}

/// The definitions of a database without its rows.
pub(super) fn definitions(login: &Login, server: &Server, version: &Version, database: &str) -> Result<Output, Error> {
    let (mut command, what) = dump_command(login, server, version)?;
    command.args(["--no-data", "--skip-lock-tables", "--"]).arg(database);
    Output::start(command, &login.address.to_string(), &format!("{what} of {database}'s definitions"))
}

fn dump_command(login: &Login, server: &Server, version: &Version) -> Result<(Command, String), Error> {
    let (program, _) = dump_tool(&login.tools, version)?;
    let mut command = command(login, server, &program)?;
    command.args(OPTIONS);
    if version.flavour == Flavour::MySql {
        // Positions of replication belong to the server, and statistics it makes itself.
        command.args(["--set-gtid-purged=OFF", "--column-statistics=0"]);
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((command, name))
}

/// The installed tool that fits a server: of the same make, and no older.
fn dump_tool(tools: &Tools, server: &Version) -> Result<(PathBuf, String), Error> {
    let wanted = if server.is_mariadb() { MARIADB_DUMP } else { MYSQLDUMP };
    let mut refused = None;
    for program in tools.all(wanted) {
        let said = tools.version(&program)?;
        let version = tool_version(&said);
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reason = if version.flavour != server.flavour {
            format!("is of {version}, and the server is {server}")
        } else if version.series() < server.series() {
            format!("{} is older than the server, {}", version.number, server.number)
        } else {
            return Ok((program, format!("{name} {}", version.number)));
        };
        refused = refused.or(Some(Error::Tool { program: name, reason, package: wanted.package.to_owned() }));
    }
    match refused {
        Some(error) => Err(error),
        None => tools.find(wanted).map(|program| (program, String::new())),
    }
}

/// `mariadb-dump  Ver 10.19 Distrib 10.11.14-MariaDB, for ...`, `mariadb-dump from 11.4.2-MariaDB, client 10.19 for ...`,
/// `mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)`.
fn tool_version(said: &str) -> Version {
    let after = |word: &str| said.split_once(word).map(|(_, rest)| rest.trim_start());
    let text = after(" Distrib ").or_else(|| after(" from ")).or_else(|| after(" Ver ")).unwrap_or_default();
    Version::read(text.split([',', ' ']).next().unwrap_or_default())
}

/// A name of a database as that of a file in a backup.
fn file(database: &str) -> String {
    let mut name = String::new();
    for (at, byte) in database.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || byte == b'.' && at > 0;
        if plain { name.push(char::from(byte)) } else { name.push_str(&format!("%{byte:02X}")) }
    }
    let file = format!("{name}.sql");
    if file == ACCOUNTS { "%67lobals.sql".to_owned() } else { file }
}

/// The tool's output, whose end is one only behind its last line.
struct Whole {
    /// What comes before it.
    head: Cursor<Vec<u8>>,
    output: Output,
    tail: Vec<u8>,
    address: String,
    what: String,
    database: String,
    ended: bool,
}

/// Longer than the last line.
const TAIL_BYTES: usize = 128;

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.head.read(buffer)?;
        if length > 0 {
            return Ok(length);
        }
        let length = self.output.read(buffer).map_err(|error| self.told(error))?;
        if length > 0 {
            self.tail.extend_from_slice(&buffer[length.saturating_sub(TAIL_BYTES)..length]);
            let more = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..more);
        } else if !buffer.is_empty() && !self.ended {
            let text = String::from_utf8_lossy(&self.tail);
            let last = text.trim_end().lines().next_back().unwrap_or_default();
            if !last.starts_with("-- Dump completed") {
                let reason = "it ended well, but its output is not whole".to_owned();
                let (address, what) = (self.address.clone(), format!("{} of {}", self.what, self.database));
                return Err(broken(Error::Failed { address, what, reason }));
            }
            self.ended = true;
        }
        Ok(length)
    }
}

impl Dump for Whole {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.output.fd()
    }
}

impl Whole {
    /// A failure of the tool, told as a refusal if it is one.
    fn told(&self, error: io::Error) -> io::Error {
        match error.downcast::<Error>() {
            Ok(Error::Failed { address, what, reason: said }) => {
                let reason = reason(&said);
                let refused = refusal(&address, &self.database, &reason);
                broken(refused.unwrap_or(Error::Failed { address, what, reason }))
            }
            Ok(other) => broken(other),
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_say_their_versions_in_many_ways() {
        for (said, expected) in [
            ("mariadb-dump  Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)", "MariaDB 10.11.14"),
            ("mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)", "MariaDB 11.4.2"),
            ("mysqldump  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))", "MySQL 8.0.36"),
            ("mysqldump  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)", "MySQL 8.4.3"),
            ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", "MySQL 5.7.44"),
        ] {
            assert_eq!(tool_version(said).to_string(), expected);
        }
    }

    #[test]
    fn a_file_of_a_backup_bears_no_path_and_no_name_twice() {
        assert_eq!(file("shop_1-a.b"), "shop_1-a.b.sql");
        assert_eq!(file("../a b"), "%2E.%2Fa%20b.sql");
        assert_eq!(file("globals"), "%67lobals.sql");
    }
}
