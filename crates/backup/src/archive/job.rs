//! What there is to do in a run: directories to be listed, files to be read, pieces of files to be stored.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use repository::id::Id;
use repository::tree::Node;

use crate::archive::changed::Doubt;
use crate::archive::copied::Original;
use crate::archive::directory::{Directory, Place};
use crate::archive::targets::Target;
use crate::attributes::Stat;

pub(super) enum Job {
    Chunk(ChunkJob),
    File(FileJob),
    Directory(DirectoryJob),
}

/// A directory to be listed.
pub(super) struct DirectoryJob {
    pub(super) directory: Arc<Directory>,
    /// Where it lies; `None` for the root and what is opened by its path.
    pub(super) above: Option<Arc<OwnedFd>>,
    pub(super) target: Target,
    /// The file system of the target it belongs to.
    pub(super) device: Option<u64>,
    /// What of it has to be looked at.
    pub(super) doubt: Doubt,
    /// Of what the directory above is a copy.
    pub(super) original: Option<Arc<Original>>,
}

/// A regular file to be read.
pub(super) struct FileJob {
    pub(super) place: Place,
    pub(super) above: Arc<OwnedFd>,
    /// Whether the parent backup has a file there.
    pub(super) is_new: bool,
    /// Of what it is a copy, as far as that is certain.
    pub(super) identity: Option<Stat>,
}

/// A piece of a file, to be stored.
pub(super) struct ChunkJob {
    pub(super) file: Arc<OpenFile>,
    pub(super) number: usize,
    pub(super) bytes: Vec<u8>,
}

/// A file, or a stream, whose pieces are being stored.
pub(super) struct OpenFile {
    pub(super) place: Place,
    /// `None` of a stream.
    pub(super) stat: Option<Stat>,
    state: Mutex<FileState>,
    /// Pieces still to come, and one for the reading itself.
    missing: AtomicUsize,
}

struct FileState {
    node: Option<Node>,
    pieces: Vec<Id>,
}

impl OpenFile {
    pub(super) fn new(place: Place, stat: Stat) -> Arc<OpenFile> {
        OpenFile::of(place, Some(stat))
    }

    pub(super) fn of_stream(place: Place) -> Arc<OpenFile> {
        OpenFile::of(place, None)
    }

    fn of(place: Place, stat: Option<Stat>) -> Arc<OpenFile> {
        let state = Mutex::new(FileState { node: None, pieces: Vec::new() });
        Arc::new(OpenFile { place, stat, state, missing: AtomicUsize::new(1) })
    }

    /// Before a piece is handed on.
    pub(super) fn expect_piece(&self) {
        self.missing.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds a piece. Gives the node when nothing is missing any more.
    pub(super) fn add(&self, number: usize, id: Id) -> Option<Node> {
        let mut state = self.state.lock().expect("no panic while a file is held");
        if state.pieces.len() <= number {
            state.pieces.resize(number + 1, Id([0; 32]));
        }
        state.pieces[number] = id;
        self.complete(&mut state)
    }

    /// Ends the reading: all pieces are expected. Gives the node when nothing is missing any more.
    pub(super) fn end(&self, node: Node) -> Option<Node> {
        let mut state = self.state.lock().expect("no panic while a file is held");
        state.node = Some(node);
        self.complete(&mut state)
    }

    fn complete(&self, state: &mut FileState) -> Option<Node> {
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let pieces = std::mem::take(&mut state.pieces);
        state.node.take().map(|node| Node { content: Some(pieces), ..node })
    }
}

/// A stream's place in the tree.
pub(super) struct Placed {
    pub(super) number: usize,
    pub(super) place: Place,
    /// Whether the parent backup has a file there.
    pub(super) is_new: bool,
}
