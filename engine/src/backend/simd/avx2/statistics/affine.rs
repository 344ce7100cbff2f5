//! Statistics of super-blocks with scales and minimums.
//!
//! With scales s and minimums m of the groups, steps d and dmin of the block, and quants q, the squares of a block sum
//! to d² Σ s² Σ q² - 2 d dmin Σ s m Σ q + 16 dmin² Σ m² over groups of sixteen: three integers, each exact, and one
//! product each in lanes of f32 that are emptied every few blocks. A value is zero where d s q is exactly dmin m, which
//! one quant of a group can give at most; whether one does is asked of all groups at once.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;
use std::hint::black_box;

use zerocopy::IntoBytes as _;

use super::super::supers::{bit_pairs, q4_k_quants, q5_k_quants};
use super::super::vector::{
    lanes_f32, lanes_u64, load_half, load_halves_twice, prefetch, store_u32, sum,
};
use super::values::{Range, Values, extremes, is_finite};
use crate::quant::statistics::Statistics;
use crate::quant::{self, Block, Q2K, Q4K, Q5K, SUPER, widen};

/// Blocks that are worked on at a time, by their scales first and by their quants then: the way from scales to what
/// can be said of them is long, and of many blocks it is gone side by side. Few enough for the rounding of
/// sums in f32 not to show.
const BLOCKS: usize = 32;

/// What the scales of one block make of its quants. Numbers of groups stand twice in a word of their own each: as such
/// they weigh pairs, and broadcast from memory they cost nothing.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Scales {
    /// s².
    squared: [u32; 8],
    /// - 2 s m.
    products: [u32; 8],
    /// s.
    plain: [u32; 8],
    /// d and dmin.
    steps: [f32; 2],
}

/// What a quant is worth in each group, and what is taken off.
#[derive(Clone, Copy)]
struct Grids {
    steps: __m256,
    offsets: __m256,
}

/// The first sixteen bytes of a block: `d`, `dmin`, and twelve bytes of scales and minimums.
#[derive(Clone, Copy)]
struct Stored<'a>(&'a [u8; 16]);

impl Stored<'_> {
    /// Scales and minimums of the groups, a byte each, in the lower halves.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn unpacked(self) -> (__m128i, __m128i) {
        let stored = load_half(self.0);
        // Words 1 and 2: six bits for groups 0 to 3, the two high bits for groups 4 to 7; word 3 their low bits.
        let first = _mm_and_si128(stored, _mm_set1_epi8(0x3F));
        let high = _mm_and_si128(_mm_srli_epi16::<2>(stored), _mm_set1_epi8(0x30));
        let nibble = _mm_set1_epi8(0x0F);
        let scales = _mm_srli_si128::<8>(_mm_and_si128(stored, nibble));
        let minimums = _mm_srli_si128::<4>(_mm_and_si128(_mm_srli_epi16::<4>(stored), nibble));
        let second = _mm_or_si128(high, _mm_blend_epi32::<0b0100>(scales, minimums));
        let scales = _mm_unpacklo_epi32(first, second);
        (_mm_unpackhi_epi64(scales, scales), _mm_unpackhi_epi32(first, second))
    }

    /// What is needed of the scales, for all values and for each group.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn read(self) -> (Scales, Grids) {
        let steps = _mm_cvtph_ps(load_half(self.0));
        let (d, dmin) = (_mm_cvtss_f32(steps), _mm_cvtss_f32(_mm_movehdup_ps(steps)));
        let (low, high) = self.unpacked();
        let (scales, minimums) = (_mm_cvtepu8_epi16(low), _mm_cvtepu8_epi16(high));
        let twice = _mm_sub_epi16(_mm_setzero_si128(), _mm_add_epi16(minimums, minimums));
        let read = Scales {
            squared: pairs(_mm_mullo_epi16(scales, scales)),
            products: pairs(_mm_mullo_epi16(scales, twice)),
            plain: pairs(scales),
            steps: [d, dmin],
        };
        let wide = |bytes| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
        let grids = Grids {
            steps: _mm256_mul_ps(_mm256_set1_ps(d), wide(low)),
            offsets: _mm256_mul_ps(_mm256_set1_ps(dmin), wide(high)),
        };
        (read, grids)
    }
}

