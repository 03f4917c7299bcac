//! Repair saves what can be saved, and may die at any moment.

mod support;

use std::sync::Arc;

use repository::id::Id;
use repository::progress::Unwatched;
use repository::repair::backups::Change;
use repository::repair::{backups, index, packs};
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage, StoredFile};
use repository::{Error, Repository};
use support::*;

fn sample() -> (Arc<Memory>, Arc<Repository>, [Id; 2]) {
    let (storage, repository) = init();
    let backups = [2, 3].map(|own| back_up(&repository, own as i64, &files(1, own)).unwrap());
    (storage, repository, backups)
}

fn repair_index(repository: &Arc<Repository>) -> Result<index::Plan, Error> {
    let lock = lock(repository, true)?;
    let plan = index::plan(repository, false, &Unwatched)?;
    index::execute(repository, &lock, &plan, &Unwatched)?;
    Ok(plan)
}

fn repair_packs(repository: &Arc<Repository>, damaged: &[Id]) -> Result<Vec<packs::Salvage>, Error> {
    let lock = lock(repository, true)?;
    let plan = packs::plan(repository, damaged, &Unwatched)?;
    let salvage = plan.packs.clone();
    packs::execute(repository, &lock, plan, &Unwatched)?;
    Ok(salvage)
}

fn repair_backups(repository: &Arc<Repository>) -> Result<backups::Plan, Error> {
    let lock = lock(repository, true)?;
    let plan = backups::plan(repository, None, &Unwatched)?;
    backups::execute(repository, &lock, &plan, true, &Unwatched)?;
    Ok(plan)
}

fn damage_index(storage: &Memory, how: usize) {
    for id in list(storage, FileKind::Index) {
        let file = StoredFile::new(FileKind::Index, id);
        match how {
            0 => storage.remove(&file).unwrap(),
            1 => storage.damage(&file, |bytes| bytes.truncate(50)),
            _ => storage.damage(&file, |bytes| bytes[30] ^= 1),
        }
    }
}

#[test]
fn an_index_that_is_lost_is_built_from_the_packs() {
    let (original, _, both) = sample();
    for how in 0..3 {
        let storage = Arc::new(original.copy());
        damage_index(&storage, how);
        let repository = open(&storage);
        let plan = repair_index(&repository).unwrap();
        assert_eq!(plan.reread.len(), list(&storage, FileKind::Pack).len());
        let report = check_all(&repository);
        assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
        for (backup, own) in both.into_iter().zip(2..) {
            assert_eq!(load(&repository, backup).unwrap(), files(1, own));
        }
        assert!(index::plan(&repository, true, &Unwatched).unwrap().is_empty());
    }
}

#[test]
fn a_right_index_needs_no_repair_even_if_all_headers_are_read() {
    let (_, repository, _) = sample();
    assert!(index::plan(&repository, true, &Unwatched).unwrap().is_empty());
}

#[test]
fn a_crash_at_any_moment_of_repairing_the_index_leaves_it_repairable() {
    let (original, _, both) = sample();
    // One index file of two is unreadable.
    let id = list(&original, FileKind::Index)[0];
    original.damage(&StoredFile::new(FileKind::Index, id), |bytes| bytes[40] ^= 4);
    let run = |storage: &Arc<Memory>| repair_index(&open(storage)).map(drop);
    let operations = crash_everywhere(&original, &run, &|storage, operations| {
        let repository = open(&storage);
        repository::lock::remove(&repository, &holder(), true).unwrap();
        repair_index(&repository).unwrap();
        assert_clean(&repository);
        for (backup, own) in both.into_iter().zip(2..) {
            assert_eq!(load(&repository, backup).unwrap(), files(1, own), "after {operations}");
        }
    });
    assert!(operations > 3, "{operations}");
}

/// Repairs everything, in the order that a check tells. What is left restores.
fn repair_all(repository: &Arc<Repository>, damaged: &[Id]) -> Result<(), Error> {
    repair_packs(repository, damaged)?;
    repair_index(repository)?;
    repair_backups(repository)?;
    Ok(())
}

#[test]
fn a_damaged_pack_loses_only_the_blobs_that_were_hit() {
    let (original, _, both) = sample();
    for pack in list(&original, FileKind::Pack) {
        let storage = Arc::new(original.copy());
        let file = StoredFile::new(FileKind::Pack, pack);
        storage.damage(&file, |bytes| bytes[100] ^= 1);
        let repository = open(&storage);
        let salvage = repair_packs(&repository, &[pack]).unwrap().remove(0);
        assert_eq!(salvage.lost.len(), 1, "the byte lies in one blob");
        assert!(!list(&storage, FileKind::Pack).contains(&pack));
        let plan = repair_backups(&repository).unwrap();
        assert!(!plan.repairs.is_empty() || !plan.lost.is_empty());
        assert_clean(&repository);
        for (id, record) in repository.backups().unwrap().0 {
            let own = record.time.secs as u64;
            if both.contains(&id) {
                assert_eq!(load(&repository, id).unwrap(), files(1, own), "it was not touched");
                continue;
            }
            assert!(record.tags.contains(&"repaired".to_owned()) && record.tags.contains(&"daily".to_owned()));
            assert!(both.contains(&record.original.unwrap()));
            let (left, whole) = (load(&repository, id).unwrap(), files(1, own));
            for (path, bytes) in &left {
                assert!(bytes.len() <= whole[path].len(), "{path}");
            }
            let intact = left.iter().filter(|(path, bytes)| whole[*path] == **bytes).count();
            assert!(intact >= 3, "{intact} files of {} are whole", whole.len());
        }
    }
}

