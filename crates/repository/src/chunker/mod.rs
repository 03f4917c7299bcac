//! Content-defined chunking, with restic's boundaries bit for bit.
//!
//! A chunk ends where the Rabin fingerprint of its last 64 bytes has 20 zero bits, but never before [`MIN_BYTES`] and at
//! [`MAX_BYTES`] at the latest. Inserting bytes into a file therefore moves the boundaries with the content, and the
//! chunks before and after stay the same.
//!
//! Invariant: once [`MIN_BYTES`] are reached, whether a chunk ends at a place depends on nothing but the 64 bytes before
//! it. Places can therefore be examined in any order and side by side.
//!
//! Knows neither files nor hashes.
#[cfg(target_arch = "x86_64")]
mod byte_planes;
mod polynomial;
mod rabin;

pub use polynomial::{ParsePolynomialError, Polynomial};

/// No chunk is shorter, except the last of a file.
pub const MIN_BYTES: usize = 512 * 1024;
/// No chunk is longer.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How many bytes the fingerprint is over.
const WINDOW_BYTES: usize = 64;
/// The bits of the fingerprint that are zero where a chunk ends: on average one place in 2^20.
const CUT_MASK: u64 = (1 << 20) - 1;

/// Finds chunk boundaries for one polynomial. Built once, shared by all threads.
pub struct Chunker {
    rabin: rabin::Rabin,
}

impl Chunker {
    /// The chunker for a repository's polynomial.
    pub fn new(polynomial: Polynomial) -> Chunker {
        Chunker { rabin: rabin::Rabin::new(polynomial) }
    }

    /// As it works on processors without the vector instructions.
    #[cfg(test)]
    fn portable(polynomial: Polynomial) -> Chunker {
        let mut chunker = Chunker::new(polynomial);
        chunker.rabin.forget_vectors();
        chunker
    }

    /// The length of the chunk that starts with `data`, if it ends within `data`.
    ///
    /// `data` is what has been gathered since the chunk's start; the first `scanned` bytes of it an earlier call has
    /// searched in vain. None means that more data is needed; at the end of a file, all of `data` is the last chunk.
    ///
    /// Fast from some 64 KiB of unscanned data on; smaller pieces are searched one place after the other.
    pub fn find_cut(&self, data: &[u8], scanned: usize) -> Option<usize> {
        let first = MIN_BYTES.max(scanned + 1);
        let last = MAX_BYTES.min(data.len());
        if first <= last
            && let Some(offset) = self.rabin.find(&data[first - WINDOW_BYTES..last])
        {
            return Some(first + offset);
        }
        (data.len() >= MAX_BYTES).then_some(MAX_BYTES)
    }
}

#[cfg(test)]
mod tests;
