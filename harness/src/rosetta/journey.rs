//! A model taken through formats one after the other: what each leg keeps, and the first that loses something.
//!
//! A leg is judged by its two ends alone, whatever the converter says of itself: weights by their exact values, or by their error
//! where a dtype was asked for; besides, everything that the files say of the model and how it reads text. The end of a way is
//! held against its beginning in the same manner, and there plain weights must have their bytes again, and blocks too
//! unless a format on the way cannot hold them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, Progress, convert_file};
use apr_engine::model::{Model, Slot};
use apr_engine::{Code, Dtype, Result};
use schemars::JsonSchema;
use serde::Serialize;

use super::canonical::{Canonical, weights};
use super::{facts, rounding};
use crate::compare::RowError;

/// A stop on the way: a format, and a dtype or mixture where weights are to be rounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The format.
    pub format: Format,
    /// The dtype or mixture, in lower case; as stored when absent.
    pub dtype: Option<String>,
}

impl FromStr for Station {
    type Err = String;

    /// `gguf`, or `gguf:q8_0`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, dtype) = match text.split_once(':') {
            Some((name, dtype)) => (name, Some(dtype.to_ascii_lowercase())),
            None => (text, None),
        };
        let formats = [Format::Gguf, Format::SafeTensors, Format::Apr];
        let format = formats.into_iter().find(|format| format.name() == name);
        let format = format.ok_or_else(|| {
            format!("no format is called {name:?}; there are gguf, safetensors and apr")
        })?;
        match dtype.as_deref().map(Precision::from_name) {
            Some(None) => Err(format!("no dtype is called {:?}", dtype.unwrap_or_default())),
            _ => Ok(Self { format, dtype }),
        }
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format.name())?;
        self.dtype.as_ref().map_or(Ok(()), |dtype| write!(f, ":{dtype}"))
    }
}

impl Station {
    fn precision(&self) -> Precision {
        let named = self.dtype.as_deref().and_then(Precision::from_name);
        named.unwrap_or(Precision::Stored)
    }

    /// Where the model lies in `folder` after `legs` legs.
    fn path(&self, folder: &Path, legs: usize) -> PathBuf {
        let name = match self.format {
            Format::SafeTensors => format!("{legs}-safetensors"),
            Format::Gguf => format!("{legs}.gguf"),
            Format::Apr => format!("{legs}.apr"),
        };
        folder.join(name)
    }
}

/// What one leg kept, or a whole way.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Leg {
    /// Where it began.
    pub from: String,
    /// Where it ended.
    pub to: String,
    /// Weights compared.
    pub weights: usize,
    /// Those with the same bytes, rows in one order.
    pub bytes_kept: usize,
    /// Those with the same values in another dtype.
    pub values_kept: usize,
    /// Those rounded to the dtype that was asked for, within what it rounds.
    pub rounded: usize,
    /// The worst normalised mean squared error of a rounded weight, and what was allowed for it.
    pub worst: Option<Rounded>,
    /// Hyper-parameters, end tokens, texts and conversations compared.
    pub facts: u64,
    /// What was lost, each in a sentence.
    pub lost: Vec<String>,
}

/// How far a weight was rounded.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rounded {
    /// Slot.
    pub slot: String,
    /// Normalised mean squared error of its values.
    pub nmse: f64,
    /// What the dtypes on the way may round.
    pub allowed: f64,
}

impl Leg {
    /// Whether something was lost, or nothing compared.
    pub fn loses(&self) -> bool {
        !self.lost.is_empty() || self.weights == 0 || self.facts == 0
    }
}

/// A way through several formats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Journey {
    /// Each leg against its own beginning.
    pub legs: Vec<Leg>,
    /// The end against the beginning; absent when the end was not reached.
    pub whole: Option<Leg>,
    /// Place of the first leg that loses something, from 0.
    pub first_loss: Option<usize>,
}

impl Journey {
    /// Whether everything was kept to the end.
    pub fn keeps(&self) -> bool {
        let whole = self.whole.as_ref().is_some_and(|whole| !whole.loses());
        whole && self.first_loss.is_none()
    }
}

/// What may have happened to weights so far.
#[derive(Debug, Default)]
pub struct Allowed(BTreeMap<Slot, Allowance>);

#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    /// Another dtype may hold the values.
    unpacked: bool,
    /// Root mean squared error that rounding explains, relative to the root mean square.
    error: f64,
}

