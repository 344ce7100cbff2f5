//! The whole comparison of two sides: tokens, every site at every position, logits, and the first site where they part.

use std::borrow::Cow;
use std::collections::BTreeSet;

use apr_engine::backend::CacheType;
use apr_engine::model::{Config, RopeScaling, RopeStyle};
use apr_engine::probe::Site;
use schemars::JsonSchema;
use serde::Serialize;

use super::allowance::{Rounding, allowance};
use super::logits::Logits;
use super::side::{Side, Source, reordered};
use super::sites::{Bound, SiteReport, SiteStatus, inherit, report};
use super::vote::{Vote, Voter, oracle, vote};
use crate::fault::HarnessFault;
use crate::recording::{Recording, order, record, record_given, stepped, whole};

/// How two sides are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Judge sites by the largest absolute difference of the two passes, at most this; without it by local errors and what
    /// rounding may do.
    pub max_abs: Option<f64>,
    /// Whether the oracle is asked who is wrong where the sides part; it computes slowly.
    pub vote: bool,
    /// A planted defect of the comparison itself.
    pub fault: Option<HarnessFault>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_abs: None, vote: true, fault: None }
    }
}

/// The token ids of both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tokens {
    /// Ids that the source's tokenizer gives, or that were recorded. Both sides read these.
    pub source: Vec<u32>,
    /// Ids that the target's tokenizer gives; the same when it was not asked.
    pub target: Vec<u32>,
}

impl Tokens {
    /// The first place where the ids differ.
    pub fn first_difference(&self) -> Option<usize> {
        let longest = self.source.len().max(self.target.len());
        (0..longest).find(|&at| self.source.get(at) != self.target.get(at))
    }
}

/// Where two sides part.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct First {
    /// Site.
    pub site: String,
    /// The first position that is too far off.
    pub position: usize,
    /// Worst local error of a row; absent when it is infinite.
    pub local: Option<f64>,
    /// The largest error that would have passed.
    pub allowed: f64,
    /// What the target had inherited there; absent when it is infinite.
    pub inherited: Option<f64>,
    /// What the oracle says; absent when it was not asked or could not start.
    pub vote: Option<Vote>,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Comparison {
    /// The source.
    pub source: String,
    /// The target.
    pub target: String,
    /// Tokens.
    pub tokens: Tokens,
    /// Sites in the order of the forward pass.
    pub sites: Vec<SiteReport>,
    /// Logits; absent when one side did not get there.
    pub logits: Option<Logits>,
    /// The first site where the sides part.
    pub first: Option<First>,
    /// Rows compared over all sites. Zero is never agreement.
    pub rows: u64,
    /// Whether one side ended early where the other did not.
    pub ended_apart: bool,
    /// What a reader should know: a pass that ended early.
    pub notes: Vec<String>,
}

impl Comparison {
    /// Whether tokens or a site differ by more than rounding, or one side ended early.
    pub fn diverges(&self) -> bool {
        self.ended_apart
            || self.tokens.first_difference().is_some()
            || self.sites.iter().any(|site| site.status == SiteStatus::Mismatch)
    }

    /// Whether something was compared and nothing was left out. What is not complete never agrees.
    pub fn is_complete(&self) -> bool {
        self.rows > 0
            && self.notes.is_empty()
            && self.sites.iter().all(|site| site.status != SiteStatus::NotCompared)
    }

    /// Whether every site was compared and every bit is the same.
    pub fn is_zero(&self) -> bool {
        self.is_complete()
            && self.tokens.first_difference().is_none()
            && self.sites.iter().all(|site| site.total.is_zero() && site.local.is_zero())
    }
}

/// Compares `target` with `source` over `tokens`, of which both read the source's; recorded values bring their own.
///
/// # Errors
/// Those of setting a model up on its backend.
pub fn compare(
    source: &Source<'_>,
    target: &Side<'_>,
    tokens: Tokens,
    options: Options,
) -> apr_engine::Result<Comparison> {
    let passes = Passes::run(source, target, &tokens.source)?;
    let mut sites: Vec<SiteReport> = passes
        .sites(source)
        .into_iter()
        .map(|site| {
            let bound = match options.max_abs {
                Some(limit) => Bound::MaxAbs(limit),
                None => Bound::Local(allowance(site, rounding(source), rounding_of(target))),
            };
            let Passes { source, target, local, .. } = &passes;
            report(site, source, target, local, bound, options.fault)
        })
        .collect();
    if options.max_abs.is_none() {
        inherit(&mut sites);
    }
    let first = sites.iter().find(|site| site.status == SiteStatus::Mismatch);
    let first = first.map(|found| passes.first(source, target, found, options));
    Ok(Comparison {
        source: name(source).to_owned(),
        target: target.name.clone(),
        logits: Logits::new(&passes.source, &passes.target, target.model.tokenizer().ok()),
        ended_apart: passes.source.ended.is_some() != passes.target.ended.is_some(),
        rows: sites.iter().map(|site| site.local.rows).sum(),
        notes: passes.notes(),
        tokens,
        sites,
        first,
    })
}

