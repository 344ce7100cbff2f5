//! Statistics for speed on noisy machines: robust, paired, seeded, and with a verdict of "cannot tell".
//!
//! Pure arithmetic: no clocks, no models. Effects are natural logarithms of time ratios: 0.05 is five per cent slower, and the
//! logarithm makes "a against b" and "b against a" the same distance from nought.

/// A seeded generator (`SplitMix64`), so that a resampled interval is the same on every machine.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    /// The generator of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An index below `n`; 0 for `n` = 0. The bias of the multiplication is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        let wide = u128::from(self.next_u64()) * n as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// The median; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A robust standard deviation: 1.4826 times the median distance from the median, which for a normal distribution is its
/// standard deviation. `None` without values.
pub fn spread(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances).map(|distance| 1.4826 * distance)
}

/// A median with one-sided bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Below this lies the true median with the tail probability only.
    pub lower: f64,
    /// The sample's median.
    pub median: f64,
    /// Above this lies the true median with the tail probability only.
    pub upper: f64,
}

/// Bounds of the median by circular block bootstrap.
///
/// Neighbouring measurements disturb each other, so whole blocks of `block` neighbours are drawn; `tail` is the error
/// probability of each bound. `None` without values or when one is not finite.
pub fn bootstrap_median(
    values: &[f64],
    block: usize,
    resamples: usize,
    tail: f64,
    rng: &mut SplitMix,
) -> Option<Bounds> {
    let median = median(values)?;
    if resamples == 0 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let (sorted, ranks) = ranked(values);
    let mut counts = vec![0_usize; values.len()];
    let mut medians: Vec<f64> = (0..resamples)
        .map(|_| {
            counts.fill(0);
            draw_blocks(&ranks, block.max(1), &mut counts, rng);
            counted_median(&sorted, &counts)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let cut = (tail.clamp(0.0, 0.5) * resamples as f64).floor();
    let cut = (cut as usize).min(resamples - 1);
    Some(Bounds { lower: medians[cut], median, upper: medians[resamples - 1 - cut] })
}

/// Bounds of the median by the sign test: order statistics, right for any distribution of independent values, but blind to
/// neighbours that move together. The outermost values when there are too few for the tail. `None` without values.
pub fn sign_median(values: &[f64], tail: f64) -> Option<Bounds> {
    let median = median(values)?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // log2 of the probability of exactly k values below the median: C(n, k) / 2^n.
    let (mut log_term, mut below, mut cut) = (-(n as f64), 0.0, 0);
    for k in 0..n / 2 {
        below += log_term.exp2();
        if below > tail {
            break;
        }
        cut = k;
        log_term += ((n - k) as f64 / (k + 1) as f64).log2();
    }
    Some(Bounds { lower: sorted[cut], median, upper: sorted[n - 1 - cut] })
}

/// The values in order, and the rank of each value in that order.
fn ranked(values: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0; values.len()];
    for (rank, &at) in order.iter().enumerate() {
        ranks[at] = rank;
    }
    (order.iter().map(|&at| values[at]).collect(), ranks)
}

fn draw_blocks(ranks: &[usize], block: usize, counts: &mut [usize], rng: &mut SplitMix) {
    let mut left = ranks.len();
    while left > 0 {
        let start = rng.below(ranks.len());
        for offset in 0..block.min(left) {
            counts[ranks[(start + offset) % ranks.len()]] += 1;
        }
        left -= block.min(left);
    }
}

/// The median of a resample given by how often each rank was drawn.
fn counted_median(sorted: &[f64], counts: &[usize]) -> f64 {
    let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
    let (mut passed, mut lower) = (0, f64::NAN);
    for (value, count) in sorted.iter().zip(counts) {
        let before = passed;
        passed += count;
        if before <= low && low < passed {
            lower = *value;
        }
        if before <= high && high < passed {
            return f64::midpoint(lower, *value);
        }
    }
    lower
}

/// How a slowdown is decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Slowdowns up to this are nobody's concern.
    pub margin: f64,
    /// The slowdown that must be found.
    pub effect: f64,
    /// Numbers of pairs at which the data may be looked at, ascending.
    pub looks: Vec<usize>,
    /// Error probability of the whole procedure, split evenly over the looks.
    pub alpha: f64,
    /// Neighbouring pairs that are drawn together.
    pub block: usize,
    /// Resamples per look.
    pub resamples: usize,
}

impl Default for Plan {
    /// Margin 1 %, effect 3 %, looks at 15, 30, 60 and 120 pairs, one per cent of error, blocks of 4, 4000 resamples.
    fn default() -> Self {
        Self {
            margin: 0.01,
            effect: 0.03,
            looks: vec![15, 30, 60, 120],
            alpha: 0.01,
            block: 4,
            resamples: 4000,
        }
    }
}