/// Each of eight words twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pairs(words: __m128i) -> [u32; 8] {
    let mut pairs = [0; 8];
    let (low, high) = (_mm_unpacklo_epi16(words, words), _mm_unpackhi_epi16(words, words));
    store_u32(_mm256_set_m128i(high, low), &mut pairs);
    pairs
}

/// Whether steps, two f16 to a word, are all finite and none has a sign.
#[inline]
fn are_ordinary(steps: &[u32; BLOCKS]) -> bool {
    // An exponent of all ones carries into the place of the sign.
    let unusual = steps.iter().fold(0, |unusual, steps| {
        unusual | (steps & 0x7FFF_7FFF).wrapping_add(0x0400_0400) | steps
    });
    unusual & 0x8000_8000 == 0
}

impl Grids {
    /// The groups in which a quant is worth as much as is taken off, and those quants. Steps, minimums and their
    /// products are exact, so these values are zero and no other.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero_quants(self) -> (__m256, __m256i) {
        // Twelve bits of the quotient are enough to find the one quant that can be right.
        let quants = _mm256_mul_ps(self.offsets, _mm256_rcp_ps(self.steps));
        let quants = _mm256_cvtps_epi32(quants);
        let back = _mm256_mul_ps(_mm256_cvtepi32_ps(quants), self.steps);
        (_mm256_cmp_ps::<_CMP_EQ_OQ>(back, self.offsets), quants)
    }

    /// How many values of a block are zero.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zeros(self, quants: [__m256i; 8]) -> u64 {
        let (equal, wanted) = self.zero_quants();
        let none = _mm256_andnot_si256(_mm256_castps_si256(equal), _mm256_set1_epi32(-1));
        let flat = _mm256_cmp_ps::<_CMP_EQ_OQ>(self.steps, _mm256_setzero_ps());
        let wanted = _mm256_or_si256(wanted, _mm256_or_si256(none, _mm256_castps_si256(flat)));
        // Negative numbers and those above a byte become 255, which no quant is.
        let mut bytes = [0u32; 8];
        store_u32(_mm256_min_epu32(wanted, _mm256_set1_epi32(255)), &mut bytes);
        let mut counts = _mm256_setzero_si256();
        for (quants, wanted) in quants.into_iter().zip(bytes) {
            let equal = _mm256_cmpeq_epi8(quants, _mm256_set1_epi8(wanted as u8 as i8));
            counts = _mm256_sub_epi8(counts, equal);
        }
        let counts = _mm256_sad_epu8(counts, _mm256_setzero_si256());
        // Groups without a step are zero altogether when they have no minimum either.
        let nothing = _mm256_cmp_ps::<_CMP_EQ_OQ>(self.offsets, _mm256_setzero_ps());
        let flat = _mm256_movemask_ps(_mm256_and_ps(flat, nothing)).count_ones();
        lanes_u64(counts).iter().sum::<u64>() + 32 * u64::from(flat)
    }

    /// `range` with the values of a block.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn widened(self, range: Range, quants: [__m256i; 8]) -> Range {
        let (steps, offsets) = (lanes_f32(self.steps), lanes_f32(self.offsets));
        let groups = quants.into_iter().zip(steps.into_iter().zip(offsets));
        groups.fold(range, |range, (quants, (step, offset))| {
            let (low, high) = extremes(quants);
            let value = |quant: i8| step * f32::from(quant) - offset;
            range.with(value(low), value(high))
        })
    }
}

/// The extremes so far, in every lane; the smallest value with the opposite sign.
#[derive(Clone, Copy)]
struct Reach {
    low: __m256,
    high: __m256,
}