fn name<'s>(source: &'s Source<'_>) -> &'s str {
    match source {
        Source::Model(side) => &side.name,
        Source::Recorded(recorded) => &recorded.name,
    }
}

fn rounding<'s>(source: &'s Source<'_>) -> Rounding<'s> {
    match source {
        Source::Model(side) => rounding_of(side),
        // What is recorded was computed in f32 throughout.
        Source::Recorded(_) => Rounding { model: None, exact: true, cache_type: CacheType::F32 },
    }
}

fn rounding_of<'s>(side: &'s Side<'_>) -> Rounding<'s> {
    Rounding { model: Some(side.model), exact: side.exact, cache_type: side.cache_type }
}

/// The tokens in parts, as prompts and answers come; at once where a model turns its cache anew when a text becomes long:
/// what it computes then is not what it was given.
fn parts<'a>(tokens: &'a [u32], models: [&Config; 2]) -> Vec<&'a [u32]> {
    let turns = |config: &Config| match &config.rope.scaling {
        RopeScaling::Long(long) => tokens.len() > long.original_context,
        _ => false,
    };
    if models.into_iter().any(turns) { whole(tokens) } else { stepped(tokens) }
}

/// The passes of both sides, all in the order in which the target rotates.
struct Passes<'a> {
    parts: Vec<&'a [u32]>,
    source: Recording,
    target: Recording,
    /// The target's operations on the source's inputs.
    local: Recording,
}

impl<'a> Passes<'a> {
    fn run(source: &Source<'_>, target: &Side<'_>, tokens: &'a [u32]) -> apr_engine::Result<Self> {
        let config = target.model.config();
        let (parts, own, style) = match source {
            Source::Model(side) => {
                let parts = parts(tokens, [side.model.config(), config]);
                let own = record(&mut *(side.start)()?, &parts, &|_| true);
                (parts, own, side.model.config().rope.style)
            }
            Source::Recorded(recorded) => {
                let sites = recorded.sites.sites.clone();
                (whole(tokens), Recording { sites, ended: None }, RopeStyle::Neox)
            }
        };
        let source = reordered(&own, style, config.rope.style, config).into_owned();
        let seen = record(&mut *(target.start)()?, &parts, &|_| true);
        let local = record_given(&mut *(target.start)()?, &parts, &source);
        Ok(Self { parts, source, target: seen, local })
    }

    /// The sites to compare: those of either side, or those that somebody recorded.
    fn sites(&self, source: &Source<'_>) -> Vec<Site> {
        let mut sites: BTreeSet<Site> = self.source.sites.keys().copied().collect();
        if matches!(source, Source::Model(_)) {
            sites.extend(self.target.sites.keys().chain(self.local.sites.keys()));
        }
        let mut sites: Vec<Site> = sites.into_iter().collect();
        sites.sort_unstable_by_key(|site| order(*site));
        sites
    }

    fn notes(&self) -> Vec<String> {
        let sides = [
            ("source", &self.source),
            ("target", &self.target),
            ("target on the source's inputs", &self.local),
        ];
        let ended = sides.iter().filter_map(|(side, seen)| Some((side, seen.ended.as_ref()?)));
        ended.map(|(side, error)| format!("the {side} ended early: {error}")).collect()
    }

    /// The first site where the sides part.
    fn first(
        &self,
        source: &Source<'_>,
        target: &Side<'_>,
        found: &SiteReport,
        options: Options,
    ) -> First {
        let site = Site::from_name(&found.site).filter(|_| options.vote);
        First {
            site: found.site.clone(),
            position: found.first_position(),
            local: found.local.nmse_worst_row,
            allowed: found.allowed,
            inherited: found.inherited,
            vote: site.and_then(|site| self.vote(source, target, site)),
        }
    }

    /// Who is wrong at `site`; nothing when the oracle cannot start.
    fn vote(&self, source: &Source<'_>, target: &Side<'_>, site: Site) -> Option<Vote> {
        let exact = |side: Rounding<'_>| allowance(site, side, Rounding { exact: true, ..side });
        let ours = match source {
            // What the oracle computed once it computes again.
            Source::Model(side) if side.exact => Some(Cow::Borrowed(&self.source)),
            Source::Model(side) => Some(Cow::Owned(self.oracle_of(side, target)?)),
            Source::Recorded(_) => None,
        };
        let theirs = oracle(target.model, target.cache_type, &self.parts, &self.source)?;
        let allowed = exact(rounding_of(target));
        Some(vote(
            site,
            Voter {
                model: rounding(source).model,
                seen: &self.source,
                oracle: ours.as_deref(),
                allowed: exact(rounding(source)).max(allowed),
            },
            Voter { model: Some(target.model), seen: &self.local, oracle: Some(&theirs), allowed },
        ))
    }

    /// What the oracle makes of the source's inputs with the source's weights, in the order of the target.
    fn oracle_of(&self, source: &Side<'_>, target: &Side<'_>) -> Option<Recording> {
        let config = target.model.config();
        let (style, own) = (config.rope.style, source.model.config().rope.style);
        let given = reordered(&self.source, style, own, config);
        let seen = oracle(source.model, source.cache_type, &self.parts, &given)?;
        Some(reordered(&seen, own, style, config).into_owned())
    }
}
