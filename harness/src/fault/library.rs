//! Every fault by its id.

use std::path::Path;
use std::sync::Arc;

use apr_engine::model::{Lm, LmOptions, Model};

use super::engine::{self, EngineFault};
use super::{FaultInfo, HarnessFault, Plant, SamplerFault, file, generation};
use crate::judge::BackendSpec;
use crate::subject::CommandOutput;

/// A fault that can be planted.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it is.
    pub info: FaultInfo,
    /// The seams it overrides.
    pub plant: Arc<dyn Plant>,
}

/// The control: overrides no seam, so every gate must stay as it is.
pub fn nothing() -> Fault {
    Engine { info: info("control/nothing", "nothing is wrong", &[]), fault: EngineFault::Nothing }
        .into()
}

/// The control of gates that measure time: not even a decorator stands in the way, whose own cost would be seen.
pub fn untouched() -> Fault {
    let info = info("control/untouched", "nothing is wrong", &[]);
    Fixture { info, mutate: |_, _| None }.into()
}

/// Every fault, sorted by id.
pub fn all() -> Vec<Fault> {
    let mut faults: Vec<Fault> = file::ALL
        .iter()
        .map(|fault| Fault { info: fault.info(), plant: Arc::new(*fault) })
        .chain(ENGINE.iter().map(|fault| Fault::from(*fault)))
        .chain(EXECUTABLE.iter().map(|fault| Fault::from(*fault)))
        .chain(FIXTURE.iter().map(|fault| Fault::from(*fault)))
        .chain(SAMPLER.iter().map(|fault| Fault::from(*fault)))
        .chain(
            generation::ALL
                .iter()
                .map(|fault| Fault { info: fault.info(), plant: Arc::new(*fault) }),
        )
        .chain(HARNESS.iter().map(|fault| Fault::from(*fault)))
        .collect();
    faults.sort_by_key(|fault| fault.info.id);
    faults
}

/// The fault called `id`.
pub fn by_id(id: &str) -> Option<Fault> {
    all().into_iter().find(|fault| fault.info.id == id)
}

const fn info(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
) -> FaultInfo {
    FaultInfo { id, what, incidents, loads: true }
}

/// A fault of the engine.
#[derive(Clone, Copy, Debug)]
struct Engine {
    info: FaultInfo,
    fault: EngineFault,
}

impl Plant for Engine {
    fn id(&self) -> &str {
        self.info.id
    }

    fn lm(
        &self,
        model: &Model,
        spec: &BackendSpec,
        options: LmOptions,
    ) -> Option<apr_engine::Result<Box<dyn Lm>>> {
        Some(engine::faulty_lm(self.fault, model, spec, options))
    }
}

