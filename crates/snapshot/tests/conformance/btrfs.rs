//! btrfs on a loop device: a subvolume as a directory in the mounted top level, and as a mount of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snapshot::btrfs::{self, Place};
use snapshot::id::Id;
use snapshot::mounts::mounts;
use snapshot::provider::{Changed, Handle, Provider};

use crate::storage::{Image, run};
use crate::suite::{Fixture, assert_changes_covered, assert_in_place, conformance};
use crate::tree::{assert_same, change, describe, fill};

struct Subvolume {
    image: Image,
    directory: PathBuf,
    other: PathBuf,
    apart: Vec<PathBuf>,
}

impl Subvolume {
    /// A subvolume at the top level, which is mounted: the directory is not a mount point.
    fn in_the_mounted_top_level() -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        let top = image.mount("top", "noatime");
        make_subvolume(&top.join("shop"));
        make_subvolume(&top.join("other"));
        Subvolume { image, directory: top.join("shop"), other: top.join("other"), apart: Vec::new() }
    }

    /// A subvolume that is mounted, also a second time, and a directory of it at a third place; of a parent that is not
    /// mounted.
    fn of_its_own_mount(propagation: &str) -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        // As systemd has it, mounts are shared with other namespaces; in a container they are not.
        let root = image.root();
        run("mount", ["-t", "tmpfs", "none", &root.to_string_lossy()]);
        run("mount", [propagation, &root.to_string_lossy()]);
        let top = image.mount("top", "");
        std::fs::create_dir(top.join("in")).unwrap();
        make_subvolume(&top.join("in/@shop"));
        make_subvolume(&top.join("@other"));
        rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
        let directory = image.mount("shop", "subvol=in/@shop,noatime,nosuid");
        image.mount("shop again", "subvol=in/@shop,ro");
        std::fs::create_dir(directory.join("bound")).unwrap();
        for (from, to) in [(directory.clone(), "shop bound"), (directory.join("bound"), "directory bound")] {
            run("mount", [OsStr::new("--bind"), from.as_ref(), image.place(to).as_ref()]);
        }
        let other = image.mount("other", "subvol=@other");
        Subvolume { image, directory, other, apart: Vec::new() }
    }

    /// With nested subvolumes, one of them read-only, and mounts below.
    fn furnished(mut self) -> Subvolume {
        for name in ["data", "data/of others"] {
            std::fs::create_dir(self.directory.join(name)).unwrap();
        }
        for name in ["nested", "data/of others/nested too"] {
            make_subvolume(&self.directory.join(name));
            self.apart.push(name.into());
        }
        for name in ["mounted", "data/of others/mounted", "nested/mounted"] {
            let point = self.directory.join(name);
            std::fs::create_dir(&point).unwrap();
            run("mount", ["-t", "tmpfs", "none", &point.to_string_lossy()]);
            self.apart.push(name.into());
        }
        for path in &self.apart {
            std::fs::write(self.directory.join(path).join("stays"), path.to_str().unwrap()).unwrap();
        }
        let read_only = self.directory.join("data/of others/nested too");
        run("btrfs", ["property", "set", &read_only.to_string_lossy(), "ro", "true"]);
        self
    }

    fn provider(directory: &Path) -> Box<dyn Provider> {
        match btrfs::open(directory, &mounts().unwrap()).unwrap() {
            Some(Place::Subvolume(provider)) => Box::new(provider),
            other => panic!("{} is {other:?}", directory.display()),
        }
    }
}

impl Fixture for Subvolume {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(&self) -> Box<dyn Provider> {
        Subvolume::provider(&self.directory)
    }

    fn open_other(&self) -> Option<Box<dyn Provider>> {
        Some(Subvolume::provider(&self.other))
    }

    fn apart(&self) -> Vec<PathBuf> {
        self.apart.clone()
    }
}

