//! The bytes of a batch of files: packs are read in order, each piece is opened once and written to every file that
//! wants it, on all cores.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};
use repository::blob::BlobKind;
use repository::hash::sha256_many;
use repository::id::Id;
use repository::index::Location;
use repository::storage::{FileKind, StoredFile};
use repository::tree::Node;
use repository::{Error, Unpacking, direct, wrong_hash};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::attributes::{Before, Entry, Moment, Stat};
use crate::restore::existing::differing;
use crate::restore::file::{File, FileState, Plain};
use crate::restore::linking;
use crate::restore::place::Place;
use crate::restore::remove::clear;
use crate::restore::run::{Run, add};
use crate::restore::verify::verify;
use crate::restore::{Overwrite, should_leave};

/// Files in a batch at the most; each holds its node and keeps its directory open.
const MAX_FILES: usize = 20_000;
/// Pieces in a batch at the most.
const MAX_PIECES: usize = 400_000;
/// Directories that one batch may hold open, below the usual limit of 1024 files.
const MAX_DIRECTORIES: usize = 500;
/// Read from a pack at once, in bytes, at the most (a single piece may be larger).
const MAX_SPAN: u64 = 2 << 20;
/// Plaintext of such a span, in bytes, at the most.
const MAX_SPAN_PLAIN: u64 = 4 << 20;
/// Unwanted bytes between two pieces that are read along rather than asked for again.
const MAX_GAP: u64 = 128 << 10;
/// Threads beside one for each core, as some may wait to read.
const WAITING: usize = 1;

/// Threads that write large pieces, at the most.
const MAX_WRITERS: usize = 4;
/// Large pieces that wait for them, at the most.
const MAX_DELIVERIES: usize = 2;
/// Their buffers are used again up to this size, in bytes.
const MAX_SPARE: usize = 3 << 20;

/// Files to be restored together.
#[derive(Default)]
pub(super) struct Batch {
    files: Vec<File>,
    /// Files of which no piece is wanted: empty ones, and those of which only attributes differ.
    without_pieces: Vec<usize>,
    /// Files that were taken for restored already, though nobody read them; to be verified.
    unread: Vec<(Place, Node)>,
    pieces: Vec<Piece>,
    directories: usize,
}

/// A piece, for each place that wants it.
struct Piece {
    location: Location,
    file: u32,
    offset: u64,
}

impl Batch {
    pub(super) fn is_full(&self) -> bool {
        self.files.len() + self.unread.len() >= MAX_FILES
            || self.pieces.len() >= MAX_PIECES
            || self.directories >= MAX_DIRECTORIES
    }

    /// Adds a file; one that is there already is compared first, so that only what differs is read.
    pub(super) fn add(&mut self, run: &Run<'_>, place: Place, node: Node) {
        if self.files.last().is_none_or(|last| !std::sync::Arc::ptr_eq(&last.place.directory, &place.directory)) {
            self.directories += 1;
        }
        let failed = |error: &dyn std::fmt::Display, place: Place| {
            // Another name of it will say the same.
            linking::forget(run, &place, &node);
            run.error(&place.path(), error);
            run.finish_directory(place.directory);
        };
        let Some((pieces, missing)) = locate(run, &node) else {
            return failed(&"the backup does not say what is in it", place);
        };
        if let Some(id) = missing {
            let error = Error::MissingBlob { kind: BlobKind::Data, id };
            return failed(&format_args!("not restored: {error}"), place);
        }
        let length: u64 = pieces.iter().map(|piece| piece.blob.plain_length()).sum();
        if length != node.size {
            let size = node.size;
            return failed(&format_args!("not restored: it has {size} bytes, but its pieces have {length}"), place);
        }
        let existing = if place.directory.is_fresh { Existing::Nothing } else { look(run, &place, &node, &pieces) };
        let (state, differs) = match existing {
            Existing::Nothing => (FileState::New, None),
            Existing::Differs(before, differs) => (FileState::Existing(before), Some(differs)),
            Existing::Leave => {
                linking::forget(run, &place, &node);
                add(&run.counts.files_unchanged, 1);
                run.options.progress.bytes_done(node.size);
                return run.finish_directory(place.directory);
            }
            Existing::Same { was_read } => {
                add(&run.counts.files_unchanged, 1);
                run.options.progress.bytes_done(node.size);
                match run.options.verify && !run.options.dry_run {
                    true if was_read => add(&run.counts.verified, 1),
                    true => return self.unread.push((place, node)),
                    false => {}
                }
                return run.finish_directory(place.directory);
            }
            Existing::Failed(error) => return failed(&error, place),
        };
        let number = u32::try_from(self.files.len()).expect("a batch is small");
        let mut offset = 0;
        let mut wanted = 0;
        for (position, location) in pieces.iter().enumerate() {
            let length = location.blob.plain_length();
            if differs.as_ref().is_none_or(|differs| differs[position]) {
                self.pieces.push(Piece { location: *location, file: number, offset });
                wanted += 1;
            } else {
                run.options.progress.bytes_done(length);
            }
            offset += length;
        }
        if wanted == 0 {
            self.without_pieces.push(self.files.len());
        }
        self.files.push(File::new(place, node, state, wanted));
    }

