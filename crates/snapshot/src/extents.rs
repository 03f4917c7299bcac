//! Where the bytes of a file lie on the disk, by the ioctl FIEMAP (Documentation/filesystems/fiemap.rst in the
//! kernel's sources).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

/// `FS_IOC_FIEMAP`, linux/fs.h: `_IOWR('f', 11, struct fiemap)`, whose size is that without extents.
const FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
/// `FIEMAP_FLAG_SYNC`: what is not on the disk yet is written first.
const SYNC: u32 = 1;
/// Extents asked for at once.
const AT_ONCE: usize = 64;

/// `struct fiemap_extent`, linux/fiemap.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Position in the file.
    pub(crate) logical: u64,
    /// Position on the disk.
    pub(crate) physical: u64,
    /// In bytes.
    pub(crate) length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap`.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; AT_ONCE],
}

const LAST: u32 = 0x1;
const UNWRITTEN: u32 = 0x800;
const MERGED: u32 = 0x1000;
const SHARED: u32 = 0x2000;

impl Extent {
    /// Others have it, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.flags & SHARED != 0
    }

    /// It reads as zeros.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.flags & UNWRITTEN != 0
    }

    /// The position on the disk is known, and says all. It does not where the bytes are compressed, encrypted, or kept
    /// with the inode.
    pub(crate) fn is_plain(&self) -> bool {
        self.flags & !(LAST | UNWRITTEN | MERGED | SHARED) == 0 && self.physical != 0
    }

    /// Where it ends in the file.
    pub(crate) fn end(&self) -> u64 {
        self.logical.saturating_add(self.length)
    }
}

/// The extents of a file in their order, read as they are needed.
pub(crate) struct Extents<'a> {
    file: BorrowedFd<'a>,
    flags: u32,
    start: u64,
    read: std::vec::IntoIter<Extent>,
    is_over: bool,
}

/// The extents of an open file. `syncs`: what is not on the disk yet is written first, and else has no extents, or
/// those it will replace.
pub(crate) fn of(file: BorrowedFd<'_>, syncs: bool) -> Extents<'_> {
    let flags = if syncs { SYNC } else { 0 };
    Extents { file, flags, start: 0, read: Vec::new().into_iter(), is_over: false }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, Errno>;

    fn next(&mut self) -> Option<Result<Extent, Errno>> {
        if let Some(extent) = self.read.next() {
            return Some(Ok(extent));
        }
        if self.is_over {
            return None;
        }
        match self.ask() {
            Ok(extents) => {
                self.is_over = extents.last().is_none_or(|last| last.flags & LAST != 0);
                self.start = extents.last().map_or(0, Extent::end);
                self.read = extents.into_iter();
                self.read.next().map(Ok)
            }
            Err(error) => {
                self.is_over = true;
                Some(Err(error))
            }
        }
    }
}

impl Extents<'_> {
    fn ask(&self) -> Result<Vec<Extent>, Errno> {
        let mut map = Map {
            start: self.start,
            length: u64::MAX - self.start,
            flags: self.flags,
            mapped: 0,
            room: AT_ONCE as u32,
            reserved: 0,
            extents: [Extent::default(); AT_ONCE],
        };
        // SAFETY: the structure is laid out as the kernel's, and has room for as many extents as it says; it lives until
        // the call returns.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), FIEMAP, &raw mut map) };
        if answer < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(map.extents[..(map.mapped as usize).min(AT_ONCE)].to_vec())
    }
}
