//! scrypt (RFC 7914) with four of its independent parts (its parameter p) side by side in 512-bit registers: four take
//! about as long as one, and a repository is opened by every command.
//!
//! Salsa20's state is four vectors of four words, the diagonals of its matrix; here each vector has the words of four
//! parts. The rows of the large table stay apart, as each part reads another one at a time.
//!
//! Invariant: none of it is called where the processor has not got the instructions.
use std::arch::x86_64::*;
use std::num::NonZeroU32;
use std::thread;

use aws_lc_rs::pbkdf2;
use zeroize::Zeroizing;

/// Parts that are computed side by side.
const LANES: usize = 4;
/// Which words of a block of 16 are in which vector.
const DIAGONALS: [[usize; 4]; 4] = [[0, 5, 10, 15], [4, 9, 14, 3], [8, 13, 2, 7], [12, 1, 6, 11]];

/// A block of 64 bytes of four parts.
type Block = [__m512i; 4];
/// What one part has of a vector.
type Words = [u8; 16];
/// A page of memory, in words: as small as any is.
const PAGE: usize = 4096 / 16;

/// Whether the processor has the instructions, and the parameters are such that they gain something.
pub(super) fn serves(n: u64, p: u32) -> bool {
    p > 1 && n <= 1 << 32 && is_x86_feature_detected!("avx512f")
}

/// scrypt. `n` is a power of two; n * 128 * r * p bytes fit into memory.
pub(super) fn scrypt(password: &[u8], salt: &[u8], (n, r, p): (u64, u32, u32), output: &mut [u8]) {
    let part = 128 * r as usize;
    let once = NonZeroU32::MIN;
    let mut parts = Zeroizing::new(vec![0; part * p as usize]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, once, salt, password, &mut parts);
    // Large pages would be filled no sooner, and are the first that a virtual machine's host takes back: 0.1 s more.
    let mut table = vec![0; n as usize * part * LANES.min(p as usize)];
    for group in parts.chunks_mut(part * LANES) {
        // SAFETY: the module's invariant.
        unsafe { mix_parts(group, &mut table, n as usize, r as usize) };
    }
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, once, &parts, password, output);
}

/// scryptROMix of up to four parts.
#[target_feature(enable = "avx512f")]
fn mix_parts(parts: &mut [u8], table: &mut [u8], n: usize, r: usize) {
    let length = 128 * r;
    let lanes = parts.len() / length;
    let zero = _mm512_setzero_si512();
    let mut x: Vec<Block> = vec![[zero; 4]; 2 * r];
    let mut y = x.clone();
    for (number, block) in x.iter_mut().enumerate() {
        *block = std::array::from_fn(|vector| {
            let words = DIAGONALS[vector];
            let mut lanes_words = [[0; 16]; LANES];
            for (lane, part) in parts.chunks_exact(length).enumerate() {
                for (place, word) in words.into_iter().enumerate() {
                    let at = 64 * number + 4 * word;
                    lanes_words[lane][4 * place..4 * place + 4].copy_from_slice(&part[at..at + 4]);
                }
            }
            join([&lanes_words[0], &lanes_words[1], &lanes_words[2], &lanes_words[3]])
        });
    }
    let row = length / 16;
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        table.chunks_exact_mut(n * length).map(|table| table.as_chunks_mut().0.split_at_mut(n / 2 * row)).unzip();
    thread::scope(|scope| {
        // What of the memory is new, the kernel finds for one core while the other computes; alone it takes longer than
        // all computing. Where no thread can be had, it goes without.
        let touch =
            || second.iter_mut().for_each(|half| half.iter_mut().step_by(PAGE).for_each(|words| *words = [1; 16]));
        let touching = thread::Builder::new().spawn_scoped(scope, touch);
        fill(&mut first, &mut x, &mut y, r);
        drop(touching);
    });
    fill(&mut second, &mut x, &mut y, r);
    let tables: Vec<&[Words]> = table.chunks_exact(n * length).map(|table| table.as_chunks().0).collect();
    for _ in 0..n {
        let last = split(x[2 * r - 1][0]);
        // Lanes without a part of their own do what the first does.
        let rows: [&[Words]; LANES] = std::array::from_fn(|lane| {
            let lane = if lane < lanes { lane } else { 0 };
            let number = u32::from_le_bytes(*last[lane].first_chunk().expect("16 bytes")) as usize & (n - 1);
            &tables[lane][number * row..(number + 1) * row]
        });
        let pieces = rows[0].iter().zip(rows[1]).zip(rows[2]).zip(rows[3]);
        for (vector, (((a, b), c), d)) in x.as_flattened_mut().iter_mut().zip(pieces) {
            *vector = _mm512_xor_si512(*vector, join([a, b, c, d]));
        }
        mix(&x, &mut y, r);
        std::mem::swap(&mut x, &mut y);
    }
    for (number, block) in x.iter().enumerate() {
        for (vector, words) in DIAGONALS.into_iter().enumerate() {
            let lanes_words = split(block[vector]);
            for (lane, part) in parts.chunks_exact_mut(length).enumerate() {
                for (place, word) in words.into_iter().enumerate() {
                    let at = 64 * number + 4 * word;
                    part[at..at + 4].copy_from_slice(&lanes_words[lane][4 * place..4 * place + 4]);
                }
            }
        }
    }
}

