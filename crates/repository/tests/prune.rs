//! Pruning removes what nobody uses, nothing else, and may die at any moment.

mod support;

use std::sync::Arc;

use repository::id::Id;
use repository::progress::Unwatched;
use repository::prune::{self, MaxUnused, Options};
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage, StoredFile};
use repository::{Error, Repository, forget};
use support::*;

/// Gives back every byte.
const THOROUGH: Options = Options {
    max_unused: MaxUnused::Bytes(0),
    max_repack_bytes: None,
    repack_small: false,
    repack_uncompressed: false,
    remove_everything: false,
};

fn prune(repository: &Arc<Repository>, options: &Options) -> Result<prune::Outcome, Error> {
    let lock = lock(repository, true)?;
    let plan = prune::plan(repository, options, &Unwatched)?;
    prune::execute(repository, &lock, plan, &Unwatched)
}

fn forget_one(repository: &Arc<Repository>, backup: Id) -> Result<(), Error> {
    let lock = lock(repository, false)?;
    forget(repository, &lock, &[backup], &Unwatched)
}

/// Three backups of which the first two will be forgotten: their packs are partly used by the third.
fn sample() -> (Arc<Memory>, Arc<Repository>, [Id; 3]) {
    let (storage, repository) = init();
    let backups =
        [(1, 2), (1, 3), (1, 4)].map(|(common, own)| back_up(&repository, own as i64, &files(common, own)).unwrap());
    (storage, repository, backups)
}

fn total_bytes(storage: &Memory) -> u64 {
    storage.list(FileKind::Pack).unwrap().iter().map(|(_, size)| size).sum()
}

#[test]
fn after_a_prune_only_what_is_used_is_left_and_it_is_whole() {
    let (storage, repository, [a, b, c]) = sample();
    forget_one(&repository, a).unwrap();
    forget_one(&repository, b).unwrap();
    let plan = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    let (before, freed) = (total_bytes(&storage), plan.figures.freed_bytes);
    assert!(freed > 40_000 && !plan.repack.is_empty() && !plan.remove.is_empty(), "{:?}", plan.figures);
    drop(plan);
    prune(&repository, &THOROUGH).unwrap();
    let report = check_all(&repository);
    assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
    assert_eq!(load(&repository, c).unwrap(), files(1, 4));
    // The plan counts each rewritten pack's own header; merging packs saves a few more.
    assert!(total_bytes(&storage) <= before - freed + 200, "{} {before} {freed}", total_bytes(&storage));
    assert_eq!(report.figures.index_files, 1);
    let again = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    assert!(again.is_empty(), "{:?}", again.figures);
}

#[test]
fn a_plan_changes_nothing() {
    let (storage, repository, [a, ..]) = sample();
    forget_one(&repository, a).unwrap();
    let before = storage.changes();
    prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    assert_eq!(storage.changes(), before);
}

#[test]
fn a_crash_at_any_moment_of_forget_and_prune_loses_nothing() {
    let (storage, repository, [a, b, c]) = sample();
    drop(repository);
    let run = |storage: &Arc<Memory>| {
        let repository = open(storage);
        forget_one(&repository, a)?;
        forget_one(&repository, b)?;
        prune(&repository, &THOROUGH).map(drop)
    };
    let operations = crash_everywhere(&storage, &run, &|storage, operations| {
        let repository = open(&storage);
        assert_clean(&repository);
        let left = repository.backups().unwrap().0;
        assert!(left.iter().any(|(id, _)| *id == c));
        for (id, record) in left {
            assert_eq!(load(&repository, id).unwrap(), files(1, record.time.secs as u64), "after {operations}");
        }
        // A dead process's lock is ours to remove: it has our own process id here.
        repository::lock::remove(&repository, &holder(), true).unwrap();
        for id in [a, b] {
            forget_one(&repository, id).unwrap();
        }
        prune(&repository, &THOROUGH).unwrap();
        let report = check_all(&repository);
        assert!(report.is_clean() && report.hints.is_empty(), "after {operations}: {report:?}");
        assert_eq!(load(&repository, c).unwrap(), files(1, 4));
        back_up(&repository, 9, &files(1, 9)).unwrap();
        assert_clean(&repository);
    });
    assert!(operations > 12, "{operations}");
}

#[test]
fn a_crash_of_a_backup_leaves_what_the_next_prune_removes() {
    let (storage, repository, backups) = sample();
    drop(repository);
    let run = |storage: &Arc<Memory>| back_up(&open(storage), 7, &files(1, 7)).map(drop);
    crash_everywhere(&storage, &run, &|storage, operations| {
        let repository = open(&storage);
        assert_clean(&repository);
        repository::lock::remove(&repository, &holder(), true).unwrap();
        prune(&repository, &THOROUGH).unwrap();
        let report = check_all(&repository);
        assert!(report.is_clean() && report.hints.is_empty(), "after {operations}: {report:?}");
        for (backup, own) in backups.iter().zip(2..) {
            assert_eq!(load(&repository, *backup).unwrap(), files(1, own));
        }
    });
}

