//! Everything a directory tree holds, in an order that two trees share, and the comparison of two.
//!
//! Goes down and up again with one directory open at a time, so that neither depth nor the length of paths matters.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use backup::attributes::{Entry, Moment, Stat};
use rustix::fs::{CWD, Dir, Mode, OFlags, SeekFrom, openat, readlinkat, seek};

/// All of one entry that a backup must bring back.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) depth: usize,
    pub(crate) name: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Moment,
    pub(crate) size: u64,
    pub(crate) device: u64,
    pub(crate) link_target: Option<Vec<u8>>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) content: Option<u64>,
    /// The number of the first entry that is the same inode.
    pub(crate) same_as: Option<usize>,
}

/// What need not be the same to the byte: where data lies.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) holes: Vec<Range<u64>>,
    pub(crate) blocks: u64,
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}{:?} mode {:o} owner {:?}",
            " ".repeat(self.depth.min(40)),
            self.name.escape_ascii().to_string(),
            self.mode,
            self.owner
        )?;
        write!(f, " mtime {}.{:09} size {} device {}", self.mtime.secs, self.mtime.nanos, self.size, self.device)?;
        write!(f, " target {:?} xattrs {:?}", self.link_target, self.xattrs)?;
        write!(f, " content {:x?} same as {:?}", self.content, self.same_as)
    }
}

/// Looks at everything below `root`, and at itself under the name ".".
pub(crate) fn look(root: &Path) -> Vec<(Facts, Layout)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut seen = HashMap::new();
    if !root.is_dir() {
        let above = openat(CWD, root.parent().unwrap(), flags, Mode::empty()).unwrap();
        return vec![facts(&above, root.file_name().unwrap().as_bytes(), 0, &mut seen, 0)];
    }
    let mut open =
        openat(CWD, root, flags, Mode::empty()).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut all = vec![facts(&open, b".", 0, &mut seen, 0)];
    // What is left to look at on each level above.
    let mut left = vec![names(&open)];
    while let Some(level) = left.last_mut() {
        let Some(name) = level.pop() else {
            left.pop();
            if !left.is_empty() {
                open = openat(&open, "..", flags, Mode::empty()).unwrap();
            }
            continue;
        };
        let found = facts(&open, &name, left.len(), &mut seen, all.len());
        let is_directory = found.0.mode & 0o170_000 == 0o040_000;
        all.push(found);
        if is_directory {
            open = openat(&open, &*name, flags | OFlags::NOFOLLOW, Mode::empty()).unwrap();
            left.push(names(&open));
        }
    }
    all
}

/// In falling order, to be taken from the end.
fn names(open: &OwnedFd) -> Vec<Vec<u8>> {
    let names = Dir::read_from(open).unwrap().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
    let mut names: Vec<_> = names.filter(|name| name != b"." && name != b"..").collect();
    names.sort_by(|a, b| b.cmp(a));
    names
}

fn facts(
    directory: &OwnedFd,
    name: &[u8],
    depth: usize,
    seen: &mut HashMap<(u64, u64), usize>,
    number: usize,
) -> (Facts, Layout) {
    let stat = Stat::at(Entry { dir: directory.as_fd(), name, dir_path: Path::new("") }).unwrap();
    let kind = stat.mode & 0o170_000;
    let is_directory = kind == 0o040_000;
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = Path::new(&path).join(std::ffi::OsStr::from_bytes(name));
    let (mut content, mut holes) = (None, Vec::new());
    if kind == 0o100_000 {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = File::from(openat(directory, name, flags, Mode::empty()).unwrap());
        holes = holes_of(&file, stat.size);
        content = Some(hash(&file, &holes, stat.size));
    }
    let same_as = if is_directory || stat.links < 2 {
        None
    } else {
        Some(*seen.entry((stat.device, stat.inode)).or_insert(number))
    };
    let facts = Facts {
        depth,
        name: name.to_vec(),
        mode: stat.mode,
        owner: (stat.uid, stat.gid),
        mtime: stat.mtime,
        size: if kind == 0o100_000 { stat.size } else { 0 },
        device: stat.rdev,
        link_target: (kind == 0o120_000).then(|| readlinkat(directory, name, Vec::new()).unwrap().into_bytes()),
        xattrs: xattrs(&path),
        content,
        same_as,
    };
    (facts, Layout { holes, blocks: stat.blocks })
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

fn holes_of(file: &File, size: u64) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut position = 0;
    while position < size {
        let start = seek(file, SeekFrom::Hole(position)).unwrap_or(size);
        let end = seek(file, SeekFrom::Data(start)).unwrap_or(size);
        if start < size {
            holes.push(start..end);
        }
        position = end.max(start + 1);
    }
    holes
}

/// Over the data, and over zeros in holes only as far as these are small.
fn hash(file: &File, holes: &[Range<u64>], size: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while position < size {
        if let Some(hole) = holes.iter().find(|hole| hole.contains(&position))
            && hole.end - position > 64 << 20
        {
            hasher.write_u64(hole.end - position);
            position = hole.end;
            continue;
        }
        let wanted = (size - position).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..wanted], position).unwrap();
        hasher.write(&buffer[..wanted]);
        position += wanted as u64;
    }
    hasher.finish()
}

/// Asserts that two trees hold the same. The roots' own names do not count.
#[track_caller]
pub(crate) fn assert_same(source: &Path, restored: &Path) {
    let (source, restored) = (look(source), look(restored));
    for ((is, _), (should, _)) in restored.iter().zip(&source) {
        assert_eq!(is, should);
    }
    assert_eq!(restored.len(), source.len());
}

/// Asserts that holes are where they were: the same map, and not more blocks.
#[track_caller]
pub(crate) fn assert_same_holes(source: &Path, restored: &Path) {
    for ((is, restored), (_, source)) in look(restored).iter().zip(look(source)) {
        assert_eq!(restored.holes, source.holes, "{is:?}");
        assert!(restored.blocks <= source.blocks + 16, "{} blocks, not {}: {is:?}", restored.blocks, source.blocks);
    }
}
