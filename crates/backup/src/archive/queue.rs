//! What is still to be done in a run, shared by its workers.
//!
//! Pieces of files go before files, and files before directories, the newest directory first: so the walk never
//! runs far ahead of the reading, and memory is bounded by the depth of the tree and the size of one directory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::archive::job::{ChunkJob, DirectoryJob, FileJob, Job};

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<ChunkJob>,
    files: VecDeque<FileJob>,
    directories: Vec<DirectoryJob>,
    closed: bool,
}

impl Waiting {
    fn next(&mut self) -> Option<Job> {
        let chunk = self.chunks.pop_front().map(Job::Chunk);
        let file = || self.files.pop_front().map(Job::File);
        chunk.or_else(file).or_else(|| self.directories.pop().map(Job::Directory))
    }
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    max_chunks: usize,
}

impl Queue {
    /// A queue in which at most `max_chunks` pieces of files wait, as they hold their bytes.
    pub(super) fn new(max_chunks: usize) -> Arc<Queue> {
        Arc::new(Queue { waiting: Mutex::default(), changed: Condvar::new(), max_chunks })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no panic while the queue is held")
    }

    /// Adds files, and directories in the order in which they shall be walked.
    pub(super) fn push(&self, files: Vec<FileJob>, directories: Vec<DirectoryJob>) {
        let mut waiting = self.lock();
        waiting.files.extend(files);
        waiting.directories.extend(directories.into_iter().rev());
        drop(waiting);
        self.changed.notify_all();
    }

    /// Offers a piece to the other workers; gives it back if enough of them wait.
    pub(super) fn offer(&self, chunk: ChunkJob) -> Option<ChunkJob> {
        let mut waiting = self.lock();
        if waiting.chunks.len() >= self.max_chunks {
            return Some(chunk);
        }
        waiting.chunks.push_back(chunk);
        drop(waiting);
        self.changed.notify_one();
        None
    }

    /// Waits for the next job; `None` when the run has ended.
    pub(super) fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            if let Some(job) = waiting.next() {
                return Some(job);
            }
            waiting = self.changed.wait(waiting).expect("no panic while the queue is held");
        }
    }

    /// Ends the run for all workers.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        *waiting = Waiting { closed: true, ..Waiting::default() };
        drop(waiting);
        self.changed.notify_all();
    }
}
