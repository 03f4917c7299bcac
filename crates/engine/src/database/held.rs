//! Databases around the moment of a snapshot: found, held, let go, and what was done written down.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapshot::provider::Provider;
use snapshot::record::Record;
use workload::address::{Address, Login};
use workload::quiesce::{self, Files, How, Layout, Quiesced};

use super::layout::{self, Volume};
use crate::config::{Database, Project};

/// What a snapshot's record says of databases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    /// Those of the project, by name.
    pub databases: Vec<InSnapshot>,
    /// How long the snapshots' own making took, in milliseconds: whoever writes waits for it, too.
    pub made_in_ms: u64,
}

/// A database in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSnapshot {
    /// What was done to it.
    #[serde(flatten)]
    pub quiesced: Quiesced,
    /// Whether it was to be held.
    pub is_wanted: bool,
    /// What kind of server has it.
    pub kind: Kind,
    /// Where its files lay, if its server said.
    pub files: Option<Data>,
}

/// In what state a database is in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As the server itself would have it in a backup.
    Good,
    /// As after a power cut, of one moment: the server starts on it and recovers.
    PowerCut,
    /// Its files are of different moments, and nothing was done about that.
    Torn,
    /// Not all of its files are there.
    Outside,
    /// Nobody knows where its files were.
    Unknown,
}

impl State {
    /// In a word or two.
    pub fn brief(self) -> &'static str {
        match self {
            State::Good => "good",
            State::PowerCut => "as after a power cut",
            State::Torn => "torn",
            State::Outside => "not in it",
            State::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Good => "held for the snapshot",
            State::PowerCut => "as after a power cut",
            State::Torn => "its files are of different moments",
            State::Outside => "its files are not in the snapshot",
            State::Unknown => "its server did not say where its files are",
        })
    }
}

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB or MySQL.
    Mysql,
    /// SQLite.
    Sqlite,
}

/// Where a database's files lay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The data directory, or of SQLite the file.
    pub directory: PathBuf,
    /// What belongs to it and lies outside of it: the write-ahead log, tablespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PathBuf>,
    /// How the snapshots took them.
    pub taken: Taken,
}

/// How snapshots took a database's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// All in one moment.
    OneMoment,
    /// One after the other.
    Several,
    /// Not, or not all of them.
    Outside,
}

impl Around {
    /// What a record says; nothing if it says nothing that is understood.
    pub fn of(record: &Record) -> Around {
        record.around.as_ref().and_then(|around| Around::deserialize(around).ok()).unwrap_or_default()
    }

    /// For how long writes may have stood still, in milliseconds; `None` if no database was held.
    pub fn stood_still_ms(&self) -> Option<u64> {
        let held = self.databases.iter().filter(|database| database.state() == State::Good);
        held.map(|database| database.quiesced.stood_still_ms.max(self.made_in_ms)).max()
    }
}

impl InSnapshot {
    /// Whether the snapshot has all of its files.
    pub fn is_inside(&self) -> bool {
        self.files.as_ref().is_some_and(|files| files.taken != Taken::Outside)
    }

    /// In what state it is.
    pub fn state(&self) -> State {
        match (&self.files, &self.quiesced.how) {
            (None, _) => State::Unknown,
            (Some(Data { taken: Taken::Outside, .. }), _) => State::Outside,
            (Some(Data { taken: Taken::Several, .. }), How::Skipped { .. }) => State::Torn,
            (Some(_), How::Skipped { .. }) => State::PowerCut,
            (Some(_), _) => State::Good,
        }
    }

    /// What is to be told of it.
    pub fn warning(&self) -> Option<String> {
        let name = &self.quiesced.name;
        let why = match &self.quiesced.how {
            How::Skipped { why } => why.as_str(),
            _ => "",
        };
        match self.state() {
            State::Good => None,
            State::PowerCut if !self.is_wanted => None,
            State::PowerCut => {
                Some(format!("the database {name} was not held, and is in the snapshot as after a power cut: {why}"))
            }
            State::Torn => Some(format!(
                "the database {name} may not start from the snapshot, as its files were not taken in one moment: {why}"
            )),
            State::Outside => {
                let directory = self.files.as_ref().map(|files| files.directory.display().to_string());
                let directory = directory.unwrap_or_default();
                Some(format!(
                    "the snapshot does not hold the database {name}: its files ({directory}) lie outside of it"
                ))
            }
            State::Unknown => Some(format!("whether the snapshot holds the database {name} is not known: {why}")),
        }
    }
}

