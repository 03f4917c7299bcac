//! Through the backup's trees: makes directories and what has no content, removes what should not be there, and
//! gathers files into batches.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use repository::id::Id;
use repository::tree::{Node, NodeKind, Tree};
use repository::{BlobReader, Error};
use rustix::io::Errno;

use crate::attributes::{AttributeError, Before, Entry, Stat, create, link_target};
use crate::patterns::Patterns;
use crate::restore::content::Batch;
use crate::restore::handle::Handle;
use crate::restore::linking;
use crate::restore::place::{Above, Directory, Place, has_default_acl, make_directory, open_directory};
use crate::restore::remove::{clear, is_directory, names, open_accessible, refuse_mount, remove_all, remove_if_empty};
use crate::restore::run::{Run, add};
use crate::restore::{Overwrite, should_leave};

/// Further names of files that wait for their first ones at the most.
const MAX_LINKS: usize = 20_000;
/// How deep below what the backup does not have is looked for what patterns protect; what lies deeper stays.
const MAX_LOOK: usize = 1000;

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
        // A stack of its own instead of recursion: how deep a tree is, is for the tree's author to say. A directory
        // is made when its turn comes, so that those that wait need not be open.
        while let Some(Below { id, above, node, path, depth }) = directories.pop() {
            if self.run.options.progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.run.check_full()?;
            if let Some(directory) = self.directory(&above, node, &path) {
                match self.reader.load_tree(&id) {
                    Ok(nodes) => self.entries(nodes, &directory, &path, depth, &mut directories)?,
                    Err(error) => self.run.error(&path, &error),
                }
                self.run.finish_directory(directory);
            }
            self.run.finish_directory(above);
        }
        self.flush()
    }

    /// Restores what was gathered.
    fn flush(&mut self) -> Result<(), Error> {
        std::mem::take(&mut self.batch).restore(self.run)?;
        linking::make(self.run);
        Ok(())
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
        let is_on_the_way = depth + 1 < self.ahead.len();
        let mut kept = HashSet::new();
        let mut found = within;
        let mut below = Vec::new();
        for node in tree.nodes {
            if wanted.as_ref().is_some_and(|name| *name != node.name) {
                continue;
            }
            if is_on_the_way && node.kind != NodeKind::Dir {
                break;
            }
            found = true;
            let node_path = path.join(OsStr::from_bytes(&node.name));
            if !node.has_safe_name() {
                let name = node.name.escape_ascii();
                self.run.error(path, &format_args!("skipped an entry with the forbidden name \"{name}\""));
                continue;
            }
            if !self.run.options.delete.is_empty() {
                kept.insert(node.name.clone());
            }
            if !is_on_the_way && self.is_left_out(&node_path, node.kind == NodeKind::Dir) {
                continue;
            }
            match node.kind {
                NodeKind::Dir => match node.subtree {
                    Some(id) => {
                        let above = Arc::clone(directory);
                        below.push(Below { id, above, node, path: node_path, depth: depth + 1 });
                    }
                    None => self.run.error(&node_path, &"the backup has no tree for this directory"),
                },
                NodeKind::File => self.file(directory, node),
                _ => self.other(directory, node),
            }
            if self.batch.is_full() || self.run.links.waiting() >= MAX_LINKS {
                self.flush()?;
            }
        }
        if !found {
            let asked = self.run.options.path.as_deref().unwrap_or(path);
            return Err(Error::Refused(format!("the backup has no {}", asked.display())));
        }
        if within && self.run.options.delete.iter().any(|made_of| path.starts_with(made_of)) {
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

    fn directory(&self, above: &Arc<Directory>, node: Node, path: &Path) -> Option<Arc<Directory>> {
        let name = node.name.clone();
        let above_and_name = Above::Directory(Arc::clone(above), name.clone());
        if self.run.options.dry_run {
            return Some(self.look_at_directory(above, above_and_name, &name));
        }
        match self.make_directory(above, &name) {
            Ok((open, is_fresh)) => {
                let stat = match Stat::of(open.as_fd()) {
                    Ok(stat) => stat,
                    Err(error) => {
                        self.run.error(path, &format_args!("cannot look at the directory: {error}"));
                        return None;
                    }
                };
                add(&self.run.counts.others, 1);
                // A fresh directory has inherited what the one above has.
                let has_default_acl = if is_fresh { above.has_default_acl } else { has_default_acl(&open) };
                let fresh_without_acl = is_fresh && !has_default_acl;
                let before = if fresh_without_acl { Before::created(&stat) } else { Before::changed(&stat) };
                Some(Arc::new(Directory {
                    handle: Some(Handle::new(&self.run.handles, open, &stat)),
                    above: above_and_name,
                    node: Some(node),
                    before,
                    is_fresh,
                    is_mount: stat.mount_root == Some(true),
                    new_file: OnceLock::new(),
                    has_default_acl,
                }))
            }
            Err((action, error)) => {
                self.run.note_full(error);
                self.run.error(path, &format_args!("cannot {action} the directory: {error}"));
                None
            }
        }
    }

    /// Makes a directory if it is not there, and opens it. Gives whether it was made.
    fn make_directory(&self, above: &Directory, name: &[u8]) -> Result<(OwnedFd, bool), (&'static str, Errno)> {
        let dir = above.open().map_err(|error| ("reach", error))?;
        let creating = |error| ("create", error);
        match make_directory(&dir, name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let entry = Entry { dir: dir.as_fd(), name, dir_path: Path::new("") };
                if is_directory(entry) {
                    return open_accessible(&dir, name).map(|open| (open, false)).map_err(|error| ("open", error));
                }
                // A file or a link is in the way.
                if self.run.options.overwrite == Overwrite::Never {
                    return Err(creating(Errno::EXIST));
                }
                clear(&dir, name, false).map_err(|error| ("make room for", error))?;
                make_directory(&dir, name).map_err(creating)?;
            }
            Err(error) => return Err(creating(error)),
        }
        open_directory(&dir, name).map(|open| (open, true)).map_err(|error| ("open", error))
    }

    /// In a dry run, a directory that is not there has nothing in it.
    fn look_at_directory(&self, above: &Directory, above_and_name: Above, name: &[u8]) -> Arc<Directory> {
        let existing = above.open().and_then(|dir| open_directory(&dir, name));
        let existing = existing.and_then(|open| Ok((Stat::of(open.as_fd())?, open))).ok();
        let (is_fresh, is_mount) = match &existing {
            Some((stat, _)) => (above.is_fresh, stat.mount_root == Some(true)),
            None => (true, false),
        };
        Arc::new(Directory {
            handle: existing.map(|(stat, open)| Handle::new(&self.run.handles, open, &stat)),
            above: above_and_name,
            node: None,
            before: above.before,
            is_fresh,
            is_mount,
            new_file: OnceLock::new(),
            has_default_acl: false,
        })
    }

    fn file(&mut self, directory: &Arc<Directory>, node: Node) {
        add(&self.run.counts.bytes_total, node.size);
        self.run.options.progress.found(1, node.size);
        let place = Place { directory: Arc::clone(directory), name: node.name.clone() };
        if linking::is_further_name(self.run, &place, &node) {
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
        if linking::is_further_name(self.run, &place, &node) {
            return;
        }
        match self.make_other(&place, &node) {
            Ok(Some(before)) => {
                add(&self.run.counts.others, 1);
                self.run.finish_file(&place, &node, None, &before);
            }
            Ok(None) => linking::forget(self.run, &place, &node),
            Err(error) => {
                linking::forget(self.run, &place, &node);
                self.run.error(&place.path(), &format_args!("cannot {}: {}", error.action, error.source));
            }
        }
    }

    /// Makes a link, fifo or device unless it is there already; `None` if something there is to be left.
    fn make_other(&self, place: &Place, node: &Node) -> Result<Option<Before>, AttributeError> {
        let path = Path::new("");
        let opened = place.directory.open().map_err(|error| AttributeError {
            path: path.to_owned(),
            action: crate::attributes::Action::Create("entry in its directory"),
            source: error.into(),
        });
        let dir = opened?;
        let entry = Entry { dir: dir.as_fd(), name: &node.name, dir_path: path };
        match create(entry, node) {
            Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {
                let stat = Stat::at(entry)?;
                if should_leave(self.run.options.overwrite, &stat, node.mtime) {
                    return Ok(None);
                }
                if is_the_same(entry, &stat, node) {
                    return Ok(Some(Before::untouched(&stat)));
                }
                if clear(&dir, &node.name, !self.run.options.delete.is_empty()).is_err() {
                    return Err(error);
                }
                create(entry, node)?;
            }
            made => drop(made?),
        }
        Ok(Some(Before::changed(&Stat::at(entry)?)))
    }

    fn delete_others(&self, directory: &Directory, path: &Path, kept: &HashSet<Box<[u8]>>) {
        // A backup that stays on one file system knows only an empty directory where another one is mounted.
        if directory.is_fresh || directory.is_mount && kept.is_empty() {
            return;
        }
        let listed = directory.open().and_then(|open| Ok((names(&open)?, open)));
        let (present, open) = match listed {
            Ok(listed) => listed,
            Err(error) => return self.run.error(path, &format_args!("cannot list the directory: {error}")),
        };
        for name in present {
            let name_path = path.join(OsStr::from_bytes(&name));
            if kept.contains(&name) {
                continue;
            }
            if let Err(error) = self.delete(&open, &name, &name_path, 0) {
                let path = directory.path().join(OsStr::from_bytes(&name));
                self.run.error(&path, &format_args!("cannot remove it: {error}"));
            }
        }
    }

    /// Removes what the backup does not have, except what was not asked for: that is not touched, and neither are the
    /// directories it lies in.
    fn delete(&self, above: &OwnedFd, name: &[u8], path: &Path, depth: usize) -> Result<(), Errno> {
        let (include, exclude) = (&self.run.options.include, &self.run.options.exclude);
        let is_directory = is_directory(Entry { dir: above.as_fd(), name, dir_path: path });
        if exclude.as_ref().is_some_and(|exclude| exclude.matches(path, is_directory)) {
            return Ok(());
        }
        let is_included = include.as_ref().is_none_or(|include| include.matches(path, is_directory));
        let below = |patterns: &Option<Patterns>| patterns.as_ref().is_some_and(|all| all.may_match_below(path));
        let must_look = is_directory && (below(exclude) || !is_included && below(include));
        if must_look && depth < MAX_LOOK {
            let open = open_accessible(above, name)?;
            refuse_mount(above, &open)?;
            for below in names(&open)? {
                self.delete(&open, &below, &path.join(OsStr::from_bytes(&below)), depth + 1)?;
            }
        } else if must_look || !is_included {
            return Ok(());
        }
        if !is_included {
            return Ok(());
        }
        if self.run.options.dry_run {
            add(&self.run.counts.deleted, 1);
            return Ok(());
        }
        let removed = if must_look { remove_if_empty(above, name) } else { remove_all(above, name) };
        add(&self.run.counts.deleted, removed?);
        Ok(())
    }
}

/// Whether a link, fifo or device is there already, attributes aside.
fn is_the_same(entry: Entry<'_>, stat: &Stat, node: &Node) -> bool {
    let kind = NodeKind::of_file_mode(repository::tree::file_mode_from_st_mode(stat.mode));
    kind == node.kind
        && match node.kind {
            NodeKind::Symlink => link_target(entry).is_ok_and(|target| target == node.link_target),
            NodeKind::BlockDevice | NodeKind::CharDevice => stat.rdev == node.device,
            _ => true,
        }
}

/// A directory still to be made and walked.
struct Below {
    id: Id,
    above: Arc<Directory>,
    node: Node,
    /// In the backup.
    path: PathBuf,
    depth: usize,
}
