//! Proofs: every table checked by a throw-away server, and the project's own query asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::client::{Client, SYSTEM, identifier, literal};
use super::restore;
use super::server::{Running, Setup};
use crate::dump::part::Part;
use crate::error::Error;
use crate::restore::options::Options;
use crate::verify::questions::{Copy, Open, Questions, Verified, agrees};

/// For the check of one table, or the query.
const CHECK: Duration = Duration::from_secs(6 * 3600);

pub(crate) fn data_directory(copy: &Copy<'_>, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    for beside in copy.beside {
        let path = copy.directory.join(&beside.file);
        fs::write(&path, &beside.content).map_err(|source| Error::Io { action: "write", path, source })?;
    }
    turn_links(copy)?;
    let setup = Setup::of_copy(copy.directory, copy.moved, questions)?;
    let (running, started_in) = setup.start(questions)?;
    let mut verified = examine(&running, questions, started_in)?;
    running.stop()?;
    verified.took = began.elapsed();
    Ok(verified)
}

pub(crate) fn dump(parts: &[Part], open: &mut Open<'_>, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    let setup = Setup::empty(questions)?;
    let (running, started_in) = setup.start(questions)?;
    let mut warnings = Vec::new();
    // Accounts last: a grant on a table needs the table.
    let (databases, accounts): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.database.is_some());
    for part in databases.into_iter().chain(accounts) {
        let login = running.login();
        let server = login.address.server().cloned().unwrap_or_default();
        let mut stream = open(part)?;
        let restored = restore::restore(&login, &server, part, &mut *stream, &Options::default())?;
        warnings.extend(restored.warnings);
    }
    let mut verified = examine(&running, questions, started_in)?;
    running.stop()?;
    verified.warnings.extend(warnings);
    verified.took = began.elapsed();
    Ok(verified)
}

fn examine(running: &Running, questions: &Questions, started_in: Duration) -> Result<Verified, Error> {
    let login = running.login();
    let server = login.address.server().cloned().unwrap_or_default();
    let asked = |error: Error| running.explained(error);
    let mut client = Client::open_database(&login, &server, None).map_err(asked)?;
    let query =
        format!("select schema_name from information_schema.schemata where schema_name not in ({SYSTEM}) order by 1;");
    let databases = client.column("the list of databases", &query).map_err(asked)?;
    let mut verified = Verified {
        server: client.version.to_string(),
        databases,
        checks: Vec::new(),
        answer: None,
        started_in,
        took: Duration::ZERO,
        warnings: Vec::new(),
    };
    if let Some(missing) = questions.database.as_ref().filter(|database| !verified.databases.contains(database)) {
        return Err(Error::NoDatabase { address: login.address.to_string(), database: missing.clone() });
    }
    let tables = check_tables(&mut client, &mut verified.warnings).map_err(asked)?;
    verified.checks.push(format!("CHECK TABLE of {tables} tables"));
    if let Some(query) = &questions.query {
        let asked_of = match &questions.database {
            Some(database) => vec![database.clone()],
            None => verified.databases.clone(),
        };
        for database in asked_of {
            verified.answer = Some(ask(&mut client, &database, query).map_err(asked)?);
        }
    }
    Ok(verified)
}

/// All tables, the server's own included: without those there are no accounts.
fn check_tables(client: &mut Client, warnings: &mut Vec<String>) -> Result<usize, Error> {
    let query = "select table_schema, table_name from information_schema.tables \
                 where table_type in ('BASE TABLE', 'SYSTEM VERSIONED') \
                 and table_schema not in ('information_schema', 'performance_schema', 'sys') order by 1, 2;";
    let tables = client.ask("the list of tables", query, Duration::from_secs(600))?;
    let mut damaged = Vec::new();
    for table in &tables {
        let [schema, table] = &table[..] else { continue };
        let name = format!("{schema}.{table}");
        let statement = format!("check table {}.{};", identifier(schema), identifier(table));
        for row in client.ask(&format!("CHECK TABLE {name}"), &statement, CHECK)? {
            let [_, _, kind, text] = &row[..] else { continue };
            match (&kind.to_ascii_lowercase()[..], &text[..]) {
                ("status", "OK" | "Table is already up to date") => {}
                ("status" | "error", text) => damaged.push(format!("{name}: {text}")),
                // A MyISAM table that was open counts its users; what matters comes as status.
                ("warning", text) if text.contains("using or hasn't closed the table properly") => {}
                (_, text) => warnings.push(format!("{name}: {text}")),
            }
        }
    }
    if damaged.is_empty() { Ok(tables.len()) } else { Err(client.failed("CHECK TABLE", damaged.join("; "))) }
}

/// The first row of the project's own query.
fn ask(client: &mut Client, database: &str, query: &str) -> Result<String, Error> {
    let query = query.trim().trim_end_matches(';');
    let rows = client.ask("the query", &format!("use {};\n{query};", identifier(database)), CHECK)?;
    let gave = match rows.into_iter().next() {
        Some(row) if row.first().is_some_and(|value| value != "NULL" && agrees(value)) => {
            return Ok(row.join("\t"));
        }
        Some(row) => format!("it gave {:?}", row.join("\t")),
        None => "it gave no row".to_owned(),
    };
    Err(client.failed(&format!("the query in {}", literal(database)), gave))
}

/// Links that lead out of the copy are turned to where the copy has what they named: the server would open what is live.
fn turn_links(copy: &Copy<'_>) -> Result<(), Error> {
    let root = copy.directory.canonicalize().map_err(|source| failed("find", copy.directory, source))?;
    for path in entries(&root)? {
        turn(copy, &root, &path)?;
        if path.is_dir() && !path.is_symlink() {
            for path in entries(&path)? {
                turn(copy, &root, &path)?;
            }
        }
    }
    Ok(())
}

fn turn(copy: &Copy<'_>, root: &Path, path: &Path) -> Result<(), Error> {
    let is_link_file = path.extension().is_some_and(|extension| extension == "isl");
    let named = if path.is_symlink() {
        fs::read_link(path).map_err(|source| failed("read", path, source))?
    } else if is_link_file {
        fs::read_to_string(path).map_err(|source| failed("read", path, source))?.trim().into()
    } else {
        return Ok(());
    };
    let parent = path.parent().unwrap_or(root);
    let target = parent.join(&named);
    if target.canonicalize().is_ok_and(|target| target.starts_with(root)) {
        return Ok(());
    }
    let Some(moved) = moved(copy.moved, &target) else {
        let why = "which is not in the copy; the server would open what is live";
        return Err(Error::Refused(format!("{} leads to {}, {why}", path.display(), named.display())));
    };
    if is_link_file {
        let text = moved.to_string_lossy().into_owned();
        return fs::write(path, text).map_err(|source| failed("write", path, source));
    }
    fs::remove_file(path).map_err(|source| failed("remove", path, source))?;
    std::os::unix::fs::symlink(&moved, path).map_err(|source| failed("make", path, source))
}

/// Where a live path was copied to.
fn moved(moved: &[(PathBuf, PathBuf)], target: &Path) -> Option<PathBuf> {
    moved.iter().find_map(|(live, copy)| {
        let rest = target.strip_prefix(live).ok()?;
        Some(if rest.as_os_str().is_empty() { copy.clone() } else { copy.join(rest) })
    })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = fs::read_dir(directory).map_err(|source| failed("list", directory, source))?;
    Ok(listed.flatten().map(|entry| entry.path()).collect())
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}
