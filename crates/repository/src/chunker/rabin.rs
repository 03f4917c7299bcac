//! The rolling Rabin fingerprint: the window's bytes as a polynomial over GF(2), modulo the repository's polynomial.
//!
//! Rolling it from byte to byte is a chain in which each step waits for the one before. Because a window's fingerprint does
//! not depend on what lies before the window, several lanes can work next to each other, each in a part of its own.
#[cfg(target_arch = "x86_64")]
use super::byte_planes::{self, BytePlanes};
use super::{CUT_MASK, Polynomial, WINDOW_BYTES, polynomial};

/// Lanes without vectors: as many as the registers hold.
const LANES: usize = 4;
/// How many windows each lane examines in a block.
const LANE_WINDOWS: usize = 4096;

/// Bits that lie above the fingerprint's lower 45 before a byte is shifted in.
const TOP_SHIFT: u32 = polynomial::DEGREE - 8;

/// The tables of one polynomial.
pub(super) struct Rabin {
    /// What a byte contributes to the fingerprint when it leaves the window.
    leaving: [u64; 256],
    /// For the 8 bits above the degree: themselves, and what they are modulo the polynomial.
    reduction: [u64; 256],
    #[cfg(target_arch = "x86_64")]
    byte_planes: Option<BytePlanes>,
}

impl Rabin {
    pub(super) fn new(polynomial: Polynomial) -> Rabin {
        let reduction = std::array::from_fn(|byte| {
            let above = (byte as u64) << polynomial::DEGREE;
            above | polynomial.reduce(above.into())
        });
        let leaving: [u64; 256] = std::array::from_fn(|byte| {
            let after = |digest: u64, _| polynomial.reduce(u128::from(digest) << 8);
            (1..WINDOW_BYTES).fold(byte as u64, after)
        });
        Rabin {
            #[cfg(target_arch = "x86_64")]
            byte_planes: BytePlanes::new(
                |byte| polynomial.reduce(u128::from(byte) << polynomial::DEGREE),
                |byte| polynomial.reduce(u128::from(leaving[usize::from(byte)]) << 8),
            ),
            leaving,
            reduction,
        }
    }

    #[cfg(test)]
    pub(super) fn forget_vectors(&mut self) {
        #[cfg(target_arch = "x86_64")]
        self.byte_planes.take();
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
        if self.first_window(data) & CUT_MASK == 0 {
            return Some(0);
        }
        // The window that starts here has been examined, and all before it.
        let mut examined = 0;
        #[cfg(target_arch = "x86_64")]
        if let Some(byte_planes) = &self.byte_planes {
            let first_lane = |block: &[u8]| byte_planes.first_lane_with_cut(block);
            let found = self.find_in_blocks(data, &mut examined, 64, byte_planes::LANE_WINDOWS, first_lane);
            if found.is_some() {
                return found;
            }
        }
        self.find_in_blocks(data, &mut examined, LANES, LANE_WINDOWS, |block| self.first_lane_with_cut(block))
            .or_else(|| Some(examined + self.find_rolling(&data[examined..])?))
    }

    /// Examines the whole blocks from `examined` on, which it moves.
    #[inline(always)]
    fn find_in_blocks(
        &self,
        data: &[u8],
        examined: &mut usize,
        lanes: usize,
        lane_windows: usize,
        first_lane_with_cut: impl Fn(&[u8]) -> Option<usize>,
    ) -> Option<usize> {
        while let Some(block) = data[*examined..].get(..lanes * lane_windows + WINDOW_BYTES) {
            if let Some(lane) = first_lane_with_cut(block) {
                let start = lane * lane_windows;
                let cut = self.find_rolling(&block[start..start + lane_windows + WINDOW_BYTES]);
                return Some(*examined + start + cut.expect("the lane has a cut"));
            }
            *examined += lanes * lane_windows;
        }
        None
    }

    fn first_window(&self, data: &[u8]) -> u64 {
        data[..WINDOW_BYTES].iter().fold(0, |digest, byte| self.enter(digest, *byte))
    }

    /// Like [`find`](Self::find), for windows after the first.
    fn find_rolling(&self, data: &[u8]) -> Option<usize> {
        let mut digest = self.first_window(data);
        for (offset, (out, byte)) in data.iter().zip(&data[WINDOW_BYTES..]).enumerate() {
            digest = self.roll(digest, *out, *byte);
            if digest & CUT_MASK == 0 {
                return Some(offset + 1);
            }
        }
        None
    }

    /// The first lane of a block that has a cut. The block's first window starts at the second byte of `block`.
    fn first_lane_with_cut(&self, block: &[u8]) -> Option<usize> {
        let lane = |index: usize| &block[index * LANE_WINDOWS..(index + 1) * LANE_WINDOWS + WINDOW_BYTES];
        let lanes: [&[u8]; LANES] = std::array::from_fn(lane);
        let mut digests = lanes.map(|data| self.first_window(data));
        let mut has_cut = [false; LANES];
        let out = lanes.map(|data| data.first_chunk::<LANE_WINDOWS>().expect("a lane's bytes"));
        let entering = lanes.map(|data| data.last_chunk::<LANE_WINDOWS>().expect("a lane's bytes"));
        for step in 0..LANE_WINDOWS {
            for lane in 0..LANES {
                digests[lane] = self.roll(digests[lane], out[lane][step], entering[lane][step]);
                // A jump that is hardly ever taken costs less than keeping the answer.
                if digests[lane] & CUT_MASK == 0 {
                    std::hint::cold_path();
                    has_cut[lane] = true;
                }
            }
        }
        has_cut.iter().position(|has_cut| *has_cut)
    }
}
