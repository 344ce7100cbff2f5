//! Loads, stores and sums of vectors. Arrays in, registers out: their lengths make the loads sound.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_u8(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_i16(words: &[i16; 16]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_half<T>(bytes: &[T; 16]) -> __m128i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_f32(values: &[f32; 8]) -> __m256 {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

/// Eight stored f32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_raw_f32(raw: &[[u8; 4]; 8]) -> __m256 {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_ps(raw.as_ptr().cast()) }
}

/// Sixteen stored words of two bytes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_words(raw: &[[u8; 2]; 16]) -> __m256i {
    // SAFETY: reads the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_loadu_si256(raw.as_ptr().cast()) }
}

/// Eight stored f16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_f16(raw: &[[u8; 2]; 8]) -> __m256 {
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(raw.as_ptr().cast()) })
}

/// Eight stored bf16, widened.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load_bf16(raw: &[[u8; 2]; 8]) -> __m256 {
    // SAFETY: reads the 16 bytes of the reference; no alignment is asked for.
    let halves = unsafe { _mm_loadu_si128(raw.as_ptr().cast()) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store_f32(vector: __m256, values: &mut [f32; 8]) {
    // SAFETY: writes the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), vector) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn store_i8(vector: __m256i, bytes: &mut [i8; 32]) {
    // SAFETY: writes the 32 bytes of the reference; no alignment is asked for.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

/// The eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lanes_f32(vector: __m256) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    store_f32(vector, &mut lanes);
    lanes
}

/// The four lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lanes_f64(vector: __m256d) -> [f64; 4] {
    let mut lanes = [0.0; 4];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), vector) };
    lanes
}

/// The sixteen words.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lanes_i16(vector: __m256i) -> [i16; 16] {
    let mut lanes = [0; 16];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// The four counts.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn lanes_u64(vector: __m256i) -> [u64; 4] {
    let mut lanes = [0; 4];
    // SAFETY: writes the 32 bytes of the array; no alignment is asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), vector) };
    lanes
}

/// Lane l plus lane l + 4, then + 2, then + 1.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sum(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The value of a stored f16 in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn splat(scale: U16) -> __m256 {
    _mm256_cvtph_ps(_mm_set1_epi16(scale.get() as i16))
}

/// Asks for the bytes of the block that lies [`AHEAD`] bytes behind `block`, whatever they are: rows
/// follow each other in memory, and the prefetcher of the processor stops at each page.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn prefetch<T>(block: &T) {
    let ahead = std::ptr::from_ref(block).cast::<i8>().wrapping_add(AHEAD);
    for line in 0..size_of::<T>().div_ceil(64) {
        // A hint: it reads nothing and faults at no address.
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line));
    }
}

/// Bytes between a block in work and the block asked for; the best of 512 to 4096 by measurement
/// (a third to a half more throughput on weights that come from memory).
const AHEAD: usize = 4096;
