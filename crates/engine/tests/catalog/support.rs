use std::path::PathBuf;

use engine::catalog::Catalog;
use jiff::Timestamp;

/// A directory with a catalog in it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("catalog.sqlite")
    }

    pub(crate) fn open(&self) -> Catalog {
        Catalog::open(self.path(), at(0)).unwrap()
    }

    /// What lies in the directory, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.directory.path().read_dir().unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Some seconds after a day in 2026.
pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + secs).unwrap()
}
