//! Poly1305 (RFC 8439, 2.5) with the AVX-512 instructions for integers of 52 bits: several times as fast as without, and
//! without their cost of starting for short data.
//!
//! Numbers modulo 2^130 - 5 are three limbs of 44, 44 and 42 bits. Eight lanes each take every eighth block, multiply by
//! r^8 from block to block, and at the end by the power of r that the lane's place asks for. As r is part of the master
//! key, its powers are computed once. Time depends on the data's length alone.
//!
//! Invariant: a [`Poly1305`] exists only where the processor has the instructions.
use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

const BLOCK: usize = 16;
const LANES: usize = 8;
const LIMB_MASK: u64 = (1 << 44) - 1;
const TOP_LIMB_MASK: u64 = (1 << 42) - 1;
/// What a carry out of 3 * 44 bits counts in the lowest limb: 2^132 is 4 * 2^130, and 2^130 is 5.
const WRAP: u64 = 20;

/// Which block of eight each lane has, in the order in which unpacking two vectors leaves them.
const BLOCK_OF_LANE: [usize; LANES] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A number modulo 2^130 - 5, not necessarily the least: each limb may exceed its bits a little.
type Number = [u64; 3];
/// Eight of them.
type Numbers = [__m512i; 3];

/// Poly1305 for one r, the half of the key that does not change.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Poly1305 {
    r: Number,
    r_to_the_8: Number,
    /// The limbs of the power by which each lane is multiplied at the end.
    last_powers: [[u64; LANES]; 3],
}

fn available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

impl Poly1305 {
    /// None where the processor has not got the instructions.
    pub(super) fn new(r: &[u8; 16]) -> Option<Poly1305> {
        if !available() {
            return None;
        }
        let r = u128::from_le_bytes(*r) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
        let r = limbs(r);
        let mut powers = [r; LANES];
        for n in 1..LANES {
            powers[n] = multiply(powers[n - 1], r);
        }
        let last_power = |lane: usize, limb: usize| powers[LANES - 1 - BLOCK_OF_LANE[lane]][limb];
        Some(Poly1305 {
            r,
            r_to_the_8: powers[LANES - 1],
            last_powers: std::array::from_fn(|limb| std::array::from_fn(|lane| last_power(lane, limb))),
        })
    }

    /// The authentication code of `data`, with `pad` as the other half of the key.
    pub(super) fn mac(&self, pad: &[u8; 16], data: &[u8]) -> [u8; 16] {
        let (groups, rest) = data.as_chunks::<{ LANES * BLOCK }>();
        let mut sum = [0; 3];
        if !groups.is_empty() {
            // SAFETY: the module's invariant.
            sum = unsafe { self.sum_of_groups(groups) };
        }
        let (blocks, rest) = rest.as_chunks::<BLOCK>();
        for block in blocks {
            let mut number = limbs(u128::from_le_bytes(*block));
            number[2] |= 1 << (128 - 88);
            sum = multiply(add(sum, number), self.r);
        }
        if !rest.is_empty() {
            let mut last = [0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            last[rest.len()] = 1;
            sum = multiply(add(sum, limbs(u128::from_le_bytes(last))), self.r);
        }
        low_128_bits(sum).wrapping_add(u128::from_le_bytes(*pad)).to_le_bytes()
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sum_of_groups(&self, groups: &[[u8; LANES * BLOCK]]) -> Number {
        let factor = self.r_to_the_8.map(|limb| _mm512_set1_epi64(limb as i64));
        let mut sums = [_mm512_setzero_si512(); 3];
        for (n, group) in groups.iter().enumerate() {
            if n > 0 {
                sums = multiply_lanes(sums, factor);
            }
            let blocks = load(group);
            for limb in 0..3 {
                sums[limb] = _mm512_add_epi64(sums[limb], blocks[limb]);
            }
        }
        // SAFETY: each has 64 bytes.
        let last_powers = self.last_powers.each_ref().map(|lanes| unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) });
        let sum = multiply_lanes(sums, last_powers).map(|limb| _mm512_reduce_add_epi64(limb) as u64);
        carry(sum.map(u128::from))
    }
}

/// The eight blocks of a group, each with the bit that marks a whole block.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(group: &[u8; LANES * BLOCK]) -> Numbers {
    // SAFETY: the group has twice 64 bytes.
    let (first, second) =
        unsafe { (_mm512_loadu_si512(group.as_ptr().cast()), _mm512_loadu_si512(group.as_ptr().add(64).cast())) };
    let low = _mm512_unpacklo_epi64(first, second);
    let high = _mm512_unpackhi_epi64(first, second);
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, mask),
        _mm512_and_si512(middle, mask),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), _mm512_set1_epi64(1 << (128 - 88))),
    ]
}

/// The products, lane by lane. The limbs of `a` are below 2^46, those of `b` below 2^45; the product's are below 2^45.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply_lanes(a: Numbers, b: Numbers) -> Numbers {
    let zero = _mm512_setzero_si512();
    // Times 20 = 16 + 4.
    let wrapped = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
    let (b1_wrapped, b2_wrapped) = (wrapped(b[1]), wrapped(b[2]));
    let factors = [[b[0], b2_wrapped, b1_wrapped], [b[1], b[0], b2_wrapped], [b[2], b[1], b[0]]];
    // The products' lower 52 bits, and what is above them.
    let (mut low, mut high) = ([zero; 3], [zero; 3]);
    for limb in 0..3 {
        for n in 0..3 {
            low[limb] = _mm512_madd52lo_epu64(low[limb], a[n], factors[limb][n]);
            high[limb] = _mm512_madd52hi_epu64(high[limb], a[n], factors[limb][n]);
        }
    }
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let top_mask = _mm512_set1_epi64(TOP_LIMB_MASK as i64);
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low[0]), _mm512_slli_epi64::<8>(high[0]));
    low[1] = _mm512_add_epi64(low[1], carry);
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low[1]), _mm512_slli_epi64::<8>(high[1]));
    low[2] = _mm512_add_epi64(low[2], carry);
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<42>(low[2]), _mm512_slli_epi64::<10>(high[2]));
    let carry_times_5 = _mm512_add_epi64(carry, _mm512_slli_epi64::<2>(carry));
    let lowest = _mm512_add_epi64(_mm512_and_si512(low[0], mask), carry_times_5);
    [
        _mm512_and_si512(lowest, mask),
        _mm512_add_epi64(_mm512_and_si512(low[1], mask), _mm512_srli_epi64::<44>(lowest)),
        _mm512_and_si512(low[2], top_mask),
    ]
}

