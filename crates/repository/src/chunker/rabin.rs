//! The rolling Rabin fingerprint: the window's bytes as a polynomial over GF(2), modulo the repository's polynomial.
use super::{CUT_MASK, Polynomial, WINDOW_BYTES, polynomial};

/// Bits that lie above the fingerprint's lower 45 before a byte is shifted in.
const TOP_SHIFT: u32 = polynomial::DEGREE - 8;

/// The tables of one polynomial.
pub(super) struct Rabin {
    /// What a byte contributes to the fingerprint when it leaves the window.
    leaving: [u64; 256],
    /// For the 8 bits above the degree: themselves, and what they are modulo the polynomial.
    reduction: [u64; 256],
}

impl Rabin {
    pub(super) fn new(polynomial: Polynomial) -> Rabin {
        let mut reduction = [0; 256];
        let mut leaving = [0; 256];
        for byte in 0..256 {
            let above = (byte as u64) << polynomial::DEGREE;
            reduction[byte] = above | polynomial.reduce(above.into());
        }
        for byte in 0..256 {
            let mut digest = byte as u64;
            for _ in 1..WINDOW_BYTES {
                digest = (digest << 8) ^ reduction[(digest >> TOP_SHIFT) as usize];
            }
            leaving[byte] = digest;
        }
        Rabin { leaving, reduction }
    }

    #[inline(always)]
    fn enter(&self, digest: u64, byte: u8) -> u64 {
        ((digest << 8) | u64::from(byte)) ^ self.reduction[usize::from((digest >> TOP_SHIFT) as u8)]
    }

    #[inline(always)]
    fn roll(&self, digest: u64, out: u8, byte: u8) -> u64 {
        self.enter(digest ^ self.leaving[usize::from(out)], byte)
    }

    /// Of the windows of 64 bytes in `data`, the first at which a chunk ends: the offset of the window's start.
    pub(super) fn find(&self, data: &[u8]) -> Option<usize> {
        let (window, rest) = data.split_at(WINDOW_BYTES);
        let mut digest = window.iter().fold(0, |digest, byte| self.enter(digest, *byte));
        if digest & CUT_MASK == 0 {
            return Some(0);
        }
        for (offset, (out, byte)) in data.iter().zip(rest).enumerate() {
            digest = self.roll(digest, *out, *byte);
            if digest & CUT_MASK == 0 {
                return Some(offset + 1);
            }
        }
        None
    }
}
