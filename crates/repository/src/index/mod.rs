//! Which blob lies where: all index files of a repository, in memory, sorted.
//!
//! Built once, then only read. What a run adds meanwhile is [`crate::blob_writer`]'s to know. A blob takes
//! 48 bytes plus at most four of the table that narrows a search, so ten million blobs fit into 0.5 GB.

pub mod by_pack;
pub mod file;
pub(crate) mod rewrite;

use std::ops::Range;

use crate::blob::{BlobKind, PackedBlob};
use crate::id::Id;

/// Where a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: Id,
    /// Its place there.
    pub blob: PackedBlob,
}

/// Top bit of [`Entry::pack_and_kind`].
const TREE: u32 = 1 << 31;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    id: Id,
    pack_and_kind: u32,
    offset: u32,
    length: u32,
    uncompressed_length: u32,
}

impl Entry {
    fn kind(&self) -> BlobKind {
        if self.pack_and_kind & TREE == 0 { BlobKind::Data } else { BlobKind::Tree }
    }

    fn pack(&self) -> usize {
        (self.pack_and_kind & !TREE) as usize
    }

    fn blob(&self) -> PackedBlob {
        PackedBlob {
            id: self.id,
            kind: self.kind(),
            offset: self.offset,
            length: self.length,
            uncompressed_length: self.uncompressed_length,
        }
    }
}

/// Collects packs; [`IndexBuilder::build`] sorts them.
#[derive(Default)]
pub struct IndexBuilder {
    packs: Vec<Id>,
    entries: Vec<Entry>,
}

impl IndexBuilder {
    /// Adds a pack's blobs. The same pack may come again (two index files that name it); the repetition is
    /// dropped by [`IndexBuilder::build`].
    pub fn add(&mut self, pack: Id, blobs: &[PackedBlob]) {
        let number = u32::try_from(self.packs.len()).expect("fewer packs than 2^31");
        assert!(number < TREE, "fewer packs than 2^31");
        self.packs.push(pack);
        self.entries.extend(blobs.iter().map(|blob| Entry {
            id: blob.id,
            pack_and_kind: number | if blob.kind == BlobKind::Tree { TREE } else { 0 },
            offset: blob.offset,
            length: blob.length,
            uncompressed_length: blob.uncompressed_length,
        }));
    }

    /// Sorts.
    pub fn build(self) -> Index {
        let IndexBuilder { mut packs, mut entries } = self;
        // One number for each pack, however many index files name it.
        let mut order: Vec<u32> = (0..packs.len() as u32).collect();
        order.sort_unstable_by_key(|&number| packs[number as usize]);
        let mut renumbered = vec![0_u32; packs.len()];
        let mut last: Option<(Id, u32)> = None;
        let mut next = 0;
        for number in order {
            let pack = packs[number as usize];
            let new = match last {
                Some((id, new)) if id == pack => new,
                _ => {
                    next += 1;
                    next - 1
                }
            };
            last = Some((pack, new));
            renumbered[number as usize] = new;
        }
        packs.sort_unstable();
        packs.dedup();
        for entry in &mut entries {
            entry.pack_and_kind = entry.pack_and_kind & TREE | renumbered[entry.pack()];
        }
        entries.sort_unstable();
        entries.dedup();
        Index::from_sorted(packs, entries)
    }
}

/// Which blob lies where.
pub struct Index {
    packs: Vec<Id>,
    entries: Vec<Entry>,
    /// `starts[prefix]` is the first entry whose id begins with `prefix`; ids are evenly spread.
    starts: Vec<u32>,
    prefix_bits: u32,
}

impl Index {
    fn from_sorted(packs: Vec<Id>, entries: Vec<Entry>) -> Self {
        // Eight entries or so for each prefix: half a byte an entry, and a search within two cache lines' reach.
        let prefix_bits = (entries.len() / 8).max(1).ilog2().min(28);
        let mut starts = vec![0_u32; (1 << prefix_bits) + 1];
        let count = u32::try_from(entries.len()).expect("fewer blobs than 2^32");
        let mut next = 0;
        for (at, entry) in entries.iter().enumerate() {
            let prefix = prefix(&entry.id, prefix_bits);
            while next <= prefix {
                starts[next] = at as u32;
                next += 1;
            }
        }
        starts[next..].fill(count);
        Index { packs, entries, starts, prefix_bits }
    }

    fn range_of(&self, id: &Id) -> Range<usize> {
        let prefix = prefix(id, self.prefix_bits);
        let (start, end) = (self.starts[prefix] as usize, self.starts[prefix + 1] as usize);
        let near = &self.entries[start..end];
        let from = start + near.partition_point(|entry| entry.id < *id);
        let count = self.entries[from..end].iter().take_while(|entry| entry.id == *id).count();
        from..from + count
    }

