//! Operations as a profile tells of them: the bricks of the format sheet, and what belongs to none of these by the name of
//! its site.

use std::collections::BTreeMap;

use apr_engine::probe::{Op, Probe, Site, Tap};
use schemars::JsonSchema;
use serde::Serialize;

use super::Layer;
use crate::sheet::brick::{Brick as Group, spread};

/// One kind of operation.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Brick {
    /// Name.
    pub name: String,
    /// How often it ran.
    pub count: u64,
    /// Of all runs.
    pub total_ns: u64,
    /// The shortest run.
    pub min_ns: u64,
    /// The longest run.
    pub max_ns: u64,
    /// Values that it computed, in all runs.
    pub total_elements: u64,
    /// Share of the sum over all bricks.
    pub share: f64,
    /// Population deviation over mean of what it takes of a pass; absent where that is nothing.
    pub cv: Option<f64>,
}

/// Counts the values of a pass by op.
#[derive(Debug, Default)]
pub(super) struct Elements(BTreeMap<Op, u64>);

impl Probe for Elements {
    fn wants(&self, site: Site) -> bool {
        // Where probabilities are kept, attention takes another way.
        site.op != Op::AttnScores
    }

    fn tap(&mut self, tap: Tap<'_>) {
        *self.0.entry(tap.site.op).or_default() += tap.values.len() as u64;
    }
}

/// Runs of one brick in all passes.
#[derive(Debug, Default)]
struct Runs {
    count: u64,
    total: u64,
    min: u64,
    max: u64,
    /// What it took of each pass.
    passes: Vec<f64>,
}

/// One run of one brick.
struct Run<'g> {
    layer: Option<usize>,
    name: &'g str,
    /// The sites that were passed.
    ops: Vec<Op>,
    took: u64,
}

/// Everything that ran.
pub(super) struct Tally<'g> {
    groups: BTreeMap<Op, &'g str>,
    /// Values of a pass.
    elements: Elements,
    bricks: BTreeMap<&'g str, Runs>,
    /// In the order of computation.
    layers: Vec<Layer>,
    passes: usize,
}

impl<'g> Tally<'g> {
    /// Nothing yet, of passes with so many `elements`.
    pub(super) fn new(groups: &'g [Group], elements: Elements) -> Self {
        let named = |group: &'g Group| {
            let ops = group.passes.iter().flatten().filter_map(|name| Op::from_name(name));
            ops.map(|op| (op, group.brick.as_str()))
        };
        Self {
            groups: groups.iter().flat_map(named).collect(),
            elements,
            bricks: BTreeMap::new(),
            layers: Vec::new(),
            passes: 0,
        }
    }

    /// Takes in a pass by its times from site to site.
    pub(super) fn add(&mut self, times: &[(Site, u64)]) {
        self.passes += 1;
        for run in self.runs(times) {
            self.add_to_layer(&run);
            let runs = self
                .bricks
                .entry(run.name)
                .or_insert_with(|| Runs { min: u64::MAX, ..Runs::default() });
            runs.count += 1;
            runs.total += run.took;
            runs.min = runs.min.min(run.took);
            runs.max = runs.max.max(run.took);
            // A brick that did not run in earlier passes took nothing of them.
            runs.passes.resize(self.passes, 0.0);
            runs.passes[self.passes - 1] += run.took as f64;
        }
    }

    fn name(&self, op: Op) -> &'g str {
        self.groups.get(&op).copied().unwrap_or(op.name())
    }

    /// Neighbouring sites of one brick are one run; the same site once more begins another.
    fn runs(&self, times: &[(Site, u64)]) -> Vec<Run<'g>> {
        let mut runs: Vec<Run<'g>> = Vec::new();
        for &(Site { layer, op }, took) in times {
            let name = self.name(op);
            match runs.last_mut() {
                Some(last)
                    if (last.layer, last.name) == (layer, name) && !last.ops.contains(&op) =>
                {
                    last.took += took;
                    last.ops.push(op);
                }
                _ => runs.push(Run { layer, name, ops: vec![op], took }),
            }
        }
        runs
    }

    fn add_to_layer(&mut self, run: &Run<'_>) {
        let site = run.ops[0].name();
        let known = |layer: &Layer| layer.bricks.iter().any(|brick| brick.site == site);
        let same =
            |layer: &Layer| layer.layer == run.layer && (run.layer.is_some() || known(layer));
        let place = self.layers.iter().position(same).unwrap_or_else(|| {
            self.layers.push(Layer { layer: run.layer, total_ns: 0, bricks: Vec::new() });
            self.layers.len() - 1
        });
        self.layers[place].add(run.name, site, run.took);
    }

    /// The bricks, longest first, and the layers.
    pub(super) fn told(self) -> (Vec<Brick>, Vec<Layer>) {
        let sum: u64 = self.bricks.values().map(|runs| runs.total).sum();
        let elements = |name: &str| {
            let of = self.elements.0.iter().filter(|(op, _)| self.name(**op) == name);
            of.map(|(_, of_a_pass)| of_a_pass * self.passes as u64).sum()
        };
        let told = |(name, runs): (&&str, &Runs)| Brick {
            name: (*name).to_owned(),
            count: runs.count,
            total_ns: runs.total,
            min_ns: runs.min,
            max_ns: runs.max,
            total_elements: elements(name),
            share: runs.total as f64 / sum.max(1) as f64,
            cv: spread(&runs.passes),
        };
        let mut bricks: Vec<Brick> = self.bricks.iter().map(told).collect();
        bricks.sort_by_key(|brick| std::cmp::Reverse(brick.total_ns));
        (bricks, self.layers)
    }
}
