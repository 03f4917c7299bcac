//! LVM thin: XFS on a thin volume, in a guest with a real device mapper, where this test is run again.

#[path = "../lvm/host.rs"]
mod host;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::detect;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Kind, Provider};
use snapshot::runner::System;

use crate::storage::run;
use crate::suite::{Fixture, conformance};

struct Volume {
    directory: PathBuf,
    other: PathBuf,
}

fn volume(name: &str) -> PathBuf {
    let device = format!("/dev/group/{name}");
    run("lvcreate", ["--quiet", "--virtualsize", "320M", "--thinpool", "group/pool", "--name", name]);
    run("mkfs.xfs", ["-q", &device]);
    let directory = Path::new("/mnt").join(name);
    std::fs::create_dir(&directory).unwrap();
    run("mount", [&device, directory.to_str().unwrap()]);
    directory
}

fn provider(directory: &Path) -> Box<dyn Provider> {
    detect::provider(directory, &mounts().unwrap(), Arc::new(System)).unwrap()
}

impl Fixture for Volume {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(&self) -> Box<dyn Provider> {
        // In the middle of a switch it is found by one of its snapshots, as by those that records name.
        let fields = ["--noheadings", "--options", "lv_name,lv_uuid", "--select", "lv_tags=snapback:of=shop", "group"];
        let snapshots = run("lvs", fields);
        let Some((volume, uuid)) = snapshots.lines().next().and_then(|line| line.trim().split_once(' ')) else {
            return provider(&self.directory);
        };
        let (group, volume, uuid) = ("group".to_owned(), volume.to_owned(), uuid.trim().to_owned());
        let handle = Handle::LvmThin { group, volume, uuid };
        detect::reopen(&self.directory, &handle, &mounts().unwrap(), Arc::new(System)).unwrap()
    }

    fn open_other(&self) -> Option<Box<dyn Provider>> {
        Some(provider(&self.other))
    }

    fn apart(&self) -> Vec<PathBuf> {
        ["mounted", "data of others/mounted"].map(PathBuf::from).to_vec()
    }
}

#[test]
fn a_thin_volume_keeps_the_promises_in_a_guest() {
    if !host::is_in_guest() {
        let output = host::run_in_guest("lvm::a_thin_volume_keeps_the_promises_in_a_guest");
        assert!(output.contains("\nthe promises are kept\n") && output.contains("\nRC=0"), "{output}");
        return;
    }
    run("pvcreate", ["--quiet", "/dev/ubda"]);
    run("vgcreate", ["--quiet", "group", "/dev/ubda"]);
    run("lvcreate", ["--quiet", "--size", "800M", "--thinpool", "group/pool"]);
    let (directory, other) = (volume("shop"), volume("other"));
    assert_eq!(provider(&directory).kind(), Kind::LvmThin);
    let shop = Volume { directory, other };
    for path in shop.apart() {
        let point = shop.directory.join(&path);
        std::fs::create_dir_all(&point).unwrap();
        run("mount", ["-t", "tmpfs", "none", point.to_str().unwrap()]);
        std::fs::write(point.join("stays"), path.to_str().unwrap()).unwrap();
    }
    conformance(&shop);
    host::report("\nthe promises are kept\n");
}
