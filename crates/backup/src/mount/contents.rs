//! What the mount shows, out of the repository: records, trees and blobs, each loaded when it is asked for.
//!
//! The repository may change meanwhile. Which backups there are is looked up again now and then; the index is loaded
//! again when a record or a tree names what it does not know.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use repository::blob::BlobKind;
use repository::id::Id;
use repository::index::Index;
use repository::record::BackupRecord;
use repository::storage::{FileKind, StorageError};
use repository::tree::{Node, Tree};
use repository::{BlobReader, Error, Repository};

use super::cache::Cache;
use super::listing::Listing;
use crate::progress::Progress;

/// A repository behind caches. Shared between threads.
pub(super) struct Contents {
    repository: Arc<Repository>,
    index: RwLock<Arc<Known>>,
    index_loaded: Mutex<Instant>,
    listing: RwLock<Arc<Listing>>,
    records: Mutex<Records>,
    trees: Cache<Tree>,
    blobs: Cache<Vec<u8>>,
    reload_after: Duration,
    pub(super) progress: Arc<dyn Progress + Send + Sync>,
}

/// How much is kept in memory, and for how long.
pub(super) struct Limits {
    pub(super) tree_cache_bytes: usize,
    pub(super) blob_cache_bytes: usize,
    pub(super) reload_after: Duration,
}

/// An index, and what it adds up to.
pub(super) struct Known {
    pub(super) index: Arc<Index>,
    /// Bytes of all blobs as they are stored.
    pub(super) stored_bytes: u64,
}

struct Records {
    listed: Instant,
    known: HashMap<Id, BackupRecord>,
    /// Told of already.
    damaged: HashSet<Id>,
}

impl Known {
    fn new(index: Arc<Index>) -> Arc<Known> {
        let stored_bytes = index.iter().map(|(_, blob)| u64::from(blob.length)).sum();
        Arc::new(Known { index, stored_bytes })
    }

    /// Bytes of a piece of a file.
    pub(super) fn length_of(&self, blob: &Id) -> Option<u64> {
        self.index.get(BlobKind::Data, blob).map(|location| location.blob.plain_length())
    }
}

impl Contents {
    /// Reads all records.
    pub(super) fn open(
        repository: Arc<Repository>,
        index: Arc<Index>,
        limits: &Limits,
        progress: Arc<dyn Progress + Send + Sync>,
    ) -> Result<Contents, Error> {
        let now = Instant::now();
        let records = Records { listed: now, known: HashMap::new(), damaged: HashSet::new() };
        let contents = Contents {
            repository,
            index: RwLock::new(Known::new(index)),
            index_loaded: Mutex::new(now),
            listing: RwLock::new(Arc::new(Listing::new(std::iter::empty()))),
            records: Mutex::new(records),
            trees: Cache::new(limits.tree_cache_bytes),
            blobs: Cache::new(limits.blob_cache_bytes),
            reload_after: limits.reload_after,
            progress,
        };
        contents.read_records(&mut lock(&contents.records))?;
        Ok(contents)
    }

