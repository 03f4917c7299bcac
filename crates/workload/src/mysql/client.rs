//! Logging in: which program, with what password, and what a refusal means; statements, and the rows that come back.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::address::{Login, Server};
use crate::error::Error;
use crate::session::{Session, Silence};
use crate::tool::{self, Program, Secret};

pub(super) const CLIENT: Program = Program { names: &["mariadb", "mysql"], package: "mariadb-client" };

/// So long a server may take to let us in.
const CONNECT: Duration = Duration::from_secs(10);

/// For questions about tables and accounts.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The files of options that everybody's clients read; those of the user come after what is handed in, and would win.
const OPTIONS: [&str; 2] = ["/etc/my.cnf", "/etc/mysql/my.cnf"];

/// Whose server it is: the two have grown apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    MariaDb,
    MySql,
}

/// A server's, or a tool's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) flavour: Flavour,
    pub(super) number: String,
}

impl Version {
    /// What `SELECT VERSION()` gives: `10.11.14-MariaDB-0+deb12u2`, `8.0.36-0ubuntu0.22.04.1`.
    pub(super) fn read(text: &str) -> Version {
        let flavour = if text.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
        // Replicas that are older than MariaDB 10 are told that it is a 5.5.5.
        let text = text.strip_prefix("5.5.5-").unwrap_or(text);
        let length = text.find(|character: char| character != '.' && !character.is_ascii_digit()).unwrap_or(text.len());
        Version { flavour, number: text[..length].to_owned() }
    }

    /// Major and minor: within them dumps and files are the same.
    pub(super) fn series(&self) -> (u32, u32) {
        let mut numbers = self.number.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.flavour == Flavour::MariaDb
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.is_mariadb() { "MariaDB" } else { "MySQL" };
        write!(f, "{name} {}", self.number)
    }
}

/// A parameter of an address: no files of options are read.
pub(super) const NO_DEFAULTS: &str = "no-defaults";

/// A command that logs in, still without what it is to do.
pub(super) fn command(login: &Login, server: &Server, program: &Path) -> Result<Command, Error> {
    let mut command = login.tools.command(program);
    if server.parameter(NO_DEFAULTS).is_some() {
        command.arg("--no-defaults");
    } else if let Some(file) = &login.password_file {
        if !login.tools.prefix.is_empty() {
            return Err(Error::Refused(format!("{}: a password cannot be handed into a container", login.address)));
        }
        let secret = Secret::new(options(&tool::password(file)?).as_bytes(), None)?;
        // It must be the first argument.
        command.arg(format!("--defaults-file={}", secret.path()));
        secret.give(&mut command);
    }
    command.arg("--default-character-set=utf8mb4");
    let port = server.port.map(|port| port.to_string());
    let fixed = [("host", server.host.as_deref()), ("port", port.as_deref()), ("user", server.user.as_deref())];
    for (name, value) in fixed {
        if let Some(value) = value {
            command.arg(format!("--{name}={value}"));
        }
    }
    for (name, value) in server.parameters.iter().filter(|(name, _)| name != NO_DEFAULTS) {
        if name != "socket" && !name.starts_with("ssl") && !name.starts_with("tls") {
            let address = login.address.to_string();
            let reason = format!(
                "{name:?} is not known; known are socket, no-defaults, and the client's options ssl-... and tls-..."
            );
            return Err(Error::Address { address, reason });
        }
        command.arg(if value.is_empty() { format!("--{name}") } else { format!("--{name}={value}") });
    }
    Ok(command)
}

