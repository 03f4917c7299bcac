//! Mounts on the real kernel. `/dev/fuse` must be there; ordinary users need fusermount3 too.

#[path = "mount/fixture.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup::mount::MountError;
use fixture::{Fixture, Mounted, fuse_is_there, make_source, mounts_on, noise, root_is_there};
use repository::blob::BlobKind;
use repository::blob_writer::BlobWriter;
use repository::id::Id;
use repository::storage::{FileKind, StoredFile};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut buffer[..]).unwrap();
    let names: Vec<Vec<u8>> = buffer[..length].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let value = |name: Vec<u8>| {
        let length = rustix::fs::lgetxattr(path, &name[..], &mut buffer[..]).unwrap();
        (name, buffer[..length].to_vec())
    };
    names.into_iter().filter(|name| !name.is_empty()).map(value).collect()
}

/// Compares everything, and gives the inode numbers of the second tree by path.
fn assert_same(expected: &Path, found: &Path) -> BTreeMap<PathBuf, u64> {
    let names = |directory: &Path| -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (a, b) = (expected.symlink_metadata().unwrap(), found.symlink_metadata().unwrap());
    let same = |m: &fs::Metadata| {
        let size = if m.is_dir() { 0 } else { m.size() };
        let links = if m.is_dir() || m.file_type().is_fifo() { 1 } else { m.nlink() };
        (m.mode(), m.uid(), m.gid(), size, links, m.rdev(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()))
    };
    assert_eq!(same(&a), same(&b), "{found:?}");
    assert_eq!(xattrs(expected), xattrs(found), "{found:?}");
    let mut inodes = BTreeMap::from([(found.to_owned(), b.ino())]);
    if a.is_dir() {
        assert_eq!(names(expected), names(found), "{found:?}");
        for name in names(expected) {
            inodes.extend(assert_same(&expected.join(&name), &found.join(&name)));
        }
    } else if a.is_symlink() {
        assert_eq!(fs::read_link(expected).unwrap(), fs::read_link(found).unwrap());
    } else if a.is_file() {
        assert!(fs::read(expected).unwrap() == fs::read(found).unwrap(), "{found:?} has other bytes");
    }
    inodes
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

#[test]
fn a_mount_shows_what_was_saved() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    make_source(&fixture.source());
    let id = fixture.back_up("2026-01-02T03:04:05.678+01:00").short();
    let place = fixture.place();
    let mounted = fixture.mounted(&place);
    let time = "2026-01-02T03:04:05+01:00";
    assert_eq!(names(&place), ["backups", "hosts", "ids", "tags"]);
    for directory in ["backups", "hosts/web1", "tags/daily"] {
        assert_eq!(names(&place.join(directory)), [time, "latest"]);
    }
    assert_eq!(names(&place.join("ids")), [id.as_str()]);
    assert_eq!(fs::read_link(place.join("backups/latest")).unwrap(), Path::new(time));

    let inodes = assert_same(&fixture.source(), &fixture.below("backups/latest"));
    assert_eq!(inodes, assert_same(&fixture.source(), &fixture.below("backups/latest")));
    let below = fixture.below("backups/latest");
    let links = ["plain", "hard link", "deep/hard link too"].map(|name| inodes[&below.join(name)]);
    assert_eq!(links, [links[0]; 3]);
    let distinct: std::collections::HashSet<_> = inodes.values().collect();
    assert_eq!(distinct.len(), inodes.len() - 2);
    assert_same(&fixture.source(), &fixture.below(&format!("ids/{id}")));

    assert_eq!(errno(File::create(below.join("new"))), Some(Errno::ROFS));
    let space = rustix::fs::statvfs(&place).unwrap();
    assert!(space.f_blocks * space.f_frsize > 9_000_000);
    assert_eq!(space.f_bfree, 0);
    drop(mounted);
    assert_eq!(mounts_on(&place), 0);
    assert_eq!(fixture.told(), [""; 0]);
}

#[test]
fn many_threads_read_a_file_at_once() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    let bytes = noise(12_000_000);
    fs::write(fixture.source().join("large"), &bytes).unwrap();
    fixture.back_up("2026-01-02T03:04:05Z");
    let place = fixture.place();
    let _mounted = fixture.mounted(&place);
    let path = fixture.below("backups/latest").join("large");
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (path, bytes) = (&path, &bytes);
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut buffer = vec![0; 300_000];
                for round in 0..40 {
                    let offset = (thread * 1_234_567 + round * 7_654_321) % bytes.len();
                    let length = file.read_at(&mut buffer, offset as u64).unwrap();
                    assert_eq!(length, buffer.len().min(bytes.len() - offset));
                    assert!(buffer[..length] == bytes[offset..offset + length]);
                }
            });
        }
    });
}

