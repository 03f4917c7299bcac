//! What long work tells its caller, and how the caller stops it.
//!
//! All methods have defaults that do nothing, and are called from several threads at once.

use std::fmt;

use crate::error::Error;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading index files; items are files.
    Index,
    /// Reading the trees that backups reach; items are trees.
    Trees,
    /// Reading packs whole; items are packs.
    ReadPacks,
    /// Reading packs' headers; items are packs.
    Headers,
    /// Writing blobs again, in new packs; items are blobs.
    Repack,
    /// Copying blobs; items are blobs.
    Copy,
    /// Rewriting records and their trees; items are records.
    Records,
    /// Writing index files; items are packs.
    WriteIndex,
    /// Removing files; items are files.
    Remove,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Index => "reading the index",
            Phase::Trees => "reading trees",
            Phase::ReadPacks => "reading packs",
            Phase::Headers => "reading headers",
            Phase::Repack => "repacking",
            Phase::Copy => "copying",
            Phase::Records => "rewriting records",
            Phase::WriteIndex => "writing the index",
            Phase::Remove => "removing files",
        })
    }
}

/// Whoever watches long work.
pub trait Progress: Sync {
    /// A phase begins. Totals are `None` where nobody knows them beforehand.
    fn begin(&self, _phase: Phase, _items: Option<u64>, _bytes: Option<u64>) {}

    /// So much more of the phase is done.
    fn advance(&self, _items: u64, _bytes: u64) {}

    /// Something the user should know, which does not stop the work.
    fn warning(&self, _text: &str) {}

    /// Whether to stop. Asked between small steps; what was begun is left so that the next run goes on.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
pub struct Unwatched;

impl Progress for Unwatched {}

/// [`Error::Cancelled`] if the caller wants to stop.
pub(crate) fn go_on(progress: &dyn Progress) -> Result<(), Error> {
    if progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}
