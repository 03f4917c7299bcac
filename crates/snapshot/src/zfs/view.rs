//! Looking at a snapshot: below `.zfs/snapshot` of the mounted dataset, else through a read-only clone.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::place::{self, Place};
use crate::provider::View;
use crate::zfs::Zfs;
use crate::zfs::command::Command;
use crate::zfs::family::{Snapshot, view_prefix};

/// Below `.zfs/snapshot`; the system mounts it when it is looked at, and unmounts it by itself.
struct Control {
    path: PathBuf,
}

impl View for Control {
    fn path(&self) -> &Path {
        &self.path
    }
}

/// A read-only clone, destroyed with the view.
struct Cloned {
    place: Place,
    clone: String,
    command: Command,
}

impl View for Cloned {
    fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Cloned {
    fn drop(&mut self) {
        // What fails here, as somebody's shell is in the tree for example, is done by the next view or deletion.
        let _ = self.command.run(&["unmount", &self.clone]);
        let _ = self.command.run_when_free(&["destroy", &self.clone]);
    }
}

/// Shows a snapshot.
pub(super) fn open(zfs: &Zfs, snapshot: &Snapshot) -> Result<Box<dyn View>, Error> {
    if snapshot.dataset == zfs.dataset {
        let path = zfs.directory.join(".zfs/snapshot").join(&snapshot.name);
        // Listing it makes the system mount it.
        if std::fs::read_dir(&path).is_ok() {
            return Ok(Box::new(Control { path }));
        }
    }
    sweep(&zfs.command, &zfs.dataset)?;
    let place = Place::new()?;
    let clone = format!("{}{}", view_prefix(&zfs.dataset), place.id());
    let point = format!("mountpoint={}", place.path().display());
    let view = Cloned { place, clone, command: zfs.command.clone() };
    let options = ["-o", "readonly=on", "-o", "canmount=noauto", "-o", &point];
    zfs.command.run(&[&["clone"], &options[..], &[&snapshot.full(), &view.clone]].concat())?;
    // zfs-fuse has mounted it already.
    if zfs.command.property("mounted", &view.clone)? != "yes" {
        zfs.command.run(&["mount", &view.clone])?;
    }
    Ok(Box::new(view))
}

/// Destroys the clones of views whose process has died.
pub(super) fn sweep(command: &Command, dataset: &str) -> Result<(), Error> {
    place::sweep()?;
    let Some((parent, _)) = dataset.rsplit_once('/') else { return Ok(()) };
    let prefix = view_prefix(dataset);
    for (name, is_mounted) in command.datasets(&["-d", "1", parent])? {
        let Some(Ok(id)) = name.strip_prefix(&prefix).map(str::parse) else { continue };
        if !place::is_in_use(id) {
            if is_mounted {
                command.run(&["unmount", &name])?;
            }
            command.run_when_free(&["destroy", &name])?;
        }
    }
    Ok(())
}
