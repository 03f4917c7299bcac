//! What was restored, read back: the disk's word, not that of the calls that wrote it.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use repository::Error;
use repository::blob::BlobKind;
use repository::id::Id;
use repository::tree::Node;
use rustix::fs::{Mode, OFlags, openat};

use crate::attributes::Stat;
use crate::restore::existing::differing;
use crate::restore::place::Place;
use crate::restore::run::{Run, add};

/// Reads files back on all cores, and compares their sizes and their pieces' hashes with the backup's.
pub(super) fn verify(run: &Run<'_>, files: &[(&Place, &Node)]) -> Result<(), Error> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((place, node)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if run.options.progress.is_cancelled() {
                return;
            }
            match read_back(run, place, node) {
                Ok(()) => add(&run.counts.verified, 1),
                Err(reason) => run.error(&place.path(), &format_args!("not restored as it should be: {reason}")),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..threads.min(files.len()) {
            scope.spawn(work);
        }
        work();
    });
    if run.options.progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

fn read_back(run: &Run<'_>, place: &Place, node: &Node) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = place.directory.open().and_then(|dir| openat(&dir, &*place.name, flags, Mode::empty()));
    let file = opened.map_err(|error| format!("it cannot be opened: {error}"))?;
    let size = Stat::of(file.as_fd()).map_err(|error| error.to_string())?.size;
    if size != node.size {
        return Err(format!("it has {size} bytes, and {} in the backup", node.size));
    }
    let content = node.content.as_deref().unwrap_or_default();
    let length = |id: &Id| run.index.get(BlobKind::Data, id).map(|location| (*id, location.blob.plain_length()));
    let pieces: Vec<_> = content.iter().filter_map(length).collect();
    let differs = differing(&file, &pieces, |_| {}).map_err(|error| format!("it cannot be read: {error}"))?;
    match differs.iter().filter(|differs| **differs).count() {
        0 => Ok(()),
        count => Err(format!("{count} of its {} pieces are not those of the backup", differs.len())),
    }
}
