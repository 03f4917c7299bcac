//! Takes what is lost out of backups, as restic's `repair snapshots` does: a file loses the blobs that no pack holds,
//! a directory that cannot be read becomes empty. The new record has the tag `repaired` and names the one it replaces.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::blob::BlobKind;
use crate::blob_set::BlobSet;
use crate::blob_writer::{BlobSaver, BlobWriter, Destination};
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::lock::Lock;
use crate::progress::{Phase, Progress, go_on};
use crate::reachable::Place;
use crate::record::BackupRecord;
use crate::removal::forget;
use crate::repository::{BlobReader, Repository};
use crate::storage::StorageError;
use crate::tree::{Node, NodeKind, Tree};

/// restic's tag for what it repaired.
const TAG: &str = "repaired";

/// What will become of the backups.
#[derive(Debug, Default)]
pub struct Plan {
    /// Backups that get a new record.
    pub repairs: Vec<Repair>,
    /// Backups whose root directory is lost: nothing can be restored of them.
    pub lost: Vec<Id>,
    /// Records that cannot be read.
    pub unreadable: Vec<Error>,
}

/// What will become of a backup.
#[derive(Debug)]
pub struct Repair {
    /// Which.
    pub backup: Id,
    /// What it loses. Directories it shares with a backup before it in the plan are told of there.
    pub changes: Vec<(Place, Change)>,
    record: BackupRecord,
}

/// What an entry of a backup loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A directory that cannot be read becomes empty.
    Emptied(String),
    /// A file loses blobs; what follows moves up.
    Shortened {
        /// What it had, in bytes.
        from: u64,
        /// What it has now, in bytes.
        to: u64,
    },
    /// An entry that nothing can be made of is left out.
    Dropped,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Emptied(reason) => write!(f, "becomes an empty directory: {reason}"),
            Change::Shortened { from, to } => write!(f, "shrinks from {from} bytes to {to}"),
            Change::Dropped => f.write_str("is left out"),
        }
    }
}

/// Looks which of the backups (all, if `only` is `None`) lack something.
pub fn plan(repository: &Arc<Repository>, only: Option<&[Id]>, progress: &dyn Progress) -> Result<Plan, Error> {
    let (records, unreadable) = repository.backups()?;
    let chosen = records.into_iter().filter(|(id, _)| only.is_none_or(|only| only.contains(id)));
    let index = Arc::new(repository.load_index()?);
    let writer = BlobWriter::new(repository, &index, Destination::Nowhere);
    let mut plan = Plan { unreadable, ..Plan::default() };
    let mut rewriter = Rewriter::new(repository, &index, writer.saver(), progress);
    for (backup, record) in chosen {
        match rewriter.rewrite(backup, record.tree)? {
            Rewritten::Same => {}
            Rewritten::Lost => plan.lost.push(backup),
            Rewritten::New(_) => {
                let changes = std::mem::take(&mut rewriter.changes);
                plan.repairs.push(Repair { backup, changes, record });
            }
        }
        progress.advance(1, 0);
    }
    Ok(plan)
}

/// Writes the new trees and records. With `forget_old` it removes the old records, and those that are lost. Gives the
/// old ids with the new ones.
pub fn execute(
    repository: &Arc<Repository>,
    lock: &Arc<Lock>,
    plan: &Plan,
    forget_old: bool,
    progress: &dyn Progress,
) -> Result<Vec<(Id, Id)>, Error> {
    let index = Arc::new(repository.load_index()?);
    let writer = BlobWriter::new(repository, &index, Destination::Repository(Arc::clone(lock)));
    let mut rewriter = Rewriter::new(repository, &index, writer.saver(), progress);
    let mut records = Vec::new();
    for Repair { backup, record, .. } in &plan.repairs {
        if let Rewritten::New(tree) = rewriter.rewrite(*backup, record.tree)? {
            let mut record = BackupRecord { tree, original: record.original.or(Some(*backup)), ..record.clone() };
            if !record.tags.iter().any(|tag| tag == TAG) {
                record.tags.push(TAG.to_owned());
            }
            records.push((*backup, record));
        }
        progress.advance(1, 0);
    }
    drop(rewriter);
    writer.finish()?;
    let mut replaced = Vec::new();
    for (backup, record) in records {
        lock.confirm()?;
        replaced.push((backup, repository.save_record(&record)?));
    }
    if forget_old {
        let old: Vec<Id> = replaced.iter().map(|(old, _)| old).chain(&plan.lost).copied().collect();
        forget(repository, lock, &old, progress)?;
    }
    Ok(replaced)
}

#[derive(Clone, Copy)]
enum Rewritten {
    Same,
    New(Id),
    Lost,
}

/// Rewrites trees, each once.
struct Rewriter<'a> {
    index: &'a Index,
    reader: BlobReader<'a>,
    saver: BlobSaver,
    progress: &'a dyn Progress,
    backup: Id,
    /// Trees that need no change, by position in the index.
    same: BlobSet,
    others: HashMap<Id, Rewritten>,
    changes: Vec<(Place, Change)>,
}

/// A directory in work.
struct Directory {
    id: Id,
    /// Entries still to be looked at.
    rest: std::vec::IntoIter<Node>,
    done: Vec<Node>,
    changed: bool,
    /// The subdirectory that is in work above this on the stack.
    waiting: Option<Node>,
}

impl<'a> Rewriter<'a> {
    fn new(repository: &'a Repository, index: &'a Index, saver: BlobSaver, progress: &'a dyn Progress) -> Self {
        progress.begin(Phase::Records, None, None);
        let (reader, same) = (repository.reader(index), BlobSet::new(index));
        let (others, changes) = (HashMap::new(), Vec::new());
        Rewriter { index, reader, saver, progress, backup: Id([0; 32]), same, others, changes }
    }