#[test]
fn a_damaged_blob_is_an_error_and_the_rest_is_readable() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    let bytes = noise(12_000_000);
    fs::write(fixture.source().join("large"), &bytes).unwrap();
    fs::write(fixture.source().join("other"), "all well").unwrap();
    fixture.back_up("2026-01-02T03:04:05Z");
    // The largest piece, so that it is one of the large file's.
    let index = fixture.repository.load_index().unwrap();
    let (pack, blob) = index.iter().max_by_key(|(_, blob)| blob.length).unwrap();
    let pack = StoredFile::new(FileKind::Pack, index.packs()[pack]);
    let pack = fixture.directory.path().join("repository").join(pack.path());
    let mut stored = fs::read(&pack).unwrap();
    stored[blob.offset as usize + 5000] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, stored).unwrap();

    let place = fixture.place();
    let _mounted = fixture.mounted(&place);
    let below = fixture.below("backups/latest");
    let file = File::open(below.join("large")).unwrap();
    let (mut good, mut bad, mut page) = (0, 0, [0; 4096]);
    for (expected, number) in bytes.chunks(4096).zip(0..) {
        match file.read_at(&mut page, number * 4096) {
            Ok(length) => {
                assert!(page[..length] == *expected);
                good += length as u64;
            }
            failed => {
                assert_eq!(errno(failed), Some(Errno::IO));
                bad += expected.len() as u64;
            }
        }
    }
    assert_eq!(good + bad, bytes.len() as u64);
    let damaged = blob.plain_length();
    assert!((damaged..damaged + 2 * 4096).contains(&bad), "{bad} bytes cannot be read, {damaged} are damaged");
    assert_eq!(fs::read_to_string(below.join("other")).unwrap(), "all well");
    let path = fixture.source().strip_prefix("/").unwrap().join("large");
    let expected = format!("backups/2026-01-02T03:04:05Z/{}: data blob {}", path.display(), blob.id.short());
    let told = fixture.told();
    assert!(told[0].starts_with(&expected), "{told:?} is not {expected}");
}

#[test]
fn new_backups_appear_and_forgotten_ones_go() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    fs::write(fixture.source().join("file"), "first").unwrap();
    let first = fixture.back_up("2026-01-02T03:04:05Z");
    let place = fixture.place();
    let _mounted = fixture.mounted(&place);
    let latest = fixture.below("backups/latest").join("file");
    assert_eq!(fs::read_to_string(&latest).unwrap(), "first");
    fs::write(fixture.source().join("file"), noise(500)).unwrap();
    fixture.back_up("2026-01-03T03:04:05Z");
    wait_until("the second backup is the latest", || fs::read(&latest).unwrap() == noise(500));
    assert_eq!(fs::read_to_string(fixture.below("backups/2026-01-02T03:04:05Z").join("file")).unwrap(), "first");
    fixture.repository.storage().remove(&StoredFile::new(FileKind::Backup, first)).unwrap();
    wait_until("the first is gone", || names(&place.join("backups")) == ["2026-01-03T03:04:05Z", "latest"]);
    wait_until("its entry too", || !place.join("backups/2026-01-02T03:04:05Z").exists());
    assert_eq!(fixture.told(), [""; 0]);
}

