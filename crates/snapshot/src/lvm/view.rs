//! Looking at a snapshot: activated, and mounted read-only without touching its journal.

use std::ffi::CString;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::Error;
use crate::lvm::command::Command;
use crate::lvm::mapper;
use crate::lvm::volumes::Volume;
use crate::lvm::{FileSystem, LvmThin};
use crate::place::{self, Place};
use crate::provider::View;

/// Unmounted and deactivated with the view.
struct Mounted {
    place: Place,
    full: String,
    command: Command,
}

impl View for Mounted {
    fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever is still in the tree keeps it; the place is cleared by the next who looks. LVM deactivates nothing
        // that is open, as by another who looks at the same snapshot.
        if rustix::mount::unmount(self.place.path(), UnmountFlags::empty()).is_ok() {
            let _ = self.command.run("lvchange", &["--activate", "n", &self.full]);
        }
    }
}

/// Shows a snapshot.
pub(super) fn open(provider: &LvmThin, snapshot: &Volume) -> Result<Box<dyn View>, Error> {
    place::sweep()?;
    let full = provider.full(&snapshot.name);
    let view = Mounted { place: Place::new()?, full, command: provider.command.clone() };
    view.command.run("lvchange", &["--activate", "y", "--ignoreactivationskip", &view.full])?;
    let device = mapper::device_path(&provider.group, &snapshot.name);
    let options = match provider.file_system {
        FileSystem::Ext4 => "noload",
        FileSystem::Xfs => "nouuid,norecovery",
    };
    let options = CString::new(options).expect("has no zero byte");
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount(&device, view.place.path(), provider.file_system.name(), flags, options.as_c_str())
        .map_err(Error::io("mount", &device))?;
    Ok(Box::new(view))
}
