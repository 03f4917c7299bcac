//! A running PostgreSQL at the moment of a snapshot. Nothing of it is ever held: a snapshot of one moment is what a power
//! cut leaves, and the server starts from it by replaying its write-ahead log. What is done makes that short, or where
//! there are several moments, possible:
//!
//! - **One moment**: CHECKPOINT right before, so that there is little to replay.
//! - **Several**, with the log's volume last: `pg_backup_start` before, `pg_backup_stop` after. What may be replayed too late
//!   by the control file's idea of the last checkpoint is then replayed from the backup's own, which its `backup_label`
//!   names. A page is never on the disk before its log is, so the log that is taken last covers every page of the others.
//!
//! Sources: the manual, "File System Level Backup", "Making a Base Backup Using the Low Level API", and "CHECKPOINT".

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::client::Client;
use crate::address::{Login, Server};
use crate::error::Error;
use crate::quiesce::moment::{Beside, Files, How, LIMIT, Layout, LayoutOf, Released};

/// For questions that the server answers out of memory.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// A backup begins with a checkpoint, which holds nobody but takes the disk's time.
const START: Duration = Duration::from_secs(30);

/// Where a server keeps its files.
pub(crate) fn files(login: &Login, server: &Server) -> Result<Files, Error> {
    found(&mut Client::open(login, server)?)
}

fn found(client: &mut Client) -> Result<Files, Error> {
    const WHAT: &str = "the question for its files";
    let facts = "select current_setting('server_version'), current_setting('data_directory'), \
        floor(extract(epoch from pg_postmaster_start_time()))::bigint;";
    let facts = client.ask(WHAT, facts, SOON)?.concat();
    let Ok([version, directory, started]) = <[String; 3]>::try_from(facts) else {
        return Err(client.failed(WHAT, "an answer that is none".to_owned()));
    };
    let tablespaces = "select pg_tablespace_location(oid) from pg_tablespace where pg_tablespace_location(oid) <> '' \
        order by spcname;";
    let tablespaces = client.ask(WHAT, tablespaces, SOON)?.concat();
    let directory = PathBuf::from(directory);
    is_here(client, &directory, &started)?;
    let directory = resolved(&directory)?;
    let log = ["pg_wal", "pg_xlog"].map(|name| directory.join(name)).into_iter().find(|path| path.exists());
    let log = resolved(&log.unwrap_or_else(|| directory.join("pg_wal")))?;
    let mut others = Vec::new();
    for tablespace in tablespaces {
        // One that lies in the data directory itself is told by a relative path (allow_in_place_tablespaces).
        others.push(resolved(&directory.join(tablespace))?);
    }
    others.retain(|path| !path.starts_with(&directory));
    if !log.starts_with(&directory) {
        others.push(log.clone());
    }
    Ok(Files { server: format!("PostgreSQL {}", short(&version)), directory, others, log: Some(log) })
}

/// `15.18 (Debian 15.18-0+deb12u1)` without what is in parentheses.
pub(super) fn short(version: &str) -> &str {
    version.split(" (").next().unwrap_or(version)
}

/// Another machine, or a container, can have a server with the same path: the directory must be in use by a server that
/// began when the one that answered says it did (`postmaster.pid`, whose third line is that time).
fn is_here(client: &Client, directory: &Path, started: &str) -> Result<(), Error> {
    let path = directory.join("postmaster.pid");
    let lock = match fs::read_to_string(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(Error::Io { action: "read", path, source }),
    };
    let there = lock.lines().nth(2).and_then(|line| line.trim().parse::<i64>().ok());
    let same = there.zip(started.parse::<i64>().ok()).is_some_and(|(there, told)| (there - told).abs() <= 2);
    let elsewhere =
        || format!("{}: its data directory {directory:?} is not on this machine, or in a container", client.address());
    if same { Ok(()) } else { Err(Error::Refused(elsewhere())) }
}

fn resolved(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|source| Error::Io { action: "look at", path: path.to_owned(), source })
}

/// A server that is ready for its snapshot.
pub(crate) struct Approached {
    files: Files,
    backup: Option<Backup>,
}

/// An online backup, which lives as long as its session.
struct Backup {
    client: Client,
    version: u32,
}

