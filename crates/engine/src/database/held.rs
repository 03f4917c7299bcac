//! Databases around the moment of a snapshot: found, held, let go, and what was done written down.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snapshot::manage;
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

impl From<Kind> for workload::verify::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Postgres => workload::verify::Kind::Postgres,
            Kind::Mysql => workload::verify::Kind::Mysql,
            Kind::Sqlite => workload::verify::Kind::Sqlite,
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

/// Takes snapshots with the project's databases held for their moment: asks the servers where their files are, all at
/// once and before anything is locked, and calls `take` with what is to be done around the moment. That a database cannot
/// be held, or a server says nothing, is told by the snapshots' records, and stops nothing.
pub fn around<T>(
    project: Option<&Project>,
    providers: &[&dyn Provider],
    take: impl FnOnce(Option<manage::Around<'_>>) -> T,
) -> T {
    let databases = project.into_iter().flat_map(|project| project.databases.values());
    let databases = Databases::find(databases, providers);
    if databases.found.is_empty() {
        return take(None);
    }
    let last = databases.last();
    take(Some(manage::Around { hold: &mut |make| Some(databases.hold(make)), last }))
}

/// A project's databases, found and ready to be held.
struct Databases<'a> {
    found: Vec<Found<'a>>,
    volumes: Vec<Volume<'a>>,
}

struct Found<'a> {
    database: &'a Database,
    files: Option<Files>,
}

impl<'a> Databases<'a> {
    fn find(databases: impl Iterator<Item = &'a Database>, providers: &[&'a dyn Provider]) -> Databases<'a> {
        let found = files(databases).into_iter().map(|(database, files)| Found { database, files: files.ok() });
        Databases { found: found.collect(), volumes: providers.iter().map(|provider| Volume::of(*provider)).collect() }
    }

    /// A log that is taken last covers every page of what was taken before it.
    fn last(&self) -> Vec<PathBuf> {
        let logs = self.found.iter().filter_map(|found| found.files.as_ref()?.log.as_ref());
        logs.filter_map(|log| layout::volume(log, &self.volumes)).map(|volume| volume.directory.to_owned()).collect()
    }

    /// Why one is left alone, if it is.
    fn refusal(&self, found: &Found<'_>) -> Option<&'static str> {
        let is_file = matches!(found.database.login.address, Address::Sqlite(_));
        match &found.files {
            _ if !found.database.quiesce => Some("quiesce = false"),
            Some(files) if layout::of(files, &self.volumes) == Layout::Outside => {
                Some("its files are not in the snapshot")
            }
            // Its pages change from moment to moment, in whatever state it is held.
            Some(files) if !is_file && layout::is_copied(files, &self.volumes) => {
                Some("a running server's files do not fit together when they are cloned one after the other")
            }
            _ => None,
        }
    }

    /// Holds them while the snapshots are made, and gives what their records keep.
    fn hold(&self, make: &mut dyn FnMut()) -> Value {
        let wanted = self.found.iter().filter(|found| self.refusal(found).is_none());
        let wanted: Vec<(String, Login)> =
            wanted.map(|found| (found.database.name.clone(), found.database.login.clone())).collect();
        let layout = |files: &Files| layout::of(files, &self.volumes);
        let held = quiesce::hold(&wanted, &layout);
        let began = Instant::now();
        make();
        let made_in_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut quiesced = held.release();
        let databases = self.found.iter().map(|found| {
            let Found { database, files } = found;
            let of_it = quiesced.iter().position(|quiesced| quiesced.name == database.name);
            let quiesced = match (of_it, self.refusal(found)) {
                (Some(at), _) => quiesced.swap_remove(at),
                (None, why) => left_alone(&database.name, why.unwrap_or("nobody said how it was held")),
            };
            let data = |files: &Files| Data {
                directory: files.directory.clone(),
                others: files.others.clone(),
                taken: layout::of(files, &self.volumes).into(),
            };
            let kind = Kind::of(&database.login.address);
            InSnapshot { quiesced, is_wanted: database.quiesce, kind, files: files.as_ref().map(data) }
        });
        let around = Around { databases: databases.collect(), made_in_ms };
        serde_json::to_value(around).expect("words and numbers are JSON")
    }
}

fn left_alone(name: &str, why: &str) -> Quiesced {
    Quiesced {
        name: name.to_owned(),
        server: None,
        how: How::Skipped { why: why.to_owned() },
        stood_still_ms: 0,
        beside: Vec::new(),
    }
}

/// The databases of which snapshots of the project's paths do not have all files, by name, and why. Nothing of those whose
/// servers do not say where their files are.
pub fn not_inside(project: &Project) -> Vec<(String, String)> {
    let real: Vec<PathBuf> = project.paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut found = Vec::new();
    for (database, files) in files(project.databases.values()) {
        let Ok(files) = files else { continue };
        let all = std::iter::once(&files.directory).chain(&files.others);
        let outside = all.filter(|path| !real.iter().any(|real| path.starts_with(real)));
        let outside: Vec<String> = outside.map(|path| path.display().to_string()).collect();
        if !outside.is_empty() {
            found.push((database.name.clone(), format!("{} lies outside of its paths", outside.join(", "))));
        }
    }
    found
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
