//! Through all entries below a tree, in the order of a directory listing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::vec::IntoIter;

use repository::id::Id;
use repository::tree::{Node, NodeKind};
use repository::{BlobReader, Error};

use crate::progress::Progress;

/// Whether the walk goes into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Its entries come next.
    Into,
    /// They do not come.
    Over,
}

/// Visits all entries below a tree, directories before their entries. `path` is where the tree lies.
///
/// Directories that cannot be read, and names that no entry may have, are told to `progress`. Memory is bounded by the
/// directories on the way from the root to the present place.
pub fn walk<E: From<Error>>(
    reader: &mut BlobReader<'_>,
    tree: Id,
    path: &Path,
    progress: &dyn Progress,
    visit: &mut dyn FnMut(&mut BlobReader<'_>, &Path, &Node) -> Result<Descend, E>,
) -> Result<(), E> {
    let mut path = path.to_owned();
    let mut levels: Vec<IntoIter<Node>> = vec![reader.load_tree(&tree)?.nodes.into_iter()];
    while let Some(level) = levels.last_mut() {
        let Some(node) = level.next() else {
            levels.pop();
            path.pop();
            continue;
        };
        if progress.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        if !node.has_safe_name() {
            progress
                .error(&path, &format_args!("an entry has the impossible name {:?}", OsStr::from_bytes(&node.name)));
            continue;
        }
        path.push(OsStr::from_bytes(&node.name));
        let descend = visit(reader, &path, &node)?;
        let subtree = node.subtree.filter(|_| node.kind == NodeKind::Dir && descend == Descend::Into);
        match subtree.map(|tree| reader.load_tree(&tree)) {
            Some(Ok(tree)) => levels.push(tree.nodes.into_iter()),
            Some(Err(error)) => {
                progress.error(&path, &error);
                path.pop();
            }
            None => {
                path.pop();
            }
        }
    }
    Ok(())
}
