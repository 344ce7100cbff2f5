//! Every product against AVX2, whose bits these kernels have. `scripts/test_on_avx512.sh` runs this on a processor that is
//! emulated where the machine has none.

use super::super::kernels::{Isa, Kernels};
use super::super::tests::{PACKED, activations, weights};
use crate::dtype::Dtype;
use crate::quant::{SUPER, quantize_row};
use crate::tensor::{Shape, TensorView};

/// The table of `isa` and that of AVX2, where the processor has it.
fn tables(isa: Isa) -> Option<[Kernels; 2]> {
    let kernels = Kernels::for_isa(isa).ok()?;
    Some([kernels, Kernels::for_isa(Isa::Avx2).expect("AVX-512 comes with AVX2")])
}

/// Every packed type with the tables of AVX-512, without VNNI and with it, each beside that of AVX2.
fn packed_tables() -> impl Iterator<Item = (&'static Dtype, [Kernels; 2])> {
    let tables = [Isa::Avx512, Isa::Avx512Vnni].into_iter().filter_map(tables);
    tables.flat_map(|tables| PACKED.iter().map(move |dtype| (dtype, tables)))
}

/// Bits of the products of `rows` rows of weights with `x`, rows of `cols`.
fn products(
    kernels: &Kernels,
    dtype: Dtype,
    rows: usize,
    cols: usize,
    bytes: &[u8],
    x: &[f32],
) -> Vec<u32> {
    let shape = Shape::new(&[rows as u64, cols as u64]).unwrap();
    let view = TensorView::new(dtype, shape, bytes).unwrap();
    let acts = kernels.activations(x, cols, &[dtype]).unwrap();
    let mut out = vec![f32::NAN; rows * acts.rows()];
    kernels.product(&view, 0..rows, &acts, &mut out).unwrap();
    out.into_iter().map(f32::to_bits).collect()
}

/// Weight rows, activation rows, blocks: below, at and beyond what a panel and a group of tokens hold.
const SIZES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (3, 2, 4), (5, 1, 7), (16, 3, 5), (17, 8, 3), (33, 9, 4), (2, 19, 9)];

#[test]
fn packed_products_have_the_bits_of_avx2() {
    for (&dtype, [avx512, avx2]) in packed_tables() {
        for &(rows, n, blocks) in SIZES {
            let cols = blocks * dtype.block_len();
            let x = activations(n, cols);
            for scales in [0x0001, 0x3C00, 0x7BFF] {
                let bytes = weights(dtype, rows, cols, scales);
                let [found, expected] =
                    [avx512, avx2].map(|kernels| products(&kernels, dtype, rows, cols, &bytes, &x));
                let isa = avx512.isa();
                assert_eq!(found, expected, "{isa} {dtype} [{rows}, {cols}] by {n}, {scales:#x}");
            }
        }
    }
}

/// Quants and activations all at either end of their range.
#[test]
fn extreme_products_have_the_bits_of_avx2() {
    for (&dtype, [avx512, avx2]) in packed_tables() {
        let (rows, cols) = (17, 2 * SUPER);
        for fill in [0x00, 0x7F, 0x80, 0xFF] {
            let mut bytes = weights(dtype, rows, cols, 0x3C00);
            let scales = super::super::tests::scale_offsets(dtype);
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                for (offset, byte) in block.iter_mut().enumerate() {
                    if !scales.iter().any(|start| (*start..start + 2).contains(&offset)) {
                        *byte = fill;
                    }
                }
            }
            for sign in [1.0, -1.0] {
                for n in [1, 5] {
                    let x = vec![sign; n * cols];
                    let [found, expected] = [avx512, avx2]
                        .map(|kernels| products(&kernels, dtype, rows, cols, &bytes, &x));
                    let isa = avx512.isa();
                    assert_eq!(found, expected, "{isa} {dtype} of {fill:#x} by {n} rows of {sign}");
                }
            }
        }
    }
}

#[test]
fn plain_products_have_the_bits_of_avx2_at_any_length() {
    let Some([avx512, avx2]) = tables(Isa::Avx512) else { return };
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        for &(rows, n, _) in SIZES {
            for cols in [1, 7, 8, 31, 32, 33, 64, 77, 136, 263] {
                let mut bytes = Vec::new();
                quantize_row(dtype, &activations(rows, cols), &mut bytes).unwrap();
                let x = activations(n, cols);
                let [found, expected] =
                    [avx512, avx2].map(|kernels| products(&kernels, dtype, rows, cols, &bytes, &x));
                assert_eq!(found, expected, "{dtype} [{rows}, {cols}] by {n}");
            }
        }
    }
}
