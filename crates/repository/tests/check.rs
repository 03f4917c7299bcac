//! Damage of every kind to every kind of file: a check names it.

mod support;

use std::sync::Arc;

use repository::Error;
use repository::Repository;
use repository::check::{self, Hint, Options, Problem, ReadData, Report, WayOut};
use repository::id::Id;
use repository::progress::{Progress, Unwatched};
use repository::reachable::Flaw;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage, StoredFile};
use repository::tree::NodeKind;
use support::*;

/// Two backups that share some of their files.
fn sample() -> (Arc<Memory>, Arc<Repository>) {
    let (storage, repository) = init();
    back_up(&repository, 1000, &files(1, 2)).unwrap();
    back_up(&repository, 2000, &files(1, 3)).unwrap();
    (storage, repository)
}

fn check_quickly(repository: &Repository) -> Report {
    check::check(repository, &Options::default(), &Unwatched).unwrap()
}

/// Whether some error's text names the file.
fn names(report: &Report, id: Id) -> bool {
    report.errors.iter().any(|problem| problem.to_string().contains(&id.short()))
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    Truncated,
    Emptied,
    Flipped,
}

fn damage(storage: &Memory, file: &StoredFile, damage: Damage) {
    match damage {
        Damage::Deleted => storage.remove(file).unwrap(),
        Damage::Truncated => storage.damage(file, |bytes| bytes.truncate(bytes.len() / 2)),
        Damage::Emptied => storage.damage(file, Vec::clear),
        Damage::Flipped => storage.damage(file, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
    }
}

#[test]
fn a_whole_repository_has_neither_errors_nor_hints() {
    let (_, repository) = sample();
    let report = check_all(&repository);
    assert!(report.is_clean() && report.hints.is_empty(), "{report:?}");
    assert_eq!(report.figures.backups, 2);
    assert_eq!(report.figures.used_blobs, report.figures.blobs);
    assert_eq!(report.figures.packs_read, report.figures.packs);
    assert_eq!(report.figures.bytes_read, report.figures.pack_bytes);
}

#[test]
fn every_damage_to_every_pack_is_named_when_data_is_read() {
    let (original, _) = sample();
    for pack in list(&original, FileKind::Pack) {
        for kind in [Damage::Deleted, Damage::Truncated, Damage::Emptied, Damage::Flipped] {
            let storage = Arc::new(original.copy());
            damage(&storage, &StoredFile::new(FileKind::Pack, pack), kind);
            let report = check_all(&open(&storage));
            assert!(names(&report, pack), "{kind:?} {report:?}");
            assert!(report.ways_out().contains(&WayOut::RepairBackups.to_string()));
            if !matches!(kind, Damage::Flipped) {
                assert!(names(&check_quickly(&open(&storage)), pack), "{kind:?} is seen without reading data");
            }
        }
    }
}

#[test]
fn each_single_bit_of_a_pack_counts() {
    let (original, repository) = init();
    back_up(&repository, 1, &Files::from([("d/f".to_owned(), b"short".to_vec())])).unwrap();
    for pack in list(&original, FileKind::Pack) {
        let file = StoredFile::new(FileKind::Pack, pack);
        for at in 0..original.size(&file).unwrap() as usize {
            let storage = Arc::new(original.copy());
            storage.damage(&file, |bytes| bytes[at] ^= 1 << (at % 8));
            // The same key: opening anew would take a while for each.
            damage_shows(&original, &repository, &storage, &file, at);
        }
    }
}

/// Puts the damaged bytes into the storage that is open, checks, and puts the right ones back.
fn damage_shows(original: &Memory, repository: &Repository, damaged: &Memory, file: &StoredFile, at: usize) {
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    original.read(file, &mut right).unwrap();
    damaged.read(file, &mut wrong).unwrap();
    original.damage(file, |bytes| bytes.clone_from(&wrong));
    let report = check_all(repository);
    assert!(names(&report, file.id), "byte {at}: {report:?}");
    original.damage(file, |bytes| bytes.clone_from(&right));
}

#[test]
fn damaged_packs_name_the_files_that_need_them() {
    let (storage, repository) = sample();
    for pack in list(&storage, FileKind::Pack) {
        let copy = Arc::new(storage.copy());
        remove(&copy, FileKind::Pack, pack);
        let report = check_all(&open(&copy));
        let places = report.errors.iter().find_map(|problem| match problem {
            Problem::PackMissing { pack: named, affected, .. } if *named == pack => Some(affected),
            _ => None,
        });
        let text = report.errors.iter().map(ToString::to_string).collect::<String>();
        // Root trees are in no directory; then the tree itself cannot be read.
        let tree = report.errors.iter().any(|problem| matches!(problem, Problem::Tree { flaw: Flaw::Tree(_), .. }));
        assert!(places.is_some_and(|places| !places.is_empty()) || tree, "{text}");
    }
    drop(repository);
}

#[test]
fn every_damage_to_small_files_is_named_or_keeps_the_repository_from_opening() {
    let (original, repository) = sample();
    // Another key, so that a damaged one does not lock us out, and a lock of somebody else.
    repository.add_key(b"another", &holder()).unwrap();
    let held = lock(&repository, false).unwrap();
    let own_key = repository.key_id();
    for kind in [FileKind::Key, FileKind::Lock, FileKind::Backup, FileKind::Index] {
        for id in list(&original, kind) {
            for how in [Damage::Truncated, Damage::Flipped] {
                let storage = Arc::new(original.copy());
                let file = StoredFile::new(kind, id);
                damage(&storage, &file, how);
                match Repository::open(storage.clone(), PASSWORD) {
                    Ok(repository) => {
                        let report = check_all(&repository);
                        assert!(names(&report, id), "{file} {how:?}: {report:?}");
                        assert_ne!(id, own_key);
                    }
                    Err(error) => assert!(id == own_key, "{error}"),
                }
            }
        }
    }
    drop(held);
}

#[test]
fn a_deleted_index_file_leaves_files_without_data() {
    let (storage, _) = sample();
    for id in list(&storage, FileKind::Index) {
        let copy = Arc::new(storage.copy());
        remove(&copy, FileKind::Index, id);
        let report = check_quickly(&open(&copy));
        assert!(!report.is_clean());
        assert!(report.hints.iter().any(|hint| matches!(hint, Hint::UnindexedPacks { .. })), "{report:?}");
    }
}

#[test]
fn a_damaged_config_is_named_when_opening() {
    let (original, _) = sample();
    for how in [Damage::Deleted, Damage::Truncated, Damage::Emptied, Damage::Flipped] {
        let storage = Arc::new(original.copy());
        damage(&storage, &StoredFile::CONFIG, how);
        let error = Repository::open(storage, PASSWORD).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. } | Error::NoRepository(_)), "{how:?}: {error}");
    }
}

