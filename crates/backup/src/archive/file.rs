//! Files: read, cut into pieces, and each piece stored by whichever worker has time.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use repository::blob::BlobKind;
use repository::chunker::{MAX_BYTES, MIN_BYTES};
use repository::id::Id;
use repository::tree::Node;
use rustix::fs::{Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::Errno;

use crate::archive::copied::with_identity;
use crate::archive::job::{ChunkJob, FileJob, OpenFile};
use crate::archive::worker::Worker;
use crate::attributes::{Entry, Stat, extended_attributes, node_from};

/// How much is read at a time, in bytes. The tail behind a cut is copied, so less is better; each read costs a
/// system call, so more is.
const READ_BYTES: usize = 256 << 10;

impl Worker<'_> {
    /// Reads one file.
    pub(super) fn file(&mut self, job: FileJob) {
        let open = match open(&job) {
            Ok(open) => open,
            Err(error) => {
                let path = job.place.path();
                match error {
                    Errno::NOENT | Errno::LOOP => self.run.source_unsteady(&path, &explain_open(error)),
                    error => self.run.source_error(&path, &explain_open(error)),
                }
                return self.entry_is_missing(&job.place);
            }
        };
        // What was opened may be another file than the one that was listed.
        let stat = match Stat::of(open.as_fd()) {
            Ok(stat) if stat.mode & S_IFMT == S_IFREG => {
                job.identity.map_or(stat, |listed| with_identity(stat, &listed))
            }
            Ok(_) => {
                self.run.source_unsteady(&job.place.path(), &"it is no regular file any more");
                return self.entry_is_missing(&job.place);
            }
            Err(error) => {
                self.run.source_error(&job.place.path(), &format_args!("cannot read its metadata: {error}"));
                return self.entry_is_missing(&job.place);
            }
        };
        let links = (stat.links > 1).then_some((stat.device, stat.inode));
        let mut node = self.node(&job, &stat, &open);
        let known = links.and_then(|inode| self.run.hard_links.get(inode, &stat));
        let done = match known {
            Some(content) => Ok(Read { bytes: stat.size, content: Some(content) }),
            None => self.read(&open, &job, &stat),
        };
        match done {
            // The end of the run is no fault of the file.
            Err(_) if self.run.is_stopped() => {}
            Err(error) => {
                self.run.source_error(&job.place.path(), &format_args!("cannot read it: {error}"));
                self.entry_is_missing(&job.place);
            }
            Ok(Read { bytes, content }) => {
                self.report_change(&open, &job, &stat, bytes);
                node.size = bytes;
                self.run.count_file(job.is_new, bytes);
                let place = job.place;
                self.run.options.progress.file_done(&|| place.path());
                match content {
                    Some(content) => {
                        if let Some(inode) = links.filter(|_| bytes == stat.size) {
                            self.run.hard_links.put(inode, &stat, content.clone());
                        }
                        node.content = Some(content);
                        self.entry_is_there(&place, node);
                    }
                    // Pieces are with other workers, and the last one of them ends it.
                    None => self.finish_reading(node),
                }
            }
        }
    }

    fn node(&self, job: &FileJob, stat: &Stat, open: &OwnedFd) -> Node {
        use std::os::unix::ffi::OsStrExt as _;
        let name = job.place.name.as_bytes();
        // The path is for messages and for the numbers of file systems, and costs more than the rest.
        let directory = if stat.links > 1 { job.place.directory.path_of("".as_ref()) } else { Default::default() };
        let mut node = node_from(name, stat, &directory, &self.run.context);
        let entry = Entry { dir: job.above.as_fd(), name, dir_path: &directory };
        node.extended_attributes = extended_attributes(entry, Some(open.as_fd()), &mut |error| {
            self.run.source_error(&job.place.path(), &error);
        });
        node
    }

    /// A file that changes while it is read is saved as it was read; that it is no single moment must be said.
    fn report_change(&self, open: &OwnedFd, job: &FileJob, before: &Stat, bytes: u64) {
        let path = || job.place.path();
        match Stat::of(open.as_fd()) {
            Ok(after) if after.size > before.size => {
                self.run.source_unsteady(&path(), &"it grew while it was read; its beginning is saved");
            }
            Ok(after) if after.size < before.size || bytes < before.size => {
                self.run.source_unsteady(&path(), &"it shrank while it was read; what was left is saved");
            }
            Ok(after) if after.mtime != before.mtime => {
                self.run.source_unsteady(&path(), &"it changed while it was read; it may be inconsistent");
            }
            Ok(_) => {}
            Err(error) => self.run.source_error(&path(), &error),
        }
    }

    fn read(&mut self, open: &OwnedFd, job: &FileJob, stat: &Stat) -> io::Result<Read> {
        if stat.size <= MIN_BYTES as u64 { self.read_small(open, stat) } else { self.read_large(open, job, stat) }
    }

    /// A file that is a single piece, in the worker's own buffer.
    fn read_small(&mut self, open: &OwnedFd, stat: &Stat) -> io::Result<Read> {
        let mut bytes = std::mem::take(&mut self.small);
        bytes.clear();
        let mut content = Vec::new();
        // Not to the end of the file but to the size it had: whoever appends faster than we read has no end. Files that
        // the kernel or a FUSE program makes up when they are read often say 0.
        let wanted = if stat.size == 0 { MIN_BYTES } else { stat.size as usize };
        let read = append(open, 0, wanted, &mut bytes);
        if read.is_ok() && !bytes.is_empty() {
            self.run.options.progress.bytes_done(bytes.len() as u64);
            if let Some(id) = self.store(&bytes) {
                content.push(id);
            }
        }
        let length = bytes.len() as u64;
        self.small = bytes;
        read?;
        Ok(Read { bytes: length, content: Some(content) })
    }

    fn read_large(&mut self, open: &OwnedFd, job: &FileJob, stat: &Stat) -> io::Result<Read> {
        let file = OpenFile::new(job.place.clone(), *stat);
        self.reading = Some(Arc::clone(&file));
        let mut holes = Holes::new(stat);
        let (mut chunk, mut scanned, mut position, mut number) = (self.run.buffer(), 0, 0_u64, 0);
        loop {
            if chunk.is_empty() {
                // Zeros are cut at the minimum, so a hole is a row of the same piece, without reading it.
                while !self.run.is_stopped() && holes.cover(open, position, MIN_BYTES as u64) {
                    let Some(zeros) = self.zeros() else { return Err(io::Error::other("the run has failed")) };
                    file.expect_piece();
                    file.add(number, zeros);
                    number += 1;
                    position += MIN_BYTES as u64;
                    self.run.options.progress.bytes_done(MIN_BYTES as u64);
                }
            }
            let gathered = chunk.len();
            let left = stat.size.saturating_sub(position + gathered as u64);
            let want = MIN_BYTES.saturating_sub(gathered).clamp(READ_BYTES, MAX_BYTES);
            let want = usize::try_from(left).unwrap_or(want).min(want);
            if want > 0 && gathered < MAX_BYTES {
                append(open, position + gathered as u64, want, &mut chunk)?;
                self.run.options.progress.bytes_done((chunk.len() - gathered) as u64);
            }
            let at_end = want == 0 || chunk.len() < gathered + want;
            let cut = self.run.chunker.find_cut(&chunk, scanned);
            scanned = chunk.len();
            if let Some(cut) = cut {
                let mut next = self.run.buffer();
                next.extend_from_slice(&chunk[cut..]);
                chunk.truncate(cut);
                position += cut as u64;
                let full = std::mem::replace(&mut chunk, next);
                self.piece(&file, number, full);
                number += 1;
                scanned = 0;
            } else if at_end {
                position += chunk.len() as u64;
                if chunk.is_empty() {
                    self.run.give_back(chunk);
                } else {
                    self.piece(&file, number, chunk);
                }
                return Ok(Read { bytes: position, content: None });
            }
            if self.run.is_stopped() {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
        }
    }

    /// Gives a piece to whoever has time, or stores it here.
    pub(super) fn piece(&mut self, file: &Arc<OpenFile>, number: usize, bytes: Vec<u8>) {
        file.expect_piece();
        let job = ChunkJob { file: Arc::clone(file), number, bytes };
        if let Some(job) = self.run.queue.offer(job) {
            self.chunk(job);
        }
    }

    /// Stores one piece.
    pub(super) fn chunk(&mut self, job: ChunkJob) {
        let ChunkJob { file, number, bytes } = job;
        let Some(id) = self.store(&bytes) else { return };
        self.run.give_back(bytes);
        if let Some(node) = file.add(number, id) {
            self.finish_large(&file, node);
        }
    }

    fn finish_large(&mut self, file: &OpenFile, node: Node) {
        if let Some(stat) = file.stat.filter(|stat| stat.links > 1 && node.size == stat.size)
            && let Some(content) = &node.content
        {
            self.run.hard_links.put((stat.device, stat.inode), &stat, content.clone());
        }
        self.entry_is_there(&file.place, node);
    }

    fn finish_reading(&mut self, node: Node) {
        let Some(file) = self.reading.take() else { return };
        if let Some(node) = file.end(node) {
            self.finish_large(&file, node);
        }
    }

    /// Stores bytes; `None` if the repository failed, which ends the run.
    fn store(&mut self, bytes: &[u8]) -> Option<Id> {
        match self.saver.save(BlobKind::Data, bytes) {
            Ok(saved) => Some(saved.id),
            Err(error) => {
                self.run.fail(error);
                None
            }
        }
    }

    fn zeros(&mut self) -> Option<Id> {
        if self.zeros.is_none() {
            self.zeros = self.store(&vec![0; MIN_BYTES]);
        }
        self.zeros
    }
}

/// What reading a file gave.
struct Read {
    bytes: u64,
    /// `None` if other workers still have pieces.
    content: Option<Vec<Id>>,
}

/// Where a sparse file's holes are.
struct Holes {
    /// Without holes the questions are saved.
    sparse: bool,
    /// The hole that was found last.
    hole: std::ops::Range<u64>,
    /// Up to here there is data, as far as is known.
    data_until: u64,
    size: u64,
}

impl Holes {
    fn new(stat: &Stat) -> Self {
        let sparse = stat.blocks.saturating_mul(512) < stat.size;
        Holes { sparse, hole: 0..0, data_until: 0, size: stat.size }
    }

    /// Whether the `length` bytes from `position` all lie in a hole.
    fn cover(&mut self, open: &OwnedFd, position: u64, length: u64) -> bool {
        if !self.sparse || position + length > self.size {
            return false;
        }
        if position >= self.hole.end && position >= self.data_until {
            let start = match seek(open, SeekFrom::Hole(position)) {
                Ok(start) => start,
                // The file shrank, or the file system has no holes.
                Err(_) => self.size,
            };
            self.data_until = start;
            let end = match seek(open, SeekFrom::Data(start)) {
                Ok(end) => end,
                Err(Errno::NXIO) => self.size,
                Err(_) => start,
            };
            self.hole = start..end;
        }
        self.hole.start <= position && position + length <= self.hole.end
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

fn open(job: &FileJob) -> Result<OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt as _;
    // Non-blocking: what was a file may be a fifo by now, and nobody writes to it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let name = job.place.name.as_bytes();
    match openat(&job.above, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave the access time alone.
        Err(Errno::PERM) => openat(&job.above, name, flags, Mode::empty()),
        opened => opened,
    }
}

fn explain_open(error: Errno) -> String {
    match error {
        Errno::NOENT => "it vanished before it could be read".to_owned(),
        Errno::LOOP => "it is no regular file any more".to_owned(),
        error => format!("cannot open it: {error}"),
    }
}

/// Appends up to `length` bytes from `offset`; fewer at the end of the file.
fn append(open: &OwnedFd, offset: u64, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.reserve(length);
    while into.len() < start + length {
        let (got, wanted) = (into.len() - start, start + length - into.len());
        let read = match rustix::io::pread(open, &mut into.spare_capacity_mut()[..wanted], offset + got as u64) {
            Ok((read, _)) => read.len(),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            break;
        }
        // SAFETY: the kernel has filled that many bytes behind what the vector held.
        unsafe { into.set_len(start + got + read) };
    }
    Ok(())
}
