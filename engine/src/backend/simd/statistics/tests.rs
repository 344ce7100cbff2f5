//! Every kernel of every available instruction set against the oracle that looks at one value after the other.

use super::super::kernels::Kernels;
use super::super::tests::{Words, scale_offsets, weights};
use super::SPAN_BYTES;
use crate::dtype::Dtype;
use crate::quant::statistics::Statistics;
use crate::quant::{self, SUPER};
use crate::tensor::{Shape, TensorView};

/// Every dtype that is computed with.
const COMPUTED: &[Dtype] = &[
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::F64,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q8_0,
    Dtype::Q2K,
    Dtype::Q3K,
    Dtype::Q4K,
    Dtype::Q5K,
    Dtype::Q6K,
    Dtype::Q8K,
    Dtype::AprQ4,
    Dtype::AprQ8,
];

/// Counts and extremes are exact. Sums err by rounding in f32 over a few blocks: a few units in the last place of the
/// sum of magnitudes, where a block counts with its largest because quants and offsets are summed apart.
fn check(kernels: &Kernels, view: &TensorView<'_>, what: &str) {
    let expected = Statistics::of(view).unwrap();
    let values = view.dequantize().unwrap();
    let finite = values.iter().filter(|value| value.is_finite());
    let largest = |values: &[f32]| {
        let finite = values.iter().filter(|value| value.is_finite());
        f64::from(finite.fold(0.0f32, |max, value| max.max(value.abs())))
    };
    let block = view.dtype().block_len().max(16);
    let reach: f64 = values.chunks(block).map(|values| largest(values) * block as f64).sum();
    let power: f64 =
        values.chunks(block).map(|values| largest(values).powi(2) * block as f64).sum();
    for threads in [1, 2] {
        let found = kernels.survey(&[*view], threads).unwrap()[0].unwrap();
        let what = format!("{kernels:?} {view:?} {what}: {found:?} for {expected:?}");
        let counts = |one: &Statistics| (one.values, one.zeros, one.nan, one.infinite);
        assert_eq!(counts(&found), counts(&expected), "{what}");
        let same = |a: f32, b: f32| {
            (a - b).abs() == 0.0 || (a.is_infinite() && a.to_bits() == b.to_bits())
        };
        assert!(same(found.min, expected.min) && same(found.max, expected.max), "{what}");
        assert!((found.sum - expected.sum).abs() <= 1e-6 * reach, "{what}");
        assert!((found.squares - expected.squares).abs() <= 1e-6 * power, "{what}");
    }
    assert_eq!(finite.count() as u64, expected.finite());
}

fn stored(dtype: Dtype, rows: usize, cols: usize, values: &[f32]) -> Vec<u8> {
    assert_eq!(values.len(), rows * cols);
    quant::quantize(dtype, cols, values).unwrap()
}

fn view(dtype: Dtype, rows: usize, cols: usize, bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(dtype, Shape::new(&[rows as u64, cols as u64]).unwrap(), bytes).unwrap()
}

/// Values as weights have them: many of them small, of either sign, with some zeros and one outlier.
fn trained(count: usize) -> Vec<f32> {
    let mut words = Words(count as u64 + 11);
    let mut values: Vec<f32> =
        (0..count).map(|_| words.float() * words.float() * words.float() * 0.2).collect();
    values.iter_mut().step_by(13).for_each(|value| *value = 0.0);
    if let Some(value) = values.get_mut(count / 3) {
        *value = -1.75;
    }
    values
}

#[test]
fn statistics_of_weights_are_those_of_the_oracle_at_odd_sizes() {
    for kernels in Kernels::available() {
        for &dtype in COMPUTED {
            for blocks in [1, 2, 3, 5, 15, 16, 17, 33, 64, 131] {
                let cols = blocks * dtype.block_len();
                for rows in [1, 3] {
                    let bytes = stored(dtype, rows, cols, &trained(rows * cols));
                    check(&kernels, &view(dtype, rows, cols, &bytes), "weights");
                }
            }
        }
    }
}

