//! File systems that share extents: a directory of theirs, and their root, where the store lies inside.

use std::path::{Path, PathBuf};

use snapshot::provider::Provider;
use snapshot::reflink::provider::Reflink;

use crate::storage::{Image, run};
use crate::suite::{Fixture, conformance};

struct Shared {
    _image: Image,
    directory: PathBuf,
    other: Option<PathBuf>,
    apart: Vec<PathBuf>,
}

impl Shared {
    fn directory(mkfs: &[&str]) -> Shared {
        let image = Image::new("1G", mkfs);
        let top = image.mount("top", "noatime");
        for name in ["shop", "other"] {
            std::fs::create_dir(top.join(name)).unwrap();
        }
        Shared { directory: top.join("shop"), other: Some(top.join("other")), _image: image, apart: Vec::new() }
    }

    fn root(mkfs: &[&str]) -> Shared {
        let image = Image::new("1G", mkfs);
        let directory = image.mount("top", "");
        // The store stays in place like a mount.
        let store = directory.join(".snapback");
        run("install", ["--directory", "--mode=700", &store.to_string_lossy()]);
        std::fs::write(store.join("stays"), ".snapback").unwrap();
        Shared { directory, other: None, _image: image, apart: vec![".snapback".into()] }
    }

    fn with_mounts(mut self) -> Shared {
        for name in ["data", "data/mounted"] {
            std::fs::create_dir(self.directory.join(name)).unwrap();
        }
        let point = self.directory.join("data/mounted");
        run("mount", ["-t", "tmpfs", "none", &point.to_string_lossy()]);
        std::fs::write(point.join("stays"), "data/mounted").unwrap();
        self.apart.push("data/mounted".into());
        self
    }
}

impl Fixture for Shared {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(&self) -> Box<dyn Provider> {
        Box::new(Reflink::open(&self.directory).unwrap())
    }

    fn open_other(&self) -> Option<Box<dyn Provider>> {
        self.other.as_ref().map(|other| Box::new(Reflink::open(other).unwrap()) as Box<dyn Provider>)
    }

    fn apart(&self) -> Vec<PathBuf> {
        self.apart.clone()
    }
}

const XFS: &[&str] = &["mkfs.xfs", "-q"];
const BTRFS: &[&str] = &["mkfs.btrfs", "-q"];

#[test]
fn a_directory_on_xfs_keeps_the_promises() {
    conformance(&Shared::directory(XFS));
}

#[test]
fn a_directory_on_xfs_with_a_mount_in_it_keeps_the_promises() {
    conformance(&Shared::directory(XFS).with_mounts());
}

#[test]
fn the_root_of_an_xfs_keeps_the_promises() {
    conformance(&Shared::root(XFS));
}

#[test]
fn a_directory_on_btrfs_keeps_the_promises() {
    conformance(&Shared::directory(BTRFS));
}
