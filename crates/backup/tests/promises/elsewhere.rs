//! A directory that is read in another place is stored as if it had been read in its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup::archive::Elsewhere;
use backup::attributes::Moment;
use backup::patterns::Patterns;
use repository::Repository;
use repository::id::Id;
use repository::storage::memory::Memory;
use repository::tree::Tree;

use crate::support::disk::Disk;
use crate::support::{Made, Scratch, Watch, back_up, back_up_with, below, bring_back, fill, init, now, tree_of};

fn run(program: &str, arguments: &[&Path]) {
    let said = Command::new(program).args(arguments).output().unwrap();
    assert!(said.status.success(), "{program}: {}", String::from_utf8_lossy(&said.stderr));
}

fn subvolume(path: &Path) {
    run("btrfs", &["subvolume".as_ref(), "create".as_ref(), path]);
}

fn snapshot(of: &Path, to: &Path) {
    run("btrfs", &["subvolume".as_ref(), "snapshot".as_ref(), "-r".as_ref(), of, to]);
}

fn read_from(repository: &Arc<Repository>, path: &Path, places: &[(&Path, &Path)], parent: Option<Id>) -> Made {
    let watch = Watch::default();
    let made = back_up_with(repository, &[path], parent, &watch, |options| {
        let place =
            |(path, at): &(&Path, &Path)| Elsewhere { path: path.to_path_buf(), at: at.to_path_buf(), copied: None };
        options.elsewhere = places.iter().map(place).collect();
        options.exclude = Some(Patterns::new([&*format!("{}/cache", path.display())]).unwrap());
    });
    watch.assert_silent();
    made.unwrap()
}

fn load(repository: &Repository, id: Id) -> Tree {
    let index = repository.load_index().unwrap();
    repository.reader(&index).load_tree(&id).unwrap()
}

/// A subvolume `shop` with a nested one, and all that a tree can hold.
struct Shop {
    disk: Disk,
    repository: Arc<Repository>,
}

impl Shop {
    fn new() -> Option<Shop> {
        let disk = Disk::mount("btrfs", 300)?;
        let shop = disk.path().join("shop");
        subvolume(&shop);
        fs::write(shop.join("file"), "content").unwrap();
        for name in ["one", "two"] {
            fs::create_dir(shop.join(name)).unwrap();
            fs::write(shop.join(name).join("file"), name).unwrap();
        }
        fs::create_dir(shop.join("cache")).unwrap();
        fs::hard_link(shop.join("one/file"), shop.join("two/same")).unwrap();
        std::os::unix::fs::symlink("one", shop.join("link")).unwrap();
        fill::chmod(&shop.join("two"), 0o750);
        subvolume(&shop.join("db"));
        fs::write(shop.join("db/rows"), "1").unwrap();
        fs::hard_link(shop.join("db/rows"), shop.join("db/rows too")).unwrap();
        Some(Shop { disk, repository: init(Arc::new(Memory::new())) })
    }

    fn path(&self) -> PathBuf {
        self.disk.path().join("shop")
    }

    /// Snapshots of both subvolumes, and where they are.
    fn snapshots(&self, number: usize) -> [PathBuf; 2] {
        let places = ["shop", "db"].map(|name| self.disk.path().join(format!("{name}-{number}")));
        snapshot(&self.path(), &places[0]);
        snapshot(&self.path().join("db"), &places[1]);
        places
    }

    fn back_up_snapshots(&self, [shop, db]: &[PathBuf; 2], parent: Option<Id>) -> Made {
        let nested = self.path().join("db");
        read_from(&self.repository, &self.path(), &[(&self.path(), shop), (&nested, db)], parent)
    }

    fn tree(&self, made: &Made) -> Id {
        tree_of(&self.repository, made.tree, &self.path())
    }
}

#[test]
fn a_snapshot_gives_the_tree_that_the_live_directory_gives() {
    let Some(shop) = Shop::new() else { return };
    let snapshots = shop.snapshots(1);
    let live = read_from(&shop.repository, &shop.path(), &[], None);
    let made = shop.back_up_snapshots(&snapshots, None);
    assert_eq!(shop.tree(&made), shop.tree(&live));
    let names: Vec<_> = load(&shop.repository, shop.tree(&made)).nodes.iter().map(|node| node.name.clone()).collect();
    assert_eq!(names, [&b"db"[..], b"file", b"link", b"one", b"two"].map(Box::from));
}

#[test]
fn what_lies_in_the_path_and_not_in_the_snapshot_is_not_stored() {
    let Some(shop) = Shop::new() else { return };
    let before = read_from(&shop.repository, &shop.path(), &[], None);
    let snapshots = shop.snapshots(1);
    fs::write(shop.path().join("later"), "x").unwrap();
    fs::write(shop.path().join("db/rows"), "22").unwrap();
    let made = shop.back_up_snapshots(&snapshots, None);
    assert_eq!(shop.tree(&made), shop.tree(&before));
}

#[test]
fn from_snapshot_to_snapshot_and_from_live_to_snapshot_only_what_changed_is_read() {
    let Some(shop) = Shop::new() else { return };
    let live = read_from(&shop.repository, &shop.path(), &[], None);
    let first = shop.back_up_snapshots(&shop.snapshots(1), Some(live.tree));
    assert_eq!((first.outcome.summary.files_unmodified, first.outcome.summary.files_new), (6, 0));
    fs::write(shop.path().join("file"), "other").unwrap();
    let second = shop.back_up_snapshots(&shop.snapshots(2), Some(first.tree));
    assert_eq!((second.outcome.summary.files_unmodified, second.outcome.summary.files_changed), (5, 1));
    assert_eq!(shop.tree(&second), shop.tree(&read_from(&shop.repository, &shop.path(), &[], None)));
}

