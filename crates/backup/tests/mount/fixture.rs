//! A repository, a source with everything that a file system holds, and a mount that does not outlive its test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup::archive::{self, archive};
use backup::attributes::Zone;
use backup::mount::{Mount, MountError, Options, mount};
use backup::progress::Progress;
use repository::blob_writer::Destination;
use repository::crypto::KeyCost;
use repository::holder::Holder;
use repository::id::Id;
use repository::lock::Lock;
use repository::record::BackupRecord;
use repository::storage::Local;
use repository::tree::Timestamp;
use repository::{InitOptions, Repository};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, utimensat};
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

/// Whether there is a kernel to test with. In continuous integration there must be.
pub(crate) fn fuse_is_there() -> bool {
    is_there(Path::new("/dev/fuse").exists(), "/dev/fuse (load the kernel module fuse)")
}

/// Whether other file systems can be mounted too.
pub(crate) fn root_is_there() -> bool {
    fuse_is_there() && is_there(rustix::process::geteuid().is_root(), "root's rights")
}

#[expect(clippy::print_stderr, clippy::disallowed_methods, reason = "a skipped test must say so")]
fn is_there(there: bool, what: &str) -> bool {
    if !there {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs {what}");
        eprintln!("skipped: this test needs {what}");
    }
    there
}

#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        self.0.lock().unwrap().push(format!("{}: {error}", path.display()));
    }

    fn warning(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) repository: Arc<Repository>,
    holder: Holder,
    told: Arc<Told>,
}

/// Unmounted whatever happens.
pub(crate) struct Mounted<'a> {
    pub(crate) mount: Option<Mount>,
    pub(crate) directory: &'a Path,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.mount.take();
        if mounts_on(self.directory) > 0 {
            let _ = unmount(self.directory, UnmountFlags::DETACH);
        }
    }
}

pub(crate) fn mounts_on(directory: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.split(' ').nth(4) == directory.to_str()).count()
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        for name in ["source", "repository", "mount"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let holder = Holder {
            hostname: "web1".to_owned(),
            username: "root".to_owned(),
            uid: 0,
            gid: 0,
            pid: std::process::id(),
            now: || Timestamp::from_unix(1_767_323_045, 0, 60),
        };
        let storage = Arc::new(Local::new(directory.path().join("repository")));
        let repository = Repository::init(
            storage,
            b"correct horse",
            &InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() },
            &holder,
        )
        .unwrap();
        Fixture { directory, repository: Arc::new(repository), holder, told: Arc::default() }
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    pub(crate) fn place(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Where the source appears in a backup.
    pub(crate) fn below(&self, backup: &str) -> PathBuf {
        self.place().join(backup).join(self.source().strip_prefix("/").unwrap())
    }

    pub(crate) fn destination(&self) -> Destination {
        let lock = Lock::acquire(&self.repository, false, &self.holder).unwrap();
        Destination::Repository(Arc::new(lock))
    }

    pub(crate) fn back_up(&self, time: &str) -> Id {
        let progress = Told::default();
        let options = archive::Options {
            paths: vec![self.source()],
            elsewhere: Vec::new(),
            changed: None,
            exclude: None,
            exclude_caches: false,
            exclude_larger_than: None,
            one_file_system: false,
            parent: None,
            zone: Zone::utc(),
            progress: &progress,
        };
        let index = Arc::new(self.repository.load_index().unwrap());
        let outcome = archive(&self.repository, &index, self.destination(), &options).unwrap();
        assert_eq!(*progress.0.lock().unwrap(), [""; 0]);
        self.record(time, outcome.tree.unwrap())
    }

    pub(crate) fn record(&self, time: &str, tree: Id) -> Id {
        let record = serde_json::json!({
            "time": time, "tree": tree, "paths": [self.source()], "hostname": "web1", "tags": ["daily"]
        });
        let record: BackupRecord = serde_json::from_value(record).unwrap();
        self.repository.save_record(&record).unwrap()
    }

    pub(crate) fn mount(&self) -> Result<Mount, MountError> {
        let options = Options { reload_after: Duration::from_millis(100), ..Options::default() };
        let index = Arc::new(self.repository.load_index().unwrap());
        mount(Arc::clone(&self.repository), index, &self.place(), &options, self.told.clone())
    }

    pub(crate) fn mounted<'a>(&self, directory: &'a Path) -> Mounted<'a> {
        Mounted { mount: Some(self.mount().unwrap()), directory }
    }

    pub(crate) fn told(&self) -> Vec<String> {
        self.told.0.lock().unwrap().clone()
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().take(length).collect()
}

pub(crate) fn make_source(source: &Path) {
    for name in [&b"plain"[..], b"not UTF-8 \xff\xfe", b"new\nline", "é 漢字 😀".as_bytes(), &[b'x'; 255]] {
        fs::write(source.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(source.join("large"), noise(9_000_001)).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(b"no hole", 3 << 20).unwrap();
    fs::create_dir_all(source.join("deep/deeper/deepest")).unwrap();
    fs::create_dir(source.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(source.join(format!("many/{number}")), number.to_string()).unwrap();
    }
    for name in ["hard link", "deep/hard link too"] {
        fs::hard_link(source.join("plain"), source.join(name)).unwrap();
    }
    symlink(OsStr::from_bytes(b"../nowhere \xff"), source.join("link")).unwrap();
    let mut special = vec![("fifo", FileType::Fifo, 0)];
    if rustix::process::geteuid().is_root() {
        special.extend([
            ("block", FileType::BlockDevice, makedev(259, 70_000)),
            ("char", FileType::CharacterDevice, makedev(1, 3)),
        ]);
        std::os::unix::fs::chown(source.join("many"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(source.join("link"), Some(1234), Some(4321)).unwrap();
    }
    for (name, kind, device) in special {
        mknodat(CWD, source.join(name), kind, Mode::RUSR, device).unwrap();
    }
    let acl: Vec<u8> = [(1, 6, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
        .into_iter()
        .flat_map(|(tag, rights, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        })
        .collect();
    let acl = [&2_u32.to_le_bytes()[..], &acl].concat();
    for (name, value) in [("system.posix_acl_access", &acl[..]), ("user.empty", b""), ("user.long", &[7; 2000])] {
        rustix::fs::setxattr(source.join("plain"), name, value, XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(source.join("deep"), "user.of a directory", b"x", XattrFlags::empty()).unwrap();
    for (mode, name) in [(0o4755, "large"), (0o1777, "deep/deeper"), (0o2751, "many")] {
        rustix::fs::chmod(source.join(name), Mode::from_raw_mode(mode)).unwrap();
    }
    for (name, tv_sec, tv_nsec) in
        [("large", -86_400 * 365 * 20, 1), ("link", 951_782_400, 123_456_789), ("fifo", 0, 0)]
    {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, source.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
