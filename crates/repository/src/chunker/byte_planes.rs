//! The fingerprints of 64 places at once, with AVX-512 and GFNI.
//!
//! Rolling the fingerprint is linear over GF(2): every bit of the next one is the sum of some bits of the last one, of the
//! byte that enters and of the one that leaves. So 64 fingerprints are kept as seven vectors, each with one byte of all 64
//! (a byte plane), and the tables become 8 x 8 bit matrices, which one instruction multiplies with 64 bytes.
//!
//! The fingerprints are kept shifted left by three bits, so that the eight bits to be reduced are a plane of their own.
//!
//! Invariant: a [`BytePlanes`] exists only where the processor has the instructions.
use std::arch::x86_64::*;

use super::WINDOW_BYTES;
use super::polynomial::DEGREE;

/// Places examined at the same time; each is the lane of a vector.
const LANES: usize = 64;
/// How many windows each lane examines in a block. More make starting the lanes cheaper, but search further beyond a cut.
pub(super) const LANE_WINDOWS: usize = 1024;
/// How many windows a block has.
pub(super) const BLOCK_WINDOWS: usize = LANES * LANE_WINDOWS;

const PLANES: usize = 7;
const SHIFT: u32 = 8 * PLANES as u32 - DEGREE;

/// One matrix for each plane of the result.
type Matrices = [u64; PLANES];

/// One polynomial's matrices.
pub(super) struct BytePlanes {
    /// For the byte above the degree: what it is modulo the polynomial.
    reduction: Matrices,
    /// For the byte that leaves the window.
    leaving: Matrices,
    /// For the byte that enters; it lies in the two lowest planes.
    entering: [u64; 2],
}

/// The bytes of a step of all lanes, of 64 steps.
#[repr(align(64))]
struct Transposed([__m512i; WINDOW_BYTES]);

fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi")
        && is_x86_feature_detected!("gfni")
}

impl BytePlanes {
    /// `reduce` is what a byte above the degree is modulo the polynomial, `leave` what a byte contributes to the
    /// fingerprint after 64 more. None where the processor has not got the instructions.
    pub(super) fn new(reduce: impl Fn(u8) -> u64, leave: impl Fn(u8) -> u64) -> Option<BytePlanes> {
        let entering = matrices(u64::from);
        available().then(|| BytePlanes {
            reduction: matrices(reduce),
            leaving: matrices(leave),
            entering: [entering[0], entering[1]],
        })
    }

    /// The first lane of a block of [`BLOCK_WINDOWS`] windows that has a cut among its [`LANE_WINDOWS`]. The block's first
    /// window starts at the second byte of `data`.
    pub(super) fn first_lane_with_cut(&self, data: &[u8]) -> Option<usize> {
        assert!(data.len() >= BLOCK_WINDOWS + WINDOW_BYTES);
        // SAFETY: the module's invariant, and the block's bytes are there.
        let lanes = unsafe { self.lanes_with_cut(data.as_ptr()) };
        (lanes != 0).then_some(lanes.trailing_zeros() as usize)
    }

    /// The lanes with a cut, as bits.
    ///
    /// # Safety
    /// The processor has the instructions, and `data` has BLOCK_WINDOWS + WINDOW_BYTES readable bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
    unsafe fn lanes_with_cut(&self, data: *const u8) -> u64 {
        let zero = _mm512_setzero_si512();
        let mut leaving = Transposed([zero; WINDOW_BYTES]);
        let mut entering = Transposed([zero; WINDOW_BYTES]);
        let mut planes = [zero; PLANES];
        // SAFETY: the lanes' first bytes lie within the block.
        unsafe { transpose(data, &mut entering) };
        // This fills the windows; zeros that leave change nothing. The window before the lane's first is another's.
        self.roll(&mut planes, &leaving, &entering);
        let mut least = _mm512_set1_epi8(-1);
        for offset in (WINDOW_BYTES..=LANE_WINDOWS).step_by(WINDOW_BYTES) {
            std::mem::swap(&mut leaving, &mut entering);
            // SAFETY: the last lane reads up to LANE_WINDOWS + WINDOW_BYTES behind its start, the block's end.
            unsafe { transpose(data.add(offset), &mut entering) };
            least = _mm512_min_epu8(least, self.roll(&mut planes, &leaving, &entering));
        }
        _mm512_cmpeq_epi8_mask(least, zero)
    }

