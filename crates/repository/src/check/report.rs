//! What a check found, in words a person can act on.

use std::collections::BTreeSet;
use std::fmt;

use crate::blob::BlobKind;
use crate::error::Error;
use crate::id::Id;
use crate::reachable::{Flaw, Place};
use crate::storage::{FileKind, StorageError, StoredFile};

/// A pack that is lost may touch every file; beyond this many, problems are only counted.
const MAX_PROBLEMS: usize = 10_000;

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// What is wrong.
    pub errors: Vec<Problem>,
    /// Problems beyond those in `errors`, which are only counted.
    pub more_errors: u64,
    /// What is odd but harms nothing.
    pub hints: Vec<Hint>,
    /// What was looked at.
    pub figures: Figures,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn error(&mut self, problem: Problem) {
        if self.errors.len() < MAX_PROBLEMS {
            self.errors.push(problem);
        } else {
            self.more_errors += 1;
        }
    }

    /// What to do about the errors, in the order to do it.
    pub fn ways_out(&self) -> Vec<String> {
        let mut ways: BTreeSet<_> = self.errors.iter().map(Problem::way_out).collect();
        // What is lost from packs is still in the backups.
        if ways.iter().any(|way| matches!(way, WayOut::RepairPacks(_) | WayOut::RepairIndex)) {
            ways.insert(WayOut::RepairBackups);
        }
        ways.iter().map(WayOut::to_string).collect()
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Records that could be read.
    pub backups: u64,
    /// Index files.
    pub index_files: u64,
    /// Packs the index names.
    pub packs: u64,
    /// Bytes of these packs.
    pub pack_bytes: u64,
    /// Entries of the index.
    pub blobs: u64,
    /// Blobs that backups use.
    pub used_blobs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of these packs.
    pub bytes_read: u64,
}

/// Something is wrong.
#[derive(Debug)]
pub enum Problem {
    /// A key, lock, index file or record cannot be read.
    File(StoredFile, Error),
    /// A pack that the index names is not there.
    PackMissing {
        /// Which.
        pack: Id,
        /// How many blobs it should hold.
        blobs: usize,
        /// Files that need it, the first few.
        affected: Vec<Place>,
    },
    /// A pack has another size than the blobs that the index names.
    PackSize {
        /// Which.
        pack: Id,
        /// In bytes.
        expected: u64,
        /// In bytes.
        actual: u64,
        /// Those of its blobs that are lost, if data was read.
        lost: Vec<(BlobKind, Id)>,
        /// Files that need them, the first few.
        affected: Vec<Place>,
    },
    /// The index says of a pack what no pack can be.
    PackEntries {
        /// Which.
        pack: Id,
    },
    /// A pack's bytes are not what they should be.
    PackDamaged {
        /// Which.
        pack: Id,
        /// What is wrong.
        reasons: Vec<String>,
        /// Those of its blobs that are lost.
        lost: Vec<(BlobKind, Id)>,
        /// Files that need them, the first few.
        affected: Vec<Place>,
    },
    /// Something is wrong in a backup's trees.
    Tree {
        /// Where.
        place: Place,
        /// What.
        flaw: Flaw,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::File(_, error) => write!(f, "{error}"),
            Problem::PackMissing { pack, blobs, affected } => {
                write!(f, "pack {pack} is missing, with {blobs} blobs")?;
                write_affected(f, affected)
            }
            Problem::PackSize { pack, expected, actual, lost, affected } => {
                write!(f, "pack {pack} has {actual} bytes, by the index it should have {expected}")?;
                write_lost(f, lost)?;
                write_affected(f, affected)
            }
            Problem::PackEntries { pack } => {
                write!(f, "the index contradicts itself: the blobs it names in pack {pack} overlap or leave gaps")
            }
            Problem::PackDamaged { pack, reasons, lost, affected } => {
                write!(f, "pack {pack} is damaged: {}", reasons.join("; "))?;
                write_lost(f, lost)?;
                write_affected(f, affected)
            }
            Problem::Tree { place, flaw } => write!(f, "{place}: {flaw}"),
        }
    }
}

