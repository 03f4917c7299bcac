//! What btrfs tells of what changed, and of the room that snapshots take.

use std::path::{Path, PathBuf};

use snapshot::id::Id;
use snapshot::provider::Changed;

use super::{Subvolume, roll_back};
use crate::storage::run;
use crate::suite::{Fixture as _, assert_changes_covered};
use crate::tree::describe;

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

#[test]
fn space_of_the_tree_that_a_rollback_kept_is_told_too() {
    const MIB: u64 = 1 << 20;
    let shop = Subvolume::in_the_mounted_top_level();
    let provider = shop.open();
    let handle = provider.create(Id::random()).unwrap();
    let random: Vec<u8> = (0..8 * MIB as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    std::fs::write(shop.directory.join("written before"), &random).unwrap();
    let kept = roll_back(&*provider, &handle);
    std::fs::write(shop.directory.join("written after"), &random[..MIB as usize]).unwrap();
    let spaces = provider.spaces(&[handle, kept]).into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((spaces[0].grown, spaces[0].reclaimable), (Some(MIB), Some(0)));
    assert_eq!((spaces[1].grown, spaces[1].reclaimable), (Some(MIB), Some(8 * MIB)));
}