impl From<Engine> for Fault {
    fn from(fault: Engine) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn defect(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: EngineFault,
) -> Engine {
    Engine { info: info(id, what, incidents), fault }
}

const ENGINE: &[Engine] = &[
    defect(
        "engine/layernorm",
        "norms subtract the mean",
        &["FI-01", "FI-02"],
        EngineFault::LayerNorm,
    ),
    defect("engine/rms-eps", "norms use an epsilon of 1e-3", &["FI-20"], EngineFault::RmsEps),
    defect(
        "engine/ffn-norm-skipped",
        "the feed-forward block reads the raw residual",
        &["FI-07"],
        EngineFault::FfnNormSkipped,
    ),
    defect(
        "engine/qkv-bias-dropped",
        "query, key and value biases are dropped",
        &["FI-03", "FI-05"],
        EngineFault::QkvBiasDropped,
    ),
    defect(
        "engine/rope-skipped",
        "one layer does not rotate",
        &["FI-12"],
        EngineFault::RopeSkipped { layer: 1 },
    ),
    defect(
        "engine/rope-skipped-in-cache",
        "nothing rotates once the cache holds positions",
        &["FI-08", "FI-09"],
        EngineFault::RopeSkippedInCache,
    ),
    defect("engine/rope-twice", "keys are rotated twice", &["FI-10"], EngineFault::RopeTwice),
    defect(
        "engine/rope-style",
        "pairs are taken in the other style",
        &["FI-11"],
        EngineFault::RopeStyle,
    ),
    defect(
        "engine/rope-theta",
        "the base is a hundred times larger",
        &["FI-13"],
        EngineFault::RopeTheta,
    ),
    defect("engine/rope-scaled", "rotation also stretches", &["FI-10"], EngineFault::RopeScaled),
    defect(
        "engine/position-off-by-one",
        "positions are one too large in the cache",
        &["FI-08"],
        EngineFault::PositionOffByOne,
    ),
    defect(
        "engine/gqa-modulo",
        "query heads read key heads modulo their number",
        &["FI-14"],
        EngineFault::GqaModulo,
    ),
    defect("engine/causal-mask-off", "rows see the future", &["FI-19"], EngineFault::CausalMaskOff),
    defect("engine/scale-missing", "scores are not scaled", &["FI-61"], EngineFault::ScaleMissing),
    defect(
        "engine/attention-collapsed",
        "every row attends to itself only",
        &["FI-60"],
        EngineFault::AttentionCollapsed,
    ),
    defect(
        "engine/softmax-unnormalised",
        "attention probabilities sum to more than one",
        &["FI-21"],
        EngineFault::SoftmaxUnnormalised,
    ),
    defect(
        "engine/stale-key",
        "a decode step stores the keys of the step before",
        &["FI-70"],
        EngineFault::StaleKey,
    ),
    defect(
        "engine/residual-doubled",
        "the attention residual is added twice",
        &["FI-07"],
        EngineFault::ResidualDoubled,
    ),
    defect(
        "engine/layer-skipped",
        "one layer adds nothing",
        &["FI-77"],
        EngineFault::LayerSkipped { layer: 1 },
    ),
    defect(
        "engine/up-dropped",
        "the up projection takes no part",
        &["FI-46"],
        EngineFault::UpDropped,
    ),
    defect(
        "engine/activation-swapped",
        "the activation is another one",
        &["FI-02"],
        EngineFault::ActivationSwapped,
    ),
    defect(
        "engine/nan-at-layer",
        "a NaN appears in one layer",
        &["FI-21", "FI-33"],
        EngineFault::NanAtLayer { layer: 1 },
    ),
    defect(
        "engine/tile-zero",
        "a tile of one product stays zero",
        &["FI-80"],
        EngineFault::TileZero { layer: 0 },
    ),
    defect(
        "engine/row-swap",
        "two rows of a product are exchanged",
        &["FI-68"],
        EngineFault::RowSwap,
    ),
    defect(
        "engine/column-major",
        "a matrix is read column by column",
        &["FI-25"],
        EngineFault::ColumnMajor,
    ),
    defect(
        "engine/embedding-constant",
        "every token has the same embedding",
        &["FI-26"],
        EngineFault::EmbeddingConstant,
    ),
    defect(
        "engine/logits-permuted",
        "logits are shifted by one id",
        &["FI-126"],
        EngineFault::LogitsPermuted,
    ),
    defect(
        "engine/logits-constant",
        "all logits are equal",
        &["FI-46", "FI-116"],
        EngineFault::LogitsConstant,
    ),
    defect(
        "engine/head-reversed",
        "the head is read backwards",
        &["FI-24"],
        EngineFault::HeadReversed,
    ),
    defect(
        "engine/logits-flattened",
        "logits are a hundred times too flat",
        &["FI-92"],
        EngineFault::LogitsFlattened,
    ),
    defect(
        "engine/logits-one-hot",
        "logits are a thousand times too steep",
        &["FI-87"],
        EngineFault::LogitsOneHot,
    ),
    defect(
        "engine/generation-garbage",
        "every step speaks of something else",
        &["FI-06", "FI-25"],
        EngineFault::LogitsScrambled,
    ),
    defect(
        "engine/generation-random",
        "results change from call to call",
        &["FI-72"],
        EngineFault::LogitsScrambled,
    ),
    defect(
        "engine/nondeterministic",
        "sums differ a little from call to call",
        &["FI-72"],
        EngineFault::Nondeterministic,
    ),
    defect(
        "engine/chunk-forgotten",
        "a second chunk forgets the first",
        &["FI-73"],
        EngineFault::ChunkForgotten,
    ),
    defect(
        "engine/stop-after-one",
        "generation ends after one token",
        &["FI-57"],
        EngineFault::StopAfterOne,
    ),
    defect("engine/end-token-never", "the end token never wins", &["FI-50"], EngineFault::EndNever),
    defect(
        "engine/slow",
        "products are computed sixteen times over",
        &["FI-82", "FI-89"],
        EngineFault::Slow,
    ),
    defect(
        "engine/reset-ignored",
        "a reset leaves the cache as it is",
        &["FI-72"],
        EngineFault::ResetIgnored,
    ),
    defect(
        "engine/context-cut",
        "a prompt beyond the context is cut silently",
        &["FI-62"],
        EngineFault::ContextCut,
    ),
    defect(
        "engine/threads-race",
        "several threads lose a tile of a product",
        &["FI-80"],
        EngineFault::ThreadsRace,
    ),
    defect(
        "engine/isa-differs",
        "the portable kernels lose a tile of a product",
        &["FI-80"],
        EngineFault::IsaDiffers,
    ),
    defect(
        "engine/allocation-matters",
        "a context of a given size loses a tile of a product",
        &["FI-80"],
        EngineFault::AllocationMatters,
    ),
];

/// A fault of the executable as its caller sees it.
#[derive(Clone, Copy, Debug)]
struct Executable {
    info: FaultInfo,
    args: fn(&mut Vec<String>),
    output: fn(&mut CommandOutput),
}

impl Plant for Executable {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_args(&self, args: &mut Vec<String>) {
        (self.args)(args);
    }

