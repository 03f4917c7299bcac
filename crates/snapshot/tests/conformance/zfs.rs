//! ZFS: a dataset of a real pool of zfs-fuse, with a child.

#[path = "../zfs/pool.rs"]
mod pool;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::detect;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Provider};
use snapshot::runner::System;

use crate::storage::run;
use crate::suite::{Fixture, conformance};

use pool::{POOL, Pool};

struct Dataset {
    directory: PathBuf,
    other: PathBuf,
    _pool: Pool,
}

fn provider(directory: &Path, dataset: &str) -> Box<dyn Provider> {
    // All that is needed of it in the middle of a switch is the dataset.
    let handle = Handle::Zfs { dataset: format!("{POOL}/{dataset}"), name: String::new(), guid: String::new() };
    detect::reopen(directory, &handle, &mounts().unwrap(), Arc::new(System)).unwrap()
}

impl Fixture for Dataset {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(&self) -> Box<dyn Provider> {
        provider(&self.directory, "shop")
    }

    fn open_other(&self) -> Option<Box<dyn Provider>> {
        Some(provider(&self.other, "other"))
    }

    fn apart(&self) -> Vec<PathBuf> {
        ["nested", "mounted", "nested/mounted"].map(PathBuf::from).to_vec()
    }
}

#[test]
fn a_dataset_keeps_the_promises() {
    let pool = Pool::new();
    let (directory, other) = (pool.dataset("shop"), pool.dataset("other"));
    pool.dataset("shop/nested");
    let shop = Dataset { directory, other, _pool: pool };
    for name in ["mounted", "nested/mounted"] {
        let point = shop.directory.join(name);
        std::fs::create_dir(&point).unwrap();
        run("mount", ["-t", "tmpfs", "none", point.to_str().unwrap()]);
    }
    for path in shop.apart() {
        std::fs::write(shop.directory.join(&path).join("stays"), path.to_str().unwrap()).unwrap();
    }
    conformance(&shop);
}
