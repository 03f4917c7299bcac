//! Copies are whole, made once, and may die at any moment.

mod support;

use std::sync::Arc;

use repository::crypto::KeyCost;
use repository::id::Id;
use repository::progress::Unwatched;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, StoredFile};
use repository::{Error, InitOptions, Repository, copy};
use support::*;

fn source() -> (Arc<Memory>, Arc<Repository>, Vec<Id>) {
    let (storage, repository) = init();
    let backups = [2, 3, 4].map(|own| back_up(&repository, own as i64, &files(1, own)).unwrap()).to_vec();
    (storage, repository, backups)
}

fn copy_all(from: &Arc<Repository>, to: &Arc<Repository>, backups: &[Id]) -> Result<copy::Outcome, Error> {
    let lock = lock(to, false)?;
    let plan = copy::plan(from, to, backups, &Unwatched)?;
    copy::execute(from, to, &lock, plan, &Unwatched)
}

#[test]
fn copies_hold_what_the_originals_hold_and_say_where_they_come_from() {
    let (_, from, backups) = source();
    let same = InitOptions { polynomial: Some(from.polynomial()), key_cost: KeyCost::NONE };
    for options in [InitOptions { key_cost: KeyCost::NONE, ..InitOptions::default() }, same] {
        let storage = Arc::new(Memory::new());
        let to = Arc::new(Repository::init(storage, b"other", &options, &holder()).unwrap());
        let outcome = copy_all(&from, &to, &backups).unwrap();
        assert_eq!(outcome.backups.iter().map(|(from, _)| *from).collect::<Vec<_>>(), backups);
        for ((original, copy), own) in outcome.backups.iter().zip(2..) {
            assert_eq!(load(&to, *copy).unwrap(), files(1, own));
            let (a, b) = (from.load_record(*original).unwrap(), to.load_record(*copy).unwrap());
            assert_eq!(b.original, Some(*original));
            assert_eq!((a.time, a.tree, &a.tags, &a.paths), (b.time, b.tree, &b.tags, &b.paths));
        }
        let report = check_all(&to);
        assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
        assert_eq!(report.figures.blobs, check_all(&from).figures.used_blobs);
    }
}

#[test]
fn what_is_there_is_not_copied_again_in_either_direction() {
    let (_, from, backups) = source();
    let (storage, to) = init();
    copy_all(&from, &to, &backups[..2]).unwrap();
    let packs = list(&storage, FileKind::Pack).len();
    let again = copy_all(&from, &to, &backups[..2]).unwrap();
    assert!(again.backups.is_empty());
    assert_eq!((again.added.packs, list(&storage, FileKind::Pack).len()), (0, packs));
    let third = copy_all(&from, &to, &backups).unwrap();
    assert_eq!(third.backups.len(), 1);
    let back: Vec<Id> = to.backups().unwrap().0.iter().map(|(id, _)| *id).collect();
    let plan = copy::plan(&to, &from, &back, &Unwatched).unwrap();
    assert_eq!((plan.backups.len(), plan.present.len(), plan.blobs), (0, 3, 0));
}

#[test]
fn a_crash_at_any_moment_leaves_whole_copies_and_the_next_run_completes_them() {
    let (_, from, backups) = source();
    let (storage, _) = init();
    let run = |storage: &Arc<Memory>| copy_all(&from, &open(storage), &backups).map(drop);
    let operations = crash_everywhere(&storage, &run, &|storage, operations| {
        let to = open(&storage);
        assert_clean(&to);
        for (id, record) in to.backups().unwrap().0 {
            assert_eq!(load(&to, id).unwrap(), files(1, record.time.secs as u64), "after {operations}");
        }
        copy_all(&from, &to, &backups).unwrap();
        assert_clean(&to);
        assert_eq!(to.backups().unwrap().0.len(), 3);
    });
    assert!(operations > 5, "{operations}");
}

#[test]
fn a_damaged_source_gives_no_wrong_copy() {
    let (original, _, backups) = source();
    for pack in list(&original, FileKind::Pack) {
        let storage = Arc::new(original.copy());
        storage.damage(&StoredFile::new(FileKind::Pack, pack), |bytes| bytes[50] ^= 1);
        let (to_storage, to) = init();
        let error = copy_all(&open(&storage), &to, &backups).unwrap_err();
        assert!(matches!(error, Error::DamagedBlob { .. } | Error::Refused(_)), "{error}");
        assert_eq!(list(&to_storage, FileKind::Backup), []);
        assert_clean(&to);
    }
}