impl Approached {
    pub(crate) fn new(login: &Login, server: &Server, layout: &LayoutOf<'_>) -> Result<Approached, Error> {
        let mut client = Client::open(login, server)?;
        let files = found(&mut client)?;
        let backup = match layout(&files) {
            Layout::OneMoment => {
                checkpoint(&mut client)?;
                None
            }
            Layout::Several => Some(Backup::start(client)?),
            Layout::Outside => {
                return Err(Error::Refused("its files are not, or not all, in the snapshot".to_owned()));
            }
        };
        Ok(Approached { files, backup })
    }

    pub(crate) fn server(&self) -> &str {
        &self.files.server
    }

    pub(crate) fn release(self) -> Result<Released, Error> {
        match self.backup {
            None => Ok(Released { how: How::Checkpoint, beside: Vec::new() }),
            Some(backup) => Ok(Released { how: How::BackupMode, beside: backup.stop(&self.files)? }),
        }
    }
}

/// The server's own limit ends our waiting. The checkpoint itself goes on, as the checkpointer cannot be told otherwise.
fn checkpoint(client: &mut Client) -> Result<(), Error> {
    client.ask("the limit", &format!("set statement_timeout = {};", LIMIT.as_millis()), SOON)?;
    match client.ask("CHECKPOINT", "checkpoint;", LIMIT + Duration::from_secs(1)) {
        Err(Error::Failed { reason, .. }) if reason.contains("statement timeout") || reason.contains("no answer") => {
            let limit = LIMIT.as_secs();
            Err(Error::Refused(format!("a CHECKPOINT takes longer than {limit} s; it starts with more to replay")))
        }
        other => other.map(drop),
    }
}

impl Backup {
    fn start(mut client: Client) -> Result<Backup, Error> {
        let version = client.version()?;
        let start = if version >= 150_000 { "pg_backup_start('snapback', true)" } else { OLD_START };
        client.ask("the limit", &format!("set statement_timeout = {};", START.as_millis()), SOON)?;
        if version >= 140_000 {
            client.ask("the limit", "set idle_session_timeout = 0;", SOON)?;
        }
        client.ask("pg_backup_start", &format!("select {start};"), START + Duration::from_secs(1))?;
        Ok(Backup { client, version })
    }

    fn stop(mut self, files: &Files) -> Result<Vec<Beside>, Error> {
        let stop = if self.version >= 150_000 { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
        // Names of columns changed with the functions'; their order did not.
        let statement = format!("select * from {stop} as stopped(lsn, label, map);");
        let rows = self.client.ask("pg_backup_stop", &statement, SOON)?;
        let Some([_, label, map]) = rows.into_iter().next().and_then(|row| <[String; 3]>::try_from(row).ok()) else {
            return Err(self.client.failed("pg_backup_stop", "an answer that is none".to_owned()));
        };
        self.still_there(&label, files)?;
        let mut beside = vec![Beside { file: "backup_label".to_owned(), content: without_end(&label) }];
        if !map.is_empty() {
            beside.push(Beside { file: "tablespace_map".to_owned(), content: map });
        }
        Ok(beside)
    }

    /// A checkpoint in between lets go of the log from before it, the backup's start included.
    fn still_there(&self, label: &str, files: &Files) -> Result<(), Error> {
        let first = label.split("(file ").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
        let there = !first.is_empty() && files.log.as_ref().is_some_and(|log| log.join(first).exists());
        let gone = || "a checkpoint during the snapshots removed the log from their beginning; try again".to_owned();
        if there { Ok(()) } else { Err(self.client.failed("pg_backup_stop", gone())) }
    }
}

const OLD_START: &str = "pg_start_backup('snapback', true, false)";

/// The label, without asking for a record of the backup's end. That record is written after the snapshots, so no log in
/// them has it, and a server would refuse to start. It marks how far must be replayed to cover every page that was copied;
/// with the log's volume taken last, that is as far as the log goes. (xlogrecovery.c, `read_backup_label`: the end is
/// required if the method is `streamed`.)
fn without_end(label: &str) -> String {
    label.replace("BACKUP METHOD: streamed", "BACKUP METHOD: snapshot")
}