impl Plan {
    /// The same plan up to `pairs`: more looks, each at twice as many as the one before, or fewer, the last at `pairs`.
    #[must_use]
    pub fn at_most(mut self, pairs: usize) -> Self {
        while let Some(more) = self.looks.last().map(|last| 2 * last).filter(|more| *more <= pairs)
        {
            self.looks.push(more);
        }
        if self.looks.last().is_some_and(|last| *last > pairs) {
            self.looks.retain(|look| *look < pairs);
            self.looks.push(pairs);
        }
        self
    }

    /// Bounds of the median of `effects`, each with its share of the error: the wider of the block bootstrap and the sign test.
    ///
    /// The bootstrap alone is too narrow for fifteen values with stalls among them: simulated with a spread of 50 % it called
    /// equal speed slower in 4 to 6 % of the runs instead of 1 %. Together they keep 1 %, also for neighbours with a correlation of 0.3.
    pub fn bounds(&self, effects: &[f64], rng: &mut SplitMix) -> Option<Bounds> {
        let tail = self.alpha / self.looks.len().max(1) as f64;
        let blocks = bootstrap_median(effects, self.block, self.resamples, tail, rng)?;
        let signs = sign_median(effects, tail)?;
        Some(Bounds {
            lower: blocks.lower.min(signs.lower),
            median: blocks.median,
            upper: blocks.upper.max(signs.upper),
        })
    }

    /// Decides on slowdowns, one per pair; see [`Decision`].
    pub fn decide(&self, slowdowns: &[f64], rng: &mut SplitMix) -> Option<(Decision, Bounds)> {
        let bounds = self.bounds(slowdowns, rng)?;
        let decision = if bounds.lower > self.margin && bounds.median >= self.effect {
            Decision::Slower
        } else if bounds.upper < self.effect {
            Decision::Kept
        } else {
            Decision::Open
        };
        Some((decision, bounds))
    }

    /// The smallest slowdown that this much noise lets the plan find with near certainty: the margin, the distance to
    /// the bound, and the same distance again for the power.
    pub fn smallest_detectable(&self, noise: Bounds) -> f64 {
        self.margin + (noise.upper - noise.lower)
    }
}