#[test]
fn a_path_below_the_place_is_read_there() {
    let Some(shop) = Shop::new() else { return };
    let path = shop.path().join("one");
    let live = back_up(&shop.repository, &path, None);
    let [place, _] = shop.snapshots(1);
    fs::remove_file(path.join("file")).unwrap();
    let made = read_from(&shop.repository, &path, &[(&shop.path(), &place)], None);
    assert_eq!(tree_of(&shop.repository, made.tree, &path), tree_of(&shop.repository, live.tree, &path));
}

#[test]
fn another_file_system_has_the_number_of_the_one_it_stands_for() {
    let Some(disk) = Disk::mount("tmpfs", 10) else { return };
    let source = Scratch::new();
    let path = source.directory("shop");
    fs::write(path.join("a"), "x").unwrap();
    fs::hard_link(path.join("a"), path.join("b")).unwrap();
    run("cp", &["-aT".as_ref(), &path, disk.path()]);
    let repository = init(Arc::new(Memory::new()));
    let live = read_from(&repository, &path, &[], None);
    let made = read_from(&repository, &path, &[(&path, disk.path())], None);
    let numbers = [&live, &made].map(|made| {
        let tree = load(&repository, tree_of(&repository, made.tree, &path));
        tree.nodes.iter().map(|node| node.device_id).collect::<Vec<_>>()
    });
    assert_eq!(numbers[0], numbers[1]);
    assert!(numbers[0].len() == 2 && numbers[0][0] != 0);
}

#[test]
fn a_place_that_is_no_directory_is_an_error() {
    let source = Scratch::new();
    let path = source.directory("shop");
    fs::write(path.join("live"), "x").unwrap();
    fs::write(source.path().join("file"), "x").unwrap();
    let repository = init(Arc::new(Memory::new()));
    for place in ["file", "nothing"] {
        let watch = Watch::default();
        let made = back_up_with(&repository, &[&path], None, &watch, |options| {
            options.elsewhere = vec![Elsewhere { path: path.clone(), at: source.path().join(place), copied: None }];
        });
        let made = made.unwrap();
        assert_eq!((made.outcome.errors, made.outcome.summary.total_files_processed), (1, 0), "{:?}", watch.errors());
    }
}

/// A copy with inodes of its own, and when it was begun.
fn copy(path: &Path, to: &Path) -> Moment {
    // So that nothing that was done before seems to have been done since.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let begun = now();
    run("cp", &["-aT".as_ref(), path, to]);
    Moment { secs: begun.secs, nanos: begun.nanos }
}

#[test]
fn of_copies_what_did_not_change_is_taken_over_and_bears_the_live_identity() {
    let Some(disk) = Disk::mount("ext4", 60) else { return };
    let path = disk.path().join("shop");
    fs::create_dir_all(path.join("a/b")).unwrap();
    for (name, content) in [("one", "1"), ("a/two", "2"), ("a/b/three", "3"), ("a/b/four", "4")] {
        fs::write(path.join(name), content).unwrap();
    }
    fs::hard_link(path.join("a/two"), path.join("same")).unwrap();
    std::os::unix::fs::symlink("a", path.join("link")).unwrap();
    let repository = init(Arc::new(Memory::new()));
    let back_up = |copied: Option<(&Path, Moment)>, parent| {
        let watch = Watch::default();
        let made = back_up_with(&repository, &[&path], parent, &watch, |options| {
            let place =
                |(at, copied): (&Path, _)| Elsewhere { path: path.clone(), at: at.into(), copied: Some(copied) };
            options.elsewhere = copied.into_iter().map(place).collect();
        });
        watch.assert_silent();
        made.unwrap()
    };
    let tree = |made: &Made| tree_of(&repository, made.tree, &path);

    let live = back_up(None, None);
    let copies = ["copy 1", "copy 2"].map(|name| disk.path().join(name));
    let begun = copy(&path, &copies[0]);
    let first = back_up(Some((&copies[0], begun)), Some(live.tree));
    assert_eq!((tree(&first), first.outcome.summary.files_changed), (tree(&live), 0));
    assert_eq!(tree(&back_up(Some((&copies[0], begun)), None)), tree(&live));

    // Of the same size and time, and yet others: one written, two exchanged.
    let begun = copy(&path, &copies[1]);
    let before = fs::metadata(path.join("one")).unwrap().modified().unwrap();
    fs::write(path.join("one"), "x").unwrap();
    fs::File::options().write(true).open(path.join("one")).unwrap().set_modified(before).unwrap();
    fs::rename(path.join("a/b"), path.join("a/c")).unwrap();
    fs::create_dir(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/three"), "y").unwrap();
    let second = back_up(Some((&copies[1], begun)), Some(first.tree));
    let target = Scratch::new();
    bring_back(&repository, second.tree, target.path());
    let restored = |name| fs::read_to_string(below(target.path(), &path).join(name)).unwrap();
    assert_eq!(["one", "a/two", "a/b/three", "a/b/four"].map(restored), ["1", "2", "3", "4"]);
    // Never again taken for what is live now.
    let third = back_up(None, Some(second.tree));
    let target = Scratch::new();
    bring_back(&repository, third.tree, target.path());
    let restored = |name| fs::read_to_string(below(target.path(), &path).join(name)).unwrap();
    assert_eq!(["one", "a/two", "a/b/three", "a/c/three"].map(restored), ["x", "2", "y", "3"]);
}
