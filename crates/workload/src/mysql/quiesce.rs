//! MariaDB's BACKUP STAGE, MySQL's LOCK INSTANCE FOR BACKUP.
//!
//! InnoDB starts on any copy of one moment. What needs to be held are the others: tables of MyISAM and Aria, which have no
//! log or lie about having been closed, changes of definitions, which are in several files, and the binary log.
//!
//! The invariant is the server's to keep, too: if this process hangs, the server ends a session that says nothing for
//! `wait_timeout`, and no statement of it waits longer than a part of the limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::{Client, SYSTEM};
use crate::address::{Login, Server};
use crate::error::Error;
use crate::quiesce::moment::{Files, How, LIMIT, Layout, LayoutOf, Released};

/// So long one of the two stages may wait for statements that run: both and the snapshot have to fit into the limit. While
/// one waits, whoever comes after it waits, too.
const STAGE: Duration = Duration::from_millis(600);

/// A statement that has been running for so long will not end within the limit, in seconds.
const LONG_SECS: u64 = 2;

/// The first MariaDB with BACKUP STAGE.
const STAGES_SINCE: (u32, u32) = (10, 4);

/// Variables that say where files lie outside of the data directory, and whether they name a file instead of a directory.
const PLACES: [(&str, bool); 5] = [
    ("innodb_data_home_dir", false),
    ("innodb_log_group_home_dir", false),
    ("innodb_undo_directory", false),
    ("aria_log_dir_path", false),
    ("log_bin_basename", true),
];

pub(crate) fn files(login: &Login, server: &Server) -> Result<Files, Error> {
    located(&mut Client::open_database(login, server, None)?, server)
}

fn located(client: &mut Client, server: &Server) -> Result<Files, Error> {
    let local = |host: &str| matches!(host, "localhost" | "::1") || host.starts_with("127.");
    if let Some(host) = server.host.as_deref().filter(|host| !local(host)) {
        let why = "a snapshot here does not have its files";
        return Err(Error::Refused(format!("the server is on another machine, {host}: {why}")));
    }
    let names: Vec<String> = PLACES.iter().map(|(name, _)| format!("'{name}'")).collect();
    let query = format!("show global variables where variable_name in ('datadir', {})", names.join(", "));
    let variables = client.ask("the places of its files", &format!("{query};"), Duration::from_secs(10))?;
    let value = |name: &str| {
        let found = variables.iter().find(|row| row.first().is_some_and(|known| known == name));
        found.and_then(|row| row.get(1)).filter(|value| !value.is_empty() && *value != "NULL")
    };
    let directory = resolved(Path::new(value("datadir").map_or("", String::as_str)))?;
    let mut others = outside(&directory)?;
    for (name, is_file) in PLACES {
        let Some(value) = value(name) else { continue };
        let path = directory.join(value);
        others.push(resolved(if is_file { path.parent().unwrap_or(&path) } else { &path })?);
    }
    let log = value("innodb_log_group_home_dir").map(|value| resolved(&directory.join(value))).transpose()?;
    others.retain(|path| !path.starts_with(&directory));
    others.sort();
    others.dedup();
    Ok(Files { server: client.version.to_string(), directory, others, log })
}

/// Where links in the data directory and in the databases' own directories lead, and InnoDB's link files (`.isl`).
fn outside(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut others = Vec::new();
    for (path, kind) in entries(directory)? {
        let below = if kind.is_symlink() {
            others.push(resolved(&path)?);
            path.is_dir()
        } else {
            kind.is_dir()
        };
        // A directory that only the server may enter, such as lost+found, is no database of it.
        for (path, kind) in if below { entries(&path).unwrap_or_default() } else { Vec::new() } {
            if kind.is_symlink() {
                others.push(resolved(&path)?);
            } else if path.extension().is_some_and(|extension| extension == "isl") {
                let target = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
                others.push(resolved(&directory.join(target.trim()))?);
            }
        }
    }
    Ok(others)
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, fs::FileType)>, Error> {
    let listed = fs::read_dir(directory).map_err(|source| failed("list", directory, source))?;
    // What is gone by now was a temporary table.
    Ok(listed.flatten().filter_map(|entry| Some((entry.path(), entry.file_type().ok()?))).collect())
}

fn resolved(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|source| failed("find", path, source))
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// How this server is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// MariaDB's stages.
    Stages,
    /// MySQL's lock against changes of definitions, and against all writes where there are tables without transactions.
    Instance { all_writes: bool },
}

