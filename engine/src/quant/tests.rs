//! One suite over all block types: properties, round-trip bounds, and the recorded oracles.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

/// Every packed dtype with the bound on its round-trip error over normal values: RMS of the difference
/// over RMS of the values. The grids that span the
/// extremes of 32 values with equal steps cost 4.25 % in `Q5_0` and 0.53 % in `Q8_0`, whoever packs them.
const PACKED: &[(Dtype, f64)] = &[
    (Dtype::Q4_0, 0.09),
    (Dtype::Q4_1, 0.09),
    (Dtype::Q5_0, 0.045),
    (Dtype::Q5_1, 0.04),
    (Dtype::Q8_0, 0.0055),
    (Dtype::Q2K, 0.35),
    (Dtype::Q3K, 0.18),
    (Dtype::Q4K, 0.09),
    (Dtype::Q5K, 0.04),
    (Dtype::Q6K, 0.02),
    (Dtype::Q8K, 0.007),
    (Dtype::AprQ4, 0.12),
    (Dtype::AprQ8, 0.012),
];

fn decode(dtype: Dtype, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    if dtype.is_flat() {
        dequantize_flat(dtype, bytes, 0, &mut out).unwrap();
    } else {
        dequantize_row(dtype, bytes, &mut out).unwrap();
    }
    out
}

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    quantize_row(dtype, values, &mut out).unwrap();
    out
}

/// Standard normal values from a fixed sequence.
fn normal(len: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    };
    (0..len)
        .map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos())
        .collect()
}

/// The grid of `Q8_0` costs 0.54 % of normal values, whoever packs them; values without tails stay below 0.5 %.
#[test]
fn eight_bits_lose_less_than_half_a_percent_of_a_wave() {
    let values: Vec<f32> = (0..4096).map(|place| 0.1 + 2.0 * (place as f32).cos()).collect();
    let back = decode(Dtype::Q8_0, &encode(Dtype::Q8_0, &values), values.len());
    let square = |value: f32| f64::from(value) * f64::from(value);
    let error: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
    let total: f64 = values.iter().map(|value| square(*value)).sum();
    assert!((error / total).sqrt() <= 5e-3, "{}", (error / total).sqrt());
}

#[test]
fn normal_values_survive_a_round_trip_within_the_bound_of_their_dtype() {
    let values = normal(64 * SUPER);
    for &(dtype, bound) in PACKED {
        let decoded = decode(dtype, &encode(dtype, &values), values.len());
        let square = |x: f64| x * x;
        let error: f64 =
            values.iter().zip(&decoded).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
        let power: f64 = values.iter().map(|&a| square(f64::from(a))).sum();
        let relative = (error / power).sqrt();
        assert!(relative <= bound, "{dtype}: {relative} > {bound}");
        assert!(relative > 0.0, "{dtype}: no rounding at all");
    }
}

#[test]
fn a_ragged_row_is_refused_and_leaves_the_output_alone() {
    for &(dtype, _) in PACKED.iter().filter(|(dtype, _)| !dtype.is_flat()) {
        let mut out = vec![7];
        let error = quantize_row(dtype, &[1.0; 33], &mut out).unwrap_err();
        assert_eq!(error.code(), Code::TensorRagged, "{dtype}");
        assert_eq!(out, [7]);
    }
}

#[test]
fn a_value_that_is_not_finite_is_refused_with_its_index() {
    for &(dtype, _) in PACKED {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; SUPER];
            values[41] = bad;
            let error = quantize_row(dtype, &values, &mut Vec::new()).unwrap_err();
            assert_eq!(error.code(), Code::NonFinite, "{dtype}");
            assert!(error.found_text().contains("41"), "{error}");
        }
    }
}

