//! The catalog's file: opening it, making it, and moving it aside when it is damaged.
//!
//! ```text
//! catalog.sqlite                 with -wal and -shm beside it, or -journal, which are SQLite's
//! catalog.lock                   held (flock) by whoever makes, migrates or moves it
//! catalog.sqlite.damaged-TIME    what was moved aside
//! ```
//!
//! The file itself is never opened but through SQLite: closing any descriptor of it gives away all locks that this
//! process has on it (fcntl_locking(2), and sqlite.org/howtocorrupt.html, 2.2). What is asked is asked by stat(2).

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::error::{Error, Verdict, judge};
use super::schema;
use super::tidy::tidy;

/// How long to wait for others; they hold it for milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a file is opened that is not there any more a moment later.
const TRIES: u32 = 5;
/// How often the whole file is looked through, in milliseconds.
const CHECK_EVERY: i64 = 24 * 3600 * 1000;

/// Which file it is, whatever its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// Of the file that has the name now, if there is one.
    pub(super) fn of(path: &Path) -> Option<Identity> {
        fs::metadata(path).ok().map(|metadata| Identity(metadata.dev(), metadata.ino()))
    }
}

/// An open catalog.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) identity: Identity,
    /// Where a damaged one went, and what was wrong with it.
    pub(super) moved: Option<(PathBuf, String)>,
}

/// Opens the file; makes it if it is not there, and anew if it is damaged.
pub(super) fn open(path: &Path, steps: &[&str], now: Timestamp) -> Result<Opened, Error> {
    let mut moved = None;
    // A new file is not damaged; but somebody may delete it again and again.
    for _ in 0..TRIES {
        let identity = match Identity::of(path) {
            Some(identity) => identity,
            None => create(path)?,
        };
        match connect(path, steps, now) {
            Ok(connection) => return Ok(Opened { connection, identity, moved }),
            // It was deleted or moved aside meanwhile: what was met is of no file, or of two.
            Err(_) if Identity::of(path) != Some(identity) => {}
            Err(Trouble::Damaged(reason)) => {
                if let Some(aside) = move_aside(path, identity, now)? {
                    moved = Some((aside, reason));
                }
            }
            Err(Trouble::Other(error)) => return Err(error),
        }
    }
    Err(Error::Damaged { path: path.to_owned(), reason: "each new one is damaged or deleted at once".to_owned() })
}

/// Why a file cannot be opened.
enum Trouble {
    Damaged(String),
    Other(Error),
}

fn connect(path: &Path, steps: &[&str], now: Timestamp) -> Result<Connection, Trouble> {
    let trouble = |error| trouble(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(trouble)?;
    configure(&connection).map_err(trouble)?;
    if schema::is_foreign(&connection).map_err(trouble)? {
        return Err(Trouble::Damaged("it is not a catalog of snapback".to_owned()));
    }
    let known = schema::known(steps);
    let format = schema::format(&connection).map_err(trouble)?;
    if format > known {
        return Err(Trouble::Other(Error::Newer { path: path.to_owned(), found: format, known }));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).map_err(trouble)?;
    let wanted = journal_mode(path);
    if format < known || mode != wanted {
        let _lock = lock(path).map_err(Trouble::Other)?;
        connection.query_row(&format!("PRAGMA journal_mode = {wanted}"), [], |_| Ok(())).map_err(trouble)?;
        schema::migrate(&connection, steps).map_err(trouble)?;
    }
    check_now_and_then(&connection, now).map_err(trouble)??;
    Ok(connection)
}

/// With a log beside it, readers and the one writer do not hold each other up. But the log's index is mapped memory, in
/// a file of which SQLite allocates one byte in 4096 (wal.html, "Implementation Of Shared-Memory For The WAL-Index"):
/// where blocks are smaller, as on a small ext4, a full disk kills whoever writes to it by SIGBUS (mmap(2)).
fn journal_mode(path: &Path) -> &'static str {
    match rustix::fs::statvfs(path) {
        Ok(found) if found.f_frsize < 4096 => "truncate",
        _ => "wal",
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    // What is in the file is data: no trigger, view or setting in it may do anything.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // Whoever closes it last would remove the log by its name; where the file was moved aside or deleted meanwhile,
    // that would be somebody else's log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A power failure may cost the last entries, never the file; a kill costs nothing (sqlite.org/pragma.html).
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA cell_size_check = ON;")
}

/// A page that nobody has read for long may be damaged, too. Looking through all of them takes some milliseconds per
/// megabyte, so it is done once a day.
fn check_now_and_then(connection: &Connection, now: Timestamp) -> rusqlite::Result<Result<(), Trouble>> {
    let read = "SELECT coalesce(max(value), 0) FROM facts WHERE name = 'checked'";
    let checked: i64 = connection.query_row(read, [], |row| row.get(0))?;
    let now = now.as_millisecond();
    // A clock that was set back must not put it off for years.
    if (checked..checked.saturating_add(CHECK_EVERY)).contains(&now) {
        return Ok(Ok(()));
    }
    if let Some(flaw) = flaw(connection)? {
        return Ok(Err(Trouble::Damaged(flaw)));
    }
    // On a full disk the next one does it again.
    let _ = tidy(connection, now);
    let _ = connection.execute("INSERT OR REPLACE INTO facts VALUES ('checked', ?1)", [now]);
    Ok(Ok(()))
}

/// The first thing that is wrong with the file.
pub(super) fn flaw(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then(|| found.replace('\n', " ")))
}

