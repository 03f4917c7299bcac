//! Directories: listed, compared with the parent backup, and what changed handed on.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::sync::Arc;

use repository::blob::BlobKind;
use repository::id::Id;
use repository::tree::{Node, NodeKind, Tree};
use rustix::fs::{CWD, Mode, OFlags, RawDir, fstatfs, openat};
use rustix::io::Errno;

use crate::archive::changed::Doubt;
use crate::archive::copied::Original;
use crate::archive::directory::{Directory, Place, Previous, subtree};
use crate::archive::job::{DirectoryJob, FileJob};
use crate::archive::targets::Target;
use crate::archive::worker::Worker;
use crate::attributes::{Entry, Stat, extended_attributes, link_target, node_from};

/// The first bytes of a `CACHEDIR.TAG` (bford.info/cachedir).
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl Worker<'_> {
    /// Lists one directory. Entries that are as in the parent backup are taken over, the others become jobs.
    pub(super) fn directory(&mut self, job: DirectoryJob) {
        let DirectoryJob { directory, above, target, device, doubt, original } = job;
        self.run.count_look();
        let whole = matches!(target, Target::Whole);
        let path = directory.path_of(OsStr::new(""));
        let elsewhere = self.run.places.of(&path);
        let opened = open(&directory, above.as_deref(), elsewhere.map(|place| &*place.at), whole);
        let (open, stat) = match opened.and_then(|open| stat(&open, above.as_deref()).map(|stat| (open, stat))) {
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
        let original = match elsewhere {
            Some(place) => place.copied.and_then(|copied| Original::root(above.as_deref(), &directory, copied)),
            None => original.and_then(|above| above.below(&directory, &stat)),
        };
        let stat = original.iter().fold(stat, |stat, original| original.of_itself(stat));
        let is_cache = whole && self.run.options.exclude_caches && is_cache(&open);
        let previous = self.previous(&directory);
        // What the parent does not have cannot be taken over from it, and a tag speaks for all entries.
        let is_tag_in_doubt = self.run.options.exclude_caches && doubt.has(OsStr::new("CACHEDIR.TAG"));
        let doubt = if previous.is_none() || is_tag_in_doubt { Doubt::All } else { doubt };
        let mut previous = Previous::new(previous);
        let names = match target {
            Target::Whole if is_cache => vec![OsString::from("CACHEDIR.TAG")],
            // A mount point belongs to the backup, what is mounted there does not.
            Target::Whole if device.is_some_and(|device| device != stat.device) => Vec::new(),
            Target::Whole if !doubt.lists() => previous.names_and(doubt.names()),
            Target::Whole => match list(&open) {
                Ok(names) => names,
                Err(error) => {
                    self.run.source_error(&path, &format_args!("cannot list the directory: {error}"));
                    return self.directory_is_missing(&directory);
                }
            },
            Target::Above(ref below) => below.keys().cloned().collect(),
        };
        let names = if directory.is_root() { self.with_made_up(names) } else { names };
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
            previous,
            doubt,
            original,
            has_roots: self.run.changes.any_in(&path),
            has_places: self.run.places.any_in(&path),
            targets: match target {
                Target::Whole => None,
                Target::Above(below) => Some(below),
            },
            entries: Vec::with_capacity(names.len()),
            files: Vec::new(),
            directories: Vec::new(),
            made_up: 0,
        };
        for name in names {
            if self.run.is_stopped() {
                return;
            }
            self.entry(&mut gathering, &path, name);
        }
        let Gathering { entries, files, directories, made_up, previous, .. } = gathering;
        self.see_gone(previous.finish());
        directory.expect(node, entries, files.len() + directories.len() + made_up);
        self.run.queue.push(files, directories);
        self.directory_is_listed(&directory);
    }

    /// What streams make up stands among the names of the root.
    fn with_made_up(&self, mut names: Vec<OsString>) -> Vec<OsString> {
        names.extend(self.run.made_up.names().cloned());
        names.sort_unstable();
        names.dedup();
        names
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

    pub(super) fn previous(&mut self, directory: &Directory) -> Option<Tree> {
        let id = directory.previous?;
        match self.reader.load_tree(&id) {
            Ok(tree) => Some(tree),
            Err(error) => {
                let path = directory.path_of(OsStr::new(""));
                let text = format!("{}: read as if it were new, because {error}", path.display());
                self.run.options.progress.warning(&text);
                None
            }
        }
    }

    fn entry(&mut self, gathering: &mut Gathering<'_>, directory: &std::path::Path, name: OsString) {
        // In the order of the names, which is that of the parent's tree.
        let previous = gathering.previous.take(&name);
        if gathering.directory.is_root()
            && let Some(made_up) = self.run.made_up.get(&name)
        {
            self.see_gone(previous.iter().cloned().collect());
            let place = Place { directory: Arc::clone(gathering.directory), position: gathering.entries.len(), name };
            gathering.entries.push(None);
            gathering.made_up += 1;
            return self.make_up(place, made_up, previous);
        }
        let changes = &self.run.changes;
        let doubt = match changes.of_entry(&gathering.doubt, gathering.has_roots, directory, &name) {
            None if let Some(node) = &previous
                && self.can_be_taken_over(node, &gathering.doubt) =>
            {
                return gathering.entries.extend(previous.map(Some));
            }
            doubt => doubt.unwrap_or(Doubt::All),
        };
        self.run.count_look();
        let gone = previous.as_ref().and_then(|node| self.see(node));
        let is_descended = self.look(gathering, directory, name, previous, doubt);
        if let Some(subtree) = gone.filter(|_| !is_descended) {
            self.run.seen.below(subtree, &mut self.reader);
        }
    }

    /// Looks at an entry; whether it is a directory that will be looked into.
    fn look(
        &mut self,
        gathering: &mut Gathering<'_>,
        directory: &std::path::Path,
        name: OsString,
        previous: Option<Node>,
        doubt: Doubt,
    ) -> bool {
        let entry = Entry { dir: gathering.open.as_fd(), name: name.as_bytes(), dir_path: directory };
        let elsewhere = if gathering.has_places { self.run.places.of_entry(directory, &name) } else { None };
        let stat = match elsewhere {
            Some(place) => Stat::at(Entry { dir: CWD, name: place.at.as_os_str().as_bytes(), dir_path: directory }),
            None => Stat::at(entry),
        };
        let stat = match stat {
            Ok(stat) => stat,
            // Not listed, but told: it is gone.
            Err(error) if gathering.is_told() && error.source.kind() == std::io::ErrorKind::NotFound => return false,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                self.run.source_unsteady(&error.path, &error.source);
                return false;
            }
            Err(error) => {
                self.run.source_error(&error.path, &error.source);
                return false;
            }
        };
        let stat = gathering.original.iter().fold(stat, |stat, original| original.of_entry(name.as_bytes(), stat));
        let target = match &mut gathering.targets {
            None if self.is_excluded(directory, &name, &stat) => return false,
            None => Target::Whole,
            Some(below) => below.remove(&name).unwrap_or(Target::Whole),
        };
        let kind = match target {
            Target::Whole if elsewhere.is_none() => stat.mode & S_IFMT,
            // On the way to a target a link is followed, as the path says; what is no directory fails to open as one, and
            // another place must be one.
            _ => S_IFDIR,
        };
        let position = gathering.entries.len();
        let place = || Place { directory: Arc::clone(gathering.directory), position, name: name.clone() };
        match kind {
            S_IFDIR => {
                let below = Directory::below(&place(), subtree(previous.as_ref()));
                let above = Some(Arc::clone(gathering.open));
                let device = gathering.device;
                let original = gathering.original.clone();
                gathering.directories.push(DirectoryJob { directory: below, above, target, device, doubt, original });
                gathering.entries.push(None);
                return true;
            }
            S_IFREG => match previous {
                Some(node) if self.is_unchanged(&node, &stat) => {
                    self.run.count_unmodified(stat.size);
                    gathering.entries.push(Some(node));
                }
                previous => {
                    let is_new = previous.is_none();
                    let above = Arc::clone(gathering.open);
                    let identity = gathering.original.is_some().then_some(stat);
                    gathering.files.push(FileJob { place: place(), above, is_new, identity });
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
                        Err(error) => {
                            self.run.source_error(&error.path, &error.source);
                            return false;
                        }
                    }
                }
                node.extended_attributes = extended_attributes(entry, None, &mut |error| {
                    self.run.source_error(&error.path, &error.source);
                });
                gathering.entries.push(Some(node));
            }
        }
        false
    }

    /// Whether an entry of the parent, of which nothing is in doubt, is as good as a look.
    fn can_be_taken_over(&self, node: &Node, directory: &Doubt) -> bool {
        let is_complete = match node.kind {
            NodeKind::File => node.content.as_ref().is_some_and(|content| self.run.has_all(content)),
            // What btrfs shows in the place of a nested subvolume has the times of the directory it is in.
            NodeKind::Dir if node.inode == SUBVOLUME_STUB && directory.lists() => false,
            NodeKind::Dir => node.subtree.is_some_and(|tree| self.run.index.contains(BlobKind::Tree, &tree)),
            NodeKind::Symlink | NodeKind::BlockDevice | NodeKind::CharDevice | NodeKind::Fifo => true,
            NodeKind::Socket | NodeKind::Other(_) => false,
        };
        is_complete && node.error.is_empty()
    }

    /// Counts what the parent has where the run looks. Gives the tree below it, which is counted when it is gone.
    fn see(&self, node: &Node) -> Option<Id> {
        if !self.run.changes.any() {
            return None;
        }
        self.run.seen.entry(node);
        node.subtree
    }

    fn see_gone(&mut self, nodes: Vec<Node>) {
        for subtree in nodes.iter().filter_map(|node| self.see(node)).collect::<Vec<_>>() {
            self.run.seen.below(subtree, &mut self.reader);
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
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFSOCK: u32 = 0o140_000;

/// The inode number of what btrfs shows, in a snapshot, where a nested subvolume was: an empty directory that was made this
/// moment (`new_simple_dir` in fs/btrfs/inode.c).
const SUBVOLUME_STUB: u64 = 2;
/// statfs(2).
const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;

/// A directory whose entries are looked at.
struct Gathering<'a> {
    directory: &'a Arc<Directory>,
    open: &'a Arc<OwnedFd>,
    device: Option<u64>,
    previous: Previous,
    doubt: Doubt,
    original: Option<Arc<Original>>,
    /// Whether changes of some entries are known by themselves.
    has_roots: bool,
    /// Whether some entries are read somewhere else.
    has_places: bool,
    /// What was asked for here; `None` where everything was.
    targets: Option<std::collections::BTreeMap<OsString, Target>>,
    entries: Vec<Option<Node>>,
    files: Vec<FileJob>,
    directories: Vec<DirectoryJob>,
    /// Entries that come from streams.
    made_up: usize,
}

impl Gathering<'_> {
    /// Whether the names come from the parent and from what was told, and not from a listing.
    fn is_told(&self) -> bool {
        self.targets.is_none() && !self.doubt.lists()
    }
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

fn stat(open: &OwnedFd, above: Option<&OwnedFd>) -> Result<Stat, Errno> {
    let stat = Stat::of(open.as_fd())?;
    match above {
        Some(above) if stat.inode == SUBVOLUME_STUB && fstatfs(open)?.f_type as u64 == BTRFS_SUPER_MAGIC => {
            // Its own times are those of the look, and would make each tree another one.
            let above = Stat::of(above.as_fd())?;
            Ok(Stat { mtime: above.mtime, ctime: above.ctime, ..stat })
        }
        _ => Ok(stat),
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
