//! Databases brought to a moment in which a snapshot of their files is good, and let go on right after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longer than this nobody's writes stand still.
pub const LIMIT: Duration = Duration::from_secs(2);

/// What was done to a database around a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Its name in the configuration.
    pub name: String,
    /// Name and version of the server.
    pub server: Option<String>,
    /// How.
    pub how: How,
    /// How long writes may have stood still: from when they were held to when they went on, in milliseconds. Zero
    /// where nothing is held.
    pub stood_still_ms: u64,
}

/// What makes a snapshot of a running database good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// PostgreSQL's CHECKPOINT: the snapshot is one moment, and starts as after a power cut, with little to redo.
    Checkpoint,
    /// `pg_backup_start` and `pg_backup_stop` around several volumes.
    BackupMode,
    /// MariaDB's BACKUP STAGE BLOCK_COMMIT.
    BackupStage,
    /// MySQL's LOCK INSTANCE FOR BACKUP.
    LockInstance,
    /// SQLite: no writer was between two pages.
    WriteLock,
    /// Nothing: the snapshot is as after a power cut.
    Skipped {
        /// Why: "a statement has been running for 40 s".
        why: String,
    },
}
