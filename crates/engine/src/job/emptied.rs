//! Paths of a project in which there is nothing any more, though there was something at the last complete backup.
//!
//! A file system that is not mounted leaves an empty directory. Taken for the project, it would in time push every good
//! backup out; so such a backup counts as incomplete, and says why.

use std::path::{Path, PathBuf};

use backup::read::{self, PathError};
use repository::id::Id;
use repository::record::BackupRecord;
use repository::{BlobReader, Error};

/// One of them.
#[derive(Debug)]
pub(super) struct Emptied {
    pub(super) path: PathBuf,
    /// The backup that has something there.
    had: Id,
}

impl std::fmt::Display for Emptied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let had = self.had.short();
        write!(f, "it is empty, and was not in the last complete backup ({had}): is its file system not mounted? ")?;
        f.write_str("If it is to be empty, take it out of the project's paths")
    }
}

/// The paths that are empty or gone, and were not in a backup before.
pub(super) fn emptied(
    reader: &mut BlobReader<'_>,
    before: &(Id, BackupRecord),
    paths: &[PathBuf],
) -> Result<Vec<Emptied>, Error> {
    let mut found = Vec::new();
    for path in paths.iter().filter(|path| is_empty(path)) {
        if has_something(reader, before.1.tree, path)? {
            found.push(Emptied { path: path.clone(), had: before.0 });
        }
    }
    Ok(found)
}

/// What cannot be listed is told by whoever reads it.
fn is_empty(path: &Path) -> bool {
    match path.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Whether there is a directory with an entry, or anything else than a directory.
fn has_something(reader: &mut BlobReader<'_>, tree: Id, path: &Path) -> Result<bool, Error> {
    match read::find_path(reader, tree, path) {
        Ok(found) => match found.tree() {
            Some(tree) => Ok(!reader.load_tree(&tree)?.nodes.is_empty()),
            None => Ok(true),
        },
        Err(PathError::Repository(error)) => Err(error),
        Err(PathError::NotFound { .. } | PathError::NoDirectory { .. }) => Ok(false),
    }
}
