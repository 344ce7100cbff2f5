//! The operations a device offers to the forward pass.
//!
//! [`Backend`] is a small set of destination-first operations over f32 activations; nothing but
//! [`Backend::alloc`] and [`Backend::kv_alloc`] allocates device memory. Every operation says where in
//! the forward pass it stands ([`Site`]), so that a decorator can observe or disturb exactly one of
//! them. Fused operations are default methods made of the required ones: a backend may override them,
//! and the result must stay the same.
//!
//! A backend knows tensors and numbers. It must not know files, model families or tokens' meanings.

pub mod arithmetic;
pub mod cuda;
pub mod device;
pub mod host;
pub mod kv;
pub mod scalar;
pub mod simd;

use std::fmt;

use crate::error::{Code, Error, Place, Result};
use crate::model::config::Activation;
use crate::model::rope::RopeStyle;
use crate::model::slots::Slot;
use crate::probe::Site;
use crate::tensor::Tensor;

pub use arithmetic::Arithmetic;
pub use device::{Device, DeviceReport, Unavailable};
pub use kv::CacheType;
pub use scalar::Scalar;
pub use simd::Simd;

/// Geometry of a key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Layers.
    pub layers: usize,
    /// Values per position and layer, of keys and of values each: `kv_heads * head_dim`.
    pub width: usize,
    /// Most positions.
    pub capacity: usize,
    /// What keys and values are stored as.
    pub cache_type: CacheType,
}

/// A key-value cache on a device.
pub trait KvCache: Send + Sync {
    /// Bytes of the keys and values stored.
    fn bytes(&self) -> usize;
}

/// Parameters of a root-mean-square norm: `x / sqrt(mean(x^2) + eps) * gain`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// First row of the input; the output begins at row 0.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// Values per row.
    pub width: usize,
    /// Epsilon.
    pub eps: f32,
}

/// Parameters of a rotary position embedding over `[rows, heads, head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope<'a> {
    /// Pairing.
    pub style: RopeStyle,
    /// Radians per position of each pair; twice its length is the number of rotated values per head.
    pub inverse_frequencies: &'a [f32],
    /// Factor on the rotated values.
    pub stretch: f32,
    /// First row that is rotated.
    pub first_row: usize,
    /// Position of the first row.
    pub position: usize,
    /// Rows.
    pub rows: usize,
    /// Heads.
    pub heads: usize,
    /// Values per head.
    pub head_dim: usize,
}

/// Where rows enter a key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvRows {
    /// Layer.
    pub layer: usize,
    /// First row of the operands that enters.
    pub first_row: usize,
    /// Position of the first row. Positions from here on that were stored before are forgotten.
    pub position: usize,
    /// Rows.
    pub rows: usize,
}

/// Parameters of attention of `rows` queries over the cached positions `0..position + rows`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Layer of the cache.
    pub layer: usize,
    /// First row of the queries and of the destination.
    pub first_row: usize,
    /// Position of the first row.
    pub position: usize,
    /// Rows.
    pub rows: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Factor on the scores before softmax.
    pub scale: f32,
    /// Whether a row sees only positions up to its own.
    pub causal: bool,
    /// A row sees only this many last positions, its own included.
    pub window: Option<usize>,
    /// Scaled scores are bent by `cap * tanh(score / cap)` before softmax.
    pub cap: Option<f32>,
}

impl Attention {
    /// Cached positions when the last row has been appended.
    pub fn context(&self) -> usize {
        self.position + self.rows
    }

    /// Positions that the row `row` rows behind the first sees.
    pub fn visible(&self, row: usize) -> std::ops::Range<usize> {
        let own = self.position + row;
        let end = if self.causal { own + 1 } else { self.context() };
        let start = self.window.map_or(0, |window| (own + 1).saturating_sub(window));
        start..end
    }
}

/// One of several products of the same input: `dst = x * weight^T (+ bias)`.
pub struct Projection<'a, B: Backend + ?Sized> {
    /// Site of the result.
    pub site: Site,
    /// `[rows, out]`.
    pub dst: &'a mut B::Buf,
    /// `[out, in]`.
    pub weight: &'a B::Weight,
    /// `[out]`.
    pub bias: Option<&'a B::Weight>,
}

impl<B: Backend + ?Sized> fmt::Debug for Projection<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").field("site", &self.site).finish_non_exhaustive()
    }
}

/// Operations of a device.
///
/// Buffers may be longer than an operation needs: it works on the front. Operands that are too short
/// are [`Code::BackendShape`].
pub trait Backend: Send + Sync {
    /// f32 activations on the device.
    type Buf: Send + Sync;
    /// A resident weight in its stored dtype.
    type Weight: Send + Sync;
    /// A key-value cache.
    type Kv: KvCache;

    /// Name for reports, with what distinguishes instances: `scalar`, `simd-avx2`.
    fn name(&self) -> String;

    /// What this backend rounds in its products, so that the oracle can do the same.
    fn arithmetic(&self) -> Arithmetic;

    /// Makes a weight resident.
    ///
    /// # Errors
    /// [`Code::WeightDtype`] when the backend cannot compute with its dtype.
    fn upload(&self, slot: Slot, tensor: &Tensor) -> Result<Self::Weight>;

