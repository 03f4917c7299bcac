//! Walks the trees of backups, each once, on all cores, and marks every blob they use.
//!
//! Memory: one bit a blob, what is still to be visited, and the ids of trees that no index knows. A tree cannot
//! contain itself, because it would have to contain its own hash; so the walk always ends.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::blob::BlobKind;
use crate::blob_set::BlobSet;
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::repository::{BlobReader, Repository};
use crate::tree::{Node, NodeKind, Tree};

/// A path in a backup. A tree that many backups share is visited once, and named by the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The backup.
    pub backup: Id,
    /// Raw bytes, beginning with `/`.
    pub path: Vec<u8>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.backup.short(), printable(&self.path))
    }
}

/// A path for messages: a forged name must not steer a terminal.
fn printable(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// What is wrong in a tree.
#[derive(Debug)]
pub enum Flaw {
    /// A directory whose tree cannot be had.
    Tree(Error),
    /// A name that no file can have, such as `..`.
    Name,
    /// A directory without a tree.
    NoSubtree,
    /// A regular file without a list of blobs.
    NoContent,
    /// A regular file with blobs that no index names.
    MissingBlobs(Vec<Id>),
    /// A regular file whose blobs have other bytes in sum than it should.
    Size {
        /// What the tree says.
        recorded: u64,
        /// What its blobs have.
        actual: u64,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Tree(error) => write!(f, "the directory cannot be read: {error}"),
            Flaw::Name => f.write_str("no file can have this name"),
            Flaw::NoSubtree => f.write_str("the directory has no tree"),
            Flaw::NoContent => f.write_str("the file has no list of blobs"),
            Flaw::MissingBlobs(ids) => {
                let first = ids.first().map(Id::short).unwrap_or_default();
                write!(f, "{} of the file's blobs are in no pack, the first is {first}", ids.len())
            }
            Flaw::Size { recorded, actual } => {
                write!(f, "the file should have {recorded} bytes, its blobs have {actual}")
            }
        }
    }
}

/// Sees what a walk meets.
pub trait Visitor: Sync {
    /// An entry of a tree, before it is judged.
    fn node(&self, _at: &At<'_>, _node: &Node) {}

    /// Something is wrong. An error ends the walk.
    fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error>;
}

/// Where the walk is; the path is only put together if somebody asks.
pub struct At<'a> {
    backup: Id,
    directory: Option<&'a Arc<Directory>>,
    name: Option<&'a [u8]>,
}

impl At<'_> {
    /// Puts the path together.
    pub fn place(&self) -> Place {
        let mut names: Vec<&[u8]> = self.name.into_iter().collect();
        let mut directory = self.directory;
        while let Some(inner) = directory {
            names.push(&inner.name);
            directory = inner.above.as_ref();
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Place { backup: self.backup, path }
    }
}

/// A directory's name and what it lies in.
struct Directory {
    name: Box<[u8]>,
    above: Option<Arc<Directory>>,
}

/// One after the other instead of recursively: a forged tree may be a million directories deep.
impl Drop for Directory {
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut directory) = above.and_then(Arc::into_inner) {
            above = directory.above.take();
        }
    }
}

struct Task {
    backup: Id,
    tree: Id,
    directory: Option<Arc<Directory>>,
}

struct Walk<'a> {
    repository: &'a Repository,
    index: &'a Index,
    visitor: &'a dyn Visitor,
    progress: &'a dyn Progress,
    used: BlobSet,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// Last in, first out: depth first keeps it short.
    tasks: Vec<Task>,
    /// Trees no index knows, so that each is reported once.
    unknown: HashSet<Id>,
    /// Workers that may still add tasks.
    busy: usize,
    failure: Option<Error>,
}

