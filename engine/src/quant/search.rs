//! Searches for the scale (and minimum) of a sub-block of a K-quant.
//!
//! Rounding with the obvious scale is not the best fit. Each search tries a few scales around it, fits
//! scale and minimum to the resulting quants by weighted least squares, and keeps the best. Sums run in
//! f32 in element order, and products associate to the left, so that files are byte-identical
//! to those of the reference quantiser without importance matrix.

/// A group whose largest magnitude is below this is stored as zeros.
pub(super) const GROUP_MAX_EPS: f32 = 1e-15;

/// 1.5 * 2^23: adding it moves the rounded integer into the low mantissa bits.
const MAGIC: f32 = 12_582_912.0;

/// The nearest integer, ties to even, of a magnitude up to 2^22. Larger ones wrap as the reference does.
#[inline]
pub(super) fn nearest(value: f32) -> i32 {
    (((value + MAGIC).to_bits() & 0x007F_FFFF) as i32) - 0x0040_0000
}

/// The largest of `values` and +0; never -0, which `f32::max` may give.
pub(super) fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |max, value| if value > max { value } else { max })
}

/// How a difference between value and grid point counts.
#[derive(Clone, Copy)]
pub(super) enum Loss {
    Absolute,
    Square,
}

/// The grids that [`affine`] tries: `steps + 1` of them, `(first + step * i + top) / (max - min)` each.
pub(super) struct Ladder {
    pub first: f32,
    pub step: f32,
    pub steps: u8,
}

/// Scale and (positive) minimum of `values = scale * quant - minimum`.
#[derive(Clone, Copy, Default)]
pub(super) struct Affine {
    pub scale: f32,
    pub minimum: f32,
}

/// Fits quants in `0..=top` to `values`; the minimum is never below zero's side of the grid.
///
/// Quants are written to `quants`. `values` has at least one element.
pub(super) fn affine(
    values: &[f32],
    weights: &[f32],
    top: u8,
    ladder: &Ladder,
    loss: Loss,
    quants: &mut [u8],
) -> Affine {
    let max = values[1..].iter().fold(values[0], |max, &x| if x > max { x } else { max });
    let min = values[1..].iter().fold(values[0], |min, &x| if x < min { x } else { min });
    let min = if min > 0.0 { 0.0 } else { min };
    // `min` was lowered to zero at most, so only a row of one non-positive value has no extent.
    if max <= min {
        quants.fill(0);
        return Affine { scale: 0.0, minimum: -min };
    }
    let mut fit = Fit { values, weights, min, top, loss };
    let inverse = f32::from(top) / (max - min);
    fit.round(inverse, quants);
    let mut best = Affine { scale: 1.0 / inverse, minimum: -min };
    let mut best_loss = fit.loss(best, quants);
    let mut trial = [0u8; 32];
    let trial = &mut trial[..values.len()];
    for i in 0..=ladder.steps {
        let inverse =
            (ladder.first + ladder.step * f32::from(i) + f32::from(top)) / (max - fit.min);
        fit.round(inverse, trial);
        let Some(affine) = fit.solve(trial) else { continue };
        let loss = fit.loss(affine, trial);
        if loss < best_loss {
            quants.copy_from_slice(trial);
            best = affine;
            best_loss = loss;
            // The grids that follow are laid from the better minimum.
            fit.min = -affine.minimum;
        }
    }
    best
}

struct Fit<'a> {
    values: &'a [f32],
    weights: &'a [f32],
    min: f32,
    top: u8,
    loss: Loss,
}

impl Fit<'_> {
    fn round(&self, inverse: f32, quants: &mut [u8]) {
        for (quant, &x) in quants.iter_mut().zip(self.values) {
            *quant = nearest(inverse * (x - self.min)).clamp(0, i32::from(self.top)) as u8;
        }
    }

    /// Weighted least squares for fixed quants; `None` when they do not determine a line.
    fn solve(&self, quants: &[u8]) -> Option<Affine> {
        let (mut sum_w, mut sum_x) = (0.0f32, 0.0f32);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((&x, &w), &quant) in self.values.iter().zip(self.weights).zip(quants) {
            let l = f32::from(quant);
            sum_w += w;
            sum_x += w * x;
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 || determinant.is_nan() {
            return None;
        }
        let scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        Some(if min > 0.0 {
            Affine { scale: sum_xl / sum_l2, minimum: -0.0 }
        } else {
            Affine { scale, minimum: -min }
        })
    }

    fn loss(&self, affine: Affine, quants: &[u8]) -> f32 {
        let min = -affine.minimum;
        let mut total = 0.0f32;
        for ((&x, &w), &quant) in self.values.iter().zip(self.weights).zip(quants) {
            let difference = affine.scale * f32::from(quant) + min - x;
            total += w * match self.loss {
                Loss::Absolute => difference.abs(),
                Loss::Square => difference * difference,
            };
        }
        total
    }
}

