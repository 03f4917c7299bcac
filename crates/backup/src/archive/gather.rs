//! Directories: listed, compared with the parent backup, and what changed handed on.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use repository::blob::BlobKind;
use repository::id::Id;
use repository::tree::{Node, NodeKind, TreeEncoder};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use crate::archive::directory::{Complete, Directory, Place, Previous, subtree};
use crate::archive::job::{DirectoryJob, FileJob};
use crate::archive::targets::Target;
use crate::archive::worker::Worker;
use crate::attributes::{Entry, Stat, extended_attributes, link_target, node_from};

/// The first bytes of a `CACHEDIR.TAG` (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl Worker<'_> {
    /// Lists one directory. Entries that are as in the parent backup are taken over, the others become jobs.
    pub(super) fn directory(&mut self, job: DirectoryJob) {
        let DirectoryJob { directory, above, target, device } = job;
        let whole = matches!(target, Target::Whole);
        let path = directory.path_of(OsStr::new(""));
        let elsewhere = self.run.places.of(&path);
        let opened = open(&directory, above.as_deref(), elsewhere, whole);
        let (open, stat) = match opened.and_then(|open| Stat::of(open.as_fd()).map(|stat| (open, stat))) {
            Ok(opened) => opened,
            Err(error @ (Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) if !directory.is_root() => {
                self.run.source_unsteady(&path, &format_args!("cannot open the directory: {error}"));
                return self.directory_is_missing(&directory);
            }
            Err(error) => {
                self.run.source_error(&path, &format_args!("cannot open the directory: {error}"));
                return self.directory_is_missing(&directory);
            }
        };
        let is_cache = whole && self.run.options.exclude_caches && is_cache(&open);
        let names = match target {
            Target::Whole if is_cache => vec![OsString::from("CACHEDIR.TAG")],
            // A mount point belongs to the backup, what is mounted there does not.
            Target::Whole if device.is_some_and(|device| device != stat.device) => Vec::new(),
            Target::Whole => match list(&open) {
                Ok(names) => names,
                Err(error) => {
                    self.run.source_error(&path, &format_args!("cannot list the directory: {error}"));
                    return self.directory_is_missing(&directory);
                }
            },
            Target::Above(ref below) => below.keys().cloned().collect(),
        };
        let device = match (whole, device) {
            (true, None) if self.run.options.one_file_system => Some(stat.device),
            (_, device) => device,
        };
        if elsewhere.is_some() && self.run.places.stand_for_live() {
            self.enter_for_live(&directory, above.as_deref(), stat.device, &path);
        }
        self.run.context.devices.enter(stat.device, &path);

        let node = (!directory.is_root()).then(|| self.directory_node(&directory, &stat, &open, &path));
        let open = Arc::new(open);
        let mut gathering = Gathering {
            directory: &directory,
            open: &open,
            device,
            previous: self.previous(&directory),
            has_places: self.run.places.any_in(&path),
            targets: match target {
                Target::Whole => None,
                Target::Above(below) => Some(below),
            },
            entries: Vec::with_capacity(names.len()),
            files: Vec::new(),
            directories: Vec::new(),
        };
        for name in names {
            if self.run.is_stopped() {
                return;
            }
            self.entry(&mut gathering, &path, name);
        }
        let Gathering { entries, files, directories, .. } = gathering;
        directory.expect(node, entries, files.len() + directories.len());
        self.run.queue.push(files, directories);
        self.directory_is_listed(&directory);
    }

    fn directory_node(&self, directory: &Directory, stat: &Stat, open: &OwnedFd, path: &std::path::Path) -> Node {
        let name = directory.name().as_bytes();
        let mut node = node_from(name, stat, path, &self.run.context);
        let entry = Entry { dir: open.as_fd(), name: b".", dir_path: path };
        node.extended_attributes = extended_attributes(entry, Some(open.as_fd()), &mut |error| {
            self.run.source_error(path, &error);
        });
        node
    }

    fn previous(&mut self, directory: &Directory) -> Previous {
        let Some(id) = directory.previous else { return Previous::new(None) };
        match self.reader.load_tree(&id) {
            Ok(tree) => Previous::new(Some(tree)),
            Err(error) => {
                let path = directory.path_of(OsStr::new(""));
                let text = format!("{}: read as if it were new, because {error}", path.display());
                self.run.options.progress.warning(&text);
                Previous::new(None)
            }
        }
    }

    fn entry(&mut self, gathering: &mut Gathering<'_>, directory: &std::path::Path, name: OsString) {
        let entry = Entry { dir: gathering.open.as_fd(), name: name.as_bytes(), dir_path: directory };
        let elsewhere = if gathering.has_places { self.run.places.of_entry(directory, &name) } else { None };
        let stat = match elsewhere {
            Some(place) => Stat::at(Entry { dir: CWD, name: place.as_os_str().as_bytes(), dir_path: directory }),
            None => Stat::at(entry),
        };
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                return self.run.source_unsteady(&error.path, &error.source);
            }
            Err(error) => return self.run.source_error(&error.path, &error.source),
        };
        let target = match &mut gathering.targets {
            None if self.is_excluded(directory, &name, &stat) => return,
            None => Target::Whole,
            Some(below) => below.remove(&name).unwrap_or(Target::Whole),
        };
        let kind = match target {
            Target::Whole if elsewhere.is_none() => stat.mode & S_IFMT,
            // On the way to a target a link is followed, as the path says; what is no directory fails to open as one, and
            // another place must be one.
            _ => S_IFDIR,
        };
        // The order of the names is that of the parent's tree, also where an entry is skipped here.
        let previous = gathering.previous.take(&name);
        let position = gathering.entries.len();
        let place = || Place { directory: Arc::clone(gathering.directory), position, name: name.clone() };
        match kind {
            S_IFDIR => {
                let below = Directory::below(&place(), subtree(previous.as_ref()));
                let above = Some(Arc::clone(gathering.open));
                let device = gathering.device;
                gathering.directories.push(DirectoryJob { directory: below, above, target, device });
                gathering.entries.push(None);
            }
            S_IFREG => match previous {
                Some(node) if self.is_unchanged(&node, &stat) => {
                    self.run.count_unmodified(stat.size);
                    gathering.entries.push(Some(node));
                }
                previous => {
                    let is_new = previous.is_none();
                    let above = Arc::clone(gathering.open);
                    gathering.files.push(FileJob { place: place(), above, is_new });
                    gathering.entries.push(None);
                }
            },
            // restic leaves them out too: a socket is nothing without the process that listens.
            S_IFSOCK => {}
            _ => {
                let mut node = node_from(name.as_bytes(), &stat, directory, &self.run.context);
                if node.kind == NodeKind::Symlink {
                    match link_target(entry) {
                        Ok(target) => node.link_target = target,
                        Err(error) => return self.run.source_error(&error.path, &error.source),
                    }
                }
                node.extended_attributes = extended_attributes(entry, None, &mut |error| {
                    self.run.source_error(&error.path, &error.source);
                });
                gathering.entries.push(Some(node));
            }
        }
    }

    /// Gives the file system of a place the number of the one that is live there.
    fn enter_for_live(&self, directory: &Directory, above: Option<&OwnedFd>, device: u64, path: &std::path::Path) {
        let (dir, name) = match above {
            Some(above) => (above.as_fd(), directory.name().as_bytes()),
            None => (CWD, &b"/"[..]),
        };
        // What is not there live has no number that could be had.
        if let Ok(live) = Stat::at(Entry { dir, name, dir_path: path }) {
            self.run.context.devices.stand_for(device, live.device, path);
        }
    }

    fn is_excluded(&self, directory: &std::path::Path, name: &OsStr, stat: &Stat) -> bool {
        let options = self.run.options;
        let is_file = stat.mode & S_IFMT == S_IFREG;
        if is_file && options.exclude_larger_than.is_some_and(|limit| stat.size > limit) {
            return true;
        }
        let is_directory = stat.mode & S_IFMT == S_IFDIR;
        options.exclude.as_ref().is_some_and(|exclude| exclude.matches(&directory.join(name), is_directory))
    }

    /// Whether the parent backup has the file as it is. Everything an inode holds changes its ctime when it
    /// changes, so the whole node is taken over then, unread.
    fn is_unchanged(&self, node: &Node, stat: &Stat) -> bool {
        let zone = &self.run.context.zone;
        let same = |time: repository::tree::Timestamp, moment: crate::attributes::Moment| {
            let kept =
                repository::tree::Timestamp::from_unix(moment.secs, moment.nanos, zone.offset_minutes(moment.secs));
            kept == time
        };
        node.kind == NodeKind::File
            && node.size == stat.size
            && node.inode == stat.inode
            && same(node.mtime, stat.mtime)
            && same(node.ctime, stat.ctime)
            && node.content.as_ref().is_some_and(|content| self.run.has_all(content))
    }

    /// Stores a directory of which nothing is missing, and goes on with those above as far as they are complete.
    pub(super) fn complete(&mut self, directory: &Arc<Directory>, complete: Complete) {
        let mut directory = Arc::clone(directory);
        let mut complete = complete;
        loop {
            let Some(id) = self.store_tree(&directory, complete.entries) else { return };
            if directory.is_root() {
                return self.run.end(id);
            }
            let node = complete.node.map(|node| Node { subtree: Some(id), ..node });
            match directory.rise(node) {
                Some((above, Some(next))) => (directory, complete) = (above, next),
                _ => return,
            }
        }
    }

    fn store_tree(&mut self, directory: &Directory, entries: Vec<Node>) -> Option<Id> {
        let mut tree = TreeEncoder::new();
        for node in &entries {
            if let Err(error) = tree.push(node) {
                let path = directory.path_of(OsStr::from_bytes(&node.name));
                self.run.source_error(&path, &error);
            }
        }
        match self.saver.save(BlobKind::Tree, &tree.finish()) {
            Ok(saved) => {
                self.run.count_directory(directory, saved.id);
                Some(saved.id)
            }
            Err(error) => {
                self.run.fail(error);
                None
            }
        }
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFSOCK: u32 = 0o140_000;

/// A directory whose entries are looked at.
struct Gathering<'a> {
    directory: &'a Arc<Directory>,
    open: &'a Arc<OwnedFd>,
    device: Option<u64>,
    previous: Previous,
    /// Whether some entries are read somewhere else.
    has_places: bool,
    /// What was asked for here; `None` where everything was.
    targets: Option<std::collections::BTreeMap<OsString, Target>>,
    entries: Vec<Option<Node>>,
    files: Vec<FileJob>,
    directories: Vec<DirectoryJob>,
}

