//! How large a repository and its backups are, in the ways restic's `stats` counts.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use crate::error::Error;
use crate::hash::Sha256;
use crate::id::Id;
use crate::index::Index;
use crate::pack::stored_size;
use crate::progress::{Phase, Progress, go_on};
use crate::reachable::{At, Flaw, Visitor, walk};
use crate::repository::{BlobReader, Repository};
use crate::storage::FileKind;
use crate::tree::{Node, NodeKind};

/// What blobs take. restic's `raw-data`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawData {
    /// How many blobs, each counted once.
    pub blobs: u64,
    /// What they take in packs, in bytes.
    pub stored_bytes: u64,
    /// What they hold, in bytes.
    pub plain_bytes: u64,
}

impl RawData {
    /// Plain bytes for each stored byte; 1 if nothing is stored.
    pub fn compression_ratio(&self) -> f64 {
        if self.stored_bytes == 0 { 1.0 } else { self.plain_bytes as f64 / self.stored_bytes as f64 }
    }
}

/// The blobs that the roots (backup, tree) use.
pub fn raw_data(
    repository: &Repository,
    index: &Index,
    roots: &[(Id, Id)],
    progress: &dyn Progress,
) -> Result<RawData, Error> {
    let used = walk(repository, index, roots, &Strict, progress)?;
    let mut sum = RawData::default();
    for (position, (_, blob)) in index.iter().enumerate() {
        if used.contains(position) {
            sum.blobs += 1;
            sum.stored_bytes += stored_size(blob.length, blob.uncompressed_length != 0);
            sum.plain_bytes += blob.plain_length();
        }
    }
    Ok(sum)
}

/// What lies in the storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Index files.
    pub index_files: u64,
    /// Their bytes.
    pub index_bytes: u64,
    /// Backups.
    pub backups: u64,
}

/// Counts files, without reading any.
pub fn stored(repository: &Repository) -> Result<Stored, Error> {
    let sum = |kind| -> Result<(u64, u64), Error> {
        let files = repository.storage().list(kind)?;
        Ok((files.len() as u64, files.iter().map(|(_, size)| size).sum()))
    };
    let (packs, pack_bytes) = sum(FileKind::Pack)?;
    let (index_files, index_bytes) = sum(FileKind::Index)?;
    let (backups, _) = sum(FileKind::Backup)?;
    Ok(Stored { packs, pack_bytes, index_files, index_bytes, backups })
}

/// Entries and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Files, directories and all else.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Files with different contents, each content counted once. restic's `files-by-contents`.
pub fn files_by_contents(
    repository: &Repository,
    index: &Index,
    roots: &[(Id, Id)],
    progress: &dyn Progress,
) -> Result<Files, Error> {
    #[derive(Default)]
    struct Contents(Mutex<(HashSet<Id>, Files)>);
    impl Visitor for Contents {
        fn node(&self, _at: &At<'_>, node: &Node) {
            let (NodeKind::File, Some(content)) = (&node.kind, &node.content) else { return };
            let mut hash = Sha256::new();
            content.iter().for_each(|id| hash.update(&id.0));
            let (seen, sum) = &mut *self.0.lock().expect("no panic while the sum is held");
            if seen.insert(hash.finish()) {
                sum.entries += 1;
                sum.bytes = sum.bytes.saturating_add(node.size);
            }
        }

        fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error> {
            Strict.flaw(at, flaw)
        }
    }
    let contents = Contents::default();
    walk(repository, index, roots, &contents, progress)?;
    Ok(contents.0.into_inner().expect("no panic while the sum is held").1)
}

/// A sum over trees that cannot be read would be wrong.
struct Strict;

impl Visitor for Strict {
    fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error> {
        match flaw {
            Flaw::Tree(Error::Storage(error)) => Err(error.into()),
            Flaw::Tree(_) => Err(Error::Refused(format!("{}: {flaw}; `snapback repo check` tells more", at.place()))),
            _ => Ok(()),
        }
    }
}

/// What restoring each of the backups (their trees) writes, in sum. restic's `restore-size`. Several names of one inode
/// count their bytes once for each backup.
pub fn restore_size(
    repository: &Repository,
    index: &Index,
    trees: &[Id],
    progress: &dyn Progress,
) -> Result<Files, Error> {
    progress.begin(Phase::Trees, None, None);
    let mut sums = Sums { reader: repository.reader(index), known: HashMap::new(), progress };
    let mut total = Files::default();
    for tree in trees {
        let sum = sums.of(tree)?;
        total.entries = total.entries.saturating_add(sum.entries);
        total.bytes = total.bytes.saturating_add(sum.bytes);
    }
    Ok(total)
}

struct Sums<'a> {
    reader: BlobReader<'a>,
    known: HashMap<Id, TreeSum>,
    progress: &'a dyn Progress,
}

/// Of a tree and all below it.
#[derive(Default)]
struct TreeSum {
    /// Without the bytes of files with several names.
    files: Files,
    /// Files with several names in this directory: device, inode, bytes.
    linked: Box<[(u64, u64, u64)]>,
    /// Subdirectories that have such files in them or below.
    below: Box<[Id]>,
}

struct Open {
    id: Id,
    subtrees: Vec<Id>,
    next: usize,
    sum: Files,
    linked: Vec<(u64, u64, u64)>,
}

impl Sums<'_> {
    fn of(&mut self, root: &Id) -> Result<Files, Error> {
        // A stack of its own: a forged tree may be a million directories deep.
        let mut stack = Vec::new();
        if !self.known.contains_key(root) {
            stack.push(self.open(*root)?);
        }
        while let Some(top) = stack.last_mut() {
            if let Some(subtree) = top.subtrees.get(top.next) {
                if self.known.contains_key(subtree) {
                    top.next += 1;
                } else {
                    let subtree = self.open(*subtree)?;
                    stack.push(subtree);
                }
                continue;
            }
            let Open { id, mut subtrees, mut sum, linked, .. } = stack.pop().expect("there is a top");
            for subtree in &subtrees {
                let below = &self.known[subtree].files;
                sum.entries = sum.entries.saturating_add(below.entries);
                sum.bytes = sum.bytes.saturating_add(below.bytes);
            }
            subtrees.retain(|subtree| {
                let below = &self.known[subtree];
                !below.linked.is_empty() || !below.below.is_empty()
            });
            let sum = TreeSum { files: sum, linked: linked.into(), below: subtrees.into() };
            self.known.insert(id, sum);
        }
        let mut sum = self.known[root].files;
        let mut inodes = HashSet::new();
        let mut visited = HashSet::new();
        let mut open = vec![root];
        while let Some(tree) = open.pop() {
            if visited.insert(tree) {
                let tree = &self.known[tree];
                for &(device, inode, bytes) in &tree.linked {
                    if inodes.insert((device, inode)) {
                        sum.bytes = sum.bytes.saturating_add(bytes);
                    }
                }
                open.extend(&tree.below);
            }
        }
        Ok(sum)
    }

    fn open(&mut self, id: Id) -> Result<Open, Error> {
        go_on(self.progress)?;
        let tree = self.reader.load_tree(&id)?;
        self.progress.advance(1, 0);
        let mut open = Open { id, subtrees: Vec::new(), next: 0, sum: Files::default(), linked: Vec::new() };
        for node in tree.nodes {
            open.sum.entries += 1;
            match node.kind {
                NodeKind::Dir => open.subtrees.extend(node.subtree),
                NodeKind::File if node.links > 1 => open.linked.push((node.device_id, node.inode, node.size)),
                _ => open.sum.bytes = open.sum.bytes.saturating_add(node.size),
            }
        }
        Ok(open)
    }
}
