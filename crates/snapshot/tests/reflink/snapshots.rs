//! The provider.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use snapshot::id::Id;
use snapshot::provider::{Handle, Provider, Step};
use snapshot::reflink::provider::{Reflink, can_share};

use crate::disk::{Disk, assert_same, describe, fill, run, shell};

/// A directory on a disk, full of everything.
struct Place {
    disk: Disk,
    directory: PathBuf,
}

impl Place {
    fn beside(disk: Disk) -> Place {
        let directory = disk.path().join("live");
        std::fs::create_dir(&directory).unwrap();
        Place::filled(disk, directory)
    }

    fn mount_point(disk: Disk) -> Place {
        let directory = disk.path();
        Place::filled(disk, directory)
    }

    fn filled(disk: Disk, directory: PathBuf) -> Place {
        fill(&directory);
        Place { disk, directory }
    }

    fn provider(&self) -> Reflink {
        Reflink::open(&self.directory).unwrap()
    }

    /// Without the store.
    fn describe(&self) -> std::collections::BTreeMap<PathBuf, String> {
        let mut all = describe(&self.directory);
        all.retain(|path, _| !path.starts_with(".snapback") && !path.starts_with("lost+found"));
        all
    }

    /// Changes of every kind.
    fn change(&self) {
        shell(
            &self.directory,
            "rm -r deep/er/one sparse 'with space'; echo two >> large; mv suid moved; mkdir new; echo new > new/file
             chmod 700 deep; rm fifo; mkdir fifo; echo other > fifo/x; touch .; chown 1:1 .",
        );
    }
}

fn tree_of(handle: &Handle) -> &Path {
    let Handle::Reflink { path } = handle else { panic!("{handle:?}") };
    path
}

fn switch(provider: &Reflink, to: &Handle, old: Id) -> Vec<Step> {
    let steps = provider.plan_switch(to, old).unwrap();
    steps.iter().for_each(|step| provider.perform(step).unwrap());
    steps
}

fn kept(provider: &Reflink, id: Id) -> Handle {
    provider.list().unwrap().into_iter().find(|(other, _)| *other == id).unwrap().1
}

fn rolls_back_and_forth(place: &Place) {
    let provider = place.provider();
    let before = place.describe();
    let id = Id::random();
    let snapshot = provider.create(id).unwrap();
    assert_same(&place.describe(), &before);
    assert_eq!(provider.list().unwrap(), [(id, snapshot.clone())]);
    assert_same(&describe(provider.view(&snapshot).unwrap().path()), &before);

    place.change();
    let changed = place.describe();
    let old = Id::random();
    switch(&provider, &snapshot, old);
    assert_same(&place.describe(), &before);
    let old = kept(&provider, old);
    assert_same(&describe(provider.view(&old).unwrap().path()), &changed);
    assert_eq!(provider.list().unwrap().len(), 1);

    let again = Id::random();
    switch(&provider, &old, again);
    assert_same(&place.describe(), &changed);
    let again = kept(&provider, again);
    assert_same(&describe(provider.view(&again).unwrap().path()), &before);
    provider.delete(&again).unwrap();
    provider.delete(&again).unwrap();
    assert_eq!(provider.list().unwrap(), []);
}

#[test]
fn a_directory_on_xfs_rolls_back_and_forth() {
    rolls_back_and_forth(&Place::beside(Disk::xfs()));
}

#[test]
fn a_directory_on_btrfs_rolls_back_and_forth() {
    rolls_back_and_forth(&Place::beside(Disk::btrfs()));
}

#[test]
fn the_root_of_a_file_system_rolls_back_and_forth() {
    rolls_back_and_forth(&Place::mount_point(Disk::xfs()));
}

#[test]
fn a_subvolume_rolls_back_and_forth_without_its_nested_ones() {
    let disk = Disk::btrfs();
    let directory = disk.path().join("live");
    run(std::process::Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(&directory));
    let place = Place::filled(disk, directory);
    rolls_back_and_forth(&place);
}

