//! Changes that are under way: one document each, written before anything is touched and removed when all is done.
//!
//! Whoever changes a live tree in several steps (a rollback, an adoption, a guarded command) keeps its own details in
//! a document. The envelope around them is the same for all, so that everybody sees which snapshots a change needs and
//! whose live tree is not to be touched. Invariant: what the envelope names is neither deleted nor changed by others
//! until the document is gone.
//!
//! Does not know of what the changes do.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Id;
use crate::state::{Lock, State};

/// The subdirectory of the state directory.
const KIND: &str = "journal";

/// A change that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// What is done, one word: "rollback". It says who understands the details.
    pub change: String,
    /// The live directories it is about.
    pub directories: Vec<PathBuf>,
    /// Snapshots it needs or makes.
    pub snapshots: Vec<Id>,
    /// The live tree may be half changed: nobody else touches the directory or snapshots it meanwhile.
    pub is_switching: bool,
    /// For whoever made it.
    pub details: T,
}

/// Writes a change down, durably, or replaces what was written about it.
pub fn write<T: Serialize>(lock: &Lock, id: Id, entry: &Entry<T>) -> Result<(), Error> {
    lock.state().write(KIND, id, entry)
}

/// The change is finished or was taken back. One that is not there is success.
pub fn clear(lock: &Lock, id: Id) -> Result<(), Error> {
    lock.state().remove(KIND, id)
}

/// All that is under way, with details that are not looked into.
pub fn all(state: &State) -> Result<Vec<(Id, Entry<serde_json::Value>)>, Error> {
    state.documents(KIND)
}

/// What is under way of one kind of change.
pub fn of<T: DeserializeOwned>(state: &State, change: &str) -> Result<Vec<(Id, Entry<T>)>, Error> {
    let entries = all(state)?.into_iter().filter(|(_, entry)| entry.change == change);
    entries
        .map(|(id, entry)| {
            let Entry { change, directories, snapshots, is_switching, details } = entry;
            let details = serde_json::from_value(details).map_err(|error| Error::Damaged {
                path: state.root().join(KIND).join(format!("{id}.json")),
                reason: error.to_string(),
            })?;
            Ok((id, Entry { change, directories, snapshots, is_switching, details }))
        })
        .collect()
}

/// Refuses if the live tree of a directory, or one above or below it, may be half changed.
pub fn refuse_if_switching(state: &State, directory: &Path) -> Result<(), Error> {
    match switching(state, directory)? {
        None => Ok(()),
        Some(entry) => Err(Error::refused(format!(
            "a {} of {} was cut short and is neither finished nor reverted",
            entry.change,
            shown(&entry.directories)
        ))
        .or("whatever changes something finishes or reverts it first, such as: snapback snapshot expire")),
    }
}

/// What may have changed the live tree of a directory, or of one above or below it, by half.
pub(crate) fn switching(state: &State, directory: &Path) -> Result<Option<Entry<serde_json::Value>>, Error> {
    let touches = |other: &PathBuf| other.starts_with(directory) || directory.starts_with(other);
    let is_it = |entry: &Entry<_>| entry.is_switching && entry.directories.iter().any(touches);
    Ok(all(state)?.into_iter().map(|(_, entry)| entry).find(is_it))
}

/// Directories, for people to read.
pub(crate) fn shown(directories: &[PathBuf]) -> String {
    directories.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(" and ")
}
