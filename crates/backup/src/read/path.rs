//! From a path to what a backup has there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use repository::id::Id;
use repository::tree::{Node, NodeKind};
use repository::{BlobReader, Error};

/// What a backup has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// `/`, which has no entry anywhere: its tree.
    Root(Id),
    /// An entry.
    Entry(Box<Node>),
}

impl Found {
    /// The tree, if it is a directory.
    pub fn tree(&self) -> Option<Id> {
        match self {
            Found::Root(tree) => Some(*tree),
            Found::Entry(node) if node.kind == NodeKind::Dir => node.subtree,
            Found::Entry(_) => None,
        }
    }
}

/// Why there is nothing at a path.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// There is no entry of that name.
    #[error("{} is not in the backup", path.display())]
    NotFound {
        /// The part of the path that is not there.
        path: PathBuf,
        /// What the directory above it has instead.
        siblings: Vec<Box<[u8]>>,
    },
    /// Something above is no directory.
    #[error("{} is a {kind} in the backup, not a directory", path.display())]
    NoDirectory {
        /// The part of the path.
        path: PathBuf,
        /// What it is.
        kind: NodeKind,
    },
    /// A directory cannot be read.
    #[error(transparent)]
    Repository(#[from] Error),
}

/// Looks a path up; links are not followed. A path that is not absolute is taken from the root.
pub fn find_path(reader: &mut BlobReader<'_>, root: Id, path: &Path) -> Result<Found, PathError> {
    let mut found = Found::Root(root);
    let mut at = PathBuf::from("/");
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::ParentDir => OsStr::new(".."),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
        };
        let Some(tree) = found.tree() else {
            let kind = match found {
                Found::Entry(node) => node.kind,
                Found::Root(_) => NodeKind::Dir,
            };
            return Err(PathError::NoDirectory { path: at, kind });
        };
        let nodes = reader.load_tree(&tree)?.nodes;
        at.push(name);
        match nodes.binary_search_by(|node| (*node.name).cmp(name.as_bytes())) {
            // No honest tree has an entry `..`.
            Ok(position) if nodes[position].has_safe_name() => {
                let node = nodes.into_iter().nth(position);
                found = Found::Entry(Box::new(node.expect("it was found there")));
            }
            _ => {
                let siblings = nodes.into_iter().map(|node| node.name).collect();
                return Err(PathError::NotFound { path: at, siblings });
            }
        }
    }
    Ok(found)
}
