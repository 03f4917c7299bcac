//! btrfs on a loop device: a subvolume as a directory in the mounted top level, and as a mount of its own.

mod changes;
mod killed;
mod rollback;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use snapshot::btrfs::{self, Place};
use snapshot::id::Id;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Provider};

use crate::storage::{Image, run};
use crate::suite::{Fixture, conformance};

struct Subvolume {
    image: Image,
    directory: PathBuf,
    other: PathBuf,
    apart: Vec<PathBuf>,
}

impl Subvolume {
    /// A subvolume at the top level, which is mounted: the directory is not a mount point.
    fn in_the_mounted_top_level() -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        let top = image.mount("top", "noatime");
        make_subvolume(&top.join("shop"));
        make_subvolume(&top.join("other"));
        Subvolume { image, directory: top.join("shop"), other: top.join("other"), apart: Vec::new() }
    }

    /// A subvolume in one that is mounted, as in a root file system: neither it nor its snapshots can be reached by any
    /// path from the top level.
    fn in_another_subvolume() -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        let top = image.mount("top", "");
        make_subvolume(&top.join("@"));
        rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
        let root = image.mount("root", "subvol=@");
        std::fs::create_dir_all(root.join("srv/www")).unwrap();
        let (directory, other) = (root.join("srv/www/shop"), root.join("srv/other"));
        make_subvolume(&directory);
        make_subvolume(&other);
        Subvolume { image, directory, other, apart: Vec::new() }
    }

    /// A subvolume that is mounted, also a second time, and a directory of it at a third place; of a parent that is not
    /// mounted.
    fn of_its_own_mount(propagation: &str) -> Subvolume {
        let image = Image::new("2G", &["mkfs.btrfs", "-q"]);
        // As systemd has it, mounts are shared with other namespaces; in a container they are not.
        let root = image.root();
        run("mount", ["-t", "tmpfs", "none", &root.to_string_lossy()]);
        run("mount", [propagation, &root.to_string_lossy()]);
        let top = image.mount("top", "");
        std::fs::create_dir(top.join("in")).unwrap();
        make_subvolume(&top.join("in/@shop"));
        make_subvolume(&top.join("@other"));
        rustix::mount::unmount(&top, rustix::mount::UnmountFlags::empty()).unwrap();
        let directory = image.mount("shop", "subvol=in/@shop,noatime,nosuid");
        image.mount("shop again", "subvol=in/@shop,ro");
        std::fs::create_dir(directory.join("bound")).unwrap();
        for (from, to) in [(directory.clone(), "shop bound"), (directory.join("bound"), "directory bound")] {
            run("mount", [OsStr::new("--bind"), from.as_ref(), image.place(to).as_ref()]);
        }
        let other = image.mount("other", "subvol=@other");
        Subvolume { image, directory, other, apart: Vec::new() }
    }

    /// With nested subvolumes, one of them read-only, and mounts below.
    fn furnished(mut self) -> Subvolume {
        for name in ["data", "data/of others"] {
            std::fs::create_dir(self.directory.join(name)).unwrap();
        }
        for name in ["nested", "data/of others/nested too"] {
            make_subvolume(&self.directory.join(name));
            self.apart.push(name.into());
        }
        for name in ["mounted", "data/of others/mounted", "nested/mounted"] {
            let point = self.directory.join(name);
            std::fs::create_dir(&point).unwrap();
            run("mount", ["-t", "tmpfs", "none", &point.to_string_lossy()]);
            self.apart.push(name.into());
        }
        for path in &self.apart {
            std::fs::write(self.directory.join(path).join("stays"), path.to_str().unwrap()).unwrap();
        }
        let read_only = self.directory.join("data/of others/nested too");
        run("btrfs", ["property", "set", &read_only.to_string_lossy(), "ro", "true"]);
        self
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

fn make_subvolume(path: &Path) {
    run("btrfs", ["-q", "subvolume", "create", &path.to_string_lossy()]);
}

#[test]
fn a_subvolume_in_the_mounted_top_level_keeps_the_promises() {
    conformance(&Subvolume::in_the_mounted_top_level());
}

#[test]
fn a_subvolume_in_the_mounted_top_level_with_others_in_it_keeps_the_promises() {
    conformance(&Subvolume::in_the_mounted_top_level().furnished());
}

#[test]
fn a_subvolume_that_is_mounted_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-private"));
}

#[test]
fn a_subvolume_that_is_mounted_with_others_in_it_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-private").furnished());
}

#[test]
fn a_subvolume_whose_mounts_are_shared_keeps_the_promises() {
    conformance(&Subvolume::of_its_own_mount("--make-shared").furnished());
}

fn roll_back(provider: &dyn Provider, to: &Handle) -> Handle {
    let old = Id::random();
    provider.plan_switch(to, old).unwrap().iter().for_each(|step| provider.perform(step).unwrap());
    let kept = provider.list().unwrap().into_iter().find(|(id, _)| *id == old);
    kept.expect("the old tree is kept").1
}

#[test]
fn a_subvolume_in_another_one_with_others_in_it_keeps_the_promises() {
    conformance(&Subvolume::in_another_subvolume().furnished());
}
