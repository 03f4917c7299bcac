//! From a block device down to the disks: `/sys/class/block/NAME`, as in the kernel's Documentation/ABI
//! (sysfs-block, sysfs-block-dm, sysfs-block-loop) and Documentation/admin-guide/md.rst.

use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::{Place, System, filesystem};

/// Deeper than this nobody stacks on purpose: a loop device in its own file system, for example.
const DEEPEST: usize = 32;

/// Adds what lies below a block device.
pub(super) fn descend(name: &str, depth: usize, place: &mut Place, system: &System) {
    if depth > DEEPEST {
        return place.doubt(format!("{name} lies on too many others, or on itself"));
    }
    let Some(directory) = system.block(name) else {
        return place.doubt(format!("what {name} is cannot be seen: it is not in /sys/class/block"));
    };
    let text = |file: &str| {
        let text = std::fs::read_to_string(directory.join(file)).ok();
        text.map(|text| text.trim_end_matches('\n').to_owned()).filter(|text| !text.is_empty())
    };
    if directory.join("partition").exists() {
        place.pass(name);
        let disk = directory.parent().and_then(Path::file_name);
        return descend(&disk.unwrap_or_default().to_string_lossy(), depth + 1, place, system);
    }
    if let Some(file) = text("loop/backing_file") {
        place.pass(format!("{name} ({file})"));
        return below_loop(name, &file, depth, place, system);
    }
    if is_memory(name) {
        place.pass(name);
        place.is_in_memory = true;
        return;
    }
    let below = names_in(&directory.join("slaves"));
    if !below.is_empty() {
        let what = text("md/level").or_else(|| text("dm/uuid").map(|uuid| mapper(&uuid).to_owned()));
        place.pass(what.map_or_else(|| name.to_owned(), |what| format!("{name} ({what})")));
        for member in below {
            descend(&member, depth + 1, place, system);
        }
        return;
    }
    if directory.join("device").exists() {
        place.disks.insert(Disk::read(name, &directory, system.is_virtual_machine));
        return;
    }
    if ["nbd", "rbd"].iter().any(|start| name.starts_with(start)) {
        place.disks.insert(Disk::remote(name));
        return;
    }
    place.pass(name);
    place.doubt(format!("what {name} lies on cannot be seen"));
}

fn below_loop(name: &str, file: &str, depth: usize, place: &mut Place, system: &System) {
    let path = PathBuf::from(file);
    // The path is that of whoever attached it, and may mean nothing here; a file that was deleted has " (deleted)" there.
    if !system.real(&path).exists() {
        return place.doubt(format!("the file behind {name} cannot be found: {file}"));
    }
    match system.device_at(&path) {
        Some(device) => descend(&device, depth + 1, place, system),
        None => filesystem::descend(&path, depth + 1, place, system),
    }
}

/// Compressed memory, and RAM disks.
fn is_memory(name: &str) -> bool {
    let is_numbered = |start: &str| {
        let number = name.strip_prefix(start);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_numbered("zram") || is_numbered("ram")
}

/// What a volume of the device mapper is, by the prefix of its UUID, which each of its users has agreed on.
fn mapper(uuid: &str) -> &'static str {
    match uuid.split('-').next().unwrap_or_default() {
        "LVM" => "LVM",
        "CRYPT" => "encrypted",
        "mpath" => "multipath",
        "DMRAID" => "RAID of the BIOS",
        part if part.starts_with("part") => "partition",
        _ => "device mapper",
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
