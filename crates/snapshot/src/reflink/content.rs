//! The content of one file into another: by sharing the extents, or by copying what is not a hole.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{IFlags, SeekFrom};
use rustix::io::Errno;

/// Read and written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Shares all extents of a file with an empty one (ioctl_ficlone(2)); what is not on the disk yet is written first.
pub(super) fn share(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::ioctl_ficlone(target, source) {
        // btrfs shares only between files that both have checksums, or both have not.
        Err(Errno::INVAL) => {
            take_nocow(source, target)?;
            rustix::fs::ioctl_ficlone(target, source)
        }
        shared => shared,
    }
}

/// Whether the answer to FICLONE means that these two files cannot share extents, though they could be copied.
pub(super) fn cannot_share(error: Errno) -> bool {
    // TXTBSY: a swap file in use.
    matches!(error, Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::TXTBSY)
}

fn take_nocow(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let has = |file| rustix::fs::ioctl_getflags(file).map_err(|_| Errno::INVAL);
    let (from, to) = (has(source)?, has(target)?);
    if from.contains(IFlags::NOCOW) == to.contains(IFlags::NOCOW) {
        return Err(Errno::INVAL);
    }
    rustix::fs::ioctl_setflags(target, to ^ IFlags::NOCOW).map_err(|_| Errno::INVAL)
}

/// Copies what a file has into an empty one; holes stay holes. The length is what is found at the end, should it change
/// meanwhile.
pub(super) fn copy(source: &File, target: &File, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    // The length first: XFS takes a file that grows for one that goes on growing, and fills its holes.
    let length = || rustix::fs::fstat(source).map(|stat| stat.st_size.cast_unsigned());
    let expected = length()?;
    buffer.resize(usize::try_from(expected).map_or(CHUNK_BYTES, |length| length.clamp(1, CHUNK_BYTES)), 0);
    target.set_len(expected)?;
    let mut position = 0;
    loop {
        let start = match rustix::fs::seek(source, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data from here on.
            Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(Errno::INVAL) => position,
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => u64::MAX,
            Err(error) => return Err(error.into()),
        };
        position = copy_range(source, target, start, end, buffer)?;
        if position < end {
            break;
        }
    }
    let length = length()?;
    if length != expected {
        target.set_len(length)?;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, start: u64, end: u64, buffer: &mut [u8]) -> std::io::Result<u64> {
    let mut position = start;
    while position < end {
        let room = usize::try_from(end - position).map_or(buffer.len(), |left| left.min(buffer.len()));
        match source.read_at(&mut buffer[..room], position) {
            Ok(0) => break,
            Ok(length) => {
                target.write_all_at(&buffer[..length], position)?;
                position += length as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(position)
}
