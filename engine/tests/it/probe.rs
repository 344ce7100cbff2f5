//! What a probe gives back takes the place of what was computed.

use apr_engine::Code;
use apr_engine::backend::Device;
use apr_engine::model::{LmOptions, Want};
use apr_engine::probe::{NoProbe, Op, Probe, Site, Tap};

use crate::fixture::{F32_CACHE, Recorder, Recording, model, nmse};

/// From a site and its values to those that take their place.
type Give<'a> = dyn Fn(Site, &[f32]) -> Option<Vec<f32>> + 'a;

/// Records every site and gives what `give` makes of it back in its place.
struct Given<'a> {
    seen: Recorder,
    give: &'a Give<'a>,
    last: Vec<f32>,
}

impl<'a> Given<'a> {
    fn new(give: &'a Give<'a>) -> Self {
        Self { seen: Recorder::default(), give, last: Vec::new() }
    }
}

impl Probe for Given<'_> {
    fn wants(&self, _: Site) -> bool {
        true
    }

    fn tap(&mut self, tap: Tap<'_>) {
        self.seen.tap(tap);
        self.last = tap.values.to_vec();
    }

    fn replacement(&mut self, site: Site) -> Option<&[f32]> {
        self.last = (self.give)(site, &self.last)?;
        Some(&self.last)
    }
}

#[test]
fn values_given_back_unchanged_change_no_bit() {
    let model = model("golden");
    for device in [Device::Scalar, Device::SIMD] {
        let mut lm = model.lm_on(&device, LmOptions::default()).unwrap();
        let plain = lm.forward(&[1, 2, 3], Want::All, &mut NoProbe).unwrap().values().to_vec();
        lm.reset();
        let mut probe = Given::new(&|_, values| Some(values.to_vec()));
        let again = lm.forward(&[1, 2, 3], Want::All, &mut probe).unwrap();
        assert!(plain.iter().zip(again.values()).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn an_operation_that_is_given_anothers_inputs_makes_only_its_own_error() {
    let recording = Recording::open("oracle/transformers/golden.safetensors");
    let model = model("golden");
    // The embedding is wrong, but what comes behind it is given right values.
    let given = |site: Site, _: &[f32]| Some(recording.get(&site.to_string()).to_vec());
    let mut probe = Given::new(&given);
    let mut lm = model.lm_on(&Device::Scalar, F32_CACHE).unwrap();
    let wrong: Vec<u32> = recording.tokens().iter().map(|id| id + 1).collect();
    lm.forward(&wrong, Want::All, &mut probe).unwrap();
    for name in recording.sites() {
        let error = nmse(&probe.seen.0[name], recording.get(name));
        assert!((name == "embed") == (error > 1e-2), "{name}: {error:e}");
        assert!(name == "embed" || error < 1e-11, "{name}: {error:e}");
    }
}

#[test]
fn another_number_of_values_is_refused_with_the_site() {
    let mut lm = model("golden").lm_on(&Device::Scalar, LmOptions::default()).unwrap();
    let mut probe = Given::new(&|site, _| (site == Site::layer(1, Op::V)).then(|| vec![0.0]));
    let error = lm.forward(&[1, 2], Want::Last, &mut probe).unwrap_err();
    assert_eq!(error.code(), Code::BackendShape);
    assert!(error.to_string().contains("layers.1.v"), "{error}");
}
