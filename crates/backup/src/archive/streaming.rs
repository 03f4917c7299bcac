//! Streams: given their places in the tree, and read one after the other by the thread that has begun the run, while the
//! workers walk. Its pieces go to whoever has time, as those of large files do.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use repository::chunker::MAX_BYTES;
use repository::tree::{Node, NodeKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;

use crate::archive::directory::{Directory, Place, Previous, subtree};
use crate::archive::job::{OpenFile, Placed};
use crate::archive::stream::{Input, MadeUp, Open, StreamEnd};
use crate::archive::worker::Worker;

/// Read at most so much at a time, in bytes; what is offered is zeroed before each read.
const READ_BYTES: usize = 256 << 10;
/// What a pipe may hold, in bytes, instead of 64 KiB: the writer goes on while a piece is stored. Every user may have as
/// much (pipe(7), `/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES: usize = 1 << 20;
/// Left alone for so long, a pipe gathers what would else be read in parts of 4 KiB, as dump tools write, each of which
/// would wake this thread and so stop the server for a while (docs/performance.md).
const PAUSE: Duration = Duration::from_millis(1);
/// How much is gathered before it is searched for a cut: the chunker is slow in small parts.
const SEARCH_BYTES: usize = 256 << 10;
/// A stream that stands still is left after at most this time once the run has ended.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

impl Worker<'_> {
    /// Gives what streams make up its places.
    pub(super) fn make_up(&mut self, place: Place, made_up: &MadeUp, previous: Option<Node>) {
        match made_up {
            MadeUp::File(number) => {
                let is_new = previous.is_none_or(|node| node.kind != NodeKind::File);
                self.placed.push(Placed { number: *number, place, is_new });
            }
            MadeUp::Directory(below) => {
                let directory = Directory::below(&place, subtree(previous.as_ref()));
                let mut known = Previous::new(self.previous(&directory));
                let file = made_up.first().map(|number| self.run.made_up.file(number));
                let node = file.map(|file| file.directory_node(&place.name));
                directory.expect(node, below.iter().map(|_| None).collect(), below.len());
                for (position, (name, made_up)) in below.iter().enumerate() {
                    let place = Place { directory: Arc::clone(&directory), position, name: name.clone() };
                    self.make_up(place, made_up, known.take(name));
                }
                self.directory_is_listed(&directory);
            }
        }
    }

    /// Reads one stream to its end. `None` if the run has ended before.
    pub(super) fn stream(&mut self, placed: Placed, open: Open<'_>, before: &[StreamEnd]) -> Option<StreamEnd> {
        let started = Instant::now();
        let Placed { number, place, is_new } = placed;
        let file = OpenFile::of_stream(place.clone());
        let path = self.run.made_up.file(number).path.clone();
        let bytes = open(before).and_then(|mut input| self.read_stream(&mut *input, &file)).map_err(Arc::new);
        // The end of the run is no fault of the stream.
        if self.run.is_stopped() {
            return None;
        }
        match &bytes {
            Ok(bytes) => {
                self.run.count_file(is_new, *bytes);
                self.run.options.progress.file_done(&|| path.clone());
                let node = Node { size: *bytes, ..self.run.made_up.file(number).node(&place.name) };
                if let Some(node) = file.end(node) {
                    self.entry_is_there(&place, node);
                }
            }
            Err(error) => {
                self.run.source_error(&path, error);
                self.entry_is_missing(&place);
            }
        }
        Some(StreamEnd { path, bytes, time: started.elapsed() })
    }

    fn read_stream(&mut self, input: &mut dyn Input, file: &Arc<OpenFile>) -> io::Result<u64> {
        // What is no pipe, or may not grow, is read as it is.
        let is_wide = input.fd().is_some_and(|fd| fcntl_setpipe_size(fd, PIPE_BYTES).is_ok());
        let (mut chunk, mut scanned, mut number, mut total) = (self.run.buffer(), 0, 0, 0_u64);
        loop {
            self.wait_for(input)?;
            let room = READ_BYTES.min(MAX_BYTES.saturating_sub(chunk.len()));
            let read = fill(input, room, &mut chunk)?;
            if is_wide && (1..room).contains(&read) {
                std::thread::sleep(PAUSE);
            }
            total += read as u64;
            self.run.options.progress.bytes_done(read as u64);
            if read > 0 && chunk.len() - scanned < SEARCH_BYTES && chunk.len() < MAX_BYTES {
                continue;
            }
            match self.run.chunker.find_cut(&chunk, scanned) {
                Some(length) => {
                    let mut next = self.run.buffer();
                    next.extend_from_slice(&chunk[length..]);
                    chunk.truncate(length);
                    let full = std::mem::replace(&mut chunk, next);
                    self.piece(file, number, full);
                    number += 1;
                    scanned = 0;
                }
                None if read == 0 => {
                    if chunk.is_empty() {
                        self.run.give_back(chunk);
                    } else {
                        self.piece(file, number, chunk);
                    }
                    return Ok(total);
                }
                None => scanned = chunk.len(),
            }
        }
    }

    /// Until there is something to read; an error if the run ends before.
    fn wait_for(&self, input: &dyn Input) -> io::Result<()> {
        loop {
            if self.run.is_stopped() {
                return Err(io::Error::other("the run has ended"));
            }
            match input.fd().map(is_ready).transpose()? {
                None | Some(true) => return Ok(()),
                Some(false) => {}
            }
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let timeout = Timespec::try_from(LOOK_UP_EVERY).map_err(io::Error::other)?;
    // Its end and its errors are told by reading.
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Appends what one read gives, up to `room` bytes; 0 at the end, or if there is no room.
fn fill(input: &mut dyn Input, room: usize, chunk: &mut Vec<u8>) -> io::Result<usize> {
    let start = chunk.len();
    chunk.resize(start + room, 0);
    let read = loop {
        match input.read(&mut chunk[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    chunk.truncate(start + read.as_ref().copied().unwrap_or(0));
    read
}