    fn mutate_output(&self, output: &mut CommandOutput) {
        (self.output)(output);
    }
}

impl From<Executable> for Fault {
    fn from(fault: Executable) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn executable(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    args: fn(&mut Vec<String>),
    output: fn(&mut CommandOutput),
) -> Executable {
    Executable { info: info(id, what, incidents), args, output }
}

const EXECUTABLE: &[Executable] = &[
    executable(
        "cli/exit-zero",
        "every call succeeds",
        &["FI-97"],
        |_| {},
        |output| output.code = Some(0),
    ),
    executable(
        "cli/exit-zero-garbage",
        "the answer holds a 4 inside another number",
        &["FI-106"],
        |_| {},
        |output| {
            output.code = Some(0);
            output.stdout = b"14 41\n".to_vec();
        },
    ),
    executable(
        "cli/silent",
        "nothing is printed",
        &["FI-53"],
        |_| {},
        |output| {
            output.stdout.clear();
            output.stderr.clear();
        },
    ),
    executable(
        "cli/noise",
        "debug lines are printed",
        &["FI-132"],
        |_| {},
        |output| {
            output.stdout.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
            output.stderr.splice(0..0, *b"[DEBUG] layer 0 took 3 ms\n");
        },
    ),
    executable(
        "cli/json-broken",
        "JSON is cut off",
        &["FI-128"],
        |_| {},
        |output| {
            let half = output.stdout.len() / 2;
            output.stdout.truncate(half);
        },
    ),
    executable(
        "cli/panic",
        "the program panics",
        &["FI-136"],
        |_| {},
        |output| {
            output.code = Some(101);
            output.stderr = b"thread 'main' panicked at src/main.rs:1:1".to_vec();
        },
    ),
    executable(
        "cli/limit-dropped",
        "numeric limits are ignored",
        &["FI-95"],
        |args| {
            for name in ["-n", "--context"] {
                if let Some(place) = args.iter().position(|arg| arg == name) {
                    args.drain(place..(place + 2).min(args.len()));
                }
            }
        },
        |_| {},
    ),
];

/// A fault of a recorded fixture.
#[derive(Clone, Copy, Debug)]
struct Fixture {
    info: FaultInfo,
    mutate: fn(&Path, &[u8]) -> Option<Vec<u8>>,
}

impl Plant for Fixture {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_fixture(&self, name: &Path, bytes: &[u8]) -> Option<Vec<u8>> {
        (self.mutate)(name, bytes)
    }
}

impl From<Fixture> for Fault {
    fn from(fault: Fixture) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const FIXTURE: &[Fixture] = &[Fixture {
    info: info("fixture/blocks-changed", "a recorded block differs in one bit", &["FI-117"]),
    mutate: |name, bytes| {
        if !name.starts_with("oracle/quant") {
            return None;
        }
        let container = apr_engine::format::safetensors::parse(bytes).ok()?;
        let place = usize::try_from(container.tensor("dequant.expected")?.offset).ok()?;
        let mut changed = bytes.to_vec();
        *changed.get_mut(place)? ^= 0x01;
        Some(changed)
    },
}];

/// A fault of the harness itself.
#[derive(Clone, Copy, Debug)]
struct Harness {
    info: FaultInfo,
    fault: HarnessFault,
}

impl Plant for Harness {
    fn id(&self) -> &str {
        self.info.id
    }

