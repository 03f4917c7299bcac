//! One file in the making: its pieces come in any order and from several threads; whoever writes the last one gives
//! it its length and its attributes.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use repository::tree::Node;
use repository::{Error, direct};
use rustix::fs::{Mode, OFlags, chmod, ftruncate, openat};
use rustix::io::Errno;

use crate::attributes::Before;
use crate::restore::place::Place;
use crate::restore::reserve::Reserve;
use crate::restore::run::{Run, add};

/// Zeros are left out as holes in blocks of this size, that of the usual file systems.
const BLOCK: usize = 4096;

pub(super) struct File {
    pub(super) place: Place,
    node: Node,
    state: FileState,
    /// Pieces still to be written.
    missing: AtomicUsize,
    failed: Mutex<Option<String>>,
    written: AtomicU64,
    has_length: AtomicBool,
    edges: Edges,
    reserve: Reserve,
    restored: AtomicBool,
}

/// A piece's bytes, for all places that want it.
pub(super) struct Plain<'a> {
    bytes: &'a [u8],
    /// Looked at once: a sparse file is the same piece thousands of times.
    is_zeros: OnceLock<bool>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Plain { bytes, is_zeros: OnceLock::new() }
    }

    fn is_zeros(&self) -> bool {
        *self.is_zeros.get_or_init(|| runs_of_data(self.bytes, 0).is_empty())
    }
}

/// What of pieces that went past the kernel's cache did not fill a block. It goes through the cache, but later: each
/// such write would wait until all others into the file have reached the disk.
#[derive(Default)]
struct Edges(Mutex<Vec<(u64, Box<[u8]>)>>);

impl Edges {
    /// Keeps less than two megabytes.
    const MOST: usize = 512;

    fn add(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut edges = self.0.lock().expect("no panic while edges are held");
        edges.push((offset, bytes.into()));
        let is_full = edges.len() >= Self::MOST;
        drop(edges);
        if is_full { self.write(file) } else { Ok(()) }
    }

    fn write(&self, file: &OwnedFd) -> Result<(), Errno> {
        let edges = std::mem::take(&mut *self.0.lock().expect("no panic while edges are held"));
        edges.iter().try_for_each(|(offset, bytes)| direct::write_cached(file, bytes, *offset))
    }
}

pub(super) enum FileState {
    /// Nothing is there: holes need no writing.
    New,
    /// It is there, with what it had.
    Existing(Before),
}

impl File {
    pub(super) fn new(place: Place, node: Node, state: FileState, pieces: usize) -> Self {
        let (failed, written, restored) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        let (missing, has_length) = (AtomicUsize::new(pieces), AtomicBool::new(false));
        let content = node.content.as_deref().unwrap_or_default();
        let reserve = Reserve::new(matches!(state, FileState::New), node.size, content);
        File { place, node, state, reserve, missing, failed, written, has_length, edges: Edges::default(), restored }
    }

    /// What was to be restored, if it was.
    pub(super) fn restored(&self) -> Option<(&Place, &Node)> {
        self.restored.load(Ordering::Relaxed).then_some((&self.place, &self.node))
    }

