//! Inode numbers: which are in use, and what they stand for.
//!
//! A number is a hash of what it stands for (the directory's number and the name; of hard links, the backup and what
//! makes them one file), so the same thing has the same number throughout a mount, although only those are kept here
//! which the kernel holds on to: memory is bounded by its cache, at some 100 bytes for each of its inodes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use repository::hash::Sha256;
use repository::id::Id;
use repository::tree::{Node, NodeKind};

use super::listing::{Backup, Link};

/// The mount's own directory; the kernel begins there.
pub(super) const ROOT: u64 = 1;

/// What an inode stands for.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// A directory above the backups, by its path below the mount.
    Listed(Arc<[u8]>),
    /// `latest`.
    Link(Arc<Link>),
    /// A backup's root.
    Backup(Arc<Backup>),
    /// A directory in a backup; boxed because most inodes are files.
    Directory(Box<Subdirectory>),
    /// Anything else in a backup.
    Leaf(Place),
}

/// An entry of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The tree.
    pub(super) tree: Id,
    /// Its place there.
    pub(super) at: u32,
}

/// A directory in a backup.
#[derive(Clone, Debug)]
pub(super) struct Subdirectory {
    /// Where it is named.
    pub(super) place: Place,
    /// What it holds.
    pub(super) subtree: Option<Id>,
    /// The backup's root: hard links are one file within a backup, but never across.
    pub(super) root: u64,
}

/// What a number is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The number it gets, unless another thing has it.
    pub(super) number: u64,
    /// Tells two things of the same number apart.
    check: u64,
}

impl Key {
    /// Of a name in a directory; `also` tells apart what may have this name at different times.
    pub(super) fn of_name(directory: u64, name: &[u8], also: &[u8]) -> Key {
        let mut hash = Sha256::new();
        hash.update(&directory.to_le_bytes());
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(also);
        Key::from(hash)
    }

    /// Of a node. Hard links of a backup share it as far as they agree: links that were saved at different moments,
    /// or that a forged tree calls so, must not lend each other their contents.
    pub(super) fn of_node(directory: u64, root: u64, node: &Node) -> Key {
        if node.links < 2 || node.kind == NodeKind::Dir {
            return Key::of_name(directory, &node.name, &[]);
        }
        let mut hash = Sha256::new();
        hash.update(b"hard links");
        hash.update(node.kind.as_str().as_bytes());
        let seconds = [node.mtime.secs, node.ctime.secs].map(i64::cast_unsigned);
        let numbers = [root, node.device_id, node.inode, node.size, node.links, node.device];
        for number in numbers.iter().chain(&seconds) {
            hash.update(&number.to_le_bytes());
        }
        for number in [node.mode, node.uid, node.gid, node.mtime.nanos, node.ctime.nanos] {
            hash.update(&number.to_le_bytes());
        }
        hash.update(&node.link_target);
        for id in node.content.iter().flatten() {
            hash.update(&id.0);
        }
        Key::from(hash)
    }
}

impl From<Sha256> for Key {
    fn from(hash: Sha256) -> Key {
        let id = hash.finish().0;
        let [number, check] = [0, 8].map(|at| u64::from_le_bytes(*id[at..].first_chunk().expect("32 bytes")));
        // 0 is no inode number, and 1 is the mount's own.
        Key { number: number.max(ROOT + 1), check }
    }
}

struct Inode {
    what: What,
    /// The directory it was found in; of hard links, one of them.
    directory: u64,
    check: u64,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
}

/// The inodes the kernel knows.
pub(super) struct Inodes {
    known: Mutex<HashMap<u64, Inode>>,
}

impl Inodes {
    pub(super) fn new() -> Inodes {
        let root = Inode { what: What::Listed(Arc::default()), directory: ROOT, check: 0, lookups: u64::MAX / 2 };
        Inodes { known: Mutex::new(HashMap::from([(ROOT, root)])) }
    }

