//! Engine faults: a backend decorator that computes one thing wrongly.
//!
//! [`Faulty`] wraps any backend and disturbs exactly the operations its [`EngineFault`] names; everything else
//! passes through. Each fault retells a defect that shipped somewhere.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use apr_engine::backend::simd::{Isa, Simd};
use apr_engine::backend::{Attention, Backend, KvRows, KvShape, Norm, Rope, Scalar};
use apr_engine::model::{
    Activation, Config, Lm, LmOptions, LogitRows, Model, Role, RopeStyle, Slot, Want,
};
use apr_engine::probe::{Op, Probe, Site};
use apr_engine::{Code, Error, Result, Tensor};

use crate::judge::BackendSpec;

/// What a faulty backend does wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EngineFault {
    /// Nothing: the control that every gate must survive.
    Nothing,
    /// Norms subtract the mean first (`LayerNorm` in place of RMSNorm).
    LayerNorm,
    /// Norms use an epsilon of 1e-3.
    RmsEps,
    /// The norm in front of the feed-forward block is skipped.
    FfnNormSkipped,
    /// Biases of the query, key and value projections are dropped.
    QkvBiasDropped,
    /// No rotation at one layer.
    RopeSkipped {
        /// The layer.
        layer: usize,
    },
    /// No rotation once the cache holds positions.
    RopeSkippedInCache,
    /// Keys are rotated twice.
    RopeTwice,
    /// Pairs are taken in the other style.
    RopeStyle,
    /// The base is a hundred times larger than declared.
    RopeTheta,
    /// Positions are one too large once the cache holds positions.
    PositionOffByOne,
    /// Query head `h` reads key-value head `h mod kv_heads`.
    GqaModulo,
    /// Rows see the future.
    CausalMaskOff,
    /// Scores are not scaled by the head dimension.
    ScaleMissing,
    /// Every row attends to itself only.
    AttentionCollapsed,
    /// A decode step stores the keys of the step before.
    StaleKey,
    /// The residual after attention is added twice.
    ResidualDoubled,
    /// The up projection does not take part.
    UpDropped,
    /// The activation is another one than declared.
    ActivationSwapped,
    /// A NaN appears at the down projection of one layer.
    NanAtLayer {
        /// The layer.
        layer: usize,
    },
    /// A block of 32 outputs of one layer's down projection stays zero.
    TileZero {
        /// The layer.
        layer: usize,
    },
    /// Two neighbouring rows of the output projection are exchanged.
    RowSwap,
    /// The query matrix of layer 0 is read column by column.
    ColumnMajor,
    /// The logits are those of the next token id (a permutation keeps every norm).
    LogitsPermuted,
    /// All logits are equal.
    LogitsConstant,
    /// The language-model head uses the rows of the matrix in reverse order.
    HeadReversed,
    /// Results differ a little from call to call.
    Nondeterministic,
    /// The prefill of a second chunk forgets the first.
    ChunkForgotten,
    /// Products are computed sixteen times over.
    Slow,
    /// Every token has the same embedding.
    EmbeddingConstant,
    /// The reported attention probabilities sum to more than one.
    SoftmaxUnnormalised,
    /// Rotation also stretches.
    RopeScaled,
    /// One layer adds nothing to the residual stream.
    LayerSkipped {
        /// The layer.
        layer: usize,
    },
    /// Logits are a hundred times too flat.
    LogitsFlattened,
    /// Logits are a thousand times too steep.
    LogitsOneHot,
    /// Logits are those of another, ever changing, token.
    LogitsScrambled,
    /// The end token wins after the first decode step.
    StopAfterOne,
    /// The end token can never win.
    EndNever,
    /// A reset leaves the cache as it is.
    ResetIgnored,
    /// A prompt beyond the context is cut silently.
    ContextCut,
    /// Several threads lose a tile of a product.
    ThreadsRace,
    /// The portable kernels lose a tile of a product.
    IsaDiffers,
    /// A context that was asked for by size loses a tile of a product.
    AllocationMatters,
}

