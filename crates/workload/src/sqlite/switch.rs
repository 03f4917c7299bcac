//! One database file in the place of another, whose log and journal must not stay beside the new one: SQLite would play
//! them into it.
//!
//! The order: the old one is emptied of its log and held, so that its file alone is all of it; it gets its second name;
//! log and journal move along; one rename. Wherever that is cut short, the name leads to a whole database.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::database::{Database, beside};
use super::unfinished::BELONGINGS;
use crate::error::Error;

/// What was there before, under its new name.
pub(super) struct Kept {
    pub(super) path: PathBuf,
}

/// Puts `new` in the place. `is_alone`: nobody else has the old one open.
pub(super) fn switch(new: &Path, place: &Path, kept: &Path, is_alone: bool) -> Result<Option<Kept>, Error> {
    let io = |source| Error::Io { action: "replace", path: place.to_owned(), source };
    let is_there = place.symlink_metadata().is_ok();
    let held = if is_there { held(place)? } else { None };
    let mut undo = Undo(Vec::new());
    if is_there {
        fs::hard_link(place, kept).map_err(io)?;
        undo.0.push(Step::Linked(kept.to_owned()));
    }
    let mut moved = false;
    for suffix in BELONGINGS {
        let (from, to) = (beside(place, suffix), beside(kept, suffix));
        if from.symlink_metadata().is_ok() {
            fs::rename(&from, &to).map_err(io)?;
            undo.0.push(Step::Renamed(from, to));
            moved = true;
        }
    }
    match is_there {
        true => fs::rename(new, place).map_err(io)?,
        // Nobody else's that came meanwhile.
        false => renameat_with(CWD, new, CWD, place, RenameFlags::NOREPLACE).map_err(|error| io(error.into()))?,
    }
    undo.0.clear();
    let directory = place.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    let was_good = held.is_some();
    drop(held);
    if was_good && is_alone {
        // The log is empty, and what it was shared by is of no use to anybody.
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(beside(kept, suffix));
        }
    }
    Ok((is_there || moved).then(|| Kept { path: kept.to_owned() }))
}

/// Takes into the file what its log or journal has, and holds it so that nobody writes. Nothing if it is so damaged that
/// nobody can write to it anyway.
fn held(place: &Path) -> Result<Option<Database>, Error> {
    let database = Database::open(place)?;
    let empty = |connection: &Connection| {
        connection.busy_timeout(Duration::from_secs(5))?;
        // With a rollback journal it does nothing.
        let in_the_way: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok::<_, rusqlite::Error>(in_the_way != 0)
    };
    let busy = || Error::Refused(format!("{} is in use: a program reads or writes it", place.display()));
    match database.run("taking it out of use", |connection| match empty(connection) {
        Err(error) => match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => Ok(None),
            Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(Some(true)),
            _ => Err(error),
        },
        Ok(in_the_way) => Ok(Some(in_the_way)),
    })? {
        None => Ok(None),
        // Somebody wrote between the two, or reads an older state.
        Some(in_the_way) if in_the_way || fs::metadata(beside(place, "-wal")).is_ok_and(|log| log.len() > 0) => {
            Err(busy())
        }
        Some(_) => Ok(Some(database)),
    }
}

enum Step {
    Linked(PathBuf),
    Renamed(PathBuf, PathBuf),
}

/// Taken back when it is dropped.
struct Undo(Vec<Step>);

impl Drop for Undo {
    fn drop(&mut self) {
        for step in self.0.drain(..).rev() {
            let _ = match step {
                Step::Linked(path) => fs::remove_file(path),
                Step::Renamed(from, to) => fs::rename(to, from),
            };
        }
    }
}
