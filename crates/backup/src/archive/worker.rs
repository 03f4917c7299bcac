//! A worker: one thread that does whatever job is next, and what it keeps from job to job.

use std::sync::Arc;

use repository::BlobReader;
use repository::blob_writer::BlobSaver;
use repository::id::Id;

use crate::archive::file::OpenFile;
use crate::archive::queue::Job;
use crate::archive::run::Run;

pub(super) struct Worker<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) saver: BlobSaver,
    pub(super) reader: BlobReader<'a>,
    /// For files that are a single piece.
    pub(super) small: Vec<u8>,
    /// The large file this worker reads just now.
    pub(super) reading: Option<Arc<OpenFile>>,
    /// The piece that holes are made of.
    pub(super) zeros: Option<Id>,
}

impl Worker<'_> {
    /// Works until the run ends.
    pub(super) fn work(mut self) {
        while let Some(job) = self.run.queue.next() {
            if self.run.is_stopped() {
                return;
            }
            match job {
                Job::Chunk(job) => self.chunk(job),
                Job::File(job) => self.file(job),
                Job::Directory(job) => self.directory(job),
            }
        }
    }
}
