//! Both ways with the real restic: each reads what the other wrote, and both store a file's data once.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use repository::Repository;
use repository::blob::BlobKind;
use repository::storage::{FileKind, Local};

use crate::support::restic::Restic;
use crate::support::{Scratch, assert_comes_back, back_up, below, fill, init, is_root, open, tree, tree_of};

/// A source, and a repository of ours and of each restic.
struct Both {
    source: Scratch,
    place: Scratch,
    restic: Restic,
}

impl Both {
    fn each(test: impl Fn(&Both)) {
        for program in Restic::programs() {
            let (source, place) = (Scratch::new(), Scratch::new());
            if is_root() {
                fill::privileged(source.path());
            }
            fill::plain(source.path());
            // restic makes a fifo of each of a fifo's names, and a file of each of a link's.
            fs::remove_file(source.path().join("a/fifo")).unwrap();
            fs::remove_file(source.path().join("a/b/link")).unwrap();
            // It does not restore attributes of links and of other namespaces.
            for name in ["capable", "owned link"] {
                let _ = fs::remove_file(source.path().join(name));
            }
            fill::sizes(source.path());
            let restic = Restic::with(&program, place.path());
            if !restic.keeps_odd_links() {
                fs::remove_file(source.path().join("odd link")).unwrap();
            }
            test(&Both { source, place, restic });
        }
    }

    fn ours(&self) -> Arc<Repository> {
        init(Arc::new(Local::new(self.place.path())))
    }

    /// restic's, of a version.
    fn theirs(&self, version: &str) -> Arc<Repository> {
        self.restic.run(&["init", "--repository-version", version]);
        open(Arc::new(Local::new(self.place.path())))
    }

    fn restic_backs_up(&self) {
        self.restic.run(&["backup", "--host", "tester", self.source.path().to_str().unwrap()]);
    }

    #[track_caller]
    fn assert_restic_restores(&self) {
        let target = Scratch::new();
        self.restic.run(&["restore", "latest", "--target", target.path().to_str().unwrap()]);
        tree::assert_same(self.source.path(), &below(target.path(), self.source.path()));
    }

    /// The newest backup, which restic made.
    #[track_caller]
    fn assert_we_restore(&self, repository: &Repository) {
        let (records, damaged) = repository.backups().unwrap();
        assert!(damaged.is_empty());
        let (_, record) = records.last().unwrap();
        assert_comes_back(repository, record.tree, self.source.path(), Scratch::new().path());
    }
}

fn data_blobs(repository: &Repository) -> usize {
    let index = repository.load_index().unwrap();
    index.iter().filter(|(_, blob)| blob.kind == BlobKind::Data).count()
}

#[test]
fn restic_checks_lists_and_restores_ours() {
    Both::each(|both| {
        back_up(&both.ours(), both.source.path(), None);
        both.restic.run(&["check", "--read-data"]);
        let listed = both.restic.run(&["snapshots", "--json"]);
        assert!(listed.contains(both.source.path().to_str().unwrap()), "{listed}");
        both.assert_restic_restores();
    });
}

#[test]
fn restic_mounts_ours() {
    Both::each(|both| {
        back_up(&both.ours(), both.source.path(), None);
        let target = Scratch::new();
        let Some(_mounted) = both.restic.mount(target.path()) else { return };
        let mounted = below(&target.path().join("snapshots/latest"), both.source.path());
        for name in ["a/file", "a/b/large", "20971520-random", "8388609-zeros", "holes"] {
            let (is, should) = (fs::read(mounted.join(name)), fs::read(both.source.path().join(name)));
            assert!(is.unwrap() == should.unwrap(), "{name}");
        }
        assert_eq!(fs::read_link(mounted.join("link")).unwrap(), Path::new("a/file"));
    });
}

#[test]
fn we_restore_restics() {
    Both::each(|both| {
        let repository = both.theirs("2");
        both.restic_backs_up();
        both.assert_we_restore(&repository);
    });
}

