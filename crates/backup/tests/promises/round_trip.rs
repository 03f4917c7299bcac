//! Everything a Linux file system holds comes back as it was.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use repository::Repository;
use repository::storage::memory::Memory;

use crate::support::disk::Disk;
use crate::support::{Scratch, assert_comes_back, back_up, below, bring_back, fill, init, is_root, skip, tree};

fn memory() -> Arc<Repository> {
    init(Arc::new(Memory::new()))
}

/// Backs up what `make` makes in a directory, and restores it to another one of the same file system.
fn assert_survives(place: &Path, make: impl FnOnce(&Path)) -> (Scratch, Scratch) {
    let (source, target) = (Scratch::in_directory(place), Scratch::in_directory(place));
    make(source.path());
    let repository = memory();
    let made = back_up(&repository, source.path(), None);
    assert_comes_back(&repository, made.tree, source.path(), target.path());
    (source, target)
}

fn everything(directory: &Path) {
    fill::plain(directory);
    fill::privileged(directory);
    fill::sizes(directory);
}

#[test]
fn everything_comes_back_on_the_file_system_of_temporary_files() {
    let place = std::env::temp_dir();
    if is_root() {
        let (source, target) = assert_survives(&place, everything);
        tree::assert_same_holes(&source.path().join("holes"), &below(target.path(), source.path()).join("holes"));
    } else {
        assert_survives(&place, fill::plain);
    }
}

fn everything_on(kind: &str) {
    let Some(disk) = Disk::mount(kind, 1024) else { return };
    let (source, target) = assert_survives(disk.path(), everything);
    for name in ["hole", "hole only", "holes"] {
        tree::assert_same_holes(&source.path().join(name), &below(target.path(), source.path()).join(name));
    }
}

#[test]
fn everything_comes_back_on_ext4() {
    everything_on("ext4");
}

#[test]
fn everything_comes_back_on_btrfs() {
    everything_on("btrfs");
}

#[test]
fn everything_comes_back_on_xfs() {
    everything_on("xfs");
}

#[test]
fn everything_comes_back_on_tmpfs() {
    everything_on("tmpfs");
}

#[test]
fn times_long_before_and_after_ours_come_back_in_nanoseconds() {
    let Some(disk) = Disk::mount("btrfs", 256) else { return };
    assert_survives(disk.path(), |directory| {
        // The format's times end with the year 9999.
        for (number, secs) in [-62_135_596_800, -5_000_000_000, 32_503_680_000, 253_402_300_799].into_iter().enumerate()
        {
            let file = directory.join(number.to_string());
            fs::write(&file, "").unwrap();
            fill::set_mtime(&file, secs, 999_999_999);
        }
    });
}

#[test]
fn a_directory_deeper_than_any_path_comes_back() {
    assert_survives(&std::env::temp_dir(), |directory| fill::deep(directory, 3000));
}

#[test]
fn a_directory_with_20_000_files_comes_back() {
    assert_survives(&std::env::temp_dir(), |directory| {
        for number in 0..20_000 {
            fs::write(directory.join(number.to_string()), number.to_string()).unwrap();
        }
    });
}

#[test]
fn a_directory_with_5_000_directories_comes_back_with_the_usual_limit_of_open_files() {
    assert_survives(&std::env::temp_dir(), |directory| {
        for number in 0..5_000 {
            let below = directory.join(number.to_string());
            fs::create_dir(&below).unwrap();
            fs::write(below.join("file"), number.to_string()).unwrap();
        }
    });
}

#[test]
fn hard_links_in_5_000_directories_come_back_with_the_usual_limit_of_open_files() {
    assert_survives(&std::env::temp_dir(), |directory| {
        for number in 0..5_000 {
            let below = directory.join(number.to_string());
            fs::create_dir(&below).unwrap();
            fs::write(below.join("file"), number.to_string()).unwrap();
            fs::hard_link(below.join("file"), below.join("same")).unwrap();
        }
    });
}

#[test]
fn short_holes_in_a_large_file_take_no_room_again() {
    let Some(disk) = Disk::mount("ext4", 256) else { return };
    // Their ends lie within blocks, and pieces end within them.
    let data: Vec<_> = (0..64).map(|number| (number << 18 | 0x1234, 200_000)).collect();
    let (source, target) =
        assert_survives(disk.path(), |directory| fill::sparse(&directory.join("holes"), 16 << 20, &data));
    let (file, restored) = (source.path().join("holes"), below(target.path(), source.path()).join("holes"));
    tree::assert_same_holes(&file, &restored);
    // Room that is reserved and not written counts as a hole when it is read.
    let blocks = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        file.sync_all().unwrap();
        file.metadata().unwrap().blocks()
    };
    // Its map of blocks may be a little larger.
    assert!(blocks(&restored) <= blocks(&file) + 32, "{} and {}", blocks(&restored), blocks(&file));
}

#[test]
fn a_sparse_file_of_50_gb_comes_back_in_seconds() {
    let (source, target) = (Scratch::new(), Scratch::new());
    let file = source.path().join("sparse");
    fill::sparse(&file, 50_000_000_000, &[(0, 4096), (25_000_001_536, 8192), (49_999_000_064, 100_000)]);
    let repository = memory();
    let start = Instant::now();
    let made = back_up(&repository, source.path(), None);
    assert_comes_back(&repository, made.tree, source.path(), target.path());
    let took = start.elapsed();
    tree::assert_same_holes(&file, &below(target.path(), &file));
    // Generous, because the machine may be busy; reading 50 GB of zeros takes longer.
    assert!(took.as_secs() < 30, "{took:?}");
}

#[test]
fn a_file_that_nobody_may_change_is_backed_up() {
    // A file that nobody may change even as root, where the file system has such a flag.
    let source = Scratch::new();
    let file = source.path().join("immutable");
    fs::write(&file, "stays").unwrap();
    let chattr = |flag: &str| std::process::Command::new("chattr").arg(flag).arg(&file).status();
    if !chattr("+i").is_ok_and(|status| status.success()) {
        return skip("chattr does not work here");
    }
    let repository = memory();
    let made = back_up(&repository, source.path(), None);
    chattr("-i").unwrap();
    let target = Scratch::new();
    assert_comes_back(&repository, made.tree, source.path(), target.path());
}

#[test]
fn a_file_that_says_it_is_empty_and_is_not_is_read() {
    let file = Path::new("/proc/sys/kernel/ostype");
    let repository = memory();
    let made = back_up(&repository, file, None);
    let target = Scratch::new();
    bring_back(&repository, made.tree, target.path());
    assert_eq!(fs::read(below(target.path(), file)).unwrap(), fs::read(file).unwrap());
}
