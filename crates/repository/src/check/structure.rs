//! Everything but the contents of packs.

use std::sync::Mutex;

use crate::blob::BlobKind;
use crate::error::Error;
use crate::hash::sha256;
use crate::id::Id;
use crate::index::by_pack::{ByPack, are_contiguous};
use crate::index::{Index, IndexBuilder};
use crate::pack::expected_size;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::reachable::{At, Flaw, Visitor, walk};
use crate::repository::{Repository, list_keys};
use crate::storage::{FileKind, StorageError, StoredFile};

use super::report::{Hint, Problem, Report};

/// The packs that the index names and that are there.
pub(super) struct Packs {
    pub(super) by_pack: ByPack,
    /// For each pack its size in bytes; `None` if it is missing.
    pub(super) sizes: Vec<Option<u64>>,
    /// For each pack whether size and entries agree, so that it can be read in one go.
    pub(super) regular: Vec<bool>,
}

/// Key files and locks.
pub(super) fn check_small_files(repository: &Repository, report: &mut Report) -> Result<(), Error> {
    let mut bytes = Vec::new();
    for (id, key) in list_keys(repository.storage())? {
        let file = StoredFile::new(FileKind::Key, id);
        if let Err(error) = key {
            report.error(Problem::File(file, error));
            continue;
        }
        repository.storage().read(&file, &mut bytes)?;
        if sha256(&bytes) != id {
            let reason = "its bytes do not have the hash it is named by".to_owned();
            report.error(Problem::File(file, Error::Damaged { file, reason }));
        }
    }
    let mut empty = 0;
    for (id, size) in repository.storage().list(FileKind::Lock)? {
        let file = StoredFile::new(FileKind::Lock, id);
        match repository.load(&file) {
            // Others' locks come and go while we look.
            Ok(_) | Err(Error::Storage(StorageError::NotFound { .. })) => {}
            Err(_) if size == 0 => empty += 1,
            Err(error) => report.error(Problem::File(file, error)),
        }
    }
    if empty > 0 {
        report.hints.push(Hint::EmptyLocks(empty));
    }
    Ok(())
}