    /// Restores the files of the batch.
    pub(super) fn restore(mut self, run: &Run<'_>) -> Result<(), Error> {
        let key = |piece: &Piece| (piece.location.pack, piece.location.blob.offset);
        self.pieces.sort_unstable_by_key(|piece| (key(piece), piece.file, piece.offset));
        let spans = spans(&self.pieces);
        self.restore_pieces(run, &spans);
        if let Err(error) = run.check_full() {
            // What was cut short has not come to its own end.
            for file in &self.files {
                file.report_failure(run);
            }
            return Err(error);
        }
        if run.options.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if run.options.verify && !run.options.dry_run {
            let unread = self.unread.iter().map(|(place, node)| (place, node));
            let files: Vec<_> = self.files.iter().filter_map(File::restored).chain(unread).collect();
            verify(run, &files)?;
        }
        let places = self.files.into_iter().map(|file| file.place);
        for place in places.chain(self.unread.into_iter().map(|(place, _)| place)) {
            run.finish_directory(place.directory);
        }
        Ok(())
    }
}

impl Batch {
    /// Reads and writes on all cores.
    fn restore_pieces(&self, run: &Run<'_>, spans: &[std::ops::Range<usize>]) {
        let next = Next::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Not more threads than there is work for: an incremental restore has many small batches.
        let threads = (cores + cores.min(WAITING)).min(spans.len() + self.without_pieces.len() / 16);
        let is_large = |piece: &Piece| piece.location.blob.plain_length() >= direct::LARGE as u64;
        let has_writers = !run.options.dry_run && self.pieces.iter().any(is_large);
        let (writers, written) = Writers::new();
        std::thread::scope(|scope| {
            for _ in 0..if has_writers { cores.min(MAX_WRITERS) } else { 0 } {
                scope.spawn(|| written.run(run, self));
            }
            let writers = has_writers.then_some(writers);
            for _ in 1..threads {
                let writers = writers.clone();
                let next = &next;
                scope.spawn(move || self.work(run, spans, next, writers));
            }
            self.work(run, spans, &next, writers);
        });
    }

    /// Restores what no other thread has begun with.
    fn work<'a>(
        &'a self,
        run: &'a Run<'a>,
        spans: &[std::ops::Range<usize>],
        next: &Next,
        writers: Option<Writers<'a>>,
    ) {
        let mut worker = Worker::new(run, self, writers);
        while let Some(span) = spans.get(next.span.fetch_add(1, Ordering::Relaxed)) {
            if run.is_stopped() {
                return;
            }
            worker.span(&self.pieces[span.clone()]);
        }
        while let Some(&file) = self.without_pieces.get(next.without_pieces.fetch_add(1, Ordering::Relaxed)) {
            self.files[file].finish(run, None);
        }
    }

    /// Writes a piece to all places that want it, or notes there why there is none.
    fn deliver(&self, run: &Run<'_>, group: &[Piece], plain: Result<&[u8], &Error>) {
        let plain = plain.map(Plain::new);
        for piece in group {
            let file = &self.files[piece.file as usize];
            let length = piece.location.blob.plain_length();
            file.write(run, plain.as_ref().map_err(|error| *error), piece.offset, length);
            run.options.progress.bytes_done(length);
        }
    }
}

/// Where a file's pieces lie, and the first that lies nowhere. `None` if the node has no content at all.
fn locate(run: &Run<'_>, node: &Node) -> Option<(Vec<Location>, Option<Id>)> {
    let content = node.content.as_ref()?;
    let mut pieces = Vec::with_capacity(content.len());
    for id in content {
        match run.index.get(BlobKind::Data, id) {
            Some(location) => pieces.push(location),
            None => return Some((pieces, Some(*id))),
        }
    }
    Some((pieces, None))
}

