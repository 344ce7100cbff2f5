//! Products of rows of K-quant super-blocks.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use super::super::activations::{Q8Super, Q8SuperRow};
use super::block_panel::{MANY, ROWS};
use super::sums::{Sums, fold};
use super::super_panel::{SuperPanel, SuperTile, Unpacked};
use super::vector::{load_half, load_i8, load_i16, load_u8, prefetch, prefetch_at};
use crate::quant::{self, Q2K, Q3K, Q4K, Q5K, Q6K, SUPER, k_scales};

/// The functions over rows of one type of super-block, with `$features`. `$step` adds one block to the sums of a row,
/// `$unpack` takes one apart, `$put` puts it into a panel and `$multiply` takes that; `$minimums` says whether there are
/// minimums with a step of their own.
macro_rules! super_product {
    (
        $features:literal, $product:ident, $row:ident, $block:ty, $step:path, $unpack:path,
        $put:expr, $multiply:expr, $minimums:literal
    ) => {
        /// One weight row by one activation row.
        #[inline]
        #[target_feature(enable = $features)]
        fn $row(blocks: &[$block], x: Q8SuperRow<'_>) -> f32 {
            let Q8SuperRow { quants, scales, sums } = x;
            let mut total = Sums::zero();
            for (((block, x), &scale), x_sums) in blocks.iter().zip(quants).zip(scales).zip(sums) {
                prefetch(block);
                $step(&mut total, block, x, scale, load_i16(x_sums));
            }
            total.finish::<$minimums>()
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn $product(bytes: &[u8], acts: &Q8Super, out: &mut [f32]) {
            let stride = acts.blocks * size_of::<$block>();
            let width = bytes.len() / stride;
            if acts.rows() < MANY {
                for (w, row) in bytes.chunks_exact(stride).enumerate() {
                    for (t, out) in out.chunks_exact_mut(width).enumerate() {
                        out[w] = $row(quant::blocks(row), acts.row(t));
                    }
                }
                return;
            }
            let mut panel = SuperPanel::new(acts.blocks);
            for (index, rows) in bytes.chunks(ROWS * stride).enumerate() {
                // Block by block: see `block_product`.
                let blocks: &[$block] = quant::blocks(rows);
                for (b, tile) in panel.tiles.iter_mut().enumerate() {
                    for (r, block) in blocks[b..].iter().step_by(acts.blocks).enumerate() {
                        prefetch_at(block, ROWS * stride);
                        $put(tile, r, &$unpack(block));
                    }
                    tile.turn();
                }
                $multiply(&panel, acts, out, width, index);
            }
        }
    };
}

pub(in super::super) use super_product;

super_product!(
    "avx2,fma,f16c",
    q2_k_product,
    q2_k_row,
    Q2K,
    q2_k_step,
    q2_k_unpack,
    SuperTile::put,
    SuperPanel::multiply::<4, true>,
    true
);
super_product!(
    "avx2,fma,f16c",
    q3_k_product,
    q3_k_row,
    Q3K,
    q3_k_step,
    q3_k_unpack,
    SuperTile::put,
    SuperPanel::multiply::<4, false>,
    false
);
super_product!(
    "avx2,fma,f16c",
    q4_k_product,
    q4_k_row,
    Q4K,
    q4_k_step,
    q4_k_unpack,
    SuperTile::put,
    SuperPanel::multiply::<8, true>,
    true
);
super_product!(
    "avx2,fma,f16c",
    q5_k_product,
    q5_k_row,
    Q5K,
    q5_k_step,
    q5_k_unpack,
    SuperTile::put,
    SuperPanel::multiply::<4, true>,
    true
);
super_product!(
    "avx2,fma,f16c",
    q6_k_product,
    q6_k_row,
    Q6K,
    q6_k_step,
    q6_k_unpack,
    SuperTile::put,
    SuperPanel::multiply::<2, false>,
    false
);

/// Sixteen-bit words 2 k (lower half) and 2 k + 1 (upper half) of the words that both halves of
/// `words` hold.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn two_words<const K: usize>(words: __m256i) -> __m256i {
    let byte = 4 * K as i16;
    let low = (byte + 1) << 8 | byte;
    let high = (byte + 3) << 8 | (byte + 2);
    let order = _mm256_set_m128i(_mm_set1_epi16(high), _mm_set1_epi16(low));
    _mm256_shuffle_epi8(words, order)
}