#[test]
fn an_empty_listing_of_backups_stops_it_unless_it_was_meant() {
    let (storage, repository, backups) = sample();
    for backup in backups {
        forget_one(&repository, backup).unwrap();
    }
    assert!(matches!(prune(&repository, &THOROUGH), Err(Error::Refused(_))));
    prune(&repository, &Options { remove_everything: true, ..THOROUGH }).unwrap();
    assert_eq!(list(&storage, FileKind::Pack), []);
    assert_eq!(list(&storage, FileKind::Index), []);
    prune(&repository, &THOROUGH).unwrap();
}

#[test]
fn whatever_hides_what_is_used_stops_it_before_the_first_change() {
    let (original, repository, _) = sample();
    let mut files = Vec::new();
    for kind in [FileKind::Backup, FileKind::Index, FileKind::Pack] {
        files.extend(list(&original, kind).into_iter().map(|id| StoredFile::new(kind, id)));
    }
    drop(repository);
    for file in files {
        for how in ["deleted", "flipped"] {
            let storage = Arc::new(original.copy());
            match how {
                "deleted" if file.kind != FileKind::Backup => storage.remove(&file).unwrap(),
                "flipped" => storage.damage(&file, |bytes| bytes[20] ^= 1),
                _ => continue,
            }
            let repository = open(&storage);
            let before = storage.changes();
            match prune::plan(&repository, &THOROUGH, &Unwatched) {
                Err(error) => assert!(matches!(error, Error::Refused(_)), "{file} {how}: {error}"),
                // A flipped bit in data shows when it is rewritten, and here nothing needs to be.
                Ok(plan) => assert!(file.kind == FileKind::Pack && how == "flipped" && plan.is_empty(), "{file} {how}"),
            }
            assert_eq!(storage.changes(), before);
        }
    }
}

#[test]
fn damage_found_while_rewriting_stops_it_before_anything_is_removed() {
    let (storage, repository, [a, b, c]) = sample();
    forget_one(&repository, a).unwrap();
    forget_one(&repository, b).unwrap();
    let plan = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    let packs = list(&storage, FileKind::Pack);
    for repack in &plan.repack {
        // All of it, so that a kept blob is hit.
        storage.damage(&StoredFile::new(FileKind::Pack, repack.pack), |bytes| bytes.iter_mut().for_each(|b| *b ^= 1));
    }
    let held = lock(&repository, true).unwrap();
    let error = prune::execute(&repository, &held, plan, &Unwatched).unwrap_err();
    assert!(matches!(error, Error::DamagedBlob { .. }), "{error}");
    let after = list(&storage, FileKind::Pack);
    assert!(packs.iter().all(|pack| after.contains(pack)));
    assert!(repository.load_record(c).is_ok());
}

#[test]
fn a_copy_in_another_pack_saves_a_prune_from_a_damaged_one() {
    let (storage, repository, [a, b, c]) = sample();
    // As after an interrupted prune: every used blob lies twice.
    let copy = Arc::new(storage.copy());
    let repository_of_copy = open(&copy);
    for backup in [a, b] {
        forget_one(&repository_of_copy, backup).unwrap();
    }
    prune(&repository_of_copy, &THOROUGH).unwrap();
    for kind in [FileKind::Pack, FileKind::Index] {
        for id in list(&copy, kind) {
            let file = StoredFile::new(kind, id);
            let mut bytes = Vec::new();
            copy.read(&file, &mut bytes).unwrap();
            storage.write(&file, &bytes).unwrap();
        }
    }
    let plan = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    assert!(plan.figures.duplicate_bytes > 0);
    drop(plan);
    prune(&repository, &THOROUGH).unwrap();
    for (backup, own) in [(a, 2), (b, 3), (c, 4)] {
        assert_eq!(load(&repository, backup).unwrap(), files(1, own));
    }
    let report = check_all(&repository);
    assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
}

#[test]
fn unused_data_below_the_limit_stays_where_it_is() {
    let (storage, repository, [a, ..]) = sample();
    forget_one(&repository, a).unwrap();
    let before = list(&storage, FileKind::Pack);
    let unlimited = Options { max_unused: MaxUnused::Unlimited, ..THOROUGH };
    let plan = prune::plan(&repository, &unlimited, &Unwatched).unwrap();
    assert!(plan.repack.is_empty() && plan.figures.unused_bytes_after > 0);
    drop(plan);
    prune(&repository, &unlimited).unwrap();
    let after = list(&storage, FileKind::Pack);
    assert!(after.iter().all(|pack| before.contains(pack)));
    assert_clean(&repository);
}

#[test]
fn small_packs_are_merged_when_asked() {
    let (storage, repository, _) = sample();
    let before = list(&storage, FileKind::Pack).len();
    prune(&repository, &Options { repack_small: true, ..THOROUGH }).unwrap();
    let after = list(&storage, FileKind::Pack).len();
    assert!(after < before && after <= 3, "{before} {after}");
    assert_clean(&repository);
}

#[test]
fn a_shared_lock_is_not_enough() {
    let (storage, repository, _) = sample();
    let plan = prune::plan(&repository, &THOROUGH, &Unwatched).unwrap();
    let shared = lock(&repository, false).unwrap();
    let before = storage.changes();
    assert!(matches!(prune::execute(&repository, &shared, plan, &Unwatched), Err(Error::Refused(_))));
    assert_eq!(storage.changes(), before);
}
