//! Searching in btrfs's trees (`BTRFS_IOC_TREE_SEARCH_V2`): keys are (object, type, offset), and what is found comes in
//! their order.

use std::io;
use std::os::fd::AsFd;

use linux_raw_sys::btrfs::btrfs_ioctl_search_key;
use linux_raw_sys::ioctl::BTRFS_IOC_TREE_SEARCH_V2;

use super::ioctl::update;

/// The tree of trees: `BTRFS_ROOT_TREE_OBJECTID`.
pub(crate) const ROOT_TREE: u64 = 1;

/// What is searched for. Types other than `kind` are left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// The tree; for a subvolume its number.
    pub(crate) tree: u64,
    /// First and last object.
    pub(crate) objects: (u64, u64),
    /// Type of the items.
    pub(crate) kind: u32,
    /// Leaves that are older than this generation are left out as a whole, which is what makes a search for what
    /// changed quick. Items in a younger leaf may be older.
    pub(crate) since: u64,
}

/// What is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) offset: u64,
    pub(crate) data: &'a [u8],
}

#[repr(C)]
struct Buffer {
    key: btrfs_ioctl_search_key,
    size: u64,
    bytes: [u8; SIZE],
}

const SIZE: usize = 64 << 10;
/// Of `struct btrfs_ioctl_search_header`.
const HEADER: usize = 32;

/// Shows each item found to a function, until it returns `false`. Needs CAP_SYS_ADMIN.
pub(crate) fn search(fd: impl AsFd, what: Search, found: &mut dyn FnMut(Item) -> bool) -> io::Result<()> {
    let key = btrfs_ioctl_search_key {
        tree_id: what.tree,
        min_objectid: what.objects.0,
        max_objectid: what.objects.1,
        min_offset: 0,
        max_offset: u64::MAX,
        min_transid: what.since,
        max_transid: u64::MAX,
        min_type: what.kind,
        max_type: what.kind,
        nr_items: 0,
        unused: 0,
        unused1: 0,
        unused2: 0,
        unused3: 0,
        unused4: 0,
    };
    let mut buffer = Box::new(Buffer { key, size: SIZE as u64, bytes: [0; SIZE] });
    loop {
        buffer.key.nr_items = u32::MAX;
        // SAFETY: number and structure belong together; the buffer follows it and has the size that it says.
        unsafe { update::<{ BTRFS_IOC_TREE_SEARCH_V2 }, _>(&fd, &mut *buffer)? };
        if buffer.key.nr_items == 0 {
            return Ok(());
        }
        let mut rest = &buffer.bytes[..];
        let mut last = (0, 0, 0);
        for _ in 0..buffer.key.nr_items {
            let cut = || io::Error::other("an answer of the tree search is cut off");
            let (header, after) = rest.split_at_checked(HEADER).ok_or_else(cut)?;
            let (object, offset) = (number(header, 8), number(header, 16));
            let (kind, length) = (number(header, 24) as u32, number(header, 24) >> 32);
            let (data, after) = after.split_at_checked(length as usize).ok_or_else(cut)?;
            rest = after;
            last = (object, kind, offset);
            // A range of keys also holds other types of the objects in its middle.
            if kind == what.kind && !found(Item { offset, data }) {
                return Ok(());
            }
        }
        let (object, kind, offset) = last;
        let next = match (offset.checked_add(1), object.checked_add(1)) {
            (Some(offset), _) => (object, kind, offset),
            (None, Some(object)) => (object, 0, 0),
            (None, None) => return Ok(()),
        };
        (buffer.key.min_objectid, buffer.key.min_type, buffer.key.min_offset) = next;
        if buffer.key.min_objectid > buffer.key.max_objectid {
            return Ok(());
        }
    }
}

/// The number at a place of an item; what lies beyond its end is 0. On the disk it is little-endian, in the answer's
/// headers native: snapshots of btrfs on big-endian machines are not supported.
pub(crate) fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    for (to, from) in number.iter_mut().zip(bytes.iter().skip(at)) {
        *to = *from;
    }
    u64::from_le_bytes(number)
}
