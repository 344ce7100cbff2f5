//! The fast CPU backend: the operations of the oracle over vector kernels and threads.
//!
//! Weights stay in their stored dtype. Results do not depend on the number of threads.

mod activations;
mod attention;
#[cfg(test)]
mod attention_tests;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
pub mod kernels;
mod parts;
mod peak;
mod pool;
mod portable;
mod product;
mod statistics;
#[cfg(test)]
mod tests;

use super::arithmetic::Arithmetic;
use super::host::{check_dtype, front, front_mut};
use super::kv::{HostKv, KvLayer};
use super::{Attention, Backend, KvRows, KvShape, Norm, Projection, Rope, too_short};
use crate::error::{Code, Error, Result};
use crate::model::config::Activation;
use crate::model::slots::Slot;
use crate::probe::Site;
use crate::tensor::Tensor;

use pool::Pool;

pub use activations::Activations;
use kernels::QUERIES;
pub use kernels::{Isa, Kernels};
pub use peak::Multiplied;

/// The fast CPU backend.
#[derive(Debug)]
pub struct Simd {
    kernels: Kernels,
    pool: Pool,
}

/// A resident weight.
#[derive(Clone, Debug)]
pub struct SimdWeight {
    tensor: Tensor,
    /// The values of a vector (norm gain, bias); empty for a matrix.
    vector: Vec<f32>,
}

impl SimdWeight {
    /// The values of a vector of `len`.
    fn vector(&self, len: usize, site: Site) -> Result<&[f32]> {
        if self.vector.len() == len {
            return Ok(&self.vector);
        }
        Err(too_short(Some(site), len, self.vector.len()))
    }
}

impl Simd {
    /// A backend of `threads` threads with the kernels of `isa`, or the fastest available ones.
    ///
    /// # Errors
    /// [`Code::IsaUnavailable`], [`Code::DeviceUnavailable`] for a number of threads out of range.
    pub fn new(isa: Option<Isa>, threads: usize) -> Result<Self> {
        let kernels = match isa {
            Some(isa) => Kernels::for_isa(isa)?,
            None => Kernels::best(),
        };
        Ok(Self { kernels, pool: Pool::new(threads)? })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.count()
    }

    /// Shares the rows of `dst` out: `task(row, values)`.
    fn each_row(
        &self,
        dst: &mut [f32],
        width: usize,
        work_per_row: usize,
        task: impl Fn(usize, &mut [f32]) + Send + Sync,
    ) -> Result<()> {
        let rows = dst.len() / width;
        let items: Vec<_> = dst.chunks_exact_mut(width).enumerate().collect();
        self.pool.each(items, rows * work_per_row, |(row, values)| {
            task(row, values);
            Ok(())
        })
    }

    /// Attention over each of `caches`, shared out together. Probabilities of the first go to `scores`, unless that is
    /// empty.
    fn attend(
        &self,
        site: Site,
        dst: &mut [f32],
        q: &[f32],
        caches: &[(&HostKv, Attention)],
        scores: &mut [f32],
    ) -> Result<()> {
        let mut work = 0;
        let mut groups = Vec::new();
        let mut dst = Rest { values: dst, taken: 0 };
        let mut scores = Some(scores).filter(|scores| !scores.is_empty());
        for (kv, a) in caches {
            let width = a.heads * a.head_dim;
            let (first, len) = (a.first_row * width, a.rows * width);
            let q = &front(q, first + len, Some(site))?[first..];
            let dst = dst.take(first, len, site)?;
            let cached = kv.layer(a.layer, a.context())?;
            let scores = scores.take().unwrap_or_default();
            work += 2 * len * a.context();
            for queries in attention::by_key(a, q, dst, scores) {
                groups.push((queries, cached, a));
            }
        }
        let items = groups.iter_mut().flat_map(|(queries, cached, a)| {
            let tile = self.pool.tile(queries.len()).next_multiple_of(QUERIES);
            let (cached, a) = (*cached, *a);
            queries.chunks_mut(tile).map(move |queries| (queries, cached, a))
        });
        let kernels = &self.kernels;
        self.pool.each(items.collect(), work, |(queries, cached, a)| {
            match cached {
                KvLayer::F16(cached) => {
                    attention::attend(kernels, &kernels.f16_cache, queries, &cached, a);
                }
                KvLayer::F32(cached) => {
                    attention::attend(kernels, &kernels.f32_cache, queries, &cached, a);
                }
            }
            Ok(())
        })
    }
}

/// What is left of a destination that is handed out from its front on.
struct Rest<'a> {
    values: &'a mut [f32],
    /// Values in front of it.
    taken: usize,
}

impl<'a> Rest<'a> {
    /// The `len` values from `first` on, which must not have been passed yet.
    fn take(&mut self, first: usize, len: usize, site: Site) -> Result<&'a mut [f32]> {
        let values = std::mem::take(&mut self.values);
        let end = self.taken + values.len();
        let Some(skipped) = first.checked_sub(self.taken).filter(|_| first + len <= end) else {
            return Err(too_short(Some(site), first + len, end));
        };
        let (values, rest) = values[skipped..].split_at_mut(len);
        (self.values, self.taken) = (rest, first + len);
        Ok(values)
    }
}

