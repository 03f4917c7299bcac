//! Where a rollback of btrfs could go wrong.

use std::ffi::OsStr;
use std::path::Path;

use snapshot::id::Id;
use snapshot::mounts::mounts;
use snapshot::provider::Handle;

use super::{Subvolume, make_subvolume, roll_back};
use crate::process::forked;
use crate::storage::{Image, run};
use crate::suite::Fixture as _;

#[test]
fn all_mounts_of_a_subvolume_show_what_was_rolled_back_and_keep_their_options() {
    let shop = Subvolume::of_its_own_mount("--make-shared");
    let provider = shop.open();
    let options = || {
        let mut mounts = mounts().unwrap();
        mounts.retain(|mount| mount.point.starts_with(shop.image.root()));
        let mut options: Vec<_> = mounts.into_iter().map(|mount| (mount.point, mount.root, mount.options)).collect();
        options.sort();
        options
    };
    let before = options();
    std::fs::write(shop.directory.join("bound/file"), "then").unwrap();
    let handle = provider.create(Id::random()).unwrap();
    std::fs::write(shop.directory.join("bound/file"), "now").unwrap();
    roll_back(&*provider, &handle);
    for path in ["shop", "shop again", "shop bound"] {
        let file = shop.image.place(path).join("bound/file");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "then", "{}", file.display());
    }
    assert_eq!(std::fs::read_to_string(shop.image.place("directory bound/file")).unwrap(), "then");
    assert_eq!(options(), before);
}

#[test]
fn what_is_mounted_or_holds_other_subvolumes_is_not_deleted() {
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let handle = provider.create(Id::random()).unwrap();
    let Handle::Btrfs { subvolume, .. } = handle else { panic!("{handle:?}") };
    let elsewhere = shop.image.mount("elsewhere", &format!("subvolid={subvolume}"));
    let error = provider.delete(&handle).unwrap_err().to_string();
    assert!(error.contains("is mounted at") && error.contains("elsewhere"), "{error}");
    rustix::mount::unmount(&elsewhere, rustix::mount::UnmountFlags::empty()).unwrap();
    let view = provider.view(&handle).unwrap();
    provider.delete(&handle).expect_err("somebody looks at it");
    drop(view);
    let kept = roll_back(&*provider, &handle);
    let old = provider.list().unwrap().into_iter().find(|(_, handle)| *handle == kept).unwrap().0;
    make_subvolume(&shop.image.place("top").join(format!(".snapback/{old}/tree/made later")));
    let error = provider.delete(&kept).unwrap_err().to_string();
    assert!(error.contains("made later"), "{error}");
    provider.delete(&handle).unwrap();
}

#[test]
fn the_default_subvolume_is_the_default_after_a_rollback_too() {
    let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    make_subvolume(&top.join("@"));
    run("btrfs", ["subvolume", "set-default", &top.join("@").to_string_lossy()]);
    rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
    let directory = image.mount("root", "");
    let provider = Subvolume::provider(&directory);
    let handle = provider.create(Id::random()).unwrap();
    std::fs::write(directory.join("later"), "").unwrap();
    roll_back(&*provider, &handle);
    assert!(!directory.join("later").exists());
    let again = image.mount("again", "");
    assert!(!again.join("later").exists(), "the next start mounts the old tree");
}

#[test]
fn the_top_level_is_snapshot_but_not_rolled_back() {
    let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
    let directory = image.mount("top", "");
    std::fs::write(directory.join("file"), "then").unwrap();
    let provider = Subvolume::provider(&directory);
    let handle = provider.create(Id::random()).unwrap();
    std::fs::write(directory.join("file"), "now").unwrap();
    assert_eq!(std::fs::read_to_string(provider.view(&handle).unwrap().path().join("file")).unwrap(), "then");
    let error = provider.plan_switch(&handle, Id::random()).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("snapshot undo")), "{error}");
}

#[test]
fn a_rollback_that_has_no_place_for_a_nested_subvolume_is_refused() {
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let path = shop.directory.join("becomes nested");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), "").unwrap();
    let handle = provider.create(Id::random()).unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    make_subvolume(&path);
    let error = provider.plan_switch(&handle, Id::random()).unwrap_err().to_string();
    assert!(error.contains("becomes nested is a directory with files"), "{error}");
}

#[test]
fn nested_subvolumes_and_mounts_that_the_snapshot_has_no_place_for_get_one() {
    let shop = Subvolume::of_its_own_mount("--make-private");
    let provider = shop.open();
    let handle = provider.create(Id::random()).unwrap();
    std::fs::create_dir_all(shop.directory.join("new/place")).unwrap();
    std::fs::set_permissions(shop.directory.join("new"), std::os::unix::fs::PermissionsExt::from_mode(0o751)).unwrap();
    make_subvolume(&shop.directory.join("new/nested"));
    std::fs::write(shop.directory.join("new/nested/file"), "").unwrap();
    run("mount", ["-t", "tmpfs", "none", &shop.directory.join("new/place").to_string_lossy()]);
    std::fs::write(shop.directory.join("new/place/file"), "").unwrap();
    roll_back(&*provider, &handle);
    assert!(shop.directory.join("new/nested/file").exists());
    assert!(shop.directory.join("new/place/file").exists());
    let mode = std::os::unix::fs::MetadataExt::mode(&shop.directory.join("new").metadata().unwrap());
    assert_eq!(mode & 0o7777, 0o751);
}