pub(crate) struct Approached {
    client: Client,
    server: String,
    lock: Lock,
    /// The longest statement when we came, in seconds.
    running_secs: u64,
}

impl Approached {
    pub(crate) fn new(login: &Login, server: &Server, layout: &LayoutOf<'_>) -> Result<Approached, Error> {
        let mut client = Client::open_database(login, server, None)?;
        match layout(&located(&mut client, server)?) {
            Layout::OneMoment => {}
            Layout::Several => {
                let why = "its files lie on several volumes, whose snapshots are not of one moment; \
                           restore it from a backup's dump";
                return Err(Error::Refused(why.to_owned()));
            }
            Layout::Outside => return Err(Error::Refused("its files are not in the snapshot".to_owned())),
        }
        let running = "select coalesce(max(time), 0) from information_schema.processlist where id <> connection_id() \
                       and command in ('Query', 'Execute', 'Prepare');";
        let running = client.value("the statements that run", running)?;
        let running_secs = running.and_then(|secs| secs.parse().ok()).unwrap_or(0);
        let lock = if client.version.is_mariadb() { Lock::Stages } else { instance_lock(&mut client, running_secs)? };
        if lock == Lock::Stages {
            if client.version.series() < STAGES_SINCE {
                return Err(Error::Refused(format!("{} has no BACKUP STAGE", client.version)));
            }
            // These hold nobody's writes, and take the work out of the stages that do.
            let stages = "set session lock_wait_timeout = 5; set session max_statement_time = 5; \
                          backup stage start; backup stage flush;";
            client.ask("BACKUP STAGE FLUSH", stages, Duration::from_secs(15))?;
        }
        Ok(Approached { server: client.version.to_string(), client, lock, running_secs })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Whether all writes stand still, and not only changes of definitions.
    pub(crate) fn stops_writes(&self) -> bool {
        self.lock != Lock::Instance { all_writes: false }
    }

    pub(crate) fn hold(&mut self) -> Result<(), Error> {
        let limit = LIMIT.as_secs();
        let (what, statements) = match self.lock {
            Lock::Stages => (
                "BACKUP STAGE BLOCK_COMMIT",
                format!(
                    "set session wait_timeout = {limit}; set session max_statement_time = {}; \
                     backup stage block_ddl; backup stage block_commit;",
                    STAGE.as_secs_f32()
                ),
            ),
            Lock::Instance { all_writes } => (
                "LOCK INSTANCE FOR BACKUP",
                format!(
                    "set session wait_timeout = {limit}; set session lock_wait_timeout = 1; \
                     lock instance for backup;{}",
                    if all_writes { " flush tables with read lock;" } else { "" }
                ),
            ),
        };
        let running = self.running_secs;
        self.client.ask(what, &statements, LIMIT).map(|_| ()).map_err(|error| match error {
            Error::Failed { address, what, reason } if running > 0 => {
                let reason = format!("a statement had been running for {running} s before; {reason}");
                Error::Failed { address, what, reason }
            }
            other => other,
        })
    }

    pub(crate) fn release(mut self) -> Result<Released, Error> {
        let (statements, how) = match self.lock {
            Lock::Stages => ("backup stage end;", How::BackupStage),
            Lock::Instance { .. } => ("unlock tables; unlock instance;", How::LockInstance),
        };
        self.client.ask("the end of the backup lock", statements, LIMIT)?;
        Ok(Released { how, beside: Vec::new() })
    }
}

/// FLUSH TABLES WITH READ LOCK waits for every statement that runs, and whoever comes after it waits, too: it is asked for
/// only where tables would be torn without it, and not while a long statement runs.
fn instance_lock(client: &mut Client, running_secs: u64) -> Result<Lock, Error> {
    let query = format!(
        "select count(*) from information_schema.tables where engine in ('MyISAM', 'CSV', 'ARCHIVE') \
         and table_schema not in ({SYSTEM});"
    );
    let torn = client.value("the tables without transactions", &query)?;
    let all_writes = torn.is_some_and(|count| count != "0");
    if all_writes && running_secs >= LONG_SECS {
        let why = "there are tables without transactions, and FLUSH TABLES WITH READ LOCK would wait for a statement";
        return Err(Error::Refused(format!("{why} that has been running for {running_secs} s")));
    }
    Ok(Lock::Instance { all_writes })
}
