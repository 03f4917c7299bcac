//! Whether two files are equal.

use std::ffi::CStr;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, SeekFrom, Statx};
use rustix::io::Errno;

use super::{Kind, What, ranges};
use crate::btrfs::ioctl;
use crate::reflink::attributes::{Attributes, Moment, Place};
use crate::reflink::descend;

/// statfs(2).
const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;

/// Read at once from each of two files.
const CHUNK_BYTES: usize = 256 << 10;

/// Something in one of the trees.
pub(crate) struct Entry<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
    pub(crate) stat: Statx,
}

impl Entry<'_> {
    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(u32::from(self.stat.stx_mode))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Special,
        }
    }

    fn place(&self) -> Place<'_> {
        Place::Named(self.dir, self.name)
    }
}

/// How two entries of the same type differ.
pub(crate) fn compare(before: &Entry<'_>, after: &Entry<'_>) -> Result<Option<What>, Errno> {
    let (a, b) = (&before.stat, &after.stat);
    // Whatever is done to an inode changes its time of change, which nobody can set. A snapshot of the storage keeps
    // both; a copy has another number.
    let is_untouched = a.stx_ino == b.stx_ino && moment(a.stx_ctime) == moment(b.stx_ctime) && a.stx_size == b.stx_size;
    if is_untouched {
        return Ok(None);
    }
    let is_same_content = match before.file_type() {
        FileType::RegularFile => a.stx_size == b.stx_size && is_same_content(before, after)?,
        FileType::Symlink => target(before)? == target(after)?,
        FileType::BlockDevice | FileType::CharacterDevice => {
            (a.stx_rdev_major, a.stx_rdev_minor) == (b.stx_rdev_major, b.stx_rdev_minor)
        }
        _ => true,
    };
    if !is_same_content {
        return Ok(Some(What::Modified));
    }
    // A directory's time says that entries came or went, and these are told themselves.
    let is_directory = before.file_type() == FileType::Directory;
    let is_same = (a.stx_mode, a.stx_uid, a.stx_gid) == (b.stx_mode, b.stx_uid, b.stx_gid)
        && (is_directory || moment(a.stx_mtime) == moment(b.stx_mtime))
        && xattrs(before)? == xattrs(after)?;
    Ok((!is_same).then_some(What::Attributes))
}

fn moment(time: rustix::fs::StatxTimestamp) -> Moment {
    time.into()
}

fn xattrs(entry: &Entry<'_>) -> Result<Vec<crate::reflink::attributes::Xattr>, Errno> {
    let read = Attributes::with(&entry.stat, entry.place());
    read.map(|attributes| attributes.xattrs).map_err(|failed| failed.errno())
}

fn target(entry: &Entry<'_>) -> Result<std::ffi::CString, Errno> {
    rustix::fs::readlinkat(entry.dir, entry.name, Vec::new())
}

fn is_same_content(before: &Entry<'_>, after: &Entry<'_>) -> Result<bool, Errno> {
    if before.stat.stx_size == 0 {
        return Ok(true);
    }
    let open = |entry: &Entry<'_>| descend::file(entry.dir, entry.name).map(File::from);
    let (one, other) = (open(before)?, open(after)?);
    let length = before.stat.stx_size;
    let ranges = match is_one_file_system(before, after, &one, &other) {
        true => ranges::differing(one.as_fd(), other.as_fd(), length),
        // On two file systems the same numbers are different blocks.
        false => std::iter::once(0..length).collect(),
    };
    let mut buffers = [Vec::new(), Vec::new()];
    for range in ranges {
        let is_same = same_bytes(&one, &other, range, &mut buffers);
        if !is_same.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_one_file_system(before: &Entry<'_>, after: &Entry<'_>, one: &File, other: &File) -> bool {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    // Each subvolume of a btrfs has a number of its own.
    let btrfs = |file: &File| {
        let kind = rustix::fs::fstatfs(file).ok()?.f_type;
        (kind as u64 == BTRFS_SUPER_MAGIC).then(|| ioctl::filesystem(file).ok()).flatten()
    };
    device(&before.stat) == device(&after.stat) || btrfs(one).is_some_and(|one| btrfs(other) == Some(one))
}

fn same_bytes(one: &File, other: &File, range: Range<u64>, buffers: &mut [Vec<u8>; 2]) -> std::io::Result<bool> {
    buffers.iter_mut().for_each(|buffer| buffer.resize(CHUNK_BYTES, 0));
    let mut position = range.start;
    while position < range.end {
        // Where both have a hole, both are zero.
        let next = [next_data(one, position)?, next_data(other, position)?];
        let Some(next) = next.into_iter().flatten().min().filter(|next| *next < range.end) else { break };
        position = next;
        let room = usize::try_from(range.end - position).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let [a, b] = &mut *buffers;
        let length = fill(one, &mut a[..room], position)?;
        if fill(other, &mut b[..room], position)? != length || a[..length] != b[..length] {
            return Ok(false);
        }
        if length == 0 {
            break;
        }
        position += length as u64;
    }
    Ok(true)
}

/// Where the next bytes lie that are not a hole; `None` if there are no more.
fn next_data(file: &File, position: u64) -> std::io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(position)) {
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL) => Ok(Some(position)),
        next => Ok(Some(next?)),
    }
}

fn fill(file: &File, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], position + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