fn trouble(path: &Path, source: rusqlite::Error) -> Trouble {
    match judge(&source) {
        Verdict::Damaged | Verdict::Unclear => Trouble::Damaged(source.to_string()),
        verdict => Trouble::Other(error(path, source, verdict)),
    }
}

/// The error for an answer of SQLite.
pub(super) fn error(path: &Path, source: rusqlite::Error, verdict: Verdict) -> Error {
    let path = path.to_owned();
    match verdict {
        Verdict::Damaged => Error::Damaged { path, reason: source.to_string() },
        Verdict::Full => Error::Full { path },
        Verdict::Busy => Error::Busy { path },
        Verdict::Unavailable | Verdict::Unclear => Error::Sqlite { path, source },
    }
}

/// Makes an empty file, which is an empty database.
fn create(path: &Path) -> Result<Identity, Error> {
    let _lock = lock(path)?;
    if let Some(identity) = Identity::of(path) {
        return Ok(identity);
    }
    // A log without its file is of one that was deleted.
    for rest in ["-wal", "-journal", "-shm"] {
        remove(&beside(path, rest))?;
    }
    // Nobody of this process has it open: it is new.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let metadata = file.and_then(|file| file.metadata()).map_err(Error::io("create", path))?;
    Ok(Identity(metadata.dev(), metadata.ino()))
}

/// Gives a damaged file another name, and tells which. Nothing is done if somebody else has done it already.
pub(super) fn move_aside(path: &Path, damaged: Identity, now: Timestamp) -> Result<Option<PathBuf>, Error> {
    let _lock = lock(path)?;
    if Identity::of(path) != Some(damaged) {
        return Ok(None);
    }
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let names = (0..).map(|number| match number {
        0 => beside(path, &format!(".damaged-{time}")),
        _ => beside(path, &format!(".damaged-{time}.{number}")),
    });
    let aside = names.into_iter().find(|name| fs::symlink_metadata(name).is_err()).expect("the numbers do not end");
    // The log first: a new file must never find the old one's.
    for rest in ["-wal", "-journal"] {
        let log = beside(path, rest);
        match fs::rename(&log, beside(&aside, rest)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(Error::io("rename", &log))?,
        }
    }
    remove(&beside(path, "-shm"))?;
    fs::rename(path, &aside).map_err(Error::io("rename", path))?;
    Ok(Some(aside))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io("remove", path)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, Error> {
    let path = path.with_extension("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(Error::io("open", &path))?;
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
        if error != Errno::INTR {
            return Err(Error::io("lock", &path)(error));
        }
    }
    Ok(file)
}