#[test]
fn a_truncated_pack_gives_back_what_lies_before_the_cut() {
    let (original, _, _) = sample();
    let index = open(&original).load_index().unwrap();
    for pack in list(&original, FileKind::Pack) {
        let storage = Arc::new(original.copy());
        let file = StoredFile::new(FileKind::Pack, pack);
        // In the last blob, wherever chance has put it: behind it is only the header.
        let blobs = index.iter().filter(|(number, _)| index.packs()[*number] == pack);
        let last = blobs.map(|(_, blob)| blob).max_by_key(|blob| blob.offset).unwrap();
        storage.damage(&file, |bytes| bytes.truncate((last.offset + last.length / 2) as usize));
        let repository = open(&storage);
        // Nobody loses what could still be saved by repairing in the other order.
        let plan = repair_index(&repository).unwrap();
        assert_eq!(plan.damaged.len(), 1);
        let salvage = repair_packs(&repository, &[pack]).unwrap().remove(0);
        assert!(!salvage.lost.is_empty());
        repair_backups(&repository).unwrap();
        assert_clean(&repository);
    }
}

#[test]
fn a_missing_pack_can_be_given_up() {
    let (original, _, _) = sample();
    for pack in list(&original, FileKind::Pack) {
        for by_index in [true, false] {
            let storage = Arc::new(original.copy());
            remove(&storage, FileKind::Pack, pack);
            let repository = open(&storage);
            if by_index {
                assert_eq!(repair_index(&repository).unwrap().gone, [pack]);
            } else {
                let salvage = repair_packs(&repository, &[pack]).unwrap().remove(0);
                assert!(salvage.saved.is_empty() && !salvage.lost.is_empty());
            }
            repair_backups(&repository).unwrap();
            assert_clean(&repository);
        }
    }
}

#[test]
fn a_crash_at_any_moment_of_repairing_loses_nothing_more() {
    let (original, _, both) = sample();
    let packs = list(&original, FileKind::Pack);
    let damaged = packs[0];
    original.damage(&StoredFile::new(FileKind::Pack, damaged), |bytes| bytes[60] ^= 1);
    // What a run without a crash leaves.
    let uncrashed = Arc::new(original.copy());
    repair_all(&open(&uncrashed), &[damaged]).unwrap();
    let contents = |repository: &Repository| {
        let backups = repository.backups().unwrap().0;
        let mut contents: Vec<_> =
            backups.iter().map(|(id, record)| (record.time.secs, load(repository, *id).unwrap())).collect();
        contents.sort();
        contents.dedup();
        contents
    };
    let expected = contents(&open(&uncrashed));
    let run = |storage: &Arc<Memory>| repair_all(&open(storage), &[damaged]);
    let operations = crash_everywhere(&original, &run, &|storage, operations| {
        let repository = open(&storage);
        repository::lock::remove(&repository, &holder(), true).unwrap();
        if list(&storage, FileKind::Pack).contains(&damaged) {
            repair_packs(&repository, &[damaged]).unwrap();
        }
        repair_index(&repository).unwrap();
        repair_backups(&repository).unwrap();
        assert_clean(&repository);
        assert_eq!(contents(&repository), expected, "after {operations}");
    });
    assert!(operations > 10, "{operations}");
    assert!(both.iter().any(|backup| !list(&uncrashed, FileKind::Backup).contains(backup)));
}

#[test]
fn a_plan_for_backups_changes_nothing_and_tells_what_is_lost() {
    let (storage, repository) = init();
    let backup = back_up_tree(&repository, 1, &|saver| {
        let whole = file_node(saver, b"whole", &noise(5, 20_000))?;
        let mut lacks = file_node(saver, b"lacks", &noise(6, 20_000))?;
        lacks.content.as_mut().unwrap()[1] = Id([9; 32]);
        let climbs = file_node(saver, b"..", b"climbs")?;
        let mut unreadable = node(b"unreadable", repository::tree::NodeKind::Dir);
        unreadable.subtree = Some(Id([8; 32]));
        let mut inner = node(b"inner", repository::tree::NodeKind::Dir);
        inner.subtree = Some(save_tree(saver, &[climbs, lacks, unreadable, whole])?);
        save_tree(saver, &[inner])
    })
    .unwrap();
    let before = storage.changes();
    let plan = backups::plan(&repository, None, &Unwatched).unwrap();
    assert_eq!(storage.changes(), before);
    let changes: Vec<(String, &Change)> =
        plan.repairs[0].changes.iter().map(|(place, change)| (place.to_string(), change)).collect();
    let at = backup.short();
    assert_eq!(changes[0], (format!("{at}:/inner/.."), &Change::Dropped));
    assert_eq!(changes[1], (format!("{at}:/inner/lacks"), &Change::Shortened { from: 20_000, to: 12_000 }));
    assert!(matches!(&changes[2], (place, Change::Emptied(_)) if *place == format!("{at}:/inner/unreadable")));
    assert_eq!(changes.len(), 3);
    let held = lock(&repository, false).unwrap();
    let replaced = backups::execute(&repository, &held, &plan, false, &Unwatched).unwrap();
    assert_eq!(replaced[0].0, backup);
    let left = load(&repository, replaced[0].1).unwrap();
    assert_eq!(left["inner/whole"], noise(5, 20_000));
    assert_eq!(left["inner/lacks"], [&noise(6, 20_000)[..8_000], &noise(6, 20_000)[16_000..]].concat());
    assert!(repository.load_record(backup).is_ok(), "the old record is only removed if asked");
    assert!(backups::plan(&repository, Some(&[replaced[0].1]), &Unwatched).unwrap().repairs.is_empty());
}
