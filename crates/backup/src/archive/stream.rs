//! A stream as the one file of a backup: what a database's dump writes into a pipe.
//!
//! One thread reads and cuts, the others store the pieces; at most a few pieces are in memory, however long the stream.

use std::io::{self, Read};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, bounded};
use repository::blob::BlobKind;
use repository::blob_writer::{BlobSaver, BlobWriter, Destination};
use repository::chunker::{Chunker, MAX_BYTES};
use repository::id::Id;
use repository::index::Index;
use repository::record::Summary;
use repository::tree::{Node, NodeKind, Timestamp, TreeEncoder, file_mode_from_st_mode};
use repository::{Error, Repository};

use crate::archive::Outcome;
use crate::progress::Progress;

/// A pipe gives 64 KiB at most, and what is offered is zeroed before each read.
const READ_BYTES: usize = 64 << 10;
/// How much is gathered before it is searched for a cut: the chunker is slow in small parts.
const SEARCH_BYTES: usize = 256 << 10;

/// What the file shall look like.
pub struct StreamOptions<'a> {
    /// Its absolute path in the backup; the directories above are made up.
    pub path: &'a Path,
    /// Times of it and of what is above.
    pub time: Timestamp,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name.
    pub user: Arc<str>,
    /// Group's name.
    pub group: Arc<str>,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// Why a stream could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed: what came until then is not a whole file, and nobody should take it for one.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] Error),
    /// Not the path of a file.
    #[error("{0:?} is not the name of a file")]
    Path(std::path::PathBuf),
}

struct Piece {
    number: usize,
    bytes: Vec<u8>,
}

/// Pieces on their way to the repository.
struct Run {
    pieces: Receiver<Piece>,
    content: Mutex<Vec<Option<Id>>>,
    /// Buffers to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

/// Backs up a stream. Everything is durable when it returns; the record is the caller's to write.
pub fn archive_stream(
    repository: &Arc<Repository>,
    index: &Arc<Index>,
    destination: Destination,
    stream: &mut dyn Read,
    options: &StreamOptions<'_>,
) -> Result<Outcome, StreamError> {
    let names = names(options.path).ok_or_else(|| StreamError::Path(options.path.to_owned()))?;
    let writer = BlobWriter::new(repository, index, destination);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, pieces) = bounded(workers);
    let run = Run {
        pieces,
        content: Mutex::default(),
        spare: Mutex::default(),
        failure: Mutex::default(),
        failed: AtomicBool::new(false),
    };
    let bytes = std::thread::scope(|scope| {
        for number in 0..workers {
            let (run, saver) = (&run, writer.saver());
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn_scoped(scope, move || run.store_pieces(saver)).expect("the system gives a thread");
        }
        let sender = sender;
        cut(stream, &repository.chunker(), &run, options.progress, &mut |piece| sender.send(piece).is_ok())
    });
    if let Some(echo) = run.failure.into_inner().expect("no panic while the failure is held") {
        // A failing repository shows in the writer first.
        return Err(writer.finish().err().unwrap_or(echo).into());
    }
    let bytes = bytes?;
    let content = run.content.into_inner().expect("no panic while the content is held");
    let content: Option<Vec<Id>> = content.into_iter().collect();
    let content = content.ok_or_else(|| Error::Earlier("a piece of the stream was not stored".to_owned()))?;
    let (tree, directories) = store_trees(&mut writer.saver(), &names, content, bytes, options)?;
    options.progress.file_done(&|| options.path.to_owned());
    let added = writer.finish()?;
    let summary = Summary {
        files_new: 1,
        dirs_new: directories,
        data_blobs: added.data_blobs,
        tree_blobs: added.tree_blobs,
        data_added: added.plain_bytes,
        data_added_packed: added.stored_bytes,
        total_files_processed: 1,
        total_bytes_processed: bytes,
        ..Summary::default()
    };
    Ok(Outcome { tree: Some(tree), summary, added, ..Outcome::default() })
}

fn names(path: &Path) -> Option<Vec<&[u8]>> {
    let names = path.components().skip_while(|component| *component == Component::RootDir);
    let names: Option<Vec<_>> = names
        .map(|component| match component {
            Component::Normal(name) => Some(std::os::unix::ffi::OsStrExt::as_bytes(name)),
            _ => None,
        })
        .collect();
    names.filter(|names| !names.is_empty())
}

