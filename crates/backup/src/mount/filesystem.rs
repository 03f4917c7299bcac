//! The kernel's questions, answered from the repository. All of them may come at once, from several threads.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use repository::Error;
use repository::blob::BlobKind;
use repository::tree::{Node, Timestamp};

use super::ahead::{Ahead, Position};
use super::attr::{self, Owner};
use super::contents::Contents;
use super::directory::{Child, Entries, OpenDirectory};
use super::inodes::{Inodes, Place, ROOT, What};
use super::layout::{self, Layout};

/// How long the kernel may answer for us without asking. What is in a backup never changes.
const UNCHANGING: Duration = Duration::from_secs(24 * 3600);
/// Entries of directories above the backups come and go.
pub(super) const CHANGING: Duration = Duration::from_secs(1);
const BLOCK_SIZE: u32 = 4096;
const MAX_NAME: u32 = 255;

/// The file system of one mount.
pub(super) struct Backups {
    pub(super) contents: Arc<Contents>,
    pub(super) ahead: Ahead,
    pub(super) inodes: Inodes,
    pub(super) owner: Owner,
    /// Others than the owner may look, as the modes and ACLs in the backups say.
    pub(super) for_all: bool,
    pub(super) changing: Duration,
    pub(super) files: Handles<OpenFile>,
    pub(super) directories: Handles<OpenDirectory>,
    /// Dropped with the file system: that tells whoever waits for its end.
    pub(super) _ended: Sender<()>,
}

/// A regular file that somebody reads.
pub(super) struct OpenFile {
    layout: Layout,
    position: Position,
}

/// What the kernel has open, by the numbers it was told.
pub(super) struct Handles<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Handles { open: RwLock::default(), next: AtomicU64::new(1) }
    }

    fn add(&self, open: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(open));
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, handle: FileHandle) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }
}

impl Backups {
    fn what(&self, number: INodeNo) -> Result<(What, u64), Errno> {
        self.inodes.get(number.0).ok_or(Errno::ESTALE)
    }

    /// Tells of what could not be read, and gives what the kernel is told instead.
    fn failed(&self, number: INodeNo, error: &Error) -> Errno {
        self.contents.progress.error(&self.path(number.0), error);
        Errno::EIO
    }

    /// The path below the mount; for messages.
    fn path(&self, mut number: u64) -> PathBuf {
        let mut names = Vec::new();
        let above = loop {
            match self.inodes.get(number) {
                Some((What::Listed(path), _)) => break path.to_vec(),
                Some((What::Link(_), _)) => names.push(b"latest".to_vec()),
                Some((What::Backup(backup), _)) => names.push(backup.name.to_vec()),
                Some((What::Directory(directory), _)) => names.push(self.name(directory.place)),
                Some((What::Leaf(place), _)) => names.push(self.name(place)),
                None => break Vec::new(),
            }
            number = self.inodes.get(number).map_or(ROOT, |(_, directory)| directory);
        };
        let names = names.iter().rev().map(|name| OsStr::from_bytes(name));
        std::iter::once(OsStr::from_bytes(&above)).chain(names).collect()
    }

    fn name(&self, place: Place) -> Vec<u8> {
        let tree = self.contents.tree(&place.tree).ok();
        let node = tree.as_ref().and_then(|tree| tree.nodes.get(place.at as usize));
        node.map_or_else(|| b"?".to_vec(), |node| node.name.to_vec())
    }

    /// Looks at an entry of a tree.
    fn at<T>(&self, number: INodeNo, place: Place, look: impl FnOnce(&Node) -> T) -> Result<T, Errno> {
        let tree = self.contents.tree(&place.tree).map_err(|error| self.failed(number, &error))?;
        tree.nodes.get(place.at as usize).map(look).ok_or(Errno::EIO)
    }

    fn attr(&self, number: INodeNo, what: &What) -> Result<FileAttr, Errno> {
        let place = match what {
            What::Listed(path) => {
                let listing = self.contents.listing();
                let directory = listing.get(path).ok_or(Errno::ENOENT)?;
                return Ok(attr::of_directory(number.0, directory.time, self.owner));
            }
            What::Backup(backup) => return Ok(attr::of_directory(number.0, backup.time, self.owner)),
            What::Link(link) => return Ok(attr::of_link(number.0, &link.target, link.time, self.owner)),
            What::Directory(directory) => directory.place,
            What::Leaf(place) => *place,
        };
        self.at(number, place, |node| {
            let kind = attr::shown(node).ok_or(Errno::EIO)?;
            let size = match kind {
                FileType::RegularFile => {
                    let known = self.contents.known_for(node);
                    layout::size(node, |id| known.length_of(id))
                }
                _ => 0,
            };
            Ok(attr::of_node(number.0, node, kind, size))
        })?
    }

