//! How much was free on file systems, and where repositories were last seen.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jiff::Timestamp;
use policy::Sample;
use rusqlite::params;

use super::columns::{document, millis, timestamp};
use super::{Catalog, Error};
use crate::place::Place;

impl Catalog {
    /// Records how much was free on the file system that is mounted at a path; what was before `since` goes.
    pub fn record_room(&self, point: &Path, sample: Sample, since: Timestamp) -> Result<(), Error> {
        self.write(|connection| {
            let point = point.as_os_str().as_bytes();
            connection.execute("DELETE FROM room WHERE point = ?1 AND at < ?2", params![point, millis(since)])?;
            let text = "INSERT OR REPLACE INTO room (point, at, free) VALUES (?1, ?2, ?3)";
            let free = i64::try_from(sample.free).unwrap_or(i64::MAX);
            connection.execute(text, params![point, millis(sample.at), free])?;
            Ok(())
        })
    }

    /// How much was free since a time, oldest first.
    pub fn room(&self, point: &Path, since: Timestamp) -> Result<Vec<Sample>, Error> {
        self.read(|connection| {
            let query = "SELECT at, free FROM room WHERE point = ?1 AND at >= ?2 ORDER BY at";
            let mut statement = connection.prepare(query)?;
            let samples = statement.query_map(params![point.as_os_str().as_bytes(), millis(since)], |row| {
                Ok(Sample { at: timestamp(row, 0)?, free: row.get::<_, i64>(1)?.max(0).unsigned_abs() })
            })?;
            samples.collect()
        })
    }

    /// Records where a repository lies. Written only if that has changed.
    pub fn record_place(&self, repository: &str, place: &Place) -> Result<(), Error> {
        if self.place(repository)?.as_ref() == Some(place) {
            return Ok(());
        }
        self.write(|connection| {
            let document = serde_json::to_string(place).expect("our documents have string keys only");
            let text = "INSERT OR REPLACE INTO places (repository, document) VALUES (?1, ?2)";
            connection.execute(text, params![repository, document])?;
            Ok(())
        })
    }

    /// Where a repository lay when it was last seen.
    pub fn place(&self, repository: &str) -> Result<Option<Place>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT document FROM places WHERE repository = ?1")?;
            let mut found = statement.query_map([repository], |row| document(row, 0))?;
            found.next().transpose()
        })
    }
}