/// Sixteen-bit word j of the words that both halves of `words` hold, everywhere.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn one_word<const J: usize>(words: __m256i) -> __m256i {
    let byte = 2 * J as i16;
    _mm256_shuffle_epi8(words, _mm256_set1_epi16((byte + 1) << 8 | byte))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn low_bits<const MASK: i8>(bytes: __m256i) -> __m256i {
    _mm256_and_si256(bytes, _mm256_set1_epi8(MASK))
}

/// Eight chunks of 32: `quants[c] . x[c]`, groups of sixteen times their scales.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn by_sixteen(quants: [__m256i; 8], x: &[i8; SUPER], scales: __m256i) -> __m256i {
    let first = _mm256_permute2x128_si256::<0x00>(scales, scales);
    let second = _mm256_permute2x128_si256::<0x11>(scales, scales);
    let scales = [
        two_words::<0>(first),
        two_words::<1>(first),
        two_words::<2>(first),
        two_words::<3>(first),
        two_words::<0>(second),
        two_words::<1>(second),
        two_words::<2>(second),
        two_words::<3>(second),
    ];
    weighted(quants, x, scales)
}

/// Eight chunks of 32: `quants[c] . x[c]` times scale c.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn by_thirty_two(quants: [__m256i; 8], x: &[i8; SUPER], scales: u64) -> __m256i {
    let words = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(_mm_cvtsi64_si128(scales as i64)));
    let scales = [
        one_word::<0>(words),
        one_word::<1>(words),
        one_word::<2>(words),
        one_word::<3>(words),
        one_word::<4>(words),
        one_word::<5>(words),
        one_word::<6>(words),
        one_word::<7>(words),
    ];
    weighted(quants, x, scales)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weighted(quants: [__m256i; 8], x: &[i8; SUPER], scales: [__m256i; 8]) -> __m256i {
    let mut total = _mm256_setzero_si256();
    for ((quants, scale), x) in quants.into_iter().zip(scales).zip(x.as_chunks::<32>().0) {
        let pairs = _mm256_maddubs_epi16(quants, load_i8(x));
        total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, scale));
    }
    total
}

/// Minimums of eight sub-blocks times the sums of their activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn eight_minimums(minimums: u64, x_sums: __m256i) -> __m128i {
    let low = _mm256_castsi256_si128(x_sums);
    let sums = _mm_hadd_epi16(low, _mm256_extracti128_si256::<1>(x_sums));
    let minimums = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(minimums as i64));
    _mm_madd_epi16(minimums, sums)
}

/// Eight bytes as words, each twice: numbers by 32 values as numbers by sixteen.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn twice(bytes: u64) -> __m256i {
    let words = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes as i64));
    _mm256_set_m128i(_mm_unpackhi_epi16(words, words), _mm_unpacklo_epi16(words, words))
}

