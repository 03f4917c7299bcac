//! What Snapback knows of a snapshot it made.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::Id;
use crate::provider::Handle;

/// Why a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "purpose")]
pub enum Purpose {
    /// Somebody asked for it.
    Asked,
    /// The state before a rollback; rolling back to it is the undo.
    Safety {
        /// The snapshot that was rolled back to.
        rolled_back_to: Id,
    },
    /// The state before single files were brought back.
    Undo {
        /// The snapshot they came from.
        brought_back_from: Id,
    },
    /// Before a guarded command.
    Guard,
    /// Before a run of the package manager.
    Hook,
    /// For a backup to be read from. It goes when the backup is made, or stays as what the next one is compared with.
    Backup,
}

impl Purpose {
    /// Made on the way back to another one, so that the way back can itself be undone. Whoever says `latest` means none
    /// of these: it would take them back to the very state they want to leave.
    pub fn is_on_the_way_back(self) -> bool {
        matches!(self, Purpose::Safety { .. } | Purpose::Undo { .. })
    }
}

/// What is known of a snapshot: one file in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: Id,
    /// Of what: an absolute path without symbolic links.
    pub directory: PathBuf,
    /// When.
    pub created: Timestamp,
    /// What somebody wrote about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Deleted by expiry at or after this time.
    pub expires: Option<Timestamp>,
    /// Never deleted by expiry, nor by hand without releasing it first.
    #[serde(default)]
    pub is_held: bool,
    /// Why it was made.
    #[serde(flatten)]
    pub purpose: Purpose,
    /// Where it lies. `None` while it is being made.
    pub handle: Option<Handle>,
    /// The project it is of, if it was made as a part of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Shared by the snapshots that were made together, of the directories of one project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Id>,
    /// The old live tree that a rollback left, still written to by those who hold it open; deleted with the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_tree: Option<Handle>,
}
