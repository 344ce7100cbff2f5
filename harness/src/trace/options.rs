//! What is traced.

use std::collections::BTreeSet;

use apr_engine::model::Config;
use apr_engine::probe::{Op, Site};

/// Which sites are traced, and how much of them is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ops.
    pub ops: BTreeSet<Op>,
    /// Layers; sites outside the layers are always among them.
    pub layers: BTreeSet<usize>,
    /// Also tells the first values of each site.
    pub verbose: bool,
}

/// Words for several ops.
const GROUPS: &[(&str, &[Op])] = &[
    ("all", Op::ALL),
    (
        "attention",
        &[
            Op::AttnNorm,
            Op::Q,
            Op::K,
            Op::V,
            Op::RopeQ,
            Op::RopeK,
            Op::AttnScores,
            Op::AttnOut,
            Op::OProj,
        ],
    ),
    ("logit", &[Op::FfnResidual, Op::FinalNorm, Op::Logits]),
    (
        "transformer_block",
        &[
            Op::AttnNorm,
            Op::AttnOut,
            Op::OProj,
            Op::AttnResidual,
            Op::FfnNorm,
            Op::Swiglu,
            Op::Down,
            Op::FfnResidual,
        ],
    ),
];

impl Options {
    /// Everything, in every layer of a model.
    pub fn all(config: &Config) -> Self {
        let ops = Op::ALL.iter().copied().collect();
        Self { ops, layers: (0..config.layers).collect(), verbose: false }
    }

    /// The sites named in `sites`, in `layers` or, when that is empty, in all of them.
    ///
    /// # Errors
    /// What is wrong, for a name that is neither an op nor a group, and for a layer that the model does not have.
    pub fn new(
        sites: &[String],
        layers: &[usize],
        verbose: bool,
        config: &Config,
    ) -> Result<Self, String> {
        let mut ops = BTreeSet::new();
        for name in sites {
            ops.extend(named(name)?);
        }
        if let Some(layer) = layers.iter().find(|layer| **layer >= config.layers) {
            return Err(format!("no layer {layer}: the model has {}, from 0", config.layers));
        }
        let every = Self::all(config);
        let layers =
            if layers.is_empty() { every.layers } else { layers.iter().copied().collect() };
        Ok(Self { ops: if sites.is_empty() { every.ops } else { ops }, layers, verbose })
    }

    /// Whether a site is traced.
    pub fn has(&self, site: Site) -> bool {
        self.ops.contains(&site.op) && site.layer.is_none_or(|layer| self.layers.contains(&layer))
    }
}

fn named(name: &str) -> Result<Vec<Op>, String> {
    if name == "activation" {
        let values = |op: &&Op| !matches!(**op, Op::AttnScores | Op::Logits);
        return Ok(Op::ALL.iter().filter(values).copied().collect());
    }
    if let Some((_, ops)) = GROUPS.iter().find(|(group, _)| *group == name) {
        return Ok(ops.to_vec());
    }
    let unknown = || {
        let groups = GROUPS.iter().map(|(group, _)| *group);
        let ops = Op::ALL.iter().map(|op| op.name());
        let known: Vec<&str> = groups.chain(["activation"]).chain(ops).collect();
        format!("no site {name:?} to trace; there are: {}", known.join(", "))
    };
    Op::from_name(name).map(|op| vec![op]).ok_or_else(unknown)
}
