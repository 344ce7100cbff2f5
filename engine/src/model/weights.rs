//! From named tensors to weights: every slot present, every shape as the hyper-parameters demand.
//!
//! [`Weights`] can only come from [`Weights::collect`], so whoever holds one need not check again.

use std::collections::BTreeMap;

use super::config::{Bias, Config};
use super::conventions;
use super::rope::{LongRope, RopeScaling};
use super::slots::{Naming, Role, Slot};
use crate::backend::Backend;
use crate::backend::host::check_dtype;
use crate::error::{Code, Error, Result};
use crate::tensor::Tensor;

/// A tensor and its name in the file.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// The name in the file.
    pub name: String,
    /// Handle on the bytes in the file.
    pub tensor: Tensor,
}

/// The weights of a model by slot, complete, of the right shapes and as the forward pass takes them, whatever the
/// conventions of the file were.
#[derive(Clone, Debug)]
pub struct Weights {
    slots: BTreeMap<Slot, NamedTensor>,
    ignored: Vec<String>,
    tied: bool,
}

impl Weights {
    /// Sorts tensors into slots and checks them against `config`.
    ///
    /// # Errors
    /// [`Code::WeightMissing`], [`Code::WeightShape`] and [`Code::WeightUnexpected`], each with the
    /// tensor's name, [`Code::NonFinite`] for unusable rotary factors.
    pub fn collect(config: &Config, tensors: Vec<NamedTensor>) -> Result<Self> {
        let (weights, errors) = Self::sort(config, tensors);
        errors.into_iter().next().map_or(Ok(weights), Err)
    }

    /// Everything that [`Weights::collect`] would refuse, in the order of the file, missing weights last, and the
    /// weights that no backend computes with.
    pub fn violations(config: &Config, tensors: Vec<NamedTensor>) -> Vec<Error> {
        let (weights, mut errors) = Self::sort(config, tensors);
        let dtypes = weights.iter().map(|(slot, weight)| check_dtype(slot, &weight.tensor));
        errors.extend(dtypes.filter_map(Result::err));
        errors
    }

    /// Sorts tensors into slots, with all that is wrong. A tensor of the wrong shape is not missing too.
    fn sort(config: &Config, tensors: Vec<NamedTensor>) -> (Self, Vec<Error>) {
        let mut slots: BTreeMap<Slot, NamedTensor> = BTreeMap::new();
        let mut ignored = Vec::new();
        let mut errors = Vec::new();
        for entry in tensors {
            let Some((slot, _)) = Slot::parse_in(&entry.name, config.family.dialect()) else {
                errors.extend(refuse_unknown_layer_weight(&entry.name).err());
                ignored.push(entry.name);
                continue;
            };
            if let Err(error) = check_declared(config, slot, &entry.name) {
                errors.push(error);
                continue;
            }
            errors.extend(check_shape(config, slot, &entry).err());
            if let Some(first) = slots.get(&slot) {
                errors.push(
                    Error::new(Code::WeightUnexpected)
                        .tensor(&entry.name)
                        .expected(format_args!("one tensor for {slot}"))
                        .found(format_args!("{} too", first.name)),
                );
                continue;
            }
            slots.insert(slot, entry);
        }
        errors.extend(missing(config, &slots));
        let head = Slot::model(Role::Head);
        let tied = config.tied_embeddings.unwrap_or(!slots.contains_key(&head));
        let (slots, more) = conventions::canonical(config, slots);
        errors.extend(more);
        let weights = Self { slots, ignored, tied };
        let divisors = [Role::RopeFactors, Role::RopeFactorsShort, Role::RopeFactorsLong];
        errors.extend(divisors.into_iter().filter_map(|role| weights.divisors(role).err()));
        (weights, errors)
    }

    /// The tensor of `slot`.
    pub fn get(&self, slot: Slot) -> Option<&NamedTensor> {
        self.slots.get(&slot)
    }

