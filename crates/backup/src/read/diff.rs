//! What differs between two trees. Subtrees with the same id are the same and are not looked into.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use repository::id::Id;
use repository::tree::{Node, NodeKind};
use repository::{BlobReader, Error};

use crate::progress::Progress;

/// What happened to an entry from the first tree to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second has it.
    Added,
    /// Only the first has it.
    Removed,
    /// A file's content is another.
    Content,
    /// A file became a directory, a link a file, and the like.
    Kind,
    /// Owner, mode, times, attributes, or where a link points.
    Metadata,
}

/// One entry that differs.
#[derive(Debug)]
pub struct Difference<'a> {
    /// Where.
    pub path: &'a Path,
    /// How.
    pub change: Change,
    /// In the first tree.
    pub before: Option<&'a Node>,
    /// In the second tree.
    pub after: Option<&'a Node>,
}

/// A directory of both, to be compared: the entries still to come.
struct Level {
    before: std::iter::Peekable<std::vec::IntoIter<Node>>,
    after: std::iter::Peekable<std::vec::IntoIter<Node>>,
}

/// Tells all differences, in the order of the names; `path` is where both trees lie.
pub fn diff<E: From<Error>>(
    reader: &mut BlobReader<'_>,
    before: Id,
    after: Id,
    path: &Path,
    progress: &dyn Progress,
    tell: &mut dyn FnMut(Difference<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if before == after {
        return Ok(());
    }
    let mut path = path.to_owned();
    let mut levels = vec![Level { before: load(reader, before)?, after: load(reader, after)? }];
    while let Some(level) = levels.last_mut() {
        if progress.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let order = match (level.before.peek(), level.after.peek()) {
            (None, None) => {
                levels.pop();
                path.pop();
                continue;
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(before), Some(after)) => before.name.cmp(&after.name),
        };
        let old = if order == Ordering::Greater { None } else { level.before.next() };
        let new = if order == Ordering::Less { None } else { level.after.next() };
        let Some(name) = old.as_ref().or(new.as_ref()) else { continue };
        path.push(OsStr::from_bytes(&name.name));
        if let Some(change) = change(old.as_ref(), new.as_ref()) {
            tell(Difference { path: &path, change, before: old.as_ref(), after: new.as_ref() })?;
        }
        match below(reader, subtree(old.as_ref()), subtree(new.as_ref())) {
            Ok(Some(level)) => levels.push(level),
            Ok(None) => {
                path.pop();
            }
            Err(error) => {
                progress.error(&path, &error);
                path.pop();
            }
        }
    }
    Ok(())
}

fn load(reader: &mut BlobReader<'_>, tree: Id) -> Result<std::iter::Peekable<std::vec::IntoIter<Node>>, Error> {
    // Unsafe names are compared like others: nothing is made of them here.
    Ok(reader.load_tree(&tree)?.nodes.into_iter().peekable())
}

/// What to look into; a directory that only one has is compared with nothing.
fn below(reader: &mut BlobReader<'_>, before: Option<Id>, after: Option<Id>) -> Result<Option<Level>, Error> {
    if before == after {
        return Ok(None);
    }
    let mut load_some = |tree: Option<Id>| match tree {
        Some(tree) => load(reader, tree),
        None => Ok(Vec::new().into_iter().peekable()),
    };
    Ok(Some(Level { before: load_some(before)?, after: load_some(after)? }))
}

fn subtree(node: Option<&Node>) -> Option<Id> {
    node.filter(|node| node.kind == NodeKind::Dir)?.subtree
}

fn change(before: Option<&Node>, after: Option<&Node>) -> Option<Change> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (Some(_), None) => return Some(Change::Removed),
        (None, Some(_)) => return Some(Change::Added),
        (None, None) => return None,
    };
    if before.kind != after.kind {
        return Some(Change::Kind);
    }
    if before.kind == NodeKind::File && before.content != after.content {
        return Some(Change::Content);
    }
    (!same_metadata(before, after)).then_some(Change::Metadata)
}

/// Inode, change time and file system's number differ after every copy, and mean nothing to the user.
fn same_metadata(before: &Node, after: &Node) -> bool {
    let own = |node: &Node| (node.mode, node.mtime, node.uid, node.gid, node.device);
    own(before) == own(after)
        && before.link_target == after.link_target
        && before.extended_attributes == after.extended_attributes
        && before.generic_attributes == after.generic_attributes
}
