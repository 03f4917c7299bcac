//! Differences are found, each of its kind, and nothing else is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use snapshot::changes::{Change, ContentDiff, Kind, Summary, What, between, content};
use snapshot::provider::Changed;
use snapshot::reflink::clone::{self, Content, Options};

use crate::disk::{Disk, fill, run, shell};

/// A live tree with everything in it, and a second one like it.
fn twins(disk: &Disk) -> (PathBuf, PathBuf) {
    let (live, snapshot) = (disk.path().join("live"), disk.path().join("snapshot"));
    fs::create_dir(&live).unwrap();
    fs::create_dir(&snapshot).unwrap();
    fill(&live);
    clone::tree(&live, &snapshot, &Options { content: Content::ShareOrCopy, ..Options::default() }).unwrap();
    (snapshot, live)
}

fn told(before: &Path, after: &Path, limited: Option<&[Changed]>) -> Vec<(String, What)> {
    let changes = between(before, after, limited).unwrap();
    assert!(changes.unread.is_empty(), "{:?}", changes.unread);
    changes.list.into_iter().map(|Change { path, what, .. }| (path.to_str().unwrap().to_owned(), what)).collect()
}

#[test]
fn two_trees_with_everything_in_them_are_equal_on_each_file_system() {
    for disk in [Disk::xfs(), Disk::btrfs(), Disk::ext4()] {
        let (snapshot, live) = twins(&disk);
        assert_eq!(told(&snapshot, &live, None), []);
    }
}

#[test]
fn every_kind_of_difference_is_told() {
    let disk = Disk::xfs();
    let (snapshot, live) = twins(&disk);
    shell(
        &live,
        r#"
        printf x | dd of=sparse bs=1 seek=100 conv=notrunc status=none; touch -r ../snapshot/sparse sparse
        echo longer >> deep/er/one
        rm deep/dangling; ln -s elsewhere deep/dangling
        chmod 600 .hidden; setfattr -n user.comment -v 'other value' large; chown 3:4 sticky
        touch -d '2020-02-02' nothing
        rm fifo; mkdir fifo; echo a > fifo/a
        rm -r empty; mkdir -p added/dir; echo b > added/dir/b
        rm null; mknod -m 600 null c 1 5; touch -r ../snapshot/null null
        "#,
    );
    let expected = [
        (".hidden", What::Attributes),
        ("added", What::Added),
        ("added/dir", What::Added),
        ("added/dir/b", What::Added),
        ("deep/dangling", What::Modified),
        ("deep/er/one", What::Modified),
        ("deep/link", What::Modified),
        ("empty", What::Removed),
        ("fifo", What::Replaced),
        ("fifo/a", What::Added),
        ("large", What::Attributes),
        ("nothing", What::Attributes),
        ("null", What::Modified),
        ("sparse", What::Modified),
        ("sticky", What::Attributes),
        ("with space/link", What::Modified),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(path, what)| (path.to_owned(), what)).collect();
    assert_eq!(told(&snapshot, &live, None), expected);
    let summary = between(&snapshot, &live, None).unwrap().summary();
    // "fifo" has become a directory, and directories are not counted.
    let length = |name: &str| fs::metadata(live.join(name)).unwrap().len();
    let bytes = 2 + 3 * 11 + length(".hidden") + length("large") + length("sparse") + 2;
    assert_eq!(summary, Summary { changed: 9, added: 2, removed: 0, bytes });
}

#[test]
fn what_the_storage_told_limits_the_walk() {
    let disk = Disk::ext4();
    let (snapshot, live) = twins(&disk);
    shell(&live, "echo 1 > deep/er/new; echo 2 > sticky/new; mkdir -p fresh/below; chmod 700 deep");
    let changed = |path: &str, is_tree| Changed { path: PathBuf::from(path), is_tree };
    let alone = |path: &str| told(&snapshot, &live, Some(&[changed(path, false)]));
    assert_eq!(alone("deep"), [("deep".to_owned(), What::Attributes)]);
    assert_eq!(alone("sticky"), []);
    // What is in one tree alone is told with all below it.
    let fresh = [("fresh".to_owned(), What::Added), ("fresh/below".to_owned(), What::Added)];
    assert_eq!(alone("fresh"), fresh);
    let with_all = told(&snapshot, &live, Some(&[changed("deep", true), changed("deep/er/new", false)]));
    assert_eq!(with_all, [("deep".to_owned(), What::Attributes), ("deep/er/new".to_owned(), What::Added)]);
}

#[test]
fn a_mount_below_belongs_to_neither_tree() {
    let disk = Disk::ext4();
    let (snapshot, live) = twins(&disk);
    shell(&live, "mount -t tmpfs none sticky; echo x > sticky/x");
    assert_eq!(told(&snapshot, &live, None), []);
}

