//! What every mechanism of snapshots can do, and the words in which it says so.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::id::Id;

/// The mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A btrfs subvolume.
    Btrfs,
    /// A directory on a file system that shares extents between files (FICLONE): XFS, or btrfs without privileges.
    Reflink,
    /// A file system on a thin logical volume.
    LvmThin,
    /// A ZFS dataset.
    Zfs,
    /// No mechanism of the storage but a backup on the same machine, used in its stead. Made by a provider above this
    /// crate.
    Backup,
}

/// What a mechanism can do; data, so that nobody asks which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// All files are of the same moment.
    pub is_atomic: bool,
    /// The live tree is switched while it is mounted and in use; else it is unmounted for the switch.
    pub switches_live: bool,
    /// After a switch the snapshot is still there; else it became the live tree.
    pub keeps_snapshot: bool,
    /// After a switch the old tree is kept as it was, under the safety snapshot's name, without a copy having been
    /// made before. Else the safety snapshot is created first.
    pub keeps_old_tree: bool,
    /// The storage itself tells quickly what changed between two points.
    pub knows_changes: bool,
    /// Works without privileges in one's own directories.
    pub works_unprivileged: bool,
    /// A switch leaves the state directory as it is where that lies in the tree.
    pub spares_state: bool,
}

/// Where a snapshot lies: what the provider needs to find it again, and to know that it is the one it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Handle {
    /// A subvolume.
    Btrfs {
        /// Of the file system.
        filesystem: String,
        /// Number of the subvolume.
        subvolume: u64,
        /// Of the subvolume: numbers are not reused, but a file system may be made anew.
        uuid: String,
    },
    /// A cloned tree.
    Reflink {
        /// Its root.
        path: PathBuf,
    },
    /// A thin logical volume.
    LvmThin {
        /// Volume group.
        group: String,
        /// Logical volume.
        volume: String,
        /// Of the logical volume.
        uuid: String,
    },
    /// `dataset@name`.
    Zfs {
        /// The dataset it is of. After a switch it may lie in another, that was set aside.
        dataset: String,
        /// Behind the @.
        name: String,
        /// The `guid` property.
        guid: String,
    },
    /// A backup, where the storage has no snapshots.
    Backup {
        /// Where the repository lies.
        repository: PathBuf,
        /// The file that holds its password.
        password_file: PathBuf,
        /// Of the backup's record: 64 hexadecimal digits.
        backup: String,
    },
}

/// How much room a snapshot takes, in bytes. Two numbers: what was written since says nothing about what deleting it
/// would free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// What the live tree has grown by since, or was rewritten of it.
    pub grown: Option<u64>,
    /// What deleting it would free; an estimate.
    pub reclaimable: Option<u64>,
}

/// Differences in numbers; directories are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Files that are in both, and differ.
    pub changed: u64,
    /// Files in the second alone.
    pub added: u64,
    /// Files in the first alone.
    pub removed: u64,
    /// Bytes of the changed and the added ones, as they are in the second.
    pub bytes: u64,
}

/// One step of a switch. Its name is a short text for people and for the journal; the arguments are the provider's
/// own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does: "exchange the subvolumes".
    pub name: String,
    /// What the provider needs to perform or revert it, whatever happened before.
    pub arguments: serde_json::Value,
}

/// A path that may differ between two points in time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Changed {
    /// Relative to the directory; empty for the directory itself.
    pub path: PathBuf,
    /// Whether anything below it may differ too: it was renamed, for example. A directory whose own times or entries
    /// changed does not make all that is below it suspect.
    pub is_tree: bool,
}

/// A part of the tree that looks like a directory and is not in the snapshots of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Relative to the directory.
    pub path: PathBuf,
    /// Nothing in it changes: it is most likely a snapshot that somebody else made.
    pub is_read_only: bool,
}

/// A snapshot, mounted or otherwise visible as a tree until this is dropped.
pub trait View {
    /// The root of the tree.
    fn path(&self) -> &Path;
}

/// One mechanism of snapshots, applied to one directory.
pub trait Provider: Send + Sync {
    /// Which mechanism.
    fn kind(&self) -> Kind;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// The directory, as an absolute path without symbolic links.
    fn directory(&self) -> &Path;

