//! What every storage must do.

use std::sync::Arc;

use repository::hash::sha256;
use repository::id::Id;
use repository::storage::limited::{Limited, Limits};
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Local, Storage, StorageError, StoredFile};

/// Runs a test on each storage.
fn on_each(test: impl Fn(&dyn Storage)) {
    let memory = Memory::new();
    memory.create().unwrap();
    test(&memory);
    let directory = tempfile::tempdir().unwrap();
    let local = Local::new(directory.path().join("repository"));
    local.create().unwrap();
    test(&local);
    let limits = Limits { upload: Some(1 << 40), download: Some(1 << 40) };
    let limited = Limited::new(Arc::new(Memory::new()), limits, Arc::new(|| false));
    limited.create().unwrap();
    test(&limited);
}

fn store(storage: &dyn Storage, kind: FileKind, bytes: &[u8]) -> StoredFile {
    let file = StoredFile::new(kind, sha256(bytes));
    storage.write(&file, bytes).unwrap();
    file
}

fn read(storage: &dyn Storage, file: &StoredFile) -> Vec<u8> {
    let mut bytes = b"what was there before".to_vec();
    storage.read(file, &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_written_is_read_back_in_whole_and_in_part() {
    on_each(|storage| {
        for kind in FileKind::LISTED {
            let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number * 7) as u8).collect();
            let file = store(storage, kind, &bytes);
            assert_eq!(read(storage, &file), bytes);
            assert_eq!(storage.size(&file).unwrap(), bytes.len() as u64);
            let mut part = Vec::new();
            for (offset, length) in [(0, 1), (0, 100_000), (99_999, 1), (5, 70_000), (100_000, 0)] {
                storage.read_range(&file, offset, length, &mut part).unwrap();
                assert_eq!(part, bytes[offset as usize..(offset + length) as usize]);
            }
        }
    });
}

#[test]
fn an_empty_file_can_be_stored() {
    on_each(|storage| {
        let file = store(storage, FileKind::Lock, b"");
        assert_eq!(read(storage, &file), b"");
        assert_eq!(storage.list(FileKind::Lock).unwrap(), [(file.id, 0)]);
    });
}

#[test]
fn a_range_beyond_the_end_is_an_error_that_tells_where_the_file_ends() {
    on_each(|storage| {
        let file = store(storage, FileKind::Pack, b"0123456789");
        let mut bytes = Vec::new();
        match storage.read_range(&file, 8, 5, &mut bytes) {
            Err(StorageError::Truncated { file: named, wanted: 13, got: 10, .. }) => assert_eq!(named, file),
            other => panic!("{other:?}"),
        }
        assert!(storage.read_range(&file, 11, 1, &mut bytes).is_err());
    });
}

#[test]
fn a_missing_file_is_named() {
    on_each(|storage| {
        let file = StoredFile::new(FileKind::Index, Id([7; 32]));
        let mut bytes = Vec::new();
        let errors = [
            storage.read(&file, &mut bytes).unwrap_err(),
            storage.read_range(&file, 0, 1, &mut bytes).unwrap_err(),
            storage.size(&file).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(&error, StorageError::NotFound { file: named, .. } if *named == file), "{error}");
        }
    });
}

#[test]
fn a_listing_has_all_files_of_its_kind_with_their_sizes_and_no_others() {
    on_each(|storage| {
        let mut expected = Vec::new();
        for number in 0..300_u32 {
            let bytes = vec![1; number as usize];
            store(storage, FileKind::Index, &[&number.to_le_bytes()[..], b"another kind"].concat());
            expected.push((store(storage, FileKind::Pack, &bytes).id, u64::from(number)));
        }
        expected.sort();
        let mut listed = storage.list(FileKind::Pack).unwrap();
        listed.sort();
        assert_eq!(listed, expected);
        assert_eq!(storage.list(FileKind::Backup).unwrap(), []);
    });
}

#[test]
fn a_place_without_a_repository_is_never_an_empty_listing() {
    let directory = tempfile::tempdir().unwrap();
    let storages: [&dyn Storage; 2] = [&Memory::new(), &Local::new(directory.path().join("nowhere"))];
    for storage in storages {
        for kind in FileKind::LISTED {
            assert!(storage.list(kind).is_err(), "{}", storage.location());
        }
    }
}

#[test]
fn a_removed_file_is_gone_and_can_be_removed_again() {
    on_each(|storage| {
        let file = store(storage, FileKind::Pack, b"pack");
        let other = store(storage, FileKind::Pack, b"other");
        storage.remove(&file).unwrap();
        storage.remove(&file).unwrap();
        assert!(matches!(storage.size(&file), Err(StorageError::NotFound { .. })));
        assert_eq!(storage.list(FileKind::Pack).unwrap(), [(other.id, 5)]);
    });
}

#[test]
fn a_file_written_twice_is_no_error_but_config_is_never_replaced() {
    on_each(|storage| {
        let file = store(storage, FileKind::Pack, b"the same");
        store(storage, FileKind::Pack, b"the same");
        assert_eq!(read(storage, &file), b"the same");
        storage.write(&StoredFile::CONFIG, b"first").unwrap();
        let error = storage.write(&StoredFile::CONFIG, b"second").unwrap_err();
        assert!(matches!(error, StorageError::Exists { .. }), "{error}");
        assert_eq!(read(storage, &StoredFile::CONFIG), b"first");
    });
}

#[test]
fn creating_again_destroys_nothing() {
    on_each(|storage| {
        let file = store(storage, FileKind::Backup, b"record");
        storage.create().unwrap();
        assert_eq!(read(storage, &file), b"record");
    });
}

#[test]
fn many_threads_write_and_read_at_once() {
    on_each(|storage| {
        std::thread::scope(|scope| {
            for thread in 0..8_u8 {
                scope.spawn(move || {
                    for number in 0..50_u8 {
                        // Every second file is the same for all threads.
                        let who = if number % 2 == 0 { 0 } else { thread };
                        let bytes = [[who, number]; 500].concat();
                        let file = store(storage, FileKind::Pack, &bytes);
                        assert_eq!(read(storage, &file), bytes);
                    }
                });
            }
        });
        assert_eq!(storage.list(FileKind::Pack).unwrap().len(), 25 + 8 * 25);
    });
}

#[test]
fn what_an_unfinished_write_leaves_is_not_listed_and_can_be_removed() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Local::new(directory.path());
    storage.create().unwrap();
    let file = store(&storage, FileKind::Pack, b"whole");
    let path = directory.path().join(file.path());
    let unfinished = path.with_file_name(format!("{}-tmp-123", Id([9; 32])));
    std::fs::write(&unfinished, b"half").unwrap();
    let foreign = path.with_file_name("lost+found");
    std::fs::write(&foreign, b"not ours").unwrap();
    assert_eq!(storage.list(FileKind::Pack).unwrap(), [(file.id, 5)]);
    assert_eq!(storage.remove_unfinished().unwrap(), 4);
    assert!(!unfinished.exists() && foreign.exists() && path.exists());
}

#[test]
fn a_memory_that_was_told_to_fail_changes_nothing_any_more() {
    let storage = Arc::new(Memory::new());
    storage.create().unwrap();
    storage.fail_after(Some(1));
    let file = store(&*storage, FileKind::Pack, b"the last one");
    assert!(storage.write(&StoredFile::new(FileKind::Pack, sha256(b"lost")), b"lost").is_err());
    assert!(storage.remove(&file).is_err());
    assert_eq!(storage.copy().list(FileKind::Pack).unwrap(), [(file.id, 12)]);
}