#[test]
fn shared_content_is_not_read() {
    let disk = Disk::xfs();
    let (live, snapshot) = (disk.path().join("live"), disk.path().join("snapshot"));
    fs::create_dir(&live).unwrap();
    fs::create_dir(&snapshot).unwrap();
    // With as many bytes as would take minutes to read.
    shell(&live, "truncate -s 2T huge; printf end | dd of=huge bs=1M seek=2000000 conv=notrunc status=none");
    clone::tree(&live, &snapshot, &Options::default()).unwrap();
    assert_eq!(told(&snapshot, &live, None), []);
    // Nor are holes, where something did change.
    shell(&live, "printf END | dd of=huge bs=1M seek=2000000 conv=notrunc status=none; touch -r ../snapshot/huge huge");
    assert_eq!(told(&snapshot, &live, None), [("huge".to_owned(), What::Modified)]);
}

#[test]
fn of_content_that_is_shared_in_part_only_the_rest_is_read() {
    for disk in [Disk::xfs(), Disk::btrfs()] {
        let (live, snapshot) = (disk.path().join("live"), disk.path().join("snapshot"));
        shell(
            &disk.path(),
            "if [ $(stat -f -c %T .) = btrfs ]; then btrfs -q subvolume create live; else mkdir live; fi",
        );
        // 64 GiB, each half of which shares the blocks of the other.
        let doubling = r#"
import fcntl, os, struct
for name in "same", "other":
    with open(name, "wb+") as file:
        file.write(os.urandom(16 << 20)); file.flush(); os.fsync(file.fileno())
        for power in range(24, 36):
            fcntl.ioctl(file, 0x4020940d, struct.pack("qQQQ", file.fileno(), 0, 1 << power, 1 << power))
"#;
        run(Command::new("python3").args(["-c", doubling]).current_dir(&live));
        fs::create_dir(&snapshot).unwrap();
        clone::tree(&live, &snapshot, &Options::default()).unwrap();
        // Written anew with what it had: no longer shared, and equal all the same.
        shell(
            &live,
            "dd if=../snapshot/same of=same bs=64K skip=300000 seek=300000 count=1 conv=notrunc status=none
            printf X | dd of=other bs=1M seek=50000 conv=notrunc status=none
            sync; touch -r ../snapshot/same same; touch -r ../snapshot/other other",
        );
        let begin = Instant::now();
        assert_eq!(told(&snapshot, &live, None), [("other".to_owned(), What::Modified)]);
        assert!(begin.elapsed() < Duration::from_secs(10), "it takes {:?}", begin.elapsed());
    }
}

#[test]
fn lines_that_differ_are_told_as_diff_tells_them() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    shell(
        root,
        "mkdir a b; seq 40 > a/t; seq 40 | sed '3d; s/^20$/twenty/' > b/t; printf 'no end' >> b/t; printf '\\0' > a/n",
    );
    let text = |file: &str| content(&root.join("a"), &root.join("b"), Path::new(file), 1 << 20).unwrap();
    let ContentDiff::Text(ours) = text("t") else { panic!() };
    let theirs = shell(root, "diff -u a/t b/t | tail -n +3 || true");
    assert_eq!(String::from_utf8(ours).unwrap(), theirs);
    assert_eq!(text("n"), ContentDiff::NotText);
    assert_eq!(content(&root.join("a"), &root.join("b"), Path::new("t"), 10).unwrap(), ContentDiff::NotText);
    assert_eq!(content(&root.join("a"), &root.join("a"), Path::new("t"), 1 << 20).unwrap(), ContentDiff::Same);
    fs::write(root.join("b/new"), "one\n").unwrap();
    assert_eq!(text("new"), ContentDiff::Text(b"@@ -0,0 +1 @@\n+one\n".to_vec()));
}

#[test]
fn a_content_behind_a_link_is_not_shown() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    shell(root, "mkdir a b; echo secret > secret; ln -s ../secret a/link; ln -s .. a/up");
    let refused = content(&root.join("a"), &root.join("b"), Path::new("link"), 1 << 20).unwrap_err();
    assert!(refused.to_string().contains("symbolic link"), "{refused}");
    for out in ["up/secret", "../secret"] {
        assert!(content(&root.join("a"), &root.join("b"), Path::new(out), 1 << 20).is_err(), "{out}");
    }
}

#[test]
fn a_change_knows_its_kind_and_sizes() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    shell(root, "mkdir a b; echo old > a/f; echo newer > b/f; ln -s x b/l");
    let changes = between(&root.join("a"), &root.join("b"), None).unwrap();
    let file = changes.list.iter().find(|change| change.path == Path::new("f")).unwrap();
    assert_eq!((file.kind, file.size_before, file.size_after), (Kind::File, Some(4), Some(6)));
    let link = changes.list.iter().find(|change| change.path == Path::new("l")).unwrap();
    assert_eq!((link.kind, link.what, link.size_after), (Kind::Symlink, What::Added, None));
}
