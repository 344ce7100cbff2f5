//! Rows of 32-value blocks by few activation rows: two weight rows at once, one to a half of each vector.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Row};
use super::vector::{
    apart, eight_halves, heads, load_four, load_half, load_i32, prefetch, sum_four, two_nibbles,
};
use crate::quant::{self, Q4_0, Q4_1, Q5_0, Q5_1};

/// Four blocks of each of two rows against four of the activations, as integers that are still apart.
pub(in super::super) struct Both<'a> {
    /// Partial sums of products, by block.
    pub(in super::super) dots: [__m256i; 4],
    /// Steps of the blocks, row after row.
    pub(in super::super) d: [[U16; 4]; 2],
    /// Offsets of the blocks, in types that store them.
    pub(in super::super) m: [[U16; 4]; 2],
    pub(in super::super) x_scales: &'a [f32; 4],
    pub(in super::super) x_sums: &'a [i32; 4],
}

impl Both<'_> {
    /// Adds each block to the chain of its own. `2^SHIFT` is taken away from each quant, unless it is 1.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn add<const SHIFT: i32, const OFFSETS: bool>(
        self,
        chains: __m256,
    ) -> __m256 {
        let mut dots = sums_by_half(self.dots);
        let x_scales = load_four(self.x_scales);
        let x_scales = _mm256_set_m128(x_scales, x_scales);
        let x_sums = _mm256_broadcastsi128_si256(load_i32(self.x_sums));
        if SHIFT > 0 {
            dots = _mm256_sub_epi32(dots, _mm256_slli_epi32::<SHIFT>(x_sums));
        }
        let factors = _mm256_mul_ps(halves(self.d), x_scales);
        let chains = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), factors, chains);
        if !OFFSETS {
            return chains;
        }
        let x_sums = _mm256_mul_ps(x_scales, _mm256_cvtepi32_ps(x_sums));
        _mm256_fmadd_ps(halves(self.m), x_sums, chains)
    }
}

/// Stored f16 of two rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves([[a, b, c, d], [e, f, g, h]]: [[U16; 4]; 2]) -> __m256 {
    eight_halves([a, b, c, d, e, f, g, h])
}

/// The sums of the four integers in each half of four vectors, by vector.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sums_by_half([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let twos = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (first, second) = (twos(a, b), twos(c, d));
    let low = _mm256_unpacklo_epi64(first, second);
    _mm256_add_epi32(low, _mm256_unpackhi_epi64(first, second))
}

/// The products of rows of one type of block with few activation rows, with `$features`. `$dots` multiplies the quants of two
/// blocks, each with `2^$shift` too much; `$m` is the offset, where `$offsets` says that there is one.
macro_rules! block_rows {
    (
        $features:literal, $few:ident, $rows:ident, $block:ty, $dots:path, $m:expr,
        <$shift:literal, $offsets:literal>
    ) => {
        /// Two weight rows by one activation row.
        #[inline]
        #[target_feature(enable = $features)]
        fn $rows([a, b]: [&[$block]; 2], x: Q8Row<'_>) -> [f32; 2] {
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
            let (quants, quants_rest) = x.quants.as_chunks::<4>();
            let (scales, scales_rest) = x.scales.as_chunks::<4>();
            let (sums, sums_rest) = x.sums.as_chunks::<4>();
            let mut chains = _mm256_setzero_ps();
            for ((((a, b), quants), x_scales), x_sums) in
                a.iter().zip(b).zip(quants).zip(scales).zip(sums)
            {
                prefetch(a);
                prefetch(b);
                let mut dots = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    dots[i] = $dots(&a[i], &b[i], &quants[i]);
                }
                let d = [[a[0].d, a[1].d, a[2].d, a[3].d], [b[0].d, b[1].d, b[2].d, b[3].d]];
                let m = [
                    [$m(&a[0]), $m(&a[1]), $m(&a[2]), $m(&a[3])],
                    [$m(&b[0]), $m(&b[1]), $m(&b[2]), $m(&b[3])],
                ];
                chains = Both { dots, d, m, x_scales, x_sums }.add::<$shift, $offsets>(chains);
            }
            if !a_rest.is_empty() {
                // Blocks that are missing count as zeros.
                let mut dots = [_mm256_setzero_si256(); 4];
                let (mut d, mut m) = ([[U16::ZERO; 4]; 2], [[U16::ZERO; 4]; 2]);
                let (mut x_scales, mut x_sums) = ([0.0; 4], [0; 4]);
                for (i, ((a, b), quants)) in a_rest.iter().zip(b_rest).zip(quants_rest).enumerate()
                {
                    dots[i] = $dots(a, b, quants);
                    (d[0][i], d[1][i]) = (a.d, b.d);
                    (m[0][i], m[1][i]) = ($m(a), $m(b));
                }
                x_scales[..scales_rest.len()].copy_from_slice(scales_rest);
                x_sums[..sums_rest.len()].copy_from_slice(sums_rest);
                let last = Both { dots, d, m, x_scales: &x_scales, x_sums: &x_sums };
                chains = last.add::<$shift, $offsets>(chains);
            }
            let second = _mm256_extractf128_ps::<1>(chains);
            [sum_four(_mm256_castps256_ps128(chains)), sum_four(second)]
        }

        #[target_feature(enable = $features)]
        pub(in super::super) fn $few(bytes: &[u8], acts: &Q8, out: &mut [f32]) {
            let stride = acts.blocks * size_of::<$block>();
            let width = bytes.len() / stride;
            apart(width, |indices: [usize; 2]| {
                let rows = indices.map(|row| quant::blocks(&bytes[row * stride..][..stride]));
                for (t, out) in out.chunks_exact_mut(width).enumerate() {
                    for (row, value) in indices.into_iter().zip($rows(rows, acts.row(t))) {
                        out[row] = value;
                    }
                }
            });
        }
    };
}