    /// Writes one piece, or notes why there is none. A dry run only counts its length in bytes.
    pub(super) fn write(&self, run: &Run<'_>, plain: Result<&Plain<'_>, &Error>, offset: u64, length: u64) {
        let is_new = matches!(self.state, FileState::New);
        let is_only = is_new && self.node.content.as_ref().is_some_and(|content| content.len() == 1);
        let written = match plain {
            Err(error) => Err(error.to_string()),
            Ok(_) if run.options.dry_run => {
                self.written.fetch_add(length, Ordering::Relaxed);
                Ok(None)
            }
            Ok(plain) => self.write_at(run, plain, offset).map_err(|error| {
                run.note_full(error);
                format!("cannot write it: {error}")
            }),
        };
        let open = match written {
            // Made, written and finished in one go.
            Ok(open) => open.filter(|_| is_only),
            Err(reason) => {
                self.failed.lock().expect("no panic while a file is held").get_or_insert(reason);
                None
            }
        };
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish(run, open.as_ref());
        }
    }

    fn write_at(&self, run: &Run<'_>, plain: &Plain<'_>, offset: u64) -> Result<Option<OwnedFd>, Errno> {
        let data = match self.state {
            FileState::New if plain.is_zeros() => {
                self.reserve.leave_out(offset, plain.bytes.len());
                return Ok(None);
            }
            FileState::New => runs_of_data(plain.bytes, offset),
            FileState::Existing(_) => vec![(0, plain.bytes)],
        };
        let file = self.open()?;
        let is_new = matches!(self.state, FileState::New);
        if is_new && plain.bytes.len() as u64 != self.node.size && !self.has_length.swap(true, Ordering::Relaxed) {
            // Before the first byte: XFS allocates ahead where a write makes a file longer, and that fills holes.
            ftruncate(&file, self.node.size)?;
            self.reserve.begin(&file, self.node.size);
        }
        if is_new {
            self.reserve.leave_out_between(offset, plain.bytes.len(), &data);
            self.reserve.give_back_some(&file)?;
        }
        let mut written = 0;
        for (start, bytes) in data {
            let offset = offset + start as u64;
            let blocks = direct::whole_blocks(offset, bytes.len());
            if is_new && !blocks.is_empty() && run.pace.is_quick() {
                let (start, end) = (blocks.start, blocks.end);
                run.pace.write(&file, &bytes[blocks], offset + start as u64)?;
                self.edges.add(&file, &bytes[..start], offset)?;
                self.edges.add(&file, &bytes[end..], offset + end as u64)?;
            } else {
                direct::write_cached(&file, bytes, offset)?;
            }
            written += bytes.len() as u64;
        }
        self.written.fetch_add(written, Ordering::Relaxed);
        Ok(Some(file))
    }

    /// Opens the file for writing; a new one is made by whoever comes first.
    fn open(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = if matches!(self.state, FileState::New) { flags | OFlags::CREATE } else { flags };
        let (directory, name) = (&self.place.directory.open()?, &*self.place.name);
        let owner_alone = Mode::RUSR | Mode::WUSR;
        match openat(directory, name, flags, owner_alone) {
            // Its owner may still make it writable; its mode is set at the end anyway.
            Err(Errno::ACCESS) => {
                let path = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                chmod(format!("/proc/self/fd/{}", path.as_raw_fd()), owner_alone)?;
                openat(directory, name, flags, owner_alone)
            }
            opened => opened,
        }
    }

    /// Says why a piece could not be written, if so.
    pub(super) fn report_failure(&self, run: &Run<'_>) -> bool {
        let reason = self.failed.lock().expect("no panic while a file is held").take();
        if let Some(reason) = &reason {
            run.error(&self.place.path(), &format_args!("not restored in full: {reason}"));
        }
        reason.is_some()
    }

    /// All pieces are written: counts the file, and gives it its length and attributes.
    pub(super) fn finish(&self, run: &Run<'_>, open: Option<&OwnedFd>) {
        if self.report_failure(run) {
            return;
        }
        add(&run.counts.files_restored, 1);
        let written = self.written.load(Ordering::Relaxed);
        add(&run.counts.bytes_written, written);
        run.options.progress.file_done(&|| self.place.path());
        if run.options.dry_run {
            return;
        }
        let finish = |file: &OwnedFd| -> Result<(), Errno> {
            self.edges.write(file)?;
            self.reserve.give_back(file)?;
            let is_full_length = matches!(self.state, FileState::New) && written == self.node.size;
            if !is_full_length {
                ftruncate(file, self.node.size)?;
            }
            let before = match self.state {
                FileState::New => run.before_of_new(&self.place, file)?,
                FileState::Existing(before) => before,
            };
            run.finish_file(&self.place, &self.node, Some(file), &before);
            Ok(())
        };
        let finished = match open {
            Some(file) => finish(file),
            None => self.open().and_then(|file| finish(&file)),
        };
        match finished {
            Ok(()) => self.restored.store(true, Ordering::Relaxed),
            Err(error) => {
                run.note_full(error);
                run.error(&self.place.path(), &format_args!("cannot finish it: {error}"));
            }
        }
    }
}

/// The parts of a piece that are not zeros, with their offsets in it. Where it lies at `offset` of a file, they begin
/// and end with the file's blocks; of a block on the piece's edge, each piece has its part to say.
fn runs_of_data(plain: &[u8], offset: u64) -> Vec<(usize, &[u8])> {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut start = 0;
    while start < plain.len() {
        let length = BLOCK - (offset + start as u64) as usize % BLOCK;
        let end = plain.len().min(start + length);
        if plain[start..end] != ZEROS[..end - start] {
            match runs.last_mut() {
                Some((_, last)) if *last == start => *last = end,
                _ => runs.push((start, end)),
            }
        }
        start = end;
    }
    runs.into_iter().map(|(start, end)| (start, &plain[start..end])).collect()
}