    fn harness(&self) -> Option<HarnessFault> {
        Some(self.fault)
    }
}

impl From<Harness> for Fault {
    fn from(fault: Harness) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn harness(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: HarnessFault,
) -> Harness {
    Harness { info: info(id, what, incidents), fault }
}

/// A fault of the sampler.
#[derive(Clone, Copy, Debug)]
struct Sampling {
    info: FaultInfo,
    fault: SamplerFault,
}

impl Plant for Sampling {
    fn id(&self) -> &str {
        self.info.id
    }

    fn sampler(&self) -> Option<SamplerFault> {
        Some(self.fault)
    }
}

impl From<Sampling> for Fault {
    fn from(fault: Sampling) -> Self {
        Self { info: fault.info, plant: Arc::new(fault) }
    }
}

const fn sampling(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    fault: SamplerFault,
) -> Sampling {
    Sampling { info: info(id, what, incidents), fault }
}

const SAMPLER: &[Sampling] = &[
    sampling(
        "sampler/second-best",
        "the best token is dropped",
        &["FI-66"],
        SamplerFault::SecondBest,
    ),
    sampling("sampler/unfiltered", "filters are ignored", &["FI-87"], SamplerFault::Unfiltered),
    sampling("sampler/unseeded", "the seed is ignored", &["FI-72"], SamplerFault::Unseeded),
    sampling(
        "sampler/penalty-inverted",
        "the penalty rewards",
        &["FI-25"],
        SamplerFault::PenaltyInverted,
    ),
    sampling(
        "sampler/nan-ignored",
        "a NaN logit counts as zero",
        &["FI-21"],
        SamplerFault::NanIgnored,
    ),
];

const HARNESS: &[Harness] = &[
    harness(
        "harness/empty-comparison",
        "every comparison sees no rows",
        &["FI-122", "FI-104"],
        HarnessFault::EmptyComparison,
    ),
    harness(
        "harness/shifted-comparison",
        "rows are compared one apart",
        &["FI-107", "FI-108"],
        HarnessFault::ShiftedComparison,
    ),
    harness(
        "harness/nan-comparison",
        "the tested side is NaN",
        &["FI-21"],
        HarnessFault::NanComparison,
    ),
    harness(
        "harness/unparsed-observation",
        "an observation that cannot be read is empty",
        &["FI-121", "FI-125"],
        HarnessFault::UnparsedObservation,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_fault_retells_an_incident() {
        let faults = all();
        assert!(faults.len() >= 80, "{} faults", faults.len());
        assert!(faults.windows(2).all(|pair| pair[0].info.id < pair[1].info.id));
        for fault in faults {
            assert!(!fault.info.incidents.is_empty(), "{}", fault.info.id);
            assert_eq!(fault.plant.id(), fault.info.id);
        }
    }
}
