//! Whether two files are made of the same blocks, by ioctl_fiemap (`Documentation/filesystems/fiemap.rst` of the
//! kernel): then their content is equal, however long it is.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::io::Errno;

/// Extents that are asked for at once.
const AT_ONCE: usize = 64;

/// `struct fiemap_extent` of `linux/fiemap.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with room for extents.
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

/// `_IOWR('f', 11, struct fiemap)`; the size in it is that without extents.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
/// What is not on the disk yet is written first.
const FLAG_SYNC: u32 = 1;
const LAST: u32 = 1;
const SHARED: u32 = 0x2000;
const UNWRITTEN: u32 = 0x800;
const MERGED: u32 = 0x1000;
/// With any other flag the place is not known, or not all there is to know: compressed, encrypted, inline.
const UNDERSTOOD: u32 = LAST | SHARED | UNWRITTEN | MERGED;

/// Whether two files of the same length and on the same file system are made of the same blocks. `false` if that is
/// not so, or not known.
pub(super) fn are_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut start = 0;
    loop {
        let (Some(a), Some(b)) = (map(one, start)?, map(other, start)?) else { return Ok(false) };
        let (a, b) =
            (&a.extents[..a.mapped.min(AT_ONCE as u32) as usize], &b.extents[..b.mapped.min(AT_ONCE as u32) as usize]);
        let place = |extent: &Extent| (extent.logical, extent.physical, extent.length, extent.flags & UNWRITTEN);
        let is_understood = |extent: &Extent| extent.flags & !UNDERSTOOD == 0 && extent.physical != 0;
        if a.len() != b.len() || !a.iter().chain(b).all(is_understood) || !a.iter().map(place).eq(b.iter().map(place)) {
            return Ok(false);
        }
        match a.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical + last.length,
            // The end; or both are one hole.
            _ => return Ok(true),
        }
    }
}

/// The extents from a position on; `None` where the file system does not tell.
fn map(file: BorrowedFd<'_>, start: u64) -> Result<Option<Box<Map>>, Errno> {
    let mut map = Box::new(Map {
        start,
        length: u64::MAX - start,
        flags: FLAG_SYNC,
        mapped: 0,
        room: AT_ONCE as u32,
        reserved: 0,
        extents: [Extent::default(); AT_ONCE],
    });
    // SAFETY: the argument is a `struct fiemap` followed by as many extents as `room` says, which the kernel fills; it
    // lives until the call returns.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut *map) };
    if answer == 0 {
        return Ok(Some(map));
    }
    match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::PERM) | None => Ok(None),
        Some(error) => Err(error),
    }
}