/// Visits every tree that the roots (backup, tree) reach. Gives the blobs they use, as far as the index knows them.
pub fn walk(
    repository: &Repository,
    index: &Index,
    roots: &[(Id, Id)],
    visitor: &dyn Visitor,
    progress: &dyn Progress,
) -> Result<BlobSet, Error> {
    progress.begin(Phase::Trees, None, None);
    let queue = Queue { tasks: Vec::new(), unknown: HashSet::new(), busy: 0, failure: None };
    let used = BlobSet::new(index);
    let queue = Mutex::new(queue);
    let walk = Walk { repository, index, visitor, progress, used, queue, changed: Condvar::new() };
    {
        let mut queue = walk.lock();
        for &(backup, tree) in roots.iter().rev() {
            walk.add(&mut queue, Task { backup, tree, directory: None });
        }
    }
    std::thread::scope(|scope| {
        for _ in 1..parallel::cores() {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let queue = walk.queue.into_inner().expect("no panic while the queue is held");
    match queue.failure {
        Some(error) => Err(error),
        None => Ok(walk.used),
    }
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic while the queue is held")
    }

    fn add(&self, queue: &mut Queue, task: Task) {
        let is_new = match self.index.position(BlobKind::Tree, &task.tree) {
            Some(position) => self.used.insert(position),
            None => queue.unknown.insert(task.tree),
        };
        if is_new {
            queue.tasks.push(task);
        }
    }

    fn work(&self) {
        let mut reader = self.repository.reader(self.index);
        let mut plain = Vec::new();
        let mut subtrees = Vec::new();
        let mut queue = self.lock();
        loop {
            if queue.failure.is_some() {
                break;
            }
            let Some(task) = queue.tasks.pop() else {
                if queue.busy == 0 {
                    break;
                }
                queue = self.changed.wait(queue).expect("no panic while the queue is held");
                continue;
            };
            queue.busy += 1;
            drop(queue);
            let result = go_on(self.progress).and_then(|()| self.visit(&task, &mut reader, &mut plain, &mut subtrees));
            self.progress.advance(1, plain.len() as u64);
            queue = self.lock();
            queue.busy -= 1;
            for subtree in subtrees.drain(..).rev() {
                self.add(&mut queue, subtree);
            }
            if let Err(error) = result {
                queue.failure.get_or_insert(error);
            }
            self.changed.notify_all();
        }
        drop(queue);
        self.changed.notify_all();
    }

    fn visit(
        &self,
        task: &Task,
        reader: &mut BlobReader<'_>,
        plain: &mut Vec<u8>,
        subtrees: &mut Vec<Task>,
    ) -> Result<(), Error> {
        let above = task.directory.as_ref();
        let tree = reader.load(BlobKind::Tree, &task.tree, plain).and_then(|()| {
            Tree::decode(plain).map_err(|error| Error::Tree { id: task.tree, reason: error.to_string() })
        });
        let tree = match tree {
            Ok(tree) => tree,
            Err(error) => {
                let at = At { backup: task.backup, directory: above, name: None };
                return self.visitor.flaw(&at, Flaw::Tree(error));
            }
        };
        for node in &tree.nodes {
            let at = At { backup: task.backup, directory: above, name: Some(&node.name) };
            self.visitor.node(&at, node);
            if !node.has_safe_name() {
                self.visitor.flaw(&at, Flaw::Name)?;
            }
            match node.kind {
                NodeKind::Dir => match node.subtree {
                    None => self.visitor.flaw(&at, Flaw::NoSubtree)?,
                    Some(tree) => {
                        let directory = Directory { name: node.name.clone(), above: above.cloned() };
                        let directory = Some(Arc::new(directory));
                        subtrees.push(Task { backup: task.backup, tree, directory });
                    }
                },
                NodeKind::File => self.file(&at, node)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&self, at: &At<'_>, node: &Node) -> Result<(), Error> {
        let Some(content) = &node.content else { return self.visitor.flaw(at, Flaw::NoContent) };
        let mut missing = Vec::new();
        let mut actual = 0_u64;
        for id in content {
            match self.index.position(BlobKind::Data, id) {
                Some(position) => {
                    self.used.insert(position);
                    actual = actual.saturating_add(self.index.at(position).blob.plain_length());
                }
                None => missing.push(*id),
            }
        }
        if !missing.is_empty() {
            self.visitor.flaw(at, Flaw::MissingBlobs(missing))
        } else if actual != node.size {
            self.visitor.flaw(at, Flaw::Size { recorded: node.size, actual })
        } else {
            Ok(())
        }
    }
}
