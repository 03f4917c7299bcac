//! File systems of all kinds, mounted for a test and released with it, also when it fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Scratch, is_root, skip};

/// A mounted file system.
pub(crate) struct Disk {
    mounted: PathBuf,
    _image: Scratch,
}

impl Disk {
    /// A file system in an image file of so many MiB (it takes only what is written), or a tmpfs. `None` if this
    /// machine cannot; then that was said.
    pub(crate) fn mount(kind: &str, mib: u64) -> Option<Disk> {
        if !is_root() {
            return None;
        }
        let image = Scratch::new();
        let mounted = image.directory("mounted");
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]);
        } else {
            let file = image.path().join("image");
            File::create(&file).unwrap().set_len(mib << 20).unwrap();
            let make = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&file).output();
            if !make.is_ok_and(|made| made.status.success()) {
                skip(&format!("mkfs.{kind} does not work"));
                return None;
            }
            mount.args(["-o", "loop"]).arg(&file);
        }
        let said = mount.arg(&mounted).output().unwrap();
        if !said.status.success() {
            skip(&format!("mounting {kind}: {}", String::from_utf8_lossy(&said.stderr)));
            return None;
        }
        Some(Disk { mounted, _image: image })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, should something still be open in there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mounted).status();
    }
}
