//! Whatever moment the storage fails or freezes at: what was there before restores in full, and the next run succeeds
//! and goes on from what was stored.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use repository::blob::BlobKind;
use repository::blob_writer::{BlobWriter, Destination};
use repository::id::Id;
use repository::lock::{Lock, LockTimes};
use repository::storage::memory::Memory;
use repository::storage::{FileKind, Storage as _};
use repository::{Error, Repository};

use crate::support::storage::Switch;
use crate::support::tree::{Facts, look};
use crate::support::{Made, Scratch, Watch, back_up_with, below, bring_back, fill, holder, init, open, tree_of};

/// A backup that was made earlier, and what its source was then.
struct Earlier {
    tree: Id,
    facts: Vec<Facts>,
}

fn facts(path: &Path) -> Vec<Facts> {
    look(path).into_iter().map(|(facts, _)| facts).collect()
}

/// A source, a repository with earlier backups of it, and what a whole run from there makes.
struct Trial {
    source: Scratch,
    switch: Arc<Switch>,
    repository: Arc<Repository>,
    base: Memory,
    earlier: Vec<Earlier>,
    whole: Made,
    whole_tree: Id,
    changes: u64,
}

impl Trial {
    fn new(with_earlier: bool) -> Self {
        let source = Scratch::new();
        // Enough for several packs.
        for number in 0..5 {
            fs::write(source.path().join(format!("large {number}")), fill::random(number, 5 << 20)).unwrap();
        }
        for number in 0..100 {
            let directory = source.directory(&format!("directory {}", number % 7));
            fs::write(directory.join(number.to_string()), fill::random(1000 + number, 5_000)).unwrap();
        }
        let memory = Arc::new(Memory::new());
        let switch = Switch::to(memory.clone());
        let repository = init(switch.clone());
        let mut earlier = Vec::new();
        if with_earlier {
            let made = back_up_with(&repository, &[source.path()], None, &Watch::default(), |_| {}).unwrap();
            earlier.push(Earlier { tree: made.tree, facts: facts(source.path()) });
            fs::write(source.path().join("large 1"), fill::random(77, 20 << 20)).unwrap();
            fs::write(source.path().join("directory 3/new"), "new").unwrap();
            fs::remove_file(source.path().join("directory 0/0")).unwrap();
        }
        let base = memory.copy();
        let counted = Arc::new(base.copy());
        switch.exchange(counted.clone());
        let parent = earlier.last().map(|earlier| earlier.tree);
        let whole = back_up_with(&repository, &[source.path()], parent, &Watch::default(), |_| {}).unwrap();
        let whole_tree = tree_of(&repository, whole.tree, source.path());
        Trial { source, repository, base, earlier, whole, whole_tree, changes: counted.changes(), switch }
    }

    fn run(&self, watch: &Watch) -> Result<Made, Error> {
        let parent = self.earlier.last().map(|earlier| earlier.tree);
        back_up_with(&self.repository, &[self.source.path()], parent, watch, |_| {})
    }

    fn known_data_blobs(&self) -> u64 {
        let index = self.repository.load_index().unwrap();
        index.iter().filter(|(_, blob)| blob.kind == BlobKind::Data).count() as u64
    }

    #[track_caller]
    fn assert_comes_back(&self, tree: Id, expected: &[Facts]) {
        let target = Scratch::new();
        bring_back(&self.repository, tree, target.path());
        assert!(facts(&below(target.path(), self.source.path())) == expected);
    }

    /// What must hold of a storage in which a run ended at any moment.
    #[track_caller]
    fn assert_survived(&self, storage: Memory) {
        let before = {
            self.switch.exchange(Arc::new(self.base.copy()));
            self.known_data_blobs()
        };
        self.switch.exchange(Arc::new(storage));
        for earlier in &self.earlier {
            self.assert_comes_back(earlier.tree, &earlier.facts);
        }
        // What lies in an index is not stored again.
        let kept = self.known_data_blobs() - before;
        let watch = Watch::default();
        let made = self.run(&watch).unwrap();
        watch.assert_silent();
        assert_eq!(tree_of(&self.repository, made.tree, self.source.path()), self.whole_tree);
        assert_eq!(made.outcome.added.data_blobs, self.whole.outcome.added.data_blobs - kept);
        self.assert_comes_back(made.tree, &facts(self.source.path()));
        let (records, damaged) = self.repository.backups().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        for (_, record) in records {
            bring_back(&self.repository, record.tree, Scratch::new().path());
        }
    }

