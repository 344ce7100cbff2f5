//! What a faulty backend does to finished values.

use std::sync::atomic::Ordering;

use apr_engine::backend::arithmetic::{ProductArithmetic, Rounding};
use apr_engine::backend::{Arithmetic, Backend};
use apr_engine::probe::{Op, Site};
use apr_engine::{Code, Dtype, Error, Result, Tensor};

use super::EngineFault;
use super::backend::Faulty;

/// Keys or values on their way into the cache.
pub(super) fn spoil_cached(fault: EngineFault, values: &mut [f32]) {
    if fault == EngineFault::CacheSwapped {
        for pair in values.chunks_exact_mut(2) {
            pair.swap(0, 1);
        }
        return;
    }
    for value in values {
        // The upper half of an f32 is its bf16; half a unit of its last place more rounds to nearest.
        *value = f32::from_bits((value.to_bits() + 0x8000) & 0xFFFF_0000);
    }
}

impl<B: Backend> Faulty<B> {
    pub(super) fn edit(
        &self,
        buf: &mut B::Buf,
        len: usize,
        edit: impl FnOnce(&mut [f32]),
    ) -> Result<()> {
        let mut values = vec![0.0; len];
        self.inner.read(buf, &mut values)?;
        edit(&mut values);
        self.inner.write(buf, &values)
    }

    /// A copy of the first `len` values of `buf`, changed.
    pub(super) fn edited(
        &self,
        buf: &B::Buf,
        len: usize,
        edit: impl FnOnce(&mut [f32]),
    ) -> Result<B::Buf> {
        let mut copy = self.inner.alloc(len)?;
        let mut values = vec![0.0; len];
        self.inner.read(buf, &mut values)?;
        edit(&mut values);
        self.inner.write(&mut copy, &values)?;
        Ok(copy)
    }

    /// Spoils a finished product.
    pub(super) fn spoil_product(
        &self,
        site: Site,
        dst: &mut B::Buf,
        out: usize,
        rows: usize,
    ) -> Result<()> {
        let len = out * rows;
        let at = |layer: usize, op: Op| site == Site::layer(layer, op);
        match self.at(site) {
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
            EngineFault::OutputOff if site.op == Op::Gate => self.edit(dst, len, |values| {
                for row in values.chunks_exact_mut(out) {
                    row[0] *= 1.01;
                }
            }),
            EngineFault::FeedForwardBypassed if site.op == Op::Down => {
                let given = self.normed.lock().map_err(|_| Error::new(Code::BackendShape))?;
                self.inner.write(dst, &given)
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
        let spoil: &dyn Fn(&mut [f32]) = match self.at(Site::model(Op::Logits)) {
            EngineFault::LogitsPermuted => &|row| row.rotate_left(1),
            EngineFault::LogitsConstant => &|row| row.fill(1.0),
            EngineFault::HeadReversed => &|row| row.reverse(),
            EngineFault::LogitsFlattened => &|row| row.iter_mut().for_each(|value| *value *= 0.01),
            EngineFault::LogitsOneHot => &|row| row.iter_mut().for_each(|value| *value *= 1e3),
            EngineFault::LogitsScrambled => &|row| row.rotate_left((call * 37 + 11) % vocab),
            EngineFault::BestYields => &best_yields,
            EngineFault::StopAfterOne if decoding => &|row| end(row, 1e6),
            EngineFault::EndNever => &|row| end(row, -1e6),
            _ => return Ok(()),
        };
        self.edit(dst, vocab * rows, |values| values.chunks_exact_mut(vocab).for_each(spoil))
    }
}

/// How near the two best logits stand, as a share of the row's length, where they are exchanged: the error of the row is then
/// below `2 * NEAR²` of its energy, which no bound on errors can tell from rounding.
const NEAR: f32 = 0.03;

/// Exchanges the two best logits of a row where they are near each other.
fn best_yields(row: &mut [f32]) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    if let [best, second, ..] = order[..]
        && row[best] - row[second] < NEAR * length
    {
        row.swap(best, second);
    }
}

/// The tensor with its rows and columns exchanged but its shape kept: what a column-major kernel sees.
pub(super) fn column_major(tensor: &Tensor) -> Result<Tensor> {
    let view = tensor.view()?;
    let (rows, cols) = (view.rows(), view.cols());
    let values = view.dequantize()?;
    let mut seen = Vec::with_capacity(values.len());
    for index in 0..values.len() {
        seen.push(values[(index % rows) * cols + index / rows]);
    }
    Tensor::from_f32(tensor.shape(), &seen)
}

/// The tensor with one taken from every value.
pub(super) fn less_one(tensor: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> =
        tensor.view()?.dequantize()?.into_iter().map(|value| value - 1.0).collect();
    Tensor::from_f32(tensor.shape(), &values)
}

/// Moves the heads of each row: head `h` of the result is head `order[h]` of `values`.
pub(super) fn reorder_heads(values: &mut [f32], head_dim: usize, order: &[usize]) {
    for row in values.chunks_exact_mut(head_dim * order.len()) {
        let before = row.to_vec();
        for (to, &from) in order.iter().enumerate() {
            row[to * head_dim..(to + 1) * head_dim]
                .copy_from_slice(&before[from * head_dim..(from + 1) * head_dim]);
        }
    }
}

/// The same arithmetic, declared to round activations in blocks twice as long, also where it does not round at all.
pub(super) fn misdeclared(declared: &Arithmetic) -> Arithmetic {
    Dtype::ALL.iter().fold(declared.clone(), |wrong, dtype| {
        let product = declared.product(*dtype);
        let block = match product.rounding {
            Rounding::Bytes { block } => 2 * block,
            Rounding::None => 32,
        };
        let rounding = Rounding::Bytes { block };
        wrong.with(&[*dtype], ProductArithmetic { rounding, ..product })
    })
}
