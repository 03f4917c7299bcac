//! A second backup reads what has changed and nothing else, and writes what is new and nothing else.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use repository::Repository;
use repository::blob::BlobKind;
use repository::id::Id;
use repository::storage::memory::Memory;
use repository::storage::{FileKind, StoredFile};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::support::storage::{Operation, Switch};
use crate::support::{Made, Scratch, Watch, assert_comes_back, back_up, back_up_with, fill, init, tree_of};

/// Tells which files were opened.
struct Opened(OwnedFd);

impl Opened {
    fn in_directory(directory: &Path) -> Self {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, directory, WatchFlags::OPEN).unwrap();
        Opened(watch)
    }

    fn files(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut files = Vec::new();
        while let Ok(event) = reader.next() {
            if !event.events().contains(ReadFlags::ISDIR) {
                files.push(event.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        files.sort();
        files
    }
}

/// A directory with files of several sizes, backed up once.
struct Backed {
    storage: Arc<Switch>,
    repository: Arc<Repository>,
    source: Scratch,
    first: Made,
    /// Of the source alone.
    tree: Id,
}

impl Backed {
    fn new() -> Self {
        let source = Scratch::new();
        for (name, size) in [("empty", 0), ("large", 3 << 20), ("small", 1000), ("same size", 1000)] {
            fs::write(source.path().join(name), fill::random(size as u64, size)).unwrap();
        }
        fs::hard_link(source.path().join("small"), source.path().join("small too")).unwrap();
        fs::create_dir(source.path().join("below")).unwrap();
        let storage = Switch::to(Arc::new(Memory::new()));
        let repository = init(storage.clone());
        let first = back_up(&repository, source.path(), None);
        let tree = tree_of(&repository, first.tree, source.path());
        Backed { storage, repository, source, first, tree }
    }

    #[track_caller]
    fn assert_same_tree(&self, made: &Made) {
        assert_eq!(tree_of(&self.repository, made.tree, self.source.path()), self.tree);
    }

    /// Backs up again, and asserts which files were opened.
    #[track_caller]
    fn assert_reads(&self, files: &[&str]) -> Made {
        let opened = Opened::in_directory(self.source.path());
        let made = back_up(&self.repository, self.source.path(), Some(self.first.tree));
        assert_eq!(opened.files(), files);
        let summary = &made.outcome.summary;
        assert_eq!(summary.files_new + summary.files_changed, files.len() as u64);
        assert_eq!(summary.total_files_processed, fs::read_dir(self.source.path()).unwrap().count() as u64 - 1);
        let target = Scratch::new();
        assert_comes_back(&self.repository, made.tree, self.source.path(), target.path());
        made
    }
}

#[test]
fn the_watch_sees_files_that_are_opened() {
    let backed = Backed::new();
    let opened = Opened::in_directory(backed.source.path());
    back_up(&backed.repository, backed.source.path(), None);
    assert_eq!(opened.files(), ["empty", "large", "same size", "small", "small too"]);
}

#[test]
fn of_an_unchanged_tree_no_file_is_opened_and_only_the_record_is_written() {
    let backed = Backed::new();
    let mut before = backed.assert_reads(&[]);
    backed.assert_same_tree(&before);
    // The directories above the source are others' too: what is written because of them is not our matter.
    let quiet = (0..50).find_map(|_| {
        backed.storage.take_operations();
        let next = back_up(&backed.repository, backed.source.path(), Some(before.tree));
        let is_quiet = next.tree == before.tree;
        before = next;
        is_quiet.then(|| backed.storage.take_operations())
    });
    let mut operations = quiet.expect("a moment at which nobody changes anything above the source");
    assert_eq!(before.outcome.added, Default::default());
    // The lock has a thread of its own.
    let is_of_lock =
        |operation: &Operation| matches!(operation, Operation::List(FileKind::Lock) | Operation::Read(FileKind::Lock));
    operations.retain(|operation| !is_of_lock(operation));
    let directories = backed.source.path().components().count() + 1;
    let read = |kind| operations.iter().filter(|operation| **operation == Operation::Read(kind)).count();
    assert_eq!(read(FileKind::Pack), directories);
    operations.retain(|operation| !matches!(operation, Operation::Read(_)));
    let expected = [
        Operation::Write(FileKind::Lock),
        Operation::List(FileKind::Index),
        Operation::Write(FileKind::Backup),
        Operation::Remove(FileKind::Lock),
    ];
    assert_eq!(operations, expected);
}

#[test]
fn a_file_with_another_time_is_read_and_adds_no_data() {
    let backed = Backed::new();
    fill::set_mtime(&backed.source.path().join("large"), 1_000_000_000, 1);
    let second = backed.assert_reads(&["large"]);
    assert_eq!(second.outcome.added.data_blobs, 0);
}

#[test]
fn a_file_changed_behind_its_time_and_size_is_read() {
    let backed = Backed::new();
    let file = backed.source.path().join("same size");
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&file, fill::random(4711, 1000)).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(before).unwrap();
    let second = backed.assert_reads(&["same size"]);
    assert_eq!(second.outcome.added.data_blobs, 1);
}

#[test]
fn a_file_replaced_by_another_of_the_same_time_and_size_is_read() {
    let backed = Backed::new();
    let (file, other) = (backed.source.path().join("same size"), backed.source.path().join("other"));
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    fs::write(&other, fill::random(4711, 1000)).unwrap();
    fs::File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
    fs::rename(&other, &file).unwrap();
    backed.assert_reads(&["same size"]);
}

#[test]
fn attributes_that_changed_are_saved_with_all_names_of_the_file() {
    let backed = Backed::new();
    fill::chmod(&backed.source.path().join("small"), 0o600);
    let second = backed.assert_reads(&["small", "small too"]);
    assert_eq!(second.outcome.added.data_blobs, 0);
}

#[test]
fn a_new_file_is_read_alone() {
    let backed = Backed::new();
    fs::write(backed.source.path().join("new"), "new").unwrap();
    let second = backed.assert_reads(&["new"]);
    assert_eq!(second.outcome.summary.files_new, 1);
    assert_eq!(second.outcome.added.data_blobs, 1);
}

#[test]
fn what_the_index_has_lost_is_read_and_stored_again() {
    let backed = Backed::new();
    let repository = &backed.repository;
    for (id, _) in repository.storage().list(FileKind::Index).unwrap() {
        let mut packs = repository.load_index_file(id).unwrap();
        packs.retain(|(_, blobs)| blobs[0].kind == BlobKind::Tree);
        let document = repository::index::file::encode(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        repository.save(FileKind::Index, &document).unwrap();
        repository.storage().remove(&StoredFile::new(FileKind::Index, id)).unwrap();
    }
    let second = backed.assert_reads(&["large", "same size", "small", "small too"]);
    backed.assert_same_tree(&second);
    assert_eq!(second.outcome.added.data_blobs, backed.first.outcome.added.data_blobs);
}

#[test]
fn without_the_parents_trees_everything_is_read_and_that_is_said() {
    let backed = Backed::new();
    for (id, _) in backed.repository.storage().list(FileKind::Index).unwrap() {
        backed.repository.storage().remove(&StoredFile::new(FileKind::Index, id)).unwrap();
    }
    let watch = Watch::default();
    let parent = Some(backed.first.tree);
    let second = back_up_with(&backed.repository, &[backed.source.path()], parent, &watch, |_| {}).unwrap();
    backed.assert_same_tree(&second);
    assert_eq!(second.outcome.errors, 0);
    let said = watch.errors();
    assert!(said.len() == 1 && said[0].contains("read as if it were new"), "{said:?}");
    let target = Scratch::new();
    assert_comes_back(&backed.repository, second.tree, backed.source.path(), target.path());
}

#[test]
fn what_lies_below_a_link_on_the_way_is_backed_up() {
    let source = Scratch::new();
    let real = source.directory("real");
    fs::create_dir(real.join("bob")).unwrap();
    fs::write(real.join("bob/file"), "saved").unwrap();
    let link = source.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let repository = init(Arc::new(Memory::new()));
    let made = back_up(&repository, &link.join("bob"), None);
    let target = Scratch::new();
    assert_comes_back(&repository, made.tree, &link.join("bob"), target.path());
}

#[test]
fn a_target_below_a_file_is_an_error_and_the_file_is_not_taken_for_it() {
    let source = Scratch::new();
    fs::write(source.path().join("file"), "x").unwrap();
    let repository = init(Arc::new(Memory::new()));
    let watch = Watch::default();
    let path = source.path().join("file/below");
    let made = back_up_with(&repository, &[&path], None, &watch, |_| {}).unwrap();
    assert_eq!((made.outcome.errors, made.outcome.summary.total_files_processed), (1, 0), "{:?}", watch.errors());
}
