use std::cell::{Cell, RefCell};
use std::path::Path;

use apr_engine::backend::Device;
use apr_engine::model::LmOptions;

use super::*;

const OPTIONS: Options = Options {
    prompt: 6,
    first: 3,
    tokens: 12,
    samples: 2,
    sequences: 1,
    processor: Some(Processor { threads: 2, isa: Isa::Portable }),
};

fn golden() -> Result<Opened> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden");
    let model = Model::load(&path)?;
    let lm = model.lm_on(&Device::Scalar, LmOptions::default())?;
    Ok((model, lm))
}

/// A clock on which every look takes a microsecond.
fn ticking() -> impl Fn() -> u64 {
    let now = Cell::new(0);
    move || {
        now.set(now.get() + 1000);
        now.get()
    }
}

#[test]
fn a_model_is_measured_from_loading_to_decoding() {
    let clock = ticking();
    let found =
        measure(&golden, &OPTIONS, &Watch { clock: &clock, stopped: &|| false, tell: &|_| () })
            .unwrap();
    assert_eq!((found.load.samples, found.prefill.time.samples), (2, 2));
    assert_eq!((found.prefill.tokens, found.first_token.tokens), (6, 3));
    assert_eq!((found.decode.time.samples, found.decode.position), (12, 3 + WARM_UP));
    // Every pass took the one microsecond between two looks at this clock.
    assert!((found.decode.tokens_per_second - 1e6).abs() < 1.0);
    assert!((found.prefill.tokens_per_second - 6e6).abs() < 1.0);
    assert!(found.accepted());
}

#[test]
fn the_operations_of_a_token_add_up_to_it() {
    let clock = ticking();
    let found =
        measure(&golden, &OPTIONS, &Watch { clock: &clock, stopped: &|| false, tell: &|_| () })
            .unwrap()
            .breakdown;
    assert!(found.covers > 0.9 && found.covers <= 1.0, "{}", found.covers);
    let shares: f64 = found.sites.iter().map(|site| site.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let logits = found.sites.iter().find(|site| site.site == "logits").unwrap();
    assert_eq!(logits.passes, 1);
    let down = found.sites.iter().find(|site| site.site == "down").unwrap();
    assert_eq!(down.passes, golden().unwrap().0.config().layers);
}

#[test]
fn the_roofline_counts_the_bytes_that_a_token_reads() {
    let clock = ticking();
    let found =
        measure(&golden, &OPTIONS, &Watch { clock: &clock, stopped: &|| false, tell: &|_| () })
            .unwrap();
    let (model, _) = golden().unwrap();
    let stored: u64 =
        model.weights().iter().map(|(_, named)| named.tensor.bytes().len() as u64).sum();
    let roofline = found.roofline.unwrap();
    assert!(model.weights().tied(), "of a model whose head is its embedding every byte is read");
    assert!(roofline.bytes_per_token > stored);
    assert!(roofline.bytes_per_token < stored + found.cache_bytes);
    let ratio = roofline.decode_bytes_per_second / roofline.read_bytes_per_second;
    assert!((roofline.fraction - ratio).abs() < 1e-12);
}

#[test]
fn the_compute_roof_counts_every_product_of_a_prompt() {
    let clock = ticking();
    let found =
        measure(&golden, &OPTIONS, &Watch { clock: &clock, stopped: &|| false, tell: &|_| () })
            .unwrap();
    let (model, _) = golden().unwrap();
    let config = model.config();
    let (hidden, wide) = (config.hidden, config.intermediate);
    let layer = 2 * hidden * (config.q_width() + config.kv_width()) + 3 * hidden * wide;
    // Keys that six tokens see: 1 + 2 + … + 6; each costs a product for its score and one for its values.
    let attention = 2 * 21 * config.q_width();
    let all = config.layers * (6 * layer + attention) + config.vocab * hidden;
    let roof = found.compute.unwrap();
    assert_eq!(roof.multiply_adds, compute::Work { bytes: 0, floats: all as u64 });
    assert!(roof.per_second.bytes > 0.0 && roof.per_second.floats > 0.0);
    let floor = all as f64 / roof.per_second.floats * 1e3;
    assert!((roof.floor_ms - floor).abs() < 1e-9 * floor);
    assert!((roof.fraction - floor / found.prefill.time.median_ms).abs() < 1e-9);
}

/// On a clock on which every pass takes as long, four sequences in one are four times as fast.
#[test]
fn sequences_decoded_together_are_held_against_one() {
    let options = Options { sequences: 4, ..OPTIONS };
    let open = || {
        let (model, _) = golden()?;
        let how = LmOptions { sequences: 4, ..LmOptions::default() };
        let lm = model.lm_on(&Device::Scalar, how)?;
        Ok((model, lm))
    };
    let clock = ticking();
    let watch = Watch { clock: &clock, stopped: &|| false, tell: &|_| () };
    let found = measure(&open, &options, &watch).unwrap();
    let together = found.together.unwrap();
    assert_eq!((together.sequences, together.position), (4, 3 + WARM_UP));
    assert!((together.tokens_per_second - 4e6).abs() < 1.0, "{}", together.tokens_per_second);
    let ratio = together.against_one.unwrap();
    assert!((ratio.ratio - 4.0).abs() < 1e-9 && ratio.outcome == Outcome::Faster, "{ratio:?}");
    let alone = measure(&golden, &OPTIONS, &watch).unwrap();
    assert_eq!(alone.together, None);
    assert_eq!(found.cache_bytes, 4 * alone.cache_bytes, "each has a cache of its own");
}

#[test]
fn a_prompt_beyond_the_context_is_an_error() {
    let options = Options { prompt: 100_000, ..OPTIONS };
    let error =
        measure(&golden, &options, &Watch { clock: &ticking(), stopped: &|| false, tell: &|_| () });
    assert_eq!(error.unwrap_err().code(), Code::ContextExceeded);
}

#[test]
fn a_caller_who_wants_no_more_is_obeyed_between_two_passes() {
    let asked = Cell::new(0);
    let stopped = || {
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let error =
        measure(&golden, &OPTIONS, &Watch { clock: &ticking(), stopped: &stopped, tell: &|_| () });
    assert_eq!((error.unwrap_err().code(), asked.get()), (Code::Cancelled, 6));
}

#[test]
fn whoever_waits_is_told_what_comes_next_and_takes_no_time_of_it() {
    let (clock, told) = (ticking(), RefCell::new(Vec::new()));
    let tell = |step: Step| {
        clock();
        told.borrow_mut().push(step.to_string());
    };
    let watch = Watch { clock: &clock, stopped: &|| false, tell: &tell };
    let found = measure(&golden, &OPTIONS, &watch).unwrap();
    assert!((found.prefill.tokens_per_second - 6e6).abs() < 1.0, "telling was timed");
    let expected = [
        "load, 1 of 2",
        "load, 2 of 2",
        "prompt, 1 of 2",
        "prompt, 2 of 2",
        "first token, 1 of 2",
        "first token, 2 of 2",
        "decode",
        "decode by operation",
    ];
    assert_eq!(*told.borrow(), expected);
    told.borrow_mut().clear();
    let (mut first, mut second) = (golden().unwrap().1, golden().unwrap().1);
    let ratios = against(&mut *first, &mut *second, &OPTIONS, &watch).unwrap();
    let pairs: usize = ratios.iter().flatten().map(|ratio| ratio.pairs).sum();
    assert_eq!(told.borrow().len(), pairs);
    assert!(told.borrow()[0].starts_with("prompt, in turns, 1 of "), "{told:?}");
}
