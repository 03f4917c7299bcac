//! A storage that is written to and read from no faster than was asked for.
//!
//! Invariant: at no time more bytes have passed than the rate allows since the first, so that a link is never filled for
//! longer than a single file takes. Writing waits before it begins; reading a whole file, whose size nobody knows
//! before, waits afterwards. Once the run is cancelled nobody waits any more: what is begun ends at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::id::Id;
use crate::storage::{FileKind, Storage, StorageError, StoredFile};

/// Between two looks at whether the run was cancelled.
const STEP: Duration = Duration::from_millis(50);

/// Bytes a second, each way; `None` is as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Written.
    pub upload: Option<u64>,
    /// Read.
    pub download: Option<u64>,
}

/// Whether to stop waiting.
pub type IsCancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// Another storage, with limits.
pub struct Limited {
    storage: Arc<dyn Storage>,
    upload: Option<Pace>,
    download: Option<Pace>,
    is_cancelled: IsCancelled,
}

impl Limited {
    /// Limits a storage. All that share this one share its limits.
    pub fn new(storage: Arc<dyn Storage>, limits: Limits, is_cancelled: IsCancelled) -> Self {
        let pace = |rate: Option<u64>| rate.map(Pace::new);
        Limited { storage, upload: pace(limits.upload), download: pace(limits.download), is_cancelled }
    }

    fn pass(&self, pace: Option<&Pace>, bytes: u64) {
        let Some(pace) = pace else { return };
        let until = pace.book(bytes, Instant::now());
        while !(self.is_cancelled)() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}

impl Storage for Limited {
    fn location(&self) -> String {
        self.storage.location()
    }

    fn list(&self, kind: FileKind) -> Result<Vec<(Id, u64)>, StorageError> {
        self.storage.list(kind)
    }

    fn read_range(&self, file: &StoredFile, offset: u64, length: u64, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.pass(self.download.as_ref(), length);
        self.storage.read_range(file, offset, length, into)
    }

    fn read(&self, file: &StoredFile, into: &mut Vec<u8>) -> Result<(), StorageError> {
        self.storage.read(file, into)?;
        self.pass(self.download.as_ref(), into.len() as u64);
        Ok(())
    }

    fn size(&self, file: &StoredFile) -> Result<u64, StorageError> {
        self.storage.size(file)
    }

    fn write(&self, file: &StoredFile, bytes: &[u8]) -> Result<(), StorageError> {
        self.pass(self.upload.as_ref(), bytes.len() as u64);
        self.storage.write(file, bytes)
    }

    fn remove(&self, file: &StoredFile) -> Result<(), StorageError> {
        self.storage.remove(file)
    }

    fn create(&self) -> Result<(), StorageError> {
        self.storage.create()
    }

    fn remove_unfinished(&self) -> Result<u64, StorageError> {
        self.storage.remove_unfinished()
    }
}

/// When the next byte may pass.
struct Pace {
    bytes_per_sec: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(bytes_per_sec: u64) -> Self {
        Pace { bytes_per_sec: bytes_per_sec.max(1), free_at: Mutex::default() }
    }

    /// Books the time that so many bytes take, behind what others have booked; when it is over. Time in which nobody
    /// wanted anything is not saved up.
    fn book(&self, bytes: u64, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_sec as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = free_at.map_or(now, |free_at| free_at.max(now));
        // A rate of a byte a second and a pack of 16 MiB are 194 days; no file is so large that this overflows.
        let end = begin.checked_add(takes).unwrap_or(begin);
        *free_at = Some(end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::storage::memory::Memory;

    #[test]
    fn bytes_are_booked_one_after_the_other_and_idle_time_is_not_saved() {
        let pace = Pace::new(1000);
        let start = Instant::now();
        let secs = |secs: u64| start + Duration::from_secs(secs);
        assert_eq!(pace.book(2000, start), secs(2));
        assert_eq!(pace.book(3000, secs(1)), secs(5));
        assert_eq!(pace.book(1000, secs(60)), secs(61));
        assert_eq!(pace.book(0, secs(60)), secs(61));
    }

    fn limited(limits: Limits, is_cancelled: bool) -> Limited {
        let memory = Memory::new();
        memory.create().unwrap();
        Limited::new(Arc::new(memory), limits, Arc::new(move || is_cancelled))
    }

    #[test]
    fn a_file_takes_as_long_as_its_bytes_each_way() {
        let storage = limited(Limits { upload: Some(100_000), download: Some(50_000) }, false);
        let bytes = vec![7; 10_000];
        let file = StoredFile::new(FileKind::Pack, sha256(&bytes));
        let start = Instant::now();
        storage.write(&file, &bytes).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());
        let start = Instant::now();
        let mut read = Vec::new();
        storage.read_range(&file, 0, 5_000, &mut read).unwrap();
        storage.read(&file, &mut read).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        assert_eq!(read, bytes);
    }

    #[test]
    fn who_cancels_waits_for_no_limit() {
        let storage = limited(Limits { upload: Some(1), download: Some(1) }, true);
        let bytes = vec![7; 1_000_000];
        let file = StoredFile::new(FileKind::Pack, sha256(&bytes));
        // At this rate it would take eleven days.
        storage.write(&file, &bytes).unwrap();
        let mut read = Vec::new();
        storage.read(&file, &mut read).unwrap();
        assert_eq!(read, bytes);
    }
}
