//! From a repository back to files.
//!
//! Every name is looked up in an open directory and never followed, so neither a hostile tree nor a link that lies
//! in the way leads outside the target. What cannot be restored is named and counted, and the rest is delivered;
//! bytes whose hash is wrong are not written.

mod content;
mod existing;
mod file;
mod handle;
mod linking;
mod links;
mod pace;
mod place;
mod remove;
mod reserve;
pub mod revert;
mod run;
mod verify;
mod walk;

use std::path::{Path, PathBuf};

use repository::id::Id;
use repository::index::Index;
use repository::tree::Timestamp;
use repository::{Error, Repository};

use crate::attributes::{Moment, Stat};
use crate::patterns::Patterns;
use crate::progress::Progress;

use run::Run;
use walk::Walk;

/// What to do with a file that exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Make it as in the backup; only the pieces that differ are read from the repository and written.
    #[default]
    Always,
    /// As `Always`, but trust size and modification time: where both are the same, nothing is compared.
    IfChanged,
    /// Only if the backup's is newer.
    IfNewer,
    /// Leave it.
    Never,
}

/// Whether what exists is left as it is.
fn should_leave(overwrite: Overwrite, stat: &Stat, mtime: Timestamp) -> bool {
    match overwrite {
        Overwrite::Never => true,
        Overwrite::IfNewer => stat.mtime >= Moment { secs: mtime.secs, nanos: mtime.nanos },
        Overwrite::IfChanged | Overwrite::Always => false,
    }
}

/// What to bring back, and how.
pub struct Options<'a> {
    /// Only this file or directory of the backup, by its absolute path.
    pub path: Option<PathBuf>,
    /// Only what matches.
    pub include: Option<Patterns>,
    /// Not what matches.
    pub exclude: Option<Patterns>,
    /// Remove what the backup does not have at and below these paths of it: those it was made of
    /// ([`BackupRecord::paths`](repository::record::BackupRecord)), as of the directories above them it knows nothing
    /// more. Empty: remove nothing, and leave directories with something in them where the backup has a file.
    pub delete: Vec<PathBuf>,
    /// What to do with files that exist.
    pub overwrite: Overwrite,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Read everything back afterwards, and compare.
    pub verify: bool,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// What a restore has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that were written, in whole or in part.
    pub files_restored: u64,
    /// Files that were as in the backup already, or were left by [`Overwrite`].
    pub files_unchanged: u64,
    /// Directories, links, devices and fifos.
    pub others: u64,
    /// Files and directories removed.
    pub deleted: u64,
    /// Bytes of all files in the backup that were asked for.
    pub bytes_total: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Files and directories that could not be restored as they should be.
    pub errors: u64,
    /// Files that were read back and agreed.
    pub verified: u64,
}

/// Restores a tree below `target`, with the full paths of the backup.
///
/// Works in batches: the walk makes directories and gathers files, then all cores read packs in order and write
/// each piece to every file that wants it. A directory gets its attributes when the last thing below it is done.
pub fn restore(
    repository: &Repository,
    index: &Index,
    tree: Id,
    target: &Path,
    options: &Options<'_>,
) -> Result<Outcome, Error> {
    let run = Run::new(repository, index, options);
    let root = run.open_target(target)?;
    Walk::new(&run).backup(tree, &root)?;
    run.finish_directory(root);
    linking::end(&run);
    if options.progress.is_cancelled() {
        return Err(Error::Cancelled);
    }
    Ok(run.outcome())
}