/// What the data say so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Slower: the lower bound is above the margin and the median reaches the effect.
    Slower,
    /// Not slower: the upper bound is below the effect.
    Kept,
    /// Neither.
    Open,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Noise as measured on shared machines: neighbours correlated, and now and then a stall.
    fn noise(rng: &mut SplitMix, pairs: usize, sd: f64) -> Vec<f64> {
        let mut before = 0.0;
        let unit = |rng: &mut SplitMix| (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        (0..pairs)
            .map(|_| {
                // A sum of twelve uniform numbers is normal enough.
                let normal = (0..12).map(|_| unit(rng)).sum::<f64>() - 6.0;
                let stall = if unit(rng) < 0.03 { 8.0 * (unit(rng) - 0.5) } else { 0.0 };
                before = 0.3 * before + 0.95 * normal;
                sd * (before + stall)
            })
            .collect()
    }

    /// The decision of a sequential run over noise with a planted slowdown, at most `pairs` pairs.
    fn simulate(seed: u64, sd: f64, slowdown: f64) -> Decision {
        let plan = Plan { resamples: 2000, ..Plan::default() };
        let mut rng = SplitMix::new(seed);
        let effects: Vec<f64> =
            noise(&mut rng, 120, sd).into_iter().map(|value| value + slowdown).collect();
        for look in &plan.looks {
            let (decision, _) = plan.decide(&effects[..*look], &mut rng).unwrap();
            if decision != Decision::Open {
                return decision;
            }
        }
        Decision::Open
    }

    fn rate(runs: u64, sd: f64, slowdown: f64, wanted: Decision) -> f64 {
        let hits = (0..runs).filter(|seed| simulate(*seed, sd, slowdown) == wanted).count();
        hits as f64 / runs as f64
    }

    #[test]
    fn equal_speed_is_hardly_ever_called_slower() {
        // 3.4 % and 8.4 % are measured spreads of compute-bound and memory-bound pairs.
        for sd in [0.034, 0.084, 0.5] {
            let alarms = rate(250, sd, 0.0, Decision::Slower);
            assert!(alarms <= 0.02, "{alarms} false alarms at spread {sd}");
        }
    }

    #[test]
    fn a_planted_slowdown_of_five_per_cent_is_found() {
        assert!(rate(200, 0.034, 0.05, Decision::Slower) >= 0.95);
    }

    #[test]
    fn a_planted_slowdown_is_hardly_ever_called_kept() {
        for sd in [0.005, 0.034, 0.084] {
            let missed = rate(150, sd, 0.05, Decision::Kept);
            assert!(missed <= 0.02, "{missed} missed at spread {sd}");
        }
    }

    #[test]
    fn quiet_equal_speed_is_kept_and_not_left_open() {
        assert!(rate(100, 0.02, 0.0, Decision::Kept) >= 0.95);
    }

    #[test]
    fn much_noise_is_left_open_rather_than_guessed() {
        assert!(rate(100, 0.5, 0.0, Decision::Open) >= 0.9);
    }

    #[test]
    fn the_same_seed_gives_the_same_bounds() {
        let values = noise(&mut SplitMix::new(1), 30, 0.03);
        let bounds = |seed| Plan::default().bounds(&values, &mut SplitMix::new(seed)).unwrap();
        assert_eq!(bounds(7), bounds(7));
    }

    #[test]
    fn no_values_and_values_that_are_not_finite_have_no_bounds() {
        let plan = Plan::default();
        assert_eq!(plan.bounds(&[], &mut SplitMix::new(0)), None);
        assert_eq!(plan.bounds(&[0.1, f64::NAN], &mut SplitMix::new(0)), None);
        assert_eq!(plan.bounds(&[f64::INFINITY; 20], &mut SplitMix::new(0)), None);
    }

    #[test]
    fn sign_bounds_are_the_order_statistics_of_the_table() {
        // For 15 values the two lowest hold 16/32768 of the probability, the three lowest 121/32768.
        let values: Vec<f64> = (1..=15).map(f64::from).collect();
        let bounds = |tail| sign_median(&values, tail).unwrap();
        assert_eq!((bounds(0.0025).lower, bounds(0.0025).upper), (2.0, 14.0));
        assert_eq!((bounds(0.004).lower, bounds(0.004).upper), (3.0, 13.0));
        assert_eq!((bounds(1e-9).lower, bounds(1e-9).upper), (1.0, 15.0));
    }

    #[test]
    fn a_budget_of_pairs_makes_the_looks_more_or_fewer() {
        let looks = |pairs| Plan::default().at_most(pairs).looks;
        assert_eq!(looks(60), [15, 30, 60]);
        assert_eq!(looks(40), [15, 30, 40]);
        assert_eq!(looks(8), [8]);
        assert_eq!(looks(200), [15, 30, 60, 120]);
        assert_eq!(looks(500), [15, 30, 60, 120, 240, 480]);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs of `SplitMix64` for seed 1234567.
        let mut rng = SplitMix::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    proptest! {
        #[test]
        fn the_median_has_half_of_the_values_on_each_side(values in prop::collection::vec(-1e3..1e3_f64, 1..60)) {
            let middle = median(&values).unwrap();
            let below = values.iter().filter(|value| **value < middle).count();
            let above = values.iter().filter(|value| **value > middle).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }

        #[test]
        fn bounds_lie_within_the_values_and_in_order(values in prop::collection::vec(-1.0..1.0_f64, 4..40), seed in any::<u64>()) {
            let bounds = bootstrap_median(&values, 4, 300, 0.05, &mut SplitMix::new(seed)).unwrap();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(least <= bounds.lower && bounds.lower <= bounds.upper && bounds.upper <= most);
        }

        #[test]
        fn moving_all_values_moves_the_bounds(values in prop::collection::vec(-1.0..1.0_f64, 4..40), by in -1.0..1.0_f64) {
            let moved: Vec<f64> = values.iter().map(|value| value + by).collect();
            let a = bootstrap_median(&values, 4, 300, 0.05, &mut SplitMix::new(3)).unwrap();
            let b = bootstrap_median(&moved, 4, 300, 0.05, &mut SplitMix::new(3)).unwrap();
            prop_assert!((a.lower + by - b.lower).abs() < 1e-9 && (a.upper + by - b.upper).abs() < 1e-9);
        }

        #[test]
        fn equal_values_have_no_width(value in -1.0..1.0_f64, count in 1..30_usize) {
            let bounds = bootstrap_median(&vec![value; count], 4, 50, 0.01, &mut SplitMix::new(1)).unwrap();
            prop_assert!((bounds.upper - bounds.lower).abs() < 1e-12);
            prop_assert!((bounds.median - value).abs() < 1e-12);
        }

        #[test]
        fn an_index_is_below_its_bound(seed in any::<u64>(), n in 1..1000_usize) {
            prop_assert!(SplitMix::new(seed).below(n) < n);
        }
    }
}