#[test]
fn bytes_that_end_early_are_refused() {
    for &(dtype, _) in PACKED {
        let values = [1.0; SUPER];
        let bytes = encode(dtype, &values);
        let mut out = [0.0; SUPER];
        let short = &bytes[..bytes.len() - 1];
        let error = if dtype.is_flat() {
            dequantize_flat(dtype, short, 0, &mut out).unwrap_err()
        } else {
            dequantize_row(dtype, short, &mut out).unwrap_err()
        };
        assert_eq!(error.code(), Code::TensorBytes, "{dtype}");
    }
}

#[test]
fn a_padded_row_gives_its_values_and_drops_the_padding() {
    let mut values = normal(SUPER);
    values[70..].fill(0.0);
    for &(dtype, _) in PACKED.iter().filter(|(dtype, _)| !dtype.is_flat()) {
        let bytes = encode(dtype, &values);
        assert_eq!(decode(dtype, &bytes, 70), decode(dtype, &bytes, SUPER)[..70], "{dtype}");
    }
}

#[test]
fn flat_dtypes_read_the_same_values_from_any_start() {
    let values = normal(301);
    for dtype in [Dtype::AprQ4, Dtype::AprQ8] {
        let bytes = encode(dtype, &values);
        let all = decode(dtype, &bytes, 301);
        for start in [0, 1, 31, 32, 33, 64, 300, 301] {
            for len in [0, 1, 5, 40] {
                let len = len.min(301 - start);
                let mut part = vec![0.0; len];
                dequantize_flat(dtype, &bytes, start, &mut part).unwrap();
                assert_eq!(part, all[start..start + len], "{dtype} from {start}");
            }
        }
        let mut beyond = [0.0; 40];
        let error = dequantize_flat(dtype, &bytes, 301, &mut beyond).unwrap_err();
        assert_eq!(error.code(), Code::TensorBytes);
        let error = dequantize_flat(dtype, &bytes, usize::MAX, &mut beyond).unwrap_err();
        assert_eq!(error.code(), Code::TensorBytes);
    }
    assert_eq!(encode(Dtype::AprQ4, &values).len(), 301usize.div_ceil(32) * 18);
    assert_eq!(encode(Dtype::AprQ8, &values).len(), 301 + 4);
    assert!(encode(Dtype::AprQ8, &[]).is_empty());
}

#[test]
fn an_apr_q4_scale_that_is_no_normal_number_reads_as_zero() {
    for bits in [0x7E00u16, 0x7C00, 0xFC00, 0x0001, 0x83FF, 0x0000] {
        let mut bytes = encode(Dtype::AprQ4, &[1.0; 32]);
        bytes[..2].copy_from_slice(&bits.to_le_bytes());
        assert!(decode(Dtype::AprQ4, &bytes, 32).iter().all(|&value| value == 0.0), "{bits:#x}");
    }
    let mut bytes = encode(Dtype::AprQ4, &[1.0; 32]);
    bytes[..2].copy_from_slice(&0x0400u16.to_le_bytes());
    let smallest_normal = 1.0 / 16384.0;
    assert!(
        decode(Dtype::AprQ4, &bytes, 32)
            .iter()
            .all(|value| value.to_bits() == (7.0f32 * smallest_normal).to_bits())
    );
}

#[test]
fn a_nan_scale_reads_as_nan() {
    let mut bytes = encode(Dtype::Q8_0, &[1.0; 32]);
    bytes[..2].copy_from_slice(&0x7E00u16.to_le_bytes());
    assert!(decode(Dtype::Q8_0, &bytes, 32).iter().all(|value| value.is_nan()));
}