impl Backend for Simd {
    type Buf = Vec<f32>;
    type Weight = SimdWeight;
    type Kv = HostKv;

    fn name(&self) -> String {
        format!("simd-{}", self.kernels.isa())
    }

    fn arithmetic(&self) -> Arithmetic {
        activations::arithmetic()
    }

    fn upload(&self, slot: Slot, tensor: &Tensor) -> Result<SimdWeight> {
        check_dtype(slot, tensor)?;
        let vector =
            if tensor.shape().rank() == 1 { tensor.view()?.dequantize()? } else { Vec::new() };
        Ok(SimdWeight { tensor: tensor.clone(), vector })
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

    fn embed(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        table: &SimdWeight,
        tokens: &[u32],
    ) -> Result<()> {
        let table = table.tensor.view()?;
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
        gain: &SimdWeight,
        norm: Norm,
    ) -> Result<()> {
        let gain = gain.vector(norm.width, site)?;
        let first = norm.first_row * norm.width;
        let len = norm.rows * norm.width;
        let x = &front(x, first + len, Some(site))?[first..];
        let dst = front_mut(dst, len, Some(site))?;
        // Every value is read twice and written once, which takes longer than its two products.
        self.each_row(dst, norm.width, 4 * norm.width, |row, dst| {
            let x = &x[row * norm.width..(row + 1) * norm.width];
            elementwise::rms_norm(&self.kernels, dst, x, gain, norm.eps);
        })
    }

    fn matmul(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        weight: &SimdWeight,
        x: &Vec<f32>,
        rows: usize,
    ) -> Result<()> {
        self.project(&mut [Projection { site, dst, weight, bias: None }], x, rows)
    }

    fn add_bias(&self, site: Site, x: &mut Vec<f32>, bias: &SimdWeight, rows: usize) -> Result<()> {
        let width = bias.vector.len();
        let bias = bias.vector(width, site)?;
        let x = front_mut(x, rows * width, Some(site))?;
        self.each_row(x, width, width, |_, x| elementwise::add(x, bias))
    }

    fn rope(&self, site: Site, x: &mut Vec<f32>, rope: &Rope<'_>) -> Result<()> {
        if 2 * rope.inverse_frequencies.len() > rope.head_dim {
            let rotated = 2 * rope.inverse_frequencies.len();
            return Err(too_short(Some(site), rotated, rope.head_dim));
        }
        let width = rope.heads * rope.head_dim;
        let first = rope.first_row * width;
        let x = &mut front_mut(x, first + rope.rows * width, Some(site))?[first..];
        // A sine with its cosine takes some 20 ns, in which even a slow kernel does sixty multiply-adds.
        let work = 4 * width + 60 * rope.inverse_frequencies.len();
        self.each_row(x, width, work, |row, x| elementwise::rope(x, row, rope))
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
        let scores = match scores {
            Some(scores) => {
                let len = attention.rows * attention.heads * attention.context();
                front_mut(scores, len, Some(site))?
            }
            None => &mut [],
        };
        self.attend(site, dst, q, &[(kv, *attention)], scores)
    }

    fn attention_of_each(
        &self,
        site: Site,
        dst: &mut Vec<f32>,
        q: &Vec<f32>,
        caches: &[(&HostKv, Attention)],
    ) -> Result<()> {
        self.attend(site, dst, q, caches, &mut [])
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
        let gate = front_mut(gate, len, Some(site))?;
        let tile = self.pool.tile(len);
        let items: Vec<_> = gate.chunks_mut(tile).zip(up.chunks(tile)).collect();
        // An exponential costs about as much as sixteen multiply-adds.
        self.pool.each(items, 16 * len, |(gate, up)| {
            elementwise::act_mul(&self.kernels, gate, up, activation);
            Ok(())
        })
    }

    fn add(&self, site: Site, x: &mut Vec<f32>, y: &Vec<f32>, len: usize) -> Result<()> {
        let (x, y) = (front_mut(x, len, Some(site))?, front(y, len, Some(site))?);
        let tile = self.pool.tile(len);
        let items: Vec<_> = x.chunks_mut(tile).zip(y.chunks(tile)).collect();
        // Bound by memory, as a norm is.
        self.pool.each(items, 4 * len, |(x, y)| {
            elementwise::add(x, y);
            Ok(())
        })
    }

    fn project(&self, jobs: &mut [Projection<'_, Self>], x: &Vec<f32>, rows: usize) -> Result<()> {
        product::project(&self.kernels, &self.pool, jobs, x, rows)
    }

    fn scale(&self, site: Site, x: &mut Vec<f32>, factor: f32, len: usize) -> Result<()> {
        front_mut(x, len, Some(site))?.iter_mut().for_each(|value| *value *= factor);
        Ok(())
    }

    fn soft_cap(&self, site: Site, x: &mut Vec<f32>, cap: f32, len: usize) -> Result<()> {
        elementwise::soft_cap(front_mut(x, len, Some(site))?, cap);
        Ok(())
    }

    fn first_non_finite(&self, x: &Vec<f32>, len: usize) -> Result<Option<usize>> {
        let x = front(x, len, None)?;
        Ok(elementwise::first_non_finite(x))
    }
}
