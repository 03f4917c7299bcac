//! What happened that somebody may want to read of.

use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use super::columns::{self, millis, timestamp};
use super::{Catalog, Error};
use crate::redact;

columns::words! {
    /// How much it matters.
    pub enum Level {
        /// Good to know.
        Info = "info",
        /// Something to look at.
        Warning = "warning",
        /// Something failed.
        Error = "error",
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// How much it matters.
    pub level: Level,
    /// To which project.
    pub project: Option<String>,
    /// To which repository.
    pub repository: Option<String>,
    /// In words.
    pub text: String,
}

impl Catalog {
    /// Records that something happened.
    pub fn record_event(&self, event: &Event) -> Result<(), Error> {
        self.write(|connection| {
            let text = "INSERT INTO events (at, level, project, repository, text) VALUES (?1, ?2, ?3, ?4, ?5)";
            let Event { at, level, project, repository, text: said } = event;
            let what = params![millis(*at), level.as_str(), project, repository, redact::text(said)];
            connection.prepare(text)?.execute(what)?;
            Ok(())
        })
    }

    /// The newest events, newest first; of a project, if one is given.
    pub fn events(&self, project: Option<&str>, at_most: u32) -> Result<Vec<Event>, Error> {
        let query = "SELECT at, level, project, repository, text FROM events WHERE ?1 IS NULL OR project = ?1 \
                     ORDER BY at DESC, id DESC LIMIT ?2";
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            let events = statement.query_map(params![project, at_most], |row| {
                let level: String = row.get(1)?;
                Ok(Event {
                    at: timestamp(row, 0)?,
                    level: columns::word(Level::parse(&level), 1)?,
                    project: row.get(2)?,
                    repository: row.get(3)?,
                    text: row.get(4)?,
                })
            })?;
            events.collect()
        })
    }
}
