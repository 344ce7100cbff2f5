//! Every kernel of every available instruction set against a naive f64 product.

use std::sync::Arc;

use super::activations::{Activations, Q8, Q8Super};
use super::kernels::{Isa, Kernels};
use super::{Simd, pool};
use crate::backend::{Attention, Backend, CacheType, KvRows, KvShape, Norm, Rope};
use crate::dtype::Dtype;
use crate::error::Code;
use crate::model::config::Activation;
use crate::model::rope::RopeStyle;
use crate::model::slots::{Role, Slot};
use crate::probe::{Op, Site};
use crate::quant::SUPER;
use crate::tensor::{Bytes, Shape, Tensor, TensorView};

pub(super) const PACKED: &[Dtype] = &[
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
];

/// Byte offsets of the f16 fields in a block.
pub(super) fn scale_offsets(dtype: Dtype) -> &'static [usize] {
    match dtype {
        Dtype::Q4_0 | Dtype::Q5_0 | Dtype::Q8_0 => &[0],
        Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4K | Dtype::Q5K => &[0, 2],
        Dtype::Q2K => &[80, 82],
        Dtype::Q3K => &[108],
        Dtype::Q6K => &[208],
        _ => &[],
    }
}

/// A fixed sequence of random words (xorshift64*).
pub(super) struct Words(pub(super) u64);

