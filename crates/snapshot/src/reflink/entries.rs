//! Exchanging the entries of a directory that stays in place, one by one.
//!
//! The snapshot's entries are known by name and inode number. One that is in the live directory was exchanged, one
//! that is in the clone was not; whatever else is in the live directory belongs to the old tree. So each entry can be
//! done again or taken back wherever a crash left it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::attributes::{Attributes, Place};
use super::rename::rename;
use super::store;
use crate::error::Error;

/// A directory that stays, and the same one in the clone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entries {
    pub(super) live: PathBuf,
    clone: PathBuf,
    /// The snapshot's entries: name and inode number.
    snapshot: Vec<(CString, u64)>,
    /// Names that stay.
    staying: Vec<CString>,
    /// Of the live directory, before.
    live_attributes: Attributes,
    /// Of the clone; `None` if the snapshot has no such directory, and one is made to hold the old entries.
    clone_attributes: Option<Attributes>,
}

/// Every directory from the root down to what stays, the deepest last.
pub(super) fn plan(directory: &Path, clone: &Path, staying: &BTreeSet<PathBuf>) -> Result<Vec<Entries>, Error> {
    let mut names: BTreeMap<PathBuf, BTreeSet<CString>> = BTreeMap::from([(PathBuf::new(), BTreeSet::new())]);
    for path in staying {
        for below in path.ancestors() {
            let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else { continue };
            names.entry(parent.to_owned()).or_default().insert(c_string(name));
        }
    }
    names.into_iter().map(|(below, names)| Entries::new(directory.join(&below), clone.join(&below), names)).collect()
}

impl Entries {
    fn new(live: PathBuf, clone: PathBuf, staying: BTreeSet<CString>) -> Result<Entries, Error> {
        let (snapshot, clone_attributes) = match fs::symlink_metadata(&clone) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => (BTreeMap::new(), None),
            stat => {
                if !stat.map_err(Error::io("look at", &clone))?.is_dir() {
                    let message =
                        format!("{} was no directory in the snapshot, and now leads to a mount", live.display());
                    return Err(Error::refused(message).or("unmount what is mounted below it"));
                }
                (list(&clone)?, Some(read(&clone)?))
            }
        };
        Ok(Entries {
            live_attributes: read(&live)?,
            clone_attributes,
            snapshot: snapshot.into_iter().filter(|(name, _)| !staying.contains(name)).collect(),
            staying: staying.into_iter().collect(),
            live,
            clone,
        })
    }

    /// Exchanges the entries.
    pub(super) fn perform(&self) -> Result<(), Error> {
        let live = list(&self.live)?;
        let is_done = self.snapshot.iter().all(|(name, inode)| live.get(name) == Some(inode));
        if is_done && (!self.snapshot.is_empty() || self.was_moved_on()) {
            // What else is there was made since, and is no part of the old tree.
            return self.finish();
        }
        self.make_clone()?;
        let clone = list(&self.clone)?;
        // First what the snapshot does not have, so that a directory in which all is exchanged is known to be done.
        for name in live.keys().filter(|name| !self.is_snapshots(name) && !self.staying.contains(name)) {
            // What has the name of an old entry that was moved already, was made since.
            if !clone.contains_key(name) {
                rename(&self.live(name), &self.clone(name), RenameFlags::NOREPLACE)?;
            }
        }
        for (name, inode) in &self.snapshot {
            if live.get(name) == Some(inode) {
                continue;
            }
            if clone.get(name) != Some(inode) {
                return Err(Error::refused(format!("{} is not in the snapshot any more", self.clone(name).display())));
            }
            let flags = if live.contains_key(name) { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            rename(&self.clone(name), &self.live(name), flags)?;
        }
        self.finish()
    }

    /// Exchanges them back.
    pub(super) fn revert(&self) -> Result<(), Error> {
        if fs::symlink_metadata(&self.clone).is_err() && self.clone_attributes.is_none() {
            return Ok(());
        }
        let (live, clone) = (list(&self.live)?, list(&self.clone)?);
        for (name, inode) in &self.snapshot {
            if clone.get(name) == Some(inode) {
                continue;
            }
            if live.get(name) != Some(inode) {
                return Err(Error::refused(format!("{} is not in the snapshot any more", self.live(name).display())));
            }
            let flags = if clone.contains_key(name) { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            rename(&self.live(name), &self.clone(name), flags)?;
        }
        for name in clone.keys().filter(|name| !self.is_snapshots(name) && !self.staying.contains(name)) {
            if live.contains_key(name) {
                let message = format!("{} was made after the old one was moved away", self.live(name).display());
                return Err(Error::refused(message).or("move it elsewhere, and take the rollback back once more"));
            }
            rename(&self.clone(name), &self.live(name), RenameFlags::NOREPLACE)?;
        }
        match &self.clone_attributes {
            Some(attributes) => write(&self.clone, attributes)?,
            None => fs::remove_dir(&self.clone).map_err(Error::io("remove", &self.clone))?,
        }
        write(&self.live, &self.live_attributes)?;
        self.sync()
    }

    /// Whether the tree that is kept is not in the clone's place any more.
    fn was_moved_on(&self) -> bool {
        let is_gone = |path: &Path| fs::symlink_metadata(path).is_err();
        match self.clone_attributes {
            Some(_) => is_gone(&self.clone),
            None => self.clone.parent().is_none_or(is_gone),
        }
    }

    /// The attributes change places, too.
    fn finish(&self) -> Result<(), Error> {
        if let Some(attributes) = &self.clone_attributes {
            write(&self.live, attributes)?;
        }
        if fs::symlink_metadata(&self.clone).is_ok() {
            write(&self.clone, &self.live_attributes)?;
        }
        self.sync()
    }

    fn make_clone(&self) -> Result<(), Error> {
        if self.clone_attributes.is_some() {
            return Ok(());
        }
        match fs::DirBuilder::new().mode(0o700).create(&self.clone) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            made => made.map_err(Error::io("create", &self.clone)),
        }
    }

    fn is_snapshots(&self, name: &CString) -> bool {
        self.snapshot.binary_search_by(|(other, _)| other.cmp(name)).is_ok()
    }

    fn live(&self, name: &CString) -> PathBuf {
        self.live.join(OsStr::from_bytes(name.as_bytes()))
    }

    fn clone(&self, name: &CString) -> PathBuf {
        self.clone.join(OsStr::from_bytes(name.as_bytes()))
    }

    fn sync(&self) -> Result<(), Error> {
        for directory in [&self.live, &self.clone] {
            if directory.exists() {
                store::sync(directory)?;
            }
        }
        Ok(())
    }
}

fn c_string(name: &OsStr) -> CString {
    CString::new(name.as_bytes()).expect("names of files have no NUL")
}

fn list(directory: &Path) -> Result<BTreeMap<CString, u64>, Error> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        // Not what the list says: below a mount point lies another inode.
        match fs::symlink_metadata(entry.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            stat => {
                let inode = stat.map_err(Error::io("look at", entry.path()))?.ino();
                entries.insert(c_string(&entry.file_name()), inode);
            }
        }
    }
    Ok(entries)
}

fn read(directory: &Path) -> Result<Attributes, Error> {
    let opened = fs::File::open(directory).map_err(Error::io("open", directory))?;
    Attributes::read(Place::Open(opened.as_fd())).map_err(|failed| failed.at(directory))
}

fn write(directory: &Path, attributes: &Attributes) -> Result<(), Error> {
    let opened = fs::File::open(directory).map_err(Error::io("open", directory))?;
    attributes.apply(Place::Open(opened.as_fd())).map_err(|failed| failed.at(directory))
}