    /// With a stack of its own: a forged tree may be a million directories deep.
    fn rewrite(&mut self, backup: Id, root: Id) -> Result<Rewritten, Error> {
        self.backup = backup;
        self.changes.clear();
        if let Some(known) = self.known(&root) {
            return Ok(known);
        }
        let mut stack = match self.open(&root)? {
            Ok(directory) => vec![directory],
            Err(_) => return Ok(Rewritten::Lost),
        };
        loop {
            go_on(self.progress)?;
            let Some(top) = stack.last_mut() else { unreachable!("the loop ends with the root") };
            if let Some(node) = top.rest.next() {
                if let Some(subdirectory) = self.entry(&mut stack, node)? {
                    stack.push(subdirectory);
                }
                continue;
            }
            let finished = stack.pop().expect("there is a top");
            let result = self.close(finished)?;
            let Some(parent) = stack.last_mut() else { return Ok(result) };
            let mut node = parent.waiting.take().expect("a subdirectory was begun");
            if let Rewritten::New(tree) = result {
                node.subtree = Some(tree);
                parent.changed = true;
            }
            parent.done.push(node);
        }
    }

    fn known(&self, tree: &Id) -> Option<Rewritten> {
        match self.index.position(BlobKind::Tree, tree) {
            Some(position) if self.same.contains(position) => Some(Rewritten::Same),
            _ => self.others.get(tree).copied(),
        }
    }

    fn open(&mut self, tree: &Id) -> Result<Result<Directory, Error>, Error> {
        match self.reader.load_tree(tree) {
            Ok(Tree { nodes }) => {
                let done = Vec::with_capacity(nodes.len());
                Ok(Ok(Directory { id: *tree, rest: nodes.into_iter(), done, changed: false, waiting: None }))
            }
            // A storage that fails now may work again later.
            Err(error @ Error::Storage(StorageError::Io { .. })) => Err(error),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Looks at an entry of the directory on top. Gives a subdirectory that is to be worked on first.
    fn entry(&mut self, stack: &mut [Directory], mut node: Node) -> Result<Option<Directory>, Error> {
        if !node.has_safe_name() {
            self.note(stack, &node, Change::Dropped);
            top(stack).changed = true;
            return Ok(None);
        }
        match node.kind {
            NodeKind::File => {
                if let Some(change) = self.shorten(&mut node) {
                    self.note(stack, &node, change);
                    top(stack).changed = true;
                }
            }
            NodeKind::Dir => {
                let known = node.subtree.map(|tree| (tree, self.known(&tree)));
                let reason = match known {
                    None => "it has no tree".to_owned(),
                    Some((_, Some(Rewritten::Same))) => {
                        top(stack).done.push(node);
                        return Ok(None);
                    }
                    Some((_, Some(Rewritten::New(tree)))) => {
                        node.subtree = Some(tree);
                        top(stack).changed = true;
                        top(stack).done.push(node);
                        return Ok(None);
                    }
                    Some((_, Some(Rewritten::Lost))) => "it cannot be read".to_owned(),
                    Some((tree, None)) => match self.open(&tree)? {
                        Ok(directory) => {
                            top(stack).waiting = Some(node);
                            return Ok(Some(directory));
                        }
                        Err(error) => {
                            self.others.insert(tree, Rewritten::Lost);
                            error.to_string()
                        }
                    },
                };
                self.note(stack, &node, Change::Emptied(reason));
                node.subtree = Some(self.save(&Tree::default())?);
                top(stack).changed = true;
            }
            _ => {}
        }
        top(stack).done.push(node);
        Ok(None)
    }

    fn shorten(&self, node: &mut Node) -> Option<Change> {
        let mut content = Vec::new();
        let mut size = 0_u64;
        for id in node.content.iter().flatten() {
            if let Some(location) = self.index.get(BlobKind::Data, id) {
                content.push(*id);
                size = size.saturating_add(location.blob.plain_length());
            }
        }
        if node.content.as_ref() == Some(&content) && node.size == size {
            return None;
        }
        let change = Change::Shortened { from: node.size, to: size };
        node.content = Some(content);
        node.size = size;
        Some(change)
    }

    fn close(&mut self, directory: Directory) -> Result<Rewritten, Error> {
        if directory.changed {
            let tree = self.save(&Tree { nodes: directory.done })?;
            self.others.insert(directory.id, Rewritten::New(tree));
            return Ok(Rewritten::New(tree));
        }
        match self.index.position(BlobKind::Tree, &directory.id) {
            Some(position) => _ = self.same.insert(position),
            None => _ = self.others.insert(directory.id, Rewritten::Same),
        }
        Ok(Rewritten::Same)
    }

    fn save(&mut self, tree: &Tree) -> Result<Id, Error> {
        let text = tree.encode().map_err(|error| Error::Refused(format!("a tree cannot be rewritten: {error}")))?;
        Ok(self.saver.save(BlobKind::Tree, &text)?.id)
    }

    fn note(&mut self, stack: &[Directory], node: &Node, change: Change) {
        let mut path = Vec::new();
        for name in stack.iter().filter_map(|directory| directory.waiting.as_ref()).map(|node| &node.name) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path.push(b'/');
        path.extend_from_slice(&node.name);
        self.changes.push((Place { backup: self.backup, path }, change));
    }
}

fn top(stack: &mut [Directory]) -> &mut Directory {
    stack.last_mut().expect("an entry has a directory")
}