#[test]
fn after_restic_we_add_no_data_and_after_us_restic_adds_none() {
    Both::each(|both| {
        let repository = both.theirs("2");
        both.restic_backs_up();
        let before = data_blobs(&repository);
        let made = back_up(&repository, both.source.path(), None);
        assert_eq!(made.outcome.added.data_blobs, 0);

        let file = both.source.path().join("20971520-random");
        let mut bytes = fs::read(&file).unwrap();
        bytes.splice(7_000_000..7_000_000, *b"inserted");
        fs::write(&file, bytes).unwrap();
        fs::write(both.source.path().join("new"), fill::random(4711, 3_000_000)).unwrap();
        let made = back_up(&repository, both.source.path(), Some(made.tree));
        let after = data_blobs(&repository);
        assert_eq!(after, before + made.outcome.added.data_blobs as usize);
        assert!(made.outcome.added.data_blobs > 0);
        both.restic_backs_up();
        assert_eq!(data_blobs(&repository), after);
        both.assert_we_restore(&repository);
        both.restic.run(&["check", "--read-data"]);
    });
}

#[test]
fn restic_takes_our_backup_for_a_parent() {
    Both::each(|both| {
        back_up(&both.ours(), both.source.path(), None);
        let arguments = ["backup", "--json", "--host", "tester", both.source.path().to_str().unwrap()];
        let said = both.restic.run(&arguments);
        let summary = said.lines().last().unwrap();
        assert!(summary.contains("\"files_new\":0,\"files_changed\":0,"), "{summary}");
        assert!(!summary.contains("\"files_unmodified\":0,"), "{summary}");
    });
}

#[test]
fn we_take_restics_backup_for_a_parent() {
    Both::each(|both| {
        let repository = both.theirs("2");
        both.restic_backs_up();
        let (records, _) = repository.backups().unwrap();
        let parent = records[0].1.tree;
        let made = back_up(&repository, both.source.path(), Some(parent));
        let summary = &made.outcome.summary;
        assert_eq!((summary.files_new, summary.files_changed), (0, 0));
        assert!(summary.files_unmodified > 20);
        assert_comes_back(&repository, made.tree, both.source.path(), Scratch::new().path());
        // And again from our own: everything is as it was.
        let tree = |made: &crate::support::Made| tree_of(&repository, made.tree, both.source.path());
        let next = back_up(&repository, both.source.path(), Some(made.tree));
        assert_eq!(tree(&next), tree(&made));
    });
}

#[test]
fn repositories_of_version_1_are_read_and_written() {
    Both::each(|both| {
        let repository = both.theirs("1");
        both.restic_backs_up();
        both.assert_we_restore(&repository);
        fs::write(both.source.path().join("new"), "compressible ".repeat(100_000)).unwrap();
        let made = back_up(&repository, both.source.path(), None);
        assert!(made.outcome.added.data_blobs > 0);
        let index = repository.load_index().unwrap();
        assert!(index.iter().all(|(_, blob)| blob.uncompressed_length == 0), "version 1 knows no compression");
        both.restic.run(&["check", "--read-data"]);
        both.assert_restic_restores();
        both.restic_backs_up();
        assert_eq!(data_blobs(&repository), index.iter().filter(|(_, blob)| blob.kind == BlobKind::Data).count());
    });
}

#[test]
fn restics_prune_leaves_our_backups_whole() {
    Both::each(|both| {
        let repository = both.ours();
        back_up(&repository, both.source.path(), None);
        fs::remove_file(both.source.path().join("20971520-random")).unwrap();
        let made = back_up(&repository, both.source.path(), None);
        let (records, _) = repository.backups().unwrap();
        both.restic.run(&["forget", "--prune", "--max-unused", "0", &records[0].0.to_string()]);
        assert_eq!(repository.storage().list(FileKind::Backup).unwrap().len(), 1);
        both.restic.run(&["check", "--read-data"]);
        assert_comes_back(&repository, made.tree, both.source.path(), Scratch::new().path());
    });
}
