//! What the kernel is told of a node.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use repository::chunker::MIN_BYTES;
use repository::hash::sha256;
use repository::id::Id;
use repository::tree::{Node, NodeKind, Timestamp, st_mode_from_file_mode};

/// Longest name the kernel takes from us, in bytes (`FUSE_NAME_MAX`); one longer makes a directory unreadable.
const MAX_NAME: usize = 1024;
/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
const MAX_XATTR_NAME: usize = 255;
/// What programs are advised to read at once, in bytes.
const BLOCK_SIZE: u32 = 128 * 1024;

/// User and group of what is in no backup: whoever mounted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The kind of an entry that is shown. None for what only forged trees name, and for kinds that Linux does not have.
pub(super) fn shown(node: &Node) -> Option<FileType> {
    if !node.has_safe_name() || node.name.len() > MAX_NAME {
        return None;
    }
    match node.kind {
        NodeKind::File => Some(FileType::RegularFile),
        NodeKind::Dir => Some(FileType::Directory),
        NodeKind::Symlink => Some(FileType::Symlink),
        NodeKind::BlockDevice => Some(FileType::BlockDevice),
        NodeKind::CharDevice => Some(FileType::CharDevice),
        NodeKind::Fifo => Some(FileType::NamedPipe),
        NodeKind::Socket => Some(FileType::Socket),
        NodeKind::Other(_) => None,
    }
}

/// What holes are cut into; long runs of written zeros, too.
static ZEROS: LazyLock<Id> = LazyLock::new(|| sha256(&vec![0; MIN_BYTES]));

/// Bytes of a file's holes, as far as they fill pieces. Who copies a file or asks du(1) sees that it is sparse.
fn bytes_of_holes(node: &Node) -> u64 {
    let pieces = node.content.as_deref().filter(|content| content.len() > 1).unwrap_or_default();
    pieces.iter().filter(|id| **id == *ZEROS).count() as u64 * MIN_BYTES as u64
}

/// A node's attributes. `size` is a regular file's.
pub(super) fn of_node(number: u64, node: &Node, kind: FileType, size: u64) -> FileAttr {
    let size = match kind {
        FileType::RegularFile => size,
        FileType::Symlink => node.link_target.len() as u64,
        _ => 0,
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.saturating_sub(bytes_of_holes(node)).div_ceil(512),
        atime: system_time(node.atime),
        mtime: system_time(node.mtime),
        ctime: system_time(node.ctime),
        crtime: UNIX_EPOCH,
        kind,
        perm: (st_mode_from_file_mode(node.mode) & 0o7777) as u16,
        // Trees do not count the links of directories; 1 is what file systems say that do not either.
        nlink: u32::try_from(node.links).unwrap_or(u32::MAX).max(1),
        uid: node.uid,
        gid: node.gid,
        // The kernel's 32 bits of a device number are the low ones of the C library's 64.
        rdev: node.device as u32,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A directory that is in no backup, or a backup's root.
pub(super) fn of_directory(number: u64, time: Timestamp, owner: Owner) -> FileAttr {
    let time = system_time(time);
    FileAttr {
        ino: INodeNo(number),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0o555,
        nlink: 1,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// A symbolic link that is in no backup.
pub(super) fn of_link(number: u64, target: &[u8], time: Timestamp, owner: Owner) -> FileAttr {
    let directory = of_directory(number, time, owner);
    FileAttr { size: target.len() as u64, kind: FileType::Symlink, perm: 0o777, ..directory }
}

/// The names of a node's extended attributes, each with a NUL behind it.
pub(super) fn xattr_names(node: &Node) -> Vec<u8> {
    let names = node.extended_attributes.iter().map(|attribute| attribute.name.as_bytes());
    // The kernel refuses a list with an empty name in it as a whole.
    let shown = names.filter(|name| (1..=MAX_XATTR_NAME).contains(&name.len()) && !name.contains(&0));
    shown.flat_map(|name| [name, b"\0"]).flatten().copied().collect()
}

/// An extended attribute's value.
pub(super) fn xattr<'a>(node: &'a Node, name: &[u8]) -> Option<&'a [u8]> {
    let attribute = node.extended_attributes.iter().find(|attribute| attribute.name.as_bytes() == name)?;
    Some(attribute.value.as_deref().unwrap_or_default())
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second = if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use repository::tree::Tree;

    use super::*;

    fn nodes(nodes: &str) -> Vec<Node> {
        Tree::decode(format!("{{\"nodes\":[{nodes}]}}").as_bytes()).unwrap().nodes
    }

    #[test]
    fn forged_names_and_unknown_kinds_are_not_shown() {
        let long = "x".repeat(1025);
        for name in [".", "..", "/", "/etc/passwd", "a/b", "a\\u0000b", &long] {
            let node = nodes(&format!(r#"{{"name":"{name}","type":"file"}}"#));
            assert_eq!(shown(&node[0]), None, "{name}");
        }
        let kinds = nodes(r#"{"name":"a","type":"irregular"},{"name":"b","type":"dir"},{"name":"c","type":"door"}"#);
        assert_eq!(kinds.iter().map(shown).collect::<Vec<_>>(), [None, Some(FileType::Directory), None]);
    }

    #[test]
    fn times_before_1970_and_beyond_all_bounds_are_no_panic() {
        let at = |secs, nanos| system_time(Timestamp { secs, nanos, offset_minutes: 0 });
        assert_eq!(at(-1, 999_999_999), UNIX_EPOCH - Duration::from_nanos(1));
        assert_eq!(at(5, 1), UNIX_EPOCH + Duration::new(5, 1));
        let _ = (at(i64::MIN, 0), at(i64::MAX, u32::MAX));
    }

    #[test]
    fn numbers_out_of_range_are_no_panic() {
        let node = nodes(
            r#"{"name":"a","type":"chardev","mode":4294967295,"links":18446744073709551615,"device":18446744073709551615}"#,
        );
        let attr = of_node(5, &node[0], FileType::CharDevice, u64::MAX);
        assert_eq!((attr.nlink, attr.rdev, attr.size), (u32::MAX, u32::MAX, 0));
    }

    #[test]
    fn extended_attributes_that_the_kernel_would_refuse_are_left_out() {
        let long = "x".repeat(256);
        let node = nodes(&format!(
            r#"{{"name":"a","type":"file","extended_attributes":[{{"name":"","value":"AA=="}},
            {{"name":"user.a","value":"eA=="}},{{"name":"user.b\u0000c","value":"eA=="}},{{"name":"{long}"}},
            {{"name":"user.d","value":null}}]}}"#
        ));
        assert_eq!(xattr_names(&node[0]), b"user.a\0user.d\0");
        assert_eq!(xattr(&node[0], b"user.a"), Some(b"x".as_slice()));
        assert_eq!(xattr(&node[0], b"user.d"), Some(b"".as_slice()));
        assert_eq!(xattr(&node[0], b"user.e"), None);
    }
}
