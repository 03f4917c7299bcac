//! ZFS: a dataset of a real pool of zfs-fuse, with a child.

#[path = "../zfs/pool.rs"]
mod pool;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::detect;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Provider};
use snapshot::runner::System;

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
        vec![PathBuf::from("nested")]
    }
}

#[test]
fn a_dataset_keeps_the_promises() {
    let pool = Pool::new();
    let (directory, other) = (pool.dataset("shop"), pool.dataset("other"));
    let nested = pool.dataset("shop/nested");
    std::fs::write(nested.join("stays"), "nested").unwrap();
    conformance(&Dataset { directory, other, _pool: pool });
}
