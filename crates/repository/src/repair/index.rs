//! Makes the index agree with the packs that are there, by their headers where it does not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::blob::PackedBlob;
use crate::error::Error;
use crate::id::Id;
use crate::index::by_pack::{ByPack, are_contiguous};
use crate::index::rewrite::{Rewrite, rewrite};
use crate::index::{Index, IndexBuilder};
use crate::lock::Lock;
use crate::pack::expected_size;
use crate::pack_reader::read_header;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::removal::{demand_exclusive, remove};
use crate::repository::Repository;
use crate::storage::{FileKind, StorageError};

/// What is wrong with the index, and what it will say instead.
#[derive(Debug, Default)]
pub struct Plan {
    /// Index files that are given up.
    pub unreadable: Vec<(Id, Error)>,
    /// Packs it names that are not there.
    pub gone: Vec<Id>,
    /// Packs it does not name, or wrongly, with what their headers say.
    pub reread: Vec<(Id, Vec<PackedBlob>)>,
    /// Packs it does not name, or wrongly, whose headers cannot be read either. What the index says of them stays, so
    /// that [`super::packs`] can save by it what is readable.
    pub damaged: Vec<(Id, Error)>,
}

impl Plan {
    /// Whether the index is right.
    pub fn is_empty(&self) -> bool {
        self.unreadable.is_empty() && self.gone.is_empty() && self.reread.is_empty()
    }
}

/// Compares index and packs. `read_all_headers` trusts no entry.
pub fn plan(repository: &Repository, read_all_headers: bool, progress: &dyn Progress) -> Result<Plan, Error> {
    let (index, unreadable) = load_readable(repository, progress)?;
    let by_pack = ByPack::new(&index);
    let stored = repository.storage().list(FileKind::Pack)?;
    let there: HashSet<Id> = stored.iter().map(|(id, _)| *id).collect();
    let gone = index.packs().iter().filter(|pack| !there.contains(pack)).copied().collect();
    let mut blobs = Vec::new();
    let doubtful: Vec<(Id, u64)> = stored
        .into_iter()
        .filter(|(id, size)| match index.packs().binary_search(id) {
            Ok(pack) => {
                by_pack.blobs(&index, pack, &mut blobs);
                read_all_headers || !are_contiguous(&blobs) || expected_size(&blobs) != *size
            }
            Err(_) => true,
        })
        .collect();
    progress.begin(Phase::Headers, Some(doubtful.len() as u64), None);
    let found = Mutex::new((Vec::new(), Vec::new()));
    parallel::for_each(parallel::cores(), &doubtful, Vec::new, |buffer, &(pack, size)| {
        go_on(progress)?;
        let header = read_header(repository, pack, size, buffer);
        let (reread, damaged) = &mut *found.lock().expect("no panic while the result is held");
        match header {
            Ok(blobs) => reread.push((pack, blobs)),
            Err(error) => damaged.push((pack, error)),
        }
        progress.advance(1, 0);
        Ok::<_, Error>(())
    })?;
    let (mut reread, mut damaged) = found.into_inner().expect("no panic while the result is held");
    // What the index said rightly needs no change.
    reread.retain(|(pack, blobs)| match index.packs().binary_search(pack) {
        Ok(number) => {
            let mut indexed = Vec::new();
            by_pack.blobs(&index, number, &mut indexed);
            indexed != *blobs
        }
        Err(_) => true,
    });
    reread.sort_unstable_by_key(|(pack, _)| *pack);
    damaged.sort_unstable_by_key(|(pack, _)| *pack);
    Ok(Plan { unreadable, gone, reread, damaged })
}

/// Writes new index files, then removes those that were wrong.
pub fn execute(
    repository: &Arc<Repository>,
    lock: &Arc<Lock>,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<(), Error> {
    demand_exclusive(lock)?;
    let without: HashSet<Id> = plan.gone.iter().chain(plan.reread.iter().map(|(pack, _)| pack)).copied().collect();
    let unreadable: HashSet<Id> = plan.unreadable.iter().map(|(id, _)| *id).collect();
    let what = Rewrite { without: &without, unreadable: &unreadable, with: &plan.reread };
    let mut old = rewrite(repository, lock, &what, &mut |_, _| {}, progress)?;
    old.extend(unreadable);
    remove(repository, lock, FileKind::Index, &old, progress)
}

/// The index as far as it can be read. A storage that fails is no damage.
pub(super) fn load_readable(
    repository: &Repository,
    progress: &dyn Progress,
) -> Result<(Index, Vec<(Id, Error)>), Error> {
    let files = repository.storage().list(FileKind::Index)?;
    progress.begin(Phase::Index, Some(files.len() as u64), None);
    let mut builder = IndexBuilder::default();
    let mut unreadable = Vec::new();
    for (id, size) in files {
        go_on(progress)?;
        match repository.load_index_file(id) {
            Ok(packs) => packs.iter().for_each(|(pack, blobs)| builder.add(*pack, blobs)),
            Err(error @ Error::Storage(StorageError::Io { .. })) => return Err(error),
            Err(error) => unreadable.push((id, error)),
        }
        progress.advance(1, size);
    }
    Ok((builder.build(), unreadable))
}
