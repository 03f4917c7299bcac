//! Writing to the catalog without depending on it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use super::{Catalog, Error};

/// Through which a command writes. What cannot be recorded is said once, and the command goes on.
pub struct Recorder<'a> {
    catalog: Option<Catalog>,
    say: Box<dyn Fn(&str) + Send + Sync + 'a>,
    has_complained: AtomicBool,
}

impl<'a> Recorder<'a> {
    /// Opens the catalog. `say` is told what somebody should know, one sentence at a time.
    pub fn open(path: &Path, now: Timestamp, say: impl Fn(&str) + Send + Sync + 'a) -> Recorder<'a> {
        let mut recorder = Recorder { catalog: None, say: Box::new(say), has_complained: AtomicBool::new(false) };
        match Catalog::open(path, now) {
            Ok(catalog) => recorder.catalog = Some(catalog),
            Err(error) => recorder.complain(&error),
        }
        recorder.tell_moved();
        recorder
    }

    /// One that records nothing.
    pub fn none() -> Recorder<'a> {
        Recorder { catalog: None, say: Box::new(|_| {}), has_complained: AtomicBool::new(true) }
    }

    /// The catalog, if there is one.
    pub fn catalog(&self) -> Option<&Catalog> {
        self.catalog.as_ref()
    }

    /// Does something with the catalog: `recorder.note(|catalog| catalog.record_job(&job))`. Nothing if there is none,
    /// or it fails.
    pub fn note<T>(&self, act: impl FnOnce(&Catalog) -> Result<T, Error>) -> Option<T> {
        let done = act(self.catalog.as_ref()?);
        self.tell_moved();
        match done {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.complain(&error);
                None
            }
        }
    }

    fn complain(&self, error: &Error) {
        if !self.has_complained.swap(true, Ordering::Relaxed) {
            let way_out = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            (self.say)(&format!("{error}; what is done is not recorded there{way_out}"));
        }
    }

    fn tell_moved(&self) {
        for moved in self.catalog.iter().flat_map(Catalog::take_moved) {
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
