//! What a long run tells whoever watches: counts, and errors that do not stop it.

use std::path::Path;

/// A watcher. All methods may be called from several threads, often: they should only count.
pub trait Progress: Sync {
    /// So many files and bytes were found, in addition to those told before.
    fn found(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }

    /// So many bytes are done.
    fn bytes_done(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A file or directory is done.
    fn file_done(&self, path: &dyn Fn() -> std::path::PathBuf) {
        let _ = path;
    }

    /// Something could not be read or written as it should be; the run goes on, and is incomplete.
    fn error(&self, path: &Path, error: &dyn std::fmt::Display);

    /// Something to know that makes nothing incomplete.
    fn warning(&self, text: &str) {
        let _ = text;
    }

    /// Whether the run should stop as soon as it can.
    fn is_cancelled(&self) -> bool {
        false
    }
}