/// Sets `model` up on the backend of `spec` with `fault` inside.
///
/// # Errors
/// As [`Model::lm_on`]; a backend that cannot be decorated is unavailable.
pub fn faulty_lm(
    fault: EngineFault,
    model: &Model,
    spec: &BackendSpec,
    options: LmOptions,
) -> Result<Box<dyn Lm>> {
    let end = model.generation().eos.clone();
    let fault = in_effect(fault, spec, &options);
    let lm: Box<dyn Lm> = match spec.backend.as_str() {
        "scalar" => Box::new(model.lm_with(Faulty::new(Scalar, fault, end), options)?),
        "simd" => {
            let isa = match &spec.isa {
                Some(name) => Some(
                    Isa::from_name(name)
                        .ok_or_else(|| Error::new(Code::IsaUnavailable).found(name))?,
                ),
                None => None,
            };
            let threads = spec.threads.unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            });
            let backend = Simd::new(isa, threads)?;
            Box::new(model.lm_with(Faulty::new(backend, fault, end), options)?)
        }
        other => return Err(Error::new(Code::DeviceUnavailable).found(other)),
    };
    Ok(Box::new(FaultyLm { inner: lm, fault }))
}

/// The defect that shows itself under `spec` and `options`: some need threads, an instruction set or an allocation.
fn in_effect(fault: EngineFault, spec: &BackendSpec, options: &LmOptions) -> EngineFault {
    let shows = match fault {
        EngineFault::ThreadsRace => spec.threads.is_some_and(|threads| threads > 1),
        EngineFault::IsaDiffers => spec.isa.as_deref() == Some(Isa::Portable.name()),
        EngineFault::AllocationMatters => options.context.is_some(),
        _ => return fault,
    };
    if shows { EngineFault::TileZero { layer: 0 } } else { EngineFault::Nothing }
}

/// A running model whose bookkeeping has a defect.
struct FaultyLm {
    inner: Box<dyn Lm>,
    fault: EngineFault,
}

impl Lm for FaultyLm {
    fn config(&self) -> &Config {
        self.inner.config()
    }

    fn backend_name(&self) -> String {
        self.inner.backend_name()
    }

    fn context(&self) -> usize {
        self.inner.context()
    }

    fn position(&self) -> usize {
        self.inner.position()
    }

    fn truncate(&mut self, len: usize) {
        // The oldest half stays: a cache that was never emptied.
        let kept =
            if self.fault == EngineFault::ResetIgnored { self.inner.position() / 2 } else { 0 };
        self.inner.truncate(len.max(kept));
    }

    fn forward(
        &mut self,
        tokens: &[u32],
        want: Want,
        probe: &mut dyn Probe,
    ) -> Result<LogitRows<'_>> {
        let room = self.inner.context() - self.inner.position();
        if self.fault == EngineFault::ContextCut && tokens.len() > room {
            return self.inner.forward(&tokens[tokens.len() - room..], want, probe);
        }
        self.inner.forward(tokens, want, probe)
    }
}

/// A backend with one defect.
#[derive(Debug)]
pub struct Faulty<B> {
    inner: B,
    fault: EngineFault,
    /// Counts calls, for [`EngineFault::Nondeterministic`].
    calls: AtomicU32,
    /// Layer to its newest key row, for [`EngineFault::StaleKey`].
    last_keys: Mutex<BTreeMap<usize, Vec<f32>>>,
    /// Ids that end generation.
    end: Vec<u32>,
    /// Whether the cache held positions when the last keys were rotated.
    decoding: AtomicBool,
    /// Values per key row, learnt from the rotation in front of the append.
    key_width: AtomicUsize,
}

impl<B: Backend> Faulty<B> {
    /// Wraps `inner`; `end` are the ids that end generation.
    pub fn new(inner: B, fault: EngineFault, end: Vec<u32>) -> Self {
        Self {
            inner,
            fault,
            end,
            decoding: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            last_keys: Mutex::default(),
            key_width: AtomicUsize::new(0),
        }
    }

    /// Reads `len` values, changes them, writes them back.
    fn edit(&self, buf: &mut B::Buf, len: usize, edit: impl FnOnce(&mut [f32])) -> Result<()> {
        let mut values = vec![0.0; len];
        self.inner.read(buf, &mut values)?;
        edit(&mut values);
        self.inner.write(buf, &values)
    }

    /// A copy of the first `len` values of `buf`, changed.
    fn edited(&self, buf: &B::Buf, len: usize, edit: impl FnOnce(&mut [f32])) -> Result<B::Buf> {
        let mut copy = self.inner.alloc(len)?;
        let mut values = vec![0.0; len];
        self.inner.read(buf, &mut values)?;
        edit(&mut values);
        self.inner.write(&mut copy, &values)?;
        Ok(copy)
    }