    /// All that lies on the storage under a name that Snapback gave, also what no record knows of: a creation that
    /// was cut short.
    fn list(&self) -> Result<Vec<(Id, Handle)>, Error>;

    /// What below the directory is no mount, and yet not in its snapshots; not what lies in these parts in turn, and
    /// nothing of Snapback's own.
    fn nested(&self) -> Result<Vec<Nested>, Error> {
        Ok(Vec::new())
    }

    /// Makes a snapshot of the directory as it is now. Durable when it returns.
    fn create(&self, id: Id) -> Result<Handle, Error>;

    /// Deletes a snapshot, or a tree that was kept. Refused while it is mounted as somebody's live tree, and if what
    /// lies there is not what the handle says. What is gone already is success.
    fn delete(&self, handle: &Handle) -> Result<(), Error>;

    /// Shows a snapshot as a read-only tree.
    fn view(&self, handle: &Handle) -> Result<Box<dyn View>, Error>;

    /// Makes a tree of its own with a snapshot's content, to be written to without anybody seeing it. It lies where a
    /// snapshot of this id would, is listed as one, and goes by [`Provider::delete`]. `None` where there is no such thing.
    fn clone_of(&self, snapshot: &Handle, id: Id) -> Result<Option<Handle>, Error> {
        let _ = (snapshot, id);
        Ok(None)
    }

    /// Shows a clone as a tree that can be written to, at a path that every user may enter who knows it.
    fn view_clone(&self, clone: &Handle) -> Result<Box<dyn View>, Error> {
        self.view(clone)
    }

    /// How much room a snapshot takes.
    fn space(&self, handle: &Handle) -> Result<Space, Error>;

    /// The same for several, which may be quicker at once.
    fn spaces(&self, handles: &[Handle]) -> Vec<Result<Space, Error>> {
        handles.iter().map(|handle| self.space(handle)).collect()
    }

    /// The steps that put a snapshot's content in the place of the live tree, and keep the old one as `old`. Nothing
    /// is changed. After the last step the tree kept is found by [`Provider::list`] under `old`, where
    /// [`Abilities::keeps_old_tree`].
    fn plan_switch(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error>;

    /// Performs a step of [`Provider::plan_switch`]. One that was performed already, in part or as a whole, is
    /// success.
    fn perform(&self, step: &Step) -> Result<(), Error>;

    /// Takes a step back. One that was never performed, or only in part, is success. Steps are reverted in the
    /// opposite order.
    fn revert(&self, step: &Step) -> Result<(), Error>;

    /// What may differ between a snapshot and another or, if `None`, the live tree; `None` if the storage cannot tell
    /// quickly. Too many is allowed, too few is not. Contents of nested subvolumes and of mounts below are not told.
    fn changed_paths(&self, from: &Handle, to: Option<&Handle>) -> Result<Option<Vec<Changed>>, Error>;

    /// What differs between a snapshot and the live tree, in numbers, where the mechanism can tell without a view;
    /// `None` where somebody has to compare.
    fn summary(&self, from: &Handle) -> Result<Option<Summary>, Error> {
        let _ = from;
        Ok(None)
    }

    /// What may differ between two snapshots in anything at all that an inode holds, its time of change too, so that
    /// whoever keeps a copy of the first needs to look at nothing else to have one of the second: all names of a file with
    /// several are told, and a directory whose entries are others is told itself, also where that is a nested subvolume's
    /// doing. `None` if the storage cannot tell that quickly, or if it would be more than `most` paths: they are held in
    /// memory.
    fn dirty_paths(&self, from: &Handle, to: &Handle, most: usize) -> Result<Option<Vec<Changed>>, Error> {
        let _ = (from, to, most);
        Ok(None)
    }

    /// Whether [`Provider::dirty_paths`] has an answer at all: else there is no use in keeping a snapshot to ask for it.
    fn tells_dirty_paths(&self) -> bool {
        false
    }
}

/// Finds the provider of a directory, of which a snapshot with this handle was made. The directory may be without its
/// mount for the moment: a switch that was cut short is then finished by it.
pub type Open<'a> = dyn Fn(&Path, &Handle) -> Result<Box<dyn Provider>, Error> + 'a;
