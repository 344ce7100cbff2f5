use std::cell::Cell;

use apr_engine::Code;
use apr_engine::backend::Device;
use apr_engine::model::{LmOptions, Model};

use super::*;

const OPTIONS: Options = Options { phase: Phase::Decode, prompt: 3, passes: 4 };

/// Profiles a carried model by a clock on which every look takes a microsecond, and what is between sites nothing.
fn profiled(name: &str, options: Options) -> (Profile, Model) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name);
    let model = Model::load(&path).unwrap();
    let mut lm = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
    let now = Cell::new(0);
    let clock = || {
        now.set(now.get() + 1000);
        now.get()
    };
    let watch = Watch { clock: &clock, stopped: &|| false, tell: &|_| () };
    (measure(&mut *lm, &groups().unwrap(), &options, &watch).unwrap(), model)
}

#[test]
fn every_operation_of_every_layer_is_told_and_they_add_up_to_the_pass() {
    let (found, model) = profiled("golden", OPTIONS);
    let config = model.config();
    assert_eq!((found.passes, found.total_tokens, found.position), (4, 4, 3 + WARM_UP));
    let named = |name: &str| found.bricks.iter().find(|brick| brick.name == name).unwrap();
    let layers = config.layers as u64;
    assert_eq!(named("qkv").count, 4 * layers);
    assert_eq!(named("rms-norm").count, 4 * (2 * layers + 1));
    assert_eq!((named("embed").count, named("logits").count), (4, 4));
    // Three looks at this clock, for three sites.
    assert_eq!((named("qkv").min_ns, named("qkv").max_ns), (3000, 3000));
    assert_eq!(named("qkv").cv, Some(0.0));
    let sum: u64 = found.bricks.iter().map(|brick| brick.total_ns).sum();
    let by_layer: u64 = found.layers.iter().map(|layer| layer.total_ns).sum();
    assert_eq!(by_layer, sum);
    assert!((found.covers - sum as f64 / found.total_ns as f64).abs() < 1e-12);
    assert_eq!(found.flaw(), None);
    let order: Vec<Option<usize>> = found.layers.iter().map(|layer| layer.layer).collect();
    let mut whole: Vec<Option<usize>> = vec![None];
    whole.extend((0..config.layers).map(Some));
    whole.extend([None, None]);
    assert_eq!(order, whole, "embedding, layers, final norm, head");
}

#[test]
fn elements_are_the_values_that_were_computed() {
    let (found, model) = profiled("golden", OPTIONS);
    let config = model.config();
    let of = |name: &str| found.bricks.iter().find(|b| b.name == name).unwrap().total_elements;
    let layers = config.layers;
    assert_eq!(of("logits"), 4 * config.vocab as u64);
    assert_eq!(of("ffn-down"), 4 * (layers * config.hidden) as u64);
    let widths = config.q_width() + 2 * config.kv_width();
    assert_eq!(of("qkv"), 4 * (layers * widths) as u64);
    let (prompt, _) = profiled("golden", Options { phase: Phase::Prefill, prompt: 6, passes: 2 });
    assert_eq!((prompt.total_tokens, prompt.position), (12, 0));
    let down = prompt.bricks.iter().find(|brick| brick.name == "ffn-down").unwrap();
    assert_eq!(down.total_elements, 2 * 6 * (layers * config.hidden) as u64);
}

#[test]
fn what_clocks_cost_is_told_against_passes_without() {
    let (found, model) = profiled("golden", OPTIONS);
    // A pass without clocks takes one look, one with them a look per site.
    let overhead = found.overhead.unwrap();
    assert_eq!(overhead.pairs, 4);
    assert!(overhead.share > (10 * model.config().layers) as f64, "{overhead:?}");
}

#[test]
fn a_profile_of_nothing_and_one_with_holes_are_not_taken_for_figures() {
    let (found, _) = profiled("golden", OPTIONS);
    let flaw = |change: &dyn Fn(&mut Profile)| {
        let mut changed = found.clone();
        change(&mut changed);
        changed.flaw()
    };
    assert_eq!(flaw(&|_| {}), None);
    assert!(flaw(&|profile| profile.bricks.clear()).is_some());
    assert!(flaw(&|profile| profile.total_ns = 0).is_some());
    assert!(flaw(&|profile| profile.covers = 0.89).is_some());
    assert!(flaw(&|profile| profile.covers = 1.01).is_some());
    assert!(flaw(&|profile| profile.covers = f64::NAN).is_some());
}

#[test]
fn a_caller_who_wants_no_more_is_obeyed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    let model = Model::load(&path).unwrap();
    let mut lm = model.lm_on(&Device::Scalar, LmOptions::default()).unwrap();
    let watch = Watch { clock: &|| 0, stopped: &|| true, tell: &|_| () };
    let error = measure(&mut *lm, &groups().unwrap(), &OPTIONS, &watch).unwrap_err();
    assert_eq!(error.code(), Code::Cancelled);
}