#[test]
fn a_matrix_is_quantised_row_by_row() {
    let values = normal(3 * 64);
    let matrix = quantize(Dtype::Q5_0, 64, &values).unwrap();
    let rows: Vec<u8> = values.chunks(64).flat_map(|row| encode(Dtype::Q5_0, row)).collect();
    assert_eq!(matrix, rows);
    assert_eq!(quantize(Dtype::Q5_0, 48, &values).unwrap_err().code(), Code::TensorRagged);
    assert_eq!(quantize(Dtype::Q5_0, 63, &values).unwrap_err().code(), Code::TensorShape);
    assert_eq!(quantize(Dtype::F16, 0, &values).unwrap_err().code(), Code::TensorShape);
    assert!(quantize(Dtype::Q5_0, 64, &[]).unwrap().is_empty());
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        4 => -1.0f32..1.0,
        1 => Just(0.0f32),
        1 => -1e4f32..1e4,
        1 => any::<f32>().prop_filter("finite", |x| x.is_finite()),
    ];
    proptest::collection::vec(value, SUPER)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_finite_row_packs_into_the_bytes_its_dtype_promises(values in row()) {
        for &(dtype, _) in PACKED {
            let bytes = encode(dtype, &values);
            let extra = if dtype == Dtype::AprQ8 { 4 } else { 0 };
            prop_assert_eq!(
                bytes.len(), SUPER / dtype.block_len() * dtype.block_bytes() + extra, "{}", dtype
            );
            prop_assert_eq!(decode(dtype, &bytes, SUPER).len(), SUPER);
        }
    }

    #[test]
    fn any_bytes_are_blocks(bytes in proptest::collection::vec(any::<u8>(), 292)) {
        for &(dtype, _) in PACKED.iter().filter(|(dtype, _)| !dtype.is_flat()) {
            let len = bytes.len() / dtype.block_bytes() * dtype.block_len();
            let values = decode(dtype, &bytes, len);
            // Reading must not depend on where the bytes happen to lie in memory.
            let mut shifted = vec![0];
            shifted.extend_from_slice(&bytes);
            let again = decode(dtype, &shifted[1..], len);
            prop_assert!(values.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

fn oracle(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/oracle/quant");
    fixtures.join(format!("{name}.safetensors"))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&raw| f32::from_le_bytes(raw)).collect()
}

/// Dtypes that the recorded oracles cover, with their file names.
const JUDGED: &[(Dtype, &str)] = &[
    (Dtype::F16, "f16"),
    (Dtype::BF16, "bf16"),
    (Dtype::Q4_0, "q4_0"),
    (Dtype::Q4_1, "q4_1"),
    (Dtype::Q5_0, "q5_0"),
    (Dtype::Q5_1, "q5_1"),
    (Dtype::Q8_0, "q8_0"),
    (Dtype::Q2K, "q2_k"),
    (Dtype::Q3K, "q3_k"),
    (Dtype::Q4K, "q4_k"),
    (Dtype::Q5K, "q5_k"),
    (Dtype::Q6K, "q6_k"),
    (Dtype::Q8K, "q8_k"),
];

#[test]
fn dequantisation_is_bit_equal_to_the_gguf_package() {
    for &(dtype, name) in JUDGED {
        let file = std::fs::read(oracle(name)).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let blocks = tensors.tensor("dequant.blocks").unwrap();
        let expected = floats(tensors.tensor("dequant.expected").unwrap().data());
        let found = decode(dtype, blocks.data(), expected.len());
        assert!(expected.len() >= 64 * dtype.block_len(), "{dtype}: an empty oracle");
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{dtype}: value {index}");
        }
    }
}

#[test]
fn quantisation_is_bit_equal_to_the_reference_quantisers() {
    let mut wrong = Vec::new();
    for &(dtype, name) in JUDGED {
        let file = std::fs::read(oracle(name)).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let input = floats(tensors.tensor("quant.input").unwrap().data());
        let expected = tensors.tensor("quant.expected").unwrap();
        let kinds = tensors.tensor("quant.kind").unwrap();
        assert!(input.len() >= 59 * dtype.block_len(), "{dtype}: an empty oracle");
        for (index, (values, expected)) in input
            .chunks_exact(dtype.block_len())
            .zip(expected.data().chunks_exact(dtype.block_bytes()))
            .enumerate()
        {
            if encode(dtype, values) != expected {
                wrong.push((dtype, index, kinds.data()[index]));
            }
        }
    }
    assert!(wrong.is_empty(), "(dtype, row, kind) {wrong:?}");
}
