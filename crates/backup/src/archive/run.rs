//! What the workers of a run share: its options, counts, errors and end.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use repository::Error;
use repository::blob::BlobKind;
use repository::chunker::Chunker;
use repository::id::Id;
use repository::index::Index;

use crate::archive::Options;
use crate::archive::changed::{Base, Changes, choice};
use crate::archive::directory::Directory;
use crate::archive::elsewhere::Places;
use crate::archive::queue::Queue;
use crate::archive::stream::MadeUpFiles;
use crate::archive::totals::{Seen, Totals};
use crate::attributes::{Context, Moment, Stat};

/// Buffers kept for the pieces of large files; more may be in use.
const SPARE_BUFFERS: usize = 2;
/// Larger buffers, in bytes, are not kept: few pieces need them, and they would all grow to the largest in time.
const MAX_SPARE_BYTES: usize = 2 << 20;

pub(super) struct Run<'a> {
    pub(super) options: &'a Options<'a>,
    pub(super) places: Places,
    pub(super) changes: Changes,
    pub(super) made_up: MadeUpFiles,
    /// Of the parent.
    pub(super) seen: Seen,
    pub(super) context: Context,
    pub(super) index: &'a Index,
    pub(super) chunker: Chunker,
    pub(super) queue: Arc<Queue>,
    pub(super) hard_links: HardLinks,
    pub(super) counts: Counts,
    buffers: Mutex<Vec<Vec<u8>>>,
    stopped: AtomicBool,
    end: Mutex<Option<Result<Id, Error>>>,
}

/// What a run has met so far.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) files_new: AtomicU64,
    pub(super) files_changed: AtomicU64,
    pub(super) files_unmodified: AtomicU64,
    pub(super) dirs_new: AtomicU64,
    pub(super) dirs_changed: AtomicU64,
    pub(super) dirs_unmodified: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) unsteady: AtomicU64,
    pub(super) looked_at: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<'a> Run<'a> {
    pub(super) fn new(
        options: &'a Options<'a>,
        places: Places,
        changes: Changes,
        made_up: MadeUpFiles,
        index: &'a Index,
        chunker: Chunker,
        workers: usize,
    ) -> Self {
        Run {
            options,
            places,
            changes,
            made_up,
            seen: Seen::default(),
            context: Context::new(options.zone.clone()),
            index,
            chunker,
            queue: Queue::new(workers),
            hard_links: HardLinks::default(),
            counts: Counts::default(),
            buffers: Mutex::default(),
            stopped: AtomicBool::new(false),
            end: Mutex::default(),
        }
    }

    /// Something of the source could not be read: named, counted, and the run goes on.
    pub(super) fn source_error(&self, path: &Path, error: &dyn Display) {
        count(&self.counts.errors);
        self.options.progress.error(path, error);
    }

    /// As [`Run::source_error`], for a source that somebody changed or removed while it was read.
    pub(super) fn source_unsteady(&self, path: &Path, error: &dyn Display) {
        count(&self.counts.unsteady);
        self.source_error(path, error);
    }

    /// The repository failed: the run cannot go on. The first reason is the one that is reported.
    pub(super) fn fail(&self, error: Error) {
        self.finish(Err(error));
    }

    /// The root tree is stored.
    pub(super) fn end(&self, root: Id) {
        self.finish(Ok(root));
    }

    fn finish(&self, result: Result<Id, Error>) {
        self.end.lock().expect("no panic while the end is held").get_or_insert(result);
        self.stopped.store(true, Ordering::Release);
        self.queue.close();
    }

    pub(super) fn result(&self) -> Result<Id, Error> {
        let end = self.end.lock().expect("no panic while the end is held").take();
        end.unwrap_or_else(|| Err(Error::Earlier("the run ended without a result".to_owned())))
    }

    /// Asked between the pieces of large files too, so that whoever cancels never waits for their end.
    pub(super) fn is_stopped(&self) -> bool {
        if self.options.progress.is_cancelled() {
            self.fail(Error::Cancelled);
        }
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn count_look(&self) {
        count(&self.counts.looked_at);
    }

    /// Of the whole backup, from what was counted.
    pub(super) fn totals(&self, found: Totals) -> Totals {
        match self.options.changed.as_ref().filter(|_| self.changes.any()) {
            Some(changed) => self.seen.totals(&changed.base, found),
            None => found,
        }
    }

    /// What the run's tree is, for a later run.
    pub(super) fn base(&self, tree: Id, totals: Totals) -> Base {
        let Totals { files, bytes, directories } = totals;
        Base { tree, choice: choice(self.options, &self.places, &self.made_up), files, bytes, directories }
    }

    pub(super) fn count_unmodified(&self, bytes: u64) {
        count(&self.counts.files_unmodified);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.options.progress.bytes_done(bytes);
        self.options.progress.file_done(&std::path::PathBuf::new);
    }

    pub(super) fn count_file(&self, is_new: bool, bytes: u64) {
        count(if is_new { &self.counts.files_new } else { &self.counts.files_changed });
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_directory(&self, directory: &Directory, stored: Id) {
        // The root is an invention of the format.
        if directory.is_root() {
            return;
        }
        count(match directory.previous {
            None => &self.counts.dirs_new,
            Some(previous) if previous == stored => &self.counts.dirs_unmodified,
            Some(_) => &self.counts.dirs_changed,
        });
    }

    /// Whether the repository has all pieces of a file.
    pub(super) fn has_all(&self, content: &[Id]) -> bool {
        content.iter().all(|id| self.index.contains(BlobKind::Data, id))
    }

    /// An empty buffer, perhaps one used before.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().expect("no panic while the buffers are held").pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = self.buffers.lock().expect("no panic while the buffers are held");
        if buffers.len() < SPARE_BUFFERS && buffer.capacity() <= MAX_SPARE_BYTES {
            buffers.push(buffer);
        }
    }
}

/// Contents of files with several names, so that each is read once.
#[derive(Default)]
pub(super) struct HardLinks {
    known: Mutex<HashMap<(u64, u64), KnownInode>>,
}

struct KnownInode {
    /// Times of modification and change, and size, when it was read.
    state: (Moment, Moment, u64),
    content: Vec<Id>,
    /// Names still to come; some may lie outside of the backup.
    others: u32,
}

impl HardLinks {
    /// The content, if the inode was read before and has not changed since.
    pub(super) fn get(&self, inode: (u64, u64), stat: &Stat) -> Option<Vec<Id>> {
        let mut known = self.known.lock().expect("no panic while the links are held");
        let inode_state = known.get_mut(&inode)?;
        if inode_state.state != (stat.mtime, stat.ctime, stat.size) {
            return None;
        }
        inode_state.others = inode_state.others.saturating_sub(1);
        // Nobody will ask for it again.
        if inode_state.others == 0 {
            return known.remove(&inode).map(|known| known.content);
        }
        Some(inode_state.content.clone())
    }

    pub(super) fn put(&self, inode: (u64, u64), stat: &Stat, content: Vec<Id>) {
        let mut known = self.known.lock().expect("no panic while the links are held");
        let state = (stat.mtime, stat.ctime, stat.size);
        known.insert(inode, KnownInode { state, content, others: stat.links.saturating_sub(1) });
    }
}
