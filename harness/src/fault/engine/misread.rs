//! Hyper-parameters that are read wrongly: the weights and operations are right, what drives them is not.

use std::sync::Arc;

use apr_engine::model::{Activation, Config, Lm, LmOptions, Model, RopeScaling, Sliding};
use apr_engine::probe::Op;

use super::super::library::{Fault, info};
use super::super::{FaultInfo, Plant};
use super::{EngineFault, set_up};
use crate::judge::BackendSpec;

/// A hyper-parameter that is read wrongly.
#[derive(Clone, Copy, Debug)]
pub(in crate::fault) struct Misread {
    info: FaultInfo,
    change: fn(&mut Config),
}

impl Plant for Misread {
    fn id(&self) -> &str {
        self.info.id
    }

    fn lm(
        &self,
        model: &Model,
        spec: &BackendSpec,
        options: LmOptions,
    ) -> Option<apr_engine::Result<Box<dyn Lm>>> {
        let mut config = model.config().clone();
        (self.change)(&mut config);
        Some(set_up(EngineFault::Nothing, None, &config, model, spec, options))
    }
}

impl From<Misread> for Fault {
    fn from(fault: Misread) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn misread(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    op: Op,
    change: fn(&mut Config),
) -> Misread {
    let mut info = info(id, what, incidents);
    info.op = Some(op);
    Misread { info, change }
}

/// Changes the window, where there is one.
fn window(config: &mut Config, change: impl FnOnce(&mut usize)) {
    if let Some(window) = &mut config.window {
        change(&mut window.len);
    }
}

/// Every misread hyper-parameter.
pub(in crate::fault) const ALL: &[Misread] = &[
    misread(
        "engine/embedding-scale-missing",
        "the embedding is not multiplied by its factor",
        &["FI-26"],
        Op::Embed,
        |config| config.embedding_scale = None,
    ),
    misread(
        "engine/theta-assumed",
        "the base is 1,000,000 whatever the file states",
        &["FI-13"],
        Op::RopeQ,
        |config| config.rope.theta = 1e6,
    ),
    misread("engine/rotary-width", "whole heads are rotated", &["FI-11"], Op::RopeQ, |config| {
        config.rope.dims = config.head_dim;
    }),
    misread(
        "engine/rope-scaling-dropped",
        "frequencies are not stretched",
        &["FI-13"],
        Op::RopeQ,
        |config| config.rope.scaling = RopeScaling::None,
    ),
    misread(
        "engine/local-theta",
        "layers with a window rotate by the base of the others",
        &["FI-13"],
        Op::RopeQ,
        |config| {
            if let Some(local) = &mut config.local_rope {
                local.theta = config.rope.theta;
            }
        },
    ),
    misread(
        "engine/long-divisors-never",
        "long texts are rotated as short ones",
        &["FI-13"],
        Op::RopeQ,
        |config| {
            if let RopeScaling::Long(long) = &mut config.rope.scaling {
                long.original_context = usize::MAX;
            }
        },
    ),
    misread(
        "engine/long-divisors-always",
        "short texts are rotated as long ones",
        &["FI-13"],
        Op::RopeQ,
        |config| {
            if let RopeScaling::Long(long) = &mut config.rope.scaling {
                long.original_context = 0;
            }
        },
    ),
    misread(
        "engine/attention-factor-missing",
        "rotated values are not stretched",
        &["FI-13"],
        Op::RopeQ,
        |config| {
            if let RopeScaling::Long(long) = &mut config.rope.scaling {
                long.attention_factor = 1.0;
            }
        },
    ),
    misread(
        "engine/score-scale-of-head-size",
        "scores are divided by the root of the head size",
        &["FI-18"],
        Op::AttnScores,
        |config| config.score_scale = (1.0 / (config.head_dim as f64).sqrt()) as f32,
    ),
    misread(
        "engine/score-cap-missing",
        "scores have no soft cap",
        &["FI-60"],
        Op::AttnScores,
        |config| config.score_cap = None,
    ),
    misread(
        "engine/score-cap-zero",
        "the soft cap on scores is all but zero",
        &["FI-60"],
        Op::AttnScores,
        |config| config.score_cap = config.score_cap.map(|_| 1e-6),
    ),
    misread(
        "engine/window-infinite",
        "layers with a window see everything",
        &["FI-60"],
        Op::AttnScores,
        |config| window(config, |len| *len = usize::MAX),
    ),
    misread(
        "engine/window-too-long",
        "a window sees one position more",
        &["FI-08"],
        Op::AttnScores,
        |config| window(config, |len| *len += 1),
    ),
    misread(
        "engine/window-too-short",
        "a window sees one position less",
        &["FI-08"],
        Op::AttnScores,
        |config| window(config, |len| *len -= 1),
    ),
    misread(
        "engine/window-everywhere",
        "layers without a window have one",
        &["FI-77"],
        Op::AttnScores,
        |config| {
            if let Some(window) = &mut config.window {
                window.layers = Sliding::Every;
            }
        },
    ),
    misread(
        "engine/window-in-other-layers",
        "the layers with a window are the ones without",
        &["FI-77"],
        Op::AttnScores,
        |config| {
            if let Some(window) = &mut config.window {
                let layers = (0..config.layers).map(|layer| !window.is_on(layer));
                window.layers = Sliding::Listed(layers.collect());
            }
        },
    ),
    misread(
        "engine/gelu-is-silu",
        "the feed-forward gate is a SiLU in a family with GELU",
        &["FI-02"],
        Op::Swiglu,
        |config| config.activation = Activation::Silu,
    ),
    misread(
        "engine/logit-cap-missing",
        "logits have no soft cap",
        &["FI-46"],
        Op::Logits,
        |config| config.logit_cap = None,
    ),
    misread(
        "engine/logit-cap-zero",
        "the soft cap on logits is all but zero",
        &["FI-46"],
        Op::Logits,
        |config| config.logit_cap = config.logit_cap.map(|_| 1e-6),
    ),
];
