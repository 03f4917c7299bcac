//! Directories in the making: each waits for its entries, is stored when the last one is there, and is an entry of
//! the one above it. Whoever finishes the last entry does the storing, so nobody waits for anybody.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use repository::id::Id;
use repository::tree::{Node, NodeKind, Tree};

/// A directory whose entries are being gathered.
pub(super) struct Directory {
    /// The one above and the place in it; `None` for the root.
    above: Option<(Arc<Directory>, usize)>,
    name: OsString,
    state: Mutex<State>,
    /// Entries still to come, and one for the gathering itself.
    missing: AtomicUsize,
    /// What the parent backup has here.
    pub(super) previous: Option<Id>,
}

#[derive(Default)]
struct State {
    /// Its own entry in the directory above; its subtree is not known before the end.
    node: Option<Node>,
    /// In the order of the names; an entry that could not be read stays `None`.
    entries: Vec<Option<Node>>,
}

/// Where an entry belongs.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) directory: Arc<Directory>,
    pub(super) position: usize,
    pub(super) name: OsString,
}

impl Place {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path_of(&self.name)
    }
}

impl Directory {
    pub(super) fn root(previous: Option<Id>) -> Arc<Directory> {
        Directory::new(None, OsString::new(), previous)
    }

    pub(super) fn below(place: &Place, previous: Option<Id>) -> Arc<Directory> {
        let above = (Arc::clone(&place.directory), place.position);
        Directory::new(Some(above), place.name.clone(), previous)
    }

    fn new(above: Option<(Arc<Directory>, usize)>, name: OsString, previous: Option<Id>) -> Arc<Directory> {
        Arc::new(Directory { above, name, state: Mutex::default(), missing: AtomicUsize::new(1), previous })
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn is_root(&self) -> bool {
        self.above.is_none()
    }

    /// The absolute path of an entry, or of the directory itself if `name` is empty.
    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        let mut names = vec![name];
        let mut directory = self;
        while let Some((above, _)) = &directory.above {
            names.push(&directory.name);
            directory = above;
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev().filter(|name| !name.is_empty()) {
            path.push(b'/');
            path.extend_from_slice(name.as_bytes());
        }
        if path.is_empty() {
            path.push(b'/');
        }
        PathBuf::from(OsString::from_vec(path))
    }

    /// Makes room for the entries, before the first of them comes; `pending` of them come later.
    pub(super) fn expect(&self, node: Option<Node>, entries: Vec<Option<Node>>, pending: usize) {
        self.missing.fetch_add(pending, Ordering::Relaxed);
        let mut state = self.state.lock().expect("no panic while a directory is held");
        state.node = node;
        state.entries = entries;
    }

    /// Adds an entry that came later (`None` where it could not be read), or ends the gathering. Gives the whole
    /// when nothing is missing any more.
    pub(super) fn add(&self, entry: Option<(usize, Option<Node>)>) -> Option<Complete> {
        if let Some((position, node)) = entry {
            self.state.lock().expect("no panic while a directory is held").entries[position] = node;
        }
        // The last one must see what all others have put in.
        if self.missing.fetch_sub(1, Ordering::AcqRel) > 1 {
            return None;
        }
        let state = std::mem::take(&mut *self.state.lock().expect("no panic while a directory is held"));
        Some(Complete { node: state.node, entries: state.entries.into_iter().flatten().collect() })
    }

    /// Hands the finished directory to the one above; `None` for the root.
    pub(super) fn rise(&self, node: Option<Node>) -> Option<(Arc<Directory>, Option<Complete>)> {
        let (above, position) = self.above.as_ref()?;
        Some((Arc::clone(above), above.add(Some((*position, node)))))
    }
}

impl Drop for Directory {
    /// One after the other: dropped by recursion, a deep tree would overflow the stack when a run is broken off.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut directory) = above.and_then(|(above, _)| Arc::into_inner(above)) {
            above = directory.above.take();
        }
    }
}

/// A directory of which nothing is missing.
pub(super) struct Complete {
    pub(super) node: Option<Node>,
    pub(super) entries: Vec<Node>,
}

/// The parent backup's entries of one directory, asked for in the order of the names.
pub(super) struct Previous {
    nodes: std::iter::Peekable<std::vec::IntoIter<Node>>,
    /// Those that nobody asked for.
    gone: Vec<Node>,
}

impl Previous {
    pub(super) fn new(tree: Option<Tree>) -> Self {
        Previous { nodes: tree.unwrap_or_default().nodes.into_iter().peekable(), gone: Vec::new() }
    }

    /// The entry of that name. Names must come in increasing order.
    pub(super) fn take(&mut self, name: &OsStr) -> Option<Node> {
        while let Some(node) = self.nodes.next_if(|node| &*node.name < name.as_bytes()) {
            self.gone.push(node);
        }
        self.nodes.next_if(|node| &*node.name == name.as_bytes())
    }

    /// The names of all entries and those given, in their order. To be asked for before any entry is.
    pub(super) fn names_and(&mut self, mut names: Vec<OsString>) -> Vec<OsString> {
        let nodes: Vec<Node> = self.nodes.by_ref().collect();
        names.extend(nodes.iter().map(|node| OsStr::from_bytes(&node.name).to_owned()));
        self.nodes = nodes.into_iter().peekable();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The entries that nobody asked for.
    pub(super) fn finish(mut self) -> Vec<Node> {
        self.gone.extend(self.nodes);
        self.gone
    }
}

/// The subtree of an entry that is a directory.
pub(super) fn subtree(node: Option<&Node>) -> Option<Id> {
    node.filter(|node| node.kind == NodeKind::Dir)?.subtree
}
