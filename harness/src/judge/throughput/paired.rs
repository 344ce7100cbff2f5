//! Paired, interleaved measurement and its three-way decision.
//!
//! The tested side and its rival run by turns in the order ABBA, so that whatever slows the machine slows both. Each pair gives one
//! logarithm of a time ratio; the median of these is held against the claim. The rival's own neighbouring runs are the
//! calibration: a ruler that shows a difference between the rival and itself decides nothing. Nothing here knows an engine.

use super::super::context::Look;
use crate::stats::{Bounds, Decision, Plan, SplitMix, median, spread};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Fewest and most runs of a side before it is measured.
const WARM_UP: (usize, usize) = (3, 10);
/// A side is warm when one more run moves the median by less than this share.
const WARM: f64 = 0.01;
/// Answers are compared where the rival's lead is at least this many deviations of its row: closer ones may turn by rounding.
const CLEAR_LEAD: f64 = 0.5;

/// Seconds per token of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// By the clock that is judged.
    pub(super) judged: f64,
    /// By the wall, for the report.
    pub(super) wall: f64,
}

/// What a side answers at one position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Position in the script.
    pub(super) position: usize,
    /// The most likely token.
    pub(super) id: u32,
    /// Its lead over the second, in deviations of the row.
    pub(super) lead: f64,
}

/// One side of the comparison.
pub(super) trait Side {
    /// What it is, for reports.
    fn label(&self) -> String;
    /// Runs once, untimed, and tells its answers.
    fn observe(&mut self) -> Look<Vec<Step>>;
    /// Runs once, timed, and tells which tokens it chose.
    fn measure(&mut self) -> Look<(Sample, Vec<u32>)>;
}

/// Judges whether `tested` is at least `ratio` times as fast per token as `rival`.
pub(super) fn judge(
    tested: &mut dyn Side,
    rival: &mut dyn Side,
    ratio: f64,
    plan: &Plan,
    rng: &mut SplitMix,
) -> Look<Verdict> {
    let answers = (tested.observe()?, rival.observe()?);
    let compared = compare_answers(&answers.0, &answers.1)?;
    let ids = |steps: &[Step]| steps.iter().map(|step| step.id).collect::<Vec<u32>>();
    let mut tested = Checked { side: tested, expected: ids(&answers.0) };
    let mut rival = Checked { side: rival, expected: ids(&answers.1) };
    tested.warm_up()?;
    rival.warm_up()?;
    let mut pairs = Pairs::default();
    let tested_first = rng.below(2);
    let mut found = None;
    for look in &plan.looks {
        while pairs.tested.len() < *look {
            // ABBA: the order turns with every pair.
            let tested_first = (pairs.tested.len() + tested_first).is_multiple_of(2);
            pairs.take(&mut tested, &mut rival, tested_first)?;
        }
        found = plan.decide(&pairs.slowdowns(ratio), rng);
        if !matches!(found, Some((Decision::Open, _))) {
            break;
        }
    }
    let labels = (tested.side.label(), rival.side.label());
    Ok(Report { pairs, ratio, plan, compared, labels }.verdict(found, rng))
}

/// How many clear answers were compared.
///
/// # Errors
/// Falsified, when one differs: speed at the price of the answer is no speed.
fn compare_answers(tested: &[Step], rival: &[Step]) -> Look<usize> {
    let mut compared = 0;
    for theirs in rival.iter().filter(|step| step.lead >= CLEAR_LEAD) {
        let Some(ours) = tested.iter().find(|step| step.position == theirs.position) else {
            continue;
        };
        compared += 1;
        if ours.id != theirs.id {
            let summary = format!(
                "the answer at position {} is token {}, the rival's is {} with a lead of {:.1} deviations",
                ours.position, ours.id, theirs.id, theirs.lead
            );
            return Err(wrong_answers(compared as u64, summary));
        }
    }
    Ok(compared)
}

fn wrong_answers(compared: u64, summary: String) -> Box<Verdict> {
    let measure = Measure::judged("wrong-answers", 1.0, Limit::Exactly(0.0));
    Box::new(Verdict::Falsified(Evidence::new(compared, summary).measure(measure)))
}

/// A side whose every run must give the answers of its first.
struct Checked<'a> {
    side: &'a mut dyn Side,
    expected: Vec<u32>,
}

