//! What is known of the moment of a snapshot: where the files are, how it takes them, and what was done for it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longer than this nobody's writes stand still.
pub const LIMIT: Duration = Duration::from_secs(2);

/// A file to be put into the data directory of a copy, before a server is started on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// Its name: `backup_label`, `tablespace_map`.
    pub file: String,
    /// Its content, exactly.
    pub content: String,
}

/// Where a database keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Name and version of the server.
    pub server: String,
    /// The data directory, or of SQLite the file. Links in it are resolved.
    pub directory: PathBuf,
    /// What belongs to it and lies outside, links resolved: the write-ahead log, tablespaces.
    pub others: Vec<PathBuf>,
    /// Where the write-ahead log is, which may lie in the directory or be one of the others. Of several volumes, this
    /// one's snapshot must be taken last.
    pub log: Option<PathBuf>,
}

/// How the snapshot will take a database's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All of them in one moment.
    OneMoment,
    /// One after the other, as they lie on several volumes, with [`Files::log`] in the last.
    Several,
    /// Not, or not all of them.
    Outside,
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

/// Tells how a snapshot takes files.
pub type LayoutOf<'a> = dyn Fn(&Files) -> Layout + Sync + 'a;

/// How a database was let go.
#[derive(Clone, Debug)]
pub(crate) struct Released {
    pub(crate) how: How,
    pub(crate) beside: Vec<Beside>,
}