enum Existing {
    Nothing,
    Differs(Before, Vec<bool>),
    /// As in the backup, attributes included.
    Same {
        was_read: bool,
    },
    /// Whatever it is, it stays.
    Leave,
    Failed(String),
}

fn look(run: &Run<'_>, place: &Place, node: &Node, pieces: &[Location]) -> Existing {
    let dir = match place.directory.open() {
        Ok(dir) => dir,
        Err(error) => return Existing::Failed(format!("cannot open its directory: {error}")),
    };
    let entry = Entry { dir: dir.as_fd(), name: &place.name, dir_path: std::path::Path::new("") };
    let Ok(stat) = Stat::at(entry) else { return Existing::Nothing };
    if should_leave(run.options.overwrite, &stat, node.mtime) {
        return Existing::Leave;
    }
    let mtime = Moment { secs: node.mtime.secs, nanos: node.mtime.nanos };
    let is_file = stat.mode & 0o170_000 == 0o100_000;
    let trusted =
        is_file && run.options.overwrite == Overwrite::IfChanged && stat.mtime == mtime && stat.size == node.size;
    let compared = if trusted {
        Ok(vec![false; pieces.len()])
    } else if is_file {
        compare(&dir, &place.name, pieces)
    } else {
        Err(Errno::EXIST)
    };
    // Other names of the inode, outside of the backup, must not change along.
    let has_foreign_names = u64::from(stat.links) > node.links.max(1);
    match compared {
        Ok(differs) if !differs.contains(&true) && stat.size == node.size && (trusted || !has_foreign_names) => {
            // Its attributes may differ still; they cost little to compare.
            if !run.options.dry_run {
                run.finish_file(place, node, None, &Before::untouched(&stat));
            }
            Existing::Same { was_read: !trusted }
        }
        // As many names as in the backup, but who knows whether they are the same ones.
        Ok(differs) if stat.links == 1 => Existing::Differs(Before::changed(&stat), differs),
        _ if run.options.dry_run => Existing::Nothing,
        // Something else is in the way, or it cannot be read: replaced as a whole.
        _ => match clear(&dir, &place.name, !run.options.delete.is_empty()) {
            Ok(()) => Existing::Nothing,
            Err(error) => Existing::Failed(format!("cannot replace what is there: {error}")),
        },
    }
}

fn compare(dir: &OwnedFd, name: &[u8], pieces: &[Location]) -> Result<Vec<bool>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    let pieces: Vec<_> = pieces.iter().map(|piece| (piece.blob.id, piece.blob.plain_length())).collect();
    differing(&file, &pieces, |_| {})
}

/// Cuts sorted pieces into spans: same pack, close together, not too large. A piece wanted several times stays in
/// one span.
fn spans(pieces: &[Piece]) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    while start < pieces.len() {
        let first = pieces[start].location;
        let begin = u64::from(first.blob.offset);
        let (mut end, mut plain) = (begin, 0);
        let mut last: Option<Id> = None;
        let mut next = start;
        while let Some(piece) = pieces.get(next) {
            let blob = piece.location.blob;
            let (offset, length) = (u64::from(blob.offset), u64::from(blob.length));
            let repeated = last == Some(blob.id) && piece.location.pack == first.pack;
            if !repeated {
                if piece.location.pack != first.pack || offset > end + MAX_GAP {
                    break;
                }
                let too_large = offset + length - begin > MAX_SPAN || plain + blob.plain_length() > MAX_SPAN_PLAIN;
                if too_large && next > start {
                    break;
                }
                end = offset + length;
                plain += blob.plain_length();
                last = Some(blob.id);
            }
            next += 1;
        }
        spans.push(start..next);
        start = next;
    }
    spans
}

/// With what the next thread that has time begins.
#[derive(Default)]
struct Next {
    span: AtomicUsize,
    without_pieces: AtomicUsize,
}

/// A large piece, for the places that want it.
struct Delivery<'a> {
    group: &'a [Piece],
    plain: Vec<u8>,
}

/// The way to the threads that write large pieces: whoever computes neither waits for the disk nor for a file that is
/// written to by others.
#[derive(Clone)]
struct Writers<'a> {
    deliveries: Sender<Delivery<'a>>,
    /// Buffers to be used again.
    spare: Receiver<Vec<u8>>,
}

/// Their end of it.
struct Written<'a> {
    deliveries: Receiver<Delivery<'a>>,
    spare: Sender<Vec<u8>>,
}

impl<'a> Writers<'a> {
    fn new() -> (Writers<'a>, Written<'a>) {
        let (send, deliveries) = crossbeam_channel::bounded(MAX_DELIVERIES);
        let (give_back, spare) = crossbeam_channel::bounded(MAX_DELIVERIES);
        (Writers { deliveries: send, spare }, Written { deliveries, spare: give_back })
    }

