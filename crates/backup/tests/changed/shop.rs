//! A subvolume, its snapshots, and backups of them in a repository in memory.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backup::archive::{self, Base, Changed, Dirty, Elsewhere, Outcome, archive};
use backup::attributes::Zone;
use backup::patterns::Patterns;
use backup::progress::Progress;
use repository::blob_writer::Destination;
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::lock::{Lock, LockTimes};
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage, StorageError, StoredFile};
use repository::tree::{Node, Timestamp};
use repository::{InitOptions, Repository};
use snapshot::btrfs::{self, Btrfs, Place};
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Provider as _, View};
use tempfile::TempDir;

/// What is backed up.
#[derive(Clone, Copy, Default)]
pub(crate) struct Choice {
    pub(crate) excludes: bool,
    pub(crate) one_file_system: bool,
    /// A directory of the subvolume, instead of all of it.
    pub(crate) below: Option<&'static str>,
}

/// Fails the test at whatever could not be read.
struct Loud;

impl Progress for Loud {
    fn error(&self, path: &Path, error: &dyn Display) {
        panic!("{}: {error}", path.display());
    }

    fn warning(&self, text: &str) {
        panic!("{text}");
    }
}

/// Counts what is read from packs.
struct Counting {
    storage: Memory,
    packs_read: Arc<AtomicU64>,
}