impl Reach {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn of(range: Range) -> Self {
        Self { low: _mm256_set1_ps(-range.low), high: _mm256_set1_ps(range.high) }
    }

    /// What values of groups can reach whose quants go up to `top`, together with what was reached before.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn with(self, grids: Grids, top: f32) -> Self {
        let high = _mm256_fmsub_ps(grids.steps, _mm256_set1_ps(top), grids.offsets);
        Self { low: _mm256_max_ps(self.low, grids.offsets), high: _mm256_max_ps(self.high, high) }
    }

    /// Whether this is more than `other`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn is_beyond(self, other: Self) -> bool {
        let beyond = _mm256_or_ps(
            _mm256_cmp_ps::<_CMP_GT_OQ>(self.low, other.low),
            _mm256_cmp_ps::<_CMP_GT_OQ>(self.high, other.high),
        );
        _mm256_movemask_ps(beyond) != 0
    }
}

/// Sums and sums of squares in lanes.
///
/// Nothing here is ever borrowed, so that all of it stays in registers.
#[derive(Clone, Copy)]
struct Sums {
    squares: __m256,
    sums: __m256,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        Self { squares: _mm256_setzero_ps(), sums: _mm256_setzero_ps() }
    }

    /// Takes in what is taken off 32 values of each group, but for the factor 32.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add_offsets(self, offsets: __m256) -> Self {
        Self {
            squares: _mm256_fmadd_ps(offsets, offsets, self.squares),
            sums: _mm256_sub_ps(self.sums, offsets),
        }
    }

    /// Takes in the quants of a block.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add(self, quants: [__m256i; 8], by: &Scales) -> Self {
        let nothing = _mm256_setzero_si256();
        let mut squares = nothing;
        let mut eights = [nothing; 8];
        for j in 0..8 {
            let quants = quants[j];
            let pairs = _mm256_maddubs_epi16(quants, quants);
            let weight = _mm256_set1_epi32(by.squared[j] as i32);
            squares = _mm256_add_epi32(squares, _mm256_madd_epi16(pairs, weight));
            eights[j] = _mm256_sad_epu8(quants, nothing);
        }
        // Sums of eight quants, two of each group in either half: groups 0 to 3, groups 4 to 7.
        let packed = |j: usize| {
            let (first, second) = (
                _mm256_packus_epi32(eights[j], eights[j + 1]),
                _mm256_packus_epi32(eights[j + 2], eights[j + 3]),
            );
            _mm256_packus_epi32(first, second)
        };
        let (first, second) = (packed(0), packed(4));
        let weighed = |weights: &[u32; 8]| {
            let [low, high] = load_halves_twice(weights);
            let (first, second) = (_mm256_madd_epi16(first, low), _mm256_madd_epi16(second, high));
            _mm256_cvtepi32_ps(_mm256_add_epi32(first, second))
        };
        let (d, dmin) = (_mm256_set1_ps(by.steps[0]), _mm256_set1_ps(by.steps[1]));
        // d (d Σ s² q² - dmin Σ 2 s m q).
        let inner = _mm256_mul_ps(d, _mm256_cvtepi32_ps(squares));
        let inner = _mm256_fmadd_ps(dmin, weighed(&by.products), inner);
        Self {
            squares: _mm256_fmadd_ps(d, inner, self.squares),
            sums: _mm256_fmadd_ps(d, weighed(&by.plain), self.sums),
        }
    }

    /// Empties the lanes into `total`, times `factor`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn write(self, factor: f64, total: &mut Statistics) {
        total.squares += factor * f64::from(sum(self.squares));
        total.sum += factor * f64::from(sum(self.sums));
    }
}