    /// All tensors in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &NamedTensor)> {
        self.slots.iter().map(|(slot, entry)| (*slot, entry))
    }

    /// Names in the file that no slot wanted.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Whether the head is the embedding.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// Divisors of the rotary frequencies in `role`, when the file brings them.
    pub(super) fn divisors(&self, role: Role) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.get(Slot::model(role)) else { return Ok(None) };
        let factors = entry.tensor.view()?.dequantize()?;
        match factors.iter().find(|factor| !(factor.is_finite() && **factor > 0.0)) {
            Some(factor) => Err(Error::new(Code::NonFinite)
                .tensor(&entry.name)
                .expected("finite positive divisors")
                .found(factor)),
            None => Ok(Some(factors)),
        }
    }

    /// Makes every weight resident on `backend`.
    pub(super) fn upload<B: Backend>(
        &self,
        config: &Config,
        backend: &B,
    ) -> Result<Resident<B::Weight>> {
        let optional = |slot: Slot| match self.get(slot) {
            Some(entry) => {
                backend.upload(slot, &entry.tensor).map(Some).map_err(|e| e.tensor(&entry.name))
            }
            None => Ok(None),
        };
        let required = |slot: Slot| {
            optional(slot)?.ok_or_else(|| Error::new(Code::WeightMissing).tensor(slot.to_string()))
        };
        let layer = |layer: usize| {
            let slot = |role| Slot::layer(layer, role);
            Ok(ResidentLayer {
                attn_norm: required(slot(Role::AttnNorm))?,
                q: required(slot(Role::Q))?,
                q_bias: optional(slot(Role::QBias))?,
                k: required(slot(Role::K))?,
                k_bias: optional(slot(Role::KBias))?,
                v: required(slot(Role::V))?,
                v_bias: optional(slot(Role::VBias))?,
                q_norm: optional(slot(Role::QNorm))?,
                k_norm: optional(slot(Role::KNorm))?,
                o: required(slot(Role::O))?,
                o_bias: optional(slot(Role::OBias))?,
                attn_post_norm: optional(slot(Role::AttnPostNorm))?,
                ffn_norm: required(slot(Role::FfnNorm))?,
                gate: required(slot(Role::Gate))?,
                up: required(slot(Role::Up))?,
                down: required(slot(Role::Down))?,
                ffn_post_norm: optional(slot(Role::FfnPostNorm))?,
            })
        };
        Ok(Resident {
            embed: required(Slot::model(Role::Embed))?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            final_norm: required(Slot::model(Role::FinalNorm))?,
            head: if self.tied { None } else { Some(required(Slot::model(Role::Head))?) },
        })
    }
}

/// Weights of one layer on a device.
#[derive(Debug)]
pub(super) struct ResidentLayer<W> {
    pub(super) attn_norm: W,
    pub(super) q: W,
    pub(super) q_bias: Option<W>,
    pub(super) k: W,
    pub(super) k_bias: Option<W>,
    pub(super) v: W,
    pub(super) v_bias: Option<W>,
    pub(super) q_norm: Option<W>,
    pub(super) k_norm: Option<W>,
    pub(super) o: W,
    pub(super) o_bias: Option<W>,
    pub(super) attn_post_norm: Option<W>,
    pub(super) ffn_norm: W,
    pub(super) gate: W,
    pub(super) up: W,
    pub(super) down: W,
    pub(super) ffn_post_norm: Option<W>,
}

/// Weights of a model on a device.
#[derive(Debug)]
pub(super) struct Resident<W> {
    pub(super) embed: W,
    pub(super) layers: Vec<ResidentLayer<W>>,
    pub(super) final_norm: W,
    /// `None` when the embedding serves.
    pub(super) head: Option<W>,
}

/// The shape, outermost first, that `config` gives to a role.
pub fn shape(config: &Config, role: Role) -> Vec<u64> {
    let (hidden, vocab, ffn) = (config.hidden, config.vocab, config.intermediate);
    let (q, kv) = (config.q_width(), config.kv_width());
    let dims: &[usize] = match role {
        Role::Embed | Role::Head => &[vocab, hidden],
        Role::AttnNorm
        | Role::AttnPostNorm
        | Role::FfnNorm
        | Role::FfnPostNorm
        | Role::FinalNorm
        | Role::OBias => &[hidden],
        Role::Qkv => &[q + 2 * kv, hidden],
        Role::Q => &[q, hidden],
        Role::K | Role::V => &[kv, hidden],
        Role::QBias => &[q],
        Role::QNorm | Role::KNorm => &[config.head_dim],
        Role::KBias | Role::VBias => &[kv],
        Role::O => &[hidden, q],
        Role::GateUp => &[2 * ffn, hidden],
        Role::Gate | Role::Up => &[ffn, hidden],
        Role::Down => &[hidden, ffn],
        Role::RopeFactors | Role::RopeFactorsShort | Role::RopeFactorsLong => {
            &[config.rope.dims / 2]
        }
    };
    dims.iter().map(|dim| *dim as u64).collect()
}

/// Whether files of such a model hold weights of `role` at all.
pub fn has(config: &Config, role: Role) -> bool {
    let divisors_in_tensors =
        matches!(config.rope.scaling, RopeScaling::Long(LongRope { factors: None, .. }));
    match role {
        Role::QNorm | Role::KNorm => config.qk_norm,
        Role::AttnPostNorm | Role::FfnPostNorm => config.post_norms,
        Role::Qkv | Role::GateUp => config.fused,
        Role::Q | Role::K | Role::V | Role::Gate | Role::Up => !config.fused,
        Role::RopeFactorsShort | Role::RopeFactorsLong => divisors_in_tensors,
        _ => true,
    }
}

