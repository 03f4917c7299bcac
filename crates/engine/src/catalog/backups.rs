//! Backups and repositories, as they were when somebody last looked.

use std::collections::HashSet;

use jiff::Timestamp;
use repository::id::Id;
use repository::record::BackupRecord;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::columns::{self, millis, timestamp};
use super::{Catalog, Error};
use crate::redact;

/// The tag with which a project's backups are told from others: `project=NAME`.
pub const PROJECT_TAG: &str = "project=";
/// The tag of backups that were read from the live tree, and so are not of one moment.
pub const LIVE_TAG: &str = "live";
/// Of backups that lack a database's dump.
pub const INCOMPLETE_TAG: &str = "incomplete";

/// What is known of a backup: what its record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBackup {
    /// Its name.
    pub id: Id,
    /// When it was begun.
    pub time: Timestamp,
    /// Of which machine.
    pub host: String,
    /// Of what.
    pub paths: Vec<String>,
    /// What it is called.
    pub tags: Vec<String>,
    /// How many files it has.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Bytes that were stored for what was new in it.
    pub added_bytes: Option<u64>,
    /// The record this one replaced, when it was rewritten.
    pub original: Option<Id>,
}

impl KnownBackup {
    /// What a record says.
    pub fn of(id: Id, record: &BackupRecord) -> KnownBackup {
        let summary = record.summary();
        let nanos = i32::try_from(record.time.nanos).unwrap_or(0);
        KnownBackup {
            id,
            // A record may bear any time; one that no clock of ours can show is as old as can be.
            time: Timestamp::new(record.time.secs, nanos).unwrap_or(Timestamp::MIN),
            host: record.hostname.clone(),
            paths: record.paths.clone(),
            tags: record.tags.iter().map(|tag| redact::text(tag)).collect(),
            files: summary.as_ref().map(|summary| summary.total_files_processed),
            bytes: summary.as_ref().map(|summary| summary.total_bytes_processed),
            added_bytes: summary.as_ref().map(|summary| summary.data_added_packed),
            original: record.original,
        }
    }

    /// Of which project it is.
    pub fn project(&self) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(PROJECT_TAG))
    }

    /// Whether it lacks a database's dump.
    pub fn is_incomplete(&self) -> bool {
        self.tags.iter().any(|tag| tag == INCOMPLETE_TAG)
    }

    /// Whether it was read from the live tree.
    pub fn is_live(&self) -> bool {
        self.tags.iter().any(|tag| tag == LIVE_TAG)
    }
}

/// What is known of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownRepository {
    /// Its name in the configuration.
    pub name: String,
    /// Where it lies, without a password.
    pub url: String,
    /// When its backups were last listed.
    pub seen: Option<Timestamp>,
}

/// How large a repository was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// When.
    pub at: Timestamp,
    /// What its packs took.
    pub bytes: u64,
    /// How many backups it had.
    pub backups: u64,
}

/// A look at a repository that has begun: what was known then.
#[derive(Debug)]
pub struct Listing {
    repository: String,
    before: HashSet<String>,
}

impl Catalog {
    /// Makes a repository known, by its name in the configuration.
    pub fn record_repository(&self, name: &str, url: &str) -> Result<(), Error> {
        self.write(|connection| {
            let text = "INSERT INTO repositories (name, url) VALUES (?1, ?2) \
                        ON CONFLICT (name) DO UPDATE SET url = excluded.url WHERE url <> excluded.url";
            connection.execute(text, params![name, redact::text(url)])?;
            Ok(())
        })
    }

