//! Who holds a tree: processes with open files, a working directory or a program in it, mounts of it in any namespace,
//! and the kernel's loop devices and swap files.
//!
//! After a live switch, whoever holds the old tree goes on reading and writing it, and nothing shows it but this. A
//! tree that is a file system of its own (as every btrfs subvolume is, to stat(2)) is told by its device number, which
//! stays the same whatever it is called and wherever it is mounted; another by where it lies.
//!
//! Does not know of snapshots. What ends during the search is left out; what cannot be looked at for want of
//! privileges, too (`CAP_SYS_PTRACE` to see other users' processes).

mod kernel;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mounts;

/// How a tree is told from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tree {
    /// By `st_dev`, major and minor.
    Device(u32, u32),
    /// By being at or below a path.
    Below(PathBuf),
}

/// A process that holds a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number; 0 is the kernel.
    pub pid: u32,
    /// Its arguments, or its name in brackets if it has none.
    pub command: String,
    /// The unit of systemd it belongs to.
    pub unit: Option<String>,
    /// What of the tree it holds.
    pub holds: Vec<Hold>,
}

/// One thing that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// In which way.
    pub by: By,
    /// Where it lies, as the kernel names it.
    pub path: PathBuf,
}

/// Ways to hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Working directory.
    WorkingDirectory,
    /// Root directory.
    RootDirectory,
    /// The program itself.
    Program,
    /// An open file of this number.
    Descriptor(u32),
    /// A file mapped into memory.
    Mapping,
    /// A mount in the namespace of the process.
    Mount,
    /// A loop device, whose file it is.
    LoopDevice,
    /// A swap file.
    Swap,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.unit) {
            (0, _) => f.write_str(&self.command),
            (pid, Some(unit)) => write!(f, "{} (process {pid}, {unit})", self.command),
            (pid, None) => write!(f, "{} (process {pid})", self.command),
        }
    }
}

impl Tree {
    /// How the tree at a directory is told.
    pub fn of(directory: &Path) -> Result<Tree, Error> {
        let stat = |path: &Path| fs::metadata(path).map_err(Error::io("look at", path));
        let device = stat(directory)?.dev();
        let above = directory.parent().map(stat).transpose()?;
        Ok(match above {
            Some(above) if above.dev() == device => Tree::Below(directory.to_owned()),
            _ => Tree::Device(rustix::fs::major(device), rustix::fs::minor(device)),
        })
    }

    /// Whether a link of `/proc` leads into the tree; where to, if it does.
    fn has(&self, link: &Path) -> Option<PathBuf> {
        match self {
            Tree::Below(root) => fs::read_link(link).ok().filter(|path| path.starts_with(root)),
            Tree::Device(major, minor) => {
                (device_of(link)? == (*major, *minor)).then(|| fs::read_link(link).unwrap_or_default())
            }
        }
    }
}

/// `st_dev` of what a path leads to. Without asking a server for it, which may be dead.
fn device_of(path: &Path) -> Option<(u32, u32)> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = statx(CWD, path, flags, StatxFlags::TYPE).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Everybody who holds the tree, but for the calling process itself. `place` is where it is mounted in the caller's own
/// namespace on purpose: this mount is not a hold.
pub fn of(tree: &Tree, place: Option<&Path>) -> Result<Vec<Holder>, Error> {
    let proc = Path::new("/proc");
    let myself = std::process::id();
    let mut pids: Vec<u32> = fs::read_dir(proc)
        .map_err(Error::io("list", proc))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != myself)
        .collect();
    pids.sort_unstable();
    let mut found: BTreeMap<u32, Vec<Hold>> = BTreeMap::new();
    let mut namespaces = HashSet::new();
    let own_namespace = fs::read_link("/proc/self/ns/mnt").ok();
    // Libraries are mapped by most processes: each file of each device is looked at once.
    let mut mapped = BTreeMap::new();
    for pid in pids.iter().copied() {
        let base = proc.join(pid.to_string());
        let mut holds = held_by_links(tree, &base);
        held_by_mappings(tree, &base, &mut mapped, &mut holds);
        if let Ok(namespace) = fs::read_link(base.join("ns/mnt"))
            && namespaces.insert(namespace.clone())
        {
            let place = place.filter(|_| Some(&namespace) == own_namespace.as_ref());
            held_by_mounts(tree, &base, place, &mut holds);
        }
        if !holds.is_empty() {
            found.insert(pid, holds);
        }
    }
    let holders = found.into_iter().map(|(pid, holds)| {
        let base = proc.join(pid.to_string());
        Holder { pid, command: command(&base), unit: unit(&base), holds }
    });
    Ok(holders.chain(kernel::holders(tree)).collect())
}

/// Files below a directory that the kernel itself uses: swap files, and those behind loop devices. Whoever replaces such
/// a file by another takes from it what is written to it from then on.
pub fn kernel_files(directory: &Path) -> Vec<PathBuf> {
    let holders = kernel::holders(&Tree::Below(directory.to_owned()));
    holders.into_iter().flat_map(|holder| holder.holds).map(|hold| hold.path).collect()
}

