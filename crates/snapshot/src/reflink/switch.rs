//! A clone changes places with the live tree.
//!
//! Names change places, nothing is copied; so it takes the same time whatever the size. Where the directory has nothing
//! in it that must stay, it is exchanged as a whole: one atomic rename. Where a file system is mounted upon it or
//! below it (or a subvolume, or a store of snapshots lies in it), those stay in place: each directory that leads to one
//! stays, too, and its other [entries](super::entries) are exchanged one by one.
//!
//! Which tree is which is told by inode numbers, never by "it was done already": a step can be performed or reverted
//! again whatever happened before.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::entries::{self, Entries};
use super::rename::rename;
use super::store::{self, Marker, Stage, Store};
use crate::error::Error;
use crate::id::Id;
use crate::mounts;
use crate::provider::Step;

/// What a step does; the arguments in the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Action {
    /// Makes the place where the old tree will be kept.
    Reserve { store: PathBuf, marker: Marker },
    /// Exchanges the directory with the clone.
    Exchange {
        live: PathBuf,
        clone: PathBuf,
        /// Of the clone.
        inode: u64,
    },
    /// Exchanges the entries of a directory that stays with those of its clone.
    ExchangeEntries(Entries),
    /// Moves the old tree from the snapshot's place to its own.
    Keep {
        from: PathBuf,
        to: PathBuf,
        /// Of the tree.
        inode: u64,
        store: PathBuf,
        marker: Marker,
    },
    /// Removes the snapshot's place.
    Release { store: PathBuf, marker: Marker },
}

impl Action {
    fn named(&self, name: &str) -> Result<Step, Error> {
        let arguments = serde_json::to_value(self)
            .map_err(|error| Error::refused(format!("a step cannot be written to the journal: {error}")))?;
        Ok(Step { name: name.to_owned(), arguments })
    }

    fn of(step: &Step) -> Result<Action, Error> {
        serde_json::from_value(step.arguments.clone())
            .map_err(|error| Error::refused(format!("the step \"{}\" cannot be understood: {error}", step.name)))
    }
}

/// The steps that put a snapshot in the place of a directory, and keep the old tree as `old`.
pub(super) fn plan(directory: &Path, store: &Store, snapshot: &Marker, old: Id) -> Result<Vec<Step>, Error> {
    if store.read(old)?.is_some() {
        return Err(Error::refused(format!("there is a snapshot {old} already")));
    }
    let clone = store.tree(snapshot.id);
    let place = || store.path().to_owned();
    let mut kept = store.marker(old, Stage::Partial);
    let mut steps =
        vec![Action::Reserve { store: place(), marker: kept.clone() }.named("make a place for the old tree")?];
    let staying = staying(directory, &snapshot.left_out)?;
    kept.left_out = staying.iter().cloned().collect();
    // A whole directory keeps its inode's number when it is moved; a directory that stays leaves the clone's.
    let moved = if staying.is_empty() && !store::is_apart(directory)? {
        let live = directory.to_owned();
        steps.push(
            Action::Exchange { live, clone: clone.clone(), inode: inode(&clone)? }
                .named("exchange the directory with the snapshot")?,
        );
        inode(directory)?
    } else {
        for entries in entries::plan(directory, &clone, &staying)? {
            let name = format!("exchange the entries of {} with the snapshot's", entries.live.display());
            steps.push(Action::ExchangeEntries(entries).named(&name)?);
        }
        inode(&clone)?
    };
    kept.stage = Stage::Complete;
    steps.push(
        Action::Keep { from: clone, to: store.tree(old), inode: moved, store: place(), marker: kept }
            .named("keep the old tree")?,
    );
    steps.push(Action::Release { store: place(), marker: snapshot.clone() }.named("remove the place of the snapshot")?);
    Ok(steps)
}

