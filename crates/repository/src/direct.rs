//! Large writes and reads past the kernel's cache of pages (`O_DIRECT`, open(2)).
//!
//! What goes through that cache takes a new page for every 4 KiB. On a virtual machine that gives unused memory back to
//! its host, each of them costs many times the work of compressing what is in it; and it pushes out of memory what the
//! server's databases keep there. What a backup writes and a restore puts down is not read again soon.
//!
//! The bytes pass through a small aligned buffer that stays in the processor's cache, so that callers need not care for
//! alignment. What is not aligned in the file, and whatever a file system refuses, goes through the kernel's cache as
//! ever.

use std::cell::RefCell;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// File systems want offsets, lengths and memory to be multiples of the device's block, 4096 bytes at the most; a page
/// in the kernel's cache, which must not be shared between the two ways, has as many.
const ALIGNMENT: usize = 4096;
/// Bytes that are written at once. It is the size at which devices are near their best.
const BUFFER: usize = 1 << 20;
/// What is shorter is not worth the two ways.
pub const LARGE: usize = 256 << 10;

thread_local! {
    static MEMORY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which of the bytes at an offset of a file can be written past the cache: whole blocks.
pub fn whole_blocks(offset: u64, length: usize) -> Range<usize> {
    let head = (offset.next_multiple_of(ALIGNMENT as u64) - offset) as usize;
    let body = length.saturating_sub(head) / ALIGNMENT * ALIGNMENT;
    if body < LARGE { 0..0 } else { head..head + body }
}

/// Writes all bytes at an offset. The descriptor must not be used by another thread meanwhile.
pub fn write_all_at(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let file = file.as_fd();
    let body = whole_blocks(offset, bytes.len());
    if body.is_empty() || !set_direct(file, true) {
        return write_cached(file, bytes, offset);
    }
    let start = body.start;
    let written = with_buffer(|buffer| write_aligned(file, &bytes[body], offset + start as u64, buffer));
    set_direct(file, false);
    let end = start + written?;
    write_cached(file, &bytes[..start], offset)?;
    write_cached(file, &bytes[end..], offset + end as u64)
}

/// Writes what the file system takes, and says how much that was.
fn write_aligned(file: BorrowedFd<'_>, bytes: &[u8], offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < bytes.len() {
        let length = buffer.len().min(bytes.len() - done);
        let block = &mut buffer[..length];
        block.copy_from_slice(&bytes[done..done + length]);
        match rustix::io::pwrite(file, block, offset + done as u64) {
            // A file system that takes the flag and then wants other blocks than ours.
            Err(Errno::INVAL) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(0) => return Err(Errno::IO),
            Ok(written) if written % ALIGNMENT != 0 => {
                // The disk became full, most likely: the next write through the cache says so.
                done += written;
                break;
            }
            Ok(written) => done += written,
        }
    }
    Ok(done)
}

