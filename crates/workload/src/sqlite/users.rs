//! Which programs have a database file open: found in /proc, as far as this user may look.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::database::beside;
use super::unfinished::BELONGINGS;

/// More are only counted.
const NAMED: usize = 4;

/// Programs with their numbers, such as `php-fpm (812)`; without this process.
pub(super) fn of(path: &Path) -> Vec<String> {
    let suffixes = [""].into_iter().chain(BELONGINGS);
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let files: Vec<(u64, u64)> = suffixes.filter_map(|suffix| identity(&beside(path, suffix))).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut users = Vec::new();
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { continue };
        // The links lead to the files themselves, in whatever mount namespace.
        let has = open.flatten().any(|file| identity(&file.path()).is_some_and(|found| files.contains(&found)));
        if has && number != std::process::id() {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(format!("{} ({number})", name.trim()));
        }
    }
    users
}

/// In a sentence.
pub(super) fn named(users: &[String]) -> String {
    let more = users.len().saturating_sub(NAMED);
    let mut text = users[..users.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
