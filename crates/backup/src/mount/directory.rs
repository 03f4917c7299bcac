//! What a directory shows: of the listing above the backups, or of a tree.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use fuser::FileType;
use repository::id::Id;
use repository::tree::{Node, Tree};

use super::attr;
use super::inodes::{Key, Place, Subdirectory, What};
use super::listing::{Directory, Entry};

/// A directory that somebody lists. Holds what it was when it was opened, so that nothing is left out or told twice.
pub(super) struct OpenDirectory {
    pub(super) number: u64,
    /// The directory above it.
    pub(super) above: u64,
    pub(super) entries: Entries,
}

/// Where its entries stand.
pub(super) enum Entries {
    Listed(Arc<Directory>),
    Tree { id: Id, tree: Arc<Tree>, root: u64 },
}

/// An entry of a directory.
pub(super) struct Child {
    pub(super) name: OsString,
    pub(super) key: Key,
    pub(super) what: What,
    pub(super) kind: FileType,
}

impl Child {
    /// The node at a place of a tree; `None` for one that is not shown.
    pub(super) fn of_tree(directory: u64, root: u64, tree: Id, nodes: &[Node], at: usize) -> Option<Child> {
        let node = nodes.get(at)?;
        let kind = attr::shown(node)?;
        let place = Place { tree, at: u32::try_from(at).ok()? };
        let what = match kind {
            FileType::Directory => What::Directory(Box::new(Subdirectory { place, subtree: node.subtree, root })),
            _ => What::Leaf(place),
        };
        let name = OsString::from_vec(node.name.to_vec());
        Some(Child { name, key: Key::of_node(directory, root, node), what, kind })
    }

    /// An entry above the backups.
    pub(super) fn of_listing(directory: u64, name: &[u8], entry: &Entry) -> Child {
        let (also, what, kind): (&[u8], _, _) = match entry {
            Entry::Directory(path) => (&[], What::Listed(Arc::clone(path)), FileType::Directory),
            Entry::Backup(backup) => (&backup.id.0, What::Backup(Arc::clone(backup)), FileType::Directory),
            Entry::Link(link) => (&link.target, What::Link(Arc::clone(link)), FileType::Symlink),
        };
        let key = Key::of_name(directory, name, also);
        Child { name: OsString::from_vec(name.to_vec()), key, what, kind }
    }
}

impl OpenDirectory {
    /// The entry at a place; `None` for one that is not shown.
    fn child(&self, at: usize) -> Option<Child> {
        match &self.entries {
            Entries::Listed(directory) => {
                let (name, entry) = directory.entries.get(at)?;
                Some(Child::of_listing(self.number, name, entry))
            }
            Entries::Tree { id, tree, root } => Child::of_tree(self.number, *root, *id, &tree.nodes, at),
        }
    }

    fn len(&self) -> usize {
        match &self.entries {
            Entries::Listed(directory) => directory.entries.len(),
            Entries::Tree { tree, .. } => tree.nodes.len(),
        }
    }

    /// The shown entries from an offset on, each with the offset behind it. Offsets 0 and 1 are `.` and `..`.
    pub(super) fn children(&self, offset: u64) -> impl Iterator<Item = (u64, Child)> {
        let first = usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX);
        (first..self.len()).filter_map(|at| Some((at as u64 + 3, self.child(at)?)))
    }

    /// `.` and `..` from an offset on, each with the offset behind it.
    pub(super) fn dots(&self, offset: u64) -> impl Iterator<Item = (u64, u64, &'static str)> {
        let dots = [(1, self.number, "."), (2, self.above, "..")];
        dots.into_iter().skip(usize::try_from(offset).unwrap_or(2))
    }
}