    /// The repositories that are known, by name.
    pub fn repositories(&self) -> Result<Vec<KnownRepository>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT name, url, seen FROM repositories ORDER BY name")?;
            let repositories = statement.query_map([], |row| {
                let seen = row.get::<_, Option<i64>>(2)?.map(|_| timestamp(row, 2)).transpose()?;
                Ok(KnownRepository { name: row.get(0)?, url: row.get(1)?, seen })
            })?;
            repositories.collect()
        })
    }

    /// Records a backup that was made.
    pub fn record_backup(&self, repository: &str, backup: &KnownBackup) -> Result<(), Error> {
        self.write(|connection| insert(connection, repository, backup))
    }

    /// Records that backups were removed.
    pub fn forget_backups(&self, repository: &str, ids: &[Id]) -> Result<(), Error> {
        self.write(|connection| {
            let mut statement = connection.prepare("DELETE FROM backups WHERE repository = ?1 AND id = ?2")?;
            for id in ids {
                statement.execute(params![repository, id.to_string()])?;
            }
            Ok(())
        })
    }

    /// To be called before a repository's backups are listed, so that what others record meanwhile is not taken for
    /// gone.
    pub fn begin_listing(&self, repository: &str) -> Result<Listing, Error> {
        let before = self.read(|connection| {
            let mut statement = connection.prepare("SELECT id FROM backups WHERE repository = ?1")?;
            statement.query_map([repository], |row| row.get::<_, String>(0))?.collect()
        })?;
        Ok(Listing { repository: repository.to_owned(), before })
    }

    /// Records what a repository has: what is known and not in the list is gone.
    pub fn end_listing(&self, listing: &Listing, backups: &[KnownBackup], now: Timestamp) -> Result<(), Error> {
        let repository = &listing.repository;
        self.write(|connection| {
            let listed: HashSet<String> = backups.iter().map(|backup| backup.id.to_string()).collect();
            let mut remove = connection.prepare("DELETE FROM backups WHERE repository = ?1 AND id = ?2")?;
            for id in listing.before.difference(&listed) {
                remove.execute(params![repository, id])?;
            }
            let mut is_known = connection.prepare("SELECT count(*) FROM backups WHERE repository = ?1 AND id = ?2")?;
            for backup in backups {
                let id = backup.id.to_string();
                // Known when the look began and not any more: somebody has removed it since.
                let is_gone = listing.before.contains(&id)
                    && is_known.query_row(params![repository, id], |row| row.get::<_, i64>(0))? == 0;
                if !is_gone {
                    insert(connection, repository, backup)?;
                }
            }
            let text = "INSERT INTO repositories (name, url, seen) VALUES (?1, '', ?2) \
                        ON CONFLICT (name) DO UPDATE SET seen = excluded.seen";
            connection.execute(text, params![repository, millis(now)])?;
            Ok(())
        })
    }

    /// The backups of a project, of a repository, or all; newest first, each with its repository's name.
    pub fn backups(
        &self,
        project: Option<&str>,
        repository: Option<&str>,
    ) -> Result<Vec<(String, KnownBackup)>, Error> {
        let query = "SELECT repository, document FROM backups WHERE (?1 IS NULL OR project = ?1) \
                     AND (?2 IS NULL OR repository = ?2) ORDER BY made DESC, repository, id";
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            statement.query_map(params![project, repository], named)?.collect()
        })
    }

    /// The newest backup of a project in a repository; without one, in any.
    pub fn newest_backup(
        &self,
        project: &str,
        repository: Option<&str>,
    ) -> Result<Option<(String, KnownBackup)>, Error> {
        let query = "SELECT repository, document FROM backups WHERE project = ?1 \
                     AND (?2 IS NULL OR repository = ?2) ORDER BY made DESC, repository, id LIMIT 1";
        self.read(|connection| {
            let mut statement = connection.prepare(query)?;
            let mut found = statement.query_map(params![project, repository], named)?;
            found.next().transpose()
        })
    }

    /// Records how large a repository is.
    pub fn record_size(&self, repository: &str, size: Size) -> Result<(), Error> {
        self.write(|connection| {
            let text = "INSERT OR REPLACE INTO sizes (repository, at, bytes, backups) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(text, params![repository, millis(size.at), size.bytes, size.backups])?;
            Ok(())
        })
    }

    /// How large a repository was since a time, oldest first.
    pub fn sizes(&self, repository: &str, since: Timestamp) -> Result<Vec<Size>, Error> {
        self.read(|connection| {
            let query = "SELECT at, bytes, backups FROM sizes WHERE repository = ?1 AND at >= ?2 ORDER BY at";
            let mut statement = connection.prepare(query)?;
            let sizes = statement.query_map(params![repository, millis(since)], |row| {
                Ok(Size { at: timestamp(row, 0)?, bytes: row.get(1)?, backups: row.get(2)? })
            })?;
            sizes.collect()
        })
    }
}

fn insert(connection: &Connection, repository: &str, backup: &KnownBackup) -> rusqlite::Result<()> {
    let document = serde_json::to_string(backup).expect("our documents have string keys only");
    let text = "INSERT OR REPLACE INTO backups (repository, id, project, made, document) VALUES (?1, ?2, ?3, ?4, ?5)";
    let what = params![repository, backup.id.to_string(), backup.project(), millis(backup.time), document];
    connection.execute(text, what)?;
    Ok(())
}

fn named(row: &Row<'_>) -> rusqlite::Result<(String, KnownBackup)> {
    Ok((row.get(0)?, columns::document(row, 1)?))
}