#[test]
fn hostile_trees_show_only_what_can_be_shown() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    let index = Arc::new(fixture.repository.load_index().unwrap());
    let writer = BlobWriter::new(&fixture.repository, &index, fixture.destination());
    let mut saver = writer.saver();
    let data = saver.save(BlobKind::Data, b"four").unwrap().id;
    let missing = Id([1; 32]);
    let long = "x".repeat(2000);
    let tree = format!(
        r#"{{"nodes":[
        {{"name":".","type":"dir","mode":2147484141}},
        {{"name":"..","type":"dir","mode":2147484141}},
        {{"name":"../../etc/passwd","type":"file","content":["{data}"]}},
        {{"name":"/etc","type":"dir"}},
        {{"name":"a\u0000b","type":"file","content":["{data}"]}},
        {{"name":"directory","type":"dir","mode":2147484141}},
        {{"name":"door","type":"door"}},
        {{"name":"good","type":"file","mode":420,"size":99,"links":18446744073709551615,"content":["{data}"]}},
        {{"name":"hole","type":"file","mode":420,"size":18446744073709551615,"content":["{data}","{missing}","{data}"]}},
        {{"name":"lost","type":"dir","mode":2147484141,"subtree":"{missing}"}},
        {{"name":"old","type":"file","mode":420,"mtime":"0000-01-01T00:00:00Z","atime":"9999-12-31T23:59:59Z"}},
        {{"name":"{long}","type":"file"}}]}}"#
    );
    let tree = saver.save(BlobKind::Tree, tree.as_bytes()).unwrap().id;
    let no_tree = saver.save(BlobKind::Tree, b"{\"nodes\":[{\"name\":7}]}").unwrap().id;
    drop(saver);
    writer.finish().unwrap();
    fixture.record("2026-01-02T03:04:05Z", tree);
    fixture.record("2026-01-03T03:04:05Z", no_tree);
    fixture.record("2026-01-04T03:04:05Z", missing);

    let place = fixture.place();
    let _mounted = fixture.mounted(&place);
    let root = place.join("backups/2026-01-02T03:04:05Z");
    assert_eq!(names(&root), ["directory", "good", "hole", "lost", "old"]);
    assert_eq!(fs::read_to_string(root.join("good")).unwrap(), "four");
    let hole = File::open(root.join("hole")).unwrap();
    assert_eq!(errno(hole.read_at(&mut [0; 4], 1 << 20)), Some(Errno::IO));
    assert_eq!(root.join("old").metadata().unwrap().mtime(), -62_167_219_200);
    for name in ["directory", "lost", "../2026-01-03T03:04:05Z", "../2026-01-04T03:04:05Z"] {
        assert_eq!(errno(fs::read_dir(root.join(name))), Some(Errno::IO), "{name}");
    }
    assert_eq!(fs::read_to_string(root.join("good")).unwrap(), "four");
}

#[test]
fn a_mount_can_be_ended_while_it_is_used() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    fs::write(fixture.source().join("file"), "text").unwrap();
    fixture.back_up("2026-01-02T03:04:05Z");
    let place = fixture.place();
    let mut mounted = fixture.mounted(&place);
    let open = File::open(fixture.below("backups/latest").join("file")).unwrap();
    let mount = mounted.mount.take().unwrap();
    let unmounter = mount.unmounter();
    let waiting = std::thread::spawn(move || mount.wait());
    unmounter.unmount();
    unmounter.unmount();
    waiting.join().unwrap().unwrap();
    assert_eq!(mounts_on(&place), 0);
    drop(open);
    // And the place can be used again.
    let again = fixture.mount().unwrap();
    assert!(fixture.below("backups/latest").join("file").exists());
    again.unmount().unwrap();
    assert_eq!(mounts_on(&place), 0);
}

#[test]
fn unmounting_from_outside_ends_the_wait_and_leaves_what_is_mounted_below() {
    if !root_is_there() {
        return;
    }
    let fixture = Fixture::new();
    fixture.back_up("2026-01-02T03:04:05Z");
    let place = fixture.place();
    let _below = Mounted { mount: None, directory: &place };
    rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
    let mut mounted = fixture.mounted(&place);
    assert_eq!(mounts_on(&place), 2);
    let mount = mounted.mount.take().unwrap();
    let waiting = std::thread::spawn(move || mount.wait());
    unmount(&place, UnmountFlags::empty()).unwrap();
    waiting.join().unwrap().unwrap();
    assert_eq!(mounts_on(&place), 1);
}

#[test]
fn a_place_that_cannot_be_mounted_on_is_named() {
    if !fuse_is_there() {
        return;
    }
    let fixture = Fixture::new();
    fs::remove_dir(fixture.place()).unwrap();
    let error = |fixture: &Fixture| fixture.mount().err().map(|error| error.to_string());
    let expected = Some(format!("cannot mount on {}", fixture.place().display()));
    assert_eq!(error(&fixture), expected);
    fs::write(fixture.place(), "a file").unwrap();
    assert_eq!(error(&fixture), expected);
}

#[test]
fn a_mount_whose_process_was_killed_is_told_from_other_trouble() {
    if !root_is_there() {
        return;
    }
    let fixture = Fixture::new();
    let place = fixture.place();
    let _dead = Mounted { mount: None, directory: &place };
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("fuse", &place, "fuse", MountFlags::empty(), Some(&*options)).unwrap();
    drop(device);
    assert!(matches!(fixture.mount().err(), Some(MountError::Dead { path }) if path == place));
}