/// Reads to the end, and hands on piece after piece. Returns the stream's length in bytes.
fn cut(
    stream: &mut dyn Read,
    chunker: &Chunker,
    run: &Run,
    progress: &dyn Progress,
    hand_on: &mut dyn FnMut(Piece) -> bool,
) -> Result<u64, StreamError> {
    let mut total = 0;
    let mut number = 0;
    let mut chunk = run.buffer();
    let mut scanned = 0;
    loop {
        if progress.is_cancelled() || run.failed.load(Ordering::Acquire) {
            return Err(Error::Cancelled.into());
        }
        let room = READ_BYTES.min(MAX_BYTES.saturating_sub(chunk.len()));
        let read = fill(stream, room, &mut chunk)?;
        total += read as u64;
        progress.bytes_done(read as u64);
        if read > 0 && chunk.len() - scanned < SEARCH_BYTES && chunk.len() < MAX_BYTES {
            continue;
        }
        match chunker.find_cut(&chunk, scanned) {
            Some(length) => {
                let mut next = run.buffer();
                next.extend_from_slice(&chunk[length..]);
                chunk.truncate(length);
                let bytes = std::mem::replace(&mut chunk, next);
                if !hand_on(Piece { number, bytes }) {
                    return Err(Error::Cancelled.into());
                }
                number += 1;
                scanned = 0;
            }
            None if read == 0 => {
                if !chunk.is_empty() && !hand_on(Piece { number, bytes: chunk }) {
                    return Err(Error::Cancelled.into());
                }
                return Ok(total);
            }
            None => scanned = chunk.len(),
        }
    }
}

/// Appends what one read gives, up to `room` bytes; 0 at the end, or if there is no room.
fn fill(stream: &mut dyn Read, room: usize, chunk: &mut Vec<u8>) -> Result<usize, StreamError> {
    let start = chunk.len();
    chunk.resize(start + room, 0);
    let read = loop {
        match stream.read(&mut chunk[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    chunk.truncate(start + read.as_ref().copied().unwrap_or(0));
    read.map_err(StreamError::Read)
}

impl Run {
    fn buffer(&self) -> Vec<u8> {
        self.spare.lock().expect("no panic while buffers are held").pop().unwrap_or_default()
    }

    /// Stores pieces until no more come.
    fn store_pieces(&self, mut saver: BlobSaver) {
        for Piece { number, mut bytes } in &self.pieces {
            // After a failure the pieces are only taken, so that the reading thread never waits for nobody.
            if self.failed.load(Ordering::Acquire) {
                continue;
            }
            if let Some(saved) = self.note(saver.save(BlobKind::Data, &bytes)) {
                let mut content = self.content.lock().expect("no panic while the content is held");
                if content.len() <= number {
                    content.resize(number + 1, None);
                }
                content[number] = Some(saved.id);
            }
            bytes.clear();
            self.spare.lock().expect("no panic while buffers are held").push(bytes);
        }
    }

    fn note<T>(&self, result: Result<T, Error>) -> Option<T> {
        result
            .map_err(|error| {
                self.failure.lock().expect("no panic while the failure is held").get_or_insert(error);
                self.failed.store(true, Ordering::Release);
            })
            .ok()
    }
}

/// Stores the file's entry and the directories above it. Gives the root's tree and the number of directories.
fn store_trees(
    saver: &mut BlobSaver,
    names: &[&[u8]],
    content: Vec<Id>,
    bytes: u64,
    options: &StreamOptions<'_>,
) -> Result<(Id, u64), Error> {
    let mut node = node(names[names.len() - 1], 0o100_644, options);
    node.size = bytes;
    node.links = 1;
    node.content = Some(content);
    for name in names[..names.len() - 1].iter().rev() {
        let subtree = store_tree(saver, &node)?;
        node = self::node(name, 0o040_755, options);
        node.subtree = Some(subtree);
    }
    let root = store_tree(saver, &node)?;
    Ok((root, names.len() as u64 - 1))
}

fn store_tree(saver: &mut BlobSaver, node: &Node) -> Result<Id, Error> {
    let mut tree = TreeEncoder::new();
    tree.push(node).map_err(|error| Error::Refused(error.to_string()))?;
    Ok(saver.save(BlobKind::Tree, &tree.finish())?.id)
}

fn node(name: &[u8], st_mode: u32, options: &StreamOptions<'_>) -> Node {
    let mode = file_mode_from_st_mode(st_mode);
    Node {
        name: name.into(),
        kind: NodeKind::of_file_mode(mode),
        mode,
        mtime: options.time,
        atime: options.time,
        ctime: options.time,
        uid: options.uid,
        gid: options.gid,
        user: Arc::clone(&options.user),
        group: Arc::clone(&options.group),
        inode: 0,
        device_id: 0,
        size: 0,
        links: 0,
        link_target: Box::default(),
        extended_attributes: Vec::new(),
        generic_attributes: None,
        device: 0,
        content: None,
        subtree: None,
        error: "".into(),
    }
}
