//! Files with several names: restored under the first one, the others are linked to it once it is there.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Mutex;

use repository::tree::{Node, NodeKind, Timestamp};
use rustix::fs::{AtFlags, linkat};
use rustix::io::Errno;

use crate::attributes::{Entry, Stat};
use crate::restore::place::Place;
use crate::restore::remove::clear;
use crate::restore::run::{Run, add};
use crate::restore::should_leave;

#[derive(Default)]
pub(super) struct Links {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By file system and inode of the backup.
    first_names: HashMap<(u64, u64), FirstName>,
    waiting: Vec<Link>,
}

struct FirstName {
    place: Place,
    kind: NodeKind,
    /// Names still to come; some may lie outside of the backup.
    others: u64,
}

struct Link {
    first: Place,
    place: Place,
    mtime: Timestamp,
}

impl Links {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the links are held")
    }

    /// Whether this is a further name of a file that is restored under its first one. Remembers first names.
    pub(super) fn is_further_name(&self, run: &Run<'_>, place: &Place, node: &Node) -> bool {
        if node.links < 2 || node.inode == 0 {
            return false;
        }
        let key = (node.device_id, node.inode);
        let mut state = self.lock();
        let Some(first) = state.first_names.get_mut(&key) else {
            state
                .first_names
                .insert(key, FirstName { place: place.clone(), kind: node.kind.clone(), others: node.links - 1 });
            return false;
        };
        // A link and a file are never one inode; whoever says so would have the one stand in for the other.
        if first.kind != node.kind {
            return false;
        }
        first.others = first.others.saturating_sub(1);
        let is_last = first.others == 0;
        let link = Link { first: first.place.clone(), place: place.clone(), mtime: node.mtime };
        state.waiting.push(link);
        let known = if is_last { state.first_names.remove(&key) } else { None };
        drop(state);
        if let Some(FirstName { place, .. }) = known {
            run.finish_directory(place.directory);
        }
        true
    }

    /// The first name does not become what the backup has, so the next one is to be restored by itself.
    pub(super) fn forget(&self, run: &Run<'_>, place: &Place, node: &Node) {
        let mut state = self.lock();
        let key = (node.device_id, node.inode);
        let is_first = |known: &FirstName| {
            std::sync::Arc::ptr_eq(&known.place.directory, &place.directory) && known.place.name == place.name
        };
        if node.links >= 2 && state.first_names.get(&key).is_some_and(is_first) {
            let known = state.first_names.remove(&key);
            drop(state);
            if let Some(FirstName { place, .. }) = known {
                run.finish_directory(place.directory);
            }
        }
    }

    /// How many names wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Makes the further names met so far. All first ones must be there.
    pub(super) fn make(&self, run: &Run<'_>) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for Link { first, place, mtime } in waiting {
            if !run.options.dry_run && !run.options.progress.is_cancelled() {
                match link(run, &first, &place, mtime) {
                    Ok(made) => add(&run.counts.others, u64::from(made)),
                    Err(error) => {
                        let first = first.path();
                        run.error(&place.path(), &format_args!("cannot link it to {}: {error}", first.display()));
                    }
                }
            }
            run.finish_directory(first.directory);
            run.finish_directory(place.directory);
        }
    }

    /// Makes the last ones, and lets go of the directories of names whose others lie outside of the backup.
    pub(super) fn end(&self, run: &Run<'_>) {
        self.make(run);
        let first_names = std::mem::take(&mut self.lock().first_names);
        for first in first_names.into_values() {
            run.finish_directory(first.place.directory);
        }
    }
}

/// Gives whether there is a link to the first name now.
fn link(run: &Run<'_>, first: &Place, place: &Place, mtime: Timestamp) -> Result<bool, Errno> {
    let (from, to) = (first.directory.open()?, place.directory.open()?);
    let make = || linkat(&from, &*first.name, &to, &*place.name, AtFlags::empty());
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.map(|()| true),
    }
    let is = Stat::at(Entry { dir: to.as_fd(), name: &place.name, dir_path: Path::new("") });
    let should = Stat::at(Entry { dir: from.as_fd(), name: &first.name, dir_path: Path::new("") });
    if let (Ok(is), Ok(should)) = (is, should) {
        if (is.device, is.inode) == (should.device, should.inode) {
            return Ok(true);
        }
        if should_leave(run.options.overwrite, &is, mtime) {
            return Ok(false);
        }
    }
    clear(&to, &place.name, !run.options.delete.is_empty())?;
    make().map(|()| true)
}
