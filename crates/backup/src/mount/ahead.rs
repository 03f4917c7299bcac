//! Reading ahead: whoever reads a file from front to back finds the next blobs decoded already.
//!
//! The kernel asks for 128 KiB at a time and, left alone, would have each blob fetched and decoded only when it gets
//! there, on one core.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use repository::id::Id;

use super::contents::Contents;
use super::layout::Layout;

/// How many blobs ahead of the reader; at some MiB each they must be few beside what the cache holds.
const BLOBS: usize = 3;
const THREADS: usize = 3;

/// The threads that read ahead. They end when this is dropped.
pub(super) struct Ahead {
    wanted: Sender<Id>,
}

/// How far a file has been read.
pub(super) struct Position {
    /// Number of the blob that was read last.
    last: AtomicUsize,
    /// Blobs before this one have been asked for.
    ahead: AtomicUsize,
}

impl Position {
    pub(super) fn new() -> Position {
        Position { last: AtomicUsize::new(usize::MAX), ahead: AtomicUsize::new(0) }
    }
}

impl Ahead {
    pub(super) fn new(contents: &Arc<Contents>) -> io::Result<Ahead> {
        let (wanted, blobs): (Sender<Id>, Receiver<Id>) = bounded(2 * BLOBS);
        for number in 0..THREADS {
            let (blobs, contents) = (blobs.clone(), Arc::clone(contents));
            std::thread::Builder::new().name(format!("read-ahead-{number}")).spawn(move || {
                for id in blobs {
                    // Whoever reads it really will meet the error too, and tell.
                    let _ = contents.blob(&id);
                }
            })?;
        }
        Ok(Ahead { wanted })
    }

    /// Blob `number` of a file is being read.
    pub(super) fn reading(&self, layout: &Layout, position: &Position, number: usize) {
        let last = position.last.swap(number, Ordering::Relaxed);
        // The first read of a file says nothing yet, and whoever jumps around would only be slowed down.
        if last != number && last.checked_add(1) != Some(number) {
            return;
        }
        let until = number + 1 + BLOBS;
        let from = position.ahead.fetch_max(until, Ordering::Relaxed).max(number + 1);
        for id in (from..until).map_while(|number| layout.blob(number)) {
            // Full: the disk or the network is what limits, not the wait for it.
            let _ = self.wanted.try_send(id);
        }
    }
}