    /// Spoils a finished product.
    fn spoil_product(&self, site: Site, dst: &mut B::Buf, out: usize, rows: usize) -> Result<()> {
        let len = out * rows;
        let at = |layer: usize, op: Op| site == Site::layer(layer, op);
        match self.fault {
            EngineFault::NanAtLayer { layer } if at(layer, Op::Down) => {
                self.edit(dst, len, |values| values[0] = f32::NAN)
            }
            EngineFault::TileZero { layer } if at(layer, Op::Down) => {
                self.edit(dst, len, |values| {
                    for row in values.chunks_exact_mut(out) {
                        row[..out.min(32)].fill(0.0);
                    }
                })
            }
            EngineFault::RowSwap if site.op == Op::OProj => self.edit(dst, len, |values| {
                for row in values.chunks_exact_mut(out) {
                    row.swap(0, 1);
                }
            }),
            _ if site.op == Op::Logits => self.spoil_logits(dst, out, rows),
            EngineFault::Nondeterministic if site.op == Op::OProj => {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                self.edit(dst, len, |values| values[0] += 1e-3 * (call % 7) as f32)
            }
            _ => Ok(()),
        }
    }
}

impl<B: Backend> Faulty<B> {
    /// Spoils finished logits, row by row.
    fn spoil_logits(&self, dst: &mut B::Buf, vocab: usize, rows: usize) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) as usize;
        let decoding = self.decoding.load(Ordering::Relaxed);
        let end = |row: &mut [f32], value: f32| {
            for &id in &self.end {
                if let Some(logit) = row.get_mut(id as usize) {
                    *logit = value;
                }
            }
        };
        let spoil: &dyn Fn(&mut [f32]) = match self.fault {
            EngineFault::LogitsPermuted => &|row| row.rotate_left(1),
            EngineFault::LogitsConstant => &|row| row.fill(1.0),
            EngineFault::HeadReversed => &|row| row.reverse(),
            EngineFault::LogitsFlattened => &|row| row.iter_mut().for_each(|value| *value *= 0.01),
            EngineFault::LogitsOneHot => &|row| row.iter_mut().for_each(|value| *value *= 1e3),
            EngineFault::LogitsScrambled => &|row| row.rotate_left((call * 37 + 11) % vocab),
            EngineFault::StopAfterOne if decoding => &|row| end(row, 1e6),
            EngineFault::EndNever => &|row| end(row, -1e6),
            _ => return Ok(()),
        };
        self.edit(dst, vocab * rows, |values| values.chunks_exact_mut(vocab).for_each(spoil))
    }
}

/// The tensor with its rows and columns exchanged but its shape kept: what a column-major kernel sees.
fn column_major(tensor: &Tensor) -> Result<Tensor> {
    let view = tensor.view()?;
    let (rows, cols) = (view.rows(), view.cols());
    let values = view.dequantize()?;
    let mut seen = Vec::with_capacity(values.len());
    for index in 0..values.len() {
        seen.push(values[(index % rows) * cols + index / rows]);
    }
    Tensor::from_f32(tensor.shape(), &seen)
}