impl Storage for Counting {
    fn location(&self) -> String {
        self.storage.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError> {
        self.storage.list(kind)
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.packs_read.fetch_add(u64::from(file.kind == FileKind::Pack), Ordering::Relaxed);
        self.storage.read_range(file, offset, length, into)
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.storage.read(file, into)
    }

    fn size(&self, file: &StoredFile) -> Result<u64, StorageError> {
        self.storage.size(file)
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError> {
        self.storage.write(file, bytes)
    }

    fn remove(&self, file: &StoredFile) -> Result<(), StorageError> {
        self.storage.remove(file)
    }

    fn create(&self) -> Result<(), StorageError> {
        self.storage.create()
    }
}

struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new() -> Disk {
        let disk = Disk { directory: TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap() };
        File::create(disk.image()).unwrap().set_len(1 << 30).unwrap();
        run(Command::new("mkfs.btrfs").arg("-q").arg(disk.image()));
        std::fs::create_dir(disk.mounted()).unwrap();
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join("mnt")
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.mounted()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily and from the top: a test that failed may have left other mounts in it.
        let _ = Command::new("umount").args(["-q", "-l", "-R"]).arg(self.mounted()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The last backup, and the snapshot that it was made of.
struct Last {
    base: Base,
    handle: Handle,
}

pub(crate) struct Shop {
    provider: Option<Btrfs>,
    choice: Choice,
    repository: Arc<Repository>,
    lock: Arc<Lock>,
    last: Option<Last>,
    packs_read: Arc<AtomicU64>,
    disk: Disk,
}

fn holder() -> Holder {
    #[expect(clippy::disallowed_methods, reason = "somebody must know what time it is")]
    fn now() -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_unix(since.as_secs() as i64, since.subsec_nanos(), 0)
    }
    let (hostname, username) = ("tester".to_owned(), "somebody".to_owned());
    Holder { hostname, username, uid: 0, gid: 0, pid: std::process::id(), now }
}

impl Shop {
    pub(crate) fn new(choice: Choice) -> Shop {
        let disk = Disk::new();
        run(Command::new("btrfs").args(["subvolume", "create"]).arg(disk.mounted().join("shop")));
        let options = InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() };
        let packs_read = Arc::default();
        let storage = Counting { storage: Memory::new(), packs_read: Arc::clone(&packs_read) };
        let repository = Arc::new(Repository::init(Arc::new(storage), b"x", &options, &holder()).unwrap());
        let times = LockTimes { settle: Duration::from_millis(1), ..LockTimes::default() };
        let lock = Arc::new(Lock::acquire_with(&repository, false, &holder(), times).unwrap());
        let mut shop = Shop { provider: None, choice, repository, lock, last: None, packs_read, disk };
        shop.open();
        shop
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.disk.mounted().join("shop")
    }

    /// What is backed up must be there, whatever was done.
    fn ensure(&self) {
        if let Some(path) = self.choice.below.map(|below| self.directory().join(below))
            && !std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir())
        {
            let _ = std::fs::remove_file(&path);
            std::fs::create_dir(&path).unwrap();
        }
    }

    fn open(&mut self) {
        let Ok(Some(Place::Subvolume(provider))) = btrfs::open(&self.directory(), &mounts().unwrap()) else {
            panic!("{} is no subvolume", self.directory().display())
        };
        self.provider = Some(provider);
    }

    fn provider(&self) -> &Btrfs {
        self.provider.as_ref().unwrap()
    }

    pub(crate) fn mount_again(&mut self) {
        self.provider = None;
        run(Command::new("umount").arg(self.disk.mounted()));
        self.disk.mount();
        self.open();
    }

    /// The first backup.
    pub(crate) fn start(&mut self) {
        let handle = self.snapshot();
        let outcome = self.back_up(&handle, None, |_| {});
        self.last = Some(Last { base: outcome.base.unwrap(), handle });
    }

    fn snapshot(&self) -> Handle {
        self.provider().create(snapshot::id::Id::random()).unwrap()
    }

    /// What changed since the last backup; `None` if btrfs cannot tell.
    fn changed(&self, to: &Handle) -> Option<Changed> {
        let last = self.last.as_ref().unwrap();
        let told = self.provider().dirty_paths(&last.handle, to, 10_000).unwrap()?;
        let mut dirty = Dirty::new();
        told.iter().for_each(|changed| dirty.add(&changed.path, changed.is_tree));
        Some(Changed { base: last.base.clone(), below: [(self.directory(), dirty)].into() })
    }

    fn back_up(&self, handle: &Handle, parent: Option<Id>, change: impl FnOnce(&mut archive::Options<'_>)) -> Outcome {
        let view: Box<dyn View> = self.provider().view(handle).unwrap();
        let mut options = archive::Options {
            paths: vec![self.choice.below.map_or(self.directory(), |below| self.directory().join(below))],
            elsewhere: vec![Elsewhere { path: self.directory(), at: view.path().to_owned(), copied: None }],
            exclude: self.choice.excludes.then(|| Patterns::new(["*.skip", "f3"]).unwrap()),
            exclude_caches: self.choice.excludes,
            exclude_larger_than: self.choice.excludes.then_some(7000),
            one_file_system: self.choice.one_file_system,
            parent,
            changed: None,
            zone: Zone::utc(),
            progress: &Loud,
        };
        change(&mut options);
        let index = Arc::new(self.repository.load_index().unwrap());
        self.packs_read.store(0, Ordering::Relaxed);
        archive(&self.repository, &index, Destination::Repository(Arc::clone(&self.lock)), &options).unwrap()
    }

    /// What was stored of the subvolume: its own entry, and its tree. The directories above are others' too.
    fn stored(&self, outcome: &Outcome) -> Option<Node> {
        let index = self.repository.load_index().unwrap();
        let mut reader = self.repository.reader(&index);
        let mut tree = outcome.tree.unwrap();
        let mut found = None;
        for name in self.directory().iter().skip(1) {
            let nodes = reader.load_tree(&tree).unwrap().nodes;
            let node = nodes.into_iter().find(|node| *node.name == *name.as_encoded_bytes())?;
            tree = node.subtree.unwrap();
            found = Some(node);
        }
        found
    }

    /// Backs up a new snapshot in both ways, and goes on from it. Whether the shortcut was taken.
    #[track_caller]
    pub(crate) fn assert_as_full_walk(&mut self, what: &str) -> bool {
        self.ensure();
        let handle = self.snapshot();
        let changed = self.changed(&handle);
        let parent = self.last.as_ref().map(|last| last.base.tree);
        let full = self.back_up(&handle, None, |_| {});
        let compared = self.back_up(&handle, parent, |_| {});
        let told = changed.clone();
        let by_changes = self.back_up(&handle, parent, |options| options.changed = changed);
        let nodes = [&full, &compared, &by_changes].map(|outcome| self.stored(outcome));
        assert_eq!(nodes[0], nodes[1], "{what}");
        assert_eq!(nodes[0], nodes[2], "{what}: {told:#?}");
        let totals = |outcome: &Outcome| {
            let summary = &outcome.summary;
            let directories = summary.dirs_new + summary.dirs_changed + summary.dirs_unmodified;
            (summary.total_files_processed, summary.total_bytes_processed, directories)
        };
        assert_eq!(totals(&full), totals(&by_changes), "{what}");
        let went_by_changes = by_changes.went_by_changes;
        self.go_on(by_changes, handle);
        went_by_changes
    }

    fn go_on(&mut self, outcome: Outcome, handle: Handle) {
        let base = outcome.base.unwrap();
        let last = self.last.replace(Last { base, handle }).unwrap();
        self.provider().delete(&last.handle).unwrap();
    }

    /// A backup of a new snapshot by what changed.
    pub(crate) fn run_by_changes(&mut self) -> Outcome {
        let handle = self.snapshot();
        let outcome = self.run_on(&handle, |_| {});
        self.go_on(outcome.clone(), handle);
        outcome
    }

    /// As that, with other options, and without going on from it.
    pub(crate) fn run_with(&self, change: impl FnOnce(&mut archive::Options<'_>)) -> Outcome {
        let handle = self.snapshot();
        let outcome = self.run_on(&handle, change);
        self.provider().delete(&handle).unwrap();
        outcome
    }

    fn run_on(&self, handle: &Handle, change: impl FnOnce(&mut archive::Options<'_>)) -> Outcome {
        let changed = Some(self.changed(handle).unwrap());
        let parent = self.last.as_ref().map(|last| last.base.tree);
        self.back_up(handle, parent, |options| {
            options.changed = changed;
            change(options);
        })
    }

    /// How many paths may have changed since the last backup, if they are at most so many.
    pub(crate) fn dirty_paths(&self, most: usize) -> Option<usize> {
        let handle = self.snapshot();
        let told = self.provider().dirty_paths(&self.last.as_ref().unwrap().handle, &handle, most).unwrap();
        self.provider().delete(&handle).unwrap();
        told.map(|told| told.len())
    }

    /// By the last run.
    pub(crate) fn packs_read(&self) -> u64 {
        self.packs_read.load(Ordering::Relaxed)
    }
}