/// The quants of a block, by chunk of 32 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q4_k_quants(block: &Q4K) -> [__m256i; 8] {
    let mut quants = [_mm256_setzero_si256(); 8];
    for (pair, bytes) in quants.as_chunks_mut::<2>().0.iter_mut().zip(block.qs.as_chunks().0) {
        let bytes = load_u8(bytes);
        *pair = [low_bits::<0x0F>(bytes), low_bits::<0x0F>(_mm256_srli_epi16::<4>(bytes))];
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q4_k_step(
    total: &mut Sums,
    block: &Q4K,
    x: &[i8; SUPER],
    scale: f32,
    x_sums: __m256i,
) {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    let dots = by_thirty_two(q4_k_quants(block), x, scales);
    total.add_both(dots, eight_minimums(minimums, x_sums), [block.d, block.dmin], scale);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q4_k_unpack(block: &Q4K) -> Unpacked {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    Unpacked {
        quants: q4_k_quants(block),
        scales: twice(scales),
        minimums: twice(minimums),
        d: block.d,
        dmin: block.dmin,
    }
}

/// The quants of a block, by chunk of 32 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q5_k_quants(block: &Q5K) -> [__m256i; 8] {
    let fifths = load_u8(&block.qh);
    // Bit j of each byte, moved to bit 4.
    let mut quants = [
        _mm256_slli_epi16::<4>(low_bits::<0x01>(fifths)),
        _mm256_slli_epi16::<3>(low_bits::<0x02>(fifths)),
        _mm256_slli_epi16::<2>(low_bits::<0x04>(fifths)),
        _mm256_slli_epi16::<1>(low_bits::<0x08>(fifths)),
        low_bits::<0x10>(fifths),
        _mm256_srli_epi16::<1>(low_bits::<0x20>(fifths)),
        _mm256_srli_epi16::<2>(low_bits::<0x40>(fifths)),
        _mm256_srli_epi16::<3>(low_bits::<{ 0x80_u8 as i8 }>(fifths)),
    ];
    for (pair, bytes) in quants.as_chunks_mut::<2>().0.iter_mut().zip(block.qs.as_chunks().0) {
        let bytes = load_u8(bytes);
        pair[0] = _mm256_or_si256(pair[0], low_bits::<0x0F>(bytes));
        pair[1] = _mm256_or_si256(pair[1], low_bits::<0x0F>(_mm256_srli_epi16::<4>(bytes)));
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q5_k_step(
    total: &mut Sums,
    block: &Q5K,
    x: &[i8; SUPER],
    scale: f32,
    x_sums: __m256i,
) {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    let dots = by_thirty_two(q5_k_quants(block), x, scales);
    total.add_both(dots, eight_minimums(minimums, x_sums), [block.d, block.dmin], scale);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q5_k_unpack(block: &Q5K) -> Unpacked {
    let (scales, minimums) = k_scales::unpack_words(&block.scales);
    Unpacked {
        quants: q5_k_quants(block),
        scales: twice(scales),
        minimums: twice(minimums),
        d: block.d,
        dmin: block.dmin,
    }
}

/// The quants of a block, from 0 to 63, by chunk of 32 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q6_k_quants(block: &Q6K) -> [__m256i; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (q6_k_half(block, 0), q6_k_half(block, 1));
    [a, b, c, d, e, f, g, h]
}

/// The chunks of the first or of the second half of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q6_k_half(block: &Q6K, half: usize) -> [__m256i; 4] {
    let (lows, highs) = (block.ql.as_chunks::<32>().0, block.qh.as_chunks::<32>().0);
    let (low0, low1) = (load_u8(&lows[2 * half]), load_u8(&lows[2 * half + 1]));
    let high = load_u8(&highs[half]);
    let nibble = |bytes| low_bits::<0x0F>(bytes);
    let upper = |bytes| nibble(_mm256_srli_epi16::<4>(bytes));
    [
        _mm256_or_si256(nibble(low0), _mm256_slli_epi16::<4>(low_bits::<0x03>(high))),
        _mm256_or_si256(nibble(low1), _mm256_slli_epi16::<2>(low_bits::<0x0C>(high))),
        _mm256_or_si256(upper(low0), low_bits::<0x30>(high)),
        _mm256_or_si256(upper(low1), low_bits::<0x30>(_mm256_srli_epi16::<2>(high))),
    ]
}

/// The offset of -32 leaves the sum as 32 times scales by sums of activations, still in integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q6_k_step(
    total: &mut Sums,
    block: &Q6K,
    x: &[i8; SUPER],
    scale: f32,
    x_sums: __m256i,
) {
    let scales = _mm256_cvtepi8_epi16(load_half(&block.scales));
    let offsets = _mm256_slli_epi32::<5>(_mm256_madd_epi16(scales, x_sums));
    let dots = by_sixteen(q6_k_quants(block), x, scales);
    total.add(_mm256_sub_epi32(dots, offsets), block.d, scale);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q6_k_unpack(block: &Q6K) -> Unpacked {
    let scales = _mm256_cvtepi8_epi16(load_half(&block.scales));
    Unpacked {
        quants: q6_k_quants(block),
        scales,
        minimums: _mm256_slli_epi16::<5>(scales),
        d: block.d,
        dmin: block.d,
    }
}

/// Pairs of bits of the 64 bytes that `Q2_K` and `Q3_K` share, by chunk of 32 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn bit_pairs(bytes: &[u8; SUPER / 4]) -> [__m256i; 8] {
    let mut quants = [_mm256_setzero_si256(); 8];
    for (quants, bytes) in quants.as_chunks_mut::<4>().0.iter_mut().zip(bytes.as_chunks().0) {
        let bytes = load_u8(bytes);
        *quants = [
            low_bits::<0x03>(bytes),
            low_bits::<0x03>(_mm256_srli_epi16::<2>(bytes)),
            low_bits::<0x03>(_mm256_srli_epi16::<4>(bytes)),
            low_bits::<0x03>(_mm256_srli_epi16::<6>(bytes)),
        ];
    }
    quants
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q2_k_step(
    total: &mut Sums,
    block: &Q2K,
    x: &[i8; SUPER],
    scale: f32,
    x_sums: __m256i,
) {
    let (scales, minimums) = q2_k_scales(block);
    let dots = by_sixteen(bit_pairs(&block.qs), x, scales);
    let minimums = fold(_mm256_madd_epi16(minimums, x_sums));
    total.add_both(dots, minimums, [block.d, block.dmin], scale);
}

/// Scales and minimums by sixteen values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q2_k_scales(block: &Q2K) -> (__m256i, __m256i) {
    let packed = load_half(&block.scales);
    let nibble = _mm_set1_epi8(0x0F);
    (
        _mm256_cvtepu8_epi16(_mm_and_si128(packed, nibble)),
        _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(packed), nibble)),
    )
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q2_k_unpack(block: &Q2K) -> Unpacked {
    let (scales, minimums) = q2_k_scales(block);
    let quants = bit_pairs(&block.qs);
    Unpacked { quants, scales, minimums, d: block.d, dmin: block.dmin }
}

