//! The state directory: what is known of each snapshot, the journal, and the lock that lets one change at a time.
//!
//! ```text
//! lock                  whoever changes something holds it (flock)
//! snapshots/ID.json     a Record
//! journal/ID.json       a change of a live tree that is under way
//! ```
//!
//! A file is written as a temporary one, synced, renamed, and its directory synced. The directory itself must not lie
//! in a tree that is rolled back, or what is known would be rolled back, too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::id::Id;
use crate::record::Record;

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

/// Held by whoever changes snapshots or live trees; given back when dropped, or when the process ends. Whatever
/// changes something takes it as an argument, so that it cannot be forgotten.
#[derive(Debug)]
pub struct Lock {
    state: State,
    _file: File,
}

impl Lock {
    /// The state directory that is locked.
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl State {
    /// Opens the directory, and makes it if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<State, Error> {
        let root = root.into();
        for directory in [root.clone(), root.join("snapshots"), root.join("journal")] {
            match DirBuilder::new().mode(0o700).recursive(directory == root).create(&directory) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => made.map_err(Error::io("create", &directory))?,
            }
        }
        Ok(State { root })
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until nobody else changes anything. `waiting` is called once if it has to wait.
    pub fn lock(&self, waiting: &mut dyn FnMut()) -> Result<Lock, Error> {
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                waiting();
                while let Err(error) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                    if error != Errno::INTR {
                        return Err(Error::io("lock", &path)(error));
                    }
                }
            }
            locked => locked.map_err(Error::io("lock", &path))?,
        }
        Ok(Lock { state: self.clone(), _file: file })
    }

    /// What is known of one snapshot.
    pub fn record(&self, id: Id) -> Result<Record, Error> {
        let path = self.root.join("snapshots").join(format!("{id}.json"));
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NoSuchSnapshot(id.to_string()));
            }
            text => text.map_err(Error::io("read", &path))?,
        };
        serde_json::from_slice(&text).map_err(|error| Error::Damaged { path, reason: error.to_string() })
    }

    /// What is known of all snapshots, oldest first.
    pub fn records(&self) -> Result<Vec<Record>, Error> {
        let mut records: Vec<Record> = self.documents("snapshots")?.into_iter().map(|(_, record)| record).collect();
        records.sort_by_key(|record| (record.created, record.id));
        Ok(records)
    }

    /// The one that is meant: the beginning of an id, `latest`, or `latest~2` for the second before it. With a
    /// `directory`, `latest` is the latest of it. What was kept on the way back to another one, or was made to be read from,
    /// is not counted.
    pub fn find(&self, name: &str, directory: Option<&Path>) -> Result<Record, Error> {
        let mut records = self.records()?;
        if let Some(rest) = name.strip_prefix("latest") {
            let back = match rest.strip_prefix('~').map(str::parse::<usize>) {
                None if rest.is_empty() => 0,
                Some(Ok(back)) => back,
                _ => return Err(Error::NoSuchSnapshot(name.to_owned())),
            };
            let is_meant = |record: &Record| directory.is_none_or(|directory| record.directory == directory);
            // One that was never finished is none.
            records.retain(|record| {
                record.handle.is_some() && record.purpose.is_a_point_to_return_to() && is_meant(record)
            });
            return records.into_iter().rev().nth(back).ok_or_else(|| Error::NoSuchSnapshot(name.to_owned()));
        }
        records.retain(|record| !name.is_empty() && record.id.to_string().starts_with(name));
        match records.len() {
            0 => Err(Error::NoSuchSnapshot(name.to_owned())),
            1 => Ok(records.swap_remove(0)),
            _ => {
                let ids = records.iter().map(|record| record.id).collect();
                Err(Error::Ambiguous { beginning: name.to_owned(), ids })
            }
        }
    }

    /// Writes what is known of a snapshot, durably.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        self.write("snapshots", record.id, record)
    }

    /// Forgets a snapshot; one that is not known is success.
    pub fn forget(&self, id: Id) -> Result<(), Error> {
        self.remove("snapshots", id)
    }

    /// All documents of a kind, `journal` for example.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(Id, T)>, Error> {
        let directory = self.root.join(kind);
        let mut documents = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let path = entry.map_err(Error::io("list", &directory))?.path();
            // A temporary file of a crash is not a document.
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            let Some(id) = name.and_then(|name| name.parse().ok()) else { continue };
            let text = match fs::read(&path) {
                // Deleted since the listing, by somebody else.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                text => text.map_err(Error::io("read", &path))?,
            };
            let document = serde_json::from_slice(&text)
                .map_err(|error| Error::Damaged { path: path.clone(), reason: error.to_string() })?;
            documents.push((id, document));
        }
        Ok(documents)
    }

    /// Writes a document, durably.
    pub fn write<T: Serialize>(&self, kind: &str, id: Id, document: &T) -> Result<(), Error> {
        write_file(&self.root.join(kind), &format!("{id}.json"), document)
    }

    /// Removes a document, durably; one that is not there is success.
    pub fn remove(&self, kind: &str, id: Id) -> Result<(), Error> {
        let directory = self.root.join(kind);
        let path = directory.join(format!("{id}.json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(Error::io("remove", &path))?,
        }
        sync(&directory)
    }
}

/// Writes a file `NAME.json` as JSON, durably: what was there before, or all of the new, whenever the machine stops.
pub fn write_file<T: Serialize>(directory: &Path, name: &str, document: &T) -> Result<(), Error> {
    let path = directory.join(name);
    let unfinished = path.with_extension("tmp");
    // JSON has no paths that are not UTF-8.
    let mut text = serde_json::to_vec_pretty(document).map_err(Error::io("write", &path))?;
    text.push(b'\n');
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(&unfinished);
    let mut file = file.map_err(Error::io("create", &unfinished))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(Error::io("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
    sync(directory)
}

fn sync(directory: &Path) -> Result<(), Error> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(Error::io("sync", directory))
}