    /// The directories above the backups. Whoever comes first after some time looks up what is new; the others do not
    /// wait for it.
    pub(super) fn listing(&self) -> Arc<Listing> {
        let records = match self.records.try_lock() {
            Ok(records) => Some(records),
            Err(TryLockError::Poisoned(records)) => Some(records.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut records) = records
            && records.listed.elapsed() >= self.reload_after
        {
            records.listed = Instant::now();
            if let Err(error) = self.read_records(&mut records) {
                self.progress.warning(&format!("cannot look for new backups: {error}"));
            }
        }
        Arc::clone(&self.listing.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of blobs.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of a file's blobs, all of them if that can be had.
    pub(super) fn known_for(&self, file: &Node) -> Arc<Known> {
        let known = self.known();
        if file.content.iter().flatten().all(|id| known.index.contains(BlobKind::Data, id)) {
            return known;
        }
        self.newer_than(&known).unwrap_or(known)
    }

    /// A directory.
    pub(super) fn tree(&self, id: &Id) -> Result<Arc<Tree>, Error> {
        self.trees.get(id, || {
            let tree = self.load(|reader| reader.load_tree(id))?;
            let bytes = tree_bytes(&tree);
            Ok((tree, bytes))
        })
    }

    /// A piece of a file.
    pub(super) fn blob(&self, id: &Id) -> Result<Arc<Vec<u8>>, Error> {
        self.blobs.get(id, || {
            let blob = self.load(|reader| {
                let mut blob = Vec::new();
                reader.load(BlobKind::Data, id, &mut blob)?;
                Ok(blob)
            })?;
            let bytes = blob.capacity();
            Ok((blob, bytes))
        })
    }

    /// Loads by the index, and by a newer one if it lies elsewhere meanwhile (somebody has pruned).
    fn load<T>(&self, load: impl Fn(&mut BlobReader<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let known = self.known();
        let failed = match load(&mut self.repository.reader(&known.index)) {
            Err(error @ (Error::MissingBlob { .. } | Error::Storage(StorageError::NotFound { .. }))) => error,
            done => return done,
        };
        match self.newer_than(&known) {
            Some(newer) => load(&mut self.repository.reader(&newer.index)),
            None => Err(failed),
        }
    }

    fn newer_than(&self, used: &Arc<Known>) -> Option<Arc<Known>> {
        let mut loaded = lock(&self.index_loaded);
        let current = self.known();
        if !Arc::ptr_eq(used, &current) {
            return Some(current);
        }
        // A blob that is lost for good must not have the whole index read each time.
        if loaded.elapsed() < self.reload_after {
            return None;
        }
        *loaded = Instant::now();
        match self.repository.load_index() {
            Ok(index) => {
                let newer = Known::new(Arc::new(index));
                *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&newer);
                Some(newer)
            }
            Err(error) => {
                self.progress.warning(&format!("cannot load the index again: {error}"));
                None
            }
        }
    }

    fn read_records(&self, records: &mut Records) -> Result<(), Error> {
        let listed = self.repository.storage().list(FileKind::Backup)?;
        let listed: HashSet<Id> = listed.into_iter().map(|(id, _)| id).collect();
        records.known.retain(|id, _| listed.contains(id));
        let mut unknown_tree = false;
        for id in &listed {
            if records.known.contains_key(id) || records.damaged.contains(id) {
                continue;
            }
            match self.repository.load_record(*id) {
                Ok(record) => {
                    unknown_tree |= !self.known().index.contains(BlobKind::Tree, &record.tree);
                    records.known.insert(*id, record);
                }
                // Forgotten since the listing.
                Err(Error::Storage(StorageError::NotFound { .. })) => {}
                Err(error @ Error::Storage(_)) => return Err(error),
                Err(error) => {
                    records.damaged.insert(*id);
                    self.progress.error(Path::new("ids").join(id.short()).as_path(), &error);
                }
            }
        }
        if unknown_tree {
            let _ = self.newer_than(&self.known());
        }
        let mut backups: Vec<_> = records.known.iter().map(|(id, record)| (*id, record)).collect();
        backups.sort_by_key(|(id, record)| (record.time, *id));
        let listing = Arc::new(Listing::new(backups.into_iter()));
        *self.listing.write().unwrap_or_else(PoisonError::into_inner) = listing;
        Ok(())
    }
}

/// What a tree takes in memory, about.
fn tree_bytes(tree: &Tree) -> usize {
    let node_bytes = |node: &Node| {
        let attributes: usize = node
            .extended_attributes
            .iter()
            .map(|attribute| {
                size_of_val(attribute) + attribute.name.len() + attribute.value.as_ref().map_or(0, |value| value.len())
            })
            .sum();
        let content = node.content.as_ref().map_or(0, |content| content.capacity() * size_of::<Id>());
        let other = node.generic_attributes.as_ref().map_or(0, |text| text.len());
        node.name.len() + node.link_target.len() + node.error.len() + attributes + content + other
    };
    tree.nodes.capacity() * size_of::<Node>() + tree.nodes.iter().map(node_bytes).sum::<usize>()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Times and records are whole after each step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