impl Words {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Random quants and scales of either sign; a f16 of at most `scale_bits` (sign aside).
pub(super) fn weights(dtype: Dtype, rows: usize, cols: usize, scale_bits: u16) -> Vec<u8> {
    let mut words = Words(cols as u64 + 1);
    let mut bytes = vec![0u8; rows * cols.div_ceil(dtype.block_len()) * dtype.block_bytes()];
    bytes.fill_with(|| words.next() as u8);
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &offset in scale_offsets(dtype) {
            let word = words.next() as u16;
            let bits = ((word & 0x7FFF) % (scale_bits + 1)) | (word & 0x8000);
            block[offset..offset + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    bytes
}

pub(super) fn activations(rows: usize, cols: usize) -> Vec<f32> {
    let mut words = Words(0x5EED + cols as u64);
    (0..rows * cols).map(|_| words.float() * 3.0).collect()
}

/// The activations as the kernels see them: rounded for packed weights, unchanged for plain ones.
fn seen(acts: &Activations<'_>) -> Vec<f32> {
    let unpack = |quants: &[i8], scales: &[f32], per_scale: usize, per_row: usize| -> Vec<f32> {
        quants
            .chunks_exact(per_row)
            .zip(scales.chunks_exact(per_row / per_scale))
            .flat_map(|(quants, scales)| {
                let values = quants.iter().enumerate();
                values.map(|(i, &q)| f32::from(q) * scales[i / per_scale]).take(acts.cols())
            })
            .collect()
    };
    if let Some(Q8 { blocks, quants, scales, .. }) = &acts.q8 {
        unpack(quants.as_flattened(), scales, 32, 32 * blocks)
    } else if let Some(Q8Super { blocks, quants, scales, .. }) = &acts.q8_super {
        unpack(quants.as_flattened(), scales, SUPER, SUPER * blocks)
    } else {
        acts.values.to_vec()
    }
}

/// Compares one product with the f64 sum over the values both sides stand for. The bound is that of
/// rounding in f32: a few units in the last place of the sum of magnitudes, where a block counts with
/// its largest weight because kernels sum quants and offsets apart.
fn check(kernels: &Kernels, dtype: Dtype, rows: usize, cols: usize, n: usize, bytes: &[u8]) {
    let values = activations(n, cols);
    let shape = Shape::new(&[rows as u64, cols as u64]).unwrap();
    let view = TensorView::new(dtype, shape, bytes).unwrap();
    let acts = kernels.activations(&values, cols, &[dtype]).unwrap();
    let seen = seen(&acts);
    let mut out = vec![f32::NAN; rows * n];
    kernels.product(&view, 0..rows, &acts, &mut out).unwrap();
    let mut row = vec![0.0; cols];
    for w in 0..rows {
        view.dequantize_row(w, &mut row).unwrap();
        for t in 0..n {
            let x = &seen[t * cols..(t + 1) * cols];
            let products = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let expected: f64 = products.sum();
            let magnitude: f64 = row
                .chunks(dtype.block_len().max(8))
                .zip(x.chunks(dtype.block_len().max(8)))
                .map(|(w, x)| {
                    let largest = w.iter().fold(0.0f32, |max, w| max.max(w.abs()));
                    f64::from(largest) * x.iter().map(|x| f64::from(x.abs())).sum::<f64>()
                })
                .sum();
            let found = f64::from(out[t * rows + w]);
            let error = (found - expected).abs();
            assert!(
                error <= 1e-6 * magnitude,
                "{kernels:?} {dtype} [{rows}, {cols}] row {w} token {t}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn packed_products_match_the_naive_sum_at_odd_block_counts() {
    for kernels in Kernels::available() {
        for &dtype in PACKED {
            for blocks in [1, 2, 3, 5, 8, 9, 17] {
                for (rows, n) in [(1, 1), (3, 1), (5, 2), (2, 7)] {
                    let cols = blocks * dtype.block_len();
                    check(&kernels, dtype, rows, cols, n, &weights(dtype, rows, cols, 0x3C00));
                }
            }
        }
    }
}

#[test]
fn packed_products_match_at_extreme_scales() {
    for kernels in Kernels::available() {
        for &dtype in PACKED {
            // Subnormal scales alone, and everything up to the largest f16.
            for scale_bits in [0, 1, 0x03FF, 0x7BFF] {
                let cols = 3 * dtype.block_len();
                check(&kernels, dtype, 2, cols, 2, &weights(dtype, 2, cols, scale_bits));
            }
        }
    }
}

#[test]
fn extreme_quants_do_not_saturate() {
    for kernels in Kernels::available() {
        for &dtype in PACKED {
            for fill in [0x00, 0x7F, 0x80, 0xFF] {
                let cols = 2 * SUPER;
                let mut bytes = weights(dtype, 1, cols, 0x3C00);
                for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
                    let scales = scale_offsets(dtype);
                    for (i, byte) in block.iter_mut().enumerate() {
                        if !scales.iter().any(|&at| i == at || i == at + 1) {
                            *byte = fill;
                        }
                    }
                }
                let shape = Shape::new(&[1, cols as u64]).unwrap();
                let view = TensorView::new(dtype, shape, &bytes).unwrap();
                let row = view.dequantize().unwrap();
                for sign in [1.0, -1.0] {
                    let x = vec![sign; cols];
                    let acts = kernels.activations(&x, cols, &[dtype]).unwrap();
                    let mut out = [0.0];
                    kernels.product(&view, 0..1, &acts, &mut out).unwrap();
                    let expected: f64 = row.iter().map(|&w| f64::from(w * sign)).sum();
                    let magnitude: f64 = row.iter().map(|&w| f64::from(w.abs())).sum();
                    let error = (f64::from(out[0]) - expected).abs();
                    assert!(error <= 1e-5 * magnitude, "{kernels:?} {dtype} filled {fill:#x}");
                }
            }
        }
    }
}

#[test]
fn plain_products_match_the_naive_sum_at_any_length() {
    for kernels in Kernels::available() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for cols in [1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100, 255, 257] {
                let mut words = Words(cols as u64);
                let mut bytes = Vec::new();
                let values: Vec<f32> = (0..3 * cols).map(|_| words.float()).collect();
                crate::quant::quantize_row(dtype, &values, &mut bytes).unwrap();
                check(&kernels, dtype, 3, cols, 2, &bytes);
            }
        }
    }
}

#[test]
fn dtypes_without_a_kernel_are_widened_row_by_row() {
    for kernels in Kernels::available() {
        for dtype in [Dtype::AprQ4, Dtype::AprQ8, Dtype::Q8K, Dtype::F64] {
            let cols = if dtype == Dtype::Q8K { SUPER } else { 45 };
            let values = activations(3, cols);
            let bytes = crate::quant::quantize(dtype, cols, &values).unwrap();
            check(&kernels, dtype, 3, cols, 2, &bytes);
        }
    }
}

#[test]
fn a_padded_row_counts_its_values_only() {
    for kernels in Kernels::available() {
        for dtype in [Dtype::Q4K, Dtype::Q6K, Dtype::Q5_0] {
            let cols = dtype.block_len() + 9;
            check(&kernels, dtype, 2, cols, 2, &weights(dtype, 2, cols, 0x3C00));
        }
    }
}

#[test]
fn rounded_activations_are_the_same_on_every_instruction_set() {
    let portable = Kernels::for_isa(Isa::Portable).unwrap();
    let mut values = activations(3, 3 * SUPER);
    values[..40].fill(0.0);
    values[300] = 1e30;
    values[301] = -1e-40;
    values[600] = 0.5;
    let dtypes = [Dtype::Q4_0, Dtype::Q4K];
    let expected = portable.activations(&values, 3 * SUPER, &dtypes).unwrap();
    for kernels in Kernels::available() {
        let found = kernels.activations(&values, 3 * SUPER, &dtypes).unwrap();
        let (a, b) = (found.q8.as_ref().unwrap(), expected.q8.as_ref().unwrap());
        assert_eq!((&a.quants, &a.scales, &a.sums), (&b.quants, &b.scales, &b.sums));
        let (a, b) = (found.q8_super.as_ref().unwrap(), expected.q8_super.as_ref().unwrap());
        assert_eq!((&a.quants, &a.scales, &a.sums), (&b.quants, &b.scales, &b.sums));
    }
}

#[test]
fn rounding_an_activation_errs_by_at_most_half_a_step() {
    for kernels in Kernels::available() {
        for dtype in [Dtype::Q8_0, Dtype::Q4K] {
            let values = activations(2, SUPER);
            let acts = kernels.activations(&values, SUPER, &[dtype]).unwrap();
            for (&value, seen) in values.iter().zip(seen(&acts)) {
                assert!((value - seen).abs() <= 0.5001 * 3.0 / 127.0, "{value} became {seen}");
            }
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_never_rounded_away() {
    for kernels in Kernels::available() {
        for &dtype in PACKED {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let cols = 2 * SUPER;
                let bytes = weights(dtype, 1, cols, 0x3C00);
                let mut x = activations(1, cols);
                x[77] = bad;
                let shape = Shape::new(&[1, cols as u64]).unwrap();
                let view = TensorView::new(dtype, shape, &bytes).unwrap();
                let acts = kernels.activations(&x, cols, &[dtype]).unwrap();
                let mut out = [0.0];
                kernels.product(&view, 0..1, &acts, &mut out).unwrap();
                assert!(!out[0].is_finite(), "{kernels:?} {dtype}: {bad} gave {}", out[0]);
            }
        }
    }
}

#[test]
fn a_row_of_zeros_gives_zero() {
    for kernels in Kernels::available() {
        for &dtype in PACKED {
            let bytes = weights(dtype, 3, SUPER, 0x3C00);
            let shape = Shape::new(&[3, SUPER as u64]).unwrap();
            let view = TensorView::new(dtype, shape, &bytes).unwrap();
            let x = [0.0; SUPER];
            let acts = kernels.activations(&x, SUPER, &[dtype]).unwrap();
            let mut out = [1.0; 3];
            kernels.product(&view, 0..3, &acts, &mut out).unwrap();
            assert!(out.iter().all(|value| value.abs() == 0.0), "{kernels:?} {dtype}: {out:?}");
        }
    }
}

/// Whether `n` activation rows by `rows` weight rows of `blocks` give the bits of one by one.
fn check_one_by_one(kernels: &Kernels, dtype: Dtype, rows: usize, n: usize, blocks: usize) {
    // Plain rows of a length that no vector divides.
    let plain = dtype.block_len() == 1;
    let cols = if plain { blocks * 37 } else { blocks * dtype.block_len() };
    let mut bytes = weights(dtype, rows, cols, 0x3C00);
    if plain {
        bytes.clear();
        crate::quant::quantize_row(dtype, &activations(rows, cols), &mut bytes).unwrap();
    }
    let shape = Shape::new(&[rows as u64, cols as u64]).unwrap();
    let view = TensorView::new(dtype, shape, &bytes).unwrap();
    let x = activations(n, cols);
    let acts = kernels.activations(&x, cols, &[dtype]).unwrap();
    let mut all = vec![f32::NAN; rows * n];
    kernels.product(&view, 0..rows, &acts, &mut all).unwrap();
    for (t, one) in x.chunks_exact(cols).enumerate() {
        let acts = kernels.activations(one, cols, &[dtype]).unwrap();
        for w in 0..rows {
            let mut out = [f32::NAN];
            kernels.product(&view, w..w + 1, &acts, &mut out).unwrap();
            let (one, many) = (out[0].to_bits(), all[t * rows + w].to_bits());
            assert_eq!(one, many, "{kernels:?} {dtype} x {blocks}: row {w} token {t}");
        }
    }
}

#[test]
fn an_output_does_not_depend_on_the_rows_computed_with_it() {
    for kernels in Kernels::available() {
        for &dtype in PACKED.iter().chain(&[Dtype::F32, Dtype::F16, Dtype::BF16]) {
            for (rows, n, blocks) in
                [(1, 3, 1), (9, 6, 2), (16, 4, 5), (17, 5, 3), (33, 7, 4), (2, 13, 7), (5, 2, 15)]
            {
                check_one_by_one(&kernels, dtype, rows, n, blocks);
            }
        }
    }
}

/// A product, an attention and a gate of a single row, all large enough to be shared out.
#[test]
fn one_row_has_the_same_bits_on_any_number_of_threads() {
    let (outputs, inputs, context) = (701, 1024, 700);
    let words = weights(Dtype::Q8_0, outputs, inputs, 0x3C00);
    let shape = Shape::new(&[outputs as u64, inputs as u64]).unwrap();
    let weight = Tensor::new(Dtype::Q8_0, shape, Bytes::new(Arc::new(words))).unwrap();
    let (site, x) = (Site::model(Op::Logits), activations(1, 40_000));
    let shape = KvShape { layers: 1, width: 512, capacity: context, cache_type: CacheType::F16 };
    let sight = Attention {
        layer: 0,
        first_row: 0,
        position: context - 1,
        rows: 1,
        heads: 16,
        kv_heads: 8,
        head_dim: 64,
        scale: 0.125,
        causal: true,
        window: None,
        cap: None,
    };
    let least = [outputs * inputs, 2 * 1024 * context, 16 * x.len()].into_iter().min();
    assert!(least >= Some(pool::WORK_MIN), "nothing would be shared out");
    let run = |threads| {
        let simd = Simd::new(None, threads).unwrap();
        let (mut product, mut mixed, mut gate) = (vec![0.0; outputs], vec![0.0; 1024], x.clone());
        let weight = simd.upload(Slot::model(Role::Head), &weight).unwrap();
        simd.matmul(site, &mut product, &weight, &x[..inputs].to_vec(), 1).unwrap();
        let mut kv = simd.kv_alloc(shape).unwrap();
        let rows = KvRows { layer: 0, first_row: 0, position: 0, rows: context };
        let keys = activations(context, shape.width);
        simd.kv_append(&mut kv, &keys, &keys, rows).unwrap();
        simd.attention(site, &mut mixed, &x[..1024].to_vec(), &kv, &sight, None).unwrap();
        simd.act_mul(site, &mut gate, &x, Activation::Silu, x.len()).unwrap();
        [product, mixed, gate]
            .map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let one = run(1);
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

/// A norm, a rotation and a sum of many rows, all large enough to be shared out.
#[test]
fn many_rows_have_the_same_bits_on_any_number_of_threads() {
    let (rows, width) = (600, 256);
    let gain = activations(1, width);
    let bytes = gain.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let shape = Shape::new(&[width as u64]).unwrap();
    let gain = Tensor::new(Dtype::F32, shape, Bytes::new(Arc::new(bytes))).unwrap();
    let (site, x) = (Site::model(Op::FinalNorm), activations(rows, width));
    assert!(4 * x.len() >= pool::WORK_MIN, "nothing would be shared out");
    let frequencies: Vec<f32> = (0..16).map(|i| 0.7f32.powi(i)).collect();
    let rope = Rope {
        style: RopeStyle::Neox,
        inverse_frequencies: &frequencies,
        stretch: 1.0,
        first_row: 0,
        position: 3,
        rows,
        heads: 8,
        head_dim: 32,
    };
    let run = |threads| {
        let simd = Simd::new(None, threads).unwrap();
        let gain = simd.upload(Slot::model(Role::FinalNorm), &gain).unwrap();
        let (mut normed, mut turned, mut sum) = (x.clone(), x.clone(), x.clone());
        let norm = Norm { first_row: 0, rows, width, eps: 1e-6 };
        simd.rms_norm(site, &mut normed, &x, &gain, norm).unwrap();
        simd.rope(site, &mut turned, &rope).unwrap();
        simd.add(site, &mut sum, &normed, x.len()).unwrap();
        [normed, turned, sum].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
    };
    let one = run(1);
    let [normed, turned, sum] = &one;
    let x = x.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert!(*normed != x && *turned != x && *sum != x, "something was left as it was");
    for threads in [2, 3, 5] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn exponentials_are_exact_to_a_few_units_and_keep_what_is_not_a_number() {
    for kernels in Kernels::available() {
        let inputs: Vec<f32> = (-1747..1770).map(|i| i as f32 * 0.05).collect();
        let mut found = inputs.clone();
        (kernels.exp_from)(&mut found, 0.25);
        for (x, found) in inputs.iter().zip(&found) {
            let expected = f64::from(x - 0.25).exp();
            // Below the normal numbers a result may be zero.
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= 3e-7 * expected + 2e-38, "{kernels:?}: exp({x}) = {found}");
        }
        let mut odd = [f32::NAN, f32::NEG_INFINITY, -1e30, 0.0];
        (kernels.exp_from)(&mut odd, 0.0);
        assert!(odd[0].is_nan() && odd[1..] == [0.0, 0.0, 1.0], "{kernels:?}: {odd:?}");
    }
}

#[test]
fn a_gate_times_its_sigmoid_is_exact_to_a_few_units_at_any_length() {
    for kernels in Kernels::available() {
        for len in [0, 1, 7, 8, 9, 250] {
            let gates: Vec<f32> = (0..len).map(|i| i as f32 - 125.0).collect();
            let ups = activations(1, len);
            let mut found = gates.clone();
            (kernels.silu_mul)(&mut found, &ups);
            for ((gate, up), found) in gates.iter().zip(&ups).zip(&found) {
                let gate = f64::from(*gate);
                let expected = gate / (1.0 + (-gate).exp()) * f64::from(*up);
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 4e-7 * expected.abs() + 4e-36, "{kernels:?}: {gate} {found}");
            }
        }
        let mut bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        (kernels.silu_mul)(&mut bad, &[1.0; 3]);
        assert!(bad[0].is_nan() && !bad[1].is_finite(), "{kernels:?}: {bad:?}");
    }
}

#[test]
fn operands_of_the_wrong_size_are_refused() {
    let kernels = Kernels::best();
    let x = activations(2, SUPER);
    let bytes = weights(Dtype::Q4K, 3, SUPER, 0x3C00);
    let shape = Shape::new(&[3, SUPER as u64]).unwrap();
    let view = TensorView::new(Dtype::Q4K, shape, &bytes).unwrap();
    let acts = kernels.activations(&x, SUPER, &[Dtype::Q4K]).unwrap();
    let code = |result: crate::Result<()>| result.unwrap_err().code();
    let mut out = [0.0; 6];
    assert_eq!(code(kernels.product(&view, 0..3, &acts, &mut out[..5])), Code::BackendShape);
    assert_eq!(code(kernels.product(&view, 2..4, &acts, &mut out[..4])), Code::BackendShape);
    let unprepared = kernels.activations(&x, SUPER, &[Dtype::Q8_0]).unwrap();
    assert_eq!(code(kernels.product(&view, 0..3, &unprepared, &mut out)), Code::BackendShape);
    let narrow = kernels.activations(&x, SUPER / 2, &[Dtype::Q4K]).unwrap();
    assert_eq!(code(kernels.product(&view, 0..1, &narrow, &mut out[..4])), Code::BackendShape);
    assert!(kernels.activations(&x[1..], SUPER, &[]).is_err());
    assert!(kernels.activations(&x, 0, &[]).is_err());
}

#[test]
fn the_portable_table_is_always_there_and_every_isa_has_its_name() {
    assert_eq!(Kernels::available()[0].isa(), Isa::Portable);
    assert_eq!(Kernels::best().isa(), Kernels::available().pop().unwrap().isa());
    for &isa in Isa::ALL {
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
        match Kernels::for_isa(isa) {
            Ok(kernels) => assert!(isa.is_available() && kernels.isa() == isa),
            Err(error) => assert!(!isa.is_available() && error.code() == Code::IsaUnavailable),
        }
    }
}
