//! Planning a switch: what is nested in the live subvolume, where it is mounted, and whether the snapshot has room for
//! all that stays in place. Changes nothing.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::nested::{self, Nested};
use super::places::{self, Place, shows};
use super::switch::{Arguments, Needed, Work};
use super::top::TOP;
use super::{Btrfs, boot};
use crate::error::Error;
use crate::id::Id;
use crate::mounts::{self, Mount};
use crate::provider::{Handle, Step};

impl Btrfs {
    pub(super) fn plan(&self, to: &Handle, old: Id) -> Result<Vec<Step>, Error> {
        let (_, snapshot, _) = self.found(to)?;
        let (_, live) = self.live()?;
        let directory = self.directory.display();
        if live.id == TOP {
            return Err(Error::refused(format!(
                "{directory} is the top level of its btrfs, which cannot be exchanged as a whole"
            ))
            .or("bring single files back with `snapback snapshot undo`, or keep the data in a subvolume"));
        }
        let mounts = mounts::mounts()?;
        let points = mounts.iter().filter(|mount| shows(mount, &self.top, live.id)).map(|mount| mount.point.clone());
        boot::refuse_by_number(&points.collect::<Vec<_>>(), live.id)?;
        let nested = nested::below(&self.top, live.id, &self.path, Path::new(""), &|path| {
            // Where the snapshot has no such directory, one is made.
            self.top.open_in(&snapshot, path).ok().flatten().map(|fd| nested::modified(&fd)).transpose()
        })?;
        let nested_paths: Vec<PathBuf> = nested.iter().map(|nested| nested.path.clone()).collect();
        let places = places::places(&self.top, &mounts, live.id, &self.path)?;
        let below = places::below(&self.top, &mounts, live.id, &self.path, &nested_paths);
        if below.iter().any(|(_, inside)| inside.as_os_str().is_empty()) {
            return Err(
                Error::refused(format!("something is mounted upon {directory} itself")).or("unmount that first")
            );
        }
        for place in places.iter().filter(|place| !place.inside.as_os_str().is_empty()) {
            if !matches!(self.top.open_in(&snapshot, &place.inside), Ok(Some(_))) {
                let (inside, point) = (place.inside.display(), place.point.display());
                return Err(Error::refused(format!("the snapshot has no {inside}, which is mounted at {point}"))
                    .or(format!("unmount {point} first")));
            }
        }
        let mut upon: Vec<PathBuf> = self.upon(&mounts, live.id).into_iter().map(|(_, inside)| inside).collect();
        upon.extend(below.iter().map(|(_, inside)| inside.clone()));
        let needed = self.needed(&nested_paths, upon)?;
        for needed in &needed {
            self.refuse_occupied(&snapshot, needed)?;
        }

        let mut steps =
            vec![("make a writable snapshot of the snapshot".to_owned(), Work::Prepare { from: to.clone(), needed })];
        let carried = below.into_iter().map(|(point, _)| point).collect();
        steps.push(("exchange the subvolumes".to_owned(), Work::Exchange { mounts: carried }));
        if !nested.is_empty() || !places.is_empty() {
            let is_nested = |inside: &Path| nested_paths.iter().any(|nested| inside.starts_with(nested));
            let waiting = self.upon(&mounts, live.id).into_iter().filter(|(_, inside)| is_nested(inside));
            let waiting = waiting.map(|(point, _)| point).collect();
            let root = mounts::on_top(&mounts, Path::new("/"))
                .filter(|root| shows(root, &self.top, live.id) && root.root == Path::new("/").join(&self.path));
            let running = root.map(|root| root.options.clone());
            steps.push((across(&nested, &places), Work::Across { nested, places, waiting, running }));
        }
        if self.top.default_subvolume()? == live.id {
            steps.push(("make the new subvolume the default one".to_owned(), Work::Default));
        }
        let steps = steps.into_iter().map(|(name, work)| {
            let arguments = Arguments { old, live: live.id, work };
            let arguments = serde_json::to_value(arguments).map_err(|error| Error::refused(error.to_string()))?;
            Ok(Step { name, arguments })
        });
        steps.collect()
    }

    /// What is mounted upon mounts of the live subvolume: where, and at which place in it.
    fn upon(&self, mounts: &[Mount], live: u64) -> Vec<(PathBuf, PathBuf)> {
        let inside = |mount: &Mount| {
            let parent = mounts.iter().find(|parent| parent.id == mount.parent)?;
            let inside = parent.inside(&mount.point).filter(|_| shows(parent, &self.top, live))?;
            let inside = inside.strip_prefix(Path::new("/").join(&self.path)).ok()?;
            // Two mounts upon one directory are one place.
            (mount.point != parent.point).then(|| inside.to_owned())
        };
        mounts.iter().filter_map(|mount| Some((mount.point.clone(), inside(mount)?))).collect()
    }

    /// What the new tree must have: directories for nested subvolumes to lie in, and what mounts lie upon.
    fn needed(&self, nested: &[PathBuf], upon: Vec<PathBuf>) -> Result<Vec<Needed>, Error> {
        let place = |path: &PathBuf| Needed { path: path.clone(), is_directory: true, is_point: false };
        let mut needed: Vec<Needed> = nested.iter().map(place).collect();
        for path in upon {
            // A nested subvolume brings along what lies in it.
            if !nested.iter().any(|nested| path.starts_with(nested)) {
                let found = self.top.open_at(&self.path.join(&path))?;
                let is_directory = found.is_some_and(|fd| is_directory(&fd));
                needed.push(Needed { path, is_directory, is_point: true });
            }
        }
        Ok(needed)
    }

    /// Refused if the snapshot has something in a place that a nested subvolume or a mount must take.
    fn refuse_occupied(&self, snapshot: &OwnedFd, needed: &Needed) -> Result<(), Error> {
        let path = &needed.path;
        let occupied = |what: String| {
            Error::refused(format!("in the snapshot, {} {what}", path.display()))
                .or("move the subvolume or the mount away first")
        };
        let found = self.top.open_in(snapshot, path).map_err(|error| {
            occupied(format!("is not a place for what is there now, a nested subvolume or a mount: {error}"))
        })?;
        match found {
            Some(fd) if is_directory(&fd) != needed.is_directory => {
                Err(occupied("is of another kind than what is there now, a nested subvolume or a mount".to_owned()))
            }
            Some(fd) if !needed.is_point && !is_empty(&fd).map_err(Error::io("list", path))? => {
                Err(occupied("is a directory with files, and now a nested subvolume".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn across(nested: &[Nested], places: &[Place]) -> String {
    let mut parts = Vec::new();
    match nested.len() {
        0 => {}
        1 => parts.push("move a nested subvolume across".to_owned()),
        number => parts.push(format!("move {number} nested subvolumes across")),
    }
    if !places.is_empty() {
        let points: Vec<_> = places.iter().map(|place| place.point.display().to_string()).collect();
        parts.push(format!("replace what is mounted at {}", points.join(", ")));
    }
    parts.join(", ")
}

fn is_directory(fd: &OwnedFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn is_empty(directory: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