fn held_by_links(tree: &Tree, base: &Path) -> Vec<Hold> {
    let single = [("cwd", By::WorkingDirectory), ("root", By::RootDirectory), ("exe", By::Program)];
    let mut holds: Vec<Hold> = Vec::new();
    for (name, by) in single {
        holds.extend(tree.has(&base.join(name)).map(|path| Hold { by, path }));
    }
    for entry in fs::read_dir(base.join("fd")).into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        holds.extend(tree.has(&entry.path()).map(|path| Hold { by: By::Descriptor(number), path }));
    }
    holds.sort_by_key(|hold| hold.by);
    holds
}

/// A file in the text of `/proc/PID/maps`: its device there, which on btrfs is not `st_dev`, and its inode.
type Mapped = (Vec<u8>, u64);

fn held_by_mappings(tree: &Tree, base: &Path, seen: &mut BTreeMap<Mapped, bool>, holds: &mut Vec<Hold>) {
    let Ok(text) = fs::read(base.join("maps")) else { return };
    let mut told = HashSet::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.splitn(6, |byte| *byte == b' ').filter(|field| !field.is_empty());
        let (Some(range), Some(device)) = (fields.next(), fields.nth(2)) else { continue };
        let inode = fields.next().and_then(|field| std::str::from_utf8(field).ok()?.parse().ok()).unwrap_or(0);
        if inode == 0 {
            continue;
        }
        let path = fields.next().map(|path| PathBuf::from(OsStr::from_bytes(path.trim_ascii_start())));
        let path = path.unwrap_or_default();
        let is_inside = match tree {
            Tree::Below(root) => path.starts_with(root),
            // The names in maps do not tell one subvolume from another: two may have a file of the same number.
            Tree::Device(major, minor) => {
                let look = || device_of(&base.join("map_files").join(OsStr::from_bytes(range)));
                let key = (device.to_vec(), inode);
                match seen.get(&key) {
                    Some(false) if !device.starts_with(b"00:") => false,
                    _ => {
                        let is_inside = look() == Some((*major, *minor));
                        seen.insert(key, is_inside);
                        is_inside
                    }
                }
            }
        };
        if is_inside && told.insert((device.to_vec(), inode)) {
            holds.push(Hold { by: By::Mapping, path });
        }
    }
}

fn held_by_mounts(tree: &Tree, base: &Path, place: Option<&Path>, holds: &mut Vec<Hold>) {
    let Ok(text) = fs::read(base.join("mountinfo")) else { return };
    let Ok(mounts) = mounts::parse(&text) else { return };
    let root = base.join("root");
    for mount in mounts {
        let Tree::Device(major, minor) = tree else { continue };
        let point = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        // A file system with several devices (btrfs) shows one number here for all its subvolumes, so each of its
        // mounts is looked at; others show their own, and need not be touched.
        let may_be = mount.device == (*major, *minor) || mount.device.0 == 0;
        if may_be && Some(&*mount.point) != place && device_of(&point) == Some((*major, *minor)) {
            holds.push(Hold { by: By::Mount, path: mount.point });
        }
    }
}

fn command(base: &Path) -> String {
    let arguments = fs::read(base.join("cmdline")).unwrap_or_default();
    let words: Vec<_> = arguments.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        let name = fs::read_to_string(base.join("comm")).unwrap_or_default();
        return format!("[{}]", name.trim_end());
    }
    String::from_utf8_lossy(&words.join(&b' ')).into_owned()
}

fn unit(base: &Path) -> Option<String> {
    unit_of_cgroup(&fs::read_to_string(base.join("cgroup")).ok()?)
}

/// The innermost unit in the text of `/proc/PID/cgroup`, cgroups(7): of the unified hierarchy, or of systemd's own.
fn unit_of_cgroup(text: &str) -> Option<String> {
    let paths = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        matches!(controllers, "" | "name=systemd").then_some(path)
    });
    let is_unit = |name: &&str| [".service", ".scope", ".socket", ".mount"].iter().any(|end| name.ends_with(end));
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit_of_either_hierarchy_is_told() {
        let told = |text| unit_of_cgroup(text);
        assert_eq!(told("0::/system.slice/nginx.service\n").as_deref(), Some("nginx.service"));
        assert_eq!(told("0::/system.slice/docker.service/payload\n").as_deref(), Some("docker.service"));
        let user = "0::/user.slice/user-0.slice/user@0.service/app.slice/editor.service\n";
        assert_eq!(told(user).as_deref(), Some("editor.service"));
        let old = "12:cpu:/other.service\n1:name=systemd:/system.slice/cron.service\n";
        assert_eq!(told(old).as_deref(), Some("cron.service"));
        assert_eq!(told("0::/\n"), None);
    }
}
