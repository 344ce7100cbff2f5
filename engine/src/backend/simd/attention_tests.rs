//! The kernels of attention.

use super::kernels::{Kernels, Strided};
use super::tests::activations;

#[test]
fn axpy_adds_a_multiple() {
    for kernels in Kernels::available() {
        for len in [0, 1, 7, 8, 9, 64, 67] {
            let x = activations(1, len.max(1));
            let mut out = vec![1.0; len];
            kernels.axpy(0.5, &x, &mut out);
            for (out, x) in out.iter().zip(&x) {
                assert!((out - (1.0 + 0.5 * x)).abs() <= 1e-6, "{kernels:?}");
            }
        }
    }
}

#[test]
fn two_queries_at_once_get_the_bits_of_one_each() {
    for kernels in Kernels::available() {
        for (len, positions) in [(64, 9), (128, 4), (80, 7), (33, 5), (8, 3), (1, 1), (96, 0)] {
            let stride = len + 3;
            let (x, rows) = (activations(2, len), activations(positions + 1, stride));
            let rows = Strided { values: &rows, stride };
            let queries = [&x[..len], &x[len..]];
            let mut scores = [vec![f32::NAN; positions], vec![f32::NAN; positions]];
            let mut mixed = [vec![0.5; len], vec![-0.5; len]];
            let [a, b] = &mut scores;
            (kernels.dots)(queries, rows, [a, b]);
            let ([a, b], mut one_by_one) = (&mut mixed, [vec![0.5; len], vec![-0.5; len]]);
            (kernels.mix)([&scores[0], &scores[1]], rows, [a, b]);
            for n in 0..2 {
                for (j, score) in scores[n].iter().enumerate() {
                    let row = rows.row(j, len);
                    assert_eq!(score.to_bits(), kernels.dot(queries[n], row).to_bits());
                    kernels.axpy(*score, row, &mut one_by_one[n]);
                }
            }
            assert_eq!(mixed, one_by_one, "{kernels:?} {len} x {positions}");
        }
    }
}
