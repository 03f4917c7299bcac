//! How much room a snapshot takes, without quotas, which slow the whole file system down.
//!
//! Two numbers that have little to do with each other: overwriting the middle of a large extent takes new room, and yet
//! the old extent stays as long as anything uses its ends.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use linux_raw_sys::btrfs::{BTRFS_EXTENT_DATA_KEY, BTRFS_FIRST_FREE_OBJECTID};
use rustix::fs::{AtFlags, FileType};

use super::Btrfs;
use super::changes::Changes;
use super::ioctl::{self, Subvolume};
use super::search::{Item, Search, number, search};
use super::temporary::{Still, has_no_room};
use crate::error::Error;
use crate::provider::{Handle, Space};

/// Asking who uses an extent takes some 50 microseconds; of more than these, a sample is asked for.
const MOST_ASKED: usize = 4096;

/// Extents on the disk, by address, with their length there.
type Extents = HashMap<u64, u64>;

/// The live tree, for comparisons.
pub(super) struct Present<'a> {
    root: OwnedFd,
    live: Subvolume,
    /// A snapshot of it, if there is room for one.
    still: Option<Still<'a>>,
}

impl Btrfs {
    pub(super) fn present(&self) -> Result<Present<'_>, Error> {
        let (root, live) = self.live()?;
        // What is not written out yet has no extents.
        rustix::fs::syncfs(&root).map_err(Error::io("sync", &self.directory))?;
        let still = match self.still(None) {
            Err(error) if has_no_room(&error) => None,
            still => Some(still?),
        };
        Ok(Present { root, live, still })
    }

    pub(super) fn space_of(&self, handle: &Handle, present: &Present) -> Result<Space, Error> {
        let (_, _, snapshot) = self.found(handle)?;
        // A tree that was live until a rollback is as old as that: when its successor was made, or, after several
        // rollbacks, when it was last written to.
        let kept = || snapshot.changed_in.min(present.live.made_in);
        let then = if snapshot.is_read_only { snapshot.made_in } else { kept() };
        let first = BTRFS_FIRST_FREE_OBJECTID.into();
        let newer = Search {
            tree: present.live.id,
            objects: (first, u64::MAX - 256),
            kind: BTRFS_EXTENT_DATA_KEY,
            since: then + 1,
        };
        let (mut extents, mut inline) = (Extents::new(), 0);
        search(&present.root, newer, &mut |item| {
            if number(item.data, GENERATION) > then {
                inline += add(&mut extents, item);
            }
            true
        })
        .map_err(self.top.searching())?;
        let grown = inline + extents.values().sum::<u64>();
        let reclaimable = match &present.still {
            Some(live) => self.reclaimable(handle, snapshot.id, live)?,
            None => None,
        };
        Ok(Space { grown: Some(grown), reclaimable })
    }

    /// The extents of files that differ from the live tree, and that nothing but the snapshot uses.
    fn reclaimable(&self, handle: &Handle, subvolume: u64, live: &Still) -> Result<Option<u64>, Error> {
        let snapshot = match self.still(Some(handle)) {
            Err(error) if has_no_room(&error) => return Ok(None),
            still => still?,
        };
        let mut changes = Changes::new();
        let understood = self.send(live, &snapshot, &mut |command| {
            changes.add(command);
            ControlFlow::Continue(())
        })?;
        if understood.is_err() {
            return Ok(None);
        }
        let mut extents = Extents::new();
        for path in changes.touched() {
            let Ok(stat) = rustix::fs::statat(&snapshot.root, &path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode).is_file() {
                let objects = (stat.st_ino, stat.st_ino);
                let of_file = Search { tree: snapshot.subvolume.id, objects, kind: BTRFS_EXTENT_DATA_KEY, since: 0 };
                search(&snapshot.root, of_file, &mut |item| {
                    add(&mut extents, item);
                    true
                })
                .map_err(self.top.searching())?;
            }
        }
        // What is not read-only was compared by a snapshot of it.
        self.used_only_by(&snapshot.root, [subvolume, snapshot.subvolume.id], &extents).map(Some)
    }

    /// Bytes of extents that only these subvolumes use.
    fn used_only_by(&self, root: &OwnedFd, subvolumes: [u64; 2], extents: &Extents) -> Result<u64, Error> {
        let every = extents.len().div_ceil(MOST_ASKED).max(1);
        let (mut asked, mut only) = (0, 0);
        let mut there = HashMap::new();
        for (address, length) in extents.iter().step_by(every) {
            let users = match ioctl::users_of_extent(root, *address) {
                // Freed in the meantime.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                users => users.map_err(self.top.searching())?,
            };
            asked += length;
            let Some(users) = users else { continue };
            let mut is_used = false;
            for user in users.into_iter().filter(|user| !subvolumes.contains(user)) {
                is_used |= match there.get(&user) {
                    Some(is_there) => *is_there,
                    // A subvolume that was deleted uses its extents until the kernel has cleaned up behind it.
                    None => *there.entry(user).or_insert(self.top.path_of(user)?.is_some()),
                };
            }
            if !is_used {
                only += length;
            }
        }
        let all: u64 = extents.values().sum();
        if asked == 0 {
            return Ok(0);
        }
        Ok((u128::from(all) * u128::from(only) / u128::from(asked)).try_into().unwrap_or(u64::MAX))
    }
}

// Of `struct btrfs_file_extent_item`.
const GENERATION: usize = 0;
const KIND: usize = 20;
const INLINE: u8 = 0;
const ADDRESS: usize = 21;
const LENGTH: usize = 29;

/// Adds the extent of an item. Several items may be parts of one extent. Returns the bytes of a file so small that it
/// has no extent.
fn add(extents: &mut Extents, item: Item) -> u64 {
    if item.data.get(KIND) == Some(&INLINE) {
        return item.data.len().saturating_sub(ADDRESS) as u64;
    }
    let (address, length) = (number(item.data, ADDRESS), number(item.data, LENGTH));
    // Address 0 is a hole.
    if address != 0 {
        extents.insert(address, length);
    }
    0
}
