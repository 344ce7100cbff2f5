use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use apr_engine::backend::Device;
use apr_engine::generate::{GenerateOptions, generate};
use apr_engine::model::{Lm as _, LmOptions, Want};
use apr_engine::probe::NoProbe;
use apr_engine::text::prepare_raw;

use super::moments::Moments;
use super::payload::Oddity;
use super::*;

fn golden() -> Model {
    carried("golden")
}

fn carried(name: &str) -> Model {
    Model::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)).unwrap()
}

/// A traced run, its events, and the text without tracing.
fn traced(model: &Model, options: Options) -> (Generation, Vec<HistoryEvent>, Generation) {
    traced_with(model, options, LmOptions::default())
}

fn traced_with(
    model: &Model,
    options: Options,
    how: LmOptions,
) -> (Generation, Vec<HistoryEvent>, Generation) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let sink: Sink<'_> = Box::new(move |event| {
        kept.lock().unwrap().push(event);
        Ok(())
    });
    let device = Device::from_name("scalar").unwrap();
    let mut lm = model.lm_on(&device, how).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = prepare_raw(tokenizer, "2+2=").unwrap();
    let request = GenerateOptions { max_tokens: Some(4), ..GenerateOptions::default() };
    let mut quiet = |_: apr_engine::generate::Event<'_>| ControlFlow::Continue(());
    let plain = generate(&mut *lm, tokenizer, &prompt, &request, &mut quiet).unwrap();
    let mut tracer = Tracer::new(model, options, sink, || 1000);
    tracer.start("0.0.0", "x", Configuration::default(), 4, prompt.ids());
    let found = {
        let mut observed = Observed::new(&mut *lm, &mut tracer);
        generate(&mut observed, tokenizer, &prompt, &request, &mut quiet).unwrap()
    };
    tracer.finish(Ok(&found)).unwrap();
    drop(tracer);
    let events = events.lock().unwrap().clone();
    (found, events, plain)
}

fn outputs(events: &[HistoryEvent]) -> Vec<(String, Payload)> {
    let exits = events.iter().filter_map(|event| event.state_exited_event_details.as_ref());
    exits.map(|exit| (exit.name.clone(), serde_json::from_str(&exit.output).unwrap())).collect()
}

#[test]
fn a_traced_run_gives_the_same_tokens_and_tells_every_layer_of_every_step() {
    let model = golden();
    let (found, events, plain) = traced(&model, Options::all(model.config()));
    assert_eq!((&found.tokens, &found.text), (&plain.tokens, &plain.text));
    let layers = model.config().layers;
    let outputs = outputs(&events);
    let steps = outputs.iter().filter(|(name, _)| name == "lm_head").count();
    let seen = outputs.iter().filter(|(_, output)| matches!(output, Payload::Layer(_))).count();
    assert_eq!(seen, steps * layers);
    let samples: Vec<u32> = outputs
        .iter()
        .filter_map(|(_, output)| match output {
            Payload::Sample { token, rank, .. } => {
                assert_eq!(*rank, Some(1), "greedy");
                Some(*token)
            }
            _ => None,
        })
        .collect();
    let chosen: Vec<u32> = found.tokens.iter().copied().chain(found.end_token).collect();
    assert_eq!(samples, chosen);
}

#[test]
fn the_lens_of_the_last_layer_is_what_the_head_computed() {
    // The second one has a soft cap behind its head.
    for name in ["golden", "pygmy/gemma2"] {
        let model = carried(name);
        let (_, events, _) = traced(&model, Options::all(model.config()));
        let mut compared = 0;
        for (_, output) in outputs(&events) {
            if let Payload::Head(head) = output {
                let evolution = head.evolution.unwrap();
                assert!(evolution.mismatch.unwrap() < 1e-4, "{name}: {evolution:?}");
                assert_eq!(evolution.layers.len(), model.config().layers);
                compared += 1;
            }
        }
        assert!(compared > 0);
    }
}

