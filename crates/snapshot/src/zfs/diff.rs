//! What changed: `zfs diff -FH`, zfs-diff(8).
//!
//! An object is reported under one of its paths only. A directory that gained or lost an entry is reported itself,
//! which covers links made and removed; but a file with several links that was written to has paths that are not
//! told, and then the answer is that it cannot be told.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::provider::Changed;
use crate::zfs::Zfs;
use crate::zfs::family::Snapshot;

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Neither a directory nor only removed: it may have other links.
    may_have_links: bool,
    /// Its paths, the present one last.
    paths: Vec<PathBuf>,
}

/// What differs between two snapshots, or a snapshot and now; `None` if it cannot be told.
pub(super) fn changed_paths(zfs: &Zfs, from: &Snapshot, to: Option<&Snapshot>) -> Option<Vec<Changed>> {
    if to.is_some_and(|to| to.guid == from.guid) {
        return Some(Vec::new());
    }
    // The older is named first.
    let (older, newer) = match to {
        Some(to) if to.transaction < from.transaction => (to, Some(from)),
        to => (from, to),
    };
    let newer_name = newer.map_or_else(|| zfs.dataset.clone(), Snapshot::full);
    let answer = zfs.command.run(&["diff", "-FH", &older.full(), &newer_name]).ok()?;
    let changes = parse(&answer, &zfs.directory)?;
    let root = match newer {
        None => zfs.directory.clone(),
        Some(newer) => zfs.directory.join(".zfs/snapshot").join(&newer.name),
    };
    let mut paths = Vec::new();
    for change in changes {
        if change.may_have_links {
            let metadata = std::fs::symlink_metadata(root.join(change.paths.last()?)).ok()?;
            if metadata.nlink() > 1 {
                return None;
            }
        }
        // What is below a directory that was renamed has new paths, and is not reported.
        let is_tree = change.paths.len() > 1;
        paths.extend(change.paths.into_iter().map(|path| Changed { path, is_tree }));
    }
    Some(paths)
}

/// Type of change, type of object, path, and for a rename the new path or else the change in the number of links,
/// between tabs (`di_write_inuse_diff` in lib/libzfs/libzfs_diff.c). `None` if anything else is found.
fn parse(answer: &str, directory: &Path) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for line in answer.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let (paths, has_more_links) = match fields[..] {
            ["+" | "-" | "M", _, path] => (vec![path], false),
            ["M", _, path, links] if links.starts_with("(-") || links.starts_with("(+") => (vec![path], true),
            ["R", _, old, new] => (vec![old, new], false),
            _ => return None,
        };
        let is_directory = fields[1] == "/";
        let paths: Vec<Option<PathBuf>> =
            paths.into_iter().map(|path| inside(path, directory)).collect::<Option<_>>()?;
        let is_gone = fields[0] == "-" || paths.last().is_none_or(Option::is_none);
        let may_have_links = has_more_links || (!is_directory && !is_gone);
        changes.push(Change { may_have_links, paths: paths.into_iter().flatten().collect() });
    }
    Some(changes)
}

/// A path relative to the directory; the inner `None` is a file that has no path any more, as it was removed while
/// somebody had it open.
fn inside(field: &str, directory: &Path) -> Option<Option<PathBuf>> {
    let path = unescape(field)?;
    if path.strip_prefix(directory.as_os_str().as_bytes()) == Some(b"(on_delete_queue)") {
        return Some(None);
    }
    let path = PathBuf::from(OsString::from_vec(path));
    let relative = path.strip_prefix(directory).ok()?;
    // An extended attribute's path goes through its file's.
    let components = relative.components().take_while(|component| component.as_os_str() != "<xattrdir>");
    Some(Some(components.collect()))
}

/// What is not printable ASCII is written as a backslash and four octal digits.
fn unescape(field: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(4)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 8).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(answer: &str) -> Option<Vec<String>> {
        let changes = parse(answer, Path::new("/tank/test"))?;
        let paths = changes.into_iter().flat_map(|change| change.paths);
        Some(paths.map(|path| path.to_str().unwrap().to_owned()).collect())
    }

    /// The example of zfs-diff(8), as `-H` writes it: tabs, and no arrow.
    #[test]
    fn the_example_of_the_manual_is_understood() {
        let answer = "M\t/\t/tank/test/\nM\tF\t/tank/test/linked\t(+1)\nR\tF\t/tank/test/oldname\t/tank/test/newname\n\
            -\tF\t/tank/test/deleted\n+\tF\t/tank/test/created\nM\tF\t/tank/test/modified\n";
        let expected = ["", "linked", "oldname", "newname", "deleted", "created", "modified"];
        assert_eq!(paths(answer).unwrap(), expected);
        let linked: Vec<_> = parse(answer, Path::new("/tank/test")).unwrap();
        let may_have_links: Vec<_> = linked.iter().map(|change| change.may_have_links).collect();
        assert_eq!(may_have_links, [false, true, true, false, true, true]);
    }

    #[test]
    fn escaped_names_attributes_and_unlinked_open_files_are_understood() {
        let answer = "M\tF\t/tank/test/a\\0040b\\0303\\0244\\0134n\nM\tF\t/tank/test/file/<xattrdir>/user.note\n\
            R\tF\t/tank/test/log\t/tank/test(on_delete_queue)\n";
        assert_eq!(paths(answer).unwrap(), ["a bä\\n", "file", "log"]);
    }

    #[test]
    fn what_is_not_understood_is_not_guessed() {
        for answer in ["X\tF\t/tank/test/a\n", "M\tF\t/tank/other/a\n", "M\tF\t/tank/test/a\\09\n", "M /tank/test/a\n"]
        {
            assert_eq!(paths(answer), None, "{answer}");
        }
    }
}
