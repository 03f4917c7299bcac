//! All backups of a repository as a file system that can only be read.
//!
//! What is shown is what was saved: owners, modes, times, links, devices, extended attributes. Nothing is handed out
//! that does not have the hash it is named by; what is damaged is an I/O error (EIO), told to the [`Progress`], and the
//! rest stays readable. Trees and blobs are loaded when they are looked at, and memory is bounded by the caches.
//!
//! The caller holds a lock on the repository if nobody shall prune meanwhile. Does not know of signals: who waits for
//! them has an [`Unmounter`].

mod ahead;
mod attr;
mod cache;
mod contents;
mod directory;
mod filesystem;
mod inodes;
mod layout;
mod listing;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use repository::index::Index;
use repository::{Error, Repository};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::progress::Progress;
use attr::Owner;
use contents::{Contents, Limits};
use filesystem::{Backups, Handles};
use inodes::Inodes;

/// Threads that answer the kernel. More than cores, because they wait for disks and networks.
const THREADS: usize = 8;
/// How long to wait for the threads' end after unmounting.
const END: Duration = Duration::from_secs(2);

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Let other users look, as modes and ACLs in the backups say. Otherwise only the user who mounts can, and
    /// everything. Ordinary users need `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
    /// Decoded pieces of files that are kept, in bytes.
    pub blob_cache_bytes: usize,
    /// Decoded directories that are kept, in bytes.
    pub tree_cache_bytes: usize,
    /// How long before new backups are looked for again.
    pub reload_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            allow_other: false,
            blob_cache_bytes: 64 << 20,
            tree_cache_bytes: 32 << 20,
            reload_after: Duration::from_secs(30),
        }
    }
}

/// Why there is no mount, or still one.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The place is no directory we can use.
    #[error("cannot mount on {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount is there whose process was killed.
    #[error("{} is a mount whose process is gone; `umount {}` removes it", path.display(), path.display())]
    Dead {
        /// Where.
        path: PathBuf,
    },
    /// The kernel or `fusermount3` said no.
    #[error("cannot mount on {}{}", path.display(), hint(source))]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be unmounted.
    #[error("cannot unmount {}", path.display())]
    Unmount {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The backups cannot be listed.
    #[error(transparent)]
    Repository(#[from] Error),
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => " (are /dev/fuse, and for ordinary users fusermount3 of the package fuse3, there?)",
        io::ErrorKind::PermissionDenied => " (letting others look needs user_allow_other in /etc/fuse.conf)",
        _ => "",
    }
}

/// A mount. It ends with [`Mount::wait`], [`Mount::unmount`] or when dropped.
#[must_use = "it is unmounted when this is dropped"]
pub struct Mount {
    directory: PathBuf,
    session: Option<BackgroundSession>,
    stop: (Sender<()>, Receiver<()>),
    ended: Receiver<()>,
}

/// Ends a mount from any thread, such as one that waits for signals (not from within a signal handler).
#[derive(Clone, Debug)]
pub struct Unmounter {
    stop: Sender<()>,
}

/// Mounts all backups on a directory. They can be read once this has returned.
pub fn mount(
    repository: Arc<Repository>,
    index: Arc<Index>,
    directory: &Path,
    options: &Options,
    progress: Arc<dyn Progress + Send + Sync>,
) -> Result<Mount, MountError> {
    let directory = usable(directory)?;
    let failed = |source| MountError::Mount { path: directory.clone(), source };
    let limits = Limits {
        tree_cache_bytes: options.tree_cache_bytes,
        blob_cache_bytes: options.blob_cache_bytes,
        reload_after: options.reload_after,
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::FSName(format!("snapback:{}", repository.config().id.short())),
        MountOption::Subtype("snapback".to_owned()),
    ];
    if options.allow_other {
        config.acl = SessionACL::All;
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.n_threads = Some(THREADS);
    let contents = Arc::new(Contents::open(repository, index, &limits, progress)?);
    let (tell_end, ended) = bounded(0);
    let backups = Backups {
        ahead: ahead::Ahead::new(&contents).map_err(failed)?,
        contents,
        inodes: Inodes::new(),
        owner: Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
        for_all: options.allow_other,
        changing: filesystem::CHANGING.min(options.reload_after),
        files: Handles::new(),
        directories: Handles::new(),
        _ended: tell_end,
    };
    let session = Session::new(backups, &directory, &config).and_then(Session::spawn).map_err(failed)?;
    Ok(Mount { directory, session: Some(session), stop: bounded(1), ended })
}

fn usable(directory: &Path) -> Result<PathBuf, MountError> {
    let path = || directory.to_owned();
    let found = directory.canonicalize().and_then(|found| found.metadata().map(|metadata| (found, metadata)));
    match found {
        Ok((found, metadata)) if metadata.is_dir() => Ok(found),
        Ok(_) => Err(MountError::Directory { path: path(), source: Errno::NOTDIR.into() }),
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            Err(MountError::Dead { path: path() })
        }
        Err(source) => Err(MountError::Directory { path: path(), source }),
    }
}

impl Mount {
    /// What ends it from elsewhere.
    pub fn unmounter(&self) -> Unmounter {
        Unmounter { stop: self.stop.0.clone() }
    }

    /// Waits until somebody unmounts it: an [`Unmounter`], or `umount`.
    pub fn wait(mut self) -> Result<(), MountError> {
        select! {
            recv(self.stop.1) -> _ => {}
            recv(self.ended) -> _ => {}
        }
        self.end()
    }

    /// Unmounts it. Who still has files of it open can read them until this process ends.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let unmounted = if self.ended.try_recv() == Err(TryRecvError::Disconnected) {
            Ok(())
        } else {
            // Detaching never fails for a shell that stands in there.
            rustix::mount::unmount(&self.directory, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        };
        match unmounted {
            // Ordinary users: dropping has fusermount3 do it.
            Err(Errno::PERM) => drop(session),
            unmounted => {
                // Dropped, it would unmount the directory a second time, and so whatever else is mounted there. What
                // is lost is a file descriptor.
                std::mem::forget(session);
                let unmounted = unmounted.map_err(io::Error::from);
                unmounted.map_err(|source| MountError::Unmount { path: self.directory.clone(), source })?;
            }
        }
        // Only tidy: with files still open, the threads go on.
        let _ = self.ended.recv_timeout(END);
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nobody is there to hear of it, and the end of the process disconnects it anyway.
        let _ = self.end();
    }
}

impl Unmounter {
    /// Has [`Mount::wait`] unmount and return.
    pub fn unmount(&self) {
        // Full: somebody has asked for it already.
        let _ = self.stop.try_send(());
    }
}
