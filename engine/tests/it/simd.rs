//! The fast backend: against the oracle at every site, fused against plain, one thread against more.

use apr_engine::Dtype;
use apr_engine::backend::simd::Kernels;
use apr_engine::backend::{Backend, CacheType, Projection, Scalar, Simd};
use apr_engine::model::{LmOptions, Model, Role, Slot, Want};
use apr_engine::probe::{Op, Site};

use crate::fixture::{PYGMIES, Recorder, Recording, model, nmse};

/// Float weights: f32 sums against f64 sums. Measured worst: 2e-13.
const FLOAT_NMSE_MAX: f64 = 1e-11;
/// The same with a cache in f16: a sum that rounds differently moves a key or a value by one step of f16, here and there.
/// Measured worst: 5.8e-8; a cache of eight significant bits is at 1e-6 and above.
const F16_CACHE_NMSE_MAX: f64 = 2e-7;
/// Block weights: activations rounded to eight bits, like llama.cpp, whose own distance is up to 2e-3.
const ROUNDED_NMSE_MAX: f64 = 5e-3;

fn sites<B: Backend>(model: &Model, backend: B, cache_type: CacheType, tokens: &[u32]) -> Recorder {
    use apr_engine::model::Lm as _;
    let options = LmOptions { cache_type, ..LmOptions::default() };
    let mut lm = model.lm_with(backend, options).unwrap_or_else(|e| panic!("{e}"));
    let mut recorder = Recorder::default();
    lm.forward(tokens, Want::All, &mut recorder).unwrap_or_else(|e| panic!("{e}"));
    recorder
}

fn worst(found: &Recorder, expected: &Recorder) -> (f64, String) {
    assert_eq!(found.0.len(), expected.0.len());
    let errors = found.0.iter().map(|(site, values)| (nmse(values, &expected.0[site]), site));
    let (error, site) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are sites");
    (error, site.clone())
}

#[test]
fn float_weights_equal_the_oracle_at_every_site_on_every_isa() {
    for name in PYGMIES {
        let recording = Recording::open(&format!("oracle/transformers/{name}.safetensors"));
        let (model, tokens) = (model(&format!("pygmy/{name}")), recording.tokens());
        for &cache_type in CacheType::ALL {
            let expected = sites(&model, Scalar::default(), cache_type, &tokens);
            for kernels in Kernels::available() {
                let simd = Simd::new(Some(kernels.isa()), 2).unwrap();
                let found = sites(&model, simd, cache_type, &tokens);
                let (error, site) = worst(&found, &expected);
                let isa = kernels.isa();
                let limit = match cache_type {
                    CacheType::F16 => F16_CACHE_NMSE_MAX,
                    CacheType::F32 => FLOAT_NMSE_MAX,
                };
                assert!(error <= limit, "{name} {isa} {cache_type} {site}: {error:e}");
            }
        }
    }
}

#[test]
fn block_weights_stay_within_the_rounding_of_activations() {
    let mut compared = 0;
    for entry in std::fs::read_dir(crate::fixture::path("gguf")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".gguf") else { continue };
        let recording = Recording::open(&format!("oracle/llama-cpp/{stem}.safetensors"));
        let model = model(&format!("gguf/{name}"));
        for kernels in Kernels::available() {
            let simd = Simd::new(Some(kernels.isa()), 1).unwrap();
            let recorder = sites(&model, simd, CacheType::F32, &recording.tokens());
            let error = nmse(&recorder.0["logits"], recording.get("logits.transformers"));
            let float = ["F32", "F16", "BF16"].iter().any(|dtype| stem.ends_with(dtype));
            let limit = if float { FLOAT_NMSE_MAX } else { ROUNDED_NMSE_MAX };
            assert!(error <= limit, "{stem} {}: {error:e}", kernels.isa());
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} files");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for name in ["gguf/mistral-Q4_K_M.gguf", "gguf/qwen2-tied-Q8_0.gguf", "pygmy/llama3-gqa"] {
        let model = model(name);
        let tokens: Vec<u32> = (0..60).map(|token| token * 5).collect();
        for &cache_type in CacheType::ALL {
            let run =
                |threads| sites(&model, Simd::new(None, threads).unwrap(), cache_type, &tokens).0;
            let one = run(1);
            for threads in [2, 3] {
                assert!(run(threads) == one, "{name} with {threads} threads and {cache_type}");
            }
        }
    }
}

/// The fused product of several weights against one product and one addition at a time.
#[test]
fn fused_projections_equal_the_plain_ones() {
    let model = model("gguf/qwen2-tied-Q8_0.gguf");
    let simd = Simd::new(None, 2).unwrap();
    let upload = |role| {
        let slot = Slot::layer(0, role);
        simd.upload(slot, &model.weights().get(slot).unwrap().tensor).unwrap()
    };
    let (hidden, rows) = (model.config().hidden, 3);
    let x: Vec<f32> = (0..rows * hidden).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    let weights = [
        (Op::Q, upload(Role::Q), upload(Role::QBias), model.config().q_width()),
        (Op::K, upload(Role::K), upload(Role::KBias), model.config().kv_width()),
    ];
    let mut fused = weights.each_ref().map(|(.., width)| vec![0.0; rows * width]);
    let mut jobs: Vec<Projection<'_, Simd>> = weights
        .iter()
        .zip(&mut fused)
        .map(|((op, weight, bias, _), dst)| Projection {
            site: Site::layer(0, *op),
            dst,
            weight,
            bias: Some(bias),
        })
        .collect();
    simd.project(&mut jobs, &x, rows).unwrap();
    for ((op, weight, bias, width), fused) in weights.iter().zip(&fused) {
        let site = Site::layer(0, *op);
        let mut plain = vec![0.0; rows * width];
        simd.matmul(site, &mut plain, weight, &x, rows).unwrap();
        simd.add_bias(site, &mut plain, bias, rows).unwrap();
        assert_eq!(&plain, fused);
        assert_eq!(
            model.weights().get(Slot::layer(0, Role::Q)).unwrap().tensor.dtype(),
            Dtype::Q8_0
        );
    }
}

/// Operations that have a default made of the others, against that default: the oracle's.
#[test]
fn scaling_and_soft_caps_equal_the_plain_ones() {
    let simd = Simd::new(None, 2).unwrap();
    let site = Site::model(Op::Logits);
    let x: Vec<f32> = (0..301).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.7).collect();
    let (mut fast, mut plain) = (x.clone(), x.clone());
    simd.scale(site, &mut fast, 6.93, 300).unwrap();
    Scalar::default().scale(site, &mut plain, 6.93, 300).unwrap();
    assert_eq!(fast, plain);
    assert_eq!(fast[300].to_bits(), x[300].to_bits(), "what lies behind is left alone");
    let (mut fast, mut plain) = (x.clone(), x);
    simd.soft_cap(site, &mut fast, 5.0, 300).unwrap();
    Scalar::default().soft_cap(site, &mut plain, 5.0, 300).unwrap();
    assert!(nmse(&fast, &plain) <= FLOAT_NMSE_MAX);
    assert!(plain[..300].iter().all(|value| value.abs() <= 5.0));
}

#[test]
fn no_threads_is_an_error() {
    assert_eq!(Simd::new(None, 0).unwrap_err().code(), apr_engine::Code::DeviceUnavailable);
}