fn write_lost(f: &mut fmt::Formatter<'_>, lost: &[(BlobKind, Id)]) -> fmt::Result {
    for (position, (kind, id)) in lost.iter().take(5).enumerate() {
        write!(f, "{}{} {}", if position == 0 { "; lost blobs: " } else { ", " }, kind.name(), id.short())?;
    }
    if lost.len() > 5 { write!(f, " and {} more", lost.len() - 5) } else { Ok(()) }
}

fn write_affected(f: &mut fmt::Formatter<'_>, affected: &[Place]) -> fmt::Result {
    for (position, place) in affected.iter().enumerate() {
        write!(f, "{}{place}", if position == 0 { "; needed by " } else { ", " })?;
    }
    Ok(())
}

/// What to do about a problem; the order is the one in which to do it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WayOut {
    /// Remove the locks.
    Unlock,
    /// Remove the key; another one opens the repository.
    RemoveKey(Id),
    /// Try again: the storage failed.
    CheckStorage,
    /// Save what can be saved of a pack.
    RepairPacks(Id),
    /// Build the index anew.
    RepairIndex,
    /// Take what is lost out of the backups.
    RepairBackups,
    /// Remove the record.
    Forget(Id),
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WayOut::Unlock => f.write_str("snapback repo unlock --all"),
            WayOut::RemoveKey(id) => write!(f, "snapback repo key remove {}", id.short()),
            WayOut::CheckStorage => {
                f.write_str("the storage failed, which says nothing of the repository: look after it, then check again")
            }
            WayOut::RepairPacks(id) => write!(f, "snapback repo repair packs {id}"),
            WayOut::RepairIndex => f.write_str("snapback repo repair index"),
            WayOut::RepairBackups => f.write_str("snapback repo repair backups"),
            WayOut::Forget(id) => write!(f, "snapback forget {}", id.short()),
        }
    }
}

impl Problem {
    /// What to do about it.
    pub fn way_out(&self) -> WayOut {
        match self {
            Problem::File(_, Error::Storage(StorageError::Io { .. })) => WayOut::CheckStorage,
            Problem::File(file, _) => match file.kind {
                FileKind::Key => WayOut::RemoveKey(file.id),
                FileKind::Lock => WayOut::Unlock,
                FileKind::Backup => WayOut::Forget(file.id),
                FileKind::Config | FileKind::Index | FileKind::Pack => WayOut::RepairIndex,
            },
            Problem::PackMissing { .. } | Problem::PackEntries { .. } => WayOut::RepairIndex,
            Problem::PackSize { pack, .. } | Problem::PackDamaged { pack, .. } => WayOut::RepairPacks(*pack),
            Problem::Tree { .. } => WayOut::RepairBackups,
        }
    }
}

/// Odd, but harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Packs that no index names: what an interrupted run left, or what a backup writes just now. Prune removes them.
    UnindexedPacks {
        /// How many.
        packs: u64,
        /// In bytes.
        bytes: u64,
    },
    /// Blobs that lie in more than one pack: left by an interrupted prune or by two backups at once. Prune removes them.
    DuplicateBlobs {
        /// Copies beyond the first.
        blobs: u64,
        /// What they take, in bytes.
        bytes: u64,
    },
    /// Packs with both trees and data, written by restic before 0.8. Prune separates them.
    MixedPacks(u64),
    /// Blobs that no backup uses. Prune removes them.
    UnusedBlobs(u64),
    /// Lock files without content, which a full disk leaves. They lock nothing.
    EmptyLocks(u64),
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hint::UnindexedPacks { packs, bytes } => write!(
                f,
                "{packs} packs ({bytes} bytes) are in no index: leftovers of an interrupted run, or of one that is \
                 running; `snapback repo prune` removes them"
            ),
            Hint::DuplicateBlobs { blobs, bytes } => {
                write!(f, "{blobs} blobs ({bytes} bytes) are stored twice; `snapback repo prune` removes them")
            }
            Hint::MixedPacks(packs) => {
                write!(f, "{packs} packs hold both trees and data; `snapback repo prune` separates them")
            }
            Hint::UnusedBlobs(blobs) => write!(f, "{blobs} blobs are used by no backup; `snapback repo prune`"),
            Hint::EmptyLocks(locks) => {
                write!(f, "{locks} lock files are empty; `snapback repo unlock --all` removes them")
            }
        }
    }
}
