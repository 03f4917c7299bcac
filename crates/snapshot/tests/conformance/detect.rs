//! Which mechanism is found on real file systems, and what is said where there is none.

use std::path::Path;
use std::sync::Arc;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use snapshot::error::Error;
use snapshot::mounts::mounts;
use snapshot::provider::{Kind, Provider};
use snapshot::runner::System;
use snapshot::{btrfs, detect};

use crate::storage::{Image, run};

fn find(directory: &Path) -> Result<Box<dyn Provider>, Error> {
    detect::provider(directory, &mounts().unwrap(), Arc::new(System))
}

fn hint(directory: &Path) -> String {
    let error = find(directory).map(|found| found.kind()).expect_err("there is no mechanism");
    error.hint().unwrap_or_else(|| panic!("no way out of: {error}")).to_owned()
}

#[test]
fn on_btrfs_a_subvolume_is_found_and_a_directory_in_one_is_offered_to_become_one() {
    let image = Image::new("1G", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    run("btrfs", ["-q", "subvolume", "create", &top.join("shop").to_string_lossy()]);
    let inside = top.join("shop/web/pages");
    std::fs::create_dir_all(&inside).unwrap();
    assert_eq!(find(&top.join("shop")).unwrap().kind(), Kind::Btrfs);
    assert!(hint(&inside).starts_with("`snapback adopt "), "{}", hint(&inside));
    let Err(error) = find(&inside) else { unreachable!("it has a hint") };
    assert!(error.to_string().ends_with(&format!("lies in that of {}", top.join("shop").display())), "{error}");
    // A directory of it, mounted elsewhere.
    let bound = image.place("bound");
    run("mount", [Path::new("--bind"), &inside, &bound]);
    assert!(hint(&bound).starts_with("`snapback adopt "));
}

#[test]
fn where_extents_are_shared_the_directory_is_cloned() {
    let top = Image::new("1G", &["mkfs.xfs", "-q"]);
    let directory = top.mount("top", "").join("shop");
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(find(&directory).unwrap().kind(), Kind::Reflink);
}

#[test]
fn on_ext4_a_volume_in_a_file_is_offered() {
    let image = Image::new("100M", &["mkfs.ext4", "-q"]);
    let directory = image.mount("top", "").join("shop");
    std::fs::create_dir(&directory).unwrap();
    let hint = hint(&directory);
    assert!(hint.starts_with(&format!("`snapback adopt {} --size 20G`", directory.display())), "{hint}");
}

#[test]
fn without_privileges_the_capability_is_named_and_ones_own_directories_are_cloned() {
    let image = Image::new("1G", &["mkfs.btrfs", "-q"]);
    let top = image.mount("top", "");
    let (own, other) = (top.join("own"), top.join("other"));
    for path in [&own, &other] {
        run("btrfs", ["-q", "subvolume", "create", &path.to_string_lossy()]);
    }
    // Capabilities are those of a thread.
    let without = std::thread::spawn(move || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::SYS_ADMIN | CapabilitySet::DAC_OVERRIDE;
        set_capabilities(None, sets).unwrap();
        let refused = btrfs::open(&own, &mounts().unwrap()).map(|_| ()).unwrap_err();
        std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
        (refused, find(&own).unwrap().kind(), find(&other).map(|found| found.kind()).unwrap_err())
    });
    let (refused, own, other) = without.join().unwrap();
    assert!(refused.to_string().ends_with("without CAP_SYS_ADMIN"), "{refused}");
    assert_eq!(own, Kind::Reflink);
    assert!(matches!(other, Error::Privilege { capability: "CAP_SYS_ADMIN", .. }), "{other}");
    assert!(other.hint().is_some_and(|hint| hint.contains("reflink")));
}
