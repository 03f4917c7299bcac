//! The proof that a database file is good: a copy of it is opened as its own program would, and asked.
//!
//! What a crash left (a rollback journal, a log) is recovered in the copy; production is not opened.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::database::{Database, failed};
use crate::dump::part::Part;
use crate::error::Error;
use crate::verify::questions::{Open, Questions, Verified, agrees};

/// Looks at a file that may be written.
pub(crate) fn file(path: &Path, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    let database = Database::open(path)?;
    let tables: u64 = database.run("opening it", |connection| {
        let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'";
        let tables = connection.query_row(count, [], |row| row.get(0))?;
        // Only now: a journal that a crash left is played back by the first who reads.
        connection.pragma_update(None, "query_only", true)?;
        Ok(tables)
    })?;
    let started_in = began.elapsed();
    let wrong = |what: &str, reason: String| {
        let error = failed(path, what, &rusqlite::Error::InvalidQuery);
        match error {
            Error::Failed { address, what, .. } => Error::Failed { address, what, reason },
            other => other,
        }
    };
    let found = database.run("integrity_check", |connection| texts(connection, "PRAGMA integrity_check(5)"))?;
    if found != ["ok"] {
        return Err(wrong("integrity_check", found.join("; ")));
    }
    let mut warnings = Vec::new();
    let dangling = "SELECT \"table\" || ' (' || count(*) || ')' FROM pragma_foreign_key_check GROUP BY \"table\"";
    let dangling = database.run("foreign_key_check", |connection| texts(connection, dangling))?;
    if !dangling.is_empty() {
        // SQLite keeps to foreign keys only where its program asks for it, so such rows need not come of the copy.
        warnings.push(format!("rows refer to others that are not there, in {}", dangling.join(", ")));
    }
    let mut checks = vec![format!("integrity_check of {tables} tables"), "foreign_key_check".to_owned()];
    let mut answer = None;
    if let Some(query) = &questions.query {
        answer = database.run("the query", |connection| first_value(connection, query))?;
        if !answer.as_deref().is_some_and(agrees) {
            let said = answer.map_or_else(|| "nothing".to_owned(), |answer| format!("{answer:?}"));
            return Err(wrong("the query", format!("it gave {said}")));
        }
        checks.push("the query".to_owned());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let took = began.elapsed();
    Ok(Verified { server: super::version(), databases: vec![name], checks, answer, started_in, took, warnings })
}

/// Writes dumps into the directory for work, and looks at them.
pub(crate) fn dump(parts: &[Part], open: &mut Open<'_>, questions: &Questions) -> Result<Verified, Error> {
    let began = Instant::now();
    let mut all: Option<Verified> = None;
    for (number, part) in parts.iter().enumerate() {
        // Its own name could be any.
        let path = questions.work.join(format!("{number}.db"));
        let read = open(part).and_then(|mut stream| copy(&mut stream, &path));
        let verified = read.and_then(|()| file(&path, questions));
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(super::database::beside(&path, suffix));
        }
        let verified = Verified { databases: vec![part.database.clone().unwrap_or_default()], ..verified? };
        match &mut all {
            None => all = Some(verified),
            Some(all) => {
                all.databases.extend(verified.databases);
                all.warnings.extend(verified.warnings);
            }
        }
    }
    let all = all.ok_or_else(|| Error::Refused("there is no dump".to_owned()))?;
    Ok(Verified { took: began.elapsed(), ..all })
}

fn copy(stream: &mut dyn io::Read, path: &Path) -> Result<(), Error> {
    let mut file =
        File::create_new(path).map_err(|source| Error::Io { action: "create", path: path.to_owned(), source })?;
    super::unfinished::fill(stream, &mut file, path)
}

/// The first column of all rows.
fn texts(connection: &Connection, query: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(query)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The first value of the first row, as text; nothing without a row, or if it is NULL.
fn first_value(connection: &Connection, query: &str) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(match row.get_ref(0)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        // 0.0 is no more than 0.
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}