#[test]
fn statistics_hold_for_any_bits_in_blocks_and_scales() {
    for kernels in Kernels::available() {
        for &dtype in COMPUTED.iter().filter(|dtype| !scale_offsets(**dtype).is_empty()) {
            // Zero, subnormal, ordinary and the largest scales; and those that are not finite.
            for scale_bits in [0, 1, 0x03FF, 0x3C00, 0x7BFF, 0x7FFF] {
                for blocks in [1, 7, 40] {
                    let cols = blocks * dtype.block_len();
                    let bytes = weights(dtype, 2, cols, scale_bits);
                    check(&kernels, &view(dtype, 2, cols, &bytes), &format!("{scale_bits:#x}"));
                }
            }
        }
    }
}

#[test]
fn extreme_quants_and_zero_scales_are_counted_right() {
    for kernels in Kernels::available() {
        for &dtype in COMPUTED.iter().filter(|dtype| !scale_offsets(**dtype).is_empty()) {
            for fill in [0x00, 0x11, 0x7F, 0x80, 0x88, 0xFF] {
                let cols = 19 * dtype.block_len();
                let mut bytes = weights(dtype, 1, cols, 0x3C00);
                for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                    let scales = scale_offsets(dtype);
                    for (i, byte) in block.iter_mut().enumerate() {
                        if !scales.iter().any(|&at| i == at || i == at + 1) {
                            *byte = fill;
                        }
                    }
                }
                check(&kernels, &view(dtype, 1, cols, &bytes), &format!("filled {fill:#x}"));
            }
        }
    }
}

#[test]
fn a_group_whose_minimum_is_a_multiple_of_its_step_has_its_zeros_found() {
    // d = dmin = 1: value = scale * quant - minimum, zero wherever the quant is minimum / scale.
    for kernels in Kernels::available() {
        for (dtype, head) in [(Dtype::Q4K, 16), (Dtype::Q5K, 16), (Dtype::Q2K, 84)] {
            let mut words = Words(99);
            let mut bytes = vec![0u8; 64 * dtype.block_bytes()];
            bytes.fill_with(|| words.next() as u8);
            for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                let [d, dmin] = [scale_offsets(dtype)[0], scale_offsets(dtype)[1]];
                block[d..d + 2].copy_from_slice(&0x3C00u16.to_le_bytes());
                block[dmin..dmin + 2].copy_from_slice(&0x3C00u16.to_le_bytes());
                let scales = if head == 16 { 4..16 } else { 0..16 };
                block[scales].iter_mut().for_each(|byte| *byte &= 0x33);
            }
            let view = view(dtype, 1, 64 * SUPER, &bytes);
            assert!(Statistics::of(&view).unwrap().zeros > 500, "{dtype}");
            check(&kernels, &view, "multiples");
        }
    }
}

#[test]
fn a_block_whose_minimum_is_a_multiple_of_its_step_has_its_zeros_found() {
    // d = 1, m = -5 or 3: value = quant + m, zero wherever the quant is 5.
    for kernels in Kernels::available() {
        for dtype in [Dtype::Q4_1, Dtype::Q5_1] {
            let mut words = Words(7);
            let mut bytes = vec![0u8; 77 * dtype.block_bytes()];
            bytes.fill_with(|| words.next() as u8);
            for (i, block) in bytes.chunks_exact_mut(dtype.block_bytes()).enumerate() {
                let minimum: u16 = if i % 3 == 0 { 0xC500 } else { 0x4200 };
                block[..2].copy_from_slice(&0x3C00u16.to_le_bytes());
                block[2..4].copy_from_slice(&minimum.to_le_bytes());
            }
            let view = view(dtype, 1, 77 * 32, &bytes);
            assert!(Statistics::of(&view).unwrap().zeros > 15, "{dtype}");
            check(&kernels, &view, "multiples");
        }
    }
}

