//! A worker: one thread that does whatever job is next, and what it keeps from job to job.

use std::sync::Arc;

use repository::blob_writer::BlobSaver;
use repository::id::Id;
use repository::tree::Node;
use repository::{BlobReader, Error};

use crate::archive::directory::{Directory, Place};
use crate::archive::job::Placed;
use crate::archive::job::{Job, OpenFile};
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
    /// Streams whose places in the tree are known.
    pub(super) placed: Vec<Placed>,
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

    /// An entry that came later is there.
    pub(super) fn entry_is_there(&mut self, place: &Place, node: Node) {
        if let Some(complete) = place.directory.add(Some((place.position, Some(node)))) {
            self.complete(&place.directory, complete);
        }
    }

    /// An entry will not come.
    pub(super) fn entry_is_missing(&mut self, place: &Place) {
        if let Some(complete) = place.directory.add(Some((place.position, None))) {
            self.complete(&place.directory, complete);
        }
    }

    /// A directory's own work is done; its entries may still be missing.
    pub(super) fn directory_is_listed(&mut self, directory: &Arc<Directory>) {
        if let Some(complete) = directory.add(None) {
            self.complete(directory, complete);
        }
    }

    /// A directory could not be read at all.
    pub(super) fn directory_is_missing(&mut self, directory: &Arc<Directory>) {
        match directory.rise(None) {
            Some((above, Some(complete))) => self.complete(&above, complete),
            Some((_, None)) => {}
            None => self.run.fail(Error::Refused("the root directory cannot be read".to_owned())),
        }
    }
}
