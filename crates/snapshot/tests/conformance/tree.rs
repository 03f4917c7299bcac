//! A tree with everything a file system can hold, and a description of a tree to compare.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// All that is promised to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    link_target: Option<PathBuf>,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode, and how many there are.
    inode_of: PathBuf,
    links: u64,
}

/// A tree, path by path.
pub(crate) type Tree = BTreeMap<PathBuf, Entry>;

/// Describes a tree; `apart` are left out, with what is below.
pub(crate) fn describe(root: &Path, apart: &[PathBuf]) -> Tree {
    let mut entries = BTreeMap::new();
    let mut first_paths = HashMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        // What a view calls its root may be a symbolic link.
        let is_root = path.as_os_str().is_empty();
        let metadata = if is_root { fs::metadata(&full) } else { fs::symlink_metadata(&full) }.unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let mut names: Vec<OsString> =
                fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            open.extend(names.into_iter().rev().map(|name| path.join(name)).filter(|path| !apart.contains(path)));
        }
        let inode_of = first_paths.entry(metadata.ino()).or_insert_with(|| path.clone()).clone();
        let entry = Entry {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            size: if kind.is_dir() { 0 } else { metadata.size() },
            device: metadata.rdev(),
            link_target: kind.is_symlink().then(|| fs::read_link(&full).unwrap()),
            content: if kind.is_file() { fs::read(&full).unwrap() } else { Vec::new() },
            xattrs: xattrs(&full),
            inode_of,
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
        };
        entries.insert(path, entry);
    }
    entries
}

/// Fails with what differs, and with no more than that: contents are long.
pub(crate) fn assert_same(found: &Tree, expected: &Tree, which: &str) {
    let differing = differing(found, expected);
    let shown: Vec<String> = differing
        .iter()
        .map(|path| format!("{}: {} instead of {}", path.display(), brief(found.get(path)), brief(expected.get(path))))
        .collect();
    assert!(shown.is_empty(), "{which}:\n{}", shown.join("\n"));
}

/// The paths that differ between two trees.
pub(crate) fn differing(one: &Tree, other: &Tree) -> Vec<PathBuf> {
    let mut paths: Vec<&PathBuf> = one.keys().chain(other.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

impl Entry {
    /// The same but for where its other names are.
    pub(crate) fn is_same_file(&self, other: &Entry) -> bool {
        let without = |entry: &Entry| Entry { inode_of: PathBuf::new(), ..entry.clone() };
        without(self) == without(other)
    }
}

/// An entry in one line.
pub(crate) fn brief(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "nothing".to_owned() };
    let head = String::from_utf8_lossy(&entry.content[..entry.content.len().min(20)]).into_owned();
    format!(
        "{:o} {:?} {:?} {} bytes {:?}… {:?} {:?} {} of {}",
        entry.mode,
        entry.owner,
        entry.mtime,
        entry.size,
        head,
        entry.link_target,
        entry.xattrs,
        entry.links,
        entry.inode_of.display()
    )
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Fills a directory.
pub(crate) fn fill(root: &Path) {
    for directory in ["web", "web/empty", "data/deep/er", "moved", "swap-a", "swap-b", "gone"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for number in 0..40 {
        fs::write(root.join(format!("web/page-{number}.html")), format!("<p>{number}</p>").repeat(number + 1)).unwrap();
        fs::write(root.join(format!("moved/{number}")), number.to_string()).unwrap();
    }
    fs::write(root.join("swap-a/file"), "a").unwrap();
    fs::write(root.join("swap-b/file"), "b").unwrap();
    fs::write(root.join("gone/file"), "gone").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("becomes-a-directory"), "file").unwrap();
    fs::write(root.join("name with spaces, ä\n\\ and a newline"), "odd").unwrap();
    let random: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(root.join("data/large"), random).unwrap();
    let sparse = File::create(root.join("data/sparse")).unwrap();
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 10 << 20).unwrap();
    fs::write(root.join("data/deep/er/linked"), "one of three").unwrap();
    for name in ["web/linked too", "data/linked also"] {
        fs::hard_link(root.join("data/deep/er/linked"), root.join(name)).unwrap();
    }
    symlink("web/page-1.html", root.join("symlink")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o2751)).unwrap();
    fs::set_permissions(root.join("web/page-3.html"), fs::Permissions::from_mode(0o4711)).unwrap();
    for path in ["web/page-2.html", "data/deep", "symlink"] {
        // Only root may, and an ordinary user's own files have no other owner to keep.
        let _ = std::os::unix::fs::lchown(root.join(path), Some(1234), Some(4321));
    }
    for path in ["web/page-5.html", "web"] {
        rustix::fs::setxattr(root.join(path), "user.note", b"kept\0too", XattrFlags::empty()).unwrap();
    }
    for (path, nanoseconds) in [("data/large", 123_456_789), ("web/empty", 1), ("symlink", 999_999_999)] {
        let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Changes it in every way that there is.
pub(crate) fn change(root: &Path) {
    fs::write(root.join("web/page-1.html"), "defaced").unwrap();
    File::options().write(true).open(root.join("data/large")).unwrap().write_all_at(b"overwritten", 1 << 20).unwrap();
    File::options().write(true).open(root.join("data/sparse")).unwrap().set_len(5).unwrap();
    // Through one of its names.
    fs::write(root.join("web/linked too"), "changed through one name").unwrap();
    fs::remove_file(root.join("empty")).unwrap();
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_file(root.join("becomes-a-directory")).unwrap();
    fs::create_dir(root.join("becomes-a-directory")).unwrap();
    fs::write(root.join("becomes-a-directory/file"), "inside").unwrap();
    fs::create_dir_all(root.join("new/er")).unwrap();
    fs::write(root.join("new/er/file"), "new").unwrap();
    fs::rename(root.join("moved"), root.join("new/moved away")).unwrap();
    fs::write(root.join("new/moved away/7"), "changed after it moved").unwrap();
    fs::rename(root.join("swap-a"), root.join("swap-x")).unwrap();
    fs::rename(root.join("swap-b"), root.join("swap-a")).unwrap();
    fs::rename(root.join("swap-x"), root.join("swap-b")).unwrap();
    fs::rename(root.join("web/page-8.html"), root.join("data/page-8.html")).unwrap();
    fs::set_permissions(root.join("web/page-9.html"), fs::Permissions::from_mode(0o600)).unwrap();
    rustix::fs::removexattr(root.join("web/page-5.html"), "user.note").unwrap();
    rustix::fs::setxattr(root.join("data"), "user.new", b"1", XattrFlags::empty()).unwrap();
    fs::remove_file(root.join("symlink")).unwrap();
    symlink("elsewhere", root.join("symlink")).unwrap();
    let _ = std::os::unix::fs::lchown(root.join("web/page-10.html"), Some(99), Some(99));
}
