//! Which way large pieces go to the target: past the kernel's cache of pages, or through it.
//!
//! Past it costs the processor much less, but waits for the disk. Where the disk is slower than we are, it is better
//! to go on computing while the kernel writes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use repository::direct;
use rustix::io::Errno;

/// Bytes after which the pace of a disk is known; its own cache takes the first ones quickly.
const TRIAL: u64 = 64 << 20;
/// A disk that takes fewer bytes in a second from one of the threads is a turning one, or far away.
const QUICK: u64 = 60_000_000;

/// How quickly the target took what was written past the cache.
#[derive(Default)]
pub(super) struct Pace {
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Pace {
    /// Whether what is large should go past the cache.
    pub(super) fn is_quick(&self) -> bool {
        let (bytes, nanoseconds) = (self.bytes.load(Ordering::Relaxed), self.nanoseconds.load(Ordering::Relaxed));
        bytes < TRIAL || bytes >= QUICK * (nanoseconds / 1000) / 1_000_000
    }

    /// Writes whole blocks past the cache, and learns from it.
    pub(super) fn write(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        let start = Instant::now();
        direct::write_all_at(file, bytes, offset)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.nanoseconds.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_noticed_and_a_quick_one_is_not_taken_for_one() {
        let pace = |megabytes: u64, seconds: u64| Pace {
            bytes: AtomicU64::new(megabytes << 20),
            nanoseconds: AtomicU64::new(seconds * 1_000_000_000),
        };
        assert!(pace(0, 0).is_quick());
        // Before the trial is over, nothing is said.
        assert!(pace(63, 60).is_quick());
        assert!(pace(1000, 2).is_quick());
        assert!(!pace(1000, 30).is_quick());
    }
}
