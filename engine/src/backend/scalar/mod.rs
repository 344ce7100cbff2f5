//! The oracle: plain loops and f64 accumulators.
//!
//! Every other backend is judged against this one, and this one against recordings of independent
//! implementations. Products share their rows out over the processors and take several tokens at a
//! time; no sum changes by it, and a test holds them against the one-line loops.

mod product;
pub(super) mod rounding;

use super::arithmetic::Arithmetic;
use super::host::{activate, check_dtype, front, front_mut, vector};
use super::kv::{Cached, HostKv, KvLayer};
use super::{Attention, Backend, KvRows, KvShape, Norm, Rope, too_short};
use crate::error::{Code, Error, Result};
use crate::model::config::Activation;
use crate::model::rope::RopeStyle;
use crate::model::slots::Slot;
use crate::probe::Site;
use crate::tensor::Tensor;

/// The scalar backend: exact activations unless it follows the arithmetic of another backend.
#[derive(Clone, Debug, Default)]
pub struct Scalar {
    arithmetic: Arithmetic,
}

impl Scalar {
    /// The oracle that rounds activations as `arithmetic` declares, and sums in double precision.
    pub fn following(arithmetic: &Arithmetic) -> Self {
        Self { arithmetic: arithmetic.in_double() }
    }
}

fn dot<T: Copy + Into<f64>>(a: &[f32], b: &[T]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * b.into()).sum()
}

/// Probabilities of the scores in place.
fn softmax(scores: &mut [f64]) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - max).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Attention over keys and values of any type.
fn attend<T: Copy + Into<f64>>(
    site: Site,
    dst: &mut [f32],
    q: &[f32],
    cached: Cached<'_, T>,
    a: &Attention,
    mut scores: Option<&mut Vec<f32>>,
) -> Result<()> {
    let (head_dim, width) = (a.head_dim, a.kv_heads * a.head_dim);
    let (first, len) = (a.first_row * a.heads * head_dim, a.rows * a.heads * head_dim);
    let q = &front(q, first + len, Some(site))?[first..];
    let dst = &mut front_mut(dst, first + len, Some(site))?[first..];
    let heads = q.chunks_exact(head_dim).zip(dst.chunks_exact_mut(head_dim));
    for (index, (q, dst)) in heads.enumerate() {
        let (row, head) = (index / a.heads, index % a.heads);
        let column = head / (a.heads / a.kv_heads) * head_dim;
        let visible = a.visible(row);
        let at = |position: usize| position * width + column..position * width + column + head_dim;
        let mut weights: Vec<f64> = visible
            .clone()
            .map(|position| dot(q, &cached.keys[at(position)]) * f64::from(a.scale))
            .map(|score| match a.cap.map(f64::from) {
                Some(cap) => cap * (score / cap).tanh(),
                None => score,
            })
            .collect();
        softmax(&mut weights);
        let mut sum = vec![0.0f64; head_dim];
        for (position, weight) in visible.clone().zip(&weights) {
            for (sum, &value) in sum.iter_mut().zip(&cached.values[at(position)]) {
                *sum += weight * value.into();
            }
        }
        for (dst, sum) in dst.iter_mut().zip(&sum) {
            *dst = *sum as f32;
        }
        if let Some(scores) = scores.as_deref_mut() {
            let scores = front_mut(scores, a.rows * a.heads * a.context(), Some(site))?;
            let row = &mut scores[index * a.context()..(index + 1) * a.context()];
            row.fill(0.0);
            for (score, weight) in row[visible].iter_mut().zip(&weights) {
                *score = *weight as f32;
            }
        }
    }
    Ok(())
}

impl Backend for Scalar {
    type Buf = Vec<f32>;
    type Weight = Tensor;
    type Kv = HostKv;

    fn name(&self) -> String {
        "scalar".to_owned()
    }

    fn arithmetic(&self) -> Arithmetic {
        self.arithmetic.clone()
    }

    fn upload(&self, slot: Slot, tensor: &Tensor) -> Result<Tensor> {
        check_dtype(slot, tensor)?;
        Ok(tensor.clone())
    }

    fn alloc(&self, len: usize) -> Result<Vec<f32>> {
        Ok(vec![0.0; len])
    }

    fn kv_alloc(&self, shape: KvShape) -> Result<HostKv> {
        Ok(HostKv::new(shape))
    }

    fn write(&self, dst: &mut Vec<f32>, values: &[f32]) -> Result<()> {
        front_mut(dst, values.len(), None)?.copy_from_slice(values);
        Ok(())
    }

    fn read(&self, src: &Vec<f32>, values: &mut [f32]) -> Result<()> {
        values.copy_from_slice(front(src, values.len(), None)?);
        Ok(())
    }

