//! From a path to its file system, and to the devices, the machine or the memory that it lies on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use snapshot::mounts::{self, Mount};
use snapshot::runner;

use super::{Filesystem, Machine, Place, System, block, machine, zpool};

/// Where a path lies.
pub(super) fn of_path(path: &Path, system: &System) -> Place {
    if !path.is_absolute() {
        return Place::unknown(format!("{} is not an absolute path", path.display()));
    }
    let mut place = Place::on(Machine::This);
    let canonical = system.canonical(path);
    let Some(mount) = mounts::mount_of(&system.mounts, &canonical) else {
        return Place::unknown(format!("{} lies on no mount that can be seen", path.display()));
    };
    place.filesystem = Some(identity(mount));
    below(mount, &canonical, 0, &mut place, system);
    if place.machine != Machine::This {
        place.filesystem =
            Some(Filesystem { kind: mount.kind.clone(), id: mount.source.to_string_lossy().into_owned() });
    }
    place
}

/// Adds what lies below a file that something else lies in.
pub(super) fn descend(path: &Path, depth: usize, place: &mut Place, system: &System) {
    let canonical = system.canonical(path);
    match mounts::mount_of(&system.mounts, &canonical) {
        Some(mount) => {
            place.pass(format!("{} {}", mount.kind, mount.point.display()));
            below(mount, &canonical, depth, place, system);
        }
        None => place.doubt(format!("{} lies on no mount that can be seen", path.display())),
    }
}

/// All mounts of one file system show the number of its superblock, also those of btrfs's subvolumes. The datasets of a
/// pool have one each, and yet are damaged together.
fn identity(mount: &Mount) -> Filesystem {
    let id = match pool(mount) {
        Some(pool) => pool,
        None => format!("{}:{}", mount.device.0, mount.device.1),
    };
    Filesystem { kind: mount.kind.clone(), id }
}

fn pool(mount: &Mount) -> Option<String> {
    let source = mount.source.to_string_lossy();
    let is_zfs = matches!(mount.kind.as_str(), "zfs" | "fuse.zfs");
    is_zfs.then(|| source.split(['/', '@']).next().unwrap_or_default().to_owned())
}

fn below(mount: &Mount, path: &Path, depth: usize, place: &mut Place, system: &System) {
    let source = mount.source.to_string_lossy();
    match mount.kind.as_str() {
        "btrfs" => btrfs(mount, depth, place, system),
        "zfs" | "fuse.zfs" => zfs(&pool(mount).unwrap_or_default(), depth, place, system),
        "bcachefs" => source.split(':').for_each(|device| device_at(device, depth, place, system)),
        "tmpfs" | "ramfs" | "devtmpfs" | "hugetlbfs" => place.is_in_memory = true,
        "overlay" => overlay(mount, path, depth, place, system),
        "9p" | "virtiofs" | "vboxsf" | "prl_fs" | "drvfs" | "fuse.vmhgfs-fuse" => {
            place.doubt(format!("{} is a directory of this virtual machine's host", mount.point.display()));
        }
        kind if is_network(kind) => network(kind, &source, place, system),
        kind if kind == "fuse" || kind.starts_with("fuse.") => {
            place.machine = Machine::Unknown;
            place.doubt(format!("where {kind} at {} keeps its files cannot be seen", mount.point.display()));
        }
        _ if mount.device.0 != 0 => match system.device_with_number(mount.device) {
            Some(name) => block::descend(&name, depth + 1, place, system),
            None => {
                let (major, minor) = mount.device;
                place.doubt(format!("the device of {} cannot be seen: {major}:{minor}", mount.point.display()));
            }
        },
        _ if source.starts_with("/dev/") => device_at(&source, depth, place, system),
        kind => place.doubt(format!("what {kind} at {} lies on is not known", mount.point.display())),
    }
}

fn device_at(path: &str, depth: usize, place: &mut Place, system: &System) {
    match system.device_at(Path::new(path)) {
        Some(name) => block::descend(&name, depth + 1, place, system),
        None => place.doubt(format!("the device {path} cannot be seen")),
    }
}

