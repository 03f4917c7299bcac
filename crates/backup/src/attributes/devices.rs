//! Numbers for file systems that stay the same from run to run.
//!
//! Trees record for a hard link which file system its inode number belongs to. `st_dev` would change the bytes of every
//! tree with a hard link: a btrfs subvolume gets a new one at each mount, and each snapshot has its own. What stays is
//! where the walk enters a file system, named as the backup names it (`/srv/shop`, never the snapshot's mount), so the
//! number is a hash of that path: independent of the order in which file systems turn up, and of the others there are.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

/// The file systems of one run. Shared between threads.
#[derive(Debug, Default)]
pub struct Devices {
    numbers: RwLock<HashMap<u64, u64>>,
}

impl Devices {
    /// Knows no file system yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the file system with this `st_dev` was entered at `path`. The walk calls it for its targets, in their
    /// order, and for each directory on another file system than its parent; the first call for a device counts, so
    /// that one file system seen in two places (bind mounts) has one number.
    pub fn enter(&self, device: u64, path: &Path) {
        self.number(device, path);
    }

    /// Says that the file system with this `st_dev` stands for another one, which was entered before or is entered at
    /// `path`: a snapshot for the file system it is one of.
    pub fn stand_for(&self, device: u64, other: u64, path: &Path) {
        let number = self.number(other, path);
        self.numbers.write().unwrap_or_else(PoisonError::into_inner).entry(device).or_insert(number);
    }

    /// The number of the file system with this `st_dev`, never 0. One that was not entered is entered at `directory`;
    /// this happens for files alone that are mounts, and on overlayfs, whose files have other devices than its
    /// directories.
    pub fn number(&self, device: u64, directory: &Path) -> u64 {
        // A panic elsewhere cannot leave the map half changed.
        if let Some(number) = self.numbers.read().unwrap_or_else(PoisonError::into_inner).get(&device) {
            return *number;
        }
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(&device) {
            return *number;
        }
        let mut number = fnv1a(directory.as_os_str().as_bytes());
        // 0 would not be written; and two file systems must never share a number, or their inodes would be confused.
        while number == 0 || numbers.values().any(|taken| *taken == number) {
            number += 1;
        }
        numbers.insert(device, number);
        number
    }
}

/// FNV-1a, 32 bits: short in JSON, about the size of a real `st_dev`.
fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_depends_on_where_a_file_system_is_entered_and_not_on_its_device() {
        let one_day = Devices::new();
        one_day.enter(41, Path::new("/"));
        one_day.enter(52, Path::new("/srv"));
        let next_day = Devices::new();
        next_day.enter(97, Path::new("/srv"));
        next_day.enter(41, Path::new("/"));
        let anywhere = Path::new("/srv/a/b");
        assert_eq!(one_day.number(52, anywhere), next_day.number(97, anywhere));
        assert_eq!(one_day.number(41, anywhere), next_day.number(41, anywhere));
        assert_ne!(one_day.number(41, anywhere), one_day.number(52, anywhere));
    }

    #[test]
    fn two_file_systems_at_one_path_have_two_numbers() {
        let devices = Devices::new();
        let path = Path::new("/mnt");
        assert_ne!(devices.number(1, path), devices.number(2, path));
    }

    #[test]
    fn one_that_stands_for_another_has_its_number() {
        let devices = Devices::new();
        devices.enter(1, Path::new("/"));
        devices.stand_for(2, 1, Path::new("/srv"));
        let anywhere = Path::new("/srv/a");
        assert_eq!(devices.number(2, anywhere), devices.number(1, anywhere));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
