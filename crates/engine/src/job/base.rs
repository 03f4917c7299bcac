//! Which snapshot a backup was made from, so that the next backup looks only at what changed since.
//!
//! One document for each project and repository, `base/ID.json` in the state directory: the backup, the snapshots it
//! was read from, and all that decides what is in it. Invariant: it is written after the backup's record and before the
//! old one's snapshots are deleted, so that what it names is there; and it is believed only where nothing speaks against
//! it ([`Base::doubt`]). It is never needed: without one, everything is looked at.
//!
//! A snapshot may be the base for several repositories, and goes with the last of them.

use std::path::PathBuf;

use backup::archive;
use repository::id::Id as BackupId;
use repository::record::BackupRecord;
use serde::{Deserialize, Serialize};
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::state::{Lock, State};

use super::notes;

/// The subdirectory of the state directory.
const KIND: &str = "base";

/// What a backup was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// Of which project.
    pub(super) project: String,
    /// The repository's name in the configuration.
    pub(super) name: String,
    /// The repository's own id, in its `config`: a name may stand for another one tomorrow.
    pub(super) repository: String,
    /// The backup.
    pub(super) backup: BackupId,
    /// What is in it, for the walk that goes on from it.
    pub(super) content: archive::Base,
    /// What it was read from.
    pub(super) volumes: Vec<BaseVolume>,
    /// Everything else that decides what is in a backup: paths, places, patterns.
    pub(super) settings: String,
    /// How many backups since everything was looked at.
    pub(super) since_full: u32,
}

/// A volume and its snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseVolume {
    /// The volume's root.
    pub(super) directory: PathBuf,
    /// The snapshot.
    pub(super) snapshot: Id,
}

impl Base {
    /// The one of a project and a repository. One that cannot be read is as good as none.
    pub(super) fn find(state: &State, project: &str, repository: &str) -> Option<Base> {
        let all = notes::all::<Base>(state, KIND).ok()?;
        all.into_iter().map(|(_, base)| base).find(|base| base.project == project && base.repository == repository)
    }

    /// Puts it in the place of the one that is there for the same project and repository.
    pub(super) fn save(&self, lock: &Lock) -> Result<(), Error> {
        // Those that cannot be read any more would stand in the way for ever.
        let known = notes::all::<Base>(lock.state(), KIND)?;
        let mut ids = known.iter().filter(|(_, base)| self.is_of_the_same(base)).map(|(id, _)| *id);
        let id = ids.next().unwrap_or_else(Id::random);
        lock.state().write(KIND, id, self)?;
        ids.try_for_each(|id| lock.state().remove(KIND, id))
    }

    fn is_of_the_same(&self, other: &Base) -> bool {
        (&self.project, &self.repository) == (&other.project, &other.repository)
    }

    /// Why everything is to be looked at all the same; `None` if nothing speaks against looking only at what changed.
    pub(super) fn doubt(&self, settings: &str, full_walk: u32, records: &[(BackupId, BackupRecord)]) -> Option<String> {
        if self.since_full.saturating_add(1) >= full_walk {
            return Some(format!("{} backups were made without looking at everything", self.since_full));
        }
        if self.settings != settings {
            return Some("the project's paths, patterns or volumes have changed".to_owned());
        }
        match records.iter().find(|(id, _)| *id == self.backup) {
            None => Some(format!("backup {} is gone", self.backup.short())),
            Some((_, record)) if record.tree != self.content.tree => {
                Some(format!("backup {} has changed", self.backup.short()))
            }
            Some(_) => None,
        }
    }
}

/// The snapshots that are somebody's base, of a project.
pub(super) fn snapshots(state: &State, project: &str) -> Result<Vec<Id>, Error> {
    let bases = notes::all::<Base>(state, KIND)?.into_iter().filter(|(_, base)| base.project == project);
    Ok(bases.flat_map(|(_, base)| base.volumes).map(|volume| volume.snapshot).collect())
}

/// Forgets those of a project that are of none of the repositories named: nobody will ask for them again.
pub(super) fn forget_others(lock: &Lock, project: &str, names: &[&str]) -> Result<(), Error> {
    for (id, base) in notes::all::<Base>(lock.state(), KIND)? {
        if base.project == project && !names.contains(&base.name.as_str()) {
            lock.state().remove(KIND, id)?;
        }
    }
    Ok(())
}
