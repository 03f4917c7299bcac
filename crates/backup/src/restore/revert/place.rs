//! What was made is moved into the live tree.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use repository::tree::Node;
use rustix::fs::{AtFlags, IFlags, Mode, OFlags, RenameFlags, linkat, mkdirat, openat, renameat, renameat_with};
use rustix::io::Errno;

use super::compare::Act;
use super::{Options, Plan, RevertError, equal, is_directory, name_of, reach};
use crate::attributes::{Applier, AttributeError, Before, Stat};

pub(super) fn place(options: Options<'_>, root: &OwnedFd, staging: &OwnedFd, plan: &Plan) -> Result<(), RevertError> {
    let mut placing = Placing { options, root, staging, parent: None, applier: Applier::new() };
    for act in &plan.acts {
        placing.act(act)?;
    }
    // Those below before those above, whose times their making changed.
    for (path, node) in plan.directories.iter().rev() {
        let full = options.directory.join(path);
        let open = reach::directory(root, path).map_err(RevertError::io("open", &full))?;
        let stat = Stat::of(open.as_fd()).map_err(RevertError::io("look at", &full))?;
        let report = &mut |error: AttributeError| options.progress.warning(&error.to_string());
        placing.applier.apply(equal::entry(&open, b"."), Some(open.as_fd()), node, &Before::changed(&stat), report);
    }
    Ok(())
}

struct Placing<'a> {
    options: Options<'a>,
    root: &'a OwnedFd,
    staging: &'a OwnedFd,
    /// The directory that was worked in last.
    parent: Option<(PathBuf, OwnedFd)>,
    applier: Applier,
}

impl Placing<'_> {
    fn act(&mut self, act: &Act) -> Result<(), RevertError> {
        let staging = self.staging;
        match act {
            Act::MakeDirectory(path) => {
                let full = self.full(path);
                let (parent, name) = self.parent(path)?;
                mkdirat(parent, name, Mode::RWXU).map_err(RevertError::io("create", full))
            }
            Act::ReplaceByDirectory(path, number) => {
                let name = number.to_string();
                mkdirat(staging, &*name, Mode::RWXU).map_err(RevertError::io("create", self.full(path)))?;
                self.put(&name, path)
            }
            Act::Move(number, path) => self.put(&number.to_string(), path),
            Act::Link(first, path, number) => {
                let number = number.to_string();
                let above = first.parent().unwrap_or(Path::new(""));
                let from = reach::directory(self.root, above).map_err(RevertError::io("open", self.full(above)))?;
                linkat(&from, name_of(first), staging, &*number, AtFlags::empty())
                    .map_err(RevertError::io("link", self.full(first)))?;
                self.put(&number, path)?;
                // Were both one file already, the rename did nothing at all, rename(2).
                let _ = rustix::fs::unlinkat(staging, &*number, AtFlags::empty());
                Ok(())
            }
            Act::Apply(path, node) => self.apply(path, node),
            Act::Remove(path, number) => {
                let full = self.full(path);
                let (parent, name) = self.parent(path)?;
                let remove = || renameat(parent, name, staging, number.to_string());
                let removed = match remove() {
                    Err(Errno::PERM) if loosen(parent, name) => remove(),
                    removed => removed,
                };
                match removed {
                    Err(Errno::NOENT) => Ok(()),
                    removed => removed.map_err(RevertError::io("remove", full)),
                }
            }
        }
    }

    fn apply(&mut self, path: &Path, node: &Node) -> Result<(), RevertError> {
        let full = self.full(path);
        let progress = self.options.progress;
        let (parent, name) = self.parent(path)?;
        let entry = equal::entry(parent, name);
        let stat = Stat::at(entry).map_err(|error| RevertError::io("look at", &full)(error.source))?;
        let before = Before::untouched(&stat);
        let report = &mut |error: AttributeError| progress.warning(&format!("{}: {error}", full.display()));
        Applier::new().apply(entry, None, node, &before, report);
        Ok(())
    }

    /// Moves something into place; what was there is in the other's place then. It could as well be replaced, but the
    /// kernel gives its blocks back at once then, and the live tree would be half changed for as long as that takes.
    fn put(&mut self, number: &str, path: &Path) -> Result<(), RevertError> {
        let (staging, full) = (self.staging, self.full(path));
        let (parent, name) = self.parent(path)?;
        let is_directory = |dir: &OwnedFd, name: &[u8]| match Stat::at(equal::entry(dir, name)) {
            Ok(stat) => Some(is_directory(&stat)),
            Err(_) => None,
        };
        let there = is_directory(parent, name);
        let made = is_directory(staging, number.as_bytes());
        let put_with = |flags| renameat_with(staging, number, parent, name, flags);
        let put = || match there {
            None => put_with(RenameFlags::empty()),
            Some(there) => match put_with(RenameFlags::EXCHANGE) {
                // Some file systems of networks cannot.
                Err(Errno::INVAL) if !there && made == Some(false) => put_with(RenameFlags::empty()),
                put => put,
            },
        };
        let done = match put() {
            Err(Errno::PERM) if loosen(parent, name) => put(),
            done => done,
        };
        done.map_err(RevertError::io("bring back", full))
    }

    fn full(&self, path: &Path) -> PathBuf {
        self.options.directory.join(path)
    }

    fn parent<'p>(&mut self, path: &'p Path) -> Result<(&OwnedFd, &'p [u8]), RevertError> {
        let above = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|(known, _)| known != above) {
            let opened = reach::directory(self.root, above).map_err(RevertError::io("open", self.full(above)))?;
            self.parent = Some((above.to_owned(), opened));
        }
        let (_, parent) = self.parent.as_ref().expect("it was opened");
        Ok((parent, name_of(path)))
    }
}

/// Takes away the flags of chattr(1) that keep an entry from being replaced; a backup does not know of them. Gives
/// whether there were any.
fn loosen(parent: &OwnedFd, name: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(open) = openat(parent, name, flags, Mode::empty()) else { return false };
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    match rustix::fs::ioctl_getflags(&open) {
        Ok(has) if has.intersects(fixed) => rustix::fs::ioctl_setflags(&open, has - fixed).is_ok(),
        _ => false,
    }
}
