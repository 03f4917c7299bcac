//! What differs between the live tree and the backup's, found without changing anything.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use repository::id::Id;
use repository::tree::{Node, NodeKind};
use repository::{BlobReader, Error};
use rustix::io::Errno;

use super::equal::{self, Equal};
use super::{Difference, Options, Plan, RevertError, Source, is_directory, is_socket, reach};
use crate::attributes::Stat;
use crate::restore::remove::names;

/// One change of the live tree. Paths are relative to it; a number names something in the directory for staging.
#[derive(Debug)]
pub(super) enum Act {
    /// Makes a directory, for its owner alone as yet.
    MakeDirectory(PathBuf),
    /// Makes a directory in the place of something else, which gets the number.
    ReplaceByDirectory(PathBuf, u64),
    /// Moves what was made into place.
    Move(u64, PathBuf),
    /// Makes a further name of what then lies at the first path; the number is needed meanwhile.
    Link(PathBuf, PathBuf, u64),
    /// Sets attributes.
    Apply(PathBuf, Box<Node>),
    /// Moves something out of the tree, under the number.
    Remove(PathBuf, u64),
}

/// Compares the live directory with the backup.
pub fn compare(source: Source<'_>, options: Options<'_>) -> Result<Plan, RevertError> {
    let root = reach::root(options.directory)?;
    let stat = Stat::of(root.as_fd()).map_err(RevertError::io("look at", options.directory))?;
    let mut reader = source.repository.reader(source.index);
    let (node, subtree) = find(&mut reader, source.tree, options.directory)?;
    let mut comparison = Comparison {
        source,
        options,
        root: &root,
        device: stat.device,
        reader,
        plan: Plan::default(),
        numbers: 0,
        moved: 0,
        first_names: HashMap::new(),
        kept: HashMap::new(),
        waiting: Vec::new(),
    };
    if let Some(node) = &node {
        let is_same = equal::is_untouched(node, &stat, source.begun)
            || equal::has_attributes(equal::entry(&root, b"."), node, &stat);
        comparison.plan.is_root_different = !is_same;
        if !is_same {
            comparison.differs(PathBuf::new(), false);
        }
    }
    comparison.plan.root = node;
    comparison.waiting.push(Below { path: PathBuf::new(), node: None, subtree, is_there: true, differs: false });
    while let Some(below) = comparison.waiting.pop() {
        if options.progress.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        comparison.directory(below)?;
    }
    Ok(comparison.plan)
}

/// The directory's own node, which `/` has not, and its tree.
fn find(reader: &mut BlobReader<'_>, tree: Id, directory: &Path) -> Result<(Option<Node>, Id), RevertError> {
    let (mut found, mut tree) = (None, tree);
    for name in directory.iter().filter(|name| *name != "/") {
        let nodes = reader.load_tree(&tree)?.nodes;
        let node = nodes.into_iter().find(|node| *node.name == *name.as_bytes());
        let below = node.as_ref().and_then(|node| node.subtree);
        tree = below.ok_or_else(|| RevertError::Refused(format!("the backup has no {}", directory.display())))?;
        found = node;
    }
    Ok((found, tree))
}

/// A directory that is still to be looked into.
struct Below {
    path: PathBuf,
    /// `None` for the root.
    node: Option<Node>,
    subtree: Id,
    /// Whether the live tree has a directory there.
    is_there: bool,
    /// Whether its own attributes differ.
    differs: bool,
}

/// An inode of the backup, if it has several names.
type Inode = (u64, u64);

struct Comparison<'a> {
    source: Source<'a>,
    options: Options<'a>,
    root: &'a OwnedFd,
    device: u64,
    reader: BlobReader<'a>,
    plan: Plan,
    numbers: u64,
    /// Acts that change the entries of the directory they are in.
    moved: u64,
    /// Of inodes with several names: the first, and the live inode that is kept for it.
    first_names: HashMap<Inode, (PathBuf, Option<u64>)>,
    /// Live inodes with several names that are kept, and for whom: two files must not become one.
    kept: HashMap<u64, Option<Inode>>,
    waiting: Vec<Below>,
}

