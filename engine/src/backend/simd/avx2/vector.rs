//! Loads, stores and sums of vectors. Arrays in, registers out: their lengths make the loads sound.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes};

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_u8(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_i16(words: &[i16; 16]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_half<T>(bytes: &[T; 16]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_f32(values: &[f32; 8]) -> __m256 {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// Eight stored f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_raw_f32(raw: &[[u8; 4]; 8]) -> __m256 {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_ps(raw.as_ptr().cast()) }
}

/// Sixteen stored words of two bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_words(raw: &[[u8; 2]; 16]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(raw.as_ptr().cast()) }
}

/// Eight stored words of two bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_raw_half(raw: &[[u8; 2]; 8]) -> __m128i {
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    unsafe { _mm_loadu_si128(raw.as_ptr().cast()) }
}

/// Eight stored f16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_f16(raw: &[[u8; 2]; 8]) -> __m256 {
    _mm256_cvtph_ps(load_raw_half(raw))
}

/// Eight stored bf16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_bf16(raw: &[[u8; 2]; 8]) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_raw_half(raw))))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn store_f32(vector: __m256, values: &mut [f32; 8]) {
    // SAFETY: writes the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn store_i8(vector: __m256i, bytes: &mut [i8; 32]) {
    // SAFETY: writes the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn store_u8(vector: __m256i, bytes: &mut [u8; 32]) {
    // SAFETY: writes the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_four(values: &[f32; 4]) -> __m128 {
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    unsafe { _mm_loadu_ps(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn load_i32(values: &[i32; 4]) -> __m128i {
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}

/// The first sixteen bytes.
#[inline]
pub(in super::super) fn head<B: IntoBytes + Immutable>(block: &B) -> &[u8; 16] {
    const { assert!(size_of::<B>() >= 16) };
    &block.as_bytes().as_chunks().0[0]
}

/// The first sixteen bytes of a block in the lower half and of another one in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn heads<B: IntoBytes + Immutable>(a: &B, b: &B) -> __m256i {
    pair(head(a), head(b))
}

/// Bytes of a block in the lower half and of another one in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn pair(a: &[u8; 16], b: &[u8; 16]) -> __m256i {
    _mm256_set_m128i(load_half(b), load_half(a))
}

/// Low and high nibbles of a block in the lower halves and of another one in the upper.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn two_nibbles(a: &[u8; 16], b: &[u8; 16]) -> (__m256i, __m256i) {
    let (bytes, nibble) = (pair(a, b), _mm256_set1_epi8(0x0F));
    (_mm256_and_si256(bytes, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble))
}

/// Four bytes in every lane of four bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn four_bytes(bytes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(i32::from_ne_bytes(bytes.map(|byte| byte as u8)))
}

/// Two words in every lane of four bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn two_words(words: [i16; 2]) -> __m256i {
    let [low, high] = words.map(|word| i32::from(word as u16));
    _mm256_set1_epi32(high << 16 | low)
}

/// The eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn lanes_f32(vector: __m256) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    store_f32(vector, &mut lanes);
    lanes
}

/// The four lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn lanes_four(vector: __m128) -> [f32; 4] {
    let mut lanes = [0.0; 4];
    // SAFETY: writes the 16 bytes of the array; no alignment is asked for.
    unsafe { _mm_storeu_ps(lanes.as_mut_ptr(), vector) };
    lanes
}

/// The four lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn lanes_f64(vector: __m256d) -> [f64; 4] {
    let mut lanes = [0.0; 4];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), vector) };
    lanes
}

/// The sixteen words.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn lanes_i16(vector: __m256i) -> [i16; 16] {
    let mut lanes = [0; 16];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// The four counts.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn lanes_u64(vector: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// Lane l plus lane l + 4, then + 2, then + 1.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn sum(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Lane 0 plus lane 2, lane 1 plus lane 3, then both.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn sum_four(lanes: __m128) -> f32 {
    let two = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Sums of four adjacent products of unsigned (at most 128) and signed bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn fours(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
}

/// Sums of four adjacent products of signed bytes, those of `x` from -127. The sign of each weight moves
/// over to its activation: -128 becomes an unsigned 128, and 2 * 128 * 127 still fits into sixteen bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn signed_fours(quants: __m256i, x: __m256i) -> __m256i {
    fours(_mm256_abs_epi8(quants), _mm256_sign_epi8(x, quants))
}

