//! The record of a backup: restic's snapshot document.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::Id;
use crate::tree::Timestamp;

/// One backup, as restic's `snapshots/` hold it. Fields restic does not know would be lost when it rewrites a
/// record, so there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupRecord {
    /// When it was begun.
    pub time: Timestamp,
    /// The backup it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// The root directory.
    pub tree: Id,
    /// What was asked for, absolute.
    pub paths: Vec<String>,
    /// Of which machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Who ran it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Who ran it; omitted when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Who ran it; omitted when 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Patterns that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The record this one replaced, when it was rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    /// What wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    /// What the run did; kept as it stands when a record is rewritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<RawValue>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(id: &u32) -> bool {
    *id == 0
}

/// What a run did, as restic's records and pages show it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// When it began.
    pub backup_start: Timestamp,
    /// When it ended.
    pub backup_end: Timestamp,
    /// Files the parent did not have.
    pub files_new: u64,
    /// Files that were read again.
    pub files_changed: u64,
    /// Files taken over unread.
    pub files_unmodified: u64,
    /// Directories the parent did not have.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories as in the parent.
    pub dirs_unmodified: u64,
    /// Data blobs added.
    pub data_blobs: u64,
    /// Tree blobs added.
    pub tree_blobs: u64,
    /// Plaintext bytes of the blobs added.
    pub data_added: u64,
    /// Bytes that were stored for them.
    pub data_added_packed: u64,
    /// Files looked at.
    pub total_files_processed: u64,
    /// Their bytes.
    pub total_bytes_processed: u64,
}

impl BackupRecord {
    /// The run's figures, if the record has any.
    pub fn summary(&self) -> Option<Summary> {
        serde_json::from_str(self.summary.as_ref()?.get()).ok()
    }

    /// Sets the run's figures.
    pub fn set_summary(&mut self, summary: &Summary) {
        self.summary = Some(serde_json::value::to_raw_value(summary).expect("numbers and times are always JSON"));
    }
}