/// Takes `model` to each of `stations` in turn, in files under `folder`, and compares the end with the beginning.
///
/// `watch` hears of the progress of each leg and may stop the way.
///
/// # Errors
/// [`Code::Cancelled`], and those of reading back what was written. A leg that the converter refuses is no error but a loss.
pub fn travel(
    model: &Model,
    stations: &[Station],
    folder: &Path,
    watch: &mut dyn FnMut(usize, Progress) -> ControlFlow<()>,
) -> Result<Journey> {
    let mut journey = Journey::default();
    let mut allowed = Allowed::default();
    let mut reached: Option<Model> = None;
    let mut from = model.format().name().to_owned();
    for (place, station) in stations.iter().enumerate() {
        let here = reached.as_ref().unwrap_or(model);
        let path = station.path(folder, place + 1);
        let mut watch = |progress| watch(place, progress);
        let written = convert_file(here, station.format, station.precision(), &path, &mut watch);
        let leg = match written {
            Err(error) if error.code() == Code::Cancelled => return Err(error),
            Err(error) => Leg { lost: vec![error.to_string()], ..Leg::empty(&from, station) },
            Ok(_) => {
                let next = Model::load(&path)?;
                let leg = Leg::judge(here, &next, &from, station, &mut allowed)?;
                reached = Some(next);
                leg
            }
        };
        let stopped = leg.weights == 0;
        if leg.loses() {
            journey.first_loss = journey.first_loss.or(Some(place));
        }
        journey.legs.push(leg);
        if stopped {
            return Ok(journey);
        }
        from = station.to_string();
    }
    if let Some(end) = &reached {
        let name = model.format().name();
        journey.whole = Some(Leg::whole(model, end, name, &from, &allowed)?);
    }
    Ok(journey)
}

impl Leg {
    fn empty(from: &str, to: &impl ToString) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_string(),
            weights: 0,
            bytes_kept: 0,
            values_kept: 0,
            rounded: 0,
            worst: None,
            facts: 0,
            lost: Vec::new(),
        }
    }

    /// Judges what stands at `station` against what it was made of, and adds to `allowed` what may have happened.
    ///
    /// # Errors
    /// Those of dequantisation and of a broken tokenizer or template.
    pub fn judge(
        before: &Model,
        after: &Model,
        from: &str,
        station: &Station,
        allowed: &mut Allowed,
    ) -> Result<Self> {
        let mut leg = Self::empty(from, station);
        leg.compare(before, after, |weight, now| {
            let error = match station.dtype {
                None => 0.0,
                Some(_) => rounding::limit(now.dtype, weight)?,
            };
            let sum = allowed.0.entry(weight.slot).or_default();
            sum.unpacked |= station.dtype.is_some() || unpacks(station.format, weight);
            sum.error += error;
            Ok(Allowance { unpacked: true, error })
        })?;
        Ok(leg)
    }

    /// Judges the end of a way against its beginning: what happened on each leg may have happened.
    ///
    /// # Errors
    /// As [`Leg::judge`].
    pub fn whole(
        before: &Model,
        after: &Model,
        from: &str,
        to: &str,
        allowed: &Allowed,
    ) -> Result<Self> {
        let mut leg = Self::empty(from, &to);
        leg.compare(before, after, |weight, _| {
            Ok(allowed.0.get(&weight.slot).copied().unwrap_or_default())
        })?;
        Ok(leg)
    }

    fn compare(
        &mut self,
        before: &Model,
        after: &Model,
        mut allowance: impl FnMut(&Canonical<'_>, &Canonical<'_>) -> Result<Allowance>,
    ) -> Result<()> {
        let mut theirs: BTreeMap<Slot, Canonical<'_>> =
            weights(after).map(|weight| (weight.slot, weight)).collect();
        for weight in weights(before) {
            self.weights += 1;
            match theirs.remove(&weight.slot) {
                None => self.lost.push(format!("{} is missing", weight.slot)),
                Some(now) => {
                    let allowed = allowance(&weight, &now)?;
                    self.weigh(&weight, &now, allowed)?;
                }
            }
        }
        self.lost.extend(theirs.keys().map(|slot| format!("{slot} came from nowhere")));
        let facts = facts::compare(before, after)?;
        self.facts = facts.count;
        self.lost.extend(facts.wrong);
        Ok(())
    }

    fn weigh(
        &mut self,
        weight: &Canonical<'_>,
        now: &Canonical<'_>,
        allowed: Allowance,
    ) -> Result<()> {
        let slot = weight.slot;
        if weight.shape != now.shape {
            self.lost.push(format!("{slot} had the shape {} and has {}", weight.shape, now.shape));
            return Ok(());
        }
        if weight.dtype == now.dtype && weight.bytes == now.bytes {
            self.bytes_kept += 1;
            return Ok(());
        }
        let error = RowError::new(&weight.view()?.dequantize()?, &now.view()?.dequantize()?);
        let (exact, nmse) =
            error.map_or((false, f64::INFINITY), |error| (error.bits_differ == 0, error.nmse));
        let limit = allowed.error * allowed.error;
        match (exact, allowed.unpacked) {
            (true, true) => self.values_kept += 1,
            (true, false) => {
                self.lost.push(format!("{slot} is stored as {}, not {}", now.dtype, weight.dtype));
            }
            // Also when it is no number.
            (false, _) if limit > 0.0 && nmse <= limit => {
                self.rounded += 1;
                if self.worst.as_ref().is_none_or(|worst| nmse / limit > worst.nmse / worst.allowed)
                {
                    self.worst = Some(Rounded { slot: slot.to_string(), nmse, allowed: limit });
                }
            }
            (false, _) => {
                self.lost.push(format!("{slot} has other values, nmse {nmse:.2e} of {limit:.2e}"));
            }
        }
        Ok(())
    }
}

