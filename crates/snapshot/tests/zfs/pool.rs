//! A real pool: zfs-fuse with an image file, alone on the machine while it lives, as there is one daemon only.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::FlockOperation;
use snapshot::mounts::{self, Mount};
use snapshot::runner::{Outcome, Runner, System};
use snapshot::zfs::Zfs;

pub(crate) struct Pool {
    directory: tempfile::TempDir,
    daemon: Child,
    _alone: File,
}

pub(crate) const POOL: &str = "snapback-test";

impl Pool {
    pub(crate) fn new() -> Pool {
        // Everybody may write there: the name may be a link to anything.
        let lock = std::env::temp_dir().join("snapback-test-zfs.lock");
        let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
        let alone = File::options().write(true).create(true).truncate(false).custom_flags(flags).open(lock).unwrap();
        rustix::fs::flock(&alone, FlockOperation::LockExclusive).unwrap();
        // A test that was killed leaves its daemon, which ends by itself, and its mounts: a dataset of such a name would
        // be taken for mounted.
        assert!(comes_true(|| !is_answering()), "a zfs-fuse runs already");
        unmount_all(|mount| mount.kind == "fuse.zfs" && mount.source.as_encoded_bytes().starts_with(POOL.as_bytes()));
        let directory = tempfile::tempdir().unwrap();
        let mut daemon = Command::new("zfs-fuse");
        daemon.args(["--no-daemon", "--no-kstat-mount", "--enable-xattr"]).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: prctl(2) is a plain system call, and allowed between fork and exec.
        unsafe {
            daemon.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let mut start = || daemon.spawn().expect("Debian's package zfs-fuse is installed");
        let mut pool = Pool { directory, daemon: start(), _alone: alone };
        // One that is still ending answers no more, but lets no other begin.
        let answers = comes_true(|| {
            if pool.daemon.try_wait().unwrap().is_some() {
                pool.daemon = start();
            }
            is_answering()
        });
        assert!(answers, "zfs-fuse does not answer");
        let image = pool.directory.path().join("pool.img");
        File::create(&image).unwrap().set_len(128 << 20).unwrap();
        let at = pool.root();
        // Without a cache file, so that the daemon of the next test knows nothing of it.
        let options = ["create", "-f", "-o", "cachefile=none", "-m", at.to_str().unwrap()];
        run("zpool", &[&options[..], &[POOL, image.to_str().unwrap()]].concat());
        pool
    }

    /// Where the pool's own dataset is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// Makes a dataset in the pool, mounted below its root.
    pub(crate) fn dataset(&self, name: &str) -> PathBuf {
        zfs(&["create", &format!("{POOL}/{name}")]);
        self.root().join(name)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Also what a test left mounted elsewhere.
        unmount_all(|mount| mount.point.starts_with(self.directory.path()));
        let _ = Command::new("zpool").args(["destroy", "-f", POOL]).output();
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}

fn unmount_all(which: impl Fn(&Mount) -> bool) {
    for mount in mounts::mounts().unwrap_or_default().iter().rev().filter(|mount| which(mount)) {
        let _ = rustix::mount::unmount(&mount.point, rustix::mount::UnmountFlags::DETACH);
    }
}

fn comes_true(mut condition: impl FnMut() -> bool) -> bool {
    (0..1500).any(|_| {
        condition() || {
            sleep(Duration::from_millis(20));
            false
        }
    })
}

fn is_answering() -> bool {
    std::os::unix::net::UnixStream::connect("/var/run/zfs/zfs_socket").is_ok()
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn zfs(arguments: &[&str]) -> String {
    run("zfs", arguments)
}

/// The provider of a dataset's mount point.
pub(crate) fn open(directory: &Path) -> Zfs {
    open_with(directory, Arc::new(System))
}

pub(crate) fn open_with(directory: &Path, runner: Arc<dyn Runner>) -> Zfs {
    let mounts = mounts::mounts().unwrap();
    Zfs::open(directory, &mounts, runner).unwrap().expect("the root of a dataset")
}

/// Dies before it changes anything for the n-th time.
pub(crate) struct Dying {
    pub(crate) changes_left: AtomicUsize,
}

impl Runner for Dying {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        let only_asks = arguments.first().is_some_and(|verb| verb == "get" || verb == "list");
        if !only_asks {
            let left = self.changes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            left.map_err(|_| io::Error::other("died"))?;
        }
        System.run(program, arguments)
    }
}