/// A file of options (manual, "Option File Syntax") with a password, behind what the system's files say.
fn options(password: &str) -> String {
    let mut text = String::new();
    for file in OPTIONS.iter().filter(|file| Path::new(file).exists()) {
        text.push_str(&format!("!include {file}\n"));
    }
    text.push_str("[client]\npassword=\"");
    for character in password.chars() {
        if matches!(character, '\\' | '"' | '\'') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push_str("\"\n");
    text
}

/// An open session with a server.
pub(super) struct Client {
    session: Session,
    address: String,
    database: String,
    pub(super) version: Version,
}

/// Rows as the client writes them in batch mode, unescaped. NULL is the text `NULL`.
pub(super) type Rows = Vec<Vec<String>>;

impl Client {
    /// Logs in to a server, and perhaps to one of its databases.
    pub(super) fn open_database(login: &Login, server: &Server, database: Option<&str>) -> Result<Client, Error> {
        let program = login.tools.find(CLIENT)?;
        let mut command = command(login, server, &program)?;
        // No --force: the first statement that fails ends the session, and whatever it held is given back. Without
        // --skip-reconnect the client would go on in a new one that holds nothing.
        command.args(["--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect", "--no-auto-rehash"]);
        command.arg(format!("--connect-timeout={}", CONNECT.as_secs()));
        if let Some(database) = database {
            command.arg(format!("--database={database}"));
        }
        let session = Session::start(command, |mark| format!("select '{mark}';"))?;
        let version = Version { flavour: Flavour::MySql, number: String::new() };
        let database = database.unwrap_or_default().to_owned();
        let mut client = Client { session, address: login.address.to_string(), database, version };
        let greeting = "set session sql_mode = ''; select version();";
        let rows = client.ask("the login", greeting, CONNECT + Duration::from_secs(5))?;
        let text = rows.last().and_then(|row| row.first()).ok_or_else(|| client.failed("the login", "no version"))?;
        client.version = Version::read(text);
        Ok(client)
    }

    /// Runs statements, and gives the rows of all of them.
    pub(super) fn ask(&mut self, what: &str, statements: &str, limit: Duration) -> Result<Rows, Error> {
        let answer = self.session.ask(statements, limit).map_err(|silence| self.silent(what, silence))?;
        Ok(rows(&answer.output))
    }

    /// The first column of what a query gives.
    pub(super) fn column(&mut self, what: &str, query: &str) -> Result<Vec<String>, Error> {
        let rows = self.ask(what, query, PATIENCE)?;
        Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }

    /// The first value of what a query gives.
    pub(super) fn value(&mut self, what: &str, query: &str) -> Result<Option<String>, Error> {
        Ok(self.column(what, query)?.into_iter().next())
    }

    fn silent(&self, what: &str, silence: Silence) -> Error {
        match silence {
            Silence::Limit(limit) => self.failed(what, format!("no answer within {} s", limit.as_secs_f32())),
            Silence::Ended(said) => {
                let reason = reason(&said);
                refusal(&self.address, &self.database, &reason).unwrap_or_else(|| self.failed(what, reason))
            }
        }
    }

    pub(super) fn failed(&self, what: &str, reason: impl Into<String>) -> Error {
        Error::Failed { address: self.address.clone(), what: what.to_owned(), reason: reason.into() }
    }
}

/// The client, to be fed statements that were not written by us.
pub(super) fn feeder(login: &Login, server: &Server, database: Option<&str>) -> Result<Command, Error> {
    let mut command = command(login, server, &login.tools.find(CLIENT)?)?;
    // With --binary-mode no line of a dump is a command of the client's, such as one that starts a shell.
    command.args(["--batch", "--binary-mode", "--skip-reconnect", "--max-allowed-packet=1G"]);
    if let Some(database) = database {
        command.arg(format!("--database={database}"));
    }
    Ok(command)
}

/// What a client said that matters. In batch mode MariaDB's repeats the statement before the error, and a statement may
/// have a password in it.
pub(super) fn reason(said: &str) -> String {
    let repeated = said.rfind("--------------; ERROR ").map(|at| at + "--------------; ".len());
    let start = repeated.or_else(|| ["ERROR ", "Got error: "].iter().filter_map(|text| said.find(text)).min());
    said[start.unwrap_or(0)..].trim().to_owned()
}

/// What a client that could not log in meant, by the numbers of errors, which are the same in every locale.
pub(super) fn refusal(address: &str, database: &str, reason: &str) -> Option<Error> {
    let number = number(reason)?;
    let (address, reason) = (address.to_owned(), reason.to_owned());
    match number {
        1049 => Some(Error::NoDatabase { address, database: database.to_owned() }),
        // Denied to the account, to the account in this database, to the host, by the plugin; expired; locked.
        1044 | 1045 | 1130 | 1524 | 1698 | 1820 | 1862 | 3118 | 4151 => Some(Error::Login { address, reason }),
        // Too many connections, shutting down; what the client itself finds (2000 and on): no socket, refused, unknown host,
        // gone away, lost.
        1040 | 1053 | 2002..=2006 | 2012 | 2013 | 2026 | 2055 => Some(Error::Unreachable { address, reason }),
        _ => None,
    }
}

/// The number in `ERROR 1045 (28000): ...` or `Got error: 1045: "..."`.
fn number(reason: &str) -> Option<u32> {
    let rest = reason.strip_prefix("ERROR ").or_else(|| reason.strip_prefix("Got error: "))?;
    let length = rest.find(|character: char| !character.is_ascii_digit())?;
    rest[..length].parse().ok()
}

/// Reads what batch mode writes: tabs between values, and in them a backslash before what would be mistaken.
fn rows(text: &str) -> Rows {
    // Not lines(): a carriage return at the end is the value's own.
    text.split_terminator('\n').map(|line| line.split('\t').map(unescaped).collect()).collect()
}

fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('0') => text.push('\0'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    text
}

/// A text as SQL writes it, where backslashes escape (our sessions' `sql_mode` is empty).
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as SQL writes it.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// What the server itself needs, which is no one's data.
pub(super) const SYSTEM: &str = "'mysql', 'information_schema', 'performance_schema', 'sys'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_whatever_is_in_them() {
        assert_eq!(rows("1\ta\\nb\\tc\\\\n\t\n\tx\n"), [vec!["1", "a\nb\tc\\n", ""], vec!["", "x"]]);
        assert_eq!(rows(""), Rows::new());
    }

    #[test]
    fn versions_of_both_are_told_apart() {
        let shown = |text| Version::read(text).to_string();
        assert_eq!(shown("10.11.14-MariaDB-0+deb12u2-log"), "MariaDB 10.11.14");
        assert_eq!(shown("5.5.5-10.4.2-MariaDB"), "MariaDB 10.4.2");
        assert_eq!(shown("8.0.36-0ubuntu0.22.04.1"), "MySQL 8.0.36");
        assert_eq!(Version::read("8.4.3").series(), (8, 4));
    }

    #[test]
    fn an_error_is_known_by_its_number_and_shows_no_statement() {
        let said =
            "--------------; create user x identified by 'hunter2'; --------------; ERROR 1045 (28000) at line 1: no";
        assert_eq!(reason(said), "ERROR 1045 (28000) at line 1: no");
        assert!(matches!(refusal("mysql:///", "", &reason(said)), Some(Error::Login { .. })));
        let said = "mariadb-dump: Got error: 2002: \"Can't connect\" when trying to connect";
        assert!(matches!(refusal("mysql:///", "", &reason(said)), Some(Error::Unreachable { .. })));
        assert!(refusal("mysql:///", "", "ERROR 1146 (42S02): no such table").is_none());
    }
}
