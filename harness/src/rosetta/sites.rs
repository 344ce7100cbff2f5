//! Distances of two recordings, site by site and position by position.

use apr_engine::probe::{Op, Site};
use schemars::JsonSchema;
use serde::Serialize;

use crate::compare::{RowError, RowPlace, Tally};
use crate::fault::HarnessFault;
use crate::recording::Recording;

/// How far two recordings of a site lie apart. Figures that are not finite are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Distance {
    /// Rows compared.
    pub rows: u64,
    /// Values compared.
    pub values: u64,
    /// Worst normalised mean squared error of a row; absent when it is infinite.
    pub nmse_worst_row: Option<f64>,
    /// Position of that row.
    pub position: usize,
    /// Largest absolute difference; absent when it is infinite.
    pub max_abs: Option<f64>,
    /// Smallest cosine of a row.
    pub cosine: f64,
    /// Values whose kind (finite, which infinity, NaN) differs.
    pub mask_mismatches: u64,
    /// Values whose bits differ.
    pub bits_differ: u64,
    /// Rows that are there on one side only, or have another width.
    pub shape_mismatches: u64,
}

impl Distance {
    /// The worst error of a row; infinite when rows do not fit together.
    pub fn worst(&self) -> f64 {
        if self.shape_mismatches > 0 {
            return f64::INFINITY;
        }
        self.nmse_worst_row.unwrap_or(f64::INFINITY)
    }

    /// Whether something was compared and every bit is the same.
    pub fn is_zero(&self) -> bool {
        self.rows > 0
            && self.bits_differ == 0
            && self.shape_mismatches == 0
            && self.mask_mismatches == 0
    }
}

impl SiteReport {
    /// The first position whose local error is beyond what is allowed; that of the worst row where none is.
    pub fn first_position(&self) -> usize {
        let beyond = |error: &Option<f64>| error.is_none_or(|error| error > self.allowed);
        self.local_by_position.iter().position(beyond).unwrap_or(self.local.position)
    }
}

impl From<&Tally> for Distance {
    fn from(tally: &Tally) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        Self {
            rows: tally.rows,
            values: tally.values,
            nmse_worst_row: finite(tally.nmse_worst.0),
            position: tally.nmse_worst.1.position,
            max_abs: finite(tally.max_abs),
            cosine: tally.cosine,
            mask_mismatches: tally.mask_mismatches,
            bits_differ: tally.bits_differ,
            shape_mismatches: tally.shape_mismatches().len() as u64,
        }
    }
}

/// What a site is called after comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SiteStatus {
    /// The same bits.
    Match,
    /// Apart by no more than rounding.
    WithinThreshold,
    /// The operation is within rounding on the same inputs, but its inputs already parted at an earlier site.
    Inherited,
    /// Further apart.
    Mismatch,
    /// One of the sides did not get there, or did not report it.
    NotCompared,
}

impl SiteStatus {
    /// Words of the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Match => "MATCH",
            Self::WithinThreshold => "WITHIN THRESHOLD",
            Self::Inherited => "INHERITED",
            Self::Mismatch => "MISMATCH",
            Self::NotCompared => "NOT COMPARED",
        }
    }
}

/// A site and its errors.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct SiteReport {
    /// Name, as `layers.0.attn_norm`.
    pub site: String,
    /// Layer; absent outside of them.
    pub layer: Option<usize>,
    /// Point of the forward pass.
    pub op: String,
    /// The two passes against each other.
    pub total: Distance,
    /// The target's operation on the source's inputs against the source.
    pub local: Distance,
    /// Worst error of a row that the target had before the operation: its own result against its result on the source's
    /// inputs. Absent when it is infinite.
    pub inherited: Option<f64>,
    /// Largest local error that passes; where a largest absolute difference was asked for, that one.
    pub allowed: f64,
    /// What that makes of it.
    pub status: SiteStatus,
    /// Total error of each position; absent where it is infinite.
    pub total_by_position: Vec<Option<f64>>,
    /// Local error of each position.
    pub local_by_position: Vec<Option<f64>>,
    /// The first values of the source's first row; absent where they are not finite.
    pub source_values: Vec<Option<f32>>,
    /// The first values of the target's first row.
    pub target_values: Vec<Option<f32>>,
}