/// After each step of a switch, performed in part or as a whole, it is finished or reverted.
fn every_step_is_performed_again_or_reverted(place: &Place) {
    let provider = place.provider();
    let before = place.describe();
    let (id, old) = (Id::random(), Id::random());
    let snapshot = provider.create(id).unwrap();
    place.change();
    let changed = place.describe();
    let steps = provider.plan_switch(&snapshot, old).unwrap();
    for performed in 0..=steps.len() {
        steps[..performed].iter().for_each(|step| provider.perform(step).unwrap());
        // The journal does not know whether the last step was reached.
        steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
        assert_same(&place.describe(), &changed);
        assert_same(&describe(tree_of(&snapshot)), &before);
        assert_eq!(provider.list().unwrap(), [(id, snapshot.clone())], "after {performed} steps");
    }
    for performed in 0..=steps.len() {
        steps[..performed].iter().for_each(|step| provider.perform(step).unwrap());
    }
    steps.iter().for_each(|step| provider.perform(step).unwrap());
    assert_same(&place.describe(), &before);
    assert_eq!(provider.list().unwrap().len(), 1);
    assert_same(&describe(tree_of(&kept(&provider, old))), &changed);
}

#[test]
fn every_step_of_an_exchange_is_performed_again_or_reverted() {
    every_step_is_performed_again_or_reverted(&Place::beside(Disk::xfs()));
}

#[test]
fn every_step_of_exchanging_entries_is_performed_again_or_reverted() {
    every_step_is_performed_again_or_reverted(&Place::mount_point(Disk::xfs()));
}

#[test]
fn an_exchange_of_entries_that_was_cut_short_is_finished_or_reverted() {
    let place = Place::mount_point(Disk::xfs());
    let provider = place.provider();
    let before = place.describe();
    let (id, old) = (Id::random(), Id::random());
    let snapshot = provider.create(id).unwrap();
    place.change();
    let changed = place.describe();
    let steps = provider.plan_switch(&snapshot, old).unwrap();
    provider.perform(&steps[0]).unwrap();
    // By hand, what the step does to some of the entries before the crash.
    let clone = tree_of(&snapshot);
    let exchange = |name: &str| {
        let (live, clone) = (place.directory.join(name), clone.join(name));
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, live, rustix::fs::CWD, clone, flags).unwrap();
    };
    let cut_short = || {
        exchange("large");
        exchange("ping");
        std::fs::rename(place.directory.join("new"), clone.join("new")).unwrap();
        std::fs::rename(clone.join("sparse"), place.directory.join("sparse")).unwrap();
    };
    cut_short();
    steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
    assert_same(&place.describe(), &changed);
    assert_same(&describe(clone), &before);
    provider.perform(&steps[0]).unwrap();
    cut_short();
    steps.iter().for_each(|step| provider.perform(step).unwrap());
    assert_same(&place.describe(), &before);
    assert_same(&describe(tree_of(&kept(&provider, old))), &changed);
}

#[test]
fn mounts_and_subvolumes_below_stay_in_place() {
    let place = Place::beside(Disk::btrfs());
    shell(
        &place.directory,
        "mkdir deep/er/mounted; mount -t tmpfs none deep/er/mounted; echo stays > deep/er/mounted/file
         btrfs -q subvolume create deep/subvolume; echo stays > deep/subvolume/file",
    );
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    shell(
        &place.directory,
        "echo changed > deep/er/one; echo more >> deep/er/mounted/file; echo more >> deep/subvolume/file; echo x > x
         mkdir -p later/on; mount -t tmpfs none later/on; echo later > later/file; echo stays > later/on/file",
    );
    let changed = place.describe();
    let old = Id::random();
    let steps = switch(&provider, &snapshot, old);
    let content = || shell(&place.directory, "cat deep/er/mounted/file deep/subvolume/file later/on/file deep/er/one");
    assert_eq!(content(), "stays\nmore\nstays\nmore\nstays\none\n");
    assert!(!place.directory.join("x").exists() && !place.directory.join("later/file").exists());
    let view = provider.view(&kept(&provider, old)).unwrap();
    assert_eq!(shell(view.path(), "cat deep/er/one later/file x"), "changed\nlater\nx\n");
    drop(view);
    steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
    assert_eq!(content(), "stays\nmore\nstays\nmore\nstays\nchanged\n");
    assert_same(&place.describe(), &changed);
}

