//! Restoring over what is there: only what differs is written, and nothing beside what was asked for is touched.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup::patterns::Patterns;
use backup::restore::{Options, Outcome, Overwrite};
use repository::storage::memory::Memory;
use repository::{Error, Repository};
use rustix::fs::FileType;

use crate::support::disk::Disk;
use crate::support::{
    Made, Scratch, Watch, as_ordinary_user, back_up, below, bring_back, fill, init, restore_with, tree,
};

/// A backup and a target to which it was restored once.
struct Restored {
    source: Scratch,
    target: Scratch,
    repository: Arc<Repository>,
    made: Made,
}

impl Restored {
    fn of(make: impl FnOnce(&Path)) -> Self {
        let (source, target) = (Scratch::for_anybody(), Scratch::for_anybody());
        make(source.path());
        let repository = init(Arc::new(Memory::new()));
        let made = back_up(&repository, source.path(), None);
        bring_back(&repository, made.tree, target.path());
        Restored { source, target, repository, made }
    }

    /// In the target.
    fn at(&self, name: &str) -> PathBuf {
        below(self.target.path(), self.source.path()).join(name)
    }

    fn again_with(&self, watch: &Watch, change: impl FnOnce(&mut Options<'_>)) -> Result<Outcome, Error> {
        let index = self.repository.load_index().unwrap();
        restore_with(&self.repository, &index, self.made.tree, self.target.path(), watch, change)
    }

    #[track_caller]
    fn again(&self, change: impl FnOnce(&mut Options<'_>)) -> Outcome {
        let watch = Watch::default();
        let outcome = self.again_with(&watch, change).unwrap();
        watch.assert_silent();
        outcome
    }

    #[track_caller]
    fn assert_whole(&self) {
        tree::assert_same(self.source.path(), &self.at(""));
    }
}

fn some_files(directory: &Path) {
    fs::write(directory.join("large"), fill::random(1, 9 << 20)).unwrap();
    fs::write(directory.join("small"), "small").unwrap();
    fs::write(directory.join("empty"), "").unwrap();
    fs::create_dir_all(directory.join("a/b")).unwrap();
    fs::write(directory.join("a/b/file"), "file").unwrap();
    symlink("small", directory.join("link")).unwrap();
    fill::sparse(&directory.join("sparse"), 4 << 20, &[(1 << 20, 4096)]);
}

#[test]
fn over_the_same_files_nothing_is_written() {
    let restored = Restored::of(some_files);
    let before = fs::metadata(restored.at("large")).unwrap();
    let outcome = restored.again(|_| {});
    assert_eq!((outcome.files_restored, outcome.files_unchanged, outcome.bytes_written), (0, 5, 0));
    let after = fs::metadata(restored.at("large")).unwrap();
    assert_eq!((after.ctime(), after.ctime_nsec()), (before.ctime(), before.ctime_nsec()));
    restored.assert_whole();
}

#[test]
fn only_the_pieces_that_differ_are_written() {
    let restored = Restored::of(some_files);
    let file = fs::File::options().write(true).open(restored.at("large")).unwrap();
    file.write_all_at(b"other", 5 << 20).unwrap();
    let outcome = restored.again(|_| {});
    assert_eq!((outcome.files_restored, outcome.files_unchanged), (1, 4));
    assert!(outcome.bytes_written > 0 && outcome.bytes_written < 8 << 20, "{}", outcome.bytes_written);
    restored.assert_whole();
}

#[test]
fn files_that_became_longer_or_shorter_get_their_length_back() {
    let restored = Restored::of(some_files);
    for (name, length) in [("large", 20 << 20), ("small", 3), ("empty", 7), ("sparse", 0), ("a/b/file", 5)] {
        fs::File::options().write(true).open(restored.at(name)).unwrap().set_len(length).unwrap();
    }
    restored.again(|options| options.verify = true);
    restored.assert_whole();
}

#[test]
fn attributes_alone_are_set_without_writing() {
    let restored = Restored::of(some_files);
    fill::chmod(&restored.at("large"), 0o600);
    fill::set_xattr(&restored.at("small"), "user.other", b"x");
    fill::chmod(&restored.at("a"), 0o700);
    fill::set_mtime(&restored.at("link"), 1, 1);
    let outcome = restored.again(|_| {});
    assert_eq!((outcome.files_restored, outcome.bytes_written), (0, 0));
    restored.assert_whole();
}

#[test]
fn overwrite_never_leaves_everything_that_is_there() {
    let restored = Restored::of(some_files);
    fs::write(restored.at("small"), "mine").unwrap();
    fs::remove_file(restored.at("link")).unwrap();
    symlink("mine", restored.at("link")).unwrap();
    fs::remove_file(restored.at("empty")).unwrap();
    let outcome = restored.again(|options| options.overwrite = Overwrite::Never);
    assert_eq!((outcome.files_restored, outcome.bytes_written), (1, 0));
    assert_eq!(fs::read(restored.at("small")).unwrap(), b"mine");
    assert_eq!(fs::read_link(restored.at("link")).unwrap(), Path::new("mine"));
    assert!(restored.at("empty").exists());
}

#[test]
fn overwrite_never_does_not_remove_a_file_where_a_directory_belongs() {
    let restored = Restored::of(some_files);
    fs::remove_dir_all(restored.at("a")).unwrap();
    fs::write(restored.at("a"), "mine").unwrap();
    let watch = Watch::default();
    let outcome = restored.again_with(&watch, |options| options.overwrite = Overwrite::Never).unwrap();
    assert_eq!((outcome.errors, watch.errors().len()), (1, 1), "{:?}", watch.errors());
    assert_eq!(fs::read(restored.at("a")).unwrap(), b"mine");
}

#[test]
fn overwrite_if_newer_leaves_what_is_newer() {
    let restored = Restored::of(some_files);
    fs::write(restored.at("small"), "newer").unwrap();
    fs::write(restored.at("a/b/file"), "older").unwrap();
    fill::set_mtime(&restored.at("a/b/file"), 1_000_000_000, 0);
    let outcome = restored.again(|options| options.overwrite = Overwrite::IfNewer);
    assert_eq!(outcome.files_restored, 1);
    assert_eq!(fs::read(restored.at("small")).unwrap(), b"newer");
    assert_eq!(fs::read(restored.at("a/b/file")).unwrap(), b"file");
}

#[test]
fn overwrite_if_changed_trusts_size_and_time() {
    let restored = Restored::of(some_files);
    let time = fs::metadata(restored.at("small")).unwrap().modified().unwrap();
    fs::write(restored.at("small"), "SMALL").unwrap();
    fs::File::options().write(true).open(restored.at("small")).unwrap().set_modified(time).unwrap();
    fs::write(restored.at("a/b/file"), "FILE").unwrap();
    let watch = Watch::default();
    let outcome = restored.again_with(&watch, |options| {
        options.overwrite = Overwrite::IfChanged;
        options.verify = true;
    });
    assert_eq!(fs::read(restored.at("small")).unwrap(), b"SMALL");
    assert_eq!(fs::read(restored.at("a/b/file")).unwrap(), b"file");
    // But whoever asks for it is told.
    let outcome = outcome.unwrap();
    assert_eq!((outcome.files_restored, outcome.verified, outcome.errors), (1, 4, 1));
    assert!(watch.errors()[0].contains("1 of its 1 pieces are not those of the backup"), "{:?}", watch.errors());
}

#[test]
fn whatever_lies_in_the_way_makes_room() {
    let restored = Restored::of(some_files);
    fs::remove_file(restored.at("small")).unwrap();
    fs::create_dir(restored.at("small")).unwrap();
    fs::remove_file(restored.at("large")).unwrap();
    let elsewhere = Scratch::new();
    let outside = elsewhere.path().join("outside");
    fs::write(&outside, "not ours").unwrap();
    symlink(&outside, restored.at("large")).unwrap();
    fs::remove_file(restored.at("empty")).unwrap();
    fill::mknod(&restored.at("empty"), FileType::Fifo, 0, 0);
    fs::remove_dir_all(restored.at("a")).unwrap();
    fs::write(restored.at("a"), "a file").unwrap();
    fs::remove_file(restored.at("link")).unwrap();
    fs::write(restored.at("link"), "a file").unwrap();
    restored.again(|options| options.verify = true);
    restored.assert_whole();
    assert_eq!(fs::read(&outside).unwrap(), b"not ours");
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let restored = Restored::of(some_files);
    let elsewhere = Scratch::new();
    fs::remove_dir_all(restored.at("a")).unwrap();
    symlink(elsewhere.path(), restored.at("a")).unwrap();
    restored.again(|_| {});
    restored.assert_whole();
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_with_something_in_it_gives_way_to_a_file_only_when_deleting() {
    let restored = Restored::of(some_files);
    fs::remove_file(restored.at("small")).unwrap();
    fs::create_dir_all(restored.at("small/deep")).unwrap();
    fs::write(restored.at("small/deep/mine"), "mine").unwrap();
    let watch = Watch::default();
    let outcome = restored.again_with(&watch, |_| {}).unwrap();
    assert_eq!(outcome.errors, 1);
    assert!(watch.errors()[0].contains("Directory not empty"), "{:?}", watch.errors());
    assert!(restored.at("small/deep/mine").exists());
    restored.again(|options| options.delete = vec![restored.source.path().to_owned()]);
    restored.assert_whole();
}

#[test]
fn deleting_is_exact() {
    let restored = Restored::of(some_files);
    fs::create_dir_all(restored.at("a/more/deep")).unwrap();
    fs::write(restored.at("a/more/deep/file"), "x").unwrap();
    fs::write(restored.at("more"), "x").unwrap();
    let elsewhere = Scratch::new();
    fs::write(elsewhere.path().join("outside"), "not ours").unwrap();
    symlink(elsewhere.path(), restored.at("a/b/more")).unwrap();
    let beside = restored.at("").parent().unwrap().join("beside");
    fs::write(&beside, "mine").unwrap();
    fs::write(restored.target.path().join("beside"), "mine").unwrap();
    let kept = restored.again(|_| {});
    assert_eq!((kept.deleted, restored.at("more").exists()), (0, true));
    let told = restored.again(|options| {
        options.delete = vec![restored.source.path().to_owned()];
        options.dry_run = true;
    });
    assert_eq!((told.deleted, restored.at("more").exists()), (3, true));
    let outcome = restored.again(|options| options.delete = vec![restored.source.path().to_owned()]);
    assert_eq!(outcome.deleted, 5);
    restored.assert_whole();
    // The backup knows only what it was made of; the directories above that hold other things.
    assert!(beside.exists() && restored.target.path().join("beside").exists());
    assert!(elsewhere.path().join("outside").exists());
}

#[test]
fn deleting_stays_within_the_part_that_was_asked_for() {
    let restored = Restored::of(some_files);
    fs::write(restored.at("more"), "mine").unwrap();
    fs::write(restored.at("a/more"), "x").unwrap();
    restored.again(|options| {
        options.delete = vec![restored.source.path().to_owned()];
        options.path = Some(restored.source.path().join("a"));
    });
    assert!(restored.at("more").exists());
    assert!(!restored.at("a/more").exists());
}

#[test]
fn deleting_stops_at_other_file_systems() {
    let restored = Restored::of(some_files);
    let Some(disk) = Disk::mount("tmpfs", 1) else { return };
    fs::write(disk.path().join("mine"), "mine").unwrap();
    // Where the backup has an empty directory, and where it has nothing.
    fs::create_dir_all(restored.source.path().join("mounted")).unwrap();
    let made = back_up(&restored.repository, restored.source.path(), None);
    let restored = Restored { made, ..restored };
    restored.again(|_| {});
    fs::create_dir_all(restored.at("foreign/mounted")).unwrap();
    let mount = |on: &Path| {
        let done = std::process::Command::new("mount").arg("--bind").arg(disk.path()).arg(on).status();
        assert!(done.unwrap().success());
        Unmount(on.to_owned())
    };
    let _mounts = [mount(&restored.at("mounted")), mount(&restored.at("foreign/mounted"))];
    let watch = Watch::default();
    let delete = vec![restored.source.path().to_owned()];
    let outcome = restored.again_with(&watch, |options| options.delete = delete).unwrap();
    assert_eq!(outcome.errors, 1, "{:?}", watch.errors());
    assert!(watch.errors()[0].contains("busy"), "{:?}", watch.errors());
    assert!(disk.path().join("mine").exists());
    // Also where patterns make it look into what it removes.
    let watch = Watch::default();
    let delete = vec![restored.source.path().to_owned()];
    let exclude = Patterns::new(["protected"]).unwrap();
    let outcome = restored.again_with(&watch, |options| {
        options.delete = delete;
        options.exclude = Some(exclude);
    });
    assert_eq!(outcome.unwrap().errors, 1, "{:?}", watch.errors());
    assert!(disk.path().join("mine").exists());
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn other_names_of_a_file_do_not_change_along() {
    let restored = Restored::of(|directory| {
        some_files(directory);
        fs::hard_link(directory.join("small"), directory.join("small too")).unwrap();
    });
    let outside = Scratch::new();
    for name in ["small", "large"] {
        fs::write(restored.at(name), format!("other {name}")).unwrap();
        fs::hard_link(restored.at(name), outside.path().join(name)).unwrap();
    }
    // As many names as in the backup, but not the same ones.
    fs::remove_file(restored.at("small too")).unwrap();
    restored.again(|_| {});
    restored.assert_whole();
    for name in ["small", "large"] {
        assert_eq!(fs::read(outside.path().join(name)).unwrap(), format!("other {name}").as_bytes());
    }
}

#[test]
fn a_further_name_is_not_linked_to_a_file_that_was_left() {
    let restored = Restored::of(|directory| {
        fs::write(directory.join("first"), "backup").unwrap();
        fs::hard_link(directory.join("first"), directory.join("second")).unwrap();
        fs::hard_link(directory.join("first"), directory.join("third")).unwrap();
    });
    for name in ["first", "second", "third"] {
        fs::remove_file(restored.at(name)).unwrap();
    }
    fs::write(restored.at("first"), "mine").unwrap();
    restored.again(|options| options.overwrite = Overwrite::Never);
    let contents = ["first", "second", "third"].map(|name| fs::read_to_string(restored.at(name)).unwrap());
    assert_eq!(contents, ["mine", "backup", "backup"]);
}

#[test]
fn read_only_files_and_directories_of_ones_own_are_no_obstacle() {
    let restored = Restored::of(some_files);
    let restored = as_ordinary_user(|| {
        let target = Scratch::for_anybody();
        bring_back(&restored.repository, restored.made.tree, target.path());
        let restored = Restored { target, ..restored };
        fs::write(restored.at("small"), "changed").unwrap();
        fs::write(restored.at("large"), "changed").unwrap();
        fs::write(restored.at("a/b/file"), "changed").unwrap();
        fs::create_dir(restored.at("a/more")).unwrap();
        fs::write(restored.at("a/more/file"), "changed").unwrap();
        for (name, mode) in
            [("small", 0o400), ("large", 0), ("a/b/file", 0o444), ("a/more", 0o500), ("a/b", 0), ("a", 0o555)]
        {
            fill::chmod(&restored.at(name), mode);
        }
        let delete = vec![restored.source.path().to_owned()];
        restored.again(|options| options.delete = delete);
        restored
    });
    let strip = |facts: tree::Facts| (facts.depth, facts.name, facts.mode, facts.mtime, facts.content);
    let of = |path: &Path| tree::look(path).into_iter().skip(1).map(|(facts, _)| strip(facts)).collect::<Vec<_>>();
    assert_eq!(of(&restored.at("")), of(restored.source.path()));
}

#[test]
fn an_interrupted_restore_goes_on() {
    let restored = Restored::of(|directory| {
        for number in 0..40 {
            fs::write(directory.join(format!("{number}")), fill::random(number, 1 << 20)).unwrap();
        }
    });
    let target = Scratch::new();
    let restored = Restored { target, ..restored };
    let watch = Arc::new(AtomicBool::new(false));
    let done = AtomicU64::new(0);
    let noticed = Arc::clone(&watch);
    let bytes_done = move |bytes| {
        if done.fetch_add(bytes, Ordering::Relaxed) > 10 << 20 {
            noticed.store(true, Ordering::Relaxed);
        }
    };
    let interrupted = Interrupted { over: watch, bytes_done: Box::new(bytes_done) };
    let index = restored.repository.load_index().unwrap();
    let options = Options {
        path: None,
        include: None,
        exclude: None,
        delete: Vec::new(),
        overwrite: Overwrite::Always,
        dry_run: false,
        verify: false,
        progress: &interrupted,
    };
    let result =
        backup::restore::restore(&restored.repository, &index, restored.made.tree, restored.target.path(), &options);
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    let outcome = restored.again(|options| options.verify = true);
    assert!(outcome.bytes_written < 32 << 20, "{}", outcome.bytes_written);
    assert_eq!(outcome.verified, 40);
    restored.assert_whole();
}

/// Cancels itself.
struct Interrupted {
    over: Arc<AtomicBool>,
    bytes_done: Box<dyn Fn(u64) + Send + Sync>,
}

impl backup::progress::Progress for Interrupted {
    fn bytes_done(&self, bytes: u64) {
        (self.bytes_done)(bytes);
    }

    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        panic!("{}: {error}", path.display());
    }

    fn is_cancelled(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

#[test]
fn a_full_disk_is_a_clear_error() {
    let restored = Restored::of(|directory| {
        for number in 0..30 {
            fs::write(directory.join(format!("{number}")), fill::random(number, 2 << 20)).unwrap();
        }
    });
    for kind in ["tmpfs", "ext4"] {
        let Some(disk) = Disk::mount(kind, 20) else { return };
        let index = restored.repository.load_index().unwrap();
        let watch = Watch::default();
        let result = restore_with(&restored.repository, &index, restored.made.tree, disk.path(), &watch, |_| {});
        let error = result.unwrap_err().to_string();
        assert!(error.contains("no room left"), "{error}");
    }
}

#[test]
fn verify_reads_back_and_counts() {
    let restored = Restored::of(some_files);
    let target = Scratch::new();
    let restored = Restored { target, ..restored };
    let outcome = restored.again(|options| options.verify = true);
    assert_eq!((outcome.files_restored, outcome.verified), (5, 5));
    let outcome = restored.again(|options| options.verify = true);
    assert_eq!((outcome.files_unchanged, outcome.verified), (5, 5));
}

#[test]
fn a_path_below_a_file_of_the_backup_is_refused() {
    let restored = Restored::of(some_files);
    for name in ["small/below", "link/below", "nothing", "a/nothing/at all"] {
        let path = Some(restored.source.path().join(name));
        let result = restored.again_with(&Watch::default(), |options| options.path = path);
        assert!(result.unwrap_err().to_string().contains("the backup has no"), "{name}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let restored = Restored::of(some_files);
    fs::write(restored.at("small"), "changed").unwrap();
    fs::remove_dir_all(restored.at("a")).unwrap();
    fs::write(restored.at("more"), "more").unwrap();
    let before = tree::look(restored.target.path()).into_iter().map(|(facts, _)| facts).collect::<Vec<_>>();
    let outcome = restored.again(|options| {
        options.dry_run = true;
        options.verify = true;
        options.delete = vec![restored.source.path().to_owned()];
    });
    assert_eq!((outcome.files_restored, outcome.bytes_written, outcome.deleted), (2, 9, 1));
    let after = tree::look(restored.target.path()).into_iter().map(|(facts, _)| facts).collect::<Vec<_>>();
    assert!(before == after);
}