/// The first half of scryptROMix: remembers one state after the other.
#[target_feature(enable = "avx512f")]
fn fill(tables: &mut [&mut [Words]], x: &mut Vec<Block>, y: &mut Vec<Block>, r: usize) {
    let row = 2 * r * 4;
    for number in 0..tables[0].len() / row {
        for (at, vector) in x.as_flattened().iter().enumerate() {
            for (table, words) in tables.iter_mut().zip(split(*vector)) {
                table[number * row + at] = words;
            }
        }
        mix(x, y, r);
        std::mem::swap(x, y);
    }
}

/// scryptBlockMix: each block goes through Salsa20/8 with the one before; even ones end in front, odd ones behind.
#[target_feature(enable = "avx512f")]
#[inline]
fn mix(from: &[Block], to: &mut [Block], r: usize) {
    let (even, odd) = to.split_at_mut(r);
    let mut last = from[2 * r - 1];
    for ((pair, even), odd) in from.as_chunks::<2>().0.iter().zip(even).zip(odd) {
        last = salsa20_8(exclusive_or(last, pair[0]));
        *even = last;
        last = salsa20_8(exclusive_or(last, pair[1]));
        *odd = last;
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn exclusive_or(a: Block, b: Block) -> Block {
    [
        _mm512_xor_si512(a[0], b[0]),
        _mm512_xor_si512(a[1], b[1]),
        _mm512_xor_si512(a[2], b[2]),
        _mm512_xor_si512(a[3], b[3]),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn salsa20_8(block: Block) -> Block {
    let [mut a, mut b, mut c, mut d] = block;
    for _ in 0..4 {
        // The columns.
        b = _mm512_xor_si512(b, _mm512_rol_epi32::<7>(_mm512_add_epi32(a, d)));
        c = _mm512_xor_si512(c, _mm512_rol_epi32::<9>(_mm512_add_epi32(b, a)));
        d = _mm512_xor_si512(d, _mm512_rol_epi32::<13>(_mm512_add_epi32(c, b)));
        a = _mm512_xor_si512(a, _mm512_rol_epi32::<18>(_mm512_add_epi32(d, c)));
        // The rows: turned, they are the diagonals again.
        b = _mm512_shuffle_epi32::<0x93>(b);
        c = _mm512_shuffle_epi32::<0x4e>(c);
        d = _mm512_shuffle_epi32::<0x39>(d);
        d = _mm512_xor_si512(d, _mm512_rol_epi32::<7>(_mm512_add_epi32(a, b)));
        c = _mm512_xor_si512(c, _mm512_rol_epi32::<9>(_mm512_add_epi32(d, a)));
        b = _mm512_xor_si512(b, _mm512_rol_epi32::<13>(_mm512_add_epi32(c, d)));
        a = _mm512_xor_si512(a, _mm512_rol_epi32::<18>(_mm512_add_epi32(b, c)));
        b = _mm512_shuffle_epi32::<0x39>(b);
        c = _mm512_shuffle_epi32::<0x4e>(c);
        d = _mm512_shuffle_epi32::<0x93>(d);
    }
    [
        _mm512_add_epi32(a, block[0]),
        _mm512_add_epi32(b, block[1]),
        _mm512_add_epi32(c, block[2]),
        _mm512_add_epi32(d, block[3]),
    ]
}

/// A vector from what each part has of it.
#[target_feature(enable = "avx512f")]
#[inline]
fn join(lanes: [&Words; LANES]) -> __m512i {
    // SAFETY: each has 16 bytes.
    let [a, b, c, d] = lanes.map(|words| unsafe { _mm_loadu_si128(words.as_ptr().cast()) });
    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d)
}

/// What each part has of a vector.
#[target_feature(enable = "avx512f")]
#[inline]
fn split(vector: __m512i) -> [Words; LANES] {
    let mut lanes = [[0; 16]; LANES];
    // SAFETY: they are 64 bytes.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both for the vectors of RFC 7914 and for what other numbers of parts leave to the last group.
    #[test]
    fn agrees_with_the_library_for_every_number_of_parts() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        for (n, r, p) in [(16, 1, 2), (1024, 8, 16), (2, 1, 4), (64, 3, 5), (128, 8, 3), (256, 2, 7)] {
            let (mut ours, mut theirs) = ([0; 64], [0; 64]);
            scrypt(b"password", b"NaCl", (n, r, p), &mut ours);
            let params = scrypt::Params::new(n.ilog2() as u8, r, p).unwrap();
            scrypt::scrypt(b"password", b"NaCl", &params, &mut theirs).unwrap();
            assert_eq!(ours, theirs, "N={n}, r={r}, p={p}");
        }
    }
}
