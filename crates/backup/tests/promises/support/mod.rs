//! A place for sources and targets, a repository, and backups and restores in one line.

pub(crate) mod disk;
pub(crate) mod fill;
pub(crate) mod restic;
pub(crate) mod storage;
pub(crate) mod tree;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

use backup::archive::{self, Stream, archive_with};
use backup::attributes::Zone;
use backup::progress::Progress;
use backup::restore::{self, Overwrite, restore};
use repository::blob_writer::Destination;
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::index::Index;
use repository::lock::{Lock, LockTimes};
use repository::record::BackupRecord;
use repository::storage::Storage;
use repository::tree::Timestamp;
use repository::{Error, InitOptions, Repository};

pub(crate) const PASSWORD: &str = "correct horse";

/// Says why a part of the tests is not run; where everything must be there, it is a failure.
#[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "the only way a test can tell that it did not run")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    eprintln!("skipped: {why}");
}

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

#[expect(clippy::disallowed_methods, reason = "somebody must know what time it is")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix(since.as_secs() as i64, since.subsec_nanos(), 0)
}

pub(crate) fn holder() -> Holder {
    let (hostname, username) = ("tester".to_owned(), "somebody".to_owned());
    Holder { hostname, username, uid: 0, gid: 0, pid: std::process::id(), now }
}

/// A temporary directory that goes away however deep it has become.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch::in_directory(&std::env::temp_dir())
    }

    pub(crate) fn in_directory(directory: &Path) -> Self {
        usual_limits();
        let made = tempfile::Builder::new().prefix("promise-").tempdir_in(directory).unwrap();
        Scratch(made.keep())
    }

    /// One in which an ordinary user may work.
    pub(crate) fn for_anybody() -> Self {
        let scratch = Scratch::new();
        fill::chmod(scratch.path(), 0o777);
        scratch
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A directory below it.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An ordinary user must be let into the directories first. The standard library holds each level open.
        let _ = Command::new("chmod").args(["-R", "-f", "u+rwX"]).arg(&self.0).status();
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.0).status();
    }
}

/// The limit of open files that users usually have, whatever whoever runs the tests has.
fn usual_limits() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.current.map(|now| now.min(1024));
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    });
}

/// Notes what a run says; a test may do things at known moments.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) errors: Mutex<Vec<String>>,
    pub(crate) cancelled: AtomicBool,
    pub(crate) bytes_done: Option<Box<dyn Fn(u64) + Sync + Send>>,
    /// Asked before each job and before each entry of a directory.
    pub(crate) asked: Option<Box<dyn Fn() + Sync + Send>>,
}

impl Watch {
    pub(crate) fn errors(&self) -> Vec<String> {
        let mut errors = self.errors.lock().unwrap().clone();
        errors.sort();
        errors
    }

    #[track_caller]
    pub(crate) fn assert_silent(&self) {
        let errors = self.errors();
        assert!(errors.is_empty(), "{} errors, the first: {:#?}", errors.len(), &errors[..errors.len().min(10)]);
    }
}

impl Progress for Watch {
    fn bytes_done(&self, bytes: u64) {
        self.bytes_done.iter().for_each(|act| act(bytes));
    }

    fn error(&self, path: &Path, error: &dyn Display) {
        self.errors.lock().unwrap().push(format!("{}: {error}", path.display()));
    }

    fn warning(&self, text: &str) {
        self.errors.lock().unwrap().push(format!("warning: {text}"));
    }

    fn is_cancelled(&self) -> bool {
        self.asked.iter().for_each(|act| act());
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Does something as a user whom the kernel refuses things, if this process is root's. Owner and permissions are a
/// thread's own matter on Linux, and threads that it starts inherit them.
pub(crate) fn as_ordinary_user<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65_534;
    let drop_rights = || {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
    };
    let ran = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_rights();
            action()
        });
        thread.join()
    });
    ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes a repository.
pub(crate) fn init(storage: Arc<dyn Storage>) -> Arc<Repository> {
    let options = InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() };
    Arc::new(Repository::init(storage, PASSWORD.as_bytes(), &options, &holder()).unwrap())
}

pub(crate) fn open(storage: Arc<dyn Storage>) -> Arc<Repository> {
    Arc::new(Repository::open(storage, PASSWORD.as_bytes()).unwrap())
}