#[test]
fn what_snapback_did_not_make_is_not_touched() {
    let place = Place::beside(Disk::xfs());
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    let store = tree_of(&snapshot).parent().unwrap().parent().unwrap().to_owned();
    let foreign = store.join("0123456789ab/tree");
    std::fs::create_dir_all(&foreign).unwrap();
    for path in [foreign, place.directory.clone(), store, PathBuf::from("/")] {
        let refused = provider.delete(&Handle::Reflink { path: path.clone() }).unwrap_err();
        assert!(refused.to_string().contains("is no snapshot of"), "{refused}");
        assert!(path.exists());
    }
    let other = place.disk.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = Reflink::open(&other).unwrap();
    assert_eq!(other.list().unwrap(), []);
    assert!(other.delete(&snapshot).is_err() && tree_of(&snapshot).exists());
}

#[test]
fn a_snapshot_that_is_mounted_or_read_is_not_deleted() {
    let place = Place::beside(Disk::xfs());
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    let view = provider.view(&snapshot).unwrap();
    let written = std::fs::write(view.path().join("x"), "").unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(provider.delete(&snapshot).unwrap_err().to_string().contains("is being read by process"));
    drop(view);
    let point = place.disk.path().join("elsewhere");
    std::fs::create_dir(&point).unwrap();
    run(std::process::Command::new("mount").arg("--bind").args([&tree_of(&snapshot).join("deep"), &point]));
    assert!(provider.delete(&snapshot).unwrap_err().to_string().contains("is mounted at"));
    run(std::process::Command::new("umount").arg(&point));
    provider.delete(&snapshot).unwrap();
}