#[test]
fn what_an_interrupted_run_leaves_is_a_hint_not_an_error() {
    let (storage, repository) = init();
    back_up(&repository, 1, &files(1, 2)).unwrap();
    let before = list(&storage, FileKind::Index);
    back_up(&repository, 2, &files(1, 3)).unwrap();
    // As if it had died before the index: no record, no index file.
    for id in list(&storage, FileKind::Index).into_iter().filter(|id| !before.contains(id)) {
        remove(&storage, FileKind::Index, id);
    }
    let newest = repository.backups().unwrap().0.pop().unwrap().0;
    remove(&storage, FileKind::Backup, newest);
    let report = check_all(&repository);
    assert!(report.is_clean(), "{report:?}");
    assert!(matches!(report.hints[..], [Hint::UnindexedPacks { .. }]), "{report:?}");
}

#[test]
fn forged_trees_are_named_by_place() {
    let (_, repository) = init();
    let backup = back_up_tree(&repository, 1, &|saver| {
        let mut nodes = vec![file_node(saver, b"..", b"climbs")?];
        nodes.push(node(b"dir without tree", NodeKind::Dir));
        nodes.push(node(b"file without content", NodeKind::File));
        let mut large = file_node(saver, b"larger than it is", b"12345")?;
        large.size = 6;
        nodes.push(large);
        let mut lost = node(b"lost", NodeKind::File);
        lost.content = Some(vec![Id([1; 32])]);
        nodes.push(lost);
        let mut gone = node(b"no such tree", NodeKind::Dir);
        gone.subtree = Some(Id([2; 32]));
        nodes.push(gone);
        save_tree(saver, &nodes)
    })
    .unwrap();
    let report = check_all(&repository);
    let mut texts: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    texts.sort();
    let at = backup.short();
    let starts = [
        format!("{at}:/..: no file can have this name"),
        format!("{at}:/dir without tree: the directory has no tree"),
        format!("{at}:/file without content: the file has no list"),
        format!("{at}:/larger than it is: the file should have 6 bytes, its blobs have 5"),
        format!("{at}:/lost: 1 of the file's blobs are in no pack"),
        format!("{at}:/no such tree: the directory cannot be read"),
    ];
    assert_eq!(texts.len(), starts.len(), "{texts:#?}");
    for (text, start) in texts.iter().zip(&starts) {
        assert!(text.starts_with(start), "{text:?} begins with {start:?}");
    }
}

