//! Logging in: which program, as whom, with what password, and what a refusal means.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::address::{Login, Server};
use crate::error::Error;
use crate::session::{Answer, Session, Silence};
use crate::tool::{self, Program, Secret, User};

pub(super) const PSQL: Program = Program { names: &["psql"], package: "postgresql-client" };

/// So long a server may take to let us in, in seconds.
const CONNECT_SECS: u32 = 10;

/// The superuser that initdb makes on Debian, and its account.
const SUPERUSER: &str = "postgres";

/// A connection string of libpq (manual, "Connection Strings"). It bears no password.
pub(super) fn connection(server: &Server, database: Option<&str>) -> String {
    let mut words = vec![format!("connect_timeout={CONNECT_SECS}"), "application_name=snapback".to_owned()];
    let port = server.port.map(|port| port.to_string());
    let fixed = [
        ("host", server.host.as_deref()),
        ("port", port.as_deref()),
        ("user", server.user.as_deref()),
        ("dbname", database),
    ];
    let parameters = server.parameters.iter().map(|(name, value)| (name.as_str(), Some(value.as_str())));
    for (name, value) in fixed.into_iter().chain(parameters) {
        if let Some(value) = value {
            words.push(format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")));
        }
    }
    words.join(" ")
}

/// A command that logs in, still without the arguments that say where and to what.
pub(super) fn command(login: &Login, server: &Server, program: &Path) -> Result<Command, Error> {
    let mut command = login.tools.command(program);
    // What is asked is compared with what comes, whatever the terminal's encoding.
    command.env("PGCLIENTENCODING", "UTF8");
    let contained = !login.tools.prefix.is_empty();
    let user = account(login, server);
    if let Some(user) = &user {
        user.run(&mut command);
    }
    if let Some(file) = &login.password_file {
        if contained {
            return Err(Error::Refused(format!("{}: a password cannot be handed into a container", login.address)));
        }
        let secret = Secret::new(passfile(&tool::password(file)?).as_bytes(), user.as_ref())?;
        command.env("PGPASSFILE", secret.path());
        secret.give(&mut command);
    }
    Ok(command)
}

/// Root is nobody to PostgreSQL: over the local socket the server asks the kernel who is calling (peer authentication).
pub(super) fn account(login: &Login, server: &Server) -> Option<User> {
    if !login.tools.prefix.is_empty() || login.tools.account.is_some() {
        return login.tools.account.clone();
    }
    let local = match server.host.as_deref().or_else(|| server.parameter("host")) {
        None => server.parameter("hostaddr").is_none() && server.parameter("service").is_none(),
        Some(host) => host.starts_with('/'),
    };
    let wanted = server.user.as_deref().unwrap_or(SUPERUSER);
    if !tool::is_root() || !local || login.password_file.is_some() { None } else { User::named(wanted) }
}

/// A password for any server (manual, "The Password File").
fn passfile(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

/// An open session with a database.
pub(super) struct Client {
    session: Session,
    address: String,
    database: String,
}

/// Rows as `psql --csv` writes them. NULL is the empty text.
pub(super) type Rows = Vec<Vec<String>>;

impl Client {
    /// Logs in to the address's database, or to one that is always there.
    pub(super) fn open(login: &Login, server: &Server) -> Result<Client, Error> {
        match &server.database {
            Some(database) => Client::open_database(login, server, database),
            None => Client::open_server(login, server),
        }
    }

    /// Logs in to a database that is always there, or almost.
    pub(super) fn open_server(login: &Login, server: &Server) -> Result<Client, Error> {
        match Client::open_database(login, server, "postgres") {
            Err(Error::NoDatabase { .. }) => Client::open_database(login, server, "template1"),
            other => other,
        }
    }

    /// Logs in to a database of the server.
    pub(super) fn open_database(login: &Login, server: &Server, database: &str) -> Result<Client, Error> {
        let program = login.tools.find(PSQL)?;
        let mut command = command(login, server, &program)?;
        command.args(["--no-psqlrc", "--quiet", "--csv", "--tuples-only", "--no-password"]);
        command.arg("--dbname").arg(connection(server, Some(database)));
        let session = Session::start(command, |mark| format!("\\echo {mark} :ERROR :SQLSTATE"))?;
        let address = login.address.to_string();
        let mut client = Client { session, address, database: database.to_owned() };
        // Notices would stand among the rows; nobody's names are to be found before the server's own; and only a
        // superuser may choose the language that errors are read in.
        let greeting = "select set_config('client_min_messages', 'error', false), \
            set_config('search_path', 'pg_catalog', false), set_config('datestyle', 'iso', false), \
            case when rolsuper then set_config('lc_messages', 'C', false) end \
            from pg_roles where rolname = current_user;";
        client.ask("the login", greeting, Duration::from_secs(u64::from(CONNECT_SECS) + 5))?;
        Ok(client)
    }

    /// Runs one statement, as the client tells only of the last whether it failed, and gives its rows.
    pub(super) fn ask(&mut self, what: &str, statement: &str, limit: Duration) -> Result<Rows, Error> {
        self.send(what, statement)?;
        self.answer(what, limit)
    }

    /// Sends a statement, of which [`Client::poll`] gives the rows.
    pub(super) fn send(&mut self, what: &str, statement: &str) -> Result<(), Error> {
        self.session.send(statement).map_err(|silence| self.silent(what, silence))
    }

    /// What came back for what was sent, or `None` if nothing has by now.
    pub(super) fn poll(&mut self, what: &str, wait: Duration) -> Result<Option<Result<Rows, Error>>, Error> {
        match self.session.answer(wait) {
            Err(Silence::Limit(_)) => Ok(None),
            Err(silence) => Err(self.silent(what, silence)),
            Ok(answer) => Ok(Some(self.read(what, &answer))),
        }
    }

    fn answer(&mut self, what: &str, limit: Duration) -> Result<Rows, Error> {
        let answer = self.session.answer(limit).map_err(|silence| self.silent(what, silence))?;
        self.read(what, &answer)
    }

    fn read(&self, what: &str, answer: &Answer) -> Result<Rows, Error> {
        match answer.ended.split_once(' ') {
            Some(("false", _)) => Ok(rows(&answer.output)),
            _ => Err(self.failed(what, tool::said(&answer.output))),
        }
    }

    /// The server's version as a number: 150018 is 15.18.
    pub(super) fn version(&mut self) -> Result<u32, Error> {
        let rows = self.ask("the question for its version", "show server_version_num;", Duration::from_secs(10))?;
        let version = rows.first().and_then(|row| row.first()).and_then(|value| value.parse().ok());
        version.ok_or_else(|| self.failed("the question for its version", "an answer that is none".to_owned()))
    }

    /// Which server this is, as errors name it.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    fn silent(&self, what: &str, silence: Silence) -> Error {
        match silence {
            Silence::Limit(limit) => self.failed(what, format!("no answer within {} s", limit.as_secs())),
            Silence::Ended(said) => {
                refusal(&self.address, &self.database, &said).unwrap_or_else(|| self.failed(what, said))
            }
        }
    }

    pub(super) fn failed(&self, what: &str, reason: String) -> Error {
        Error::Failed { address: self.address.clone(), what: what.to_owned(), reason }
    }
}

/// What a client that could not log in meant, by what libpq and the server say in the C locale.
pub(super) fn refusal(address: &str, database: &str, said: &str) -> Option<Error> {
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    // It repeats what it was told, and the way out is the same as before.
    let reason = said.replace("psql: error: ", "");
    let address = address.to_owned();
    if said.contains(&format!("database \"{database}\" does not exist")) {
        return Some(Error::NoDatabase { address, database: database.to_owned() });
    }
    let login = [
        "authentication failed",
        "no password supplied",
        "no pg_hba.conf entry",
        "is not permitted to log in",
        "permission denied for database",
    ];
    if has(&login) || said.contains("role \"") && said.contains("does not exist") {
        return Some(Error::Login { address, reason });
    }
    has(&["connection to server", "could not connect", "could not translate host name", "server closed the connection"])
        .then_some(Error::Unreachable { address, reason })
}

/// Reads CSV (RFC 4180): quoted is what has a comma, a quote or a newline in it, and a quote is doubled.
fn rows(text: &str) -> Rows {
    let mut rows = Vec::new();
    let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, quoted) {
            ('"', true) if characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut field)),
            ('\n', false) => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            (other, _) => field.push(other),
        }
    }
    rows
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as SQL writes it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_whatever_is_in_them() {
        let expected = [vec!["1", "a\nb,\"x", ""], vec!["", "x", "y"]];
        assert_eq!(rows("1,\"a\nb,\"\"x\",\n,x,y\n"), expected);
        assert_eq!(rows(""), Rows::new());
    }

    #[test]
    fn a_connection_string_keeps_what_it_is_given() {
        let server = Server {
            host: Some("/run/pg".to_owned()),
            port: Some(5433),
            user: Some("o'neil".to_owned()),
            ..Server::default()
        };
        let text = connection(&server, Some("a\\b c"));
        assert!(text.ends_with(r"host='/run/pg' port='5433' user='o\'neil' dbname='a\\b c'"), "{text}");
    }
}