fn make_subvolume(path: &Path) {
    run("btrfs", ["-q", "subvolume", "create", &path.to_string_lossy()]);
}

#[test]
fn a_subvolume_in_the_mounted_top_level_keeps_the_promises() {
    conformance(&Subvolume::in_the_mounted_top_level());
}

#[test]
fn a_subvolume_in_the_mounted_top_level_with_others_in_it_keeps_the_promises() {
    conformance(&Subvolume::in_the_mounted_top_level().furnished());
}

#[test]
fn a_subvolume_that_is_mounted_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-private"));
}

#[test]
fn a_subvolume_that_is_mounted_with_others_in_it_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-private").furnished());
}

#[test]
fn a_subvolume_whose_mounts_are_shared_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-shared").furnished());
}

fn roll_back(provider: &dyn Provider, to: &Handle) -> Handle {
    let old = Id::random();
    provider.plan_switch(to, old).unwrap().iter().for_each(|step| provider.perform(step).unwrap());
    let kept = provider.list().unwrap().into_iter().find(|(id, _)| *id == old);
    kept.expect("the old tree is kept").1
}

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

/// Does something in a process that is killed after a while.
fn killed_after(delay: Duration, work: impl FnOnce()) {
    // SAFETY: the child calls nothing that depends on the threads it lost: what it does is system calls, and memory,
    // which the C library keeps usable in it.
    match unsafe { libc::fork() } {
        0 => {
            work();
            // SAFETY: it ends the process.
            unsafe { libc::_exit(0) }
        }
        child => {
            assert!(child > 0, "fork failed");
            std::thread::sleep(delay);
            // SAFETY: it is our child, and was not waited for yet.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
    }
}

fn is_finished_or_taken_back_when_killed(shop: &Subvolume) {
    fill(&shop.directory);
    let provider = shop.open();
    let then = describe(&shop.directory, &shop.apart);
    let handle = provider.create(Id::random()).unwrap();
    change(&shop.directory);
    let now = describe(&shop.directory, &shop.apart);
    let mut was_cut_off = 0;
    for attempt in 0..40_u32 {
        let provider = shop.open();
        let steps = provider.plan_switch(&handle, Id::random()).unwrap();
        let whole = Duration::from_millis(25);
        killed_after(whole * attempt / 40, || steps.iter().for_each(|step| provider.perform(step).unwrap()));
        let provider = shop.open();
        was_cut_off += u32::from(describe(&shop.directory, &shop.apart) != then);
        if attempt % 2 == 0 {
            steps.iter().for_each(|step| provider.perform(step).unwrap());
            let which = format!("after attempt {attempt} was finished");
            assert_same(&describe(&shop.directory, &shop.apart), &then, &which);
            assert_in_place(&shop.directory, &shop.apart, &which);
        }
        steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
        let which = format!("after attempt {attempt} was taken back");
        assert_same(&describe(&shop.directory, &shop.apart), &now, &which);
        assert_in_place(&shop.directory, &shop.apart, &which);
    }
    assert!(was_cut_off > 3, "it was cut off {was_cut_off} times only");
}

#[test]
fn a_rollback_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::in_the_mounted_top_level().furnished());
}

#[test]
fn a_rollback_of_mounts_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::of_its_own_mount("--make-shared").furnished());
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

