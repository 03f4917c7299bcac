//! SHA-256 with the x86 SHA instructions, one or two streams in lockstep.
//!
//! Invariant: a [`Sha256`] exists only where the processor has the instructions; holding one is the permission to call
//! [`compress`].
use std::arch::x86_64::*;

use crate::id::Id;

const BLOCK: usize = 64;

type State = [u32; 8];

/// The first 32 bits of the fractional parts of the square roots of the first 8 primes (FIPS 180-4, 5.3.3).
const INITIAL: State = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
#[rustfmt::skip]
static ROUND_CONSTANTS: [u32; 64] = [
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
];

fn available() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
}

/// Hashes `blocks` blocks of each lane in lockstep.
///
/// # Safety
/// The processor has the instructions ([`available`]), and each pointer has `blocks` * 64 readable bytes.
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[expect(clippy::needless_range_loop, reason = "one index for several arrays")]
unsafe fn compress<const LANES: usize>(states: &mut [State; LANES], data: [*const u8; LANES], blocks: usize) {
    let zero = _mm_setzero_si128();
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // The instructions want the eight words of the state as ABEF and CDGH.
    let (mut abef, mut cdgh) = ([zero; LANES], [zero; LANES]);
    for lane in 0..LANES {
        let state = states[lane].as_ptr();
        // SAFETY: a state has 32 bytes.
        let (dcba, hgfe) = unsafe { (_mm_loadu_si128(state.cast()), _mm_loadu_si128(state.add(4).cast())) };
        let cdab = _mm_shuffle_epi32(dcba, 0xb1);
        let efgh = _mm_shuffle_epi32(hgfe, 0x1b);
        abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
        cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
    }
    for block in 0..blocks {
        let (abef_before, cdgh_before) = (abef, cdgh);
        let mut words = [[zero; 4]; LANES];
        // Four rounds at a time; the lanes alternate, so that one works while the other waits for its result. The loops
        // over four are short so that the compiler unrolls them, and the words stay in registers.
        for i in 0..4 {
            // SAFETY: the table has 16 times four words.
            let constants = unsafe { _mm_loadu_si128(ROUND_CONSTANTS.as_ptr().add(i * 4).cast()) };
            for lane in 0..LANES {
                // SAFETY: the caller vouches for `blocks` blocks behind each pointer.
                let loaded = unsafe { _mm_loadu_si128(data[lane].add(block * BLOCK + i * 16).cast()) };
                words[lane][i] = _mm_shuffle_epi8(loaded, big_endian);
                let input = _mm_add_epi32(words[lane][i], constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(input, 0x0e));
            }
        }
        for sixteen in 1..4 {
            for i in 0..4 {
                // SAFETY: the table has 16 times four words.
                let constants = unsafe { _mm_loadu_si128(ROUND_CONSTANTS.as_ptr().add(sixteen * 16 + i * 4).cast()) };
                for lane in 0..LANES {
                    let w = &mut words[lane];
                    let (w16, w12, w8, w4) = (w[i], w[(i + 1) % 4], w[(i + 2) % 4], w[(i + 3) % 4]);
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w16, w12), _mm_alignr_epi8(w4, w8, 4));
                    w[i] = _mm_sha256msg2_epu32(sum, w4);
                    let input = _mm_add_epi32(w[i], constants);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(input, 0x0e));
                }
            }
        }
        for lane in 0..LANES {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for lane in 0..LANES {
        let feba = _mm_shuffle_epi32(abef[lane], 0x1b);
        let dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
        let state = states[lane].as_mut_ptr();
        // SAFETY: a state has 32 bytes.
        unsafe {
            _mm_storeu_si128(state.cast(), _mm_blend_epi16(feba, dchg, 0xf0));
            _mm_storeu_si128(state.add(4).cast(), _mm_alignr_epi8(dchg, feba, 8));
        }
    }
}

fn compress_one(state: &mut State, blocks: &[u8]) {
    let states = std::array::from_mut(state);
    // SAFETY: the module's invariant; the count is the slice's.
    unsafe { compress(states, [blocks.as_ptr()], blocks.len() / BLOCK) }
}

