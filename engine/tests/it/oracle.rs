//! The scalar backend against `transformers` in f32: every site, every logit.

use apr_engine::backend::Device;
use apr_engine::model::Want;
use apr_engine::probe::NoProbe;

use crate::fixture::{F32_CACHE, Recorder, Recording, model, nmse};

/// Measured worst: 2.7e-12, the rounding of the f32 recordings themselves.
const SITE_NMSE_MAX: f64 = 2e-11;

const MODELS: [&str; 11] = [
    "golden",
    "pygmy/qwen2-tied",
    "pygmy/llama3-gqa",
    "pygmy/mistral",
    "pygmy/llama-mha",
    "pygmy/qwen3",
    "pygmy/phi3",
    "pygmy/longrope",
    "pygmy/gemma2",
    "pygmy/gemma2-wide",
    "pygmy/gemma3",
];

/// Recordings of fewer tokens than the model was first trained for, which others of it exceed.
const SHORT: [(&str, &str); 1] = [("pygmy/longrope", "longrope-short")];

#[test]
fn every_site_of_every_family_equals_transformers() {
    let named = MODELS.map(|path| (path, path.trim_start_matches("pygmy/")));
    for (path, name) in named.into_iter().chain(SHORT) {
        let recording = Recording::open(&format!("oracle/transformers/{name}.safetensors"));
        let model = model(path);
        let mut lm = model.lm_on(&Device::Scalar, F32_CACHE).unwrap();
        let mut recorder = Recorder::default();
        lm.forward(&recording.tokens(), Want::All, &mut recorder).unwrap();
        let mut compared = 0;
        for site in recording.sites() {
            let found = &recorder.0[site];
            let error = nmse(found, recording.get(site));
            assert!(error <= SITE_NMSE_MAX, "{name} {site}: {error:e}");
            compared += 1;
        }
        assert_eq!(compared, recorder.0.len(), "every site is in the recording");
    }
}

#[test]
fn every_file_llama_cpp_made_gives_the_logits_of_its_weights() {
    let mut compared = 0;
    for entry in std::fs::read_dir(crate::fixture::path("gguf")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".gguf") else { continue };
        let recording = Recording::open(&format!("oracle/llama-cpp/{stem}.safetensors"));
        let model = model(&format!("gguf/{name}"));
        let mut lm = model.lm_on(&Device::Scalar, F32_CACHE).unwrap();
        let logits = lm.forward(&recording.tokens(), Want::All, &mut NoProbe).unwrap();
        let error = nmse(logits.values(), recording.get("logits.transformers"));
        assert!(error <= SITE_NMSE_MAX, "{stem}: {error:e}");
        compared += 1;
    }
    assert!(compared >= 28, "only {compared} files");
}