    /// Rolls all lanes by 64 bytes. A byte of the result is zero if its lane had a cut.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
    #[inline]
    fn roll(&self, planes: &mut [__m512i; PLANES], leaving: &Transposed, entering: &Transposed) -> __m512i {
        // The fingerprint's 20 lowest bits, shifted: the other five of the lowest plane are always zero.
        let in_third_plane = _mm512_set1_epi8(0x7f);
        let mut least = _mm512_set1_epi8(-1);
        for (&leaving, &entering) in leaving.0.iter().zip(&entering.0) {
            let top = planes[PLANES - 1];
            let entering = [times(entering, self.entering[0]), times(entering, self.entering[1])];
            let below =
                [entering[0], sum2(planes[0], entering[1]), planes[1], planes[2], planes[3], planes[4], planes[5]];
            for plane in 0..PLANES {
                let reduced = times(top, self.reduction[plane]);
                planes[plane] = sum3(below[plane], reduced, times(leaving, self.leaving[plane]));
            }
            // (third & mask) | lowest, then | second.
            let cut = _mm512_ternarylogic_epi64::<0xea>(planes[2], in_third_plane, planes[0]);
            least = _mm512_min_epu8(least, _mm512_or_si512(cut, planes[1]));
        }
        least
    }
}

/// The matrices of a linear map from a byte to a fingerprint.
fn matrices(map: impl Fn(u8) -> u64) -> Matrices {
    let mut matrices = [0; PLANES];
    for (plane, matrix) in matrices.iter_mut().enumerate() {
        for bit in 0..8 {
            let place = 8 * plane + bit;
            let row: u64 = (0..8).map(|column| ((map(1 << column) << SHIFT) >> place & 1) << column).sum();
            // The instruction has the row of the lowest bit in the matrix' highest byte.
            *matrix |= row << (8 * (7 - bit));
        }
    }
    matrices
}

#[target_feature(enable = "avx512f,gfni")]
#[inline]
fn times(bytes: __m512i, matrix: u64) -> __m512i {
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(matrix as i64))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sum2(a: __m512i, b: __m512i) -> __m512i {
    _mm512_xor_si512(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sum3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// Reads 64 bytes of each lane: vector n gets byte n of all lanes. In two steps, as the registers cannot hold all: first
/// eight lanes at a time to groups of eight bytes, then eight bytes at a time to all lanes.
///
/// # Safety
/// The processor has the instructions, and 64 bytes are readable at each multiple of LANE_WINDOWS below BLOCK_WINDOWS.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
unsafe fn transpose(data: *const u8, out: &mut Transposed) {
    let mut order = [0; 64];
    for (place, from) in order.iter_mut().enumerate() {
        *from = (place % 8 * 8 + place / 8) as u8;
    }
    // SAFETY: it has 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    let mut groups = [[_mm512_setzero_si512(); 8]; 8];
    for lanes in 0..8 {
        // SAFETY: the caller vouches for it.
        let row = |lane| unsafe { _mm512_loadu_si512(data.add((lanes * 8 + lane) * LANE_WINDOWS).cast()) };
        let columns = transpose_words([row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]);
        for (group, column) in groups.iter_mut().zip(columns) {
            group[lanes] = _mm512_permutexvar_epi8(order, column);
        }
    }
    for (eight, group) in out.0.as_chunks_mut::<8>().0.iter_mut().zip(groups) {
        *eight = transpose_words(group);
    }
}

/// Transposes eight times eight words of 64 bits.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_words(rows: [__m512i; 8]) -> [__m512i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let even = transpose_quarters([
        _mm512_unpacklo_epi64(a, b),
        _mm512_unpacklo_epi64(c, d),
        _mm512_unpacklo_epi64(e, f),
        _mm512_unpacklo_epi64(g, h),
    ]);
    let odd = transpose_quarters([
        _mm512_unpackhi_epi64(a, b),
        _mm512_unpackhi_epi64(c, d),
        _mm512_unpackhi_epi64(e, f),
        _mm512_unpackhi_epi64(g, h),
    ]);
    [even[0], odd[0], even[1], odd[1], even[2], odd[2], even[3], odd[3]]
}

/// Transposes four times four quarters of 128 bits.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
    let (cd_low, cd_high) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
    [
        _mm512_shuffle_i64x2::<0x88>(ab_low, cd_low),
        _mm512_shuffle_i64x2::<0xdd>(ab_low, cd_low),
        _mm512_shuffle_i64x2::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i64x2::<0xdd>(ab_high, cd_high),
    ]
}