/// What lies below a directory and must stay in place: relative paths. What is below another of them is left out.
fn staying(directory: &Path, left_out: &[PathBuf]) -> Result<BTreeSet<PathBuf>, Error> {
    let mounts = mounts::mounts()?;
    let mounted = mounts::below(&mounts, directory);
    let mounted = mounted.filter_map(|mount| mount.point.strip_prefix(directory).ok().map(Path::to_owned));
    let mut paths: BTreeSet<PathBuf> = mounted.collect();
    let device = |path: &Path| fs::symlink_metadata(path).map(|stat| (stat.is_dir(), stat.dev()));
    let (_, own) = device(directory).map_err(Error::io("look at", directory))?;
    let inside = Path::new(store::NAME).to_owned();
    for below in left_out.iter().chain([&inside]) {
        let is_store = below.file_name() == Some(OsStr::new(store::NAME));
        // What was a mount or a subvolume then, need not be one now.
        match device(&directory.join(below)) {
            Ok((is_directory, device)) if is_directory && (is_store || device != own) => {
                paths.insert(below.clone());
            }
            _ => {}
        }
    }
    let all = paths.clone();
    paths.retain(|path| !path.ancestors().skip(1).any(|above| all.contains(above)));
    Ok(paths)
}

/// Performs a step of [`plan`].
pub(super) fn perform(directory: &Path, step: &Step) -> Result<(), Error> {
    match Action::of(step)? {
        Action::Reserve { store, marker } => known(directory, &store)?.reserve(&marker),
        Action::Exchange { live, clone, inode: wanted } => {
            if inode(&live)? == wanted {
                return Ok(());
            }
            refuse_unless(&clone, wanted)?;
            exchange(&live, &clone)
        }
        Action::ExchangeEntries(entries) => entries.perform(),
        Action::Keep { from, to, inode: moved, store, marker } => {
            if from.symlink_metadata().is_ok() {
                refuse_unless(&from, moved)?;
                move_tree(&from, &to)?;
            }
            refuse_unless(&to, moved)?;
            known(directory, &store)?.write(&marker)
        }
        Action::Release { store, marker } => known(directory, &store)?.release(marker.id),
    }
}

/// Reverts a step of [`plan`].
pub(super) fn revert(directory: &Path, step: &Step) -> Result<(), Error> {
    match Action::of(step)? {
        Action::Reserve { store, marker } => known(directory, &store)?.release(marker.id),
        Action::Exchange { live, clone, inode: wanted } => {
            if inode(&live)? != wanted {
                return refuse_unless(&clone, wanted);
            }
            exchange(&live, &clone)
        }
        Action::ExchangeEntries(entries) => entries.revert(),
        Action::Keep { from, to, inode: moved, store, mut marker } => {
            let store = known(directory, &store)?;
            if store.read(marker.id)?.is_none() || to.symlink_metadata().is_err() {
                return Ok(());
            }
            refuse_unless(&to, moved)?;
            marker.stage = Stage::Partial;
            store.write(&marker)?;
            move_tree(&to, &from)
        }
        Action::Release { store, marker } => known(directory, &store)?.reserve(&marker),
    }
}

/// A journal names paths; only the stores of this directory are touched.
fn known(directory: &Path, path: &Path) -> Result<Store, Error> {
    let store = Store::all(directory).into_iter().find(|store| store.path() == path);
    store.ok_or_else(|| Error::refused(format!("{} is no store of {}", path.display(), directory.display())))
}

fn inode(path: &Path) -> Result<u64, Error> {
    fs::symlink_metadata(path).map(|stat| stat.ino()).map_err(Error::io("look at", path))
}

fn refuse_unless(path: &Path, wanted: u64) -> Result<(), Error> {
    match inode(path)? == wanted {
        true => Ok(()),
        false => Err(Error::refused(format!("{} is another directory than it was", path.display()))
            .or("somebody moved it; nothing was changed")),
    }
}

fn exchange(one: &Path, other: &Path) -> Result<(), Error> {
    rename(one, other, RenameFlags::EXCHANGE)?;
    sync_both(one, other)
}

fn move_tree(from: &Path, to: &Path) -> Result<(), Error> {
    rename(from, to, RenameFlags::NOREPLACE)?;
    sync_both(from, to)
}

fn sync_both(one: &Path, other: &Path) -> Result<(), Error> {
    for parent in [one.parent(), other.parent()].into_iter().flatten() {
        store::sync(parent)?;
    }
    Ok(())
}
