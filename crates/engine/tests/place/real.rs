//! Real file systems on loop devices, which lie on whatever disk this machine has.

#[path = "../../../snapshot/tests/disk/mod.rs"]
mod disk;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use disk::run;
use engine::place::{Nearness, Place, System};

fn place(path: &Path) -> Place {
    let system = System::open(Path::new("/"), Arc::new(snapshot::runner::System)).unwrap();
    Place::of_path(path, &system)
}

/// A directory on a disk, unlike `/tmp` and `/dev/shm`, which may be memory.
fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// File systems below a directory, unmounted when dropped.
struct Mounts(tempfile::TempDir);

impl Mounts {
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    /// An image with a file system, mounted beside it, or in another one that is mounted here.
    fn image(&self, name: &str, kind: &str) {
        let (image, point) = (self.path(&format!("{name}.image")), self.path(name));
        File::create(&image).unwrap().set_len(128 << 20).unwrap();
        std::fs::create_dir(&point).unwrap();
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point));
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.0.path()).into_iter().flatten().flatten() {
            let _ = Command::new("umount").args(["-q", "-l", "-R"]).arg(entry.path()).status();
        }
    }
}

#[test]
fn a_file_system_in_a_file_in_a_file_lies_on_the_disk_of_the_outermost() {
    let mounts = Mounts(on_disk());
    mounts.image("outer", "btrfs");
    mounts.image("outer/inner", "ext4");
    let (below, outer, inner) =
        (place(mounts.0.path()), place(&mounts.path("outer")), place(&mounts.path("outer/inner")));
    assert!(!below.disks.is_empty(), "{below:?}");
    assert_eq!((&outer.disks, &inner.disks), (&below.disks, &below.disks));
    assert!(inner.doubts == below.doubts && inner.through.len() > outer.through.len(), "{inner:?}");
    assert_eq!(outer.relation_to(&inner).nearness, Nearness::SameDisk);
    assert_eq!(below.relation_to(&inner).nearness, Nearness::SameDisk);
    assert_eq!(
        inner.relation_to(&place(&mounts.path("outer/inner/new/repository"))).nearness,
        Nearness::SameFilesystem
    );
    // Mounted a second time elsewhere it is still the same.
    std::fs::create_dir(mounts.path("bound")).unwrap();
    run(Command::new("mount").arg("--bind").arg(mounts.path("outer")).arg(mounts.path("bound")));
    assert_eq!(outer.relation_to(&place(&mounts.path("bound"))).nearness, Nearness::SameFilesystem);
}

#[test]
fn a_btrfs_lies_on_all_its_devices_and_its_subvolumes_are_one_file_system() {
    let mounts = Mounts(on_disk());
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let images = [mounts.path("one.image"), memory.path().join("two.image")];
    let devices = images.each_ref().map(|image| {
        File::create(image).unwrap().set_len(256 << 20).unwrap();
        Loop(run(Command::new("losetup").args(["--find", "--show"]).arg(image)).trim().to_owned())
    });
    run(Command::new("mkfs.btrfs")
        .args(["-q", "-d", "raid1", "-m", "raid1"])
        .args(devices.each_ref().map(|one| &one.0)));
    let point = mounts.path("pair");
    std::fs::create_dir(&point).unwrap();
    run(Command::new("mount").arg(&devices[0].0).arg(&point));
    run(Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(point.join("shop")));
    let pair = place(&point);
    assert_eq!(pair.disks, place(mounts.0.path()).disks);
    assert!(pair.is_in_memory, "the second device is a file in memory: {pair:?}");
    assert_eq!(pair.relation_to(&place(&point.join("shop"))).nearness, Nearness::SameFilesystem);
    run(Command::new("umount").arg(&point));
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn memory_is_told_from_disks() {
    let shared = place(Path::new("/dev/shm/repository"));
    assert!(shared.is_in_memory && shared.disks.is_empty() && shared.doubts.is_empty(), "{shared:?}");
}
