//! The cloner of trees.

use std::path::{Path, PathBuf};

use snapshot::reflink::clone::{self, Content, Options};

use crate::disk::{Disk, assert_same, describe, fill, is_shared, shell};

fn cloned(disk: &Disk) -> (PathBuf, PathBuf) {
    let (tree, copy) = (disk.path().join("tree"), disk.path().join("copy"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::create_dir(&copy).unwrap();
    fill(&tree);
    (tree, copy)
}

fn a_clone_is_the_same(disk: &Disk) {
    let (tree, copy) = cloned(disk);
    let before = describe(&tree);
    let totals = clone::tree(&tree, &copy, &Options::default()).unwrap();
    assert_same(&describe(&copy), &before);
    assert_same(&describe(&tree), &before);
    assert!(is_shared(copy.join("large")), "{:?}", copy.join("large"));
    assert_eq!((totals.links, totals.directories), (2, 7));
}

#[test]
fn a_clone_on_xfs_holds_everything_and_shares_the_content() {
    a_clone_is_the_same(&Disk::xfs());
}

#[test]
fn a_clone_on_btrfs_holds_everything_and_shares_the_content() {
    a_clone_is_the_same(&Disk::btrfs());
}

#[test]
fn a_tree_is_copied_to_another_file_system_if_that_is_allowed() {
    let (ext4, btrfs) = (Disk::ext4(), Disk::btrfs());
    let (tree, _) = cloned(&ext4);
    let copy = btrfs.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let refused = clone::tree(&tree, &copy, &Options::default()).unwrap_err();
    assert!(refused.to_string().starts_with("cannot share the extents of"), "{refused}");
    shell(&btrfs.path(), "rm -r copy; mkdir copy");
    clone::tree(&tree, &copy, &Options { content: Content::ShareOrCopy, ..Options::default() }).unwrap();
    assert_same(&describe(&copy), &describe(&tree));
}

#[test]
fn mounts_and_excluded_entries_are_left_out_and_named() {
    let disk = Disk::xfs();
    let (tree, copy) = cloned(&disk);
    shell(&tree, "mount -t tmpfs none deep/er/still; echo no > deep/er/still/x; mount --bind large suid");
    let options =
        Options { exclude: vec![PathBuf::from("with space"), PathBuf::from("deep/link")], ..Options::default() };
    let totals = clone::tree(&tree, &copy, &options).unwrap();
    assert_eq!(totals.left_out, [Path::new("deep/er/still"), Path::new("suid")]);
    assert_eq!(std::fs::read_dir(copy.join("deep/er/still")).unwrap().count(), 0);
    assert_eq!(std::fs::metadata(copy.join("suid")).unwrap().len(), 0);
    assert!(!copy.join("with space").exists() && !copy.join("deep/link").exists() && copy.join("deep/er/one").exists());
}

#[test]
fn files_without_copy_on_write_are_shared_too() {
    let disk = Disk::btrfs();
    let (tree, copy) = (disk.path().join("tree"), disk.path().join("copy"));
    shell(
        &disk.path(),
        "mkdir tree copy; touch tree/plain tree/nocow; chattr +C tree/nocow; head -c 99999 /dev/zero | tee tree/plain > tree/nocow",
    );
    clone::tree(&tree, &copy, &Options::default()).unwrap();
    assert!(is_shared(copy.join("nocow")) && is_shared(copy.join("plain")));
    assert!(shell(&copy, "lsattr nocow").contains('C'));
}

#[test]
fn paths_longer_than_the_kernel_takes_are_cloned() {
    let disk = Disk::xfs();
    shell(
        &disk.path(),
        r#"mkdir tree copy; cd tree; name=$(printf 'n%.0s' {1..250})
        for i in {1..20}; do mkdir $name; cd $name; done; echo deepest > file; ln file link; mkdir directory; touch -d 2001-01-01 ."#,
    );
    clone::tree(&disk.path().join("tree"), &disk.path().join("copy"), &Options::default()).unwrap();
    let sums = |tree: &str| {
        shell(&disk.path().join(tree), "find . -type f -printf '%f %n %s %T@\n' -o -printf '%d %m %T@\n' | sort")
    };
    assert_eq!(sums("copy"), sums("tree"));
}

#[test]
fn flags_of_chattr_are_cloned_and_do_not_stop_a_rollback_or_the_removal() {
    use snapshot::provider::Provider as _;
    let disk = Disk::xfs();
    let tree = disk.path().join("tree");
    let flags = || shell(&tree, "lsattr -d . f d d/g l | cut -c 1-22");
    shell(
        &disk.path(),
        "mkdir -p tree/d; cd tree; echo f > f; echo g > d/g; echo l > l; ln l d/l; chattr +i f d/g l; chattr +a d; chattr +d .",
    );
    let before = (describe(&tree), flags());
    assert!(before.1.contains('i') && before.1.contains('a'), "{}", before.1);
    let provider = snapshot::reflink::provider::Reflink::open(&tree).unwrap();
    let to = provider.create(snapshot::id::Id::random()).unwrap();
    shell(&tree, "chattr -i f; chattr -a d; rm f; chattr +i .");
    let old = snapshot::id::Id::random();
    provider.plan_switch(&to, old).unwrap().iter().for_each(|step| provider.perform(step).unwrap());
    assert_eq!(flags(), before.1);
    assert_same(&describe(&tree), &before.0);
    let (_, kept) = provider.list().unwrap().remove(0);
    provider.delete(&kept).unwrap();
    assert_eq!(provider.list().unwrap(), []);
}
