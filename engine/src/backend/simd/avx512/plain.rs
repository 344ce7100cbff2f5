//! Products of f32, f16 and bf16 rows with many f32 rows: two weight rows in one vector of lanes.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::avx2::plain::{self, bf16_tokens, cached_rows, f16_tokens, f32_tokens, singles};
use super::super::avx2::vector::{
    lanes_f32, load_f32 as load_eight, load_raw_f32, load_raw_half, sums_of_eight,
};
use super::super::kernels::Columns;
use super::vector::{halves, twice};
use crate::quant::widen;

/// Pairs of weight rows multiplied at once.
const TOGETHER: usize = 3;
/// Activation rows multiplied at once.
const TOKENS: usize = 8;

/// Products of pairs of weight rows with activation rows of the same length: one chain each. `load` widens eight elements of
/// both rows at once, `single` one.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn tile<W>(
    weights: [[&[W]; 2]; TOGETHER],
    tokens: [&[f32]; TOKENS],
    load: impl Fn(&[W; 8], &[W; 8]) -> __m512,
    single: impl Fn(&W) -> f32 + Copy,
) -> [[[f32; TOKENS]; 2]; TOGETHER] {
    let mut lanes = [[_mm512_setzero_ps(); TOKENS]; TOGETHER];
    // Cut to one length before the loop, they are looked up in it without checks.
    let eights = weights[0][0].len() / 8;
    let (mut w, mut x) = ([[[].as_slice(); 2]; TOGETHER], [[].as_slice(); TOKENS]);
    for r in 0..TOGETHER {
        for h in 0..2 {
            w[r][h] = &weights[r][h].as_chunks::<8>().0[..eights];
        }
    }
    for t in 0..TOKENS {
        x[t] = &tokens[t].as_chunks::<8>().0[..eights];
    }
    for i in 0..eights {
        let mut widened = [_mm512_setzero_ps(); TOGETHER];
        for r in 0..TOGETHER {
            widened[r] = load(&w[r][0][i], &w[r][1][i]);
        }
        for t in 0..TOKENS {
            let token = twice(load_eight(&x[t][i]));
            for r in 0..TOGETHER {
                lanes[r][t] = _mm512_fmadd_ps(widened[r], token, lanes[r][t]);
            }
        }
    }
    let mut values = [[[0.0; TOKENS]; 2]; TOGETHER];
    for r in 0..TOGETHER {
        let mut rows = [[_mm256_setzero_ps(); TOKENS]; 2];
        for t in 0..TOKENS {
            [rows[0][t], rows[1][t]] = halves(lanes[r][t]);
        }
        for h in 0..2 {
            values[r][h] = lanes_f32(sums_of_eight(rows[h]));
            for t in 0..TOKENS {
                values[r][h][t] += singles(weights[r][h], tokens[t], single);
            }
        }
    }
    values
}

/// What depends on how plain numbers are stored.
macro_rules! plain_numbers {
    ($product:ident, $tiles:ident, $few:path, $tokens:path, $bytes:literal, $load:expr, $single:expr) => {
        /// Columns of `out[TOKENS, width]` for the weight rows in `bytes`, from column `first`, with as many rows of `x`.
        #[inline]
        #[target_feature(enable = "avx512bw,avx512vl")]
        fn $tiles(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
            (width, first): (usize, usize),
        ) {
            let rows = bytes.len() / stride;
            let mut tokens = [[].as_slice(); TOKENS];
            for (token, values) in tokens.iter_mut().zip(x.values.chunks_exact(x.cols)) {
                *token = values;
            }
            for start in (0..rows).step_by(2 * TOGETHER) {
                let mut weights = [[[].as_slice(); 2]; TOGETHER];
                for (r, row) in weights.as_flattened_mut().iter_mut().enumerate() {
                    // A row that is not there is computed as the last one, and not written.
                    let bytes = &bytes[(start + r).min(rows - 1) * stride..][..stride];
                    *row = &bytes.as_chunks::<$bytes>().0[..x.cols];
                }
                let values = tile(weights, tokens, $load, $single);
                for (row, values) in (start..rows).zip(values.as_flattened()) {
                    for (out, value) in out.chunks_exact_mut(width).zip(values) {
                        out[first + row] = *value;
                    }
                }
            }
        }

        #[target_feature(enable = "avx512bw,avx512vl")]
        pub(super) fn $product(bytes: &[u8], stride: usize, x: Columns<'_>, out: &mut [f32]) {
            if x.values.len() < TOKENS * x.cols {
                return $few(bytes, stride, x, out);
            }
            let (width, together) = (bytes.len() / stride, cached_rows(stride));
            for (index, rows) in bytes.chunks(together * stride).enumerate() {
                let columns = (width, index * together);
                let values = x.values.chunks(TOKENS * x.cols);
                for (values, out) in values.zip(out.chunks_mut(TOKENS * width)) {
                    let x = Columns { values, cols: x.cols };
                    if values.len() == TOKENS * x.cols {
                        $tiles(rows, stride, x, out, columns);
                    } else {
                        $tokens(rows, stride, x, out, columns);
                    }
                }
            }
        }
    };
}

plain_numbers!(
    f32_product,
    f32_tiles,
    plain::f32_product,
    f32_tokens,
    4,
    |a, b| both(load_raw_f32(a), load_raw_f32(b)),
    |&raw| f32::from_le_bytes(raw)
);
plain_numbers!(
    f16_product,
    f16_tiles,
    plain::f16_product,
    f16_tokens,
    2,
    |a, b| _mm512_cvtph_ps(_mm256_set_m128i(load_raw_half(b), load_raw_half(a))),
    |&raw| widen(U16::from_bytes(raw))
);
plain_numbers!(
    bf16_product,
    bf16_tiles,
    plain::bf16_product,
    bf16_tokens,
    2,
    |a, b| {
        let raw = _mm256_set_m128i(load_raw_half(b), load_raw_half(a));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(raw)))
    },
    |&[low, high]| f32::from_le_bytes([0, 0, low, high])
);

/// An eight of one row, and the same eight of the next.
#[inline]
#[target_feature(enable = "avx512bw,avx512vl")]
fn both(a: __m256, b: __m256) -> __m512 {
    let a = _mm512_castps256_ps512(a);
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(a), _mm256_castps_pd(b)))
}