impl Checked<'_> {
    fn run(&mut self) -> Look<Sample> {
        let (sample, ids) = self.side.measure()?;
        if ids == self.expected {
            return Ok(sample);
        }
        let at = ids.iter().zip(&self.expected).position(|(now, first)| now != first);
        let summary = format!(
            "{}: the same run gave other tokens, from {} on",
            self.side.label(),
            at.map_or("their number".to_owned(), |at| format!("the {}. answer", at + 1))
        );
        Err(wrong_answers(ids.len().max(1) as u64, summary))
    }

    fn warm_up(&mut self) -> Look<()> {
        let mut times = Vec::new();
        let mut before = f64::INFINITY;
        while times.len() < WARM_UP.1 {
            times.push(self.run()?.judged);
            let now = median(&times).unwrap_or_default();
            if times.len() >= WARM_UP.0 && (now - before).abs() < WARM * before {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

/// Samples of both sides, by pair.
#[derive(Default)]
struct Pairs {
    tested: Vec<Sample>,
    rival: Vec<Sample>,
}

impl Pairs {
    fn take(&mut self, a: &mut Checked<'_>, b: &mut Checked<'_>, a_first: bool) -> Look<()> {
        if a_first {
            self.tested.push(a.run()?);
            self.rival.push(b.run()?);
        } else {
            self.rival.push(b.run()?);
            self.tested.push(a.run()?);
        }
        Ok(())
    }

    /// ln(claimed ratio · tested time / rival's time) per pair: above nought is slower than claimed.
    fn slowdowns(&self, ratio: f64) -> Vec<f64> {
        self.ratios(|sample| sample.judged).iter().map(|effect| effect + ratio.ln()).collect()
    }

    fn ratios(&self, time: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.tested.iter().zip(&self.rival).map(|(a, b)| (time(a) / time(b)).ln()).collect()
    }

    /// The rival against itself: ln of the ratios of its neighbouring runs. Neighbouring ratios share a run and move against each
    /// other, which makes their bounds wider than they need be, never narrower.
    fn calibration(&self) -> Vec<f64> {
        self.rival.windows(2).map(|two| (two[0].judged / two[1].judged).ln()).collect()
    }
}

/// Everything a verdict is written from.
struct Report<'a> {
    pairs: Pairs,
    ratio: f64,
    plan: &'a Plan,
    /// Answers that were compared.
    compared: usize,
    labels: (String, String),
}

impl Report<'_> {
    fn verdict(&self, found: Option<(Decision, Bounds)>, rng: &mut SplitMix) -> Verdict {
        let count = self.pairs.tested.len();
        let Some((decision, bounds)) = found else {
            let why = "no pairs were taken, or a clock gave no time";
            return Verdict::broken(format!("nothing was measured in {count} pairs: {why}"));
        };
        let calibration = self.pairs.calibration();
        let crooked = self
            .plan
            .bounds(&calibration, rng)
            .is_none_or(|own| own.lower > self.plan.margin || own.upper < -self.plan.margin);
        let evidence = self.evidence(bounds, &calibration);
        if crooked {
            let summary = format!("the rival differs from itself; {}", evidence.summary);
            return Verdict::Inconclusive(Evidence { summary, ..evidence });
        }
        match decision {
            Decision::Slower => Verdict::Falsified(evidence),
            // The bound is strictly inside the limit, so the judged measure holds.
            Decision::Kept => evidence.verdict(),
            Decision::Open => Verdict::Inconclusive(evidence),
        }
    }

    fn evidence(&self, bounds: Bounds, calibration: &[f64]) -> Evidence {
        let speed = |slowdown: f64| self.ratio * (-slowdown).exp();
        let count = self.pairs.tested.len();
        let detectable = self.plan.smallest_detectable(bounds);
        let summary = format!(
            "{:.2} times as fast as the rival, at least {:.2} with 99 % confidence, {:.2} claimed; {count} pairs",
            speed(bounds.median),
            speed(bounds.upper),
            self.ratio
        );
        let milliseconds = |samples: &[Sample]| {
            let times: Vec<f64> = samples.iter().map(|sample| sample.judged * 1e3).collect();
            median(&times).unwrap_or(f64::NAN)
        };
        let wall = median(&self.pairs.ratios(|sample| sample.wall)).unwrap_or(f64::NAN);
        let limit = Limit::AtLeast(speed(self.plan.effect));
        Evidence::new(count as u64, summary)
            .measure(Measure::judged("speed-ratio-lower-bound", speed(bounds.upper), limit))
            .measure(Measure::noted("speed-ratio", speed(bounds.median)))
            .measure(Measure::noted("speed-ratio-upper-bound", speed(bounds.lower)))
            .measure(Measure::noted("wall-speed-ratio", (-wall).exp()))
            .measure(Measure::noted("tested", milliseconds(&self.pairs.tested)).unit("ms/token"))
            .measure(Measure::noted("rival", milliseconds(&self.pairs.rival)).unit("ms/token"))
            .measure(
                Measure::noted("noise", 100.0 * spread(calibration).unwrap_or(f64::NAN)).unit("%"),
            )
            .measure(Measure::noted("smallest-detectable-slowdown", 100.0 * detectable).unit("%"))
            .measure(Measure::noted("answers-compared", self.compared as f64))
            .detail(format!("tested: {}", self.labels.0))
            .detail(format!("rival: {}", self.labels.1))
    }
}

#[cfg(test)]
mod tests;
