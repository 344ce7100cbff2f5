//! Matrix products: one task computes some outputs of one weight for all rows of the input.

use super::Simd;
use super::activations::Activations;
use super::elementwise;
use super::kernels::Kernels;
use super::pool::Pool;
use crate::backend::Projection;
use crate::backend::host::{front, front_mut};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::tensor::TensorView;

/// Outputs computed in one call where there are several rows, or a multiple of it: each call unpacks weights into memory of its
/// own, so fewer rows take more outputs at once.
const STRIP: usize = 64;
/// Values that a call computes at most, so that they stay in the cache, where that leaves it a strip.
const SCRATCH: usize = 256 * STRIP;

/// Some outputs of one product.
struct Tile<'a> {
    weight: TensorView<'a>,
    bias: Option<&'a [f32]>,
    x: &'a Activations<'a>,
    /// First output.
    first: usize,
    /// `[rows]` of `[outputs of this tile]`.
    dst: Vec<&'a mut [f32]>,
}

/// Computes every job: `dst = x * weight^T + bias`. The input is rounded once for all of them.
pub(super) fn project(
    kernels: &Kernels,
    pool: &Pool,
    jobs: &mut [Projection<'_, Simd>],
    x: &[f32],
    rows: usize,
) -> Result<()> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let inputs = first.weight.tensor.shape().cols() as usize;
    let dtypes: Vec<Dtype> = jobs.iter().map(|job| job.weight.tensor.dtype()).collect();
    let x = front(x, rows * inputs, Some(first.site))?;
    let x = kernels.activations(x, inputs, &dtypes)?;
    let mut tiles = Vec::new();
    let mut work = 0;
    for job in jobs {
        let weight = job.weight.tensor.view()?;
        let outputs = weight.rows();
        let bias = match job.bias {
            Some(bias) => Some(bias.vector(outputs, job.site)?),
            None => None,
        };
        let dst = front_mut(job.dst, rows * outputs, Some(job.site))?;
        work += rows * outputs * weight.cols();
        tiles.extend(share(pool, dst, rows, outputs).into_iter().map(|(first, dst)| Tile {
            weight,
            bias,
            x: &x,
            first,
            dst,
        }));
    }
    pool.each(tiles, work, |mut tile| compute(kernels, &mut tile))
}

/// Cuts `dst`, `[rows, outputs]`, into ranges of outputs: the first output and, by row, the values.
fn share<'a>(
    pool: &Pool,
    dst: &'a mut [f32],
    rows: usize,
    outputs: usize,
) -> Vec<(usize, Vec<&'a mut [f32]>)> {
    // With several rows, whole strips: what is unpacked of a weight serves all of its outputs.
    let tile = match rows {
        1 => pool.tile(outputs),
        _ => pool.tile(outputs).next_multiple_of(STRIP),
    };
    let firsts = (0..outputs).step_by(tile);
    let mut tiles: Vec<_> = firsts.map(|first| (first, Vec::with_capacity(rows))).collect();
    for row in dst.chunks_exact_mut(outputs.max(1)) {
        for ((_, dst), values) in tiles.iter_mut().zip(row.chunks_mut(tile)) {
            dst.push(values);
        }
    }
    tiles
}

/// Outputs of a call with so many rows.
fn strip(rows: usize) -> usize {
    (SCRATCH / rows.max(1)).next_multiple_of(STRIP).max(STRIP)
}

fn compute(kernels: &Kernels, tile: &mut Tile<'_>) -> Result<()> {
    let Tile { weight, bias, x, first, dst } = tile;
    if let [dst] = dst.as_mut_slice() {
        let outputs = *first..*first + dst.len();
        kernels.product(weight, outputs.clone(), x, dst)?;
        if let Some(bias) = bias {
            elementwise::add(dst, &bias[outputs]);
        }
        return Ok(());
    }
    let width = dst.first().map_or(0, |values| values.len());
    let most = strip(dst.len());
    let mut scratch = vec![0.0; x.rows() * most.min(width)];
    for start in (0..width).step_by(most) {
        let strip = start..width.min(start + most);
        let outputs = *first + strip.start..*first + strip.end;
        let scratch = &mut scratch[..x.rows() * strip.len()];
        kernels.product(weight, outputs.clone(), x, scratch)?;
        for (dst, values) in dst.iter_mut().zip(scratch.chunks_exact(strip.len())) {
            let dst = &mut dst[strip.clone()];
            dst.copy_from_slice(values);
            if let Some(bias) = bias {
                elementwise::add(dst, &bias[outputs.clone()]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::Backend;
    use crate::model::slots::{Role, Slot};
    use crate::probe::{Op, Site};
    use crate::tensor::{Bytes, Shape, Tensor};

    #[test]
    fn outputs_of_every_strip_are_those_of_a_row_alone() {
        let cols = 8;
        // More rows than a strip leaves room for, and more outputs than few rows take at once.
        for (rows, outputs) in [(SCRATCH + 1, 3), (300, 2 * STRIP + 1), (2, strip(2) + 5)] {
            let values = |len: usize| (0..len).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
            let bytes: Vec<u8> =
                values(outputs * cols).iter().flat_map(|value| value.to_le_bytes()).collect();
            let shape = Shape::new(&[outputs as u64, cols as u64]).unwrap();
            let weight = Tensor::new(Dtype::F32, shape, Bytes::new(Arc::new(bytes))).unwrap();
            let simd = Simd::new(None, 1).unwrap();
            let weight = simd.upload(Slot::model(Role::Head), &weight).unwrap();
            let (site, x) = (Site::model(Op::Logits), values(rows * cols));
            let mut all = vec![f32::NAN; rows * outputs];
            simd.matmul(site, &mut all, &weight, &x, rows).unwrap();
            for row in [0, 1, rows - 1] {
                let (mut alone, x) = (vec![f32::NAN; outputs], x[row * cols..][..cols].to_vec());
                simd.matmul(site, &mut alone, &weight, &x, 1).unwrap();
                assert!(all[row * outputs..][..outputs] == alone, "row {row} of {rows}");
            }
        }
    }
}
