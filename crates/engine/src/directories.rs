//! Directories as one thing: those of a project.

use std::path::PathBuf;

/// Directories, for people to read.
pub fn shown(directories: &[PathBuf]) -> String {
    directories.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(" and ")
}