    /// Hands a piece over; gives a buffer in the place of its.
    fn write(&self, group: &'a [Piece], plain: Vec<u8>) -> Vec<u8> {
        self.deliveries.send(Delivery { group, plain }).expect("they write as long as somebody reads");
        self.spare.try_recv().unwrap_or_default()
    }
}

impl Written<'_> {
    /// Writes until nobody has anything more.
    fn run(&self, run: &Run<'_>, batch: &Batch) {
        for Delivery { group, plain } in &self.deliveries {
            batch.deliver(run, group, Ok(&plain));
            // Few pieces are that large, and each buffer would grow to their size.
            if plain.capacity() <= MAX_SPARE {
                let _ = self.spare.try_send(plain);
            }
        }
    }
}

struct Worker<'a> {
    run: &'a Run<'a>,
    batch: &'a Batch,
    writers: Option<Writers<'a>>,
    unpacking: Unpacking,
    sealed: Vec<u8>,
    plains: Vec<Vec<u8>>,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>, batch: &'a Batch, writers: Option<Writers<'a>>) -> Self {
        Worker { run, batch, writers, unpacking: Unpacking::new(), sealed: Vec::new(), plains: Vec::new() }
    }

    fn span(&mut self, pieces: &'a [Piece]) {
        // Pieces that are the same blob follow one another.
        let groups: Vec<&'a [Piece]> = pieces.chunk_by(|a, b| a.location == b.location).collect();
        if self.run.options.dry_run {
            return groups.into_iter().for_each(|group| self.batch.deliver(self.run, group, Ok(&[])));
        }
        let first = groups[0][0].location;
        let begin = u64::from(first.blob.offset);
        // Not that of the last one: a wrong index may have blobs overlap.
        let ends = groups.iter().map(|group| {
            let blob = group[0].location.blob;
            u64::from(blob.offset) + u64::from(blob.length)
        });
        let length = ends.max().map_or(0, |end| end - begin);
        let pack = StoredFile::new(FileKind::Pack, first.pack);
        let read = self.run.repository.storage().read_range(&pack, begin, length, &mut self.sealed);
        if read.is_err() {
            // Another pack may have the same pieces; and not all of them need be out of reach.
            return groups.into_iter().for_each(|group| self.one_by_one(group));
        }
        self.plains.resize_with(self.plains.len().max(groups.len()), Vec::new);
        let mut opened = Vec::with_capacity(groups.len());
        for (group, plain) in groups.iter().zip(&mut self.plains) {
            let location = &group[0].location;
            let start = (u64::from(location.blob.offset) - begin) as usize;
            let sealed = &mut self.sealed[start..start + location.blob.length as usize];
            let (pack, blob) = (location.pack, &location.blob);
            let repository = self.run.repository;
            opened.push(repository.open_blob_unhashed(pack, blob, sealed, &mut self.unpacking, plain));
        }
        // Two hashes side by side take little longer than one.
        let ids = {
            let plains: Vec<&[u8]> = self.plains[..groups.len()].iter().map(Vec::as_slice).collect();
            sha256_many(&plains)
        };
        for (number, group) in groups.iter().enumerate() {
            let location = &group[0].location;
            let opened = std::mem::replace(&mut opened[number], Ok(()));
            let right = opened.and_then(|()| match ids[number] == location.blob.id {
                true => Ok(()),
                false => Err(wrong_hash(location.pack, &location.blob)),
            });
            match right {
                Ok(()) => {
                    let plain = std::mem::take(&mut self.plains[number]);
                    self.plains[number] = match &self.writers {
                        Some(writers) if plain.len() >= direct::LARGE && self.run.pace.is_quick() => {
                            writers.write(group, plain)
                        }
                        _ => {
                            self.batch.deliver(self.run, group, Ok(&plain));
                            plain
                        }
                    };
                }
                Err(_) => self.one_by_one(group),
            }
        }
    }

    /// Reads a piece from wherever it lies.
    fn one_by_one(&self, group: &[Piece]) {
        let mut plain = Vec::new();
        let mut reader = self.run.repository.reader(self.run.index);
        match reader.load(BlobKind::Data, &group[0].location.blob.id, &mut plain) {
            Ok(()) => self.batch.deliver(self.run, group, Ok(&plain)),
            Err(error) => self.batch.deliver(self.run, group, Err(&error)),
        }
    }
}
