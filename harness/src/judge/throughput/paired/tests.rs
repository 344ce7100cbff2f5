use super::*;
use crate::verdict::VerdictKind;

/// A side with a clock of its own: no time passes in these tests.
struct Fake {
    seconds: f64,
    noise: f64,
    rng: SplitMix,
    ids: Vec<u32>,
    /// From this run on the answers change.
    flips_at: usize,
    /// Slower by this share with each run.
    drift: f64,
    runs: usize,
}

impl Fake {
    fn new(seconds: f64, noise: f64, seed: u64) -> Self {
        let (rng, ids) = (SplitMix::new(seed), vec![3, 1, 4, 1, 5]);
        Self { seconds, noise, rng, ids, flips_at: usize::MAX, drift: 0.0, runs: 0 }
    }
}

impl Side for Fake {
    fn label(&self) -> String {
        format!("{} s", self.seconds)
    }

    fn observe(&mut self) -> Look<Vec<Step>> {
        let step = |(position, id): (usize, &u32)| Step { position, id: *id, lead: 1.0 };
        Ok(self.ids.iter().enumerate().map(step).collect())
    }

    fn measure(&mut self) -> Look<(Sample, Vec<u32>)> {
        let unit = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let factor = (self.noise * (unit - 0.5) * 3.46).exp();
        let seconds = self.seconds * factor * (1.0 + self.drift * self.runs as f64);
        self.runs += 1;
        let mut ids = self.ids.clone();
        if self.runs > self.flips_at {
            ids[2] += 1;
        }
        Ok((Sample { judged: seconds, wall: seconds }, ids))
    }
}

fn plan() -> Plan {
    Plan { resamples: 2000, ..Plan::default() }
}

/// The verdict on "`tested` seconds is at least `ratio` times as fast as 1 second".
fn verdict(tested: f64, ratio: f64, noise: f64, seed: u64) -> Verdict {
    let mut a = Fake::new(tested, noise, seed * 2 + 1);
    let mut b = Fake::new(1.0, noise, seed * 2 + 2);
    judge(&mut a, &mut b, ratio, &plan(), &mut SplitMix::new(seed)).unwrap_or_else(|v| *v)
}

fn share(runs: u64, wanted: VerdictKind, of: impl Fn(u64) -> Verdict) -> f64 {
    (0..runs).filter(|seed| of(*seed).kind() == wanted).count() as f64 / runs as f64
}

#[test]
fn equal_speed_against_itself_is_corroborated() {
    let green = share(60, VerdictKind::Corroborated, |seed| verdict(1.0, 1.0, 0.02, seed));
    assert!(green >= 0.95, "{green}");
}

#[test]
fn equal_speed_is_hardly_ever_falsified_whatever_the_noise() {
    for noise in [0.01, 0.05, 0.3] {
        let red = share(100, VerdictKind::Falsified, |seed| verdict(1.0, 1.0, noise, seed));
        assert!(red <= 0.02, "{red} at noise {noise}");
    }
}

#[test]
fn a_slowdown_of_five_per_cent_is_falsified() {
    let red = share(60, VerdictKind::Falsified, |seed| verdict(1.05, 1.0, 0.02, seed));
    assert!(red >= 0.95, "{red}");
}

#[test]
fn a_large_claim_is_decided_at_the_first_look_through_much_noise() {
    let found = verdict(0.2, 1.5, 0.2, 1);
    assert_eq!(found.kind(), VerdictKind::Corroborated);
    assert_eq!(found.evidence().unwrap().comparisons, 15);
}

#[test]
fn a_claim_that_is_not_reached_is_falsified_and_says_by_how_much() {
    let found = verdict(0.8, 1.5, 0.01, 1);
    assert_eq!(found.kind(), VerdictKind::Falsified);
    assert!(found.summary().starts_with("1.2"), "{}", found.summary());
    assert!(found.evidence().unwrap().measures.iter().any(|measure| !measure.holds()));
}

#[test]
fn a_difference_below_the_noise_is_inconclusive_not_guessed() {
    let found = verdict(1.02, 1.0, 0.4, 3);
    assert_eq!(found.kind(), VerdictKind::Inconclusive);
    assert_eq!(found.evidence().unwrap().comparisons, 120, "every look was used");
}

#[test]
fn drift_of_the_machine_hits_both_sides_alike() {
    for seed in 0..20 {
        let mut a = Fake { drift: 0.01, ..Fake::new(1.0, 0.005, seed) };
        let mut b = Fake { drift: 0.01, ..Fake::new(1.0, 0.005, seed + 99) };
        let found = judge(&mut a, &mut b, 1.0, &plan(), &mut SplitMix::new(seed)).unwrap();
        assert_ne!(found.kind(), VerdictKind::Falsified, "{}", found.summary());
    }
}

#[test]
fn a_rival_that_differs_from_itself_decides_nothing() {
    let mut a = Fake::new(0.1, 0.001, 1);
    let mut b = Fake { drift: 0.5, ..Fake::new(1.0, 0.001, 2) };
    let found = judge(&mut a, &mut b, 1.0, &plan(), &mut SplitMix::new(0)).unwrap();
    assert_eq!(found.kind(), VerdictKind::Inconclusive);
    assert!(found.summary().contains("differs from itself"), "{}", found.summary());
}

#[test]
fn a_fast_wrong_answer_is_falsified() {
    let mut a = Fake::new(0.01, 0.01, 1);
    a.ids[3] = 9;
    let found = judge(&mut a, &mut Fake::new(1.0, 0.01, 2), 1.0, &plan(), &mut SplitMix::new(0));
    let found = *found.unwrap_err();
    assert_eq!(found.kind(), VerdictKind::Falsified);
    assert!(found.summary().contains("position 3"), "{}", found.summary());
}

#[test]
fn an_answer_that_changes_between_runs_is_falsified() {
    let mut a = Fake { flips_at: 12, ..Fake::new(0.5, 0.01, 1) };
    let found = judge(&mut a, &mut Fake::new(1.0, 0.01, 2), 1.0, &plan(), &mut SplitMix::new(0));
    assert!(found.unwrap_err().summary().contains("from the 3. answer on"));
}

#[test]
fn close_answers_may_turn_by_rounding_and_are_not_compared() {
    let step = |position, id, lead| Step { position, id, lead };
    let tested = [step(0, 1, 0.1), step(1, 2, 0.1)];
    let rival = [step(0, 7, 0.1), step(1, 2, 3.0), step(2, 5, 3.0)];
    assert_eq!(compare_answers(&tested, &rival).unwrap(), 1);
}

#[test]
fn no_pairs_are_broken_not_green() {
    let nothing = Plan { looks: Vec::new(), ..plan() };
    let (mut a, mut b) = (Fake::new(0.5, 0.01, 1), Fake::new(1.0, 0.01, 2));
    let found = judge(&mut a, &mut b, 1.0, &nothing, &mut SplitMix::new(0)).unwrap();
    assert_eq!(found.kind(), VerdictKind::Broken);
}

#[test]
fn a_clock_that_stands_still_is_broken_not_fast() {
    let (mut a, mut b) = (Fake::new(0.0, 0.01, 1), Fake::new(1.0, 0.01, 2));
    let found = judge(&mut a, &mut b, 1.0, &plan(), &mut SplitMix::new(0)).unwrap();
    assert_eq!(found.kind(), VerdictKind::Broken);
}

#[test]
fn the_same_seed_and_times_give_the_same_verdict() {
    assert_eq!(verdict(1.01, 1.0, 0.05, 5), verdict(1.01, 1.0, 0.05, 5));
}