/// Values of the first row that reports show.
const SHOWN: usize = 5;

/// Rows of `tested` against those of `reference` at one site, under a defect of the comparison itself if one is planted. Rows
/// that a pass did not get to are not compared; rows that are missing otherwise are as wrong as can be.
pub(super) fn distance(
    site: Site,
    reference: &Recording,
    tested: &Recording,
    fault: Option<HarnessFault>,
) -> (Tally, Vec<Option<f64>>) {
    let mut tally = Tally::with_fault(fault);
    let mut by_position = Vec::new();
    let (expected, found) = (reference.rows(site), tested.rows(site));
    let ended = reference.ended.is_some() || tested.ended.is_some();
    let rows = if ended { usize::min } else { usize::max };
    for position in 0..rows(expected.len(), found.len()) {
        let row = |rows: &[Vec<f32>]| rows.get(position).cloned().unwrap_or_default();
        let (expected, found) = (row(expected), row(found));
        let error = RowError::new(&expected, &found).map_or(f64::INFINITY, |error| error.nmse);
        by_position.push(error.is_finite().then_some(error));
        let place = RowPlace { label: site.to_string(), position };
        if site.op == Op::Logits {
            tally.add_logits(place, &expected, &found);
        } else {
            tally.add(place, &expected, &found);
        }
    }
    (tally, by_position)
}

/// How a site is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// By the worst local error of a row.
    Local(f64),
    /// By the largest absolute difference of the two passes.
    MaxAbs(f64),
}

impl Bound {
    /// "Fail unless": what is not a number is no match.
    fn judge(self, total: &Distance, local: &Distance) -> SiteStatus {
        let (judged, holds) = match self {
            Self::Local(limit) => (local, local.worst() <= limit),
            Self::MaxAbs(limit) => (total, total.max_abs.is_some_and(|found| found <= limit)),
        };
        if judged.is_zero() && total.is_zero() {
            SiteStatus::Match
        } else if holds && judged.shape_mismatches == 0 && judged.mask_mismatches == 0 {
            SiteStatus::WithinThreshold
        } else {
            SiteStatus::Mismatch
        }
    }
}

/// Behind the first site where the sides part, what is only passed on is told from what agrees.
pub(super) fn inherit(sites: &mut [SiteReport]) {
    let parted = |site: &SiteReport| site.status == SiteStatus::Mismatch;
    let behind = sites.iter().position(parted).map_or(sites.len(), |first| first + 1);
    for site in &mut sites[behind..] {
        if site.status == SiteStatus::WithinThreshold && site.total.worst() > site.allowed {
            site.status = SiteStatus::Inherited;
        }
    }
}

/// Both errors of a site. `local` is what the target made of the source's inputs.
pub(super) fn report(
    site: Site,
    source: &Recording,
    target: &Recording,
    local: &Recording,
    bound: Bound,
    fault: Option<HarnessFault>,
) -> SiteReport {
    let (total, total_by_position) = distance(site, source, target, fault);
    let (own, local_by_position) = distance(site, source, local, fault);
    let inherited = distance(site, local, target, fault).0.nmse_worst.0;
    let (total, own) = (Distance::from(&total), Distance::from(&own));
    let status = if own.rows == 0 && own.shape_mismatches == 0 {
        SiteStatus::NotCompared
    } else {
        bound.judge(&total, &own)
    };
    let first = |recording: &Recording| -> Vec<Option<f32>> {
        let row = recording.rows(site).first();
        let values = row.into_iter().flatten().take(SHOWN);
        values.map(|value| value.is_finite().then_some(*value)).collect()
    };
    SiteReport {
        site: site.to_string(),
        layer: site.layer,
        op: site.op.name().to_owned(),
        total,
        local: own,
        inherited: inherited.is_finite().then_some(inherited),
        allowed: match bound {
            Bound::Local(limit) | Bound::MaxAbs(limit) => limit,
        },
        status,
        total_by_position,
        local_by_position,
        source_values: first(source),
        target_values: first(target),
    }
}
