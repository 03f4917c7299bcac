//! Where a subvolume is mounted, and putting another one in its place there.
//!
//! A mount shows the subvolume it was made of, whatever name that one has got since: exchanging names changes nothing
//! for it. So a mount of the new subvolume is slipped beneath it, given the mounts that lie upon it, and then the old one
//! is taken away: at no moment is the path empty. A mount upon a directory inside of a mounted parent is the other way
//! round: it hangs upon the old directory, and moves with that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::UnmountFlags;
use serde::{Deserialize, Serialize};

use super::ioctl;
use super::top::Top;
use crate::attach;
use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};

/// A mount of the subvolume, or of a directory in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Where it is mounted.
    pub(crate) point: PathBuf,
    /// Which directory of the subvolume; empty for its root.
    pub(crate) inside: PathBuf,
    /// As mountinfo shows them.
    pub(crate) options: String,
}

/// The subvolume that a mount shows.
pub(crate) fn shown(mount: &Mount) -> Option<u64> {
    mount.super_options.split(',').find_map(|option| option.strip_prefix("subvolid="))?.parse().ok()
}

/// Whether a mount shows a subvolume of a file system.
pub(crate) fn shows(mount: &Mount, top: &Top, subvolume: u64) -> bool {
    mount.kind == "btrfs" && mount.device == top.device && shown(mount) == Some(subvolume)
}

/// Refused where a subvolume is mounted, in the mount namespace of any process.
pub(crate) fn refuse_mounted(top: &Top, subvolume: u64, what: &str) -> Result<(), Error> {
    let mut seen = BTreeMap::new();
    let processes = fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?;
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that has ended, or a thread of the kernel, has no mounts.
        let Ok(namespace) = fs::read_link(process.path().join("ns/mnt")) else { continue };
        if seen.insert(namespace, number).is_some() {
            continue;
        }
        let Ok(text) = fs::read(process.path().join("mountinfo")) else { continue };
        let mounts = mounts::parse(&text)?;
        if let Some(mount) = mounts.iter().find(|mount| shows(mount, top, subvolume)) {
            let point = mount.point.display();
            return Err(Error::refused(format!("{what} is mounted at {point} (as process {number} sees it)"))
                .or(format!("unmount {point} first")));
        }
    }
    Ok(())
}

/// The mounts of a subvolume that lies at `path` from the top level, those of parents before those upon them.
pub(crate) fn places(top: &Top, mounts: &[Mount], subvolume: u64, path: &Path) -> Result<Vec<Place>, Error> {
    let mut places = Vec::new();
    for mount in mounts.iter().filter(|mount| shows(mount, top, subvolume)) {
        let Mount { point, options, .. } = mount;
        // The root of the system cannot be replaced while it runs; the next start mounts what then has its name.
        if point == Path::new("/") {
            continue;
        }
        let inside = mount.root.strip_prefix(Path::new("/").join(path)).map_err(|_| {
            Error::refused(format!("{} shows {}, which is not there any more", point.display(), mount.root.display()))
                .or(format!("unmount {}", point.display()))
        })?;
        if attach::hold(point).and_then(|held| attach::mount_number(&held))? != mount.id {
            return Err(Error::refused(format!("the mount at {} is hidden by another", point.display()))
                .or("unmount the one that hides it"));
        }
        places.push(Place { point: point.clone(), inside: inside.to_owned(), options: options.clone() });
    }
    places.sort_by_key(|place| (!place.inside.as_os_str().is_empty(), place.point.components().count()));
    Ok(places)
}

/// The mounts that lie upon directories of a subvolume, not upon mounts of it but of a parent, with their places
/// in the subvolume. `nested` are left out: who hangs upon a directory of these moves along with them.
pub(crate) fn below(
    top: &Top,
    mounts: &[Mount],
    subvolume: u64,
    path: &Path,
    nested: &[PathBuf],
) -> Vec<(PathBuf, PathBuf)> {
    let root = Path::new("/").join(path);
    let mut below = Vec::new();
    for mount in mounts {
        let parent = mounts.iter().find(|parent| parent.id == mount.parent);
        let Some(parent) = parent.filter(|parent| parent.kind == "btrfs" && parent.device == top.device) else {
            continue;
        };
        let inside = parent.inside(&mount.point).filter(|_| shown(parent) != Some(subvolume));
        let inside = inside.as_deref().and_then(|inside| inside.strip_prefix(&root).ok());
        if let Some(inside) = inside
            && !nested.iter().any(|nested| inside.starts_with(nested))
        {
            below.push((mount.point.clone(), inside.to_owned()));
        }
    }
    below
}

