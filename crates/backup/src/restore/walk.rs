//! Through the backup's trees: makes directories and what has no content, removes what should not be there, and
//! gathers files into batches.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use repository::id::Id;
use repository::tree::{Node, NodeKind, Tree};
use repository::{BlobReader, Error};
use rustix::io::Errno;

use crate::attributes::{Before, Stat, create};
use crate::patterns::Patterns;
use crate::restore::Overwrite;
use crate::restore::content::Batch;
use crate::restore::place::{Directory, Place, has_default_acl, make_directory, names, open_directory, remove_all};
use crate::restore::run::{Run, add};

pub(super) struct Walk<'a> {
    run: &'a Run<'a>,
    reader: BlobReader<'a>,
    batch: Batch,
    /// What of `Options::path` still lies ahead; empty when the walk is within it.
    ahead: Vec<Box<[u8]>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Self {
        let path = run.options.path.as_deref().unwrap_or(Path::new("/"));
        let ahead = path.iter().map(OsStr::as_bytes).filter(|name| name != b"/").map(Box::from).collect();
        Walk { run, reader: run.repository.reader(run.index), batch: Batch::default(), ahead }
    }

    /// Restores a whole backup.
    pub(super) fn backup(mut self, tree: Id, root: &Arc<Directory>) -> Result<(), Error> {
        let nodes = self.reader.load_tree(&tree)?;
        let mut directories = Vec::new();
        self.entries(nodes, root, Path::new("/"), 0, &mut directories)?;
        // A stack of its own instead of recursion: how deep a tree is, is for the tree's author to say.
        while let Some(below) = directories.pop() {
            if self.run.options.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let Below { id, directory, path, depth } = below;
            match self.reader.load_tree(&id) {
                Ok(nodes) => self.entries(nodes, &directory, &path, depth, &mut directories)?,
                Err(error) => self.run.error(&path, &error),
            }
            self.run.finish_directory(directory);
        }
        self.batch.restore(self.run)
    }

    fn entries(
        &mut self,
        tree: Tree,
        directory: &Arc<Directory>,
        path: &Path,
        depth: usize,
        directories: &mut Vec<Below>,
    ) -> Result<(), Error> {
        let wanted = self.ahead.get(depth).cloned();
        let within = wanted.is_none();
        let mut kept = HashSet::new();
        let mut found = within;
        let mut below = Vec::new();
        for node in tree.nodes {
            if wanted.as_ref().is_some_and(|name| *name != node.name) {
                continue;
            }
            found = true;
            let node_path = path.join(OsStr::from_bytes(&node.name));
            if !node.has_safe_name() {
                let name = node.name.escape_ascii();
                self.run.error(path, &format_args!("skipped an entry with the forbidden name \"{name}\""));
                continue;
            }
            if self.run.options.delete {
                kept.insert(node.name.clone());
            }
            let is_on_the_way = depth + 1 < self.ahead.len();
            let is_directory = node.kind == NodeKind::Dir;
            if !is_on_the_way && self.is_left_out(&node_path, is_directory) {
                continue;
            }
            match node.kind {
                NodeKind::Dir => {
                    let Some(id) = node.subtree else {
                        self.run.error(&node_path, &"the backup has no tree for this directory");
                        continue;
                    };
                    // With patterns to include, directories are made only for what is in them; not before.
                    if let Some(made) = self.directory(directory, node, &node_path) {
                        below.push(Below { id, directory: made, path: node_path, depth: depth + 1 });
                    }
                }
                NodeKind::File => self.file(directory, node),
                _ => self.other(directory, node),
            }
            if self.batch.is_full() {
                std::mem::take(&mut self.batch).restore(self.run)?;
            }
        }
        if !found {
            let asked = self.run.options.path.as_deref().unwrap_or(path);
            return Err(Error::Refused(format!("the backup has no {}", asked.display())));
        }
        if within && self.run.options.delete && depth > 0 {
            self.delete_others(directory, path, &kept);
        }
        directories.extend(below.into_iter().rev());
        Ok(())
    }

    fn is_left_out(&self, path: &Path, is_directory: bool) -> bool {
        let options = self.run.options;
        if options.exclude.as_ref().is_some_and(|exclude| exclude.matches(path, is_directory)) {
            return true;
        }
        match &options.include {
            None => false,
            Some(include) if is_directory => !include.may_match_below(path) && !include.matches(path, true),
            Some(include) => !include.matches(path, false),
        }
    }

    /// A directory that only may hold something to include is not wholly included.
    fn may_be_deleted(&self, directory: &Directory, name: &[u8], path: &Path) -> bool {
        let (include, exclude) = (&self.run.options.include, &self.run.options.exclude);
        if include.is_none() && exclude.is_none() {
            return true;
        }
        let Ok(stat) = Stat::at(directory.entry(name)) else { return false };
        let is_directory = stat.mode & 0o170_000 == 0o040_000;
        let matches = |patterns: &Patterns| patterns.matches(path, is_directory);
        include.as_ref().is_none_or(matches) && !exclude.as_ref().is_some_and(matches)
    }

    fn directory(&self, above: &Arc<Directory>, node: Node, path: &Path) -> Option<Arc<Directory>> {
        let name = node.name.clone();
        let failed = |action: &str, error: Errno| {
            self.run.error(path, &format_args!("cannot {action} the directory: {error}"));
            None
        };
        if self.run.options.dry_run {
            return self.look_at_directory(above, node);
        }
        let mut is_fresh = true;
        let mut made = make_directory(&above.open, &name);
        if made == Err(Errno::EXIST) {
            match Stat::at(above.entry(&name)) {
                Ok(stat) if stat.mode & 0o170_000 == 0o040_000 => {
                    is_fresh = false;
                    made = Ok(());
                }
                // A file or a link is in the way.
                _ => {
                    made = remove_all(&above.open, &name).and_then(|_| make_directory(&above.open, &name));
                }
            }
        }
        if let Err(error) = made {
            return failed("create", error);
        }
        let open = match open_directory(&above.open, &name) {
            Ok(open) => open,
            Err(error) => return failed("open", error),
        };
        let stat = match Stat::of(open.as_fd()) {
            Ok(stat) => stat,
            Err(error) => return failed("look at", error),
        };
        add(&self.run.counts.others, 1);
        // A fresh directory has inherited what the one above has.
        let has_default_acl = if is_fresh { above.has_default_acl } else { has_default_acl(&open) };
        let fresh_without_acl = is_fresh && !has_default_acl;
        let before = if fresh_without_acl { Before::created(&stat) } else { Before::changed(&stat) };
        Some(Arc::new(Directory {
            open,
            path: above.path_of(&name),
            above: Some(Arc::clone(above)),
            node: Some(node),
            before,
            is_fresh,
            new_file: OnceLock::new(),
            has_default_acl,
        }))
    }

    /// In a dry run, a directory that is not there is stood in for by the one above: nothing is there either way.
    fn look_at_directory(&self, above: &Arc<Directory>, node: Node) -> Option<Arc<Directory>> {
        let existing = open_directory(&above.open, &node.name);
        let is_fresh = existing.is_err() || above.is_fresh;
        let open = existing.or_else(|_| rustix::io::fcntl_dupfd_cloexec(&above.open, 0)).ok()?;
        let stat = Stat::of(open.as_fd()).ok()?;
        Some(Arc::new(Directory {
            open,
            path: above.path_of(&node.name),
            above: Some(Arc::clone(above)),
            node: None,
            before: Before::changed(&stat),
            is_fresh,
            new_file: OnceLock::new(),
            has_default_acl: false,
        }))
    }

    fn file(&mut self, directory: &Arc<Directory>, node: Node) {
        add(&self.run.counts.bytes_total, node.size);
        self.run.options.progress.found(1, node.size);
        let place = Place { directory: Arc::clone(directory), name: node.name.clone() };
        if self.run.is_further_name(&place, &node) {
            // Its bytes come with its first name.
            self.run.options.progress.bytes_done(node.size);
            return;
        }
        self.batch.add(self.run, place, node);
    }

    fn other(&mut self, directory: &Arc<Directory>, node: Node) {
        let place = Place { directory: Arc::clone(directory), name: node.name.clone() };
        if matches!(node.kind, NodeKind::Socket | NodeKind::Other(_)) || self.run.options.dry_run {
            add(&self.run.counts.others, u64::from(self.run.options.dry_run));
            return;
        }
        if self.run.is_further_name(&place, &node) {
            return;
        }
        let mut made = create(directory.entry(&node.name), &node);
        if made.as_ref().is_err_and(|error| error.source.kind() == std::io::ErrorKind::AlreadyExists) {
            if self.run.options.overwrite == Overwrite::Never {
                return;
            }
            // What is there may be the same; but a link's target cannot be changed, only replaced.
            if let Err(error) = remove_all(&directory.open, &node.name) {
                return self.run.error(&place.path(), &format_args!("cannot replace what is there: {error}"));
            }
            made = create(directory.entry(&node.name), &node);
        }
        match made.and_then(|_| Stat::at(directory.entry(&node.name))) {
            Ok(stat) => {
                add(&self.run.counts.others, 1);
                self.run.finish_file(&place, &node, None, &Before::changed(&stat));
            }
            Err(error) => self.run.error(&error.path, &format_args!("cannot {}: {}", error.action, error.source)),
        }
    }

    fn delete_others(&self, directory: &Directory, path: &Path, kept: &HashSet<Box<[u8]>>) {
        if directory.is_fresh {
            return;
        }
        let present = match names(&directory.open) {
            Ok(present) => present,
            Err(error) => return self.run.error(path, &format_args!("cannot list the directory: {error}")),
        };
        for name in present {
            let name_path = path.join(OsStr::from_bytes(&name));
            // What was not asked for is not touched, whether the backup has it or not.
            if kept.contains(&name) || !self.may_be_deleted(directory, &name, &name_path) {
                continue;
            }
            if self.run.options.dry_run {
                add(&self.run.counts.deleted, 1);
                continue;
            }
            match remove_all(&directory.open, &name) {
                Ok(removed) => add(&self.run.counts.deleted, removed),
                Err(error) => self.run.error(&directory.path_of(&name), &format_args!("cannot remove it: {error}")),
            }
        }
    }
}

/// A directory still to be walked.
struct Below {
    id: Id,
    directory: Arc<Directory>,
    /// In the backup.
    path: PathBuf,
    depth: usize,
}