/// The tree of what was backed up itself: the directories above it change as others work in them.
pub(crate) fn tree_of(repository: &Repository, root: Id, source: &Path) -> Id {
    let index = repository.load_index().unwrap();
    let mut reader = repository.reader(&index);
    source.iter().skip(1).fold(root, |id, name| {
        let tree = reader.load_tree(&id).unwrap();
        let node = tree.nodes.into_iter().find(|node| *node.name == *name.as_encoded_bytes());
        node.unwrap().subtree.unwrap()
    })
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) tree: Id,
    pub(crate) outcome: archive::Outcome,
}

/// A backup as the program makes it: lock, index, files, record.
pub(crate) fn back_up_with(
    repository: &Arc<Repository>,
    paths: &[&Path],
    parent: Option<Id>,
    watch: &Watch,
    change: impl FnOnce(&mut archive::Options<'_>),
) -> Result<Made, Error> {
    back_up_streams(repository, paths, parent, watch, change, Vec::new())
}

/// The same, with files that come from streams.
pub(crate) fn back_up_streams(
    repository: &Arc<Repository>,
    paths: &[&Path],
    parent: Option<Id>,
    watch: &Watch,
    change: impl FnOnce(&mut archive::Options<'_>),
    streams: Vec<Stream<'_>>,
) -> Result<Made, Error> {
    let times = LockTimes { settle: Duration::from_millis(1), ..LockTimes::default() };
    let lock = Arc::new(Lock::acquire_with(repository, false, &holder(), times)?);
    let index = Arc::new(repository.load_index()?);
    let mut options = archive::Options {
        paths: paths.iter().map(|path| path.to_path_buf()).collect(),
        elsewhere: Vec::new(),
        changed: None,
        exclude: None,
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: false,
        parent,
        zone: Zone::utc(),
        progress: watch,
    };
    change(&mut options);
    let outcome = archive_with(repository, &index, Destination::Repository(Arc::clone(&lock)), &options, streams)?;
    lock.confirm()?;
    let tree = outcome.tree.unwrap();
    let mut record = BackupRecord {
        time: now(),
        parent: None,
        tree,
        paths: paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect(),
        hostname: holder().hostname,
        username: String::new(),
        uid: 0,
        gid: 0,
        excludes: Vec::new(),
        tags: Vec::new(),
        original: None,
        program_version: String::new(),
        summary: None,
    };
    record.set_summary(&outcome.summary);
    repository.save_record(&record)?;
    Ok(Made { tree, outcome })
}

/// A backup without any error.
#[track_caller]
pub(crate) fn back_up(repository: &Arc<Repository>, path: &Path, parent: Option<Id>) -> Made {
    let watch = Watch::default();
    let made = back_up_with(repository, &[path], parent, &watch, |_| {}).unwrap();
    watch.assert_silent();
    assert_eq!(made.outcome.errors, 0);
    made
}

pub(crate) fn restore_with(
    repository: &Repository,
    index: &Index,
    tree: Id,
    target: &Path,
    watch: &Watch,
    change: impl FnOnce(&mut restore::Options<'_>),
) -> Result<restore::Outcome, Error> {
    let mut options = restore::Options {
        path: None,
        include: None,
        exclude: None,
        delete: Vec::new(),
        overwrite: Overwrite::Always,
        dry_run: false,
        verify: false,
        progress: watch,
    };
    change(&mut options);
    restore(repository, index, tree, target, &options)
}

/// A restore without any error.
#[track_caller]
pub(crate) fn bring_back(repository: &Repository, tree: Id, target: &Path) -> restore::Outcome {
    let watch = Watch::default();
    let index = repository.load_index().unwrap();
    let outcome = restore_with(repository, &index, tree, target, &watch, |_| {}).unwrap();
    watch.assert_silent();
    assert_eq!(outcome.errors, 0);
    outcome
}

/// Where a restore below `target` puts what was backed up from `source`.
pub(crate) fn below(target: &Path, source: &Path) -> PathBuf {
    target.join(source.strip_prefix("/").unwrap())
}

/// Restores a tree next to its source and compares the two in everything.
#[track_caller]
pub(crate) fn assert_comes_back(repository: &Repository, tree: Id, source: &Path, target: &Path) {
    bring_back(repository, tree, target);
    tree::assert_same(source, &below(target, source));
}