/// A btrfs names one of its devices as its source; sysfs has all that are there.
fn btrfs(mount: &Mount, depth: usize, place: &mut Place, system: &System) {
    let Some(device) = system.device_at(Path::new(&mount.source)) else {
        return place.doubt(format!("the device {} cannot be seen", mount.source.to_string_lossy()));
    };
    let filesystems = std::fs::read_dir(system.root.join("sys/fs/btrfs")).into_iter().flatten().flatten();
    let members = |directory: PathBuf| -> Vec<String> {
        let entries = std::fs::read_dir(directory.join("devices")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let all = filesystems.map(|entry| members(entry.path())).find(|members| members.contains(&device));
    if all.is_none() {
        place.doubt(format!("the other devices of the btrfs on {device} cannot be seen"));
    }
    for device in all.unwrap_or_else(|| vec![device]) {
        block::descend(&device, depth + 1, place, system);
    }
}

fn zfs(pool: &str, depth: usize, place: &mut Place, system: &System) {
    place.pass(format!("pool {pool}"));
    let status = |options: &[&str]| {
        let arguments: Vec<OsString> =
            [&["status"], options, &[pool]].concat().into_iter().map(OsString::from).collect();
        runner::run(&*system.runner, "zpool", &arguments)
    };
    // zfs-fuse knows neither whole paths nor what a link leads to, and shows files as they were given.
    let (paths, others) = match status(&["-P", "-L"]).or_else(|_| status(&[])) {
        Ok(text) => zpool::members(&text),
        Err(error) => return place.doubt(format!("the members of the pool {pool} cannot be seen: {error}")),
    };
    if paths.is_empty() && others.is_empty() {
        place.doubt(format!("the members of the pool {pool} cannot be seen"));
    }
    for path in paths {
        match system.device_at(&path) {
            Some(name) => block::descend(&name, depth + 1, place, system),
            None if system.real(&path).is_file() => descend(&path, depth + 1, place, system),
            None => place.doubt(format!("{} of the pool {pool} cannot be found", path.display())),
        }
    }
    for name in others {
        device_at(&format!("/dev/{name}"), depth, place, system);
    }
}

/// What is written goes to the upper directory, what was there before lies in the lower ones.
fn overlay(mount: &Mount, path: &Path, depth: usize, place: &mut Place, system: &System) {
    // In a container the directories are those of its host. A path that exists by chance would be believed.
    if mount.point == Path::new("/") {
        return place.doubt(format!("{} lies in a container's layers, which are its host's", path.display()));
    }
    let option = |name: &str| {
        let options = mount.super_options.split(',');
        options.filter_map(|option| option.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned).next()
    };
    let lower = option("lowerdir").unwrap_or_default();
    let directories: Vec<PathBuf> =
        option("upperdir").iter().map(String::as_str).chain(lower.split(':')).map(PathBuf::from).collect();
    for directory in directories {
        if directory.is_absolute() && directory != mount.point && system.real(&directory).exists() && depth < 8 {
            descend(&directory, depth + 1, place, system);
        } else {
            place.doubt(format!("a layer of the overlay at {} cannot be found", mount.point.display()));
        }
    }
}

fn is_network(kind: &str) -> bool {
    const KINDS: [&str; 14] = [
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "ceph", "afs", "lustre", "beegfs", "orangefs", "pvfs2",
        "davfs", "gpfs",
    ];
    const FUSE: [&str; 10] = [
        "fuse.sshfs",
        "fuse.rclone",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.s3fs",
        "fuse.goofys",
        "fuse.davfs",
        "fuse.curlftpfs",
        "fuse.juicefs",
    ];
    KINDS.contains(&kind) || FUSE.contains(&kind)
}

/// `host:/export`, `[::1]:/export`, `//host/share`, `user@host:directory`.
fn network(kind: &str, source: &str, place: &mut Place, system: &System) {
    let share = source.strip_prefix("//").or_else(|| source.split_once("://").map(|(_, rest)| rest));
    let host = match (share, source.strip_prefix('[')) {
        (Some(share), _) => share.split(['/', ':']).next(),
        (None, Some(rest)) => rest.split(']').next(),
        (None, None) => source.split_once(':').map(|(host, _)| host),
    };
    let host = host.map(|host| host.rsplit('@').next().unwrap_or(host)).filter(|host| !host.is_empty());
    match host {
        // A remote of rclone may be anything, a directory of this machine included.
        _ if kind == "fuse.rclone" => {
            place.machine = Machine::Unknown;
            place.doubt(format!("where rclone keeps {source} cannot be seen"));
        }
        Some(host) if machine::is_this(host, system) => {
            place.doubt(format!("{kind} from {host}, which is this machine: its disks were not followed"));
        }
        Some(host) => place.machine = Machine::Other(host.to_lowercase()),
        None => place.machine = Machine::Other(kind.to_owned()),
    }
}
