//! What differs between two trees of a subvolume, as a set of paths.
//!
//! The stream of `send` is made to be replayed, with names that exist only in the middle: things are made under
//! temporary names, directories move while files in them are written. Here it only says which names are suspect. Every
//! path of either tree that differs has its own name in the stream, or lies below a directory whose rename is in it: the
//! paths in a command differ from those of the trees only where a directory above was renamed.
//!
//! Only the names of files with several of them need more: a change is told by one. To find the others, the name has to
//! be followed to where it ends up.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::stream::Command;
use crate::provider::Changed;

/// The paths that commands name, and where they end up.
#[derive(Debug)]
pub(crate) struct Changes {
    /// With whether all that is below is suspect.
    suspect: BTreeMap<PathBuf, bool>,
    /// The names that are known, as far as they were named. The first is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    name: OsString,
    /// `None` if it was removed, or moved over, and for the root.
    parent: Option<usize>,
    children: HashMap<OsString, usize>,
    is_touched: bool,
}

const ROOT: usize = 0;

impl Changes {
    pub(crate) fn new() -> Changes {
        Changes { suspect: BTreeMap::new(), nodes: vec![Node::default()] }
    }

    pub(crate) fn add(&mut self, command: Command) {
        match command {
            Command::Touch(path) => {
                self.suspect(path, false);
                self.touch(path);
            }
            Command::Link { new, existing } => {
                for path in [new, existing] {
                    self.suspect(path, false);
                    self.touch(path);
                }
            }
            Command::Rename { from, to } => {
                self.suspect(from, true);
                self.suspect(to, true);
                self.rename(from, to);
            }
            Command::Remove(path) => {
                self.suspect(path, true);
                let node = self.node(path);
                self.detach(node);
            }
        }
    }

    /// How many paths are suspect so far.
    pub(crate) fn count(&self) -> usize {
        self.suspect.len()
    }

    /// Adds a path of a file with several names.
    pub(crate) fn add_name(&mut self, path: &Path) {
        self.suspect(path, false);
    }

    /// What was touched, where it lies in the end.
    pub(crate) fn touched(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let touched = (0..self.nodes.len()).filter(|node| self.nodes[*node].is_touched);
        touched.filter_map(|node| self.path(node))
    }

    /// All of it, without what lies below a tree that is suspect as a whole. `is_there` tells whether an entry of the
    /// root is in one of the two trees: temporary names are not.
    pub(crate) fn finish(self, is_there: &mut dyn FnMut(&OsStr) -> bool) -> Vec<Changed> {
        let mut changed: Vec<Changed> = Vec::new();
        let mut tree: Option<PathBuf> = None;
        let mut temporary = HashMap::new();
        for (path, is_tree) in self.suspect {
            let first = path.iter().next().filter(|name| looks_temporary(name)).map(OsStr::to_owned);
            if let Some(name) = first
                && !*temporary.entry(name).or_insert_with_key(|name| is_there(name))
            {
                continue;
            }
            // Paths are in the order of their components: what lies below comes right after.
            if tree.as_ref().is_some_and(|tree| path.starts_with(tree)) {
                continue;
            }
            if is_tree {
                tree = Some(path.clone());
            }
            changed.push(Changed { path, is_tree });
        }
        changed
    }

    fn suspect(&mut self, path: &Path, is_tree: bool) {
        match self.suspect.get_mut(path) {
            Some(known) => *known |= is_tree,
            None => drop(self.suspect.insert(path.to_owned(), is_tree)),
        }
    }

    fn touch(&mut self, path: &Path) {
        let node = self.node(path);
        self.nodes[node].is_touched = true;
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.node(from);
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else { return };
        // A directory does not move into itself, and the root does not move.
        if node == ROOT || to.starts_with(from) {
            return;
        }
        self.detach(node);
        let parent = self.node(parent);
        if let Some(replaced) = self.nodes[parent].children.insert(name.to_owned(), node) {
            self.nodes[replaced].parent = None;
        }
        self.nodes[node].name = name.to_owned();
        self.nodes[node].parent = Some(parent);
    }

    fn detach(&mut self, node: usize) {
        if let Some(parent) = self.nodes[node].parent.take() {
            let name = self.nodes[node].name.clone();
            self.nodes[parent].children.remove(&name);
        }
    }

