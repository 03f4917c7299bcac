//! Real file systems in image files, released when dropped, also when a test fails.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use tempfile::TempDir;

/// An image file with a file system, on a loop device, and its mounts.
pub(crate) struct Image {
    directory: TempDir,
    device: PathBuf,
}

impl Image {
    /// A new one; `mkfs` is given the device's path as last argument.
    pub(crate) fn new(size: &str, mkfs: &[&str]) -> Image {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image");
        run("truncate", [OsStr::new("--size"), size.as_ref(), file.as_ref()]);
        let device = run("losetup", [OsStr::new("--find"), "--show".as_ref(), file.as_ref()]);
        let image = Image { directory, device: PathBuf::from(device.trim()) };
        run(mkfs[0], mkfs[1..].iter().map(OsStr::new).chain([image.device.as_os_str()]));
        image
    }

    /// The loop device.
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// A directory for mounts, which are undone with the image.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.directory.path().canonicalize().unwrap().join("mounts");
        std::fs::create_dir_all(&root).unwrap();
        root
    }

    /// A place below the root, made if it is not there.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let place = self.root().join(name);
        if !place.exists() {
            std::fs::create_dir_all(&place).unwrap();
        }
        place
    }

    /// Mounts it.
    pub(crate) fn mount(&self, name: &str, options: &str) -> PathBuf {
        let place = self.place(name);
        run("mount", [OsStr::new("-o"), options.as_ref(), self.device().as_ref(), place.as_ref()]);
        place
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let below = self.directory.path().canonicalize().unwrap();
        let mut mounts = snapshot::mounts::mounts().unwrap();
        mounts.retain(|mount| mount.point.starts_with(&below));
        for mount in mounts.iter().rev() {
            let _ = rustix::mount::unmount(&mount.point, UnmountFlags::DETACH);
        }
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Runs a program of the system that must be there and succeed; its output.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
