//! Who still works in a directory that is about to be replaced.
//!
//! Whoever has something open in the old tree, or stands in it, would go on in there unseen: that is refused, not
//! warned about.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::volume::Volume;
use crate::error::Error;
use crate::holders::{self, By, Hold, Tree};
use crate::mounts;

/// Refuses if a process holds the tree, or if the tree is mounted elsewhere, in any namespace.
pub(super) fn refuse(volume: &Volume, is_back: bool) -> Result<(), Error> {
    let directory = &volume.directory;
    let tree = if is_back { Tree::of(directory)? } else { Tree::Below(directory.clone()) };
    let mut holders = holders::of(&tree, Some(directory))?;
    let of_ours = groups(Path::new("/proc/self/mountinfo"), directory);
    for holder in &mut holders {
        let theirs = Path::new("/proc").join(holder.pid.to_string()).join("mountinfo");
        // What is shown elsewhere because it was mounted here, goes when it is unmounted here.
        let is_copy = |hold: &Hold| {
            let groups = groups(&theirs, &hold.path);
            hold.by == By::Mount && !groups.is_empty() && groups.is_subset(&of_ours)
        };
        holder.holds.retain(|hold| !is_copy(hold));
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
                "{} is also to be seen at {}, which would go on to show the old tree (to process {process})",
                directory.display(),
                point.display()
            );
            Err(Error::refused(message).or("unmount that; a container that uses it must be stopped"))
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

/// Another mount, in any namespace, that shows the directory or something in it, and would not show the volume: a
/// container's, for example. Mounts that get what is mounted here, show the volume, too.
fn mounted_elsewhere(directory: &Path) -> Result<Option<(u32, PathBuf)>, Error> {
    let own = mounts::mounts()?;
    let parent = directory.parent().unwrap_or(directory);
    let Some((mount, inside)) = mounts::mount_of(&own, parent)
        .and_then(|mount| Some((mount, mount.inside(parent)?.join(directory.file_name()?))))
    else {
        return Ok(None);
    };
    let of_ours = groups(Path::new("/proc/self/mountinfo"), &mount.point);
    let of_directory = groups(Path::new("/proc/self/mountinfo"), directory);
    let own_namespace = std::fs::read_link("/proc/self/ns/mnt").ok();
    let proc = Path::new("/proc");
    let mut seen = HashSet::new();
    for entry in std::fs::read_dir(proc).map_err(Error::io("list", proc))?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(namespace) = std::fs::read_link(entry.path().join("ns/mnt")) else { continue };
        let is_own = Some(&namespace) == own_namespace.as_ref();
        if !seen.insert(namespace) {
            continue;
        }
        let mountinfo = entry.path().join("mountinfo");
        // It ended meanwhile.
        let Ok(text) = std::fs::read(&mountinfo) else { continue };
        for other in mounts::parse(&text)?.into_iter().filter(|other| other.device == mount.device) {
            let shown = match (other.root.strip_prefix(&inside), inside.strip_prefix(&other.root)) {
                // The directory upon itself, and where that is shown because it is here.
                (Ok(_), _) if is_own && other.point == directory => continue,
                (Ok(_), _) => {
                    let groups = groups(&mountinfo, &other.point);
                    if !groups.is_empty() && groups.is_subset(&of_directory) {
                        continue;
                    }
                    other.point
                }
                (_, Ok(_)) if is_own && other.id == mount.id => continue,
                (_, Ok(below)) => {
                    let groups = groups(&mountinfo, &other.point);
                    if groups.iter().any(|group| of_ours.contains(group)) {
                        continue;
                    }
                    other.point.join(below)
                }
                _ => continue,
            };
            return Ok(Some((process, shown)));
        }
    }
    Ok(None)
}
