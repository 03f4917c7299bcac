//! The guards' files in the state directory, and the lock under which they change.
//!
//! The lock is not the one of the snapshots: a rollback takes that one itself. Whoever needs both takes this one first.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use snapshot::id::Id;
use snapshot::state::State;

use super::document::Guard;
use snapshot::error::Error;

const KIND: &str = "guard";

/// The guards of a state directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store<'a> {
    state: &'a State,
}

/// Held by whoever decides about a guard.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
}

impl<'a> Store<'a> {
    /// Opens it, and makes the directory if it is not there.
    pub(super) fn open(state: &'a State) -> Result<Store<'a>, Error> {
        let directory = state.root().join(KIND);
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(Error::io("create", &directory))?,
        }
        Ok(Store { state })
    }

    /// Waits until nobody else decides.
    pub(super) fn lock(&self) -> Result<Held, Error> {
        let path = self.state.root().join("guard.lock");
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        while let Err(error) = rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            if error != Errno::INTR {
                return Err(Error::io("lock", &path)(error));
            }
        }
        Ok(Held { _file: file })
    }

    /// All guards, oldest first.
    pub(super) fn all(&self) -> Result<Vec<Guard>, Error> {
        let documents = self.state.documents::<Guard>(KIND)?;
        let mut guards: Vec<Guard> = documents.into_iter().map(|(_, guard)| guard).collect();
        guards.sort_by_key(|guard| (guard.started, guard.id));
        Ok(guards)
    }

    /// One of them, if it is there. The others' files are not looked at: they may be damaged.
    pub(super) fn get(&self, id: Id) -> Result<Option<Guard>, Error> {
        let path = self.state.root().join(KIND).join(format!("{id}.json"));
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("read", &path))?,
        };
        let damaged = |error: serde_json::Error| Error::Damaged { path, reason: error.to_string() };
        Ok(Some(serde_json::from_slice(&text).map_err(damaged)?))
    }

    /// Writes one, durably.
    pub(super) fn save(&self, guard: &Guard) -> Result<(), Error> {
        self.state.write(KIND, guard.id, guard)
    }

    /// Forgets one.
    pub(super) fn forget(&self, id: Id) -> Result<(), Error> {
        self.state.remove(KIND, id)
    }
}
