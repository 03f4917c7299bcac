//! Copies backups from one repository to another, whose key and chunk boundaries may be others.
//!
//! Blobs are opened, verified and sealed with the other key; they stay compressed. Whatever the other repository has is
//! not read. Order as in a backup: packs, index, records; so what a crash leaves is used by the next run.

use std::collections::HashMap;
use std::sync::Arc;

use crate::blob_set::BlobSet;
use crate::blob_writer::{Added, BlobSaver, BlobWriter, Destination};
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::index::by_pack::ByPack;
use crate::lock::Lock;
use crate::pack_reader::PackReader;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::reachable::{At, Flaw, Visitor, walk};
use crate::record::BackupRecord;
use crate::repository::Repository;

/// What will be copied.
pub struct Plan {
    /// Backups to copy, oldest first.
    pub backups: Vec<Id>,
    /// Backups that are there already, with their ids there.
    pub present: Vec<(Id, Id)>,
    /// Blobs to copy.
    pub blobs: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    records: Vec<(Id, BackupRecord)>,
    from_index: Index,
    to_index: Arc<Index>,
    wanted: BlobSet,
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Each backup's id, and the copy's.
    pub backups: Vec<(Id, Id)>,
    /// What was added.
    pub added: Added,
}

/// Looks what must be copied for `backups` to be in `to`. Whoever calls holds shared locks on both.
pub fn plan(from: &Repository, to: &Repository, backups: &[Id], progress: &dyn Progress) -> Result<Plan, Error> {
    let (there, _) = to.backups()?;
    // By the record that each was first made as, on either side.
    let mut by_original: HashMap<Id, Vec<usize>> = HashMap::new();
    for (number, (id, record)) in there.iter().enumerate() {
        by_original.entry(*id).or_default().push(number);
        if let Some(original) = record.original {
            by_original.entry(original).or_default().push(number);
        }
    }
    let (mut records, mut present) = (Vec::new(), Vec::new());
    for &id in backups {
        let record = from.load_record(id)?;
        let original = record.original.unwrap_or(id);
        let mut copies = by_original.get(&original).into_iter().flatten().map(|&number| &there[number]);
        match copies.find(|(_, copy)| is_copy(&record, copy)) {
            Some((copy, _)) => present.push((id, *copy)),
            None => records.push((id, record)),
        }
    }
    records.sort_by_key(|(id, record)| (record.time, *id));
    let (from_index, to_index) = (from.load_index()?, to.load_index()?);
    let roots: Vec<_> = records.iter().map(|(id, record)| (*id, record.tree)).collect();
    let used = walk(from, &from_index, &roots, &Demand, progress)?;
    let wanted = BlobSet::new(&from_index);
    let (mut blobs, mut bytes) = (0, 0);
    for (position, (_, blob)) in from_index.iter().enumerate() {
        if used.contains(position) && !to_index.contains(blob.kind, &blob.id) {
            wanted.insert(position);
            blobs += 1;
            bytes += u64::from(blob.length);
        }
    }
    let backups = records.iter().map(|(id, _)| *id).collect();
    Ok(Plan { backups, present, blobs, bytes, records, from_index, to_index: Arc::new(to_index), wanted })
}

/// As restic decides it: all but parent and original are the same.
fn is_copy(a: &BackupRecord, b: &BackupRecord) -> bool {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    (a.time, a.tree, &a.hostname, &a.username, a.uid, a.gid, &a.excludes)
        == (b.time, b.tree, &b.hostname, &b.username, b.uid, b.gid, &b.excludes)
        && sorted(&a.paths) == sorted(&b.paths)
        && sorted(&a.tags) == sorted(&b.tags)
}

/// A copy that lacks something would look whole.
struct Demand;

impl Visitor for Demand {
    fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error> {
        match flaw {
            Flaw::Tree(Error::Storage(error @ crate::storage::StorageError::Io { .. })) => Err(error.into()),
            Flaw::Tree(_) | Flaw::MissingBlobs(_) => Err(Error::Refused(format!(
                "{}: {flaw}; a damaged backup is not copied: leave it out, or `snapback repo repair` it",
                at.place()
            ))),
            Flaw::Name | Flaw::NoSubtree | Flaw::NoContent | Flaw::Size { .. } => Ok(()),
        }
    }
}

/// Copies. `lock` is on `to`; a shared one does.
pub fn execute(
    from: &Repository,
    to: &Arc<Repository>,
    lock: &Arc<Lock>,
    plan: Plan,
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    progress.begin(Phase::Copy, Some(plan.blobs), Some(plan.bytes));
    let by_pack = ByPack::new(&plan.from_index);
    let is_wanted = |&&position: &&u32| plan.wanted.contains(position as usize);
    let packs: Vec<usize> = (0..plan.from_index.packs().len())
        .filter(|&pack| by_pack.positions(pack).iter().any(|position| is_wanted(&position)))
        .collect();
    let writer = BlobWriter::new(to, &plan.to_index, Destination::Repository(Arc::clone(lock)));
    let copying = Copying { from, to, plan: &plan, progress };
    parallel::for_each(
        parallel::cores(),
        &packs,
        || (PackReader::new(from), writer.saver()),
        |(reader, saver), &pack| copying.copy(pack, by_pack.positions(pack), reader, saver),
    )?;
    let mut outcome = Outcome { backups: Vec::new(), added: writer.finish()? };
    for (id, record) in plan.records {
        lock.confirm()?;
        // A parent is only known where it came from.
        let record = BackupRecord { parent: None, original: record.original.or(Some(id)), ..record };
        outcome.backups.push((id, to.save_record(&record)?));
    }
    Ok(outcome)
}

struct Copying<'a> {
    from: &'a Repository,
    to: &'a Repository,
    plan: &'a Plan,
    progress: &'a dyn Progress,
}

impl Copying<'_> {
    fn copy(
        &self,
        pack: usize,
        positions: &[u32],
        reader: &mut PackReader<'_>,
        saver: &mut BlobSaver,
    ) -> Result<(), Error> {
        let index = &self.plan.from_index;
        let wanted = positions.iter().map(|&position| position as usize);
        let wanted = wanted.filter(|&position| self.plan.wanted.contains(position));
        let mut blobs: Vec<_> = wanted.map(|position| index.at(position).blob).collect();
        blobs.sort_unstable_by_key(|blob| blob.offset);
        // From or to version 1 nothing stays as it is; otherwise what is not compressed was not worth it.
        let as_it_is = self.from.compresses() && self.to.compresses();
        let mut elsewhere = Vec::new();
        reader.read(index.packs()[pack], &blobs, &mut |blob, verified| {
            go_on(self.progress)?;
            match verified {
                Ok(verified) if as_it_is => {
                    saver.save_packed(blob.id, blob.kind, verified.packed, blob.uncompressed_length)?;
                }
                Ok(verified) => _ = saver.save_as(blob.id, blob.kind, verified.plain)?,
                Err(error) => {
                    // Another pack may have it whole.
                    let loaded = self.from.reader(index).load(blob.kind, &blob.id, &mut elsewhere);
                    loaded.map_err(|_| error)?;
                    saver.save_as(blob.id, blob.kind, &elsewhere)?;
                }
            }
            self.progress.advance(1, u64::from(blob.length));
            Ok(())
        })
    }
}
