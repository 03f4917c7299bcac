//! Which parts of two files may differ: those that are not the same blocks of one file system.

use std::iter::Peekable;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::extents::{self, Extent, Extents};

/// One range of a file.
enum Part {
    Hole,
    Extent(Extent),
}

/// Ranges in which two files on the same file system may differ, in their order; the rest is equal, however long it
/// is. All, if the file system does not tell.
pub(super) fn differing(one: BorrowedFd<'_>, other: BorrowedFd<'_>, length: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    // The extents that are already told of hold even if the next cannot be asked for.
    let _ = compare(one, other, length, &mut |range| match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    })
    .map_err(|position| ranges.push(position..length));
    ranges
}

/// The error is the position up to which was compared.
fn compare(
    one: BorrowedFd<'_>,
    other: BorrowedFd<'_>,
    length: u64,
    differs: &mut dyn FnMut(Range<u64>),
) -> Result<(), u64> {
    let mut streams = [extents::of(one, true).peekable(), extents::of(other, true).peekable()];
    let mut position = 0;
    while position < length {
        let [a, b] = &mut streams;
        let failed = |_: Errno| position;
        let (a, a_end) = part(a, position).map_err(failed)?;
        let (b, b_end) = part(b, position).map_err(failed)?;
        let end = a_end.min(b_end).min(length);
        if !is_same(&a, &b, position) {
            differs(position..end);
        }
        position = end;
    }
    Ok(())
}

/// What is at a position, and how far it reaches.
fn part(extents: &mut Peekable<Extents<'_>>, position: u64) -> Result<(Part, u64), Errno> {
    while let Some(next) = extents.peek() {
        let extent = (*next)?;
        if extent.end() <= position {
            extents.next();
        } else if extent.logical <= position {
            return Ok((Part::Extent(extent), extent.end()));
        } else {
            return Ok((Part::Hole, extent.logical));
        }
    }
    Ok((Part::Hole, u64::MAX))
}

fn is_same(a: &Part, b: &Part, position: u64) -> bool {
    match (a, b) {
        (Part::Hole, Part::Hole) => true,
        (Part::Extent(a), Part::Extent(b)) => {
            let place = |extent: &Extent| extent.physical + (position - extent.logical);
            let is_zero = a.is_unwritten() && b.is_unwritten();
            a.is_plain() && b.is_plain() && (is_zero || a.is_unwritten() == b.is_unwritten() && place(a) == place(b))
        }
        _ => false,
    }
}
