//! How much room is left where the repository lies. A net is never worth a full disk, which stops whatever else writes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use backup::progress::Progress;
use snapshot::error::Error;

/// Of a file system this part stays free, or [`MOST`] if that is less.
const PART: u64 = 50;
/// In bytes.
const MOST: u64 = 1 << 30;
/// Looked at after so many bytes were read.
const LOOK_EVERY: u64 = 16 << 20;

/// Bytes that are free beyond what stays free.
pub(super) fn room(place: &Path) -> Result<u64, Error> {
    let all = rustix::fs::statvfs(place).map_err(Error::io("look for free space under", place))?;
    let bytes = |blocks: u64| blocks.saturating_mul(all.f_frsize);
    Ok(bytes(all.f_bavail).saturating_sub((bytes(all.f_blocks) / PART).min(MOST)))
}

/// Why there will be no net.
pub(super) fn is_full(place: &Path) -> Error {
    Error::refused(format!("there is too little room for a net under {}", place.display()))
        .or("make room there; `snapback snapshot delete` lets nets go that are not needed any more")
}

/// Watches a run, and stops it before the disk is full.
pub(super) struct Watch<'a> {
    place: &'a Path,
    is_cancelled: &'a (dyn Fn() -> bool + Send + Sync),
    read: AtomicU64,
    is_full: AtomicBool,
    /// What could not be kept, the first ones.
    errors: Mutex<Vec<String>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(place: &'a Path, is_cancelled: &'a (dyn Fn() -> bool + Send + Sync)) -> Watch<'a> {
        Watch {
            place,
            is_cancelled,
            read: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            errors: Mutex::default(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Progress for Watch<'_> {
    fn bytes_done(&self, bytes: u64) {
        let before = self.read.fetch_add(bytes, Ordering::Relaxed);
        if before / LOOK_EVERY != (before + bytes) / LOOK_EVERY && room(self.place).is_ok_and(|room| room == 0) {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }

    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        const TOLD: usize = 3;
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < TOLD {
            errors.push(format!("{}: {error}", path.display()));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.is_full() || (self.is_cancelled)()
    }
}

/// Nobody watches.
pub(super) struct Nobody;

impl Progress for Nobody {
    fn error(&self, _: &Path, _: &dyn std::fmt::Display) {}
}
