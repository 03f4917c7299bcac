//! Comparing with what is not read-only: the live tree, or an old one that somebody may still write to. `send` compares
//! only read-only subvolumes, so a snapshot is taken for the comparison, and deleted after it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader};
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::changes::Changes;
use super::ioctl::{self, Subvolume};
use super::top::{TREE, place};
use super::{Btrfs, stream};
use crate::error::Error;
use crate::id::Id;
use crate::provider::{Changed, Handle};

/// A read-only tree; if it was made for the purpose, it is deleted when dropped.
pub(super) struct Still<'a> {
    pub(super) root: OwnedFd,
    pub(super) subvolume: Subvolume,
    made: Option<(&'a Btrfs, Id)>,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Some((btrfs, id)) = self.made {
            // What cannot be deleted now is still listed, and no record knows of it.
            let _ = btrfs.destroy(id, &self.subvolume).and_then(|()| btrfs.top.remove_place(id));
        }
    }
}

impl Btrfs {
    /// A snapshot as a tree that does not change, or if `None` the live tree.
    pub(super) fn still(&self, handle: Option<&Handle>) -> Result<Still<'_>, Error> {
        let (root, subvolume) = match handle {
            Some(handle) => self.found(handle).map(|(_, root, subvolume)| (root, subvolume))?,
            None => self.live()?,
        };
        if subvolume.is_read_only {
            return Ok(Still { root, subvolume, made: None });
        }
        let id = Id::random();
        let directory = self.top.make_place(id, &self.path)?;
        let path = place(id).join(TREE);
        let made = ioctl::create_snapshot(root.as_fd(), &directory, TREE, true);
        made.map_err(Error::io("take a snapshot to compare with at", self.top.named(&path))).inspect_err(|_| {
            let _ = self.top.remove_place(id);
        })?;
        let found = self.top.subvolume_at(&path)?;
        let (root, subvolume) = found.ok_or_else(|| Error::io("open", self.top.named(&path))(Errno::NOENT))?;
        Ok(Still { root, subvolume, made: Some((self, id)) })
    }

    pub(super) fn changes(
        &self,
        from: &Handle,
        to: Option<&Handle>,
        most: usize,
    ) -> Result<Option<Vec<Changed>>, Error> {
        let (from, to) = match self.still(Some(from)).and_then(|from| Ok((from, self.still(to)?))) {
            Err(error) if has_no_room(&error) => return Ok(None),
            still => still?,
        };
        let mut changes = Changes::new();
        let told = self.send(&from, &to, &mut |command| {
            changes.add(command);
            if changes.count() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let Ok(ControlFlow::Continue(())) = told else { return Ok(None) };
        let Some(names) = self.other_names(&changes, &to)? else { return Ok(None) };
        names.iter().for_each(|name| changes.add_name(name));
        let is_in = |tree: &Still, name: &_| rustix::fs::statat(&tree.root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        Ok(Some(changes.finish(&mut |name| is_in(&from, name) || is_in(&to, name))))
    }

    /// Reads what `send` says of two trees, until the function has enough. The inner error is that of a stream that was not
    /// understood.
    pub(super) fn send(
        &self,
        from: &Still,
        to: &Still,
        found: &mut dyn FnMut(stream::Command) -> ControlFlow<()>,
    ) -> Result<io::Result<ControlFlow<()>>, Error> {
        let failed = || Error::io("compare snapshots of", &self.directory);
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed())?;
        std::thread::scope(|scope| {
            let sent = scope.spawn(move || {
                ignore_broken_pipe();
                ioctl::send(&to.root, from.subvolume.id, write.as_fd())
            });
            let mut stream = BufReader::with_capacity(256 << 10, File::from(read));
            let read = stream::read(&mut stream, found);
            if matches!(read, Ok(ControlFlow::Break(()))) {
                // Nobody reads any more, so the kernel ends, and that is no error.
                drop(stream);
                let _ = sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                return Ok(read);
            }
            let drained = io::copy(&mut stream, &mut io::sink());
            let sent = sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sent.map_err(Error::io("compare snapshots of", &self.directory))?;
            Ok(read.and_then(|read| drained.map(|_| read)))
        })
    }

    /// All names of the files with several of them that were touched; `None` if they cannot be told.
    fn other_names(&self, changes: &Changes, to: &Still) -> Result<Option<Vec<PathBuf>>, Error> {
        let mut inodes = HashSet::new();
        for path in changes.touched().filter(|path| !path.as_os_str().is_empty()) {
            match rustix::fs::statat(&to.root, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
                Ok(stat) if stat.st_nlink > 1 => drop(inodes.insert(stat.st_ino)),
                Ok(_) => {}
                // The name was followed to a wrong place.
                Err(_) => return Ok(None),
            }
        }
        let mut names = Vec::new();
        for inode in inodes {
            let found = ioctl::inode_paths(&to.root, inode).map_err(self.top.searching())?;
            let Some(found) = found else { return Ok(None) };
            names.extend(found.iter().map(|name| Path::new(std::ffi::OsStr::from_bytes(name)).to_owned()));
        }
        Ok(Some(names))
    }
}

/// A thread that writes to a pipe without a reader gets an error, and not SIGPIPE, whatever the program does with that.
fn ignore_broken_pipe() {
    // SAFETY: the set is initialized before it is used, and only this thread's mask is changed. What is pending then goes
    // with the thread.
    unsafe {
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        libc::sigaddset(&mut signals, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
    }
}

/// A full or read-only file system takes no snapshot to compare with.
pub(super) fn has_no_room(error: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let Error::Io { source, .. } = error else { return false };
    matches!(source.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}
