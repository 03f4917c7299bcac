//! Files to a repository: walk, compare with the parent backup, read, cut, store.
//!
//! A few workers share one queue of jobs (pieces, files, directories). Whoever ends the last entry of a directory
//! stores it, up to the root; so no thread waits for another, and memory is bounded by the depth of the tree, not its
//! size. One file that cannot be read never stops a backup: it is named, counted and left out.
//!
//! Where a caller knows what changed since the parent backup ([`Changed`]), everything else is taken over from the
//! parent's trees without a look.
//!
//! Further files come from streams ([`Stream`]), which are read in parallel with the walk: what a database's dump tool
//! writes.
//!
//! Does not know of snapshots and databases.

mod changed;
mod copied;
mod directory;
mod elsewhere;
mod file;
mod gather;
mod job;
mod queue;
mod run;
mod store;
mod stream;
mod streaming;
mod targets;
mod totals;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use repository::blob_writer::{Added, BlobWriter, Destination};
use repository::id::Id;
use repository::index::Index;
use repository::record::{BackupRecord, Summary};
use repository::tree::Timestamp;
use repository::{Error, Repository};

use crate::attributes::Zone;
use crate::patterns::Patterns;
use crate::progress::Progress;

use changed::Changes;
use directory::Directory;
use elsewhere::Places;
use job::DirectoryJob;
use run::Run;
use stream::MadeUpFiles;
use totals::Totals;
use worker::Worker;

pub use changed::{Base, Changed, Dirty};
pub use elsewhere::Elsewhere;
pub use stream::{Input, Open, Stream, StreamEnd, StreamError, StreamFile, archive_stream};
pub use targets::absolute;

/// What to back up, and how.
pub struct Options<'a> {
    /// Absolute paths without `.` and `..`.
    pub paths: Vec<PathBuf>,
    /// Directories of theirs, or above them, that are read in another place.
    pub elsewhere: Vec<Elsewhere>,
    /// What to leave out, by name.
    pub exclude: Option<Patterns>,
    /// Leave out what lies in directories with a `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Leave out files with more bytes.
    pub exclude_larger_than: Option<u64>,
    /// Stay on the file systems of the paths.
    pub one_file_system: bool,
    /// Root tree of the backup to compare with.
    pub parent: Option<Id>,
    /// What may have changed since the parent, if that is known.
    pub changed: Option<Changed>,
    /// In which times are written.
    pub zone: Zone,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

/// What a run has done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The root directory's id.
    pub tree: Option<Id>,
    /// Counts, as records bear them; times are the caller's.
    pub summary: Summary,
    /// Files, directories and streams that could not be read as they should have been.
    pub errors: u64,
    /// Those of the errors that are no failure to read: somebody changed or removed the file just then.
    pub unsteady: u64,
    /// What was added to the repository.
    pub added: Added,
    /// What became of the streams, in their order.
    pub streams: Vec<StreamEnd>,
    /// What later runs may go on from, if they know what changed; `None` where a file could not be read. Streams are read
    /// each time, so one that failed does not matter.
    pub base: Option<Base>,
    /// Names and directories that the run has looked at.
    pub looked_at: u64,
    /// Whether the run went by [`Options::changed`].
    pub went_by_changes: bool,
}

/// Backs up the paths. Everything is durable when it returns; the record is the caller's to write.
pub fn archive(
    repository: &Arc<Repository>,
    index: &Arc<Index>,
    destination: Destination,
    options: &Options<'_>,
) -> Result<Outcome, Error> {
    archive_with(repository, index, destination, options, Vec::new())
}

/// As [`archive`], together with files that come from streams. They are read one after the other; one that fails is an
/// error with its path, and its file is left out.
pub fn archive_with(
    repository: &Arc<Repository>,
    index: &Arc<Index>,
    destination: Destination,
    options: &Options<'_>,
    streams: Vec<Stream<'_>>,
) -> Result<Outcome, Error> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let target = targets::tree(&options.paths);
    let made_up = MadeUpFiles::new(&streams, &target)?;
    let places = Places::new(&options.elsewhere, &target);
    let changes = Changes::new(options, &places, &made_up);
    let doubt = changes.root();
    let run = Run::new(options, places, changes, made_up, index, repository.chunker(), workers);
    let writer = BlobWriter::new(repository, index, destination);
    let root = Directory::root(options.parent);
    let root = DirectoryJob { directory: root, above: None, target, device: None, doubt, original: None };
    let worker = || Worker {
        run: &run,
        saver: writer.saver(),
        reader: repository.reader(index),
        small: Vec::new(),
        reading: None,
        zeros: None,
        placed: Vec::new(),
    };
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..workers {
            let worker = worker();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            thread.spawn_scoped(scope, || worker.work()).expect("the system gives a thread");
        }
        if streams.is_empty() {
            return run.queue.push(Vec::new(), vec![root]);
        }
        let mut worker = worker();
        worker.directory(root);
        let mut placed = std::mem::take(&mut worker.placed);
        placed.sort_by_key(|placed| placed.number);
        for (placed, stream) in placed.into_iter().zip(streams) {
            let Some(end) = worker.stream(placed, stream.open, &ends) else { return };
            ends.push(end);
        }
    });
    // A failing repository shows in the writer first; what the workers saw of it is only its echo.
    let added = match run.result() {
        Ok(tree) => writer.finish().map(|added| (tree, added)),
        Err(Error::Earlier(echo)) => Err(writer.finish().err().unwrap_or(Error::Earlier(echo))),
        Err(error) => Err(error),
    };
    let (tree, added) = added?;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &run.counts;
    let [files_new, files_changed, files_unmodified] =
        [&counts.files_new, &counts.files_changed, &counts.files_unmodified].map(load);
    let [dirs_new, dirs_changed, dirs_unmodified] =
        [&counts.dirs_new, &counts.dirs_changed, &counts.dirs_unmodified].map(load);
    let found = Totals {
        files: files_new + files_changed + files_unmodified,
        bytes: load(&counts.bytes),
        directories: dirs_new + dirs_changed + dirs_unmodified,
    };
    let totals = run.totals(found);
    let summary = Summary {
        files_new,
        files_changed,
        files_unmodified: totals.files.saturating_sub(files_new + files_changed),
        dirs_new,
        dirs_changed,
        dirs_unmodified: totals.directories.saturating_sub(dirs_new + dirs_changed),
        data_blobs: added.data_blobs,
        tree_blobs: added.tree_blobs,
        data_added: added.plain_bytes,
        data_added_packed: added.stored_bytes,
        total_files_processed: totals.files,
        total_bytes_processed: totals.bytes,
        ..Summary::default()
    };
    let (errors, unsteady) = (load(&counts.errors), load(&counts.unsteady));
    let failed_streams = ends.iter().filter(|end| end.bytes.is_err()).count() as u64;
    let base = (errors == failed_streams).then(|| run.base(tree, totals));
    let (looked_at, went_by_changes) = (load(&counts.looked_at), run.changes.any());
    Ok(Outcome { tree: Some(tree), summary, errors, unsteady, streams: ends, added, base, looked_at, went_by_changes })
}

/// The newest backup of the host that has all of the paths: what a new one is compared with.
pub fn find_parent<'r>(
    backups: &'r [(Id, BackupRecord)],
    hostname: &str,
    paths: &[String],
    before: Timestamp,
) -> Option<&'r (Id, BackupRecord)> {
    let candidates = backups.iter().filter(|(_, record)| {
        record.hostname == hostname && record.time <= before && paths.iter().all(|path| record.paths.contains(path))
    });
    candidates.max_by_key(|(_, record)| record.time)
}