/// Names and links of all kinds, moved about at random.
fn shuffle(root: &Path, are_directories_moved: bool, random: &mut dyn FnMut(usize) -> usize) {
    let names = ["a", "b", "c", "d/a", "d/b", "d/c", "e/a", "e/d/a", "e/d/b", "f/a", "f/g/h/a", "f/g/b"];
    // Where no directory moves, each file has to be told by itself.
    let kinds = if are_directories_moved { 10 } else { 6 };
    for _ in 0..if are_directories_moved { 60 } else { 12 } {
        let (one, other) = (root.join(names[random(names.len())]), root.join(names[random(names.len())]));
        let _ = other.parent().filter(|parent| !parent.exists()).map(std::fs::create_dir_all);
        let up = |path: &Path, levels: usize| path.ancestors().nth(levels).unwrap().to_owned();
        // Much of this fails, and what does not is what there is to find.
        let _ = match random(kinds) {
            0 | 1 => std::fs::write(&one, format!("{}", random(1000))),
            2 => std::fs::hard_link(&one, &other),
            3 if one.is_file() && !other.is_dir() => std::fs::rename(&one, &other),
            4 => std::fs::remove_file(&one),
            5 => std::fs::set_permissions(&one, std::os::unix::fs::PermissionsExt::from_mode(random(8) as u32 | 0o700)),
            6 if up(&one, 1) != *root => std::fs::rename(up(&one, 1), up(&other, 1).join("d")),
            7 if up(&one, 1) != *root => std::fs::rename(up(&one, 1), &other),
            8 if up(&one, 1) != *root && random(4) == 0 => std::fs::remove_dir_all(up(&one, 1)),
            9 => {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).map_err(Into::into)
            }
            _ => Ok(()),
        };
    }
}

#[test]
fn all_that_changed_is_told_however_names_and_links_moved() {
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let mut seed = 7_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut told_something = 0;
    for round in 0..60 {
        let before = describe(&shop.directory, &[]);
        let handle = provider.create(Id::random()).unwrap();
        shuffle(&shop.directory, round % 2 == 0, &mut random);
        let now = describe(&shop.directory, &[]);
        let told = provider.changed_paths(&handle, None).unwrap();
        told_something += usize::from(told.is_some());
        assert_changes_covered(told.or(Some(everything())), &before, &now, provider.abilities());
        provider.delete(&handle).unwrap();
    }
    assert!(told_something > 55, "it gave up {} times of 60", 60 - told_something);
}

fn everything() -> Vec<Changed> {
    let names = ["a", "b", "c", "d", "e", "f"].map(PathBuf::from);
    let names = names.into_iter().map(|path| Changed { path, is_tree: true });
    names.chain([Changed { path: PathBuf::new(), is_tree: false }]).collect()
}

#[test]
fn space_tells_what_was_written_since_and_what_deleting_would_free() {
    const MIB: u64 = 1 << 20;
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let random: Vec<u8> = (0..20 * MIB as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for name in ["overwritten", "removed", "renamed"] {
        std::fs::write(shop.directory.join(name), &random).unwrap();
    }
    let handle = provider.create(Id::random()).unwrap();
    let space = provider.space(&handle).unwrap();
    assert_eq!((space.grown, space.reclaimable), (Some(0), Some(0)));
    let file = std::fs::File::options().write(true).open(shop.directory.join("overwritten")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &random[..5 * MIB as usize], 8 * MIB).unwrap();
    std::fs::remove_file(shop.directory.join("removed")).unwrap();
    std::fs::rename(shop.directory.join("renamed"), shop.directory.join("has another name")).unwrap();
    let space = provider.space(&handle).unwrap();
    assert_eq!(space.grown, Some(5 * MIB));
    let free = || {
        run("btrfs", ["filesystem", "sync", &shop.directory.to_string_lossy()]);
        let stat = rustix::fs::statvfs(&shop.directory).unwrap();
        stat.f_bfree * stat.f_frsize
    };
    let before = free();
    provider.delete(&handle).unwrap();
    // Also what was deleted before: a commit wakes the kernel's cleaner.
    run("btrfs", ["filesystem", "sync", &shop.directory.to_string_lossy()]);
    run("btrfs", ["subvolume", "sync", "-s", "1", &shop.image.place("top").to_string_lossy()]);
    let freed = free() - before;
    let reclaimable = space.reclaimable.unwrap();
    assert!(freed.abs_diff(reclaimable) < MIB, "{reclaimable} were promised, and {freed} are free");
    assert!(reclaimable >= 20 * MIB);
}