/// One function over blocks of eight groups.
macro_rules! affine_statistics {
    ($name:ident, $block:ty, $top:literal, $quants:path, $zeros:ident, $widened:ident) => {
        // These two are apart because hardly any block asks for them.
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $zeros(block: &$block) -> u64 {
            let Some(head) = block.as_bytes().first_chunk() else { return 0 };
            let grids = Stored(head).read().1;
            if _mm256_movemask_ps(grids.zero_quants().0) == 0 {
                return 0;
            }
            grids.zeros($quants(block))
        }

        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $widened(range: Range, block: &$block) -> Range {
            let Some(head) = block.as_bytes().first_chunk() else { return range };
            let (before, grids) = (Reach::of(range), Stored(head).read().1);
            if !before.with(grids, $top).is_beyond(before) {
                return range;
            }
            grids.widened(range, $quants(block))
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name(bytes: &[u8]) -> Option<Statistics> {
            let blocks: &[$block] = quant::blocks(bytes);
            let mut total = Statistics::default();
            let mut range = Range::EMPTY;
            let mut prepared = [Scales::default(); BLOCKS];
            for blocks in blocks.chunks(BLOCKS) {
                // Nothing is called or decided in this loop, so that many blocks are under way at once.
                let (before, mut offsets) = (Reach::of(range), Sums::zero());
                let (mut after, mut zero) = (before, _mm256_setzero_ps());
                let mut steps = [0; BLOCKS];
                for (block, (prepared, steps)) in
                    blocks.iter().zip(prepared.iter_mut().zip(&mut steps))
                {
                    prefetch(block);
                    *steps = u32::from(block.d.get()) | u32::from(block.dmin.get()) << 16;
                    let (scales, grids) = Stored(block.as_bytes().first_chunk()?).read();
                    *prepared = scales;
                    offsets = offsets.add_offsets(grids.offsets);
                    zero = _mm256_or_ps(zero, grids.zero_quants().0);
                    after = after.with(grids, $top);
                }
                if !are_ordinary(&steps) {
                    for block in blocks {
                        add_values(&mut total, block);
                    }
                    continue;
                }
                if _mm256_movemask_ps(zero) != 0 {
                    total.zeros += blocks.iter().map(|block| $zeros(block)).sum::<u64>();
                }
                if after.is_beyond(before) {
                    range = blocks.iter().fold(range, |range, block| $widened(range, block));
                }
                offsets.write(32.0, &mut total);
                let mut sums = Sums::zero();
                for (block, scales) in blocks.iter().zip(black_box(&prepared)) {
                    sums = sums.add($quants(block), scales);
                }
                sums.write(1.0, &mut total);
            }
            total.values = blocks.len() as u64 * SUPER as u64;
            total.min = total.min.min(range.low);
            total.max = total.max.max(range.high);
            Some(total)
        }
    };
}

/// Takes in the values of a block one by one.
#[cold]
#[inline(never)]
fn add_values<B: Block<SUPER>>(total: &mut Statistics, block: &B) {
    let mut values = [0.0; SUPER];
    block.dequantize(&mut values);
    total.add(&values);
}

affine_statistics!(q4_k_statistics, Q4K, 15.0, q4_k_quants, q4_k_zeros, q4_k_widened);
affine_statistics!(q5_k_statistics, Q5K, 31.0, q5_k_quants, q5_k_zeros, q5_k_widened);

/// Sixteen groups to a block of 84 bytes: value by value.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn q2_k_statistics(bytes: &[u8]) -> Option<Statistics> {
    let blocks: &[Q2K] = quant::blocks(bytes);
    let mut values = Values::new();
    for block in blocks {
        prefetch(block);
        if !(is_finite(block.d) && is_finite(block.dmin)) {
            return None;
        }
        let (d, dmin) = (widen(block.d), widen(block.dmin));
        let steps = block.scales.map(|scale| d * f32::from(scale & 0x0F));
        let offsets = block.scales.map(|scale| -(dmin * f32::from(scale >> 4)));
        let grid = |j: usize| (_mm256_set1_ps(steps[j]), _mm256_set1_ps(offsets[j]));
        values = values.add(bit_pairs(&block.qs), grid);
    }
    Some(values.statistics())
}
