//! Places where snapshots are mounted to be looked at: `/run/snapback/views/ID/tree`, and where their clones are to be
//! worked on: `/run/snapback/clones/ID/tree`.
//!
//! Whoever looks holds a lock on `ID`, so that a place without a holder is left over from a process that died, and is
//! cleared by the next who looks or deletes. Does not know what is mounted there.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::mount::UnmountFlags;

use crate::error::Error;
use crate::id::Id;

const ROOT: &str = "/run/snapback";

/// Who may enter a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// Its owner alone: a snapshot shows what the directories above the original hide.
    Owner,
    /// Whoever knows its name, which is random: a server starts on it as a user of its own.
    Servers,
}

impl For {
    fn base(self) -> PathBuf {
        Path::new(ROOT).join(if self == For::Owner { "views" } else { "clones" })
    }

    /// Nobody but the owner may list either.
    fn mode(self) -> u32 {
        if self == For::Owner { 0o700 } else { 0o711 }
    }
}

/// An empty directory to mount something on. Removed when dropped, with what is still mounted there.
#[derive(Debug)]
pub(crate) struct Place {
    id: Id,
    who: For,
    tree: PathBuf,
    _lock: File,
}

impl Place {
    /// A new one, that only its owner may enter.
    pub(crate) fn new() -> Result<Place, Error> {
        Place::made(For::Owner)
    }

    /// A new one.
    pub(crate) fn made(who: For) -> Result<Place, Error> {
        if who == For::Servers {
            open_to_servers()?;
        }
        loop {
            let id = Id::random();
            let (directory, tree) = paths(who, id);
            let made = DirBuilder::new().mode(who.mode()).recursive(true).create(&tree);
            let lock = match made.and_then(|()| File::open(&directory)) {
                // Without a lock it looked abandoned.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                lock => lock.map_err(Error::io("create", &tree))?,
            };
            rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(Error::io("lock", &directory))?;
            // Up to now it did; whoever clears it holds the lock meanwhile.
            if tree.exists() {
                return Ok(Place { id, who, tree, _lock: lock });
            }
        }
    }

    /// Its name.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.tree
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What fails here is cleared by the next who looks.
        let _ = clear(self.who, self.id);
    }
}

/// Whether somebody looks at what is mounted there.
pub(crate) fn is_in_use(id: Id) -> bool {
    matches!(abandoned(For::Owner, id), Ok(None))
}

/// The lock of a place, if nobody else has it.
fn abandoned(who: For, id: Id) -> io::Result<Option<File>> {
    let directory = File::open(paths(who, id).0)?;
    Ok(rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(directory))
}

/// Clears the places whose process has died.
pub(crate) fn sweep() -> Result<(), Error> {
    for who in [For::Owner, For::Servers] {
        let base = who.base();
        let entries = match fs::read_dir(&base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io("list", &base))?,
        };
        for entry in entries {
            let name = entry.map_err(Error::io("list", &base))?.file_name();
            let Some(Ok(id)) = name.to_str().map(str::parse) else { continue };
            if let Ok(Some(_lock)) = abandoned(who, id) {
                clear(who, id)?;
            }
        }
    }
    Ok(())
}

/// The directory above may have been made for what is its owner's alone.
fn open_to_servers() -> Result<(), Error> {
    DirBuilder::new().mode(0o711).recursive(true).create(ROOT).map_err(Error::io("create", ROOT))?;
    let mode = fs::metadata(ROOT).map_err(Error::io("look at", ROOT))?.permissions().mode();
    if mode & 0o001 == 0 {
        fs::set_permissions(ROOT, Permissions::from_mode(mode | 0o111)).map_err(Error::io("set the mode of", ROOT))?;
    }
    Ok(())
}

/// Writes what is dirty on the file system of a directory to it, while it can still be written to: a snapshot then
/// stops writers for a shorter time.
pub(crate) fn sync_file_system(directory: &Path) -> Result<(), Error> {
    let file = File::open(directory).map_err(Error::io("open", directory))?;
    rustix::fs::syncfs(&file).map_err(Error::io("sync", directory))
}

fn paths(who: For, id: Id) -> (PathBuf, PathBuf) {
    let directory = who.base().join(id.to_string());
    let tree = directory.join("tree");
    (directory, tree)
}

fn clear(who: For, id: Id) -> Result<(), Error> {
    let (directory, tree) = paths(who, id);
    while rustix::mount::unmount(&tree, UnmountFlags::DETACH).is_ok() {}
    for path in [&tree, &directory] {
        match fs::remove_dir(path) {
            // Another one clears it at the same time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // It is just being made, and will be somebody's.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && path == &directory => {}
            removed => removed.map_err(Error::io("remove", path))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_place_is_not_cleared_by_another_who_sweeps() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        sweep().unwrap();
                        let place = Place::new().unwrap();
                        assert!(place.path().exists());
                        std::thread::yield_now();
                        assert!(place.path().exists() && is_in_use(place.id()));
                    }
                });
            }
        });
    }
}