#[test]
fn what_a_crash_left_is_listed_and_deleted_but_not_rolled_back_to() {
    let place = Place::beside(Disk::xfs());
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    let marker = tree_of(&snapshot).with_file_name("snapback.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace("complete", "partial")).unwrap();
    assert_eq!(provider.list().unwrap().len(), 1);
    assert!(provider.plan_switch(&snapshot, Id::random()).unwrap_err().to_string().contains("is not complete"));
    assert!(provider.view(&snapshot).is_err());
    provider.delete(&snapshot).unwrap();
    assert_eq!(provider.list().unwrap(), []);
}

#[test]
fn space_is_what_only_the_live_tree_or_only_the_snapshot_holds() {
    let place = Place::beside(Disk::xfs());
    shell(&place.directory, "head -c 20M /dev/urandom > big");
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    let space = provider.space(&snapshot).unwrap();
    assert!(space.grown.unwrap() < 100_000 && space.reclaimable.unwrap() < 100_000, "{space:?}");
    shell(
        &place.directory,
        "head -c 5M /dev/urandom | dd of=big conv=notrunc status=none; head -c 3M /dev/urandom > new",
    );
    let space = provider.space(&snapshot).unwrap();
    let (grown, reclaimable) = (space.grown.unwrap() >> 20, space.reclaimable.unwrap() >> 20);
    assert!((8..10).contains(&grown) && (5..7).contains(&reclaimable), "{space:?}");
}

#[test]
fn only_a_file_system_that_shares_extents_will_do() {
    let ext4 = Disk::ext4();
    assert!(!can_share(&ext4.path()).unwrap());
    assert!(can_share(&Disk::xfs().path()).unwrap() && can_share(&Disk::btrfs().path()).unwrap());
    let without = Disk::new("xfs", &["-q", "-m", "reflink=0"], 320);
    assert!(Reflink::open(&without.path()).unwrap_err().to_string().contains("cannot share extents"));
}

/// Runs as user 65534 without any privilege, in a thread: credentials are a thread's own to the kernel, and the threads
/// that it starts have the same.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (user, group) = (rustix::fs::Uid::from_raw(65534), rustix::fs::Gid::from_raw(65534));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            act()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A directory as an ordinary user may have one.
fn ordinary(directory: &Path) {
    shell(
        directory,
        "mkdir -p a/b 'c d' locked; echo one > a/b/one; ln a/b/one link; ln -s no where; mkfifo fifo; echo x > locked/x
         chmod 500 locked a; setfattr -n user.x -v y a/b/one; setfacl -m u:5:r a/b/one; chmod 400 link; truncate -s 5M hole
         touch -d 2001-01-01 a locked; chown -R -h 65534:65534 .",
    );
}

static RUNS: AtomicU32 = AtomicU32::new(0);

fn an_ordinary_user_rolls_back(disk: &Disk, may_write_beside: bool) {
    let home = disk.path().join(format!("home{}", RUNS.fetch_add(1, Ordering::Relaxed)));
    let directory = home.join("live");
    std::fs::create_dir_all(&directory).unwrap();
    ordinary(&directory);
    for path in [disk.path().parent().unwrap(), &disk.path()] {
        shell(path, "chmod 755 .");
    }
    if may_write_beside {
        shell(&home, "chown 65534:65534 .");
    }
    let look = || {
        let mut all = describe(&directory);
        all.retain(|path, _| !path.starts_with(".snapback"));
        all
    };
    let before = look();
    let (id, old) = (Id::random(), Id::random());
    let snapshot = as_nobody(|| Reflink::open(&directory).unwrap().create(id).unwrap());
    assert_eq!(tree_of(&snapshot).starts_with(&directory), !may_write_beside);
    assert_same(&look(), &before);
    shell(&directory, "rm -r locked; echo two > a/b/two; echo new > new; chown 65534:65534 new a/b/two");
    let changed = look();
    as_nobody(|| {
        let provider = Reflink::open(&directory).unwrap();
        provider.space(&snapshot).unwrap();
        assert!(provider.view(&snapshot).unwrap().path().join("a/b/one").exists());
        switch(&provider, &snapshot, old);
    });
    assert_same(&look(), &before);
    let provider = Reflink::open(&directory).unwrap();
    assert_eq!(provider.list().unwrap(), [], "another user's store");
    as_nobody(|| {
        let provider = Reflink::open(&directory).unwrap();
        switch(&provider, &kept(&provider, old), id);
    });
    assert_same(&look(), &changed);
    as_nobody(|| {
        let provider = Reflink::open(&directory).unwrap();
        provider.delete(&kept(&provider, id)).unwrap();
        assert_eq!(provider.list().unwrap(), []);
    });
}

#[test]
fn an_ordinary_user_rolls_back_on_xfs() {
    let disk = Disk::xfs();
    an_ordinary_user_rolls_back(&disk, true);
    an_ordinary_user_rolls_back(&disk, false);
}

#[test]
fn an_ordinary_user_rolls_back_on_btrfs() {
    an_ordinary_user_rolls_back(&Disk::btrfs(), true);
}

#[test]
fn what_belongs_to_others_is_not_snapshotted_by_an_ordinary_user() {
    let disk = Disk::xfs();
    let directory = disk.path().join("live");
    std::fs::create_dir(&directory).unwrap();
    shell(&directory, "echo x > roots; chown 65534 . ..; chmod 755 . .. ../..");
    as_nobody(|| {
        let provider = Reflink::open(&directory).unwrap();
        let refused = provider.create(Id::random()).unwrap_err();
        assert!(refused.to_string().ends_with("roots without CAP_CHOWN"), "{refused}");
        assert_eq!(provider.list().unwrap(), []);
    });
}

#[test]
fn a_full_disk_is_said_to_be_full_and_its_snapshots_are_deleted() {
    let place = Place::beside(Disk::xfs());
    shell(&place.directory, "mkdir many; cd many; for i in {1..6000}; do echo $i > file-with-a-long-name-$i; done");
    let provider = place.provider();
    let snapshot = provider.create(Id::random()).unwrap();
    shell(
        &place.disk.path(),
        "dd if=/dev/zero of=ballast bs=1M status=none || dd if=/dev/zero of=rest bs=4k status=none || true",
    );
    let before = place.describe();
    let error = provider.create(Id::random()).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    let store = tree_of(&snapshot).parent().unwrap().parent().unwrap();
    assert_eq!(std::fs::read_dir(store).unwrap().count(), 1, "what was begun is removed");
    assert_same(&place.describe(), &before);
    place.provider().delete(&snapshot).unwrap();
    assert_eq!(place.provider().list().unwrap(), []);
    shell(&place.disk.path(), "rm ballast; mount -o remount,ro .");
    let error = Reflink::open(&place.directory).unwrap_err();
    assert!(error.to_string().contains("Read-only file system"), "{error}");
}
