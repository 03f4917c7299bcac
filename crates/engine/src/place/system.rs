//! What is looked at: the mounts and sysfs of this machine, or a copy of them below another root.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::error::Error;
use snapshot::mounts::{self, Mount};
use snapshot::runner::Runner;

use super::machine;

/// A machine as it presents itself below a root directory: `sys`, `dev`, `proc`, `etc/hosts`. The mounts are those of the
/// moment in which this was opened.
pub struct System {
    pub(super) root: PathBuf,
    pub(super) mounts: Vec<Mount>,
    pub(super) names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) is_virtual_machine: bool,
    pub(super) runner: Arc<dyn Runner>,
}

impl System {
    /// Looks at the machine whose root directory this is; `/` for this one.
    pub fn open(root: &Path, runner: Arc<dyn Runner>) -> Result<System, Error> {
        let root = root.canonicalize().map_err(Error::io("look at", root))?;
        let table = root.join("proc/self/mountinfo");
        let mounts = mounts::parse(&std::fs::read(&table).map_err(Error::io("read", &table))?)?;
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let addresses = machine::addresses(&text("proc/net/fib_trie"), &text("proc/net/if_inet6"));
        let names = machine::names(&text("proc/sys/kernel/hostname"), &text("etc/hosts"), &addresses);
        // x86 has a flag for it; on other processors the disks' own buses tell.
        let flags = text("proc/cpuinfo");
        let is_virtual_machine = flags
            .lines()
            .any(|line| line.starts_with("flags") && line.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
        Ok(System { root, mounts, names, addresses, is_virtual_machine, runner })
    }

    /// Where the file system is mounted that a path lies in.
    pub fn mount_point(&self, path: &Path) -> Option<PathBuf> {
        mounts::mount_of(&self.mounts, &self.canonical(path)).map(|mount| mount.point.clone())
    }

    /// A path of the machine, as a path here.
    pub(super) fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A path without symbolic links; of one that does not exist, as far as it does.
    pub(super) fn canonical(&self, path: &Path) -> PathBuf {
        for above in path.ancestors() {
            if let Ok(found) = self.real(above).canonicalize() {
                let inside = found.strip_prefix(&self.root).unwrap_or(&found);
                let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
                return Path::new("/").join(inside).join(rest);
            }
        }
        path.to_owned()
    }

    /// The directory of a block device in sysfs, without symbolic links.
    pub(super) fn block(&self, name: &str) -> Option<PathBuf> {
        self.root.join("sys/class/block").join(name).canonicalize().ok()
    }

    /// The kernel's name of the block device with a number.
    pub(super) fn device_with_number(&self, (major, minor): (u32, u32)) -> Option<String> {
        let link = self.root.join(format!("sys/dev/block/{major}:{minor}"));
        Some(link.canonicalize().ok()?.file_name()?.to_string_lossy().into_owned())
    }

    /// The kernel's name of the block device at a path below `/dev`.
    pub(super) fn device_at(&self, path: &Path) -> Option<String> {
        let canonical = self.canonical(path);
        let below = canonical.strip_prefix("/dev").ok()?;
        // `cciss/c0d0` is `cciss!c0d0` in sysfs.
        let name = below.to_string_lossy().replace('/', "!");
        if self.block(&name).is_some() {
            return Some(name);
        }
        self.mapped(below.strip_prefix("mapper").ok()?.to_str()?).or_else(|| self.device_with_number_of(&canonical))
    }

    /// Without udev, names of the device mapper are no links to `dm-0`.
    fn mapped(&self, name: &str) -> Option<String> {
        let blocks = std::fs::read_dir(self.root.join("sys/class/block")).ok()?;
        let has_name = |entry: &std::fs::DirEntry| {
            std::fs::read_to_string(entry.path().join("dm/name")).is_ok_and(|text| text.trim_end() == name)
        };
        blocks.flatten().find(has_name).map(|entry| entry.file_name().to_string_lossy().into_owned())
    }

    fn device_with_number_of(&self, path: &Path) -> Option<String> {
        let stat = rustix::fs::stat(self.real(path)).ok()?;
        let is_device = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::BlockDevice;
        let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        if is_device { self.device_with_number(number) } else { None }
    }
}