    fn entries_of(&self, id: &Id) -> &[Entry] {
        &self.entries[self.range_of(id)]
    }

    fn location(&self, entry: &Entry) -> Location {
        Location { pack: self.packs[entry.pack()], blob: entry.blob() }
    }

    /// Every place a blob lies at.
    pub fn locations(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Location> {
        self.entries_of(id).iter().filter(move |entry| entry.kind() == kind).map(|entry| self.location(entry))
    }

    /// A place the blob lies at.
    pub fn get(&self, kind: BlobKind, id: &Id) -> Option<Location> {
        self.locations(kind, id).next()
    }

    /// Whether the repository has the blob.
    pub fn contains(&self, kind: BlobKind, id: &Id) -> bool {
        self.entries_of(id).iter().any(|entry| entry.kind() == kind)
    }

    /// How many entries there are, repeated blobs counted each time.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is indexed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All packs, in order of their ids.
    pub fn packs(&self) -> &[Id] {
        &self.packs
    }

    /// All entries, in order of the blobs' ids, with the number of the pack in [`Index::packs`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, PackedBlob)> {
        self.entries.iter().map(|entry| (entry.pack(), entry.blob()))
    }

    /// The number of a blob's first entry in [`Index::iter`]: a dense key for marking blobs in a bit set.
    pub fn position(&self, kind: BlobKind, id: &Id) -> Option<usize> {
        self.range_of(id).find(|&position| self.entries[position].kind() == kind)
    }

    /// The entry of a number from [`Index::position`].
    pub fn at(&self, position: usize) -> Location {
        self.location(&self.entries[position])
    }

    /// Bytes this index holds in memory.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&self.entries[..]) + size_of_val(&self.packs[..]) + size_of_val(&self.starts[..])
    }
}

fn prefix(id: &Id, bits: u32) -> usize {
    let first = u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
    // In 64 bits, because a shift by all 32 would overflow.
    (u64::from(first) >> (32 - bits)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(seed: u32) -> PackedBlob {
        let id = crate::hash::sha256(&seed.to_le_bytes());
        let kind = if seed.is_multiple_of(3) { BlobKind::Tree } else { BlobKind::Data };
        PackedBlob { id, kind, offset: seed, length: seed + 40, uncompressed_length: seed * 2 }
    }

    #[test]
    fn every_blob_is_found_and_no_other() {
        for count in [0, 1, 2, 7, 8, 9, 1000, 20_000] {
            let mut builder = IndexBuilder::default();
            for pack in 0..count / 10 + 1 {
                let blobs: Vec<_> = (pack * 10..(pack * 10 + 10).min(count)).map(blob).collect();
                builder.add(crate::hash::sha256(&[pack as u8, 1, (pack >> 8) as u8]), &blobs);
            }
            let index = builder.build();
            assert_eq!(index.len(), count as usize);
            for seed in 0..count {
                let expected = blob(seed);
                let found = index.get(expected.kind, &expected.id).expect("it was added");
                assert_eq!(found.blob, expected);
                assert_eq!(found.pack, crate::hash::sha256(&[(seed / 10) as u8, 1, ((seed / 10) >> 8) as u8]));
                let position = index.position(expected.kind, &expected.id).expect("it was added");
                assert_eq!(index.at(position).blob, expected);
                let other = if expected.kind == BlobKind::Data { BlobKind::Tree } else { BlobKind::Data };
                assert!(!index.contains(other, &expected.id));
            }
            for seed in count..count + 100 {
                assert!(!index.contains(blob(seed).kind, &blob(seed).id));
            }
        }
    }

    #[test]
    fn a_pack_named_twice_counts_once_and_a_blob_in_two_packs_twice() {
        let (a, b) = (crate::hash::sha256(b"a"), crate::hash::sha256(b"b"));
        let mut builder = IndexBuilder::default();
        builder.add(a, &[blob(1)]);
        builder.add(b, &[blob(1), blob(2)]);
        builder.add(a, &[blob(1)]);
        let index = builder.build();
        assert_eq!(index.packs().len(), 2);
        assert_eq!(index.len(), 3);
        let mut packs: Vec<_> = index.locations(blob(1).kind, &blob(1).id).map(|location| location.pack).collect();
        packs.sort();
        let mut both = vec![a, b];
        both.sort();
        assert_eq!(packs, both);
    }

    #[test]
    fn ten_million_blobs_would_take_less_than_64_bytes_each() {
        let mut builder = IndexBuilder::default();
        for pack in 0..1000_u32 {
            let blobs: Vec<_> = (0..200).map(|seed| blob(pack * 200 + seed)).collect();
            builder.add(crate::hash::sha256(&pack.to_le_bytes()), &blobs);
        }
        let index = builder.build();
        assert!(index.memory_bytes() <= 64 * index.len(), "{} for {}", index.memory_bytes(), index.len());
    }
}
