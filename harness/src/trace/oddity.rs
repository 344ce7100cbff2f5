//! What is odd about values.

use apr_engine::probe::Op;

use super::moments::Moments;
use super::payload::{Anomaly, Oddity};

/// Magnitude above which activations have exploded.
const EXPLOSION: f32 = 1e6;

/// What is odd about the values of a site.
pub(super) fn oddities(moments: &Moments, op: Op, site: &str) -> Vec<Anomaly> {
    let found = moments.statistics();
    let magnitude = moments.magnitude();
    let odd = [
        (Oddity::Nan, found.nan > 0, found.nan as f64),
        (Oddity::Infinity, found.inf > 0, found.inf as f64),
        (Oddity::Explosion, magnitude > EXPLOSION, f64::from(magnitude)),
        // The first position looks at itself alone: there, equal attention is right.
        (Oddity::Collapse, moments.constant() && op != Op::AttnScores, f64::from(magnitude)),
    ];
    let place = || site.to_owned();
    odd.into_iter()
        .filter(|(_, is, _)| *is)
        .map(|(oddity, _, found)| Anomaly { oddity, place: place(), found: Some(found) })
        .collect()
}