    /// A buffer of `len` zeros.
    fn alloc(&self, len: usize) -> Result<Self::Buf>;

    /// An empty cache.
    fn kv_alloc(&self, shape: KvShape) -> Result<Self::Kv>;

    /// Copies `values` to the front of `dst`.
    fn write(&self, dst: &mut Self::Buf, values: &[f32]) -> Result<()>;

    /// Copies the front of `src` to `values`.
    fn read(&self, src: &Self::Buf, values: &mut [f32]) -> Result<()>;

    /// `dst[r] = table[tokens[r]]`.
    ///
    /// # Errors
    /// [`Code::TokenId`] for an id outside the table.
    fn embed(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        table: &Self::Weight,
        tokens: &[u32],
    ) -> Result<()>;

    /// Root-mean-square norm of each row, times `gain`.
    fn rms_norm(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        x: &Self::Buf,
        gain: &Self::Weight,
        norm: Norm,
    ) -> Result<()>;

    /// `dst[rows, out] = x[rows, in] * weight[out, in]^T`.
    fn matmul(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        weight: &Self::Weight,
        x: &Self::Buf,
        rows: usize,
    ) -> Result<()>;

    /// Adds `bias` to each of `rows` rows of `x`.
    fn add_bias(
        &self,
        site: Site,
        x: &mut Self::Buf,
        bias: &Self::Weight,
        rows: usize,
    ) -> Result<()>;

    /// Rotates each head of each row of `x` in place.
    fn rope(&self, site: Site, x: &mut Self::Buf, rope: &Rope<'_>) -> Result<()>;

    /// Stores rows of rotated keys and of values, rounded to the type of the cache.
    ///
    /// # Errors
    /// [`Code::CacheRange`] for a finite value outside the range of that type.
    fn kv_append(
        &self,
        kv: &mut Self::Kv,
        k: &Self::Buf,
        v: &Self::Buf,
        rows: KvRows,
    ) -> Result<()>;

    /// Softmax attention: `dst[rows, heads, head_dim]`. `scores`, when wanted, receives the
    /// probabilities `[rows, heads, context]`, zero where masked, from its front on.
    fn attention(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        q: &Self::Buf,
        kv: &Self::Kv,
        attention: &Attention,
        scores: Option<&mut Self::Buf>,
    ) -> Result<()>;

    /// Fused: attention over several caches, each by its own rows; rows ascend. An override can share all of them out
    /// at once.
    fn attention_of_each(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        q: &Self::Buf,
        caches: &[(&Self::Kv, Attention)],
    ) -> Result<()> {
        caches
            .iter()
            .try_for_each(|(kv, attention)| self.attention(site, dst, q, kv, attention, None))
    }

    /// `gate[i] = activation(gate[i]) * up[i]` for the first `len` values.
    fn act_mul(
        &self,
        site: Site,
        gate: &mut Self::Buf,
        up: &Self::Buf,
        activation: Activation,
        len: usize,
    ) -> Result<()>;

    /// `x[i] += y[i]` for the first `len` values.
    fn add(&self, site: Site, x: &mut Self::Buf, y: &Self::Buf, len: usize) -> Result<()>;

    /// Fused: several products of one input, each with its bias. An override can prepare `x` once.
    fn project(&self, jobs: &mut [Projection<'_, Self>], x: &Self::Buf, rows: usize) -> Result<()> {
        for job in jobs {
            self.matmul(job.site, job.dst, job.weight, x, rows)?;
            if let Some(bias) = job.bias {
                self.add_bias(job.site, job.dst, bias, rows)?;
            }
        }
        Ok(())
    }

    /// `x[i] *= factor` for the first `len` values.
    fn scale(&self, site: Site, x: &mut Self::Buf, factor: f32, len: usize) -> Result<()> {
        let _ = site;
        let mut values = vec![0.0; len];
        self.read(x, &mut values)?;
        for value in &mut values {
            *value *= factor;
        }
        self.write(x, &values)
    }

    /// `x[i] = cap * tanh(x[i] / cap)` for the first `len` values.
    fn soft_cap(&self, site: Site, x: &mut Self::Buf, cap: f32, len: usize) -> Result<()> {
        let _ = site;
        let mut values = vec![0.0; len];
        self.read(x, &mut values)?;
        let cap = f64::from(cap);
        for value in &mut values {
            *value = (cap * (f64::from(*value) / cap).tanh()) as f32;
        }
        self.write(x, &values)
    }

    /// Index of the first NaN or infinity among the first `len` values.
    fn first_non_finite(&self, x: &Self::Buf, len: usize) -> Result<Option<usize>> {
        let mut values = vec![0.0; len];
        self.read(x, &mut values)?;
        Ok(values.iter().position(|value| !value.is_finite()))
    }
}

/// The error of an operation whose operand is too short.
pub(crate) fn too_short(site: Option<Site>, needed: usize, found: usize) -> Error {
    let error = Error::new(Code::BackendShape)
        .expected(format_args!("at least {needed} values"))
        .found(found);
    match site {
        Some(site) => error.place(Place::Site(site.to_string())),
        None => error,
    }
}
