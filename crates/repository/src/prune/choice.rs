//! Which entry of the index is kept of each used blob, and what that makes of each pack.

use std::cmp::Reverse;

use crate::blob::BlobKind;
use crate::blob_set::BlobSet;
use crate::index::Index;
use crate::pack::{self, stored_size};

/// What a pack holds, in bytes with the header's share.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackUse {
    /// The size that the index implies.
    pub(super) size: u64,
    /// Of blobs that are kept here.
    pub(super) kept_bytes: u64,
    pub(super) kept_blobs: u64,
    /// Of blobs that no backup uses.
    pub(super) unused_bytes: u64,
    /// Of used blobs that are kept in another pack.
    pub(super) duplicate_bytes: u64,
    pub(super) blobs: u64,
    pub(super) has_data: bool,
    pub(super) has_trees: bool,
    pub(super) is_uncompressed: bool,
}

pub(super) struct Choice {
    /// Entries that are kept.
    pub(super) keep: BlobSet,
    /// By the pack's number.
    pub(super) packs: Vec<PackUse>,
}

/// `sizes` are the packs' real ones. A copy in a pack that is whole is preferred, then one in a pack without waste,
/// then one in a pack that is needed anyway; so the new packs of an interrupted prune win over the old ones.
pub(super) fn choose(index: &Index, used: &BlobSet, sizes: &[Option<u64>]) -> Choice {
    let empty = PackUse {
        size: pack::expected_size([]),
        kept_bytes: 0,
        kept_blobs: 0,
        unused_bytes: 0,
        duplicate_bytes: 0,
        blobs: 0,
        has_data: false,
        has_trees: false,
        is_uncompressed: false,
    };
    let mut packs = vec![empty; sizes.len()];
    let keep = BlobSet::new(index);
    for_each_blob(index, |first, copies| {
        let is_used = used.contains(first);
        for (position, pack, kind, bytes, uncompressed) in copies {
            let pack = &mut packs[*pack];
            pack.size += bytes;
            pack.blobs += 1;
            pack.has_data |= *kind == BlobKind::Data;
            pack.has_trees |= *kind == BlobKind::Tree;
            pack.is_uncompressed |= uncompressed;
            if !is_used {
                pack.unused_bytes += bytes;
            } else if copies.len() == 1 {
                pack.kept_bytes += bytes;
                pack.kept_blobs += 1;
                keep.insert(*position);
            }
        }
    });
    let single: Vec<u64> = packs.iter().map(|pack| pack.kept_bytes).collect();
    for_each_blob(index, |first, copies| {
        if copies.len() == 1 || !used.contains(first) {
            return;
        }
        let best = copies.iter().max_by_key(|(_, pack, ..)| {
            let whole = sizes[*pack] == Some(packs[*pack].size);
            (whole, packs[*pack].unused_bytes == 0, single[*pack], Reverse(*pack))
        });
        let best = best.expect("a blob has at least one entry").0;
        for (position, pack, _, bytes, _) in copies {
            let pack = &mut packs[*pack];
            if *position == best {
                pack.kept_bytes += bytes;
                pack.kept_blobs += 1;
                keep.insert(best);
            } else {
                pack.duplicate_bytes += bytes;
            }
        }
    });
    Choice { keep, packs }
}

/// Position, pack, kind, bytes in the pack, whether it is not compressed.
type Copy = (usize, usize, BlobKind, u64, bool);

/// Calls `each` for every blob with its first position and all its entries.
fn for_each_blob(index: &Index, mut each: impl FnMut(usize, &[Copy])) {
    let mut copies: Vec<Copy> = Vec::new();
    let mut last = None;
    for (position, (pack, blob)) in index.iter().enumerate() {
        if last != Some((blob.id, blob.kind)) {
            if let Some((first, ..)) = copies.first() {
                each(*first, &copies);
            }
            copies.clear();
            last = Some((blob.id, blob.kind));
        }
        let compressed = blob.uncompressed_length != 0;
        copies.push((position, pack, blob.kind, stored_size(blob.length, compressed), !compressed));
    }
    if let Some((first, ..)) = copies.first() {
        each(*first, &copies);
    }
}
