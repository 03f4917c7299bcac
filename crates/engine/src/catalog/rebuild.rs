//! What the catalog says of the present, found again: from the state directory and from the repositories.

use std::sync::Arc;

use jiff::Timestamp;
use repository::Repository;
use repository::statistics;
use snapshot::state::State;

use super::backups::{KnownBackup, Size};
use super::{Catalog, Error};
use crate::guard;

/// A repository of the configuration, and how it is opened. What fails is told in words.
pub struct Source<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it lies.
    pub url: &'a str,
    /// Opens it.
    pub open: &'a (dyn Fn() -> Result<Arc<Repository>, String> + 'a),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// How many snapshots.
    pub snapshots: usize,
    /// How many guards.
    pub guards: usize,
    /// Of each repository, how many backups, or why it could not be looked at; what was known of it stays.
    pub repositories: Vec<(String, Result<usize, String>)>,
    /// What else could not be read.
    pub problems: Vec<String>,
}

impl Rebuilt {
    /// Whether everything could be looked at.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty() && self.repositories.iter().all(|(_, found)| found.is_ok())
    }
}

impl Catalog {
    /// Looks at everything that there is. What only the catalog knows, the past, is left as it is.
    pub fn rebuild(&self, state: &State, sources: &[Source<'_>], now: Timestamp) -> Result<Rebuilt, Error> {
        let mut rebuilt = Rebuilt::default();
        self.sync_into(state, &mut rebuilt)?;
        for source in sources {
            self.record_repository(source.name, source.url)?;
            let found = match (source.open)() {
                Ok(repository) => self.refresh(source.name, &repository, now)?,
                Err(reason) => Err(reason),
            };
            let count = found.map(|(backups, damaged)| {
                rebuilt.problems.extend(damaged.into_iter().map(|error| format!("{}: {error}", source.name)));
                backups.len()
            });
            rebuilt.repositories.push((source.name.to_owned(), count));
        }
        Ok(rebuilt)
    }

    /// Takes over what the state directory says of snapshots and guards. What cannot be read is left as it is known.
    pub fn sync(&self, state: &State) -> Result<(), Error> {
        self.sync_into(state, &mut Rebuilt::default())
    }

    fn sync_into(&self, state: &State, rebuilt: &mut Rebuilt) -> Result<(), Error> {
        match self.replace_snapshots(|| state.records())? {
            Ok(count) => rebuilt.snapshots = count,
            Err(error) => rebuilt.problems.push(error.to_string()),
        }
        match guard::recorded(state) {
            Ok(guards) => {
                self.record_guards(&guards)?;
                rebuilt.guards = guards.len();
            }
            Err(error) => rebuilt.problems.push(error.to_string()),
        }
        Ok(())
    }

    /// Lists the backups of an open repository, and records them and how large it is. The inner error is the
    /// repository's; records of backups that are damaged are named beside the others.
    pub fn refresh(&self, name: &str, repository: &Repository, now: Timestamp) -> Result<Result<Found, String>, Error> {
        let listing = self.begin_listing(name)?;
        let looked = list(repository)
            .and_then(|found| Ok((found, statistics::stored(repository).map_err(|error| error.to_string())?)));
        let ((backups, damaged), stored) = match looked {
            Ok(looked) => looked,
            Err(reason) => return Ok(Err(reason)),
        };
        self.end_listing(&listing, &backups, now)?;
        self.record_size(name, Size { at: now, bytes: stored.pack_bytes, backups: stored.backups })?;
        Ok(Ok((backups, damaged)))
    }
}

/// The backups that a repository has, oldest first. What fails is told in words.
pub fn list(repository: &Repository) -> Result<Found, String> {
    let (records, damaged) = repository.backups().map_err(|error| error.to_string())?;
    let backups = records.iter().map(|(id, record)| KnownBackup::of(*id, record)).collect();
    Ok((backups, damaged.iter().map(ToString::to_string).collect()))
}

/// Backups, and what is wrong with records that cannot be read.
pub type Found = (Vec<KnownBackup>, Vec<String>);
