//! Where in a file which blob lies.
//!
//! Trees name a file's blobs without their lengths; these come from the index. Where the index does not know a blob,
//! what lies before the first such and after the last is still placed right, counted from the file's two ends.

use std::ops::Range;

use repository::id::Id;
use repository::tree::Node;

/// A file's blobs with their offsets.
pub(super) struct Layout {
    /// Ascending.
    pieces: Vec<Piece>,
    size: u64,
}

struct Piece {
    /// Its first byte's place in the file.
    begin: u64,
    blob: Id,
    /// Whether the index knows the blob; if not, more blobs may belong to this piece.
    known: bool,
}

/// A part of a file that lies within one blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Counts a file's blobs.
    pub(super) number: usize,
    pub(super) blob: Id,
    /// Whether the index knows the blob.
    pub(super) known: bool,
    /// Bytes of the blob's plaintext.
    pub(super) range: Range<u64>,
}

/// Bytes of a file: what its blobs have, and only if one of them is unknown what the tree says. (Files that grew
/// while old versions of restic read them have a wrong size in their trees.)
pub(super) fn size(node: &Node, length_of: impl Fn(&Id) -> Option<u64>) -> u64 {
    let mut known = 0_u64;
    let mut all_known = true;
    for id in node.content.iter().flatten() {
        match length_of(id) {
            Some(length) => known = known.saturating_add(length),
            None => all_known = false,
        }
    }
    let size = if all_known { known } else { known.max(node.size) };
    // The kernel takes no more.
    size.min(i64::MAX as u64)
}

impl Layout {
    pub(super) fn new(node: &Node, length_of: impl Fn(&Id) -> Option<u64>) -> Layout {
        let size = size(node, &length_of);
        let content = node.content.as_deref().unwrap_or_default();
        let mut pieces = Vec::with_capacity(content.len());
        let mut begin = 0_u64;
        let mut rest = content.iter();
        for id in &mut rest {
            let length = length_of(id);
            pieces.push(Piece { begin, blob: *id, known: length.is_some() });
            let Some(length) = length else { break };
            begin = begin.saturating_add(length);
        }
        let mut end = size;
        let mut from_the_end = Vec::new();
        for id in rest.rev() {
            let Some(length) = length_of(id) else { break };
            end = end.saturating_sub(length);
            from_the_end.push(Piece { begin: end, blob: *id, known: true });
        }
        pieces.extend(from_the_end.into_iter().rev());
        Layout { pieces, size }
    }

    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The blob of a number, if the index knows it.
    pub(super) fn blob(&self, number: usize) -> Option<Id> {
        self.pieces.get(number).filter(|piece| piece.known).map(|piece| piece.blob)
    }

    /// The blobs' parts that make up `length` bytes from `offset`, or what there is of them.
    pub(super) fn parts(&self, offset: u64, length: u64) -> impl Iterator<Item = Part> {
        let end = offset.saturating_add(length).min(self.size);
        let first = self.pieces.partition_point(|piece| piece.begin <= offset).saturating_sub(1);
        let pieces = self.pieces.iter().enumerate().skip(first).take_while(move |(_, piece)| piece.begin < end);
        pieces.filter_map(move |(number, piece)| {
            let begin = piece.begin;
            let piece_end = self.pieces.get(number + 1).map_or(self.size, |next| next.begin);
            let range = offset.max(begin) - begin..end.min(piece_end).max(begin) - begin;
            (range.start < range.end).then_some(Part { number, blob: piece.blob, known: piece.known, range })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of blobs named by numbers; those below 100 are as long as their number, the others are unknown.
    fn file(content: &[u8], size: u64) -> Layout {
        let tree = format!(r#"{{"nodes":[{{"name":"f","type":"file","size":{size}}}]}}"#);
        let mut node = repository::tree::Tree::decode(tree.as_bytes()).unwrap().nodes.remove(0);
        node.content = Some(content.iter().map(|number| Id([*number; 32])).collect());
        Layout::new(&node, |id| (id.0[0] < 100).then_some(u64::from(id.0[0])))
    }

    fn parts(layout: &Layout, offset: u64, length: u64) -> Vec<(Option<u8>, u64, u64)> {
        let parts = layout.parts(offset, length);
        parts.map(|part| (part.known.then_some(part.blob.0[0]), part.range.start, part.range.end)).collect()
    }

    #[test]
    fn offsets_are_sums_of_lengths() {
        let layout = file(&[10, 5, 20], 35);
        assert_eq!(layout.size(), 35);
        assert_eq!(parts(&layout, 0, 100), [(Some(10), 0, 10), (Some(5), 0, 5), (Some(20), 0, 20)]);
        assert_eq!(parts(&layout, 9, 2), [(Some(10), 9, 10), (Some(5), 0, 1)]);
        assert_eq!(parts(&layout, 10, 5), [(Some(5), 0, 5)]);
        assert_eq!(parts(&layout, 34, u64::MAX), [(Some(20), 19, 20)]);
        assert_eq!(parts(&layout, 35, 1), []);
        assert_eq!(parts(&layout, u64::MAX, 1), []);
        assert_eq!(parts(&layout, 3, 0), []);
        assert_eq!(layout.parts(15, 1).next().map(|part| part.number), Some(2));
    }

    #[test]
    fn files_without_bytes_have_no_parts() {
        assert_eq!(parts(&file(&[], 0), 0, 10), []);
        assert_eq!(parts(&file(&[0, 0], 0), 0, 10), []);
        assert_eq!(parts(&file(&[0, 3, 0, 4], 7), 0, 10), [(Some(3), 0, 3), (Some(4), 0, 4)]);
    }

    #[test]
    fn blobs_count_more_than_the_size_in_the_tree() {
        for size in [0, 3, 35, u64::MAX] {
            assert_eq!(file(&[10, 5], size).size(), 15);
        }
    }

    #[test]
    fn around_unknown_blobs_everything_is_in_its_place() {
        let layout = file(&[10, 200, 5, 201, 20], 70);
        assert_eq!(layout.size(), 70);
        assert_eq!(parts(&layout, 0, 70), [(Some(10), 0, 10), (None, 0, 40), (Some(20), 0, 20)]);
        assert_eq!(parts(&layout, 50, 3), [(Some(20), 0, 3)]);
        assert_eq!(parts(&file(&[200], 70), 69, 5), [(None, 69, 70)]);
    }

    #[test]
    fn forged_sizes_with_unknown_blobs_stay_in_bounds() {
        assert_eq!(parts(&file(&[10, 200, 20], 3), 0, 100), [(Some(10), 0, 10), (Some(20), 0, 20)]);
        let huge = file(&[10, 200, 20], u64::MAX);
        assert_eq!(huge.size(), i64::MAX as u64);
        assert_eq!(parts(&huge, i64::MAX as u64 - 1, 100), [(Some(20), 19, 20)]);
    }
}