    fn lasts(&self, what: &What) -> &Duration {
        match what {
            What::Directory(_) | What::Leaf(_) => &UNCHANGING,
            What::Listed(_) | What::Backup(_) | What::Link(_) => &self.changing,
        }
    }

    fn entries(&self, number: INodeNo, what: &What) -> Result<Entries, Errno> {
        let (id, root) = match what {
            What::Listed(path) => {
                let listing = self.contents.listing();
                return listing.get(path).cloned().map(Entries::Listed).ok_or(Errno::ENOENT);
            }
            What::Backup(backup) => (backup.tree, number.0),
            What::Directory(directory) => (directory.subtree.ok_or(Errno::EIO)?, directory.root),
            What::Link(_) | What::Leaf(_) => return Err(Errno::ENOTDIR),
        };
        let tree = self.contents.tree(&id).map_err(|error| self.failed(number, &error))?;
        Ok(Entries::Tree { id, tree, root })
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<Child, Errno> {
        let (what, _) = self.what(parent)?;
        match self.entries(parent, &what)? {
            Entries::Listed(directory) => {
                let entry = directory.get(name.as_bytes()).ok_or(Errno::ENOENT)?;
                Ok(Child::of_listing(parent.0, name.as_bytes(), entry))
            }
            Entries::Tree { id, tree, root } => {
                let at = tree.nodes.binary_search_by(|node| (*node.name).cmp(name.as_bytes()));
                let at = at.map_err(|_| Errno::ENOENT)?;
                Child::of_tree(parent.0, root, id, &tree.nodes, at).ok_or(Errno::ENOENT)
            }
        }
    }

    /// Gives a child its number, which counts as one lookup, and its attributes. Where they cannot be had, it is
    /// not counted.
    fn remember(&self, directory: u64, child: Child) -> Result<(FileAttr, Duration), Errno> {
        let lasts = *self.lasts(&child.what);
        let number = self.inodes.remember(child.key, directory, child.what.clone());
        match self.attr(INodeNo(number), &child.what) {
            Ok(attr) => Ok((attr, lasts)),
            Err(error) => {
                self.inodes.forget(number, 1);
                Err(error)
            }
        }
    }

    fn open_directory(&self, number: INodeNo) -> Result<(OpenDirectory, FopenFlags), Errno> {
        let (what, above) = self.what(number)?;
        let entries = self.entries(number, &what)?;
        let flags = match entries {
            Entries::Listed(_) => FopenFlags::empty(),
            Entries::Tree { .. } => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        };
        Ok((OpenDirectory { number: number.0, above, entries }, flags))
    }

    fn open_file(&self, number: INodeNo) -> Result<OpenFile, Errno> {
        let (What::Leaf(place), _) = self.what(number)? else { return Err(Errno::EISDIR) };
        self.at(number, place, |node| {
            let known = self.contents.known_for(node);
            let layout = Layout::new(node, |id| known.length_of(id));
            OpenFile { layout, position: Position::new() }
        })
    }

    /// Hands the bytes to `take`: within one blob, they need not be copied.
    fn read_file(&self, file: &OpenFile, offset: u64, size: u32, take: impl FnOnce(&[u8])) -> Result<(), Error> {
        let wanted = u64::from(size).min(file.layout.size().saturating_sub(offset)) as usize;
        let mut bytes = Vec::new();
        for part in file.layout.parts(offset, u64::from(size)) {
            self.ahead.reading(&file.layout, &file.position, part.number);
            let missing = || Error::MissingBlob { kind: BlobKind::Data, id: part.blob };
            let blob = if part.known { self.contents.blob(&part.blob)? } else { return Err(missing()) };
            // Outside only if the index has two lengths for the blob, the first of them wrong.
            let piece = blob.get(part.range.start as usize..part.range.end as usize).ok_or_else(missing)?;
            if piece.len() == wanted {
                take(piece);
                return Ok(());
            }
            bytes.reserve_exact(wanted - bytes.len());
            bytes.extend_from_slice(piece);
        }
        take(&bytes);
        Ok(())
    }
}

fn reply_sized(size: u32, value: &[u8], reply: ReplyXattr) {
    match (u32::try_from(value.len()), size) {
        (Ok(length), 0) => reply.size(length),
        (Ok(length), _) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Backups {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted =
            InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        if self.for_all {
            // Without it, the mask of an ACL would pass for the group's rights.
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if let Err(missing) = config.add_capabilities(wanted) {
            // Older kernels are only slower.
            let _ = config.add_capabilities(wanted & !missing);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.child(parent, name).and_then(|child| self.remember(parent.0, child)) {
            Ok((attr, lasts)) => reply.entry(&lasts, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.inodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.what(number).and_then(|(what, _)| Ok((self.attr(number, &what)?, *self.lasts(&what)))) {
            Ok((attr, lasts)) => reply.attr(&lasts, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.what(number).and_then(|(what, _)| match what {
            What::Link(link) => Ok(link.target.clone()),
            What::Leaf(place) => self.at(number, place, |node| node.link_target.clone()),
            What::Listed(_) | What::Backup(_) | What::Directory(_) => Err(Errno::EINVAL),
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number) {
            Ok(file) => reply.opened(self.files.add(file), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.files.get(handle) {
            Ok(file) => file,
            Err(error) => return reply.error(error),
        };
        let mut reply = Some(reply);
        let read = self.read_file(&file, offset, size, |bytes| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        });
        if let (Err(error), Some(reply)) = (read, reply) {
            // Never the bytes before the damage: the kernel takes a short answer for the end of the file.
            reply.error(self.failed(number, &error));
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.remove(handle);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_directory(number) {
            Ok((directory, flags)) => reply.opened(self.directories.add(directory), flags),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let directory = match self.directories.get(handle) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        let mut full = false;
        for (next, number, name) in directory.dots(offset) {
            full = full || reply.add(INodeNo(number), next, FileType::Directory, name);
        }
        for (next, child) in directory.children(offset) {
            if full {
                break;
            }
            full = reply.add(INodeNo(child.key.number), next, child.kind, &child.name);
        }
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let directory = match self.directories.get(handle) {
            Ok(directory) => directory,
            Err(error) => return reply.error(error),
        };
        let (mut full, mut empty) = (false, true);
        for (next, number, name) in directory.dots(offset) {
            empty = false;
            // The kernel takes nothing but the number from these, and counts no lookup.
            let attr = attr::of_directory(number, Timestamp::default(), self.owner);
            full = full || reply.add(INodeNo(number), next, name, &Duration::ZERO, &attr, Generation(0));
        }
        for (next, child) in directory.children(offset) {
            if full {
                break;
            }
            let name = child.name.clone();
            match self.remember(directory.number, child) {
                Ok((attr, lasts)) => {
                    full = reply.add(attr.ino, next, &name, &lasts, &attr, Generation(0));
                    if full {
                        self.inodes.forget(attr.ino.0, 1);
                    }
                    empty = false;
                }
                // Never an entry left out in silence: told at once, or when the kernel asks for the rest.
                Err(error) if empty => return reply.error(error),
                Err(_) => break,
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.directories.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let used = self.contents.known().stored_bytes.div_ceil(u64::from(BLOCK_SIZE));
        reply.statfs(used, 0, 0, 0, 0, BLOCK_SIZE, MAX_NAME, BLOCK_SIZE);
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.what(number).and_then(|(what, _)| {
            let place = match what {
                What::Listed(_) | What::Backup(_) | What::Link(_) => return Err(Errno::ENODATA),
                What::Directory(directory) => directory.place,
                What::Leaf(place) => place,
            };
            let value = self.at(number, place, |node| attr::xattr(node, name.as_bytes()).map(<[u8]>::to_vec))?;
            value.ok_or(Errno::ENODATA)
        });
        match value {
            Ok(value) => reply_sized(size, &value, reply),
            Err(error) => reply.error(error),
        }
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.what(number).and_then(|(what, _)| match what {
            What::Listed(_) | What::Backup(_) | What::Link(_) => Ok(Vec::new()),
            What::Directory(directory) => self.at(number, directory.place, attr::xattr_names),
            What::Leaf(place) => self.at(number, place, attr::xattr_names),
        });
        match names {
            Ok(names) => reply_sized(size, &names, reply),
            Err(error) => reply.error(error),
        }
    }
}