/// The sum of the eight integers of each vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn sums_of_four([a, b, c, d]: [__m256i; 4]) -> __m128i {
    let sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums))
}

/// Turns eight rows of eight words of four bytes: lane i of vector j becomes lane j of vector i.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn turn_dwords(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ef, gh) = (_mm256_unpacklo_epi32(e, f), _mm256_unpacklo_epi32(g, h));
    let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    let (ef2, gh2) = (_mm256_unpackhi_epi32(e, f), _mm256_unpackhi_epi32(g, h));
    // Columns i (lower half) and i + 4 (upper half) of the first and of the last four rows.
    let first = [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ];
    let last = [
        _mm256_unpacklo_epi64(ef, gh),
        _mm256_unpackhi_epi64(ef, gh),
        _mm256_unpacklo_epi64(ef2, gh2),
        _mm256_unpackhi_epi64(ef2, gh2),
    ];
    let mut columns = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        columns[i] = _mm256_permute2x128_si256::<0x20>(first[i], last[i]);
        columns[i + 4] = _mm256_permute2x128_si256::<0x31>(first[i], last[i]);
    }
    columns
}

/// Four stored f16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn four_halves(halves: [U16; 4]) -> __m128 {
    let [a, b, c, d] = halves.map(|half| half.get() as i16);
    _mm_cvtph_ps(_mm_setr_epi16(a, b, c, d, 0, 0, 0, 0))
}

/// The value of a stored f16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn single(half: U16) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half.get()))))
}

/// The [`sum`] of each vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn sums_of_eight(v: [__m256; 8]) -> __m256 {
    // Lanes i and i + 4 of vector j, and in the upper half of vector j + 4.
    let mut fours = [_mm256_setzero_ps(); 4];
    for (i, four) in fours.iter_mut().enumerate() {
        let (low, high) = (
            _mm256_permute2f128_ps::<0x20>(v[i], v[i + 4]),
            _mm256_permute2f128_ps::<0x31>(v[i], v[i + 4]),
        );
        *four = _mm256_add_ps(low, high);
    }
    let [first, second] = [twos(fours[0], fours[1]), twos(fours[2], fours[3])];
    let even = _mm256_shuffle_ps::<0b10_00_10_00>(first, second);
    let odd = _mm256_shuffle_ps::<0b11_01_11_01>(first, second);
    _mm256_add_ps(even, odd)
}

/// In each half, lanes 0 + 2 and 1 + 3 of `a`, then those of `b`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn twos(a: __m256, b: __m256) -> __m256 {
    let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
    let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
    _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
}

/// The values of stored f16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn eight_halves([a, b, c, d, e, f, g, h]: [U16; 8]) -> __m256 {
    let bits = |half: U16| half.get() as i16;
    _mm256_cvtph_ps(_mm_setr_epi16(
        bits(a),
        bits(b),
        bits(c),
        bits(d),
        bits(e),
        bits(f),
        bits(g),
        bits(h),
    ))
}

/// The value of a stored f16 in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn splat(scale: U16) -> __m256 {
    _mm256_cvtph_ps(_mm_set1_epi16(scale.get() as i16))
}

/// Calls `take` with the indices of `N` of `rows` rows, far apart, until all were there; where fewer are left, the last one is
/// there again. Memory answers faster in several places at once than in one.
#[inline]
pub(in super::super) fn apart<const N: usize>(rows: usize, mut take: impl FnMut([usize; N])) {
    let distance = rows.div_ceil(N);
    for first in 0..distance {
        let mut indices = [0; N];
        for (part, index) in indices.iter_mut().enumerate() {
            *index = (first + part * distance).min(rows - 1);
        }
        take(indices);
    }
}

/// Asks for the bytes of the block that lies [`AHEAD`] bytes behind `block`, whatever they are: rows
/// follow each other in memory, and the prefetcher of the processor stops at each page.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn prefetch<T>(block: &T) {
    prefetch_at(block, AHEAD);
}

/// As [`prefetch`], `distance` bytes behind `block`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn prefetch_at<T>(block: &T, distance: usize) {
    let ahead = std::ptr::from_ref(block).cast::<i8>().wrapping_add(distance);
    for line in 0..size_of::<T>().div_ceil(64) {
        // A hint: it reads nothing and faults at no address.
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
    }
}

/// Bytes between a block in work and the block asked for; the best of 512 to 4096 by measurement
/// (a third to a half more throughput on weights that come from memory).
const AHEAD: usize = 4096;