    fn fail_everywhere(&self) {
        assert!(self.changes >= 5, "a lock, packs, an index, a record: {}", self.changes);
        for changes in 0..=self.changes {
            let storage = Arc::new(self.base.copy());
            storage.fail_after(Some(changes));
            self.switch.exchange(storage.clone());
            let watch = Watch::default();
            let result = self.run(&watch);
            watch.assert_silent();
            // How many packs there are is left to chance, so what the last change was is for the storage to say.
            let records = |storage: &Memory| storage.list(FileKind::Backup).unwrap().len();
            assert_eq!(result.is_ok(), records(&storage) > records(&self.base), "after {changes} of {}", self.changes);
            if let Err(error) = result {
                assert!(error.to_string().contains("failed on purpose"), "{error}");
            }
            self.assert_survived(storage.copy());
        }
    }

    fn freeze_everywhere(&self) {
        for changes in 0..self.changes {
            let storage = Arc::new(self.base.copy());
            self.switch.exchange(storage.clone());
            self.switch.freeze_after(changes);
            let watch = Watch::default();
            let (frozen, result) = std::thread::scope(|scope| {
                let run = scope.spawn(|| self.run(&watch));
                // A run that came out with fewer packs than the first is over by now.
                self.switch.wait_until_frozen(|| run.is_finished());
                watch.cancelled.store(true, Ordering::Relaxed);
                let frozen = storage.copy();
                let thawed = Instant::now();
                self.switch.thaw();
                let result = run.join().unwrap();
                assert!(thawed.elapsed() < Duration::from_secs(10));
                (frozen, result)
            });
            match result {
                Err(Error::Cancelled) => {}
                // The files were all stored.
                Ok(made) => {
                    assert_eq!(tree_of(&self.repository, made.tree, self.source.path()), self.whole_tree);
                }
                Err(error) => panic!("{error}"),
            }
            // Both if the machine was switched off while it was frozen, and after an orderly end.
            self.assert_survived(frozen);
            self.assert_survived(storage.copy());
        }
    }
}

#[test]
fn a_first_backup_may_fail_anywhere() {
    Trial::new(false).fail_everywhere();
}

#[test]
fn an_incremental_backup_may_fail_anywhere() {
    Trial::new(true).fail_everywhere();
}

#[test]
fn a_first_backup_may_freeze_anywhere_and_be_cancelled() {
    Trial::new(false).freeze_everywhere();
}

#[test]
fn an_incremental_backup_may_freeze_anywhere_and_be_cancelled() {
    Trial::new(true).freeze_everywhere();
}

#[test]
fn after_a_failure_the_repository_opens_with_its_password() {
    let trial = Trial::new(true);
    let storage = Arc::new(trial.base.copy());
    storage.fail_after(Some(3));
    trial.switch.exchange(storage.clone());
    assert!(trial.run(&Watch::default()).is_err());
    let reopened = open(Arc::new(storage.copy()));
    let target = Scratch::new();
    bring_back(&reopened, trial.earlier[0].tree, target.path());
    assert!(facts(&below(target.path(), trial.source.path())) == trial.earlier[0].facts);
}

#[test]
fn a_run_with_several_index_files_may_fail_anywhere() {
    const BLOBS: u32 = 110_000;
    let switch = Switch::to(Arc::new(Memory::new()));
    let repository = init(switch.clone());
    let store_all = || {
        let times = LockTimes { settle: Duration::from_millis(1), ..LockTimes::default() };
        let lock = Arc::new(Lock::acquire_with(&repository, false, &holder(), times)?);
        let index = Arc::new(repository.load_index()?);
        let writer = BlobWriter::new(&repository, &index, Destination::Repository(lock));
        let mut saver = writer.saver();
        for number in 0..BLOBS {
            // Of a size that gives many packs.
            let mut blob = [0; 600];
            blob.copy_from_slice(&fill::random(u64::from(number), 600));
            saver.save(BlobKind::Data, &blob)?;
        }
        drop(saver);
        writer.finish()
    };
    let empty = Memory::new();
    empty.create().unwrap();
    let whole = Arc::new(empty.copy());
    switch.exchange(whole.clone());
    assert_eq!(store_all().unwrap().data_blobs, u64::from(BLOBS));
    let files = repository.storage().list(FileKind::Index).unwrap();
    assert!(files.len() >= 2, "{} index files", files.len());
    let changes = whole.changes();
    for failing in 0..changes {
        let storage = Arc::new(empty.copy());
        storage.fail_after(Some(failing));
        switch.exchange(storage.clone());
        let result = store_all();
        switch.exchange(Arc::new(storage.copy()));
        let known = repository.load_index().unwrap().len() as u64;
        // How many index files there are depends on which pack is full first, so the last failures may come too late.
        assert_eq!(result.is_ok(), known == u64::from(BLOBS), "after {failing} of {changes}");
        assert_eq!(store_all().unwrap().data_blobs, u64::from(BLOBS) - known);
        assert_eq!(repository.load_index().unwrap().len(), BLOBS as usize);
    }
}