fn bias_of(config: &Config, role: Role) -> Option<Bias> {
    match role {
        Role::QBias | Role::KBias | Role::VBias => Some(config.qkv_bias),
        Role::OBias => Some(config.o_bias),
        _ => None,
    }
}

/// Every slot that must be filled. Where the file decides about biases, one layer's bias calls for all.
fn required_slots(config: &Config, present: &BTreeMap<Slot, NamedTensor>) -> Vec<Slot> {
    let somewhere = |roles: &[Role]| present.keys().any(|slot| roles.contains(&slot.role));
    let qkv = somewhere(&[Role::QBias, Role::KBias, Role::VBias]);
    let output = somewhere(&[Role::OBias]);
    let needed = |role: Role| match (role, bias_of(config, role)) {
        (Role::Head, _) => config.tied_embeddings == Some(false),
        (Role::RopeFactors, _) | (_, Some(Bias::Absent)) => false,
        (role, _) if !has(config, role) => false,
        (_, None | Some(Bias::Required)) => true,
        (Role::OBias, Some(Bias::IfPresent)) => output,
        (_, Some(Bias::IfPresent)) => qkv,
    };
    let (layer, model): (Vec<Role>, Vec<Role>) =
        Role::all().filter(|role| needed(*role)).partition(|role| role.in_layer());
    let layers = (0..config.layers)
        .flat_map(|index| layer.iter().map(move |role| Slot::layer(index, *role)));
    model.into_iter().map(Slot::model).chain(layers).collect()
}

/// One error for each slot that must be filled and is not, under the name the file's other tensors suggest.
fn missing(config: &Config, slots: &BTreeMap<Slot, NamedTensor>) -> Vec<Error> {
    let dialect = config.family.dialect();
    let namings = slots.values().filter_map(|entry| Slot::parse_in(&entry.name, dialect));
    let naming = namings.map(|(_, naming)| naming).next();
    let naming = naming.unwrap_or(Naming::HuggingFace);
    let required = required_slots(config, slots);
    let absent = required.into_iter().filter(|slot| !slots.contains_key(slot));
    let error = |slot: Slot| {
        Error::new(Code::WeightMissing)
            .tensor(slot.name_in(naming, config.family.dialect()))
            .expected(format_args!("{:?}", shape(config, slot.role)))
            .found("no such tensor")
    };
    absent.map(error).collect()
}

/// Refuses layers beyond the declared ones, and weights that the family or the hyper-parameters deny.
fn check_declared(config: &Config, slot: Slot, name: &str) -> Result<()> {
    if slot.layer.is_some_and(|layer| layer >= config.layers) {
        return Err(Error::new(Code::WeightUnexpected)
            .tensor(name)
            .expected(format_args!("{} layers", config.layers))
            .found("a weight of a later layer"));
    }
    if !has(config, slot.role) {
        return Err(Error::new(Code::WeightUnexpected)
            .tensor(name)
            .expected(format_args!("a weight of the family {}", config.family.name))
            .found("one that would change the mathematics"));
    }
    if bias_of(config, slot.role) == Some(Bias::Absent) {
        return Err(Error::new(Code::WeightUnexpected)
            .tensor(name)
            .expected("no bias, as the hyper-parameters say")
            .found("a bias"));
    }
    Ok(())
}

/// Refuses weights inside a layer that no slot takes: leaving one out would change the mathematics.
fn refuse_unknown_layer_weight(name: &str) -> Result<()> {
    let bare = name.strip_prefix("model.").unwrap_or(name);
    let in_layer = bare.starts_with("layers.") || bare.starts_with("blk.");
    // Old checkpoints store the frequencies, which are computed here.
    if !in_layer || name.ends_with("rotary_emb.inv_freq") {
        return Ok(());
    }
    Err(Error::new(Code::WeightUnexpected)
        .tensor(name)
        .expected("only weights that the architecture has")
        .found("an unknown weight inside a layer"))
}

fn check_shape(config: &Config, slot: Slot, entry: &NamedTensor) -> Result<()> {
    let expected = shape(config, slot.role);
    let found = entry.tensor.shape();
    if found.dims() == expected {
        return Ok(());
    }
    let error = Error::new(Code::WeightShape)
        .tensor(&entry.name)
        .expected(format_args!("{expected:?}"))
        .found(found);
    let reversed = expected.iter().rev().eq(found.dims());
    Err(if reversed { error.hint("the file holds the transposed matrix") } else { error })
}