impl Kind {
    /// Of an address.
    pub fn of(address: &Address) -> Kind {
        match address {
            Address::Postgres(_) => Kind::Postgres,
            Address::Mysql(_) => Kind::Mysql,
            Address::Sqlite(_) => Kind::Sqlite,
        }
    }
}

impl From<Layout> for Taken {
    fn from(layout: Layout) -> Taken {
        match layout {
            Layout::OneMoment => Taken::OneMoment,
            Layout::Several => Taken::Several,
            Layout::Outside => Taken::Outside,
        }
    }
}

/// A project's databases, found and ready to be held.
pub struct Databases<'a> {
    found: Vec<(&'a Database, Option<Data>)>,
    volumes: Vec<Volume<'a>>,
}

impl<'a> Databases<'a> {
    /// Asks the servers where their files lie, all at once. `None` if the project has no database. One whose server says
    /// nothing is told of when it is to be held.
    pub fn find(project: &'a Project, providers: &[&'a dyn Provider]) -> Option<Databases<'a>> {
        let volumes: Vec<Volume<'_>> = providers.iter().map(|provider| Volume::of(*provider)).collect();
        let files = files(project.databases.values());
        let found: Vec<_> = files
            .into_iter()
            .map(|(database, files)| {
                let data = files.ok().map(|files| {
                    let taken = layout::of(&files, &volumes).into();
                    Data { directory: files.directory, others: files.others, taken }
                });
                (database, data)
            })
            .collect();
        (!found.is_empty()).then_some(Databases { found, volumes })
    }

    /// Holds them while the snapshots are made, and gives what their records keep.
    pub fn around(&self, make: &mut dyn FnMut()) -> Option<Value> {
        let is_held = |(database, data): &&(&Database, Option<Data>)| {
            database.quiesce && data.as_ref().is_none_or(|data| data.taken != Taken::Outside)
        };
        let wanted: Vec<(String, Login)> =
            self.found.iter().filter(is_held).map(|(it, _)| (it.name.clone(), it.login.clone())).collect();
        let layout = |files: &Files| layout::of(files, &self.volumes);
        let held = quiesce::hold(&wanted, &layout);
        let began = Instant::now();
        make();
        let made_in_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut quiesced = held.release();
        let databases = self.found.iter().map(|(database, data)| {
            let of_it = quiesced.iter().position(|quiesced| quiesced.name == database.name);
            let quiesced = of_it.map_or_else(|| left_alone(database), |at| quiesced.swap_remove(at));
            InSnapshot {
                quiesced,
                is_wanted: database.quiesce,
                kind: Kind::of(&database.login.address),
                files: data.clone(),
            }
        });
        let around = Around { databases: databases.collect(), made_in_ms };
        Some(serde_json::to_value(around).expect("words and numbers are JSON"))
    }
}

fn left_alone(database: &Database) -> Quiesced {
    let why = if database.quiesce { "its files are not in the snapshot" } else { "quiesce = false" };
    Quiesced {
        name: database.name.clone(),
        server: None,
        how: How::Skipped { why: why.to_owned() },
        stood_still_ms: 0,
        beside: Vec::new(),
    }
}

/// Where databases keep their files, as their servers say.
pub(super) fn files<'d>(
    databases: impl Iterator<Item = &'d Database>,
) -> Vec<(&'d Database, Result<Files, workload::error::Error>)> {
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            databases.map(|database| (database, scope.spawn(|| quiesce::files(&database.login)))).collect();
        let died = || workload::error::Error::Refused("its thread died".to_owned());
        asked.into_iter().map(|(database, thread)| (database, thread.join().unwrap_or_else(|_| Err(died())))).collect()
    })
}
