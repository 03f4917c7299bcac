//! A throw-away server asked: `pg_amcheck` of all tables and indexes, and a query of the project's own.
//!
//! Sources: the manual, "pg_amcheck" and "amcheck".

use std::fs;
use std::time::{Duration, Instant};

use super::client::{self, Client, connection};
use super::quiesce::{SOON, short};
use super::throwaway::{Programs, SUPERUSER, Throwaway, confine, failed_to, initialize, make};
use crate::address::Server;
use crate::dump::part::Part;
use crate::error::Error;
use crate::restore::options::Options;
use crate::tool::{self, User, said, started};
use crate::verify::questions::{Copy, Open, Questions, Verified, agrees};

/// A query of a project's own may read whole tables.
const QUERY: Duration = Duration::from_secs(3600);

/// The database that initdb makes.
const MAINTENANCE: &str = "postgres";

/// Tables, and indexes that amcheck knows.
const COUNT: &str = "select count(*) filter (where relkind in ('r', 'm', 't', 'S')), \
    count(*) filter (where relkind = 'i' and relam = 403) from pg_class where relpersistence <> 't';";

/// Starts a server on a copy of its files, and asks it.
pub(crate) fn data_directory(copy: &Copy<'_>, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    let version = copy.directory.join("PG_VERSION");
    let text = fs::read_to_string(&version).map_err(|error| failed_to("read", &version, error))?;
    let major = text.trim().split('.').next().and_then(|major| major.parse().ok());
    let programs = Programs::find(&questions.tools, Some(major.unwrap_or_default()))?;
    let account = User::owner(copy.directory)?;
    if account.uid == 0 {
        return Err(Error::Refused(format!("{:?} belongs to root, whom no server runs as", copy.directory)));
    }
    confine(copy)?;
    let server = Throwaway::start(&programs, copy.directory, &account, questions)?;
    ask(&server, &programs, questions, began)
}

/// Loads a dump into an empty server, and asks it.
pub(crate) fn dump(parts: &[Part], open: &mut Open<'_>, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    let programs = Programs::find(&questions.tools, None)?;
    let account = if tool::is_root() { User::named(SUPERUSER) } else { User::own() };
    let none = || Error::Refused(format!("there is no account {SUPERUSER} for a throw-away server to run as"));
    let account = account.ok_or_else(none)?;
    let data = make(&questions.work, "data", &account)?;
    initialize(&programs, &data, &account, &questions.tools)?;
    let server = Throwaway::start(&programs, &data, &account, questions)?;
    let mut warnings = Vec::new();
    for part in parts {
        let options = Options { mark: "verify".to_owned(), ..Options::default() };
        let restored = super::restore::restore(&server.login, &server.server(), part, &mut open(part)?, &options)?;
        warnings.extend(restored.warnings);
        if let Some(kept) = restored.kept {
            // Of initdb's own, such as `postgres`.
            let drop = format!("drop database {};", client::identifier(&kept));
            Client::open_database(&server.login, &server.server(), "template1")?.ask("DROP DATABASE", &drop, QUERY)?;
        }
    }
    let mut verified = ask(&server, &programs, questions, began)?;
    verified.warnings.splice(0..0, warnings);
    Ok(verified)
}

fn ask(server: &Throwaway, programs: &Programs, questions: &Questions, began: Instant) -> Result<Verified, Error> {
    let address = server.server();
    let mut client = Client::open_server(&server.login, &address)?;
    let version = client.ask("its version", "select current_setting('server_version');", SOON)?.concat().concat();
    let list = "select datname from pg_database where datallowconn and not datistemplate order by 1;";
    let databases = client.ask("the list of databases", list, SOON)?.concat();
    let mut verified = Verified {
        server: format!("PostgreSQL {}", short(&version)),
        databases,
        checks: Vec::new(),
        answer: None,
        started_in: server.started_in,
        took: Duration::ZERO,
        warnings: Vec::new(),
    };
    amcheck(server, programs, &address, &mut verified)?;
    if let Some(query) = &questions.query {
        verified.answer = queried(server, &address, query, questions, &verified.databases)?;
    }
    verified.took = began.elapsed();
    Ok(verified)
}

fn amcheck(server: &Throwaway, programs: &Programs, address: &Server, verified: &mut Verified) -> Result<(), Error> {
    let program = programs.sibling("pg_amcheck");
    if !program.exists() {
        verified.warnings.push("pg_amcheck is not installed (PostgreSQL 14 and later have it)".to_owned());
        return Ok(());
    }
    let (mut tables, mut indexes) = (0, 0);
    for database in &verified.databases {
        let counts = Client::open_database(&server.login, address, database)?.ask("the tables", COUNT, SOON)?.concat();
        let count = |at: usize| counts.get(at).and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
        tables += count(0);
        indexes += count(1);
    }
    let mut command = client::command(&server.login, address, &program)?;
    command.args(["--all", "--install-missing", "--no-password", "--maintenance-db"]);
    command.arg(connection(address, Some("template1")));
    let output = command.output().map_err(|source| started(&program, source))?;
    let out = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = out.lines().chain(errors.lines()).take(10).collect();
        return Err(server.failed("amcheck", said(&lines.join("\n"))));
    }
    verified.checks.push(format!("amcheck of {tables} tables and {indexes} indexes"));
    Ok(())
}

/// The project's own query; its first row.
fn queried(
    server: &Throwaway,
    address: &Server,
    query: &str,
    questions: &Questions,
    databases: &[String],
) -> Result<Option<String>, Error> {
    let only = |database: &&String| questions.database.as_ref().is_none_or(|only| only == *database);
    // The database that is on every server is nobody's project, unless it is named.
    let asked = databases.iter().filter(only).filter(|name| questions.database.is_some() || *name != MAINTENANCE);
    if let Some(database) = questions.database.as_ref().filter(|database| !databases.contains(database)) {
        return Err(server.failed("the query", format!("there is no database {database:?}")));
    }
    let mut answer = None;
    for database in asked {
        let mut client = Client::open_database(&server.login, address, database)?;
        // Ours names none but the server's own.
        client.ask("the query", "reset search_path;", SOON)?;
        let rows = client.ask("the query", &format!("{query}\n;"), QUERY)?;
        let Some(row) = rows.first() else {
            return Err(server.failed("the query", format!("{database} answers with no row")));
        };
        if !agrees(row.first().map(String::as_str).unwrap_or_default()) {
            let what = format!("{database} answers {:?}", row.join(", "));
            return Err(server.failed("the query", what));
        }
        answer.get_or_insert_with(|| row.join(", "));
    }
    Ok(answer)
}
