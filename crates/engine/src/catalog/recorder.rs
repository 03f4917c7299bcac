//! Writing to the catalog without depending on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{Catalog, Error};

/// How soon a catalog that could not be opened is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Through which a command writes. What cannot be recorded is said once, until something can be again; and the command
/// goes on.
pub struct Recorder<'a> {
    catalog: OnceLock<Catalog>,
    /// Where it lies; `None` if nothing is to be recorded.
    path: Option<PathBuf>,
    /// When this was made, by the caller's clock and by one that nobody sets.
    begun: (Timestamp, Instant),
    /// When it was last tried to open it.
    tried: Mutex<Instant>,
    say: Box<dyn Fn(&str) + Send + Sync + 'a>,
    has_complained: AtomicBool,
}

impl<'a> Recorder<'a> {
    /// Opens the catalog. `say` is told what somebody should know, one sentence at a time.
    pub fn open(path: &Path, now: Timestamp, say: impl Fn(&str) + Send + Sync + 'a) -> Recorder<'a> {
        let recorder = Recorder { path: Some(path.to_owned()), ..Recorder::new(now, Box::new(say)) };
        recorder.try_to_open();
        recorder.tell_moved();
        recorder
    }

    /// One that records nothing.
    pub fn none() -> Recorder<'a> {
        Recorder::new(Timestamp::UNIX_EPOCH, Box::new(|_| {}))
    }

    fn new(now: Timestamp, say: Box<dyn Fn(&str) + Send + Sync + 'a>) -> Recorder<'a> {
        let begun = Instant::now();
        Recorder {
            catalog: OnceLock::new(),
            path: None,
            begun: (now, begun),
            tried: Mutex::new(begun),
            say,
            has_complained: AtomicBool::new(false),
        }
    }

    /// The catalog, if there is one. The daemon lives long: what kept it from being opened may be over.
    pub fn catalog(&self) -> Option<&Catalog> {
        if self.catalog.get().is_none() && self.path.is_some() {
            let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
            if tried.elapsed() >= AGAIN_AFTER {
                *tried = Instant::now();
                self.try_to_open();
            }
        }
        self.catalog.get()
    }

    /// Does something with the catalog: `recorder.note(|catalog| catalog.record_job(&job))`. Nothing if there is none,
    /// or it fails.
    pub fn note<T>(&self, act: impl FnOnce(&Catalog) -> Result<T, Error>) -> Option<T> {
        let done = act(self.catalog()?);
        self.tell_moved();
        match done {
            Ok(answer) => {
                self.has_complained.store(false, Ordering::Relaxed);
                Some(answer)
            }
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn try_to_open(&self) {
        let Some(path) = &self.path else { return };
        let since = SignedDuration::try_from(self.begun.1.elapsed()).unwrap_or_default();
        match Catalog::open(path, self.begun.0.checked_add(since).unwrap_or(self.begun.0)) {
            // Another thread may have been faster; one is as good as the other.
            Ok(catalog) => drop(self.catalog.set(catalog)),
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&self, error: &Error) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            let way_out = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            (self.say)(&format!("{error}; what is done is not recorded there{way_out}"));
        }
    }

    fn tell_moved(&self) {
        for moved in self.catalog.get().into_iter().flat_map(Catalog::take_moved) {
            let (to, reason) = (moved.to.display(), moved.reason);
            (self.say)(&format!("the catalog was damaged ({reason}); it is now {to}, and a new one is begun"));
        }
    }
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}