/// All records: backup and tree.
pub(super) fn read_records(
    repository: &Repository,
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<Vec<(Id, Id)>, Error> {
    let files = repository.storage().list(FileKind::Backup)?;
    let records = Mutex::new((Vec::new(), report));
    parallel::for_each(
        parallel::cores(),
        &files,
        || (),
        |(), (id, _)| {
            go_on(progress)?;
            let record = repository.load_record(*id);
            let (records, report) = &mut *records.lock().expect("no panic while the records are held");
            match record {
                Ok(record) => records.push((record.time, *id, record.tree)),
                // Forgotten since the listing.
                Err(Error::Storage(StorageError::NotFound { .. })) => {}
                Err(error) => report.error(Problem::File(StoredFile::new(FileKind::Backup, *id), error)),
            }
            Ok::<_, Error>(())
        },
    )?;
    let (mut records, report) = records.into_inner().expect("no panic while the records are held");
    records.sort_unstable();
    report.figures.backups = records.len() as u64;
    // The newest first: that is the one a person would look for the damage in.
    Ok(records.into_iter().rev().map(|(_, id, tree)| (id, tree)).collect())
}

/// All index files that can be read.
pub(super) fn read_index(
    repository: &Repository,
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<Index, Error> {
    let files = repository.storage().list(FileKind::Index)?;
    progress.begin(Phase::Index, Some(files.len() as u64), None);
    report.figures.index_files = files.len() as u64;
    let state = Mutex::new((IndexBuilder::default(), report));
    parallel::for_each(
        parallel::cores(),
        &files,
        || (),
        |(), (id, size)| {
            go_on(progress)?;
            let packs = repository.load_index_file(*id);
            let (builder, report) = &mut *state.lock().expect("no panic while the index is held");
            match packs {
                Ok(packs) => packs.iter().for_each(|(pack, blobs)| builder.add(*pack, blobs)),
                Err(error) => report.error(Problem::File(StoredFile::new(FileKind::Index, *id), error)),
            }
            progress.advance(1, *size);
            Ok::<_, Error>(())
        },
    )?;
    let (builder, report) = state.into_inner().expect("no panic while the index is held");
    let index = builder.build();
    report.figures.blobs = index.len() as u64;
    report.figures.packs = index.packs().len() as u64;
    Ok(index)
}

/// Whether each pack is there, with the size that its blobs make.
pub(super) fn check_packs(
    repository: &Repository,
    index: &Index,
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<Packs, Error> {
    go_on(progress)?;
    let mut sizes = vec![None; index.packs().len()];
    let (mut unindexed, mut unindexed_bytes) = (0, 0);
    for (id, size) in repository.storage().list(FileKind::Pack)? {
        match index.packs().binary_search(&id) {
            Ok(pack) => {
                sizes[pack] = Some(size);
                report.figures.pack_bytes += size;
            }
            Err(_) => {
                unindexed += 1;
                unindexed_bytes += size;
            }
        }
    }
    if unindexed > 0 {
        report.hints.push(Hint::UnindexedPacks { packs: unindexed, bytes: unindexed_bytes });
    }
    let by_pack = ByPack::new(index);
    let mut blobs = Vec::new();
    let mut mixed = 0;
    let mut regular = vec![false; sizes.len()];
    for (number, &pack) in index.packs().iter().enumerate() {
        by_pack.blobs(index, number, &mut blobs);
        let expected = expected_size(&blobs);
        let contiguous = are_contiguous(&blobs);
        regular[number] = contiguous && sizes[number] == Some(expected);
        let affected = Vec::new();
        match sizes[number] {
            _ if regular[number] => {}
            None => report.error(Problem::PackMissing { pack, blobs: blobs.len(), affected }),
            Some(_) if !contiguous => report.error(Problem::PackEntries { pack }),
            Some(actual) => report.error(Problem::PackSize { pack, expected, actual, lost: Vec::new(), affected }),
        }
        mixed += u64::from(blobs.iter().any(|blob| Some(blob.kind) != blobs.first().map(|first| first.kind)));
    }
    if mixed > 0 {
        report.hints.push(Hint::MixedPacks(mixed));
    }
    let (copies, bytes) = duplicates(index);
    if copies > 0 {
        report.hints.push(Hint::DuplicateBlobs { blobs: copies, bytes });
    }
    Ok(Packs { by_pack, sizes, regular })
}

/// Entries beyond each blob's first, and their bytes.
fn duplicates(index: &Index) -> (u64, u64) {
    let mut seen: Vec<(Id, BlobKind)> = Vec::new();
    let (mut copies, mut bytes) = (0, 0);
    for (_, blob) in index.iter() {
        if seen.first().is_some_and(|(id, _)| *id != blob.id) {
            seen.clear();
        }
        if seen.contains(&(blob.id, blob.kind)) {
            copies += 1;
            bytes += u64::from(blob.length);
        } else {
            seen.push((blob.id, blob.kind));
        }
    }
    (copies, bytes)
}

/// Everything that the records reach.
pub(super) fn check_trees(
    repository: &Repository,
    index: &Index,
    records: &[(Id, Id)],
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<(), Error> {
    struct Collect<'a>(Mutex<&'a mut Report>);
    impl Visitor for Collect<'_> {
        fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error> {
            let problem = Problem::Tree { place: at.place(), flaw };
            self.0.lock().expect("no panic while the report is held").error(problem);
            Ok(())
        }
    }
    let used = walk(repository, index, records, &Collect(Mutex::new(report)), progress)?;
    report.figures.used_blobs = used.len() as u64;
    let (copies, _) = duplicates(index);
    let unused = report.figures.blobs - copies - report.figures.used_blobs;
    if unused > 0 {
        report.hints.push(Hint::UnusedBlobs(unused));
    }
    Ok(())
}
