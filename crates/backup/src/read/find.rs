//! Which versions of which files the backups have, by a pattern. A subtree that several backups share is searched
//! once.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use repository::id::Id;
use repository::tree::{Node, NodeKind};
use repository::{BlobReader, Error};

use crate::progress::Progress;

/// A path that matched, and what was there over time.
#[derive(Debug)]
pub struct Match {
    /// Where.
    pub path: PathBuf,
    /// In the order in which the backups were searched.
    pub versions: Vec<Version>,
}

/// One state of a path, and the backups that have it.
#[derive(Debug)]
pub struct Version {
    /// The entry.
    pub node: Node,
    /// Numbers the caller gave to the backups.
    pub backups: Vec<usize>,
}

/// A match's and its version's number.
type Found = (usize, usize);

/// Stands for the hash of any path.
const ANYWHERE: u64 = 0;

/// A directory on the way to the present place.
struct Level {
    tree: Id,
    nodes: std::vec::IntoIter<Node>,
    found: Vec<Found>,
}

/// Searches one backup after another.
pub struct Finder {
    pattern: GlobMatcher,
    /// Whether the pattern is about whole paths, or about names alone.
    whole_path: bool,
    matches: Vec<Match>,
    by_path: HashMap<PathBuf, usize>,
    /// What was found below a tree at a path (its hash): path and version of each match.
    known: HashMap<(Id, u64), Box<[Found]>>,
}

impl Finder {
    /// A pattern without `/` is matched against names, one with `/` against whole paths, where `**` stands for any
    /// number of directories.
    pub fn new(pattern: &str, ignore_case: bool) -> Result<Self, globset::Error> {
        let whole_path = pattern.contains('/');
        // `a/b` lies anywhere; `/a/b` at the root.
        let anywhere =
            if whole_path && !pattern.starts_with('/') { format!("**/{pattern}") } else { pattern.to_owned() };
        let mut builder = GlobBuilder::new(&anywhere);
        builder.literal_separator(true).backslash_escape(true).case_insensitive(ignore_case);
        let pattern = builder.build()?.compile_matcher();
        Ok(Finder { pattern, whole_path, matches: Vec::new(), by_path: HashMap::new(), known: HashMap::new() })
    }

    /// Searches a backup. Directories that cannot be read are told to `progress`.
    pub fn search(
        &mut self,
        reader: &mut BlobReader<'_>,
        tree: Id,
        backup: usize,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut path = PathBuf::from("/");
        let mut levels: Vec<Level> = Vec::new();
        levels.extend(self.enter(reader, tree, &path, backup, progress)?.err());
        while let Some(level) = levels.last_mut() {
            let Some(node) = level.nodes.next() else {
                let Level { tree, found, .. } = levels.pop().expect("it is the last one");
                self.remember(tree, &path, &found);
                path.pop();
                if let Some(above) = levels.last_mut() {
                    above.found.extend(found);
                }
                continue;
            };
            if !node.has_safe_name() {
                continue;
            }
            let subtree = node.subtree.filter(|_| node.kind == NodeKind::Dir);
            path.push(OsStr::from_bytes(&node.name));
            let name = path.file_name().map(Path::new);
            let subject = if self.whole_path { Some(path.as_path()) } else { name };
            if subject.is_some_and(|subject| self.pattern.is_match(subject)) {
                let found = self.add(&path, node, backup);
                level.found.push(found);
            }
            match subtree.map(|subtree| self.enter(reader, subtree, &path, backup, progress)).transpose()? {
                Some(Err(below)) => levels.push(below),
                Some(Ok(found)) => {
                    level.found.extend(found);
                    path.pop();
                }
                None => {
                    path.pop();
                }
            }
        }
        Ok(())
    }

    /// What was found, by path.
    pub fn finish(self) -> Vec<Match> {
        let mut matches = self.matches;
        matches.sort_by(|a, b| a.path.cmp(&b.path));
        matches
    }

    /// What is known to lie below a tree, or the level to be searched.
    fn enter(
        &mut self,
        reader: &mut BlobReader<'_>,
        tree: Id,
        path: &Path,
        backup: usize,
        progress: &dyn Progress,
    ) -> Result<Result<Vec<Found>, Level>, Error> {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // Names that match nowhere below a tree match nowhere below it at another path either.
        if !self.whole_path && self.known.contains_key(&(tree, ANYWHERE)) {
            return Ok(Ok(Vec::new()));
        }
        if let Some(known) = self.known.get(&(tree, hash(path))) {
            let known = known.to_vec();
            for &(entry, version) in &known {
                self.matches[entry].versions[version].backups.push(backup);
            }
            return Ok(Ok(known));
        }
        match reader.load_tree(&tree) {
            Ok(nodes) => Ok(Err(Level { tree, nodes: nodes.nodes.into_iter(), found: Vec::new() })),
            Err(error) => {
                progress.error(path, &error);
                Ok(Ok(Vec::new()))
            }
        }
    }

    fn remember(&mut self, tree: Id, path: &Path, found: &[Found]) {
        let place = if found.is_empty() && !self.whole_path { ANYWHERE } else { hash(path) };
        self.known.insert((tree, place), found.into());
    }

    fn add(&mut self, path: &Path, node: Node, backup: usize) -> Found {
        let entry = match self.by_path.get(path) {
            Some(&entry) => entry,
            None => {
                self.matches.push(Match { path: path.to_owned(), versions: Vec::new() });
                self.by_path.insert(path.to_owned(), self.matches.len() - 1);
                self.matches.len() - 1
            }
        };
        let versions = &mut self.matches[entry].versions;
        let version = versions.iter().position(|version| is_same(&version.node, &node));
        let version = version.unwrap_or_else(|| {
            versions.push(Version { node, backups: Vec::new() });
            versions.len() - 1
        });
        versions[version].backups.push(backup);
        (entry, version)
    }
}

/// Whether a user would call it the same version.
fn is_same(a: &Node, b: &Node) -> bool {
    let is_directory = a.kind == NodeKind::Dir && b.kind == NodeKind::Dir;
    a.kind == b.kind
        && a.content == b.content
        && a.link_target == b.link_target
        && (is_directory || (a.size, a.mtime) == (b.size, b.mtime))
}

fn hash(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish().max(ANYWHERE + 1)
}