#[test]
fn plain_values_are_counted_at_any_length_and_of_any_kind() {
    let kinds = [
        0.0,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-40,
        -1e-30,
        1e-18,
        3e4,
        -1e19,
        f32::MAX,
    ];
    for kernels in Kernels::available() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
            for cols in [1, 7, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 1000] {
                let values = trained(cols);
                check(&kernels, &view(dtype, 1, cols, &stored(dtype, 1, cols, &values)), "weights");
                for kind in kinds {
                    for at in [0, cols / 2, cols - 1] {
                        let mut values = values.clone();
                        values[at] = kind;
                        let bytes = stored(dtype, 1, cols, &values);
                        check(&kernels, &view(dtype, 1, cols, &bytes), &format!("{kind} at {at}"));
                    }
                    let bytes = stored(dtype, 1, cols, &vec![kind; cols]);
                    check(&kernels, &view(dtype, 1, cols, &bytes), &format!("all {kind}"));
                }
            }
        }
    }
}

#[test]
fn only_the_values_of_a_padded_or_flattened_tensor_count() {
    for kernels in Kernels::available() {
        for &dtype in COMPUTED.iter().filter(|dtype| dtype.block_len() > 1) {
            let cols = dtype.block_len() + 9;
            let padded = cols.div_ceil(dtype.block_len()) * dtype.block_len();
            if !dtype.is_flat() {
                let bytes = stored(dtype, 3, padded, &trained(3 * padded));
                check(&kernels, &view(dtype, 3, cols, &bytes), "padded rows");
            }
            let blocks = (5 * cols).div_ceil(dtype.block_len());
            let bytes =
                stored(dtype, 1, blocks * dtype.block_len(), &trained(blocks * dtype.block_len()));
            check(&kernels, &view(dtype, 5, cols, &bytes), "blocks over the flattened tensor");
        }
    }
}

#[test]
fn a_tensor_of_many_spans_gives_the_same_bits_on_any_number_of_threads() {
    for dtype in [Dtype::Q4K, Dtype::Q8_0, Dtype::BF16, Dtype::AprQ8] {
        let one = stored(dtype, 1, 64 * SUPER, &trained(64 * SUPER));
        let repeats = 5 * SPAN_BYTES / 2 / one.len();
        let (bytes, cols) = match dtype {
            Dtype::AprQ8 => (vec![7; 2 * SPAN_BYTES + 5], 2 * SPAN_BYTES + 1),
            _ => (one.repeat(repeats), 64 * SUPER * repeats),
        };
        let view = view(dtype, 1, cols, &bytes);
        let small = trained(SUPER);
        let small = stored(Dtype::F32, 1, SUPER, &small);
        let views = [view, self::view(Dtype::F32, 1, SUPER, &small), view];
        for kernels in Kernels::available() {
            let one = kernels.survey(&views, 1).unwrap();
            assert_eq!(one[0].unwrap().values, cols as u64);
            assert_eq!(one[1].unwrap().values, SUPER as u64);
            assert_eq!(one[0], one[2]);
            for threads in [2, 3, 7] {
                assert_eq!(kernels.survey(&views, threads).unwrap(), one, "{kernels:?} {dtype}");
            }
        }
    }
}

#[test]
fn tensors_that_are_never_computed_with_have_no_statistics_and_empty_ones_have_no_value() {
    for kernels in Kernels::available() {
        for dtype in [Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U8] {
            let bytes = vec![0; 4 * dtype.block_bytes()];
            assert_eq!(kernels.survey(&[view(dtype, 1, 4, &bytes)], 1).unwrap(), [None]);
        }
        for &dtype in COMPUTED {
            let empty = kernels.survey(&[view(dtype, 0, 256, &[])], 1).unwrap();
            assert_eq!(empty, [Some(Statistics::default())], "{dtype}");
        }
    }
}
