//! A backend decorator that computes one thing wrongly.
//!
//! [`Faulty`] wraps any backend and disturbs exactly the operations its [`EngineFault`] names; everything else
//! passes through.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use apr_engine::backend::{Arithmetic, Attention, Backend, CacheType, KvRows, KvShape, Norm, Rope};
use apr_engine::model::{Activation, Role, RopeStyle, Slot};
use apr_engine::probe::{Op, Site};
use apr_engine::{Code, Error, Result, Tensor};

use super::EngineFault;
use super::spoil::{column_major, less_one, misdeclared, reorder_heads, spoil_cached};

/// How often [`EngineFault::ObservedSlow`] computes attention.
const OBSERVED_REPEATS: usize = 256;

/// A backend with one defect.
#[derive(Debug)]
pub struct Faulty<B> {
    pub(super) inner: B,
    fault: EngineFault,
    /// The one layer that has the defect; all of them when `None`.
    layer: Option<usize>,
    /// Counts calls, for [`EngineFault::Nondeterministic`].
    pub(super) calls: AtomicU32,
    /// Layer to its newest key row, for [`EngineFault::StaleKey`].
    last_keys: Mutex<BTreeMap<usize, Vec<f32>>>,
    /// Ids that end generation.
    pub(super) end: Vec<u32>,
    /// Whether the cache held positions when the last keys were rotated.
    pub(super) decoding: AtomicBool,
    /// Position of row 0 when it was rotated last, for [`EngineFault::PositionsShared`].
    first_position: AtomicUsize,
    /// Values per key row, learnt from the rotation in front of the append.
    key_width: AtomicUsize,
    /// What the last feed-forward block was given, for [`EngineFault::FeedForwardBypassed`].
    pub(super) normed: Mutex<Vec<f32>>,
}

impl<B: Backend> Faulty<B> {
    /// Wraps `inner`; `end` are the ids that end generation.
    pub fn new(inner: B, fault: EngineFault, end: Vec<u32>) -> Self {
        Self {
            inner,
            fault,
            layer: None,
            end,
            decoding: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            last_keys: Mutex::default(),
            first_position: AtomicUsize::new(0),
            key_width: AtomicUsize::new(0),
            normed: Mutex::default(),
        }
    }

    /// The same with the defect in `layer` alone; defects outside the layers are where they are.
    #[must_use]
    pub fn in_layer(self, layer: Option<usize>) -> Self {
        Self { layer, ..self }
    }

    /// The defect of what is computed at `site`.
    pub(super) fn at(&self, site: Site) -> EngineFault {
        match (self.layer, site.layer) {
            (Some(defective), Some(layer)) if layer != defective => EngineFault::Nothing,
            _ => self.fault,
        }
    }
}

/// Whether `fault` leaves the norm at `op` out.
fn skips(fault: EngineFault, op: Op) -> bool {
    match fault {
        EngineFault::FfnNormSkipped => op == Op::FfnNorm,
        EngineFault::QkNormSkipped => matches!(op, Op::QNorm | Op::KNorm),
        EngineFault::AttnPostNormSkipped => op == Op::AttnPostNorm,
        EngineFault::FfnPostNormSkipped => op == Op::FfnPostNorm,
        _ => false,
    }
}

impl<B: Backend> Backend for Faulty<B> {
    type Buf = B::Buf;
    type Weight = (B::Weight, usize);
    type Kv = B::Kv;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn arithmetic(&self) -> Arithmetic {
        match self.fault {
            EngineFault::Misdeclared => misdeclared(&self.inner.arithmetic()),
            _ => self.inner.arithmetic(),
        }
    }

    fn upload(&self, slot: Slot, tensor: &Tensor) -> Result<Self::Weight> {
        let out = tensor.shape().rows() as usize;
        let here = self.layer.is_none_or(|layer| slot.layer == Some(layer));
        let weight = match self.fault {
            EngineFault::ColumnMajor if slot == Slot::layer(self.layer.unwrap_or(0), Role::Q) => {
                self.inner.upload(slot, &column_major(tensor)?)?
            }
            EngineFault::GainOffsetMissing if here && slot.role.is_gain() => {
                self.inner.upload(slot, &less_one(tensor)?)?
            }
            _ => self.inner.upload(slot, tensor)?,
        };
        Ok((weight, out))
    }

    fn alloc(&self, len: usize) -> Result<Self::Buf> {
        self.inner.alloc(len)
    }