/// What is on the way to a target may be a link; what lies below one must be what was listed.
fn open(
    directory: &Directory,
    above: Option<&OwnedFd>,
    elsewhere: Option<&std::path::Path>,
    is_target: bool,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = if is_target && elsewhere.is_none() { flags | OFlags::NOFOLLOW } else { flags };
    let open = |flags| match (elsewhere, above) {
        (Some(place), _) => openat(CWD, place, flags, Mode::empty()),
        (None, Some(above)) => openat(above, directory.name(), flags, Mode::empty()),
        (None, None) => openat(CWD, "/", flags, Mode::empty()),
    };
    match open(flags | OFlags::NOATIME) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => open(flags),
        opened => opened,
    }
}

/// The names in a directory, in the order of their bytes.
fn list(open: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut names = Vec::new();
    let mut entries = RawDir::new(open, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?;
        let name = name.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    // One that is removed and made again meanwhile may be listed twice.
    names.dedup();
    Ok(names)
}

fn is_cache(directory: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(tag) = openat(directory, "CACHEDIR.TAG", flags, Mode::empty()) else { return false };
    let mut begin = [0; CACHE_TAG.len()];
    rustix::io::read(&tag, &mut begin).is_ok_and(|length| begin[..length] == *CACHE_TAG)
}