fn limbs(number: u128) -> Number {
    [number as u64 & LIMB_MASK, (number >> 44) as u64 & LIMB_MASK, (number >> 88) as u64]
}

fn add(a: Number, b: Number) -> Number {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

fn multiply(a: Number, b: Number) -> Number {
    let product = |n: usize, m: u64| u128::from(a[n]) * u128::from(m);
    let (b1_wrapped, b2_wrapped) = (b[1] * WRAP, b[2] * WRAP);
    carry([
        product(0, b[0]) + product(1, b2_wrapped) + product(2, b1_wrapped),
        product(0, b[1]) + product(1, b[0]) + product(2, b2_wrapped),
        product(0, b[2]) + product(1, b[1]) + product(2, b[0]),
    ])
}

/// Brings limbs back to their bits, up to a small excess in the middle one.
fn carry(wide: [u128; 3]) -> Number {
    let middle = wide[1] + (wide[0] >> 44);
    let top = wide[2] + (middle >> 44);
    let lowest = (wide[0] as u64 & LIMB_MASK) + (top >> 42) as u64 * 5;
    [lowest & LIMB_MASK, (middle as u64 & LIMB_MASK) + (lowest >> 44), top as u64 & TOP_LIMB_MASK]
}

/// The lower 128 bits of the least number that `number` is modulo 2^130 - 5.
fn low_128_bits(number: Number) -> u128 {
    // The second pass carries what the first one's wrapping left in the middle limb.
    let [a, b, c] = carry(carry(number.map(u128::from)).map(u128::from));
    let joined = |a: u64, b: u64, c: u64| u128::from(a) | u128::from(b) << 44 | u128::from(c) << 88;
    // Adding 5 reaches 2^130 exactly if the number is 2^130 - 5 or more; without a branch on what is secret.
    let plus_a = a + 5;
    let plus_b = b + (plus_a >> 44);
    let plus_c = c + (plus_b >> 44);
    let subtracted = joined(plus_a & LIMB_MASK, plus_b & LIMB_MASK, plus_c & TOP_LIMB_MASK);
    let is_larger = u128::from(plus_c >> 42).wrapping_neg();
    (subtracted & is_larger) | (joined(a, b, c) & !is_larger)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand;
    use poly1305::universal_hash::KeyInit;

    fn library(r: &[u8; 16], pad: &[u8; 16], data: &[u8]) -> [u8; 16] {
        let key: [u8; 32] = [*r, *pad].concat().try_into().unwrap();
        poly1305::Poly1305::new((&key).into()).compute_unpadded(data).into()
    }

    fn random<const N: usize>() -> [u8; N] {
        let mut bytes = [0; N];
        rand::fill(&mut bytes).unwrap();
        bytes
    }

    /// None on a processor without the instructions: there this code never runs, and the library is what is used.
    fn assert_like_library(r: [u8; 16], pad: [u8; 16], data: &[u8]) -> Option<()> {
        let code = Poly1305::new(&r)?.mac(&pad, data);
        assert_eq!(code, library(&r, &pad, data), "r {r:x?}, pad {pad:x?}, {} bytes", data.len());
        Some(())
    }

    #[test]
    fn codes_equal_the_librarys_at_every_length() {
        let data: [u8; 5000] = random();
        for length in (0..1100).chain([4095, 4096, 4097, 5000]) {
            assert_like_library(random(), random(), &data[..length]);
        }
    }

    #[test]
    fn codes_equal_the_librarys_at_the_edges_of_the_arithmetic() {
        let patterns = [0x00, 0x01, 0x7f, 0x80, 0xfb, 0xfe, 0xff];
        for r in patterns {
            for pad in patterns {
                for byte in patterns {
                    for length in [15, 16, 17, 127, 128, 129, 144, 256, 1024, 2000] {
                        assert_like_library([r; 16], [pad; 16], &vec![byte; length]);
                    }
                }
            }
        }
    }

    /// RFC 8439, A.3: sums that end just below, at and above the modulus.
    #[test]
    fn sums_around_the_modulus_are_reduced() {
        let r = |first| std::array::from_fn(|place| if place == 0 { first } else { 0 });
        let ones = [0xff; 16];
        assert_like_library(r(2), [0; 16], &ones);
        assert_like_library(r(2), ones, &r(2));
        let number_7 = [ones.as_slice(), &[0xf0], &[0xff; 15], &[0x11], &[0; 15]].concat();
        assert_like_library(r(1), [0; 16], &number_7);
        let number_8 = [ones.as_slice(), &[0xfb], &[0xfe; 15], &[0x01; 16]].concat();
        assert_like_library(r(1), [0; 16], &number_8);
        for last in 0xf0..=0xff {
            let data: [u8; 16] = std::array::from_fn(|place| if place == 0 { last } else { 0xff });
            assert_like_library(r(1), [0; 16], &[[0xff; 16], data].concat());
            assert_like_library(r(2), [0; 16], &data);
        }
    }
}