impl Comparison<'_> {
    fn full(&self, path: &Path) -> PathBuf {
        self.options.directory.join(path)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn differs(&mut self, path: PathBuf, is_tree: bool) {
        self.plan.differences.push(Difference { path, is_tree });
    }

    fn act(&mut self, act: Act) {
        self.moved += u64::from(!matches!(act, Act::Apply(..)));
        self.plan.acts.push(act);
    }

    fn directory(&mut self, below: Below) -> Result<(), RevertError> {
        let Below { path, node, subtree, is_there, differs } = below;
        let tree = self.reader.load_tree(&subtree)?;
        let full = self.full(&path);
        let (live, present) = match is_there {
            false => (None, Vec::new()),
            true => {
                let open = reach::directory(self.root, &path).map_err(RevertError::io("open", &full))?;
                let present = names(&open).map_err(RevertError::io("list", &full))?;
                (Some(open), present)
            }
        };
        let mut missing: HashSet<&[u8]> = present.iter().map(|name| &**name).collect();
        let moved = self.moved;
        for node in tree.nodes {
            if !node.has_safe_name() {
                let name = node.name.escape_ascii();
                return Err(RevertError::Refused(format!("{}: the forbidden name \"{name}\"", full.display())));
            }
            let is_present = missing.remove(&*node.name);
            let below = path.join(OsStr::from_bytes(&node.name));
            if self.options.spared.matches(&self.full(&below), node.kind == NodeKind::Dir) {
                continue;
            }
            let there = match &live {
                Some(live) if is_present => self.look(live, &node.name, &below)?,
                _ => None,
            };
            self.entry(live.as_ref(), node, below, there)?;
        }
        if let Some(live) = &live {
            let mut others: Vec<&[u8]> = missing.into_iter().collect();
            others.sort_unstable();
            for name in others {
                self.other(live, name, path.join(OsStr::from_bytes(name)))?;
            }
        }
        let has_new_times = self.moved != moved || differs || !is_there;
        if let Some(node) = node.filter(|_| has_new_times) {
            self.plan.directories.push((path, node));
        }
        Ok(())
    }

    fn look(&self, live: &OwnedFd, name: &[u8], path: &Path) -> Result<Option<Stat>, RevertError> {
        match Stat::at(equal::entry(live, name)) {
            Ok(stat) => Ok(Some(stat)),
            // It vanished just now.
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RevertError::io("look at", self.full(path))(error.source)),
        }
    }

    fn is_foreign(&self, stat: &Stat) -> bool {
        stat.device != self.device || stat.mount_root == Some(true)
    }

    /// An entry of the backup.
    fn entry(
        &mut self,
        live: Option<&OwnedFd>,
        node: Node,
        path: PathBuf,
        there: Option<Stat>,
    ) -> Result<(), RevertError> {
        let is_nobodys = matches!(node.kind, NodeKind::Socket | NodeKind::Other(_));
        if is_nobodys || there.as_ref().is_some_and(|stat| self.is_foreign(stat)) {
            return Ok(());
        }
        if node.kind == NodeKind::Dir {
            return self.entry_directory(live, node, path, there);
        }
        if there.as_ref().is_some_and(is_directory) && self.scan(&path)?.stays {
            return Err(RevertError::Refused(format!(
                "{} is a directory now in which something stays, and the backup has no directory there",
                self.full(&path).display()
            )));
        }
        let size_now = there.as_ref().filter(|stat| !is_directory(stat)).map_or(0, |stat| stat.size);
        let inode = (node.links > 1 && node.inode != 0).then_some((node.device_id, node.inode));
        if let Some((first, kept)) = inode.and_then(|inode| self.first_names.get(&inode)).cloned() {
            if kept.is_some() && there.map(|stat| stat.inode) == kept {
                return Ok(());
            }
            self.count(there.is_some(), size_now);
            self.differs(path.clone(), true);
            let number = self.number();
            self.act(Act::Link(first, path, number));
            return Ok(());
        }
        let mut kept = None;
        if let (Some(live), Some(stat)) = (live, there) {
            let entry = equal::entry(live, &node.name);
            let compared = equal::compare(entry, &node, &stat, self.source.index, self.source.begun);
            match compared {
                Ok(Equal::Wholly) if self.may_keep(inode, &stat) => kept = Some(stat.inode),
                // Further names may lie outside, and would change with it.
                Ok(Equal::ButForAttributes) if stat.links == 1 => {
                    kept = Some(stat.inode);
                    self.count(true, size_now);
                    self.differs(path.clone(), false);
                    self.act(Act::Apply(path.clone(), Box::new(node.clone())));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(RevertError::io("compare", self.full(&path))(error)),
            }
        }
        if let Some(inode) = inode {
            self.first_names.insert(inode, (path.clone(), kept));
        }
        if kept.is_none() {
            self.count(there.is_some(), size_now);
            self.differs(path.clone(), true);
            self.plan.bytes_to_make += node.size;
            let number = self.number();
            self.plan.made.push((number, node));
            self.act(Act::Move(number, path));
        }
        Ok(())
    }

    fn entry_directory(
        &mut self,
        live: Option<&OwnedFd>,
        node: Node,
        path: PathBuf,
        there: Option<Stat>,
    ) -> Result<(), RevertError> {
        let Some(subtree) = node.subtree else {
            return Err(RevertError::Refused(format!("the backup has no tree for {}", self.full(&path).display())));
        };
        let mut below = Below { path, node: None, subtree, is_there: true, differs: false };
        match (live, there) {
            (Some(live), Some(stat)) if is_directory(&stat) => {
                below.differs = !equal::is_untouched(&node, &stat, self.source.begun)
                    && !equal::has_attributes(equal::entry(live, &node.name), &node, &stat);
                if below.differs {
                    self.differs(below.path.clone(), false);
                }
            }
            (_, there) => {
                below.is_there = false;
                self.differs(below.path.clone(), true);
                let act = match there {
                    None => Act::MakeDirectory(below.path.clone()),
                    Some(_) => Act::ReplaceByDirectory(below.path.clone(), self.number()),
                };
                self.act(act);
            }
        }
        self.waiting.push(Below { node: Some(node), ..below });
        Ok(())
    }

    fn count(&mut self, is_there: bool, size_now: u64) {
        match is_there {
            true => self.plan.counts.changed += 1,
            false => self.plan.counts.removed += 1,
        }
        self.plan.counts.bytes += size_now;
    }

    /// Whether a live inode can stay what it is: not if another file of the backup is it already.
    fn may_keep(&mut self, inode: Option<Inode>, stat: &Stat) -> bool {
        if stat.links < 2 {
            return true;
        }
        match self.kept.entry(stat.inode) {
            Slot::Vacant(slot) => {
                slot.insert(inode);
                true
            }
            Slot::Occupied(owner) => inode.is_some() && *owner.get() == inode,
        }
    }

    /// A live entry that the backup does not have.
    fn other(&mut self, live: &OwnedFd, name: &[u8], path: PathBuf) -> Result<(), RevertError> {
        let Some(stat) = self.look(live, name, &path)? else { return Ok(()) };
        let is_spared = self.options.spared.matches(&self.full(&path), is_directory(&stat));
        if is_spared || self.is_foreign(&stat) || is_socket(&stat) {
            return Ok(());
        }
        let (mut files, mut bytes) = (1, stat.size);
        if is_directory(&stat) {
            let scan = self.scan(&path)?;
            if scan.stays {
                let full = self.full(&path);
                let open = reach::directory(self.root, &path).map_err(RevertError::io("open", &full))?;
                for name in names(&open).map_err(RevertError::io("list", &full))? {
                    self.other(&open, &name, path.join(OsStr::from_bytes(&name)))?;
                }
                return Ok(());
            }
            (files, bytes) = (scan.files, scan.bytes);
        }
        self.plan.counts.added += files;
        self.plan.counts.bytes += bytes;
        self.differs(path.clone(), true);
        let number = self.number();
        self.act(Act::Remove(path, number));
        Ok(())
    }

    /// What lies in a live directory that is to go.
    fn scan(&self, path: &Path) -> Result<Scan, RevertError> {
        let mut scan = Scan::default();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            let full = self.full(&path);
            let open = match reach::directory(self.root, &path) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                opened => opened.map_err(RevertError::io("open", &full))?,
            };
            for name in names(&open).map_err(RevertError::io("list", &full))? {
                let below = path.join(OsStr::from_bytes(&name));
                let Some(stat) = self.look(&open, &name, &below)? else { continue };
                let is_directory = is_directory(&stat);
                if self.is_foreign(&stat) || self.options.spared.matches(&self.full(&below), is_directory) {
                    scan.stays = true;
                } else if is_directory {
                    waiting.push(below);
                } else {
                    scan.files += 1;
                    scan.bytes += stat.size;
                }
            }
        }
        Ok(scan)
    }
}

#[derive(Default)]
struct Scan {
    /// Something in it is not to be touched.
    stays: bool,
    files: u64,
    bytes: u64,
}
