//! The machine that the tests run on stays as it was: they run as root, and a test that follows a link where it should
//! not would write over the system's own files without anybody noticing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What tells that a file is another one: size, times in nanoseconds, inode.
type Seen = (u64, i64, i64, i64, i64, u64);

/// Where the system's own files lie.
const ROOTS: [&str; 2] = ["/etc", "/usr"];

/// The system's own files, as they are now.
pub(crate) struct System(BTreeMap<PathBuf, Seen>);

impl System {
    /// Looks at them.
    pub(crate) fn now() -> System {
        let mut files = BTreeMap::new();
        for root in ROOTS {
            gather(Path::new(root), &mut files);
        }
        System(files)
    }

    /// Fails if any was changed, made or removed since.
    pub(crate) fn assert_untouched(&self) -> Result<()> {
        let System(now) = System::now();
        let differs = |path: &&PathBuf| self.0.get(*path) != now.get(*path);
        let mut changed: Vec<&PathBuf> = self.0.keys().chain(now.keys()).filter(differs).collect();
        changed.sort();
        changed.dedup();
        if let Some(first) = changed.first() {
            bail!("the tests changed this machine: {} and {} other files", first.display(), changed.len() - 1);
        }
        Ok(())
    }
}

fn gather(directory: &Path, files: &mut BTreeMap<PathBuf, Seen>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.is_dir() {
            // Python writes there what it compiled, whoever runs it.
            if path.file_name().is_some_and(|name| name == "__pycache__") {
                continue;
            }
            gather(&path, files);
        } else {
            let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
            files.insert(path, (found.size(), times.0, times.1, times.2, times.3, found.ino()));
        }
    }
}