/// Makes a place show the subvolume `to` instead of `from`. `directory` is a path that shows the root of `to` already,
/// for a place that is a directory in it. What shows `to` already is left as it is.
pub(crate) fn switch(top: &Top, place: &Place, from: u64, to: u64, directory: &Path) -> Result<(), Error> {
    let point = &place.point;
    let mounts = mounts::mounts()?;
    let top_most = mounts::on_top(&mounts, point).filter(|mount| shows(mount, top, from) || shows(mount, top, to));
    let Some(top_most) = top_most else {
        return Err(Error::refused(format!("{} is not mounted as it was", point.display()))
            .or("mount it again, and let the rollback go on"));
    };
    let hidden = mounts.iter().find(|mount| mount.id == top_most.parent && mount.point == *point);
    let (is_done, has_from, has_to) = (
        shows(top_most, top, to),
        hidden.is_some_and(|mount| shows(mount, top, from)),
        hidden.is_some_and(|mount| shows(mount, top, to)),
    );
    if is_done && !has_from {
        return Ok(());
    }
    let mut upon = Vec::new();
    for child in mounts.iter().filter(|mount| mount.parent == top_most.id) {
        let path = child.point.strip_prefix(point).unwrap_or(&child.point).to_owned();
        upon.push((path, attach::clone_with_below(&child.point)?));
    }
    if is_done || has_to {
        // An earlier attempt ended between slipping in the new mount and taking away the old one.
        attach::detach(&attach::hold(point)?)?;
        if has_to {
            return attach::attach_upon(&attach::hold(point)?, &upon);
        }
    }
    let new = if place.inside.as_os_str().is_empty() {
        top.mount(to, attach::attributes(&place.options))?
    } else {
        let path = directory.join(&place.inside);
        let file = fs::File::open(&path).map_err(Error::io("open", &path))?;
        let found = ioctl::subvolume(&file).map_err(Error::io("ask for the subvolume at", &path))?.id;
        if found != to {
            return Err(Error::refused(format!("{} does not lie in the new tree", path.display()))
                .or(format!("unmount {} and what is mounted at the path", point.display())));
        }
        let new = attach::clone_of_directory(&path)?;
        attach::set_options(&new, &place.options)?;
        new
    };
    attach::replace(&new, point, &upon)
}

/// Where clones of mounts wait while what lies under them is exchanged.
pub(crate) fn waiting(id: Id) -> PathBuf {
    Path::new("/run/snapback/waiting").join(id.to_string())
}

/// Does something that takes directories from under their mounts, and puts the mounts back upon what then lies at the
/// paths. Clones wait at `waiting` meanwhile, so that also the next process can go on.
pub(crate) fn carried(
    points: &[PathBuf],
    waiting: &Path,
    exchange: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let is_mounted = |mounts: &[Mount], path: &Path| mounts.iter().any(|mount| mount.point == path);
    let mounts = mounts::mounts()?;
    let mut old = Vec::new();
    for (number, point) in points.iter().enumerate() {
        let place = waiting.join(number.to_string());
        if is_mounted(&mounts, point) {
            old.push(attach::hold(point)?);
            if !is_mounted(&mounts, &place) {
                let clone = attach::clone_with_below(point)?;
                make_point(&place, fs::metadata(point).map_err(Error::io("look at", point))?.is_dir())?;
                attach::attach(&clone, CWD, &place)?;
            }
        }
    }
    exchange()?;
    let mounts = mounts::mounts()?;
    for (number, point) in points.iter().enumerate() {
        let place = waiting.join(number.to_string());
        if is_mounted(&mounts, &place) && !is_mounted(&mounts, point) {
            attach::attach(&attach::clone_with_below(&place)?, CWD, point)?;
        }
    }
    // Those that were carried: their points show the clones now.
    for old in &old {
        let (number, mounts) = (attach::mount_number(old)?, mounts::mounts()?);
        if !mounts.iter().any(|mount| mount.id == number && points.contains(&mount.point)) {
            attach::detach(old)?;
        }
    }
    for number in 0..points.len() {
        let place = waiting.join(number.to_string());
        if is_mounted(&mounts, &place) {
            rustix::mount::unmount(&place, UnmountFlags::DETACH).map_err(Error::io("unmount", &place))?;
        }
        let _ = fs::remove_dir(&place).or_else(|_| fs::remove_file(&place));
    }
    let _ = fs::remove_dir(waiting);
    Ok(())
}

fn make_point(path: &Path, is_directory: bool) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let made = if is_directory { fs::create_dir_all(path) } else { fs::write(path, "") };
    made.map_err(Error::io("create", path))
}