#[test]
fn only_the_wanted_sites_and_layers_are_told() {
    let model = golden();
    let options = Options::new(&["ffn_residual".into()], &[1], true, model.config()).unwrap();
    let (_, events, _) = traced(&model, options);
    let mut seen = 0;
    for (_, output) in outputs(&events) {
        if let Payload::Layer(layer) = output {
            let names: Vec<&str> = layer.sites.iter().map(|site| site.site.as_str()).collect();
            assert_eq!(names, ["layers.1.ffn_residual"]);
            assert_eq!(layer.sites[0].values.as_ref().unwrap().len(), VALUES);
            seen += 1;
        }
    }
    assert!(seen > 0);
    let unknown = Options::new(&["nowhere".into()], &[], false, model.config());
    assert!(unknown.unwrap_err().contains("attn_norm"));
    assert!(Options::new(&[], &[99], false, model.config()).is_err());
}

#[test]
fn statistics_are_of_all_rows_of_a_prompt_and_not_of_the_last_one_alone() {
    let model = golden();
    let (_, events, _) = traced(&model, Options::all(model.config()));
    let mut rows_most = 0;
    for (_, output) in outputs(&events) {
        let Payload::Layer(layer) = output else { continue };
        for SiteTrace { site, shape: [rows, width], statistics, .. } in layer.sites {
            assert_eq!(statistics.count, (rows * width) as u64, "{site}");
            rows_most = rows_most.max(rows);
        }
    }
    assert!(rows_most > 1, "a prompt of several tokens");
}

#[test]
fn a_history_is_whole_whatever_is_traced_and_in_how_many_passes_the_prompt_is_read() {
    let model = golden();
    for sites in [&[][..], &["ffn_residual".to_owned()], &["logits".to_owned()]] {
        for chunk in [128, 2] {
            let options = Options::new(sites, &[], false, model.config()).unwrap();
            let how = LmOptions { chunk, ..LmOptions::default() };
            let (found, events, plain) = traced_with(&model, options, how);
            assert_eq!(found.tokens, plain.tokens);
            assert_eq!(flaws(&events), Vec::<String>::new());
        }
    }
}

#[test]
fn a_run_that_fails_is_told_to_its_end_with_code_and_cause() {
    let model = golden();
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let sink: Sink<'_> = Box::new(move |event| {
        kept.lock().unwrap().push(event);
        Ok(())
    });
    let device = Device::from_name("scalar").unwrap();
    let how = LmOptions { context: Some(2), ..LmOptions::default() };
    let mut lm = model.lm_on(&device, how).unwrap();
    let mut tracer = Tracer::new(&model, Options::all(model.config()), sink, || 1000);
    tracer.start("0.0.0", "x", Configuration::default(), 4, &[1, 2, 3]);
    let mut observed = Observed::new(&mut *lm, &mut tracer);
    let error = observed.forward(&[1, 2, 3], Want::Last, &mut NoProbe).unwrap_err();
    tracer.finish(Err((error.code().number(), &error.to_string()))).unwrap();
    drop(tracer);
    let events = events.lock().unwrap().clone();
    assert_eq!(flaws(&events), Vec::<String>::new());
    let last = events.last().unwrap();
    assert_eq!(last.kind, EventType::ExecutionFailed);
    assert_eq!(last.execution_failed_event_details.as_ref().unwrap().error, "E0801");
}

#[test]
fn a_trace_tells_of_a_nan_and_stays_json() {
    let moments = Moments::of(&[1.0, f32::NAN, f32::INFINITY]);
    let odd = oddities(&moments, Op::AttnNorm, "layers.0.attn_norm");
    let kinds: Vec<Oddity> = odd.iter().map(|odd| odd.oddity).collect();
    assert_eq!(kinds, [Oddity::Nan, Oddity::Infinity]);
    let text = serde_json::to_string(&moments.statistics()).unwrap();
    assert!(!text.contains("NaN") && text.contains("\"nan\":1"), "{text}");
}

#[test]
fn a_lost_event_a_turned_link_and_a_step_without_an_end_are_flaws() {
    let model = golden();
    let (_, events, _) = traced(&model, Options::all(model.config()));
    let broken = |change: &dyn Fn(&mut Vec<HistoryEvent>)| {
        let mut events = events.clone();
        change(&mut events);
        flaws(&events).len()
    };
    assert_eq!(broken(&|_| {}), 0);
    assert!(broken(&|events| drop(events.remove(5))) > 0);
    assert!(broken(&|events| drop(events.pop())) > 0);
    assert!(broken(&|events| events[5].previous_event_id = 99) > 0);
    assert!(broken(&|events| events[2].timestamp = "yesterday".into()) > 0);
}
