//! Loads and stores of vectors of 64 bytes. Arrays in, registers out: their lengths make the loads sound.

#![expect(unsafe_code, reason = "vector loads and stores take pointers")]

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

/// Two halves that lie side by side.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn load_both(halves: &[[u8; 32]; 2]) -> __m512i {
    // SAFETY: reads the 64 bytes of the reference; no alignment is asked for.
    unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn load_bytes<T>(bytes: &[T; 64]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: reads the 64 bytes of the reference; no alignment is asked for.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Two halves that lie side by side.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn load_f32(halves: &[[f32; 8]; 2]) -> __m512 {
    // SAFETY: reads the 64 bytes of the reference; no alignment is asked for.
    unsafe { _mm512_loadu_ps(halves.as_ptr().cast()) }
}

/// Eight values, in both halves.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn twice(eight: __m256) -> __m512 {
    _mm512_castpd_ps(_mm512_broadcast_f64x4(_mm256_castps_pd(eight)))
}

/// The lower and the upper eight values.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn halves(lanes: __m512) -> [__m256; 2] {
    let upper = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes));
    [_mm512_castps512_ps256(lanes), _mm256_castpd_ps(upper)]
}

/// Four bytes in every lane of four bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn four_bytes(bytes: &[i8; 4]) -> __m512i {
    // SAFETY: reads the 4 bytes of the reference; no alignment is asked for.
    _mm512_broadcastd_epi32(unsafe { _mm_loadu_si32(bytes.as_ptr().cast()) })
}

/// Two words in every lane of four bytes.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn two_words(words: &[i16; 2]) -> __m512i {
    // SAFETY: reads the 4 bytes of the reference; no alignment is asked for.
    _mm512_broadcastd_epi32(unsafe { _mm_loadu_si32(words.as_ptr().cast()) })
}

/// What a panel yields for one token, in a frame that is then aligned.
#[repr(align(64))]
struct Column([f32; 16]);

/// Stores what a panel yields for one token; as many values as `out` has.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
pub(super) fn store_column(lanes: __m512, out: &mut [f32]) {
    if let Some(out) = out.as_mut_array::<16>() {
        // SAFETY: writes the 64 bytes of the reference; no alignment is asked for.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), lanes) };
        return;
    }
    let mut column = Column([0.0; 16]);
    // SAFETY: writes the 64 bytes of the array; no alignment is asked for.
    unsafe { _mm512_storeu_ps(column.0.as_mut_ptr(), lanes) };
    out.copy_from_slice(&column.0[..out.len()]);
}
