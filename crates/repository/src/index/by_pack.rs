//! The index turned around: which blobs lie in which pack. Four bytes a blob.

use crate::blob::PackedBlob;
use crate::index::Index;

/// Which blobs lie in which pack.
pub struct ByPack {
    /// Where each pack's positions begin, and at the end their number.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl ByPack {
    /// Sorts an index by packs.
    pub fn new(index: &Index) -> Self {
        let mut starts = vec![0_u32; index.packs().len() + 1];
        for (pack, _) in index.iter() {
            starts[pack + 1] += 1;
        }
        for pack in 1..starts.len() {
            starts[pack] += starts[pack - 1];
        }
        let mut next = starts.clone();
        let mut positions = vec![0_u32; index.len()];
        for (position, (pack, _)) in index.iter().enumerate() {
            positions[next[pack] as usize] = position as u32;
            next[pack] += 1;
        }
        ByPack { starts, positions }
    }

    /// The entries of a pack, by its number in [`Index::packs`]: positions for [`Index::at`].
    pub fn positions(&self, pack: usize) -> &[u32] {
        &self.positions[self.starts[pack] as usize..self.starts[pack + 1] as usize]
    }

    /// Replaces what `into` holds by a pack's blobs in the order they lie there.
    pub fn blobs(&self, index: &Index, pack: usize, into: &mut Vec<PackedBlob>) {
        into.clear();
        into.extend(self.positions(pack).iter().map(|&position| index.at(position as usize).blob));
        into.sort_unstable_by_key(|blob| (blob.offset, blob.length, blob.id));
    }
}

/// Whether blobs, sorted by offset, lie one behind the other from the pack's beginning.
pub fn are_contiguous(blobs: &[PackedBlob]) -> bool {
    let mut end = 0;
    blobs.iter().all(|blob| {
        let fits = u64::from(blob.offset) == end;
        end += u64::from(blob.length);
        fits
    })
}
