//! Room that is reserved for a large new file before it is written.
//!
//! ext4 lets one thread at a time write into a hole, and several into blocks that are reserved; a disk is quick only with
//! several writes under way. What turns out to be zeros is given back at the end, so that holes stay holes. A file with
//! long holes, of which the backup tells by pieces that follow themselves, is not reserved: it may be larger than
//! the disk.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use repository::id::Id;
use rustix::fs::{FallocateFlags, FsWord, fallocate, fstatfs};
use rustix::io::Errno;

/// Files with fewer bytes are written soon enough.
const LARGE: u64 = 8 << 20;
/// A block of the file system.
const BLOCK: u64 = 4096;
/// `EXT4_SUPER_MAGIC` of linux/magic.h.
const EXT4: FsWord = 0xef53;

/// Runs of zeros that are remembered, so that those of two pieces which share a block are known together.
const MAX_RUNS: usize = 16_384;

/// The room of one file.
pub(super) struct Reserve {
    is_wanted: bool,
    is_begun: AtomicBool,
    /// Runs of zeros, from where to where.
    zeros: Mutex<Vec<(u64, u64)>>,
}

impl Reserve {
    pub(super) fn new(is_new: bool, size: u64, content: &[Id]) -> Self {
        let has_long_holes = content.windows(2).any(|pair| pair[0] == pair[1]);
        let is_wanted = is_new && size >= LARGE && !has_long_holes;
        Reserve { is_wanted, is_begun: AtomicBool::new(false), zeros: Mutex::default() }
    }

    /// Reserves the room, where that helps. Without it the file is written all the same.
    pub(super) fn begin(&self, file: &OwnedFd, size: u64) {
        if self.is_wanted && fstatfs(file).is_ok_and(|system| system.f_type == EXT4) {
            self.is_begun.store(true, Ordering::Release);
            // On a disk that becomes full, part of it may be had.
            let _ = fallocate(file, FallocateFlags::KEEP_SIZE, 0, size);
        }
    }

    /// Notes zeros that are not written.
    pub(super) fn leave_out(&self, offset: u64, length: usize) {
        if self.is_wanted && length > 0 {
            self.zeros.lock().expect("no panic while runs are held").push((offset, offset + length as u64));
        }
    }

    /// Notes what of a piece is not among its runs of data, which are given with their offsets in it.
    pub(super) fn leave_out_between(&self, offset: u64, length: usize, data: &[(usize, &[u8])]) {
        let mut end = 0;
        for (start, bytes) in data {
            self.leave_out(offset + end as u64, start - end);
            end = start + bytes.len();
        }
        self.leave_out(offset + end as u64, length - end);
    }

    /// Gives back what was noted so far, if it takes much memory.
    pub(super) fn give_back_some(&self, file: &OwnedFd) -> Result<(), Errno> {
        let is_much = self.zeros.lock().expect("no panic while runs are held").len() >= MAX_RUNS;
        if is_much { self.give_back(file) } else { Ok(()) }
    }

    /// Gives back whole blocks of zeros.
    pub(super) fn give_back(&self, file: &OwnedFd) -> Result<(), Errno> {
        let mut zeros = std::mem::take(&mut *self.zeros.lock().expect("no panic while runs are held"));
        if !self.is_begun.load(Ordering::Acquire) {
            return Ok(());
        }
        zeros.sort_unstable();
        // A block may be the end of one piece and the beginning of the next.
        zeros.dedup_by(|next, last| {
            let follows = next.0 == last.1;
            if follows {
                last.1 = next.1;
            }
            follows
        });
        for (start, end) in zeros {
            let (start, end) = (start.next_multiple_of(BLOCK), end / BLOCK * BLOCK);
            if start < end {
                fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, end - start)?;
            }
        }
        Ok(())
    }
}