/// The quants of a block, from 0 to 7, by chunk of 32 values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q3_k_quants(block: &Q3K) -> [__m256i; 8] {
    let thirds = load_u8(&block.hmask);
    // Bit c of each byte, moved to bit 2.
    let thirds = [
        _mm256_slli_epi16::<2>(low_bits::<0x01>(thirds)),
        _mm256_slli_epi16::<1>(low_bits::<0x02>(thirds)),
        low_bits::<0x04>(thirds),
        _mm256_srli_epi16::<1>(low_bits::<0x08>(thirds)),
        _mm256_srli_epi16::<2>(low_bits::<0x10>(thirds)),
        _mm256_srli_epi16::<3>(low_bits::<0x20>(thirds)),
        _mm256_srli_epi16::<4>(low_bits::<0x40>(thirds)),
        _mm256_srli_epi16::<5>(low_bits::<{ 0x80_u8 as i8 }>(thirds)),
    ];
    let mut quants = bit_pairs(&block.qs);
    for (quants, thirds) in quants.iter_mut().zip(thirds) {
        *quants = _mm256_or_si256(*quants, thirds);
    }
    quants
}

/// The offset of -4 leaves the sum as 4 times scales by sums of activations, still in integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q3_k_step(
    total: &mut Sums,
    block: &Q3K,
    x: &[i8; SUPER],
    scale: f32,
    x_sums: __m256i,
) {
    let scales = _mm256_cvtepi8_epi16(load_half(&quant::q3_k::unpack_scales(&block.scales)));
    let offsets = _mm256_slli_epi32::<2>(_mm256_madd_epi16(scales, x_sums));
    let dots = by_sixteen(q3_k_quants(block), x, scales);
    total.add(_mm256_sub_epi32(dots, offsets), block.d, scale);
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn q3_k_unpack(block: &Q3K) -> Unpacked {
    let scales = _mm256_cvtepi8_epi16(load_half(&quant::q3_k::unpack_scales(&block.scales)));
    Unpacked {
        quants: q3_k_quants(block),
        scales,
        minimums: _mm256_slli_epi16::<2>(scales),
        d: block.d,
        dmin: block.d,
    }
}
