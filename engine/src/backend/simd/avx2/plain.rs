//! Products of f32, f16 and bf16 rows with f32 rows.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::kernels::Columns;
use super::vector::{
    apart, lanes_f32, load_bf16, load_f16, load_f32, load_raw_f32, prefetch, sum, sums_of_eight,
};
use crate::quant::widen;

/// Weight rows multiplied at once.
const TOGETHER: usize = 3;
/// Activation rows multiplied at once: twelve sums, three weights and a value fill the registers.
const TOKENS: usize = 4;

/// Sum of products of `a` and `b`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let a4 = a.as_chunks::<8>().0.as_chunks::<4>().0;
    let b4 = b.as_chunks::<8>().0.as_chunks::<4>().0;
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (group, b) in a4.iter().zip(b4) {
        prefetch(group);
        for i in 0..4 {
            lanes[i] = _mm256_fmadd_ps(load_f32(&group[i]), load_f32(&b[i]), lanes[i]);
        }
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.as_chunks::<4>().1.iter().zip(b.as_chunks::<4>().1) {
        lanes[0] = _mm256_fmadd_ps(load_f32(a), load_f32(b), lanes[0]);
    }
    let mut rest = 0.0f32;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest = a.mul_add(*b, rest);
    }
    let lanes = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[1]), _mm256_add_ps(lanes[2], lanes[3]));
    sum(lanes) + rest
}

/// Products of `R` weight rows with `T` activation rows of the same length: one chain each. `load` widens eight elements at
/// once, `single` one.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const R: usize, const T: usize, W>(
    weights: [&[W]; R],
    tokens: [&[f32]; T],
    load: impl Fn(&[W; 8]) -> __m256,
    single: impl Fn(&W) -> f32 + Copy,
) -> [[f32; T]; R] {
    let mut lanes = [[_mm256_setzero_ps(); T]; R];
    // Cut to one length before the loop, they are looked up in it without checks.
    let eights = weights[0].len() / 8;
    let (mut w, mut x) = ([[].as_slice(); R], [[].as_slice(); T]);
    for r in 0..R {
        w[r] = &weights[r].as_chunks::<8>().0[..eights];
    }
    for t in 0..T {
        x[t] = &tokens[t].as_chunks::<8>().0[..eights];
    }
    for i in 0..eights {
        let mut widened = [_mm256_setzero_ps(); R];
        for r in 0..R {
            widened[r] = load(&w[r][i]);
        }
        for t in 0..T {
            let token = load_f32(&x[t][i]);
            for r in 0..R {
                lanes[r][t] = _mm256_fmadd_ps(widened[r], token, lanes[r][t]);
            }
        }
    }
    let mut values = [[0.0; T]; R];
    for (values, lanes) in
        values.as_flattened_mut().chunks_mut(8).zip(lanes.as_flattened().chunks(8))
    {
        let mut eight = [_mm256_setzero_ps(); 8];
        eight[..lanes.len()].copy_from_slice(lanes);
        values.copy_from_slice(&lanes_f32(sums_of_eight(eight))[..lanes.len()]);
    }
    // Rows of models have none left: asking once costs less than adding nothing twelve times.
    if !weights[0].as_chunks::<8>().1.is_empty() {
        for r in 0..R {
            for t in 0..T {
                values[r][t] += singles(weights[r], tokens[t], single);
            }
        }
    }
    values
}

/// Products of the single values that are left of two rows, summed up.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn singles<W>(
    weights: &[W],
    values: &[f32],
    single: impl Fn(&W) -> f32,
) -> f32 {
    let mut sum = 0.0f32;
    for (weight, value) in weights.as_chunks::<8>().1.iter().zip(values.as_chunks::<8>().1) {
        sum = single(weight).mul_add(*value, sum);
    }
    sum
}

/// Bytes of weight rows that stay in the second-level cache while all activation rows pass by.
const CACHED: usize = 256 << 10;
/// Most weight rows that do, a multiple of what any of the kernels multiplies at once.
const CACHED_ROWS: usize = 24;

/// Weight rows to be multiplied with all activation rows before the next ones are.
pub(in super::super) fn cached_rows(stride: usize) -> usize {
    (CACHED / stride / 6 * 6).clamp(6, CACHED_ROWS)
}

/// What depends on how plain numbers are stored.
macro_rules! plain_numbers {
    ($product:ident, $tokens:ident, $tiles:ident, $bytes:literal, $load:expr, $single:expr) => {
        /// Columns of `out[T, width]` for the weight rows in `bytes`, from column `first`, with `T` rows of `x`.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn $tiles<const T: usize>(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
            (width, first): (usize, usize),
        ) {
            let rows = bytes.len() / stride;
            let row =
                |row: usize| &bytes[row * stride..][..stride].as_chunks::<$bytes>().0[..x.cols];
            if T == 1 {
                return apart(rows, |indices: [usize; 4]| {
                    let values = tile(indices.map(row), [x.values], $load, $single);
                    for (row, [value]) in indices.into_iter().zip(values) {
                        out[first + row] = value;
                    }
                });
            }
            let mut tokens = [[].as_slice(); T];
            for (token, values) in tokens.iter_mut().zip(x.values.chunks_exact(x.cols)) {
                *token = values;
            }
            for start in (0..rows).step_by(TOGETHER) {
                // A row that is not there is computed as the last one, and not written.
                let weights = [0, 1, 2].map(|r| row((start + r).min(rows - 1)));
                let values: [_; TOGETHER] = tile(weights, tokens, $load, $single);
                for (row, values) in (start..rows).zip(values) {
                    for t in 0..T {
                        out[t * width + first + row] = values[t];
                    }
                }
            }
        }

        /// The same for any number of rows of `x`.
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(in super::super) fn $tokens(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
            columns: (usize, usize),
        ) {
            let values = x.values.chunks(TOKENS * x.cols);
            for (values, out) in values.zip(out.chunks_mut(TOKENS * columns.0)) {
                let x = Columns { values, cols: x.cols };
                match values.len() / x.cols {
                    1 => $tiles::<1>(bytes, stride, x, out, columns),
                    2 => $tiles::<2>(bytes, stride, x, out, columns),
                    3 => $tiles::<3>(bytes, stride, x, out, columns),
                    _ => $tiles::<TOKENS>(bytes, stride, x, out, columns),
                }
            }
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(in super::super) fn $product(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
        ) {
            let width = bytes.len() / stride;
            // One activation row needs each weight once.
            let together = if x.values.len() == x.cols { width } else { cached_rows(stride) };
            for (index, rows) in bytes.chunks(together * stride).enumerate() {
                $tokens(rows, stride, x, out, (width, index * together));
            }
        }
    };
}

plain_numbers!(f32_product, f32_tokens, f32_tiles, 4, |raw| load_raw_f32(raw), |&raw| {
    f32::from_le_bytes(raw)
});
plain_numbers!(f16_product, f16_tokens, f16_tiles, 2, |raw| load_f16(raw), |&raw| widen(
    U16::from_bytes(raw)
));
plain_numbers!(bf16_product, bf16_tokens, bf16_tiles, 2, |raw| load_bf16(raw), |&[low, high]| {
    f32::from_le_bytes([0, 0, low, high])
});
