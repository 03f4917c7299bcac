//! The second half: what was made is moved into the live tree.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;

use super::stage::{Act, Staged};
use super::{exists, link};
use crate::error::Error;
use crate::reflink::attributes::Place;
use crate::reflink::descend;

pub(super) fn place(
    root: &Path,
    live: &OwnedFd,
    staging: &OwnedFd,
    staged: &Staged,
    observe: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let mut placing = Placing { root, live, staging, parent: None };
    for act in &staged.acts {
        observe("bring back one");
        placing.act(act)?;
    }
    // Those below come after those above in the list; their making changed the times of those above.
    for (below, attributes) in staged.directories.iter().rev() {
        observe("set a directory's attributes");
        let full = root.join(below);
        let opened = descend::directory(live.as_fd(), below).map_err(Error::io("open", &full))?;
        attributes.apply(Place::Open(opened.as_fd())).map_err(|failed| failed.at(&full))?;
    }
    Ok(())
}

struct Placing<'a> {
    root: &'a Path,
    live: &'a OwnedFd,
    staging: &'a OwnedFd,
    /// The directory that was worked in last.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Placing<'_> {
    fn act(&mut self, act: &Act) -> Result<(), Error> {
        let (staging, root) = (self.staging, self.root);
        match act {
            Act::MakeDirectory(path) => {
                let (parent, name) = self.parent(path)?;
                rustix::fs::mkdirat(parent, &*name, Mode::RWXU).map_err(Error::io("create", root.join(path)))
            }
            Act::ReplaceByDirectory(path, number) => {
                let number = number.to_string();
                rustix::fs::mkdirat(staging, &*number, Mode::RWXU).map_err(Error::io("create", root.join(path)))?;
                self.put(&number, path)
            }
            Act::Move(number, path) => self.put(&number.to_string(), path),
            Act::Link(first, path, number) => {
                let (parent, name) = open_parent(self.live, root, first)?;
                let number = number.to_string();
                link((&parent, &name), (staging, &number)).map_err(Error::io("link", root.join(path)))?;
                self.put(&number, path)
            }
            Act::Apply(path, attributes) => {
                let (parent, name) = self.parent(path)?;
                attributes.apply(Place::Named(parent.as_fd(), &name)).map_err(|failed| failed.at(root.join(path)))
            }
            Act::Remove(path, number) => {
                let (parent, name) = self.parent(path)?;
                match renameat(parent, &*name, staging, number.to_string()) {
                    Err(Errno::NOENT) => Ok(()),
                    moved => moved.map_err(Error::io("remove", root.join(path))),
                }
            }
        }
    }

    /// Moves something into place; what was there is gone, or in the other's place if one of both is a directory.
    fn put(&mut self, number: &str, path: &Path) -> Result<(), Error> {
        let (staging, root) = (self.staging, self.root);
        let (parent, name) = self.parent(path)?;
        let is_directory = |mode: u16| FileType::from_raw_mode(u32::from(mode)) == FileType::Directory;
        let there = exists(parent, &name).map_err(Error::io("look at", root.join(path)))?;
        let number_name = CString::new(number).map_err(|_| Error::refused("a number without a NUL"))?;
        let made = exists(staging, &number_name).map_err(Error::io("look at", root.join(path)))?;
        let needs_exchange = there
            .is_some_and(|there| is_directory(there.stx_mode) || made.is_some_and(|made| is_directory(made.stx_mode)));
        let flags = if needs_exchange { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        let moved = renameat_with(staging, number, parent, &*name, flags);
        moved.map_err(Error::io("bring back", root.join(path)))
    }

    fn parent(&mut self, path: &Path) -> Result<(&OwnedFd, CString), Error> {
        let above = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|(known, _)| known != above) {
            let (opened, _) = open_parent(self.live, self.root, path)?;
            self.parent = Some((above.to_owned(), opened));
        }
        let (_, parent) = self.parent.as_ref().expect("it was opened");
        Ok((parent, name_of(path)?))
    }
}

fn open_parent(live: &OwnedFd, root: &Path, path: &Path) -> Result<(OwnedFd, CString), Error> {
    let above = path.parent().unwrap_or(Path::new(""));
    let parent = descend::directory(live.as_fd(), above).map_err(Error::io("open", root.join(above)))?;
    Ok((parent, name_of(path)?))
}

fn name_of(path: &Path) -> Result<CString, Error> {
    let name = path.file_name().map(|name| name.as_bytes()).unwrap_or_default();
    CString::new(name).map_err(|_| Error::refused("a name cannot hold a NUL"))
}
