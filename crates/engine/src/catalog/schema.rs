//! The tables, and how an older catalog becomes one of today.
//!
//! Times are milliseconds since 1970 in UTC, sizes bytes. A format that was released never changes: whatever is new is
//! one more step at the end of [`STEPS`].

use rusqlite::Connection;

/// In the header of the file, so that somebody else's database is not taken for a catalog: `Snap`.
pub(super) const APPLICATION_ID: i64 = 0x536e_6170;

/// Step N makes format N + 1 of format N; format 0 is an empty file.
pub(super) const STEPS: &[&str] = &[
    "
    CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        project TEXT,
        repository TEXT,
        started INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        process_start INTEGER NOT NULL,
        boot TEXT NOT NULL,
        ended INTEGER,
        outcome TEXT,
        error TEXT,
        point TEXT,
        figures TEXT
    ) STRICT;
    CREATE INDEX jobs_by_task ON jobs (kind, project, repository, started);
    CREATE INDEX jobs_running ON jobs (started) WHERE outcome IS NULL;
    CREATE INDEX jobs_by_point ON jobs (point) WHERE point IS NOT NULL;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        level TEXT NOT NULL,
        project TEXT,
        repository TEXT,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_by_time ON events (at);

    CREATE TABLE snapshots (
        id TEXT PRIMARY KEY,
        project TEXT,
        directory TEXT NOT NULL,
        created INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;

    CREATE TABLE guards (
        id TEXT PRIMARY KEY,
        directory TEXT NOT NULL,
        started INTEGER NOT NULL,
        document TEXT NOT NULL
    ) STRICT;

    CREATE TABLE repositories (
        name TEXT PRIMARY KEY,
        url TEXT NOT NULL,
        seen INTEGER
    ) STRICT;

    CREATE TABLE backups (
        repository TEXT NOT NULL,
        id TEXT NOT NULL,
        project TEXT,
        made INTEGER NOT NULL,
        document TEXT NOT NULL,
        PRIMARY KEY (repository, id)
    ) STRICT;
    CREATE INDEX backups_by_project ON backups (project, repository, made);

    CREATE TABLE sizes (
        repository TEXT NOT NULL,
        at INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        backups INTEGER NOT NULL,
        PRIMARY KEY (repository, at)
    ) STRICT;

    CREATE TABLE verifications (
        id INTEGER PRIMARY KEY,
        repository TEXT NOT NULL,
        backup TEXT,
        at INTEGER NOT NULL,
        way TEXT NOT NULL,
        percent REAL NOT NULL,
        is_good INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX verifications_by_repository ON verifications (repository, at);
",
    "
    CREATE TABLE room (
        point BLOB NOT NULL,
        at INTEGER NOT NULL,
        free INTEGER NOT NULL,
        PRIMARY KEY (point, at)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE places (
        repository TEXT PRIMARY KEY,
        document TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE proofs (
        id INTEGER PRIMARY KEY,
        project TEXT NOT NULL,
        name TEXT NOT NULL,
        of TEXT NOT NULL,
        at INTEGER NOT NULL,
        outcome TEXT NOT NULL
    ) STRICT;
    CREATE INDEX proofs_by_database ON proofs (project, name, at);
",
];

/// The newest format that is known.
pub(super) fn known(steps: &[&str]) -> i64 {
    steps.len() as i64
}

/// The format of the file, which is 0 while it is empty.
pub(super) fn format(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Whether somebody else made the file: it has tables, and does not say that it is a catalog.
pub(super) fn is_foreign(connection: &Connection) -> rusqlite::Result<bool> {
    let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables > 0 && id != APPLICATION_ID)
}

/// Takes the file to the newest format, in one transaction. The caller keeps others from doing so at the same time.
pub(super) fn migrate(connection: &Connection, steps: &[&str]) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = (|| {
        let from = usize::try_from(format(connection)?).unwrap_or(usize::MAX);
        for step in steps.iter().skip(from) {
            connection.execute_batch(step)?;
        }
        if from < steps.len() {
            // Pragmas take no parameters.
            connection.execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {};",
                steps.len()
            ))?;
        }
        connection.execute_batch("COMMIT")
    })();
    if done.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::catalog::{Catalog, Job, JobKind, Task, file};

    #[test]
    fn an_older_catalog_becomes_one_of_today_and_keeps_what_is_in_it() {
        for older in 1..STEPS.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("catalog.sqlite");
            let opened = file::open(&path, &STEPS[..older], Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(format(&opened.connection).unwrap(), older as i64);
            let job = Job::begin(JobKind::Backup, None, None, Timestamp::UNIX_EPOCH).unwrap();
            let text =
                "INSERT INTO jobs (id, kind, started, pid, process_start, boot) VALUES (?1, 'backup', 0, 1, 1, '')";
            opened.connection.execute(text, [job.id.to_string()]).unwrap();
            drop(opened);

            let catalog = Catalog::open(&path, Timestamp::UNIX_EPOCH).unwrap();
            assert_eq!(catalog.take_moved(), []);
            assert_eq!(catalog.jobs(Task::default(), 10).unwrap()[0].id, job.id);
            let refused = file::open(&path, &STEPS[..older], Timestamp::UNIX_EPOCH).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("newer version"), "{refused}");
        }
    }
}
