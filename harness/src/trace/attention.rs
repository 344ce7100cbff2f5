//! Where heads look.

use super::payload::{Anomaly, HeadAttention, Oddity, Weight};

/// Weights that are listed per head.
const LISTED: usize = 5;
/// Shortest context in which a pattern of attention means something.
const CONTEXT_MIN: usize = 8;
/// Share of the attention on the first position that makes it a sink.
const SINK: f32 = 0.9;
/// Share of the largest possible entropy from which on attention is even.
const EVEN: f64 = 0.99;
/// Largest distance of a sum of probabilities from one.
const SUM_SLACK: f64 = 1e-3;

/// The heads of one row of attention probabilities, `[heads * context]`.
pub(super) fn heads(row: &[f32], heads: usize, query: usize) -> Vec<HeadAttention> {
    let context = row.len() / heads.max(1);
    if context == 0 {
        return Vec::new();
    }
    row.chunks_exact(context).enumerate().map(|(head, row)| look(head, query, row)).collect()
}

fn look(head: usize, query: usize, row: &[f32]) -> HeadAttention {
    let mut top: Vec<Weight> = Vec::with_capacity(LISTED + 1);
    let (mut sum, mut entropy) = (0.0, 0.0);
    for (position, &weight) in row.iter().enumerate() {
        let probability = f64::from(weight);
        sum += probability;
        if probability > 0.0 {
            entropy -= probability * probability.ln();
        }
        let listed = top.len() < LISTED || top.last().is_some_and(|least| weight > least.weight);
        if listed && weight.is_finite() {
            let place = top.partition_point(|other| other.weight >= weight);
            top.insert(place, Weight { position, weight });
            top.truncate(LISTED);
        }
    }
    let finite = |value: f64| value.is_finite().then_some(value);
    HeadAttention { head, query, top, sum: finite(sum), entropy: finite(entropy) }
}

/// What is odd about a head; `site` names where it was seen.
pub(super) fn oddities(head: &HeadAttention, context: usize, site: &str) -> Vec<Anomaly> {
    let at = |oddity, found| Anomaly { oddity, place: format!("{site} head {}", head.head), found };
    let mut odd = Vec::new();
    if !head.sum.is_some_and(|sum| (sum - 1.0).abs() <= SUM_SLACK) {
        odd.push(at(Oddity::AttentionSum, head.sum));
    }
    if context < CONTEXT_MIN {
        return odd;
    }
    if let Some(first) = head.top.first()
        && first.position == 0
        && first.weight >= SINK
    {
        odd.push(at(Oddity::AttentionSink, Some(f64::from(first.weight))));
    }
    let most = (context as f64).ln();
    if let Some(entropy) = head.entropy
        && entropy >= EVEN * most
    {
        odd.push(at(Oddity::AttentionUniform, Some(entropy / most)));
    }
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_weights_come_first_and_an_even_head_has_the_entropy_of_its_context() {
        let even = [0.125; 8];
        let steep = [0.95, 0.0, 0.01, 0.04, 0.0, 0.0, 0.0, 0.0];
        let found = heads(&[even, steep].concat(), 2, 7);
        assert!((found[0].entropy.unwrap() - 8f64.ln()).abs() < 1e-9);
        let places: Vec<usize> = found[1].top.iter().map(|weight| weight.position).collect();
        assert_eq!(places, [0, 3, 2, 1, 4]);
        let kinds = |head| oddities(head, 8, "s").iter().map(|odd| odd.oddity).collect::<Vec<_>>();
        assert_eq!(kinds(&found[0]), [Oddity::AttentionUniform]);
        assert_eq!(kinds(&found[1]), [Oddity::AttentionSink]);
    }

    #[test]
    fn weights_that_do_not_sum_to_one_are_odd_and_so_is_a_nan() {
        for row in [[0.5, 0.6], [f32::NAN, 0.5]] {
            let head = &heads(&row, 1, 1)[0];
            assert_eq!(oddities(head, 2, "s")[0].oddity, Oddity::AttentionSum);
        }
    }
}
