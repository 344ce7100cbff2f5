//! Products of f32, f16 and bf16 rows with f32 rows.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Arranged, Room};
use super::super::kernels::Columns;
use super::plain_panel::{self, ROWS};
use super::vector::{load_bf16, load_f16, load_f32, load_raw_f32, prefetch, store_f32, sum};
use crate::quant::widen;

#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    plain_dot(a, b, |chunk| load_f32(chunk), |&value| value)
}

/// Sum of products of `a`, eight elements of which `load` widens at once and one `single`, with `b`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn plain_dot<T>(
    a: &[T],
    b: &[f32],
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) -> f32 {
    let a4 = a.as_chunks::<8>().0.as_chunks::<4>().0;
    let b4 = b.as_chunks::<8>().0.as_chunks::<4>().0;
    let mut lanes = [_mm256_setzero_ps(); 4];
    for (group, b) in a4.iter().zip(b4) {
        prefetch(group);
        for i in 0..4 {
            lanes[i] = _mm256_fmadd_ps(load(&group[i]), load_f32(&b[i]), lanes[i]);
        }
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.as_chunks::<4>().1.iter().zip(b.as_chunks::<4>().1) {
        lanes[0] = _mm256_fmadd_ps(load(a), load_f32(b), lanes[0]);
    }
    let mut rest = 0.0f32;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest = single(a).mul_add(*b, rest);
    }
    let lanes = _mm256_add_ps(_mm256_add_ps(lanes[0], lanes[1]), _mm256_add_ps(lanes[2], lanes[3]));
    sum(lanes) + rest
}

/// Writes `values` into row `row` of `panel`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widen_row<T>(
    values: &[T],
    panel: &mut Arranged,
    row: usize,
    load: impl Fn(&[T; 8]) -> __m256,
    single: impl Fn(&T) -> f32,
) {
    let (eights, rest) = values.as_chunks();
    let (groups, left) = eights.as_chunks::<4>();
    let Room { parts: [a, b, c, d], left: room } = panel.room(row);
    for ((((group, a), b), c), d) in groups.iter().zip(a).zip(b).zip(c).zip(d) {
        prefetch(group);
        store_f32(load(&group[0]), &mut a.0);
        store_f32(load(&group[1]), &mut b.0);
        store_f32(load(&group[2]), &mut c.0);
        store_f32(load(&group[3]), &mut d.0);
    }
    for (eight, room) in left.iter().zip(&mut *room) {
        store_f32(load(eight), &mut room.0);
    }
    if let (false, Some(last)) = (rest.is_empty(), room.last_mut()) {
        for (one, value) in rest.iter().zip(&mut last.0) {
            *value = single(one);
        }
    }
}

/// What depends on how plain numbers are stored: products one by one, and a panel of rows.
macro_rules! plain_numbers {
    ($rows:ident, $panel:ident, $bytes:literal, $load:expr, $single:expr) => {
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(in super::super) fn $rows(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
        ) {
            let width = bytes.len() / stride;
            for (w, row) in bytes.chunks_exact(stride).enumerate() {
                let row = row.as_chunks::<$bytes>().0;
                for (out, x) in out.chunks_exact_mut(width).zip(x.values.chunks_exact(x.cols)) {
                    out[w] = plain_dot(row, x, $load, $single);
                }
            }
        }

        #[target_feature(enable = "avx2,fma,f16c")]
        pub(in super::super) fn $panel(rows: &[u8], stride: usize, cols: usize) -> Arranged {
            let mut panel = Arranged::new(rows.len() / stride, cols);
            for (row, values) in rows.chunks_exact(stride).enumerate() {
                widen_row(values.as_chunks::<$bytes>().0, &mut panel, row, $load, $single);
            }
            panel
        }
    };
}

plain_numbers!(f32_rows, f32_panel, 4, |raw| load_raw_f32(raw), |&raw| f32::from_le_bytes(raw));
plain_numbers!(f16_rows, f16_panel, 2, |raw| load_f16(raw), |&raw| widen(U16::from_bytes(raw)));
plain_numbers!(bf16_rows, bf16_panel, 2, |raw| load_bf16(raw), |&[low, high]| {
    f32::from_le_bytes([0, 0, low, high])
});

/// One function over rows of plain numbers, with `$features`; `$multiply` takes a panel of `$together` rows.
macro_rules! plain_product {
    ($features:literal, $product:ident, $rows:path, $panel:path, $multiply:path, $together:path) => {
        #[target_feature(enable = $features)]
        pub(in super::super) fn $product(
            bytes: &[u8],
            stride: usize,
            x: Columns<'_>,
            out: &mut [f32],
        ) {
            let Some(arranged) = x.arranged else {
                return $rows(bytes, stride, x, out);
            };
            let width = bytes.len() / stride;
            for (index, rows) in bytes.chunks($together * stride).enumerate() {
                let panel = $panel(rows, stride, x.cols);
                $multiply(&panel, arranged, out, width, index * $together);
            }
        }
    };
}
pub(in super::super) use plain_product;

plain_product!("avx2,fma,f16c", f32_product, f32_rows, f32_panel, plain_panel::multiply, ROWS);
plain_product!("avx2,fma,f16c", f16_product, f16_rows, f16_panel, plain_panel::multiply, ROWS);
plain_product!("avx2,fma,f16c", bf16_product, bf16_rows, bf16_panel, plain_panel::multiply, ROWS);
