//! What is mounted where: `/proc/self/mountinfo`, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number; a mount upon it has it as parent.
    pub id: u64,
    /// The mount it lies upon.
    pub parent: u64,
    /// `st_dev` of the file system, major and minor.
    pub device: (u32, u32),
    /// Which directory of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of the mount.
    pub options: String,
    /// The file system's type.
    pub kind: String,
    /// Device, dataset, or whatever the file system calls it.
    pub source: OsString,
    /// Options of the file system.
    pub super_options: String,
    /// Whether it is in a peer group: `mount --move` of it is refused.
    pub is_shared: bool,
}

/// The mounts that this process sees, in the order in which they were made.
pub fn mounts() -> Result<Vec<Mount>, Error> {
    let path = Path::new("/proc/self/mountinfo");
    parse(&std::fs::read(path).map_err(Error::io("read", path))?)
}

/// Reads the text of a mountinfo file.
pub fn parse(text: &[u8]) -> Result<Vec<Mount>, Error> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            parse_line(line).ok_or_else(|| Error::Damaged {
                path: PathBuf::from("/proc/self/mountinfo"),
                reason: format!("a line cannot be understood: {}", String::from_utf8_lossy(line)),
            })
        })
        .collect()
}

/// The mount that a path without symbolic links lies on: the one on top of those upon the nearest directory above it.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let nearest = above.max_by_key(|mount| mount.point.components().count())?;
    on_top(mounts, &nearest.point)
}

/// The mount that is on top of those upon a directory. It need not be the last one made: another one can be slipped
/// beneath it (`MOVE_MOUNT_BENEATH`).
pub fn on_top<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    let upon: Vec<&Mount> = mounts.iter().filter(|mount| mount.point == point).collect();
    let is_covered = |mount: &Mount| upon.iter().any(|other| other.parent == mount.id);
    upon.iter().rev().find(|mount| !is_covered(mount)).copied()
}

/// Mounts strictly below a directory.
pub fn below<'a>(mounts: &'a [Mount], directory: &'a Path) -> impl Iterator<Item = &'a Mount> {
    mounts.iter().filter(move |mount| mount.point != directory && mount.point.starts_with(directory))
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut text = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
    let (id, parent) = (text()?.parse().ok()?, text()?.parse().ok()?);
    let (major, minor) = text()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let options = String::from_utf8(fields.next()?.to_vec()).ok()?;
    // Optional fields end with a single hyphen.
    let mut is_shared = false;
    for field in fields.by_ref() {
        match field {
            b"-" => break,
            field => is_shared |= field.starts_with(b"shared:"),
        }
    }
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescape(fields.next()?).into_os_string();
    let super_options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    Some(Mount { id, parent, device, root, point, options, kind, source, super_options, is_shared })
}

/// Space, tab, newline and backslash are written as octal numbers.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

impl Mount {
    /// Where a path below the mount lies inside of the file system.
    pub fn inside(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.point).ok()?;
        Some(match below.as_os_str().as_bytes() {
            b"" => self.root.clone(),
            _ => self.root.join(below),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_optional_fields_are_understood() {
        let text = b"36 35 0:34 /@shop\\040a /srv/the\\040shop rw,noatime shared:1 master:2 - btrfs /dev/vdb rw,subvol=/@shop\n\
            37 36 8:1 / /srv/the\\040shop/data rw - xfs /dev/sda1 rw\n";
        let mounts = parse(text).unwrap();
        assert_eq!(mounts[0].root, Path::new("/@shop a"));
        assert!(mounts[0].is_shared && !mounts[1].is_shared);
        assert_eq!((mounts[1].kind.as_str(), mounts[1].device), ("xfs", (8, 1)));
        let path = Path::new("/srv/the shop/web/index.html");
        let mount = mount_of(&mounts, path).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.inside(path).unwrap(), Path::new("/@shop a/web/index.html"));
        assert_eq!(below(&mounts, Path::new("/srv/the shop")).count(), 1);
    }

    #[test]
    fn of_two_mounts_upon_one_directory_the_upper_one_is_on_top() {
        let text = b"30 1 0:30 / /mnt rw - tmpfs none rw\n31 30 0:31 / /mnt rw - tmpfs none rw\n";
        assert_eq!(mount_of(&parse(text).unwrap(), Path::new("/mnt/x")).unwrap().id, 31);
        let slipped_in = b"30 1 0:30 / /mnt rw - tmpfs none rw\n31 32 0:31 / /mnt rw - tmpfs none rw\n\
            32 30 0:32 / /mnt rw - tmpfs none rw\n";
        assert_eq!(mount_of(&parse(slipped_in).unwrap(), Path::new("/mnt/x")).unwrap().id, 31);
    }
}