/// Whether `format` has no place for the blocks of `weight`, so that their values must do.
fn unpacks(format: Format, weight: &Canonical<'_>) -> bool {
    let dtype = weight.dtype;
    let holds = match format {
        Format::SafeTensors => false,
        // Rows are whole blocks there.
        Format::Gguf => {
            let row = dtype.row_bytes(weight.shape.cols()).ok();
            let row = row.and_then(|row| usize::try_from(row).ok());
            let stride = weight.view().ok().and_then(|view| view.row_stride());
            dtype.gguf_id().is_some() && row.is_some() && row == stride
        }
        Format::Apr => dtype != Dtype::Q8K,
    };
    dtype.is_quantized() && !holds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }

    fn way(model: &str, stations: &[&str]) -> Journey {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Model::load(&fixture(model)).expect("a model");
        let stations: Vec<Station> =
            stations.iter().map(|text| text.parse().expect("a station")).collect();
        travel(&model, &stations, folder.path(), &mut |_, _| ControlFlow::Continue(()))
            .expect("a way")
    }

    #[test]
    fn stations_are_read_and_what_is_none_is_refused() {
        for text in ["gguf", "apr:q8_0", "safetensors:f16"] {
            assert_eq!(text.parse::<Station>().expect("a station").to_string(), text);
        }
        for text in ["", "zip", "gguf:", "gguf:q9", "GGUF"] {
            assert!(text.parse::<Station>().is_err(), "{text}");
        }
    }

    #[test]
    fn plain_weights_come_back_byte_by_byte() {
        let journey = way("pygmy/gemma2", &["gguf", "apr", "safetensors"]);
        assert!(journey.keeps(), "{journey:?}");
        let whole = journey.whole.expect("an end");
        assert_eq!((whole.bytes_kept, whole.values_kept + whole.rounded), (whole.weights, 0));
        // Vectors are single precision in GGUF, and what they were again behind it.
        let journey = way("golden", &["gguf", "apr", "safetensors"]);
        assert!(journey.keeps(), "{journey:?}");
        assert!(journey.legs[0].values_kept > 0 && journey.legs[1].values_kept > 0);
    }

    #[test]
    fn plain_weights_that_come_back_in_another_dtype_are_a_loss_of_the_whole_way() {
        let load = |name| Model::load(&fixture(name)).expect("a model");
        let (half, single) = (load("gguf/llama-mha-F16.gguf"), load("gguf/llama-mha-F32.gguf"));
        let whole = Leg::whole(&half, &half, "gguf", "gguf", &Allowed::default()).expect("a way");
        assert!(!whole.loses(), "{whole:?}");
        let way = Leg::whole(&half, &single, "gguf", "gguf", &Allowed::default()).expect("a way");
        assert!(way.loses());
    }

    #[test]
    fn blocks_that_a_format_cannot_hold_keep_their_values() {
        let journey = way("gguf/golden-Q4_K_M.gguf", &["apr", "safetensors"]);
        assert!(journey.keeps(), "{journey:?}");
        assert_eq!(journey.legs[0].values_kept, 0);
        assert!(journey.legs[1].values_kept > 20);
    }

    #[test]
    fn rounding_that_was_asked_for_is_judged_by_its_error_over_the_whole_way() {
        let journey = way("golden", &["gguf:q4_k_m", "apr:q8_0", "safetensors:f32"]);
        assert!(journey.keeps(), "{journey:?}");
        let whole = journey.whole.expect("an end");
        assert!(whole.rounded > 20 && whole.worst.is_some_and(|worst| worst.nmse > 1e-4));
    }

    #[test]
    fn a_leg_that_cannot_be_gone_is_the_first_that_loses() {
        let journey = way("pygmy/gemma2-wide", &["apr", "gguf", "safetensors"]);
        assert_eq!((journey.first_loss, journey.legs.len()), (Some(1), 2));
        assert!(!journey.keeps());
        assert!(journey.legs[1].lost[0].contains("query_pre_attn_scalar"), "{journey:?}");
    }

    #[test]
    fn what_was_not_asked_for_is_a_loss() {
        let from = Model::load(&fixture("gguf/mistral-F16.gguf")).expect("a model");
        let to = Model::load(&fixture("gguf/mistral-Q8_0.gguf")).expect("a model");
        let stored: Station = "gguf".parse().expect("a station");
        let leg = Leg::judge(&from, &to, "gguf", &stored, &mut Allowed::default()).expect("a leg");
        assert!(leg.loses() && leg.lost[0].contains("other values"), "{leg:?}");
        let asked: Station = "gguf:q8_0".parse().expect("a station");
        let leg = Leg::judge(&from, &to, "gguf", &asked, &mut Allowed::default()).expect("a leg");
        assert!(!leg.loses(), "{leg:?}");
        let wrong = Model::load(&fixture("gguf/mistral-Q4_0.gguf")).expect("a model");
        let leg = Leg::judge(&to, &wrong, "gguf", &stored, &mut Allowed::default()).expect("a leg");
        assert!(leg.loses());
    }
}