#[test]
fn a_tree_a_hundred_thousand_directories_deep_is_walked() {
    let (_, repository) = init();
    back_up_tree(&repository, 1, &|saver| {
        let file = file_node(saver, b"at the bottom", b"deep")?;
        let mut tree = save_tree(saver, &[file])?;
        for _ in 0..100_000 {
            let mut directory = node(b"d", NodeKind::Dir);
            directory.subtree = Some(tree);
            tree = save_tree(saver, &[directory])?;
        }
        Ok(tree)
    })
    .unwrap();
    let report = check_quickly(&repository);
    assert!(report.is_clean(), "{:?}", report.errors);
    assert_eq!(report.figures.used_blobs, 100_002);
}

#[test]
fn all_parts_in_turn_read_every_pack_once_and_a_percentage_some() {
    let (_, repository) = init();
    for seed in 0..20 {
        back_up(&repository, seed, &files(1, seed as u64 + 10)).unwrap();
    }
    let read = |read_data| {
        let report = check::check(&repository, &Options { read_data }, &Unwatched).unwrap();
        assert!(report.is_clean());
        report.figures
    };
    let all = read(ReadData::All);
    let parts = (1..=5).map(|number| read(ReadData::Part { number, of: 5 }).packs_read);
    assert_eq!(parts.sum::<u64>(), all.packs);
    assert_eq!(read(ReadData::None).packs_read, 0);
    assert_eq!(read(ReadData::Percent { percent: 0.001, seed: 1 }).packs_read, 1);
    assert_eq!(read(ReadData::Percent { percent: 50.0, seed: 1 }).packs_read, all.packs.div_ceil(2));
    assert_eq!(read(ReadData::Percent { percent: 100.0, seed: 1 }).packs_read, all.packs);
    for (number, of) in [(0, 5), (6, 5), (1, 0), (257, 300)] {
        let options = Options { read_data: ReadData::Part { number, of } };
        assert!(check::check(&repository, &options, &Unwatched).is_err(), "{number}/{of}");
    }
}

#[test]
fn a_check_can_be_cancelled() {
    struct Impatient;
    impl Progress for Impatient {
        fn is_cancelled(&self) -> bool {
            true
        }
    }
    let (_, repository) = sample();
    let result = check::check(&repository, &Options::default(), &Impatient);
    assert!(matches!(result, Err(Error::Cancelled)));
}