/// Moves the heads of each row: head `h` of the result is head `order[h]` of `values`.
fn reorder_heads(values: &mut [f32], head_dim: usize, order: &[usize]) {
    for row in values.chunks_exact_mut(head_dim * order.len()) {
        let before = row.to_vec();
        for (to, &from) in order.iter().enumerate() {
            row[to * head_dim..(to + 1) * head_dim]
                .copy_from_slice(&before[from * head_dim..(from + 1) * head_dim]);
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    type Buf = B::Buf;
    type Weight = (B::Weight, usize);
    type Kv = B::Kv;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn upload(&self, slot: Slot, tensor: &Tensor) -> Result<Self::Weight> {
        let out = tensor.shape().rows() as usize;
        let weight = if self.fault == EngineFault::ColumnMajor && slot == Slot::layer(0, Role::Q) {
            self.inner.upload(slot, &column_major(tensor)?)?
        } else {
            self.inner.upload(slot, tensor)?
        };
        Ok((weight, out))
    }

    fn alloc(&self, len: usize) -> Result<Self::Buf> {
        self.inner.alloc(len)
    }

    fn kv_alloc(&self, shape: KvShape) -> Result<Self::Kv> {
        self.inner.kv_alloc(shape)
    }

    fn write(&self, dst: &mut Self::Buf, values: &[f32]) -> Result<()> {
        self.inner.write(dst, values)
    }

    fn read(&self, src: &Self::Buf, values: &mut [f32]) -> Result<()> {
        self.inner.read(src, values)
    }

    fn embed(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        table: &Self::Weight,
        tokens: &[u32],
    ) -> Result<()> {
        if self.fault == EngineFault::EmbeddingConstant {
            return self.inner.embed(site, dst, &table.0, &vec![0; tokens.len()]);
        }
        self.inner.embed(site, dst, &table.0, tokens)
    }

    fn rms_norm(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        x: &Self::Buf,
        gain: &Self::Weight,
        norm: Norm,
    ) -> Result<()> {
        let span = (norm.first_row + norm.rows) * norm.width;
        match self.fault {
            EngineFault::LayerNorm => {
                let centred = self.edited(x, span, |values| {
                    for row in values.chunks_exact_mut(norm.width) {
                        let mean = row.iter().sum::<f32>() / norm.width as f32;
                        for value in row {
                            *value -= mean;
                        }
                    }
                })?;
                self.inner.rms_norm(site, dst, &centred, &gain.0, norm)
            }
            EngineFault::RmsEps => {
                self.inner.rms_norm(site, dst, x, &gain.0, Norm { eps: 1e-3, ..norm })
            }
            EngineFault::FfnNormSkipped if site.op == Op::FfnNorm => {
                let mut values = vec![0.0; span];
                self.inner.read(x, &mut values)?;
                self.inner.write(dst, &values[norm.first_row * norm.width..])
            }
            _ => self.inner.rms_norm(site, dst, x, &gain.0, norm),
        }
    }

    fn matmul(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        weight: &Self::Weight,
        x: &Self::Buf,
        rows: usize,
    ) -> Result<()> {
        let repeats = if self.fault == EngineFault::Slow { 16 } else { 1 };
        for _ in 0..repeats {
            self.inner.matmul(site, dst, &weight.0, x, rows)?;
        }
        self.spoil_product(site, dst, weight.1, rows)
    }

    fn add_bias(
        &self,
        site: Site,
        x: &mut Self::Buf,
        bias: &Self::Weight,
        rows: usize,
    ) -> Result<()> {
        if self.fault == EngineFault::QkvBiasDropped && matches!(site.op, Op::Q | Op::K | Op::V) {
            return Ok(());
        }
        self.inner.add_bias(site, x, &bias.0, rows)
    }

    fn rope(&self, site: Site, x: &mut Self::Buf, rope: &Rope<'_>) -> Result<()> {
        let cached = rope.position > 0;
        if site.op == Op::RopeK {
            self.key_width.store(rope.heads * rope.head_dim, Ordering::Relaxed);
            self.decoding.store(cached, Ordering::Relaxed);
        }
        match self.fault {
            EngineFault::RopeSkipped { layer } if site.layer == Some(layer) => Ok(()),
            EngineFault::RopeSkippedInCache if cached => Ok(()),
            EngineFault::RopeTwice if site.op == Op::RopeK => {
                self.inner.rope(site, x, rope)?;
                self.inner.rope(site, x, rope)
            }
            EngineFault::RopeStyle => {
                let style = match rope.style {
                    RopeStyle::Neox => RopeStyle::Adjacent,
                    RopeStyle::Adjacent => RopeStyle::Neox,
                };
                self.inner.rope(site, x, &Rope { style, ..*rope })
            }
            EngineFault::RopeTheta => {
                let pairs = rope.inverse_frequencies.len() as f32;
                let slower: Vec<f32> = rope
                    .inverse_frequencies
                    .iter()
                    .enumerate()
                    .map(|(pair, frequency)| frequency * 100f32.powf(-(pair as f32) / pairs))
                    .collect();
                self.inner.rope(site, x, &Rope { inverse_frequencies: &slower, ..*rope })
            }
            EngineFault::RopeScaled => {
                self.inner.rope(site, x, rope)?;
                let len = rope.rows * rope.heads * rope.head_dim;
                self.edit(x, len, |values| values.iter_mut().for_each(|value| *value *= 1.01))
            }
            EngineFault::PositionOffByOne if cached && site.op == Op::RopeQ => {
                self.inner.rope(site, x, &Rope { position: rope.position + 1, ..*rope })
            }
            _ => self.inner.rope(site, x, rope),
        }
    }

    fn kv_append(
        &self,
        kv: &mut Self::Kv,
        k: &Self::Buf,
        v: &Self::Buf,
        rows: KvRows,
    ) -> Result<()> {
        if self.fault != EngineFault::StaleKey {
            return self.inner.kv_append(kv, k, v, rows);
        }
        let width = self.key_width.load(Ordering::Relaxed);
        let mut keys = vec![0.0; width * rows.rows];
        self.inner.read(k, &mut keys)?;
        let newest = keys.split_off(width * (rows.rows - 1));
        let before = self
            .last_keys
            .lock()
            .map_err(|_| Error::new(Code::BackendShape))?
            .insert(rows.layer, newest);
        match before {
            Some(stale) if rows.rows == 1 && rows.position > 0 => {
                let mut buf = self.inner.alloc(width)?;
                self.inner.write(&mut buf, &stale)?;
                self.inner.kv_append(kv, &buf, v, rows)
            }
            _ => self.inner.kv_append(kv, k, v, rows),
        }
    }

    fn attention(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        q: &Self::Buf,
        kv: &Self::Kv,
        attention: &Attention,
        scores: Option<&mut Self::Buf>,
    ) -> Result<()> {
        let attention = *attention;
        match self.fault {
            EngineFault::CausalMaskOff => {
                let open = Attention { causal: false, ..attention };
                self.inner.attention(site, dst, q, kv, &open, scores)
            }
            EngineFault::ScaleMissing => {
                let unscaled = Attention { scale: 1.0, ..attention };
                self.inner.attention(site, dst, q, kv, &unscaled, scores)
            }
            EngineFault::AttentionCollapsed => {
                let own = Attention { window: Some(1), ..attention };
                self.inner.attention(site, dst, q, kv, &own, scores)
            }
            EngineFault::SoftmaxUnnormalised => match scores {
                Some(scores) => {
                    self.inner.attention(site, dst, q, kv, &attention, Some(&mut *scores))?;
                    let len = attention.rows * attention.heads * attention.context();
                    self.edit(scores, len, |values| {
                        for value in values {
                            *value *= 1.1;
                        }
                    })
                }
                None => self.inner.attention(site, dst, q, kv, &attention, None),
            },
            EngineFault::ChunkForgotten if attention.position > 0 && attention.rows > 1 => {
                let recent = Attention { window: Some(attention.rows), ..attention };
                self.inner.attention(site, dst, q, kv, &recent, scores)
            }
            EngineFault::GqaModulo if attention.kv_heads > 1 => {
                let group = attention.heads / attention.kv_heads;
                let slot =
                    |head: usize| (head % attention.kv_heads) * group + head / attention.kv_heads;
                let mut into = vec![0; attention.heads];
                for head in 0..attention.heads {
                    into[slot(head)] = head;
                }
                let back: Vec<usize> = (0..attention.heads).map(slot).collect();
                let len = attention.rows * attention.heads * attention.head_dim;
                let q = self.edited(q, len, |values| {
                    reorder_heads(values, attention.head_dim, &into);
                })?;
                self.inner.attention(site, dst, &q, kv, &attention, scores)?;
                self.edit(dst, len, |values| reorder_heads(values, attention.head_dim, &back))
            }
            _ => self.inner.attention(site, dst, q, kv, &attention, scores),
        }
    }

    fn act_mul(
        &self,
        site: Site,
        gate: &mut Self::Buf,
        up: &Self::Buf,
        activation: Activation,
        len: usize,
    ) -> Result<()> {
        match self.fault {
            EngineFault::UpDropped => {
                let ones = self.edited(up, len, |values| values.fill(1.0))?;
                self.inner.act_mul(site, gate, &ones, activation, len)
            }
            EngineFault::ActivationSwapped => {
                // ReLU in place of SiLU: gate values are cut before the inner activation sees them.
                self.edit(gate, len, |values| {
                    for value in values {
                        *value = value.max(0.0);
                    }
                })?;
                self.inner.act_mul(site, gate, up, activation, len)
            }
            _ => self.inner.act_mul(site, gate, up, activation, len),
        }
    }

    fn add(&self, site: Site, x: &mut Self::Buf, y: &Self::Buf, len: usize) -> Result<()> {
        if matches!(self.fault, EngineFault::LayerSkipped { layer } if site.layer == Some(layer)) {
            return Ok(());
        }
        self.inner.add(site, x, y, len)?;
        if self.fault == EngineFault::ResidualDoubled && site.op == Op::AttnResidual {
            self.inner.add(site, x, y, len)?;
        }
        Ok(())
    }
}
