//! How much there is in a backup of which most is taken over unseen: what the parent has, without what it has where the
//! run looked, and with what was found there.

use std::sync::atomic::{AtomicU64, Ordering};

use repository::BlobReader;
use repository::id::Id;
use repository::tree::{Node, NodeKind};

use crate::archive::changed::Base;

/// What the parent has where the run looked.
#[derive(Debug, Default)]
pub(super) struct Seen {
    files: AtomicU64,
    bytes: AtomicU64,
    directories: AtomicU64,
}

/// Files, their bytes, directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) directories: u64,
}

impl Seen {
    /// An entry of the parent that was looked at; a directory's own entries are counted where that one is looked at.
    pub(super) fn entry(&self, node: &Node) {
        match node.kind {
            NodeKind::File => {
                self.files.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(node.size, Ordering::Relaxed);
            }
            NodeKind::Dir => drop(self.directories.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// All that the parent has in a directory that is gone; its own entry is counted already. A tree that cannot be loaded
    /// makes the totals too large, and nothing else.
    pub(super) fn below(&self, subtree: Id, reader: &mut BlobReader<'_>) {
        let mut trees = vec![subtree];
        while let Some(id) = trees.pop() {
            let Ok(tree) = reader.load_tree(&id) else { continue };
            for node in &tree.nodes {
                self.entry(node);
                trees.extend(node.subtree);
            }
        }
    }

    /// Of the whole backup; `found` is what the run counted.
    pub(super) fn totals(&self, base: &Base, found: Totals) -> Totals {
        let sum = |base: u64, seen: &AtomicU64, found: u64| (base + found).saturating_sub(seen.load(Ordering::Relaxed));
        Totals {
            files: sum(base.files, &self.files, found.files),
            bytes: sum(base.bytes, &self.bytes, found.bytes),
            directories: sum(base.directories, &self.directories, found.directories),
        }
    }
}
