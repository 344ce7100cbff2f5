//! Matrix products: one task computes some outputs of one weight for all rows of the input.

use super::activations::Activations;
use super::kernels::Kernels;
use super::pool::Pool;
use super::{Simd, SimdWeight};
use crate::backend::Projection;
use crate::backend::host::{front, front_mut};
use crate::dtype::Dtype;
use crate::error::Result;
use crate::tensor::TensorView;

/// Some outputs of one product.
struct Tile<'a> {
    weight: TensorView<'a>,
    bias: Option<&'a [f32]>,
    x: &'a Activations<'a>,
    /// First output.
    first: usize,
    /// `[outputs of this tile, rows]`.
    dst: &'a mut [f32],
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
    // Of one row, outputs lie side by side as they are; of more, they are computed output by output
    // and turned round afterwards, so that tasks write ranges of their own.
    let mut turned: Vec<Vec<f32>> = jobs
        .iter()
        .map(|job| vec![0.0; if rows == 1 { 0 } else { rows * outputs(job.weight) }])
        .collect();
    let mut tiles = Vec::new();
    let mut work = 0;
    for (job, turned) in jobs.iter_mut().zip(&mut turned) {
        let weight = job.weight.tensor.view()?;
        let (outputs, site) = (weight.rows(), Some(job.site));
        let bias = match job.bias {
            Some(bias) => Some(bias.vector(outputs, job.site)?),
            None => None,
        };
        let dst = if rows == 1 { front_mut(job.dst, outputs, site)? } else { &mut **turned };
        let tile = pool.tile(outputs);
        work += rows * outputs * weight.cols();
        tiles.extend(dst.chunks_mut(tile * rows).enumerate().map(|(index, dst)| Tile {
            weight,
            bias,
            x: &x,
            first: index * tile,
            dst,
        }));
    }
    pool.each(tiles, work, |mut tile| compute(kernels, &mut tile))?;
    if rows > 1 {
        for (job, turned) in jobs.iter_mut().zip(&turned) {
            let outputs = outputs(job.weight);
            let dst = front_mut(job.dst, rows * outputs, Some(job.site))?;
            turn(dst, turned, rows, outputs);
        }
    }
    Ok(())
}

fn outputs(weight: &SimdWeight) -> usize {
    weight.tensor.shape().rows() as usize
}

/// `dst[row, output] = turned[output, row]`.
fn turn(dst: &mut [f32], turned: &[f32], rows: usize, outputs: usize) {
    for (row, dst) in dst.chunks_exact_mut(outputs).enumerate() {
        for (dst, column) in dst.iter_mut().zip(turned.chunks_exact(rows)) {
            *dst = column[row];
        }
    }
}

fn compute(kernels: &Kernels, tile: &mut Tile<'_>) -> Result<()> {
    let rows = tile.x.rows();
    let outputs = tile.first..tile.first + tile.dst.len() / rows;
    kernels.product(&tile.weight, outputs.clone(), tile.x, tile.dst)?;
    if let Some(bias) = tile.bias {
        for (dst, bias) in tile.dst.chunks_exact_mut(rows).zip(&bias[outputs]) {
            for dst in dst {
                *dst += bias;
            }
        }
    }
    Ok(())
}
