//! The kernel's calls for extended attributes, xattr(7), of open files and of names.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lremovexattr, lsetxattr,
};
use rustix::io::{Errno, Result};

use super::Entry;

/// Longest list and longest value, `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const MAX_BYTES: usize = 64 << 10;

/// The bytes tried first. The kernel allocates and clears as much as the caller has room for, so asking with the
/// maximum would cost more than all the rest of the call.
const TRY_BYTES: usize = 1024;

/// What extended attributes are read from and set on.
pub(super) enum Holder<'a> {
    /// Open for reading or writing; a mere path (`O_PATH`) will not do.
    Open(BorrowedFd<'a>),
    /// Not opened: a link, a fifo or a device. There are calls for paths only, so it leads through the directory's
    /// descriptor in `/proc`; the last component is not followed.
    Named(CString),
}

impl<'a> Holder<'a> {
    pub(super) fn new(entry: Entry<'_>, open: Option<BorrowedFd<'a>>) -> Result<Self> {
        if let Some(fd) = open {
            return Ok(Self::Open(fd));
        }
        let mut path = format!("/proc/self/fd/{}/", entry.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(entry.name);
        CString::new(path).map(Self::Named).map_err(|_| Errno::INVAL)
    }

    /// The names, each ended by a NUL; empty where the file system has no extended attributes.
    pub(super) fn list(&self) -> Result<Box<[u8]>> {
        match read(|buffer| match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Named(path) => llistxattr(path.as_c_str(), buffer),
        }) {
            Err(Errno::NOTSUP) => Ok(Box::default()),
            answer => answer,
        }
    }

    /// `None` if it does not exist (any more).
    pub(super) fn get(&self, name: &str) -> Result<Option<Box<[u8]>>> {
        match read(|buffer| match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Named(path) => lgetxattr(path.as_c_str(), name, buffer),
        }) {
            Err(Errno::NODATA) => Ok(None),
            answer => answer.map(Some),
        }
    }

    pub(super) fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(path) => lsetxattr(path.as_c_str(), name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        match match self {
            Self::Open(fd) => fremovexattr(fd, name),
            Self::Named(path) => lremovexattr(path.as_c_str(), name),
        } {
            Err(Errno::NODATA) => Ok(()),
            answer => answer,
        }
    }
}

fn read(mut call: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Box<[u8]>> {
    let mut small = [0; TRY_BYTES];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].into()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; MAX_BYTES];
            let length = call(&mut large)?;
            Ok(large[..length].into())
        }
        Err(error) => Err(error),
    }
}

/// The names in a list as the kernel gives it.
pub(super) fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty())
}
