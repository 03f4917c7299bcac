//! Mounts below a directory, kept elsewhere while the directory itself is unmounted: `/run/snapback/parked/ID/N`.
//!
//! They go there and come back as clones of the same mount, so that whoever has files open in them keeps them, and a
//! crash loses none: the place outlives the process, and at a boot, which empties it, what is to be mounted is mounted
//! anyhow. Does not know what is mounted, nor why the directory is unmounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use crate::attach;
use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};

const PARKED: &str = "/run/snapback/parked";

/// The mounts that lie directly upon some mounts, as paths relative to the directory.
///
/// # Errors
/// Refused for two upon each other, and for names that a journal cannot hold.
pub(crate) fn upon(all: &[Mount], directory: &Path, numbers: &[u64]) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for mount in mounts::below(all, directory).filter(|mount| numbers.contains(&mount.parent)) {
        let shown = mount.point.display();
        if all.iter().any(|other| other.point == mount.point && other.id != mount.id) {
            return Err(Error::refused(format!("two file systems are mounted upon each other at {shown}"))
                .or("unmount one of them for the time of the switch"));
        }
        if mount.point.to_str().is_none() {
            return Err(Error::refused(format!("the name {shown} is not UTF-8")).or("unmount it"));
        }
        paths.push(mount.point.strip_prefix(directory).unwrap_or(&mount.point).to_owned());
    }
    Ok(paths)
}

/// Takes them away from below the directory. Those that are parked already are success.
pub(crate) fn park(id: Id, directory: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    for (number, path) in paths.iter().enumerate() {
        let (point, place) = (directory.join(path), place(id, number));
        if !is_mounted(&place)? {
            if !is_mounted(&point)? {
                continue;
            }
            make_like(&point, &place)?;
            attach::attach(&attach::clone_with_below(&point)?, CWD, &place)?;
        }
        if is_mounted(&point)? {
            attach::detach(&attach::hold(&point)?)?;
        }
    }
    Ok(())
}

/// Brings back what is parked. In a tree without a place for it, one is made.
pub(crate) fn bring_back(id: Id, directory: &Path, paths: &[PathBuf]) -> Result<(), Error> {
    for (number, path) in paths.iter().enumerate() {
        let (point, place) = (directory.join(path), place(id, number));
        if is_mounted(&place)? {
            if !is_mounted(&point)? {
                make_like(&place, &point)?;
                attach::attach(&attach::clone_with_below(&place)?, CWD, &point)?;
            }
            attach::detach(&attach::hold(&place)?)?;
        }
        // Where a file was mounted it is one.
        let _ = fs::remove_dir(&place).or_else(|_| fs::remove_file(&place));
    }
    let _ = fs::remove_dir(Path::new(PARKED).join(id.to_string()));
    Ok(())
}

fn place(id: Id, number: usize) -> PathBuf {
    Path::new(PARKED).join(id.to_string()).join(number.to_string())
}

fn is_mounted(point: &Path) -> Result<bool, Error> {
    Ok(mounts::mounts()?.iter().any(|mount| mount.point == point))
}

/// Makes a directory, or a file if a file is mounted.
fn make_like(model: &Path, path: &Path) -> Result<(), Error> {
    let is_directory = fs::metadata(model).map_err(Error::io("look at", model))?.is_dir();
    let made = match (is_directory, path.parent()) {
        (false, Some(parent)) => fs::create_dir_all(parent).and_then(|()| fs::File::create_new(path).map(drop)),
        _ => fs::create_dir_all(path),
    };
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(Error::io("make a place to mount at", path)),
    }
}