fn bytes(state: &State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (part, word) in bytes.chunks_exact_mut(4).zip(state) {
        part.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The last bytes of a message with its padding: one or two blocks.
struct Padded {
    bytes: [u8; 2 * BLOCK],
    length: usize,
}

impl Padded {
    /// `rest` is what does not fill a block, `total` the whole message's length in bytes.
    fn new(rest: &[u8], total: u64) -> Padded {
        let mut bytes = [0; 2 * BLOCK];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let length = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
        bytes[length - 8..length].copy_from_slice(&(total * 8).to_be_bytes());
        Padded { bytes, length }
    }
}

/// A SHA-256 fed piece by piece.
pub(super) struct Sha256 {
    state: State,
    pending: [u8; BLOCK],
    total: u64,
}

impl Sha256 {
    /// None where the processor has not got the instructions.
    pub(super) fn new() -> Option<Sha256> {
        available().then_some(Sha256 { state: INITIAL, pending: [0; BLOCK], total: 0 })
    }

    fn pending_length(&self) -> usize {
        (self.total % BLOCK as u64) as usize
    }

    /// Takes from `data` what completes the pending block; returns the rest, of which only whole blocks remain to be
    /// hashed by the caller if nothing is pending any more.
    fn complete_pending<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let pending = self.pending_length();
        if pending == 0 {
            return data;
        }
        let (head, rest) = data.split_at(data.len().min(BLOCK - pending));
        self.pending[pending..pending + head.len()].copy_from_slice(head);
        self.total += head.len() as u64;
        if pending + head.len() == BLOCK {
            compress_one(&mut self.state, &self.pending);
        }
        rest
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        let data = self.complete_pending(data);
        let (blocks, rest) = data.split_at(data.len() / BLOCK * BLOCK);
        if !blocks.is_empty() {
            compress_one(&mut self.state, blocks);
        }
        if !rest.is_empty() {
            self.pending[..rest.len()].copy_from_slice(rest);
        }
        self.total += data.len() as u64;
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        let padded = Padded::new(&self.pending[..self.pending_length()], self.total);
        compress_one(&mut self.state, &padded.bytes[..padded.length]);
        bytes(&self.state)
    }
}

pub(super) fn update_pair(a: &mut Sha256, data_a: &[u8], b: &mut Sha256, data_b: &[u8]) {
    let data_a = a.complete_pending(data_a);
    let data_b = b.complete_pending(data_b);
    let blocks = data_a.len().min(data_b.len()) / BLOCK;
    if blocks > 0 {
        let mut states = [a.state, b.state];
        // SAFETY: the module's invariant; both have at least so many blocks.
        unsafe { compress(&mut states, [data_a.as_ptr(), data_b.as_ptr()], blocks) };
        [a.state, b.state] = states;
        a.total += (blocks * BLOCK) as u64;
        b.total += (blocks * BLOCK) as u64;
    }
    a.update(&data_a[blocks * BLOCK..]);
    b.update(&data_b[blocks * BLOCK..]);
}

/// An item in work: first the whole blocks of its data, then its padded end.
struct Lane<'a> {
    index: usize,
    state: State,
    body: &'a [u8],
    end: Padded,
    end_done: usize,
}

impl<'a> Lane<'a> {
    fn new((index, item): (usize, &&'a [u8])) -> Lane<'a> {
        let (body, rest) = item.split_at(item.len() / BLOCK * BLOCK);
        let end = Padded::new(rest, item.len() as u64);
        Lane { index, state: INITIAL, body, end, end_done: 0 }
    }

    /// The whole blocks that come next in one piece; empty when the item is done.
    fn next(&self) -> &[u8] {
        if self.body.is_empty() { &self.end.bytes[self.end_done..self.end.length] } else { self.body }
    }

    fn advance(&mut self, length: usize) {
        if self.body.is_empty() {
            self.end_done += length;
        } else {
            self.body = &self.body[length..];
        }
    }
}

/// None where the processor has not got the instructions.
pub(super) fn sha256_many(items: &[&[u8]]) -> Option<Vec<Id>> {
    if !available() {
        return None;
    }
    let mut ids = vec![Id([0; 32]); items.len()];
    let mut queue = items.iter().enumerate().map(Lane::new);
    let mut lanes = (queue.next(), queue.next());
    while let (Some(a), Some(b)) = (&mut lanes.0, &mut lanes.1) {
        let length = a.next().len().min(b.next().len());
        let mut states = [a.state, b.state];
        // SAFETY: available; both have at least so many blocks.
        unsafe { compress(&mut states, [a.next().as_ptr(), b.next().as_ptr()], length / BLOCK) };
        [a.state, b.state] = states;
        a.advance(length);
        b.advance(length);
        for lane in [&mut lanes.0, &mut lanes.1] {
            if let Some(done) = lane.take_if(|lane| lane.next().is_empty()) {
                ids[done.index] = Id(bytes(&done.state));
                *lane = queue.next();
            }
        }
    }
    if let Some(mut last) = lanes.0.or(lanes.1) {
        while !last.next().is_empty() {
            let length = last.next().len();
            let mut state = last.state;
            compress_one(&mut state, last.next());
            last.state = state;
            last.advance(length);
        }
        ids[last.index] = Id(bytes(&last.state));
    }
    Some(ids)
}