    /// What the number stands for, and the directory it was found in.
    pub(super) fn get(&self, number: u64) -> Option<(What, u64)> {
        self.lock().get(&number).map(|inode| (inode.what.clone(), inode.directory))
    }

    /// Gives a thing its number, which is valid until the kernel forgets it as often as it was told.
    pub(super) fn remember(&self, key: Key, directory: u64, what: What) -> u64 {
        let mut known = self.lock();
        let mut number = key.number;
        loop {
            match known.get_mut(&number) {
                Some(inode) if inode.check == key.check && number != ROOT => {
                    inode.lookups += 1;
                    return number;
                }
                Some(_) => number = number.wrapping_add(1),
                None if number == 0 => number = ROOT,
                None => {
                    known.insert(number, Inode { what, directory, check: key.check, lookups: 1 });
                    return number;
                }
            }
        }
    }

    /// The kernel forgets so many lookups.
    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut known = self.lock();
        if let Some(inode) = known.get_mut(&number) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            if inode.lookups == 0 {
                known.remove(&number);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Inode>> {
        // Each change is one step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(at: u32) -> What {
        What::Leaf(Place { tree: Id([1; 32]), at })
    }

    fn nodes(tree: &str) -> Vec<Node> {
        repository::tree::Tree::decode(tree.as_bytes()).unwrap().nodes
    }

    #[test]
    fn a_thing_is_forgotten_when_the_kernel_has_and_then_gets_the_same_number() {
        let inodes = Inodes::new();
        let key = Key::of_name(ROOT, b"a", b"");
        let number = inodes.remember(key, ROOT, leaf(0));
        assert_eq!(inodes.remember(key, ROOT, leaf(0)), number);
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_some());
        inodes.forget(number, 1);
        assert!(inodes.get(number).is_none());
        assert_eq!(inodes.remember(key, ROOT, leaf(0)), number);
        inodes.forget(ROOT, 1_000_000);
        assert!(inodes.get(ROOT).is_some());
    }

    #[test]
    fn two_things_never_share_a_number_even_if_their_hashes_begin_alike() {
        let inodes = Inodes::new();
        let keys = [1, 2, 3].map(|check| Key { number: u64::MAX, check });
        let numbers = keys.map(|key| inodes.remember(key, ROOT, leaf(0)));
        assert_eq!(numbers, [u64::MAX, 2, 3]);
        assert_eq!(keys.map(|key| inodes.remember(key, ROOT, leaf(0))), numbers);
    }

    #[test]
    fn names_in_different_directories_and_at_different_times_have_different_numbers() {
        let numbers = [
            Key::of_name(1, b"a", b""),
            Key::of_name(2, b"a", b""),
            Key::of_name(1, b"b", b""),
            Key::of_name(1, b"a", b"x"),
            Key::of_name(1, b"ax", b""),
        ]
        .map(|key| key.number);
        let distinct: std::collections::HashSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len());
    }

    #[test]
    fn hard_links_share_a_number_within_a_backup_if_they_agree() {
        let nodes = nodes(
            r#"{"nodes":[
            {"name":"a","type":"file","inode":5,"device_id":9,"links":2,"size":1},
            {"name":"b","type":"file","inode":5,"device_id":9,"links":2,"size":1},
            {"name":"c","type":"file","inode":5,"device_id":8,"links":2,"size":1},
            {"name":"d","type":"file","inode":5,"device_id":9,"links":2,"size":2},
            {"name":"e","type":"file","inode":5,"device_id":9,"links":1,"size":1},
            {"name":"f","type":"file","inode":5,"device_id":9,"links":1,"size":1}]}"#,
        );
        let number = |root, at: usize| Key::of_node(77, root, &nodes[at]).number;
        assert_eq!(number(50, 0), number(50, 1));
        assert_ne!(number(50, 0), number(51, 0));
        assert_ne!(number(50, 0), number(50, 2));
        assert_ne!(number(50, 0), number(50, 3));
        assert_ne!(number(50, 4), number(50, 5));
    }
}