    fn node(&mut self, path: &Path) -> usize {
        let mut node = ROOT;
        for name in path {
            node = match self.nodes[node].children.get(name) {
                Some(child) => *child,
                None => {
                    let child = self.nodes.len();
                    let new = Node { name: name.to_owned(), parent: Some(node), ..Node::default() };
                    self.nodes.push(new);
                    self.nodes[node].children.insert(name.to_owned(), child);
                    child
                }
            };
        }
        node
    }

    fn path(&self, mut node: usize) -> Option<PathBuf> {
        let mut names = Vec::new();
        while node != ROOT {
            names.push(self.nodes[node].name.as_os_str());
            node = self.nodes[node].parent?;
        }
        Some(names.iter().rev().collect())
    }
}

/// `o257-8-0`: what the kernel calls an inode that has no name yet, or not any more.
fn looks_temporary(name: &OsStr) -> bool {
    let Some(numbers) = name.to_str().and_then(|name| name.strip_prefix('o')) else { return false };
    let mut parts = 0;
    numbers.split('-').all(|part| {
        parts += 1;
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
    }) && parts == 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    use crate::btrfs::stream::{read, tests::stream};

    const COMMANDS: &[(u16, &[&str])] = &[
        (2, &["tree"]),
        (22, &["old/file"]),
        (20, &["old/file"]),
        (9, &["old", "new"]),
        (3, &["o300-8-0"]),
        (9, &["o300-8-0", "new/made"]),
        (15, &["new/made"]),
        (10, &["web/second name", "web/name"]),
        (9, &["swap", "o301-7-0"]),
        (9, &["other", "swap"]),
        (9, &["o301-7-0", "other"]),
        (11, &["web/gone"]),
        (20, &[""]),
        (21, &[]),
    ];

    fn changes(stream: &[u8]) -> std::io::Result<Changes> {
        let mut changes = Changes::new();
        let _ = read(&mut &stream[..], &mut |command| {
            changes.add(command);
            ControlFlow::Continue(())
        })?;
        Ok(changes)
    }

    #[test]
    fn what_a_stream_names_is_suspect_and_temporary_names_are_not() {
        let changes = changes(&stream(COMMANDS)).unwrap();
        let mut touched: Vec<PathBuf> = changes.touched().collect();
        touched.sort();
        let expected = ["", "new/file", "new/made", "web/name", "web/second name"];
        assert_eq!(touched, expected.map(PathBuf::from));
        let found = changes.finish(&mut |_| false);
        let found: Vec<_> = found.iter().map(|changed| (changed.path.to_str().unwrap(), changed.is_tree)).collect();
        let expected = [
            ("", false),
            ("new", true),
            ("old", true),
            ("other", true),
            ("swap", true),
            ("web/gone", true),
            ("web/name", false),
            ("web/second name", false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_with_the_look_of_a_temporary_name_is_kept() {
        let changes = changes(&stream(&[(20, &["o1-2-3"]), (20, &["o1-2-4"]), (21, &[])])).unwrap();
        let found = changes.finish(&mut |name| name == "o1-2-3");
        assert_eq!(found, [Changed { path: "o1-2-3".into(), is_tree: false }]);
    }

    #[test]
    fn damaged_streams_are_errors_or_other_paths_and_never_a_panic() {
        let whole = stream(COMMANDS);
        let mut seed = 1_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut understood = 0;
        for _ in 0..50_000 {
            let mut damaged = whole.clone();
            for _ in 0..=random(4) {
                let at = random(damaged.len());
                match random(4) {
                    0 => damaged[at] ^= 1 << random(8),
                    1 => damaged[at] = random(256) as u8,
                    2 => drop(damaged.remove(at)),
                    _ => {
                        let from = random(whole.len());
                        let to = from + random(whole.len() - from);
                        damaged.splice(at..at, whole[from..to].iter().copied());
                    }
                }
            }
            if let Ok(changes) = changes(&damaged) {
                understood += 1;
                assert!(changes.touched().count() <= damaged.len());
                changes.finish(&mut |_| true);
            }
        }
        assert!(understood > 100, "hardly any of them came as far as the paths: {understood}");
    }
}
