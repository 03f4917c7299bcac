//! Writes the readable blobs of damaged packs to new packs, then removes the damaged ones.

use std::collections::HashSet;
use std::sync::Arc;

use crate::blob::{BlobKind, PackedBlob};
use crate::blob_writer::{Added, BlobWriter, Destination};
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::index::by_pack::ByPack;
use crate::index::rewrite::{Rewrite, rewrite};
use crate::lock::Lock;
use crate::pack_reader::{PackReader, read_header};
use crate::progress::{Phase, Progress, go_on};
use crate::removal::{demand_exclusive, remove};
use crate::repository::Repository;
use crate::storage::{FileKind, StorageError, StoredFile};

use super::index::load_readable;

/// What can be saved.
pub struct Plan {
    /// In the order they were given.
    pub packs: Vec<Salvage>,
    index: Index,
    unreadable: HashSet<Id>,
}

/// What can be saved of one pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// Which.
    pub pack: Id,
    /// Blobs whose bytes are right.
    pub saved: Vec<PackedBlob>,
    /// Blobs that are lost here, but that another pack is said to hold.
    pub elsewhere: Vec<(BlobKind, Id)>,
    /// Blobs that are lost.
    pub lost: Vec<(BlobKind, Id)>,
}

/// Reads the packs, and tells what can be saved of them.
pub fn plan(repository: &Repository, packs: &[Id], progress: &dyn Progress) -> Result<Plan, Error> {
    let (index, unreadable) = load_readable(repository, progress)?;
    let by_pack = ByPack::new(&index);
    progress.begin(Phase::ReadPacks, Some(packs.len() as u64), None);
    let mut reader = PackReader::new(repository);
    let mut plan = Plan { packs: Vec::new(), index, unreadable: unreadable.into_iter().map(|(id, _)| id).collect() };
    for &pack in packs {
        go_on(progress)?;
        let blobs = entries(repository, &plan.index, &by_pack, pack)?;
        let mut salvage = Salvage { pack, saved: Vec::new(), elsewhere: Vec::new(), lost: Vec::new() };
        reader.read(pack, &blobs, &mut |blob, verified| {
            let known_elsewhere = || {
                let mut locations = plan.index.locations(blob.kind, &blob.id);
                locations.any(|location| !packs.contains(&location.pack))
            };
            match verified {
                Ok(_) => salvage.saved.push(*blob),
                Err(_) if known_elsewhere() => salvage.elsewhere.push((blob.kind, blob.id)),
                Err(_) => salvage.lost.push((blob.kind, blob.id)),
            }
            Ok(())
        })?;
        // By two entries of the same blob it may be both.
        let is_saved = |(kind, id): &(BlobKind, Id)| salvage.saved.iter().any(|s| s.kind == *kind && s.id == *id);
        let lost = std::mem::take(&mut salvage.lost);
        salvage.lost = lost.into_iter().filter(|blob| !is_saved(blob)).collect();
        plan.packs.push(salvage);
        progress.advance(1, 0);
    }
    Ok(plan)
}

/// What lies in a pack by the index, and by its own header if that can be read.
fn entries(repository: &Repository, index: &Index, by_pack: &ByPack, pack: Id) -> Result<Vec<PackedBlob>, Error> {
    let mut blobs = Vec::new();
    let number = index.packs().binary_search(&pack);
    if let Ok(number) = number {
        by_pack.blobs(index, number, &mut blobs);
    }
    match repository.storage().size(&StoredFile::new(FileKind::Pack, pack)) {
        Ok(size) => {
            if let Ok(header) = read_header(repository, pack, size, &mut Vec::new()) {
                blobs.extend(header);
            }
        }
        Err(StorageError::NotFound { .. }) if number.is_ok() => {}
        Err(error) => return Err(error.into()),
    }
    blobs.sort_unstable_by_key(|blob| (blob.offset, blob.length, blob.id, blob.kind, blob.uncompressed_length));
    blobs.dedup();
    Ok(blobs)
}

/// Saves what can be saved, and removes the packs.
pub fn execute(
    repository: &Arc<Repository>,
    lock: &Arc<Lock>,
    plan: Plan,
    progress: &dyn Progress,
) -> Result<Added, Error> {
    demand_exclusive(lock)?;
    let Plan { packs, index, unreadable } = plan;
    let blobs = packs.iter().map(|salvage| salvage.saved.len() as u64).sum();
    progress.begin(Phase::Repack, Some(blobs), None);
    let writer = BlobWriter::new(repository, &Arc::new(index), Destination::Repository(Arc::clone(lock)));
    let mut saver = writer.saver();
    let mut reader = PackReader::new(repository);
    for salvage in &packs {
        reader.read(salvage.pack, &salvage.saved, &mut |blob, verified| {
            go_on(progress)?;
            saver.save_packed(blob.id, blob.kind, verified?.packed, blob.uncompressed_length)?;
            progress.advance(1, u64::from(blob.length));
            Ok(())
        })?;
    }
    drop(saver);
    let added = writer.finish()?;
    let packs: Vec<Id> = packs.iter().map(|salvage| salvage.pack).collect();
    let without: HashSet<Id> = packs.iter().copied().collect();
    let what = Rewrite { without: &without, unreadable: &unreadable, with: &[] };
    let old = rewrite(repository, lock, &what, &mut |_, _| {}, progress)?;
    remove(repository, lock, FileKind::Index, &old, progress)?;
    remove(repository, lock, FileKind::Pack, &packs, progress)?;
    Ok(added)
}
