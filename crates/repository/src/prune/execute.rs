//! Carries a plan out.

use std::collections::HashSet;
use std::sync::Arc;

use crate::blob::BlobKind;
use crate::blob_set::BlobSet;
use crate::blob_writer::{Added, BlobSaver, BlobWriter, Destination};
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::index::by_pack::ByPack;
use crate::index::rewrite::{Rewrite, rewrite};
use crate::lock::Lock;
use crate::pack_reader::PackReader;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::removal::{demand_exclusive, remove};
use crate::repository::Repository;
use crate::storage::FileKind;

use super::plan::Plan;

/// What a prune did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was written again.
    pub repacked: Added,
    /// Packs that were removed.
    pub removed_packs: u64,
    /// Bytes of unfinished writes that were removed.
    pub unfinished_bytes: u64,
}

/// Carries out a plan that was made under the same lock.
pub fn execute(
    repository: &Arc<Repository>,
    lock: &Arc<Lock>,
    plan: Plan,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    demand_exclusive(lock)?;
    let mut outcome = Outcome { unfinished_bytes: repository.storage().remove_unfinished()?, ..Outcome::default() };
    // First, because their room may be needed.
    let unindexed: Vec<Id> = plan.unindexed.iter().map(|(id, _)| *id).collect();
    remove(repository, lock, FileKind::Pack, &unindexed, progress)?;
    outcome.removed_packs = unindexed.len() as u64;

    let Plan { repack, remove: unused, missing, index, by_pack, keep, compress, .. } = plan;
    let index = Arc::new(index);
    let repack: Vec<Id> = repack.iter().map(|repack| repack.pack).collect();
    outcome.repacked = Repacking { repository, index: &index, by_pack: &by_pack, keep: &keep, compress, progress }
        .run(lock, &repack)?;
    drop(by_pack);

    let old_packs: Vec<Id> = unused.iter().map(|(id, _)| *id).chain(repack).collect();
    let without: HashSet<Id> = old_packs.iter().copied().chain(missing).collect();
    let covered = BlobSet::new(&index);
    let mut see = |_: Id, blobs: &[crate::blob::PackedBlob]| {
        for blob in blobs {
            if let Some(position) = index.position(blob.kind, &blob.id) {
                covered.insert(position);
            }
        }
    };
    let what = Rewrite { without: &without, unreadable: &HashSet::new(), with: &[] };
    let old_index = rewrite(repository, lock, &what, &mut see, progress)?;
    demand_cover(&index, &keep, &covered)?;
    remove(repository, lock, FileKind::Index, &old_index, progress)?;
    remove(repository, lock, FileKind::Pack, &old_packs, progress)?;
    outcome.removed_packs += old_packs.len() as u64;
    Ok(outcome)
}

/// The last moment at which nothing is lost yet: every blob that is used must be in the new index.
fn demand_cover(index: &Index, keep: &BlobSet, covered: &BlobSet) -> Result<(), Error> {
    for position in 0..index.len() {
        if keep.contains(position) {
            let blob = index.at(position).blob;
            if !index.position(blob.kind, &blob.id).is_some_and(|first| covered.contains(first)) {
                return Err(Error::MissingBlob { kind: blob.kind, id: blob.id });
            }
        }
    }
    Ok(())
}

struct Repacking<'a> {
    repository: &'a Arc<Repository>,
    index: &'a Arc<Index>,
    by_pack: &'a ByPack,
    keep: &'a BlobSet,
    compress: bool,
    progress: &'a dyn Progress,
}

impl Repacking<'_> {
    /// Writes the kept blobs of these packs to new packs, and an index file that names those.
    fn run(&self, lock: &Arc<Lock>, packs: &[Id]) -> Result<Added, Error> {
        if packs.is_empty() {
            return Ok(Added::default());
        }
        let numbers: Vec<usize> = packs
            .iter()
            .map(|id| self.index.packs().binary_search(id).expect("the plan was made from this index"))
            .collect();
        let kept = |&&position: &&u32| self.keep.contains(position as usize);
        let blobs = numbers.iter().map(|&number| self.by_pack.positions(number).iter().filter(kept).count() as u64);
        self.progress.begin(Phase::Repack, Some(blobs.sum()), None);
        let writer = BlobWriter::new(self.repository, self.index, Destination::Repository(Arc::clone(lock)));
        parallel::for_each(
            parallel::cores(),
            &numbers,
            || (PackReader::new(self.repository), writer.saver()),
            |(reader, saver), &number| self.repack(number, reader, saver),
        )?;
        writer.finish()
    }

    fn repack(&self, number: usize, reader: &mut PackReader<'_>, saver: &mut BlobSaver) -> Result<(), Error> {
        let pack = self.index.packs()[number];
        let kept = self.by_pack.positions(number).iter().filter(|&&position| self.keep.contains(position as usize));
        let mut blobs: Vec<_> = kept.map(|&position| self.index.at(position as usize).blob).collect();
        blobs.sort_unstable_by_key(|blob| blob.offset);
        let mut elsewhere = Vec::new();
        reader.read(pack, &blobs, &mut |blob, verified| {
            go_on(self.progress)?;
            match verified {
                Ok(verified) => {
                    let may_compress = self.compress || blob.kind == BlobKind::Tree;
                    if blob.uncompressed_length == 0 && may_compress && self.repository.compresses() {
                        saver.save_again(blob.id, blob.kind, verified.plain)?;
                    } else {
                        saver.save_packed(blob.id, blob.kind, verified.packed, blob.uncompressed_length)?;
                    }
                }
                Err(error) => {
                    // Another pack may have it whole.
                    let loaded = self.repository.reader(self.index).load(blob.kind, &blob.id, &mut elsewhere);
                    loaded.map_err(|_| error)?;
                    saver.save_again(blob.id, blob.kind, &elsewhere)?;
                }
            }
            self.progress.advance(1, u64::from(blob.length));
            Ok(())
        })
    }
}