/// Sums of a symmetric fit: `lx = Σ w l x`, `l2 = Σ w l²` with `w = x²`.
#[derive(Clone, Copy, Default)]
struct Sums {
    lx: f32,
    l2: f32,
}

impl Sums {
    fn add(&mut self, x: f32, quant: i32) {
        let (w, l) = (x * x, quant as f32);
        self.lx += w * x * l;
        self.l2 += w * l * l;
    }

    fn scale(self) -> f32 {
        if self.l2 == 0.0 { 0.0 } else { self.lx / self.l2 }
    }
}

/// Fits signed quants in `-half..half` to 16 values by trying 19 grids; returns scale and quants.
pub(super) fn symmetric(values: &[f32; 16], half: i32) -> (f32, [i8; 16]) {
    let max = super::farthest(values);
    if max.abs() < GROUP_MAX_EPS {
        return (0.0, [-half as i8; 16]);
    }
    let round = |inverse: f32| {
        let mut sums = Sums::default();
        let quants = values.map(|x| {
            let quant = nearest(inverse * x).clamp(-half, half - 1);
            sums.add(x, quant);
            quant as i8
        });
        (sums, quants)
    };
    let (sums, mut quants) = round(-(half as f32) / max);
    let mut scale = sums.scale();
    let mut best = scale * sums.lx;
    for i in (-9i8..=9).filter(|&i| i != 0) {
        let (sums, trial) = round(-(half as f32 + 0.1 * f32::from(i)) / max);
        if sums.l2 > 0.0 && sums.lx * sums.lx > best * sums.l2 {
            scale = sums.scale();
            best = scale * sums.lx;
            quants = trial;
        }
    }
    (scale, quants)
}

/// Fits signed quants in `-half..half` to 16 values by moving one quant at a time, at most five rounds;
/// returns scale and quants.
pub(super) fn coordinate_descent(values: &[f32; 16], half: i32) -> (f32, [i8; 16]) {
    let max = super::farthest(values);
    if max.abs() < GROUP_MAX_EPS {
        return (0.0, [-half as i8; 16]);
    }
    let inverse = -(half as f32) / max;
    let mut quants = values.map(|x| nearest(inverse * x).clamp(-half, half - 1) as i8);
    let mut sums = Sums::default();
    for (&x, &quant) in values.iter().zip(&quants) {
        sums.add(x, i32::from(quant));
    }
    for _ in 0..5 {
        let mut moved = false;
        for (&x, quant) in values.iter().zip(&mut quants) {
            if let Some((better, to)) = improve(x, *quant, sums, half) {
                sums = better;
                *quant = to;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    (if sums.l2 > 0.0 { sums.lx / sums.l2 } else { 0.0 }, quants)
}

/// A better quant for `x`, all others fixed, with the sums it leads to.
fn improve(x: f32, quant: i8, sums: Sums, half: i32) -> Option<(Sums, i8)> {
    let (w, l) = (x * x, f32::from(quant));
    let mut rest = Sums { lx: sums.lx - w * x * l, l2: sums.l2 };
    if rest.lx <= 0.0 || rest.lx.is_nan() {
        return None;
    }
    rest.l2 -= w * l * l;
    let to = nearest(x * rest.l2 / rest.lx).clamp(-half, half - 1);
    if to == i32::from(quant) {
        return None;
    }
    rest.add(x, to);
    let better = rest.l2 > 0.0 && rest.lx * rest.lx * sums.l2 > sums.lx * sums.lx * rest.l2;
    better.then_some((rest, to as i8))
}
