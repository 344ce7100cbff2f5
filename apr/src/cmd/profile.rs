//! `apr profile`: where the time of a forward pass goes.

use std::collections::BTreeMap;
use std::path::Path;

use apr_engine::model::{LmOptions, Model};
use apr_harness::bench::{WARM_UP, Watch};
use apr_harness::profile::{self, Options, Phase, Profile};
use apr_harness::provenance;
use apr_harness::report::file::write_atomically;
use apr_harness::report::profile as text;
use schemars::JsonSchema;
use serde::Serialize;

use super::bench::{clock, failure};
use super::steps::Steps;
use crate::cli::profile::{PhaseName, ProfileArgs};
use crate::device;
use crate::failure::Failure;
use crate::gate::{Admission, ContractState};
use crate::interrupt::Interrupt;
use crate::render::{Envelope, Terminal};

/// Tokens of a prompt that is measured, and of one before tokens that are.
const PROMPT: usize = 512;
const BEFORE: usize = 128;
/// Prompts and tokens that are measured.
const PROMPTS: usize = 8;
const TOKENS: usize = 100;

/// `profile`: the time of operations, and what it is of.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProfileOutput {
    /// The model as it was named.
    model: String,
    /// Format of the weights.
    format: String,
    /// Architecture.
    architecture: String,
    /// SHA-256 of the weight files.
    sha256: String,
    /// Whether the model's contract was looked at before.
    contract: ContractState,
    /// What is known of the machine.
    hardware: BTreeMap<String, String>,
    #[serde(flatten)]
    profile: Profile,
    /// Why the figures do not tell where the time went; absent when they do.
    flaw: Option<String>,
    /// Exit code of the process.
    exit_code: u8,
}

pub(crate) fn run(
    args: &ProfileArgs,
    admission: Admission,
    terminal: &Terminal,
    interrupt: &Interrupt,
) -> Result<u8, Failure> {
    let contract = admission.contract();
    let model = match admission.model {
        Some(model) => model,
        None => Model::load(&args.model.model)?,
    };
    let options = options(args, model.config().context);
    let device = device::choose(&args.device)?;
    let how = LmOptions { context: Some(options.positions()), ..device::options(args.cache) };
    let mut lm = model.lm_on(&device, how)?;
    let steps = Steps::new(terminal)?;
    let watch = Watch {
        clock: &clock(),
        stopped: &|| interrupt.requested(),
        tell: &|step| steps.tell(step),
    };
    let groups = profile::groups().map_err(Failure::broken)?;
    let profile = profile::measure(&mut *lm, &groups, &options, &watch).map_err(failure)?;
    drop(steps);
    let flaw = profile.flaw();
    let exit_code = u8::from(flaw.is_some());
    let name = args.model.model.display().to_string();
    if let Some(file) = &args.html {
        write(file, text::page(&profile, &name).as_bytes(), terminal)?;
    }
    let written = (!terminal.json).then(|| text::render(&profile));
    let output = ProfileOutput {
        model: name,
        format: model.format().name().to_owned(),
        architecture: model.config().family.name.to_owned(),
        sha256: model.sha256(),
        contract,
        hardware: provenance::machine(),
        profile,
        flaw,
        exit_code,
    };
    let output = Envelope::new("profile", "profile", output);
    if let Some(file) = &args.output {
        let mut json = serde_json::to_vec_pretty(&output).map_err(Failure::broken)?;
        json.push(b'\n');
        write(file, &json, terminal)?;
    }
    match written {
        Some(text) => terminal.text(&text)?,
        None => terminal.value(&output)?,
    }
    if let Some(flaw) = &output.body.flaw {
        terminal.warning(flaw)?;
    }
    Ok(exit_code)
}

fn write(file: &Path, bytes: &[u8], terminal: &Terminal) -> Result<(), Failure> {
    write_atomically(file, bytes).map_err(|error| Failure::file(file, &error))?;
    terminal.notice(&format!("wrote {}", file.display()))
}

/// What was asked for; what was not, as far as a context of `room` tokens goes.
fn options(args: &ProfileArgs, room: usize) -> Options {
    let asked = |asked: Option<u32>, usual: usize, most: usize| {
        asked.map_or_else(|| usual.min(most).max(1), |asked| asked as usize)
    };
    match args.phase {
        PhaseName::Prefill => Options {
            phase: Phase::Prefill,
            prompt: asked(args.prompt_tokens, PROMPT, room),
            passes: asked(args.passes, PROMPTS, PROMPTS),
        },
        PhaseName::Decode => {
            let prompt = asked(args.prompt_tokens, BEFORE, room / 4);
            let left = room.saturating_sub(prompt + WARM_UP);
            Options { phase: Phase::Decode, prompt, passes: asked(args.passes, TOKENS, left) }
        }
    }
}