    fn kv_alloc(&self, shape: KvShape) -> Result<Self::Kv> {
        let cache_type = match self.fault {
            EngineFault::CacheTypeIgnored => CacheType::F32,
            _ => shape.cache_type,
        };
        self.inner.kv_alloc(KvShape { cache_type, ..shape })
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
        if self.at(site) == EngineFault::EmbeddingConstant {
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
        match self.at(site) {
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
            fault if skips(fault, site.op) => {
                let mut values = vec![0.0; span];
                self.inner.read(x, &mut values)?;
                self.inner.write(dst, &values[norm.first_row * norm.width..])
            }
            EngineFault::FeedForwardBypassed if site.op == Op::FfnNorm => {
                self.inner.rms_norm(site, dst, x, &gain.0, norm)?;
                let mut values = vec![0.0; norm.rows * norm.width];
                self.inner.read(dst, &mut values)?;
                *self.normed.lock().map_err(|_| Error::new(Code::BackendShape))? = values;
                Ok(())
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
        let repeats = if self.at(site) == EngineFault::Slow { 16 } else { 1 };
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
        if self.at(site) == EngineFault::QkvBiasDropped && matches!(site.op, Op::Q | Op::K | Op::V)
        {
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
        if rope.first_row == 0 {
            self.first_position.store(rope.position, Ordering::Relaxed);
        }
        match self.at(site) {
            EngineFault::PositionsShared => {
                let position = self.first_position.load(Ordering::Relaxed);
                self.inner.rope(site, x, &Rope { position, ..*rope })
            }
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
        match self.at(Site::layer(rows.layer, Op::RopeK)) {
            EngineFault::StaleKey => {}
            EngineFault::KeysAreValues => return self.inner.kv_append(kv, v, k, rows),
            fault @ (EngineFault::CacheCoarse | EngineFault::CacheSwapped) => {
                let len = self.key_width.load(Ordering::Relaxed) * rows.rows;
                let k = self.edited(k, len, |keys| spoil_cached(fault, keys))?;
                let v = self.edited(v, len, |values| spoil_cached(fault, values))?;
                return self.inner.kv_append(kv, &k, &v, rows);
            }
            _ => return self.inner.kv_append(kv, k, v, rows),
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
        match self.at(site) {
            EngineFault::CausalMaskOff => {
                let open = Attention { causal: false, ..attention };
                self.inner.attention(site, dst, q, kv, &open, scores)
            }
            EngineFault::ScaleMissing => {
                let unscaled = Attention { scale: 1.0, ..attention };
                self.inner.attention(site, dst, q, kv, &unscaled, scores)
            }
            EngineFault::ObservedDiffers if scores.is_some() => {
                let unscaled = Attention { scale: 1.0, ..attention };
                self.inner.attention(site, dst, q, kv, &unscaled, scores)
            }
            EngineFault::ObservedSlow => {
                let Some(scores) = scores else {
                    return self.inner.attention(site, dst, q, kv, &attention, None);
                };
                for _ in 0..OBSERVED_REPEATS {
                    self.inner.attention(site, dst, q, kv, &attention, Some(&mut *scores))?;
                }
                Ok(())
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

    fn attention_of_each(
        &self,
        site: Site,
        dst: &mut Self::Buf,
        q: &Self::Buf,
        caches: &[(&Self::Kv, Attention)],
    ) -> Result<()> {
        for (kv, attention) in caches {
            let (mut kv, mut attention) = (*kv, *attention);
            if let (EngineFault::CachesShared, Some((first, seen))) =
                (self.at(site), caches.first())
            {
                kv = *first;
                // As far as that cache goes.
                let last = seen.context().saturating_sub(attention.rows);
                attention.position = attention.position.min(last);
                attention.rows = attention.rows.min(seen.context());
            }
            self.attention(site, dst, q, kv, &attention, None)?;
        }
        Ok(())
    }

    fn act_mul(
        &self,
        site: Site,
        gate: &mut Self::Buf,
        up: &Self::Buf,
        activation: Activation,
        len: usize,
    ) -> Result<()> {
        match self.at(site) {
            EngineFault::UpDropped => {
                let ones = self.edited(up, len, |values| values.fill(1.0))?;
                self.inner.act_mul(site, gate, &ones, activation, len)
            }
            EngineFault::GateUpSwapped => {
                let swapped = self.edited(gate, len, |_| {})?;
                let mut values = vec![0.0; len];
                self.inner.read(up, &mut values)?;
                self.inner.write(gate, &values)?;
                self.inner.act_mul(site, gate, &swapped, activation, len)
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
        if matches!(self.at(site), EngineFault::LayerSkipped { layer } if site.layer == Some(layer))
        {
            return Ok(());
        }
        self.inner.add(site, x, y, len)?;
        if self.at(site) == EngineFault::ResidualDoubled && site.op == Op::AttnResidual {
            self.inner.add(site, x, y, len)?;
        }
        Ok(())
    }

    fn scale(&self, site: Site, x: &mut Self::Buf, factor: f32, len: usize) -> Result<()> {
        self.inner.scale(site, x, factor, len)
    }

    fn soft_cap(&self, site: Site, x: &mut Self::Buf, cap: f32, len: usize) -> Result<()> {
        self.inner.soft_cap(site, x, cap, len)
    }
}
