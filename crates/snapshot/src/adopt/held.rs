//! Who still works in a directory that is about to be replaced.
//!
//! Whoever has something open in the old tree, or stands in it, would go on in there unseen: that is refused, not
//! warned about.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::volume::Volume;
use crate::error::Error;
use crate::holders::{self, By, Tree};
use crate::mounts;

/// Refuses if a process holds the tree, or if the tree is mounted elsewhere, in any namespace.
pub(super) fn refuse(volume: &Volume, is_back: bool) -> Result<(), Error> {
    let directory = &volume.directory;
    let tree = if is_back { Tree::of(directory)? } else { Tree::Below(directory.clone()) };
    let mut holders = holders::of(&tree, Some(directory))?;
    let of_ours = self::groups(Path::new("/proc/self/mountinfo"), directory);
    for holder in &mut holders {
        // What another namespace shows in the same place because it was mounted here, goes when it is unmounted here.
        let of_theirs = self::groups(&Path::new("/proc").join(holder.pid.to_string()).join("mountinfo"), directory);
        let is_copy = !of_theirs.is_empty() && of_theirs.is_subset(&of_ours);
        holder.holds.retain(|hold| !(is_copy && hold.by == By::Mount && hold.path == *directory));
    }
    holders.retain(|holder| !holder.holds.is_empty());
    if !holders.is_empty() {
        let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
        let message = format!("{} is in use by {}", directory.display(), names.join(", "));
        return Err(Error::refused(message).or("name their units, so that they are stopped meanwhile, or end them"));
    }
    match if is_back { None } else { mounted_elsewhere(directory)? } {
        None => Ok(()),
        Some((process, point)) => {
            let message = format!(
                "{} or something in it is also mounted at {} (seen by process {process})",
                directory.display(),
                point.display()
            );
            Err(Error::refused(message).or("unmount it there; a container that uses it must be stopped"))
        }
    }
}

/// Peer groups that the mounts upon a directory belong to or get theirs from, proc_pid_mountinfo(5).
fn groups(mountinfo: &Path, directory: &Path) -> HashSet<String> {
    let text = std::fs::read(mountinfo).unwrap_or_default();
    let mut groups = HashSet::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        if !mounts::parse(line).is_ok_and(|mounts| mounts.iter().any(|mount| mount.point == directory)) {
            continue;
        }
        for field in String::from_utf8_lossy(line).split(' ').skip(6).take_while(|field| *field != "-") {
            let group = field.strip_prefix("shared:").or(field.strip_prefix("master:"));
            groups.extend(group.map(str::to_owned));
        }
    }
    groups
}

/// A bind mount of the directory, or of something in it: a container's volume, for example.
fn mounted_elsewhere(directory: &Path) -> Result<Option<(u32, PathBuf)>, Error> {
    let own = mounts::mounts()?;
    let parent = directory.parent().unwrap_or(directory);
    let Some((device, inside)) = mounts::mount_of(&own, parent)
        .and_then(|mount| Some((mount.device, mount.inside(parent)?.join(directory.file_name()?))))
    else {
        return Ok(None);
    };
    let proc = Path::new("/proc");
    let mut seen = HashSet::new();
    for entry in std::fs::read_dir(proc).map_err(Error::io("list", proc))?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(namespace) = std::fs::read_link(entry.path().join("ns/mnt")) else { continue };
        if !seen.insert(namespace) {
            continue;
        }
        // It ended meanwhile.
        let Ok(text) = std::fs::read(entry.path().join("mountinfo")) else { continue };
        let found = mounts::parse(&text)?.into_iter().find(|mount| {
            // Our own read-only mount of it upon itself is seen by others where mounts are shared.
            mount.device == device && mount.root.starts_with(&inside) && mount.point != directory
        });
        if let Some(mount) = found {
            return Ok(Some((process, mount.point)));
        }
    }
    Ok(None)
}
