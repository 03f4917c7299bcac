//! Directories of which nothing is missing are stored, and go into those above.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use repository::blob::BlobKind;
use repository::id::Id;
use repository::tree::{Node, TreeEncoder};

use crate::archive::directory::{Complete, Directory};
use crate::archive::worker::Worker;

impl Worker<'_> {
    /// Stores a directory of which nothing is missing, and goes on with those above as far as they are complete.
    pub(super) fn complete(&mut self, directory: &Arc<Directory>, complete: Complete) {
        let mut directory = Arc::clone(directory);
        let mut complete = complete;
        loop {
            let Some(id) = self.store_tree(&directory, complete.entries) else { return };
            if directory.is_root() {
                return self.run.end(id);
            }
            let node = complete.node.map(|node| Node { subtree: Some(id), ..node });
            match directory.rise(node) {
                Some((above, Some(next))) => (directory, complete) = (above, next),
                _ => return,
            }
        }
    }

    fn store_tree(&mut self, directory: &Directory, entries: Vec<Node>) -> Option<Id> {
        let mut tree = TreeEncoder::new();
        for node in &entries {
            if let Err(error) = tree.push(node) {
                let path = directory.path_of(OsStr::from_bytes(&node.name));
                self.run.source_error(&path, &error);
            }
        }
        match self.saver.save(BlobKind::Tree, &tree.finish()) {
            Ok(saved) => {
                self.run.count_directory(directory, saved.id);
                Some(saved.id)
            }
            Err(error) => {
                self.run.fail(error);
                None
            }
        }
    }
}
