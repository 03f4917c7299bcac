//! One entry of a directory made once more under another name: its content shared or copied, and all that it has besides.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::attributes::{Attributes, Place};
use super::content;
use crate::error::Error;

/// Whether content is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Extents are shared; where that is not possible, it is an error.
    #[default]
    Share,
    /// Shared where possible, else copied.
    ShareOrCopy,
}

/// Open directories and names in them, of one entry and of its clone.
pub(crate) struct Entry<'a> {
    pub(crate) from: BorrowedFd<'a>,
    pub(crate) from_name: &'a CStr,
    pub(crate) to: BorrowedFd<'a>,
    pub(crate) to_name: &'a CStr,
}

/// The same as paths, for errors.
pub(crate) struct Whole<'a> {
    pub(crate) source: &'a Path,
    pub(crate) target: &'a Path,
    pub(crate) content: Content,
}

/// A regular file, which is open. Gives the clone, without its flags.
pub(super) fn regular(entry: &Entry<'_>, whole: &Whole<'_>, source: &File, stat: &Statx) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The final mode already if the umask allows: nobody but us can reach it yet, and it spares a transaction.
    let mode = Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o777 | 0o600);
    let target = rustix::fs::openat(entry.to, entry.to_name, flags, mode);
    let target = File::from(target.map_err(Error::io("create", whole.target))?);
    if stat.stx_size > 0 {
        match content::share(source.as_fd(), target.as_fd()) {
            Ok(()) => {}
            Err(error) if whole.content == Content::ShareOrCopy && content::cannot_share(error) => {
                content::copy(source, &target, &mut Vec::new()).map_err(Error::io("copy", whole.source))?;
            }
            Err(error) => return Err(Error::io("share the extents of", whole.source)(error)),
        }
    }
    let attributes = Attributes::with(stat, Place::Open(source.as_fd())).map_err(|failed| failed.at(whole.source))?;
    attributes.apply(Place::Open(target.as_fd())).map_err(|failed| failed.at(whole.target))?;
    Ok(target)
}

/// What has no content.
pub(super) fn special(entry: &Entry<'_>, whole: &Whole<'_>, kind: FileType, stat: &Statx) -> Result<(), Error> {
    let made = match kind {
        FileType::Symlink => {
            let leads_to = rustix::fs::readlinkat(entry.from, entry.from_name, Vec::new());
            let leads_to = leads_to.map_err(Error::io("read the link", whole.source))?;
            rustix::fs::symlinkat(leads_to, entry.to, entry.to_name)
        }
        kind => {
            let number = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
            rustix::fs::mknodat(entry.to, entry.to_name, kind, Mode::RUSR | Mode::WUSR, number)
        }
    };
    match made {
        Err(Errno::PERM) if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) => {
            let action = format!("make the device {}", whole.target.display());
            return Err(Error::Privilege { action, capability: "CAP_MKNOD", hint: None });
        }
        made => made.map_err(Error::io("create", whole.target))?,
    }
    let attributes = Attributes::with(stat, Place::Named(entry.from, entry.from_name));
    let attributes = attributes.map_err(|failed| failed.at(whole.source))?;
    attributes.apply(Place::Named(entry.to, entry.to_name)).map_err(|failed| failed.at(whole.target))
}

pub(super) fn cannot_open(path: &Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |error| match error {
        Errno::ACCESS if !rustix::process::geteuid().is_root() => Error::Privilege {
            action: format!("read {}", path.display()),
            capability: "CAP_DAC_READ_SEARCH",
            hint: None,
        },
        error => Error::io("open", path)(error),
    }
}