/// Reads from an offset to the end of `into`, or of the file; gives how many bytes that were. What lies in the
/// kernel's cache is taken from there.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    if into.len() >= LARGE && !is_cached(file, offset, into.len()) && set_direct(file.as_fd(), true) {
        let read = with_buffer(|buffer| read_aligned(file, into, offset, buffer));
        set_direct(file.as_fd(), false);
        done = read?;
    }
    while done < into.len() {
        match rustix::io::pread(file, &mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Whether nearly all of a range lies in the kernel's cache: cachestat(2), since Linux 6.5. Older kernels do not say, and
/// then it is as well to go through it. To try a read that must not wait is no way to ask: it starts to read ahead.
fn is_cached(file: &File, offset: u64, length: usize) -> bool {
    const PAGE: u64 = 4096;
    /// `__NR_cachestat`, the same on all architectures.
    const NUMBER: libc::c_long = 451;
    /// `struct cachestat` of linux/mman.h.
    #[repr(C)]
    #[derive(Default)]
    struct CacheStat {
        cached: u64,
        dirty: u64,
        written_back: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = [offset, length as u64];
    let mut stat = CacheStat::default();
    let no_flags: libc::c_uint = 0;
    // SAFETY: `struct cachestat_range` is two numbers of 64 bits, and the kernel fills the other structure.
    let answer = unsafe { libc::syscall(NUMBER, file.as_raw_fd(), range.as_ptr(), &raw mut stat, no_flags) };
    answer != 0 || stat.cached * PAGE >= length as u64 / 8 * 7
}

/// Reads what the file system gives; the end of the file is left to the caller.
fn read_aligned(file: &File, into: &mut [u8], offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < into.len() {
        let at = offset + done as u64;
        let before = (at % ALIGNMENT as u64) as usize;
        let length = (before + into.len() - done).next_multiple_of(ALIGNMENT).min(buffer.len());
        match rustix::io::pread(file, &mut buffer[..length], at - before as u64) {
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
            Ok(read) if read <= before => break,
            Ok(read) => {
                let got = (read - before).min(into.len() - done);
                into[done..done + got].copy_from_slice(&buffer[before..before + got]);
                done += got;
                if read < length {
                    break;
                }
            }
        }
    }
    Ok(done)
}

/// This thread's buffer, aligned. Its memory is taken when it is first used.
fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    MEMORY.with_borrow_mut(|memory| {
        memory.resize(BUFFER + ALIGNMENT, 0);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        work(&mut memory[start..start + BUFFER])
    })
}

/// Whether the file system lets the way past the cache be switched on or off.
fn set_direct(file: BorrowedFd<'_>, on: bool) -> bool {
    let Ok(flags) = fcntl_getfl(file) else { return false };
    let flags = if on { flags | OFlags::DIRECT } else { flags - OFlags::DIRECT };
    fcntl_setfl(file, flags).is_ok()
}

/// Writes all bytes at an offset through the kernel's cache.
pub fn write_cached(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    let file = file.as_fd();
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
    }

    /// Around the block, the shortest way past the cache, and the buffer.
    const LENGTHS: [usize; 8] = [0, 1, LARGE - 1, LARGE, LARGE + 8191, BUFFER, BUFFER + 4097, 3 * BUFFER + 5];

    #[test]
    fn what_is_written_at_any_offset_is_there_and_nothing_beside_it() {
        for offset in [0, 1, 4095, 4096, 10_000] {
            for length in LENGTHS {
                let file = tempfile::tempfile().unwrap();
                let total = offset as usize + length + 5000;
                file.write_all_at(&vec![0xee; total], 0).unwrap();
                let bytes = pattern(length);
                write_all_at(&file, &bytes, offset).unwrap();
                let mut found = vec![0; total];
                file.read_exact_at(&mut found, 0).unwrap();
                let (before, rest) = found.split_at(offset as usize);
                assert!(before.iter().chain(&rest[length..]).all(|byte| *byte == 0xee), "{offset} {length}");
                assert_eq!(rest[..length], bytes, "{offset} {length}");
                assert_eq!(file.metadata().unwrap().len(), total as u64);
            }
        }
    }

    #[test]
    fn what_is_read_at_any_offset_is_right_whether_it_is_in_the_cache_or_not() {
        let bytes = pattern(4 * BUFFER + 777);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        for is_cached in [true, false] {
            for offset in [0, 1, 4095, 4096, 10_000] {
                for length in LENGTHS.into_iter().chain([5 * BUFFER]) {
                    if !is_cached {
                        file.sync_all().unwrap();
                        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                    }
                    let mut found = vec![0; length];
                    let read = read_at(&file, &mut found, offset).unwrap();
                    let wanted = &bytes[offset as usize..bytes.len().min(offset as usize + length)];
                    assert_eq!(found[..read], *wanted, "{offset} {length} {is_cached}");
                }
            }
        }
        assert_eq!(read_at(&file, &mut [0; 10], 5 * BUFFER as u64), Ok(0));
    }
}
