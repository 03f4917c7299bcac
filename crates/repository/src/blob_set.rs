//! A set of blobs, one bit each, by their position in an index. Shared between threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::index::Index;

/// A set of positions of an [`Index`].
pub struct BlobSet {
    words: Vec<AtomicU64>,
}

impl BlobSet {
    /// An empty set for the positions of an index.
    pub fn new(index: &Index) -> Self {
        BlobSet { words: (0..index.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Adds a position. Returns whether it was not there.
    pub fn insert(&self, position: usize) -> bool {
        let (word, bit) = (&self.words[position / 64], 1 << (position % 64));
        // The look before spares the cores a fight over the words of what everybody uses.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// Whether a position is in the set.
    pub fn contains(&self, position: usize) -> bool {
        self.words[position / 64].load(Ordering::Relaxed) & (1 << (position % 64)) != 0
    }

    /// How many positions are in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Whether no position is in the set.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
