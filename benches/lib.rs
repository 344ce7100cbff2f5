//! What several benches share; the benches live beside this file, see README.md.

pub mod counts;

use apr_engine::Dtype;

/// Every dtype that products have kernels for.
pub const DTYPES: &[Dtype] = &[
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
    Dtype::F16,
    Dtype::BF16,
    Dtype::F32,
];

/// A smooth, seedless stand-in for weights and activations.
pub fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i as f32) * 0.7).sin() + 0.3 * ((i as f32) * 0.013).cos()).collect()
}