    fn embed(&self, site: Site, dst: &mut Vec<f32>, table: &Tensor, tokens: &[u32]) -> Result<()> {
        let table = table.view()?;
        let dst = front_mut(dst, tokens.len() * table.cols(), Some(site))?;
        for (row, token) in dst.chunks_exact_mut(table.cols()).zip(tokens) {
            if *token as usize >= table.rows() {
                return Err(Error::new(Code::TokenId)
                    .expected(format_args!("below {}", table.rows()))
                    .found(token));
            }
            table.dequantize_row(*token as usize, row)?;
        }
        Ok(())
    }

    fn rms_norm(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        x: &Vec<f32>,
        gain: &Tensor,
        norm: Norm,
    ) -> Result<()> {
        let gain = vector(gain, norm.width, site)?;
        let x = front(x, (norm.first_row + norm.rows) * norm.width, Some(site))?;
        let dst = front_mut(dst, norm.rows * norm.width, Some(site))?;
        let rows = x.chunks_exact(norm.width).skip(norm.first_row);
        for (x, dst) in rows.zip(dst.chunks_exact_mut(norm.width)) {
            let mean = dot(x, x) / norm.width as f64;
            let scale = 1.0 / (mean + f64::from(norm.eps)).sqrt();
            for ((dst, x), gain) in dst.iter_mut().zip(x).zip(&gain) {
                *dst = (f64::from(*x) * scale * f64::from(*gain)) as f32;
            }
        }
        Ok(())
    }

    fn matmul(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        weight: &Tensor,
        x: &Vec<f32>,
        rows: usize,
    ) -> Result<()> {
        let weight = weight.view()?;
        let x = front(x, rows * weight.cols(), Some(site))?;
        let dst = front_mut(dst, rows * weight.rows(), Some(site))?;
        let rounding = self.arithmetic.product(weight.dtype()).rounding;
        product::matmul(dst, &weight, x, rounding)
    }

    fn add_bias(&self, site: Site, x: &mut Vec<f32>, bias: &Tensor, rows: usize) -> Result<()> {
        let width = bias.shape().elements() as usize;
        let bias = vector(bias, width, site)?;
        for x in front_mut(x, rows * width, Some(site))?.chunks_exact_mut(width) {
            for (x, bias) in x.iter_mut().zip(&bias) {
                *x += bias;
            }
        }
        Ok(())
    }

    fn rope(&self, site: Site, x: &mut Vec<f32>, rope: &Rope<'_>) -> Result<()> {
        let width = rope.heads * rope.head_dim;
        let half = rope.inverse_frequencies.len();
        if 2 * half > rope.head_dim {
            return Err(too_short(Some(site), 2 * half, rope.head_dim));
        }
        let first = rope.first_row * width;
        let x = &mut front_mut(x, first + rope.rows * width, Some(site))?[first..];
        for (row, x) in x.chunks_exact_mut(width).enumerate() {
            let position = (rope.position + row) as f64;
            for head in x.chunks_exact_mut(rope.head_dim) {
                for (pair, frequency) in rope.inverse_frequencies.iter().enumerate() {
                    let (first, second) = match rope.style {
                        RopeStyle::Neox => (pair, pair + half),
                        RopeStyle::Adjacent => (2 * pair, 2 * pair + 1),
                    };
                    let (sin, cos) = (position * f64::from(*frequency)).sin_cos();
                    let (sin, cos) = (sin * f64::from(rope.stretch), cos * f64::from(rope.stretch));
                    let (a, b) = (f64::from(head[first]), f64::from(head[second]));
                    head[first] = (a * cos - b * sin) as f32;
                    head[second] = (a * sin + b * cos) as f32;
                }
            }
        }
        Ok(())
    }

    fn kv_append(&self, kv: &mut HostKv, k: &Vec<f32>, v: &Vec<f32>, rows: KvRows) -> Result<()> {
        kv.append(k, v, rows)
    }

    fn attention(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        q: &Vec<f32>,
        kv: &HostKv,
        attention: &Attention,
        scores: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        match kv.layer(attention.layer, attention.context())? {
            KvLayer::F16(cached) => attend(site, dst, q, cached, attention, scores),
            KvLayer::F32(cached) => attend(site, dst, q, cached, attention, scores),
        }
    }

    fn act_mul(
        &self,
        site: Site,
        gate: &mut Vec<f32>,
        up: &Vec<f32>,
        activation: Activation,
        len: usize,
    ) -> Result<()> {
        let up = front(up, len, Some(site))?;
        for (gate, up) in front_mut(gate, len, Some(site))?.iter_mut().zip(up) {
            *gate = (activate(activation, f64::from(*gate)) * f64::from(*up)) as f32;
        }
        Ok(())
    }

    fn add(&self, site: Site, x: &mut Vec<f32>, y: &Vec<f32>, len: usize) -> Result<()> {
        let y = front(y, len, Some(site))?;
        for (x, y) in front_mut(x, len, Some(site))?.iter_mut().zip(y) {
            *x += y;
        }
        Ok(())
    }
}
