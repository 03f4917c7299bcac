//! The paths of a backup: where they really are, and how much lies there.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use backup::patterns::Patterns;

use crate::progress_bar::Counts;

/// The place a path names: no links above it, so that one place is always stored under one path. The last name may
/// be a link, which is then what is saved; with a slash behind it, what it points to is.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let into = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    let (Some(name), false) = (path.file_name(), into) else { return fs::canonicalize(path) };
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    let resolved = fs::canonicalize(above)?.join(name);
    fs::symlink_metadata(&resolved)?;
    Ok(resolved)
}

/// Counts what a backup will find, for the progress bar. What cannot be read is the backup's to report.
pub(crate) struct Scan {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) exclude: Option<Patterns>,
    pub(crate) exclude_caches: bool,
    pub(crate) exclude_larger_than: Option<u64>,
    pub(crate) one_file_system: bool,
}

impl Scan {
    /// Returns early when the run has ended.
    pub(crate) fn run(&self, counts: &Counts) {
        let mut seen = HashSet::new();
        for path in &self.paths {
            // `/srv` and `/srv/shop` are one tree.
            let below_another = self.paths.iter().any(|other| other != path && path.starts_with(other));
            if below_another || !seen.insert(path) {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(path) else { continue };
            if self.walk(path, &metadata, counts).is_none() {
                return;
            }
        }
        counts.found_all();
    }

    /// `None` if the run has ended.
    fn walk(&self, path: &Path, metadata: &Metadata, counts: &Counts) -> Option<()> {
        if metadata.is_file() {
            counts.found(1, metadata.len());
            return Some(());
        }
        if !metadata.is_dir() {
            return Some(());
        }
        let device = metadata.dev();
        let mut directories = vec![path.to_owned()];
        while let Some(directory) = directories.pop() {
            if counts.wait(std::time::Duration::ZERO) {
                return None;
            }
            // The backup looks into the tag; for a count its name will do.
            if self.exclude_caches && directory.join("CACHEDIR.TAG").exists() {
                continue;
            }
            let (mut files, mut bytes) = (0, 0);
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                let path = entry.path();
                if self.exclude.as_ref().is_some_and(|exclude| exclude.matches(&path, metadata.is_dir())) {
                    continue;
                }
                if metadata.is_file() && self.exclude_larger_than.is_none_or(|limit| metadata.len() <= limit) {
                    files += 1;
                    bytes += metadata.len();
                } else if metadata.is_dir() && (!self.one_file_system || metadata.dev() == device) {
                    directories.push(path);
                }
            }
            counts.found(files, bytes);
        }
        Some(())
    }
}