#[test]
fn the_root_of_a_running_system_is_rolled_back_for_the_next_start_and_goes_on_until_then() {
    let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    make_subvolume(&top.join("@"));
    rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
    let root = image.mount("root", "subvol=@");
    for name in ["proc", "dev", "run", "var/lib"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    make_subvolume(&root.join("var/lib/machines"));
    std::fs::write(root.join("var/lib/machines/one"), "").unwrap();
    std::fs::write(root.join("file"), "then").unwrap();
    // Never the machine's own: what is unmounted or removed in a bound copy may be gone in the original, too.
    run("mount", ["-t", "proc", "none", &root.join("proc").to_string_lossy()]);
    run("mount", ["-t", "tmpfs", "none", &root.join("dev").to_string_lossy()]);
    run("cp", [OsStr::new("--archive"), image.device().as_ref(), root.join("dev").as_ref()]);
    let old = Id::random();
    let is_done = forked(|| {
        // With the root changed, all that this process sees is as in a system of which it is the root.
        std::os::unix::fs::chroot(&root).unwrap();
        std::env::set_current_dir("/").unwrap();
        let provider = Subvolume::provider(Path::new("/"));
        let handle = provider.create(Id::random()).unwrap();
        std::fs::write("/file", "now").unwrap();
        let steps = provider.plan_switch(&handle, old).unwrap();
        for _ in 0..2 {
            steps.iter().for_each(|step| provider.perform(step).unwrap());
            assert!(Path::new("/var/lib/machines/one").exists());
            steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
            assert!(Path::new("/var/lib/machines/one").exists());
        }
        steps.iter().for_each(|step| provider.perform(step).unwrap());
        assert_eq!(std::fs::read_to_string("/file").unwrap(), "now");
        let error = provider.create(Id::random()).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.starts_with("restart the system")), "{error}");
    });
    assert!(is_done, "what it says is above");
    let started = image.mount("started", "subvol=@");
    assert_eq!(std::fs::read_to_string(started.join("file")).unwrap(), "then");
    for shown in [&started, &root] {
        assert!(shown.join("var/lib/machines/one").exists(), "{}", shown.display());
    }
}

#[test]
fn on_a_full_disk_all_that_fails_leaves_everything_as_it_was() {
    let image = Image::new("200M", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    let directory = top.join("shop");
    make_subvolume(&directory);
    std::fs::write(directory.join("file"), "then").unwrap();
    let provider = Subvolume::provider(&directory);
    let handle = provider.create(Id::random()).unwrap();
    std::fs::write(directory.join("file"), "now").unwrap();
    let filling = std::fs::File::create(directory.join("filling")).unwrap();
    while std::io::Write::write_all(&mut &filling, &[7; 65536]).and_then(|()| filling.sync_data()).is_ok() {}
    for number in 0.. {
        if std::fs::write(directory.join(number.to_string()), [7; 1500]).is_err() {
            break;
        }
    }
    let listed = provider.list().unwrap();
    provider.space(&handle).expect("an estimate that cannot be made is none");
    provider.changed_paths(&handle, None).expect("without room, it cannot tell");
    assert_eq!(provider.list().unwrap(), listed);
    let old = Id::random();
    let steps = provider.plan_switch(&handle, old).unwrap();
    let done = steps.iter().try_for_each(|step| provider.perform(step));
    let content = || std::fs::read_to_string(directory.join("file")).unwrap();
    assert_eq!(content(), if done.is_ok() { "then" } else { "now" });
    steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
    assert_eq!(content(), "now");
    assert_eq!(provider.list().unwrap(), listed);
    provider.delete(&handle).unwrap();
}

#[test]
fn a_swap_file_in_use_is_named_as_what_forbids_a_snapshot() {
    let shop = Subvolume::in_the_mounted_top_level();
    let swap = shop.directory.join("swap");
    run("btrfs", ["filesystem", "mkswapfile", "--size", "10m", &swap.to_string_lossy()]);
    run("swapon", [&swap]);
    let error = shop.open().create(Id::random()).map(drop);
    run("swapoff", [&swap]);
    let error = error.unwrap_err();
    assert!(error.to_string().starts_with("a swap file is in use in "), "{error}");
    assert_eq!(shop.open().list().unwrap(), []);
}

#[test]
fn a_view_whose_process_was_killed_does_not_keep_a_snapshot() {
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let handle = provider.create(Id::random()).unwrap();
    let is_seen = forked(|| {
        let view = provider.view(&handle).unwrap();
        assert!(view.path().join(".").exists());
        // As if it were killed: nothing is dropped.
        std::mem::forget(view);
    });
    assert!(is_seen);
    provider.delete(&handle).unwrap();
}
