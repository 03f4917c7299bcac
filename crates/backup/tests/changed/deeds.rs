//! What people do to a tree.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

/// The same numbers in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

const NAMES: &[&str] = &["a", "b", "c", "d", "e", "a.skip", "CACHEDIR.TAG", "o257-8-0", "x y"];

pub(crate) fn fill(root: &Path, random: &mut Random) {
    for one in ["a", "b", "c", "d"] {
        for two in ["a", "b", "c"] {
            let directory = root.join(one).join(two);
            fs::create_dir_all(&directory).unwrap();
            for file in 0..6 {
                fs::write(directory.join(format!("f{file}")), random.bytes(3000)).unwrap();
            }
        }
    }
}

/// What is there, directories among it.
fn all(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            found.push(entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    found
}

/// Not what a link points to, and nothing that waits for others, as fifos do.
fn open(path: &Path, make: bool) -> std::io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    fs::File::options()
        .read(true)
        .write(true)
        .create(make)
        .truncate(make)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .and_then(|file| {
            let is_file = file.metadata()?.is_file();
            is_file.then_some(file).ok_or_else(|| std::io::ErrorKind::InvalidInput.into())
        })
}

fn write(path: &Path, bytes: &[u8]) {
    if let Ok(file) = open(path, true) {
        file.write_all_at(bytes, 0).unwrap();
    }
}

fn access_list(random: &mut Random) -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    let user = 1000 + random.below(50) as u32;
    for (tag, permissions, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 5, user), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// One deed. Much of it fails, and what does not is what there is to find.
pub(crate) fn perform(root: &Path, random: &mut Random) {
    let there = all(root);
    let some = |random: &mut Random| match there.is_empty() {
        true => root.join("a"),
        false => there[random.below(there.len())].clone(),
    };
    let (one, other) = (some(random), some(random));
    let directory = if other.is_dir() { other.clone() } else { other.parent().unwrap().to_owned() };
    let new = directory.join(NAMES[random.below(NAMES.len())]);
    let io = |_: rustix::io::Result<()>| {};
    match random.below(26) {
        0..=2 => write(&new, &random.bytes(9000)),
        3 => write(&new, b"Signature: 8a477f597d28d172789f06886806bc55\n"),
        4 | 5 => {
            if let Ok(file) = open(&one, false) {
                file.write_all_at(&random.bytes(500), random.below(9000) as u64).unwrap();
            }
        }
        6 => {
            if let Ok(file) = open(&one, false) {
                file.set_len(random.below(9000) as u64).unwrap();
            }
        }
        7 | 8 => drop(fs::rename(&one, &new)),
        9 => drop(fs::rename(&one, &other)),
        10 => io(rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE)),
        11 => drop(fs::hard_link(&one, &new)),
        12 => drop(fs::remove_file(&one)),
        13 if one.is_dir() && one.ancestors().count() > root.ancestors().count() + 1 => {
            drop(fs::remove_dir_all(&one));
        }
        14 => drop(fs::create_dir_all(new.join("p/q"))),
        15 => drop(std::os::unix::fs::symlink(NAMES[random.below(NAMES.len())], &new)),
        16 => drop(fs::set_permissions(&one, fs::Permissions::from_mode(0o700 | random.below(64) as u32))),
        // Nothing but the time of change is another one then.
        17 => {
            if let Ok(found) = fs::symlink_metadata(&one).filter_link() {
                fs::set_permissions(&one, found).unwrap();
            }
        }
        18 => drop(std::os::unix::fs::lchown(&one, Some(random.below(3) as u32), Some(random.below(3) as u32))),
        19 => io(rustix::fs::setxattr(&one, "user.x", &random.bytes(60), XattrFlags::empty())),
        20 => io(rustix::fs::removexattr(&one, "user.x")),
        21 => io(rustix::fs::setxattr(&one, "system.posix_acl_access", &access_list(random), XattrFlags::empty())),
        22 => {
            let time = Timespec { tv_sec: 1_000_000_000 + random.below(9) as i64, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            io(rustix::fs::utimensat(CWD, &one, &times, AtFlags::SYMLINK_NOFOLLOW));
        }
        23 => {
            if let (Ok(from), Ok(to)) = (open(&one, false), open(&new, true)) {
                io(rustix::fs::ioctl_ficlone(&to, &from));
            }
        }
        24 => io(rustix::fs::mknodat(CWD, &new, FileType::Fifo, Mode::RUSR, 0)),
        _ if random.below(4) == 0 => {
            let made = Command::new("btrfs").args(["subvolume", "create"]).arg(&new).output().unwrap();
            if made.status.success() {
                fs::write(new.join("inside"), "of another subvolume").unwrap();
            }
        }
        _ => {}
    }
}

trait NoLink {
    fn filter_link(self) -> Result<fs::Permissions, ()>;
}

impl NoLink for std::io::Result<fs::Metadata> {
    fn filter_link(self) -> Result<fs::Permissions, ()> {
        self.ok().filter(|found| !found.is_symlink()).map(|found| found.permissions()).ok_or(())
    }
}

/// The files with the highest numbers, so that these are given again.
pub(crate) fn remove_newest(root: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let mut files: Vec<_> = all(root)
        .into_iter()
        .filter_map(|path| Some((fs::symlink_metadata(&path).ok().filter(|found| !found.is_dir())?.ino(), path)))
        .collect();
    files.sort();
    for (_, path) in files.iter().rev().take(5) {
        fs::remove_file(path).unwrap();
    }
}
