//! Whether a live entry is what the backup has.

use std::path::Path;

use repository::blob::BlobKind;
use repository::hash::sha256;
use repository::index::Index;
use repository::tree::{Node, NodeKind, Timestamp, file_mode_from_st_mode, st_mode_from_file_mode};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::attributes::{Entry, Moment, Stat, extended_attributes, link_target};

const PERMISSIONS: u32 = 0o7777;
/// A clock that ticks as coarsely as once a second may show one time for a change that was seen and one that was not;
/// twice that, as the backup's own time is another clock's.
const COARSE_SECS: i64 = 2;

/// What a comparison gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Equal {
    /// In all that a backup keeps.
    Wholly,
    /// But for its owner, mode, time of modification or extended attributes.
    ButForAttributes,
    Not,
}

fn is_at(time: Timestamp, moment: Moment) -> bool {
    (time.secs, time.nanos) == (moment.secs, moment.nanos)
}

/// Whether nothing at all was done to an inode since the backup looked at it. Whatever is done to it sets its time of
/// change, which nobody can set otherwise.
pub(super) fn is_untouched(node: &Node, stat: &Stat, begun: Timestamp) -> bool {
    node.inode == stat.inode
        && is_at(node.ctime, stat.ctime)
        && is_at(node.mtime, stat.mtime)
        && (node.kind != NodeKind::File || node.size == stat.size)
        && node.ctime.secs < begun.secs - COARSE_SECS
}

/// Compares an entry that is no directory, by its content if need be.
pub(super) fn compare(
    entry: Entry<'_>,
    node: &Node,
    stat: &Stat,
    index: &Index,
    begun: Timestamp,
) -> Result<Equal, Errno> {
    if NodeKind::of_file_mode(file_mode_from_st_mode(stat.mode)) != node.kind {
        return Ok(Equal::Not);
    }
    if is_untouched(node, stat, begun) {
        return Ok(Equal::Wholly);
    }
    let has_same_content = match node.kind {
        NodeKind::File => stat.size == node.size && has_content(entry, node, index)?,
        NodeKind::Symlink => link_target(entry).is_ok_and(|target| target == node.link_target),
        NodeKind::BlockDevice | NodeKind::CharDevice => stat.rdev == node.device,
        _ => true,
    };
    Ok(match has_same_content {
        false => Equal::Not,
        true if has_attributes(entry, node, stat) => Equal::Wholly,
        true => Equal::ButForAttributes,
    })
}

/// Whether owner, mode, time of modification and extended attributes are the backup's.
pub(super) fn has_attributes(entry: Entry<'_>, node: &Node, stat: &Stat) -> bool {
    let has_mode =
        node.kind == NodeKind::Symlink || st_mode_from_file_mode(node.mode) & PERMISSIONS == stat.mode & PERMISSIONS;
    if (node.uid, node.gid) != (stat.uid, stat.gid) || !has_mode || !is_at(node.mtime, stat.mtime) {
        return false;
    }
    let mut is_read = true;
    let mut present = extended_attributes(entry, None, &mut |_| is_read = false);
    // Labels that security modules give each file themselves are neither the backup's nor removed.
    present.retain(|one| {
        let is_label = one.name.starts_with("security.") && &*one.name != "security.capability";
        !is_label || node.extended_attributes.iter().any(|wanted| wanted.name == one.name)
    });
    let mut wanted: Vec<_> = node.extended_attributes.iter().collect();
    wanted.sort_by(|one, other| one.name.cmp(&other.name));
    present.sort_by(|one, other| one.name.cmp(&other.name));
    is_read && wanted.len() == present.len() && wanted.into_iter().zip(&present).all(|(one, other)| one == other)
}

/// Reads a file up to its first difference.
fn has_content(entry: Entry<'_>, node: &Node, index: &Index) -> Result<bool, Errno> {
    let Some(content) = &node.content else { return Ok(false) };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(entry.dir, entry.name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave the time of access alone.
        Err(Errno::PERM) => openat(entry.dir, entry.name, flags, Mode::empty())?,
        opened => opened?,
    };
    let mut buffer = Vec::new();
    let mut offset = 0;
    for id in content {
        let Some(location) = index.get(BlobKind::Data, id) else { return Ok(false) };
        let Ok(length) = usize::try_from(location.blob.plain_length()) else { return Ok(false) };
        buffer.resize(length, 0);
        let mut read = 0;
        while read < length {
            match rustix::io::pread(&file, &mut buffer[read..], offset + read as u64) {
                Ok(0) => return Ok(false),
                Ok(more) => read += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        if sha256(&buffer) != *id {
            return Ok(false);
        }
        offset += length as u64;
    }
    Ok(offset == node.size)
}

/// An entry without a path: nobody reads what it would say.
pub(super) fn entry<'a>(dir: &'a std::os::fd::OwnedFd, name: &'a [u8]) -> Entry<'a> {
    use std::os::fd::AsFd as _;
    Entry { dir: dir.as_fd(), name, dir_path: Path::new("") }
}
