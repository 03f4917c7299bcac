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
    /// None of the live tree: a clone of a snapshot, that can be written to, for somebody to try whether it is good.
    Proof {
        /// The snapshot.
        of: Id,
    },
}

impl Purpose {
    /// Whether somebody wanted to be able to return to it. Whoever says `latest` means one of these: what was made on
    /// the way back to another one would take him back to the very state he wants to leave, and what was made for a
    /// backup is of whatever moment the clock said, perhaps after the change that went wrong.
    pub fn is_a_point_to_return_to(self) -> bool {
        matches!(self, Purpose::Asked | Purpose::Guard | Purpose::Hook)
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
    /// What was done around its moment, in the words of whoever did it ([`crate::manage::Around`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<serde_json::Value>,
}