pub(in super::super) use block_rows;

block_rows!(
    "avx2,fma,f16c", q4_0_few, q4_0_rows, Q4_0, q4_0_dots, |_: &Q4_0| U16::ZERO, <3, false>
);
block_rows!(
    "avx2,fma,f16c", q4_1_few, q4_1_rows, Q4_1, q4_1_dots, |block: &Q4_1| block.m, <0, true>
);
block_rows!(
    "avx2,fma,f16c", q5_0_few, q5_0_rows, Q5_0, q5_0_dots, |_: &Q5_0| U16::ZERO, <4, false>
);
block_rows!(
    "avx2,fma,f16c", q5_1_few, q5_1_rows, Q5_1, q5_1_dots, |block: &Q5_1| block.m, <0, true>
);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_0_dots(a: &Q4_0, b: &Q4_0, x: &[i8; 32]) -> __m256i {
    dots(two_nibbles(&a.qs, &b.qs), x)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q4_1_dots(a: &Q4_1, b: &Q4_1, x: &[i8; 32]) -> __m256i {
    dots(two_nibbles(&a.qs, &b.qs), x)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_0_dots(a: &Q5_0, b: &Q5_0, x: &[i8; 32]) -> __m256i {
    dots(with_fifths::<2>(two_nibbles(&a.qs, &b.qs), heads(a, b)), x)
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn q5_1_dots(a: &Q5_1, b: &Q5_1, x: &[i8; 32]) -> __m256i {
    dots(with_fifths::<4>(two_nibbles(&a.qs, &b.qs), heads(a, b)), x)
}

/// The first halves of two blocks in one vector, their second halves in another.
type Halves = (__m256i, __m256i);

/// Partial sums of the products of two blocks of bytes from 0 to 31 with `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dots((low, high): Halves, x: &[i8; 32]) -> __m256i {
    let (first, second) = twice_by_half(x);
    // Four products of at most 31 by 127 fit into sixteen bits.
    let low = _mm256_maddubs_epi16(low, first);
    let words = _mm256_add_epi16(low, _mm256_maddubs_epi16(high, second));
    _mm256_madd_epi16(words, _mm256_set1_epi16(1))
}

/// The first sixteen bytes twice, and the second sixteen twice.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn twice_by_half(x: &[i8; 32]) -> Halves {
    let halves = x.as_chunks::<16>().0;
    let twice = |half| _mm256_broadcastsi128_si256(load_half(half));
    (twice(&halves[0]), twice(&halves[1]))
}

/// Sixteen more for the quants of two blocks whose fifth bits are set: `heads` begins with a block in each half, and the bits
/// are `OFFSET` bytes behind.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn with_fifths<const OFFSET: i8>(
    (low, high): Halves,
    heads: __m256i,
) -> Halves {
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    // The highest bit makes a byte negative: there the sign is turned once more.
    let sixteen = _mm256_set1_epi64x(0xF010_1010_1010_1010_u64 as i64);
    let first = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0, 0x0101_0101_0101_0101);
    let whole = |quants, byte| {
        let spread = _mm256_shuffle_epi8(heads, _mm256_add_epi8(first, _mm256_set1_epi8(byte)));
        _mm256_or_si256(quants, _mm256_sign_epi8(sixteen, _mm256_and_si256(spread, bit)))
    };
    (whole(low, OFFSET), whole(high, OFFSET + 2))
}
