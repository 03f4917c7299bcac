//! btrfs on a loop device: a subvolume as a directory in the mounted top level, and as a mount of its own.

use std::path::{Path, PathBuf};

use snapshot::btrfs::{self, Place};
use snapshot::mounts::mounts;
use snapshot::provider::Provider;

use crate::storage::{Image, run};
use crate::suite::{Fixture, conformance};

struct Subvolume {
    _image: Image,
    directory: PathBuf,
    other: PathBuf,
    apart: Vec<PathBuf>,
}

impl Subvolume {
    /// A subvolume `@shop` at the top level, which is mounted: the directory is not a mount point.
    fn in_the_mounted_top_level() -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        let top = image.mount("top", "noatime");
        run("btrfs", ["-q", "subvolume", "create", &top.join("@shop").to_string_lossy()]);
        let directory = top.join("@shop");
        Subvolume::furnish(image, directory, top.join("@other"))
    }

    fn furnish(image: Image, directory: PathBuf, other: PathBuf) -> Subvolume {
        run("btrfs", ["-q", "subvolume", "create", &other.to_string_lossy()]);
        Subvolume { _image: image, directory, other, apart: Vec::new() }
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

#[test]
fn a_subvolume_in_the_mounted_top_level_keeps_the_promises() {
    conformance(&Subvolume::in_the_mounted_top_level());
}
