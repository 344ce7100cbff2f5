//! `tensor-layout`: the tensors are the ones the architecture needs, in the right shape and orientation.

use apr_engine::format::Container;
use apr_engine::model::weights::{has, shape};
use apr_engine::model::{Bias, Model, Role, Slot};

use super::Planned;
use super::context::{JudgeContext, Look, refused};
use super::look::all_of;
use crate::contract::check::{LayoutRule, TensorLayout};
use crate::verdict::Verdict;

/// Judges `check` on `case`.
pub(super) fn judge(check: &TensorLayout, case: &Planned, ctx: &JudgeContext) -> Look<Verdict> {
    let form = ctx.form(case)?;
    let model = ctx.model(form)?;
    let containers =
        model.source().containers().map_err(|error| refused("the file does not parse", &error))?;
    Ok(match check.rule {
        LayoutRule::Names => names(&model, &containers),
        LayoutRule::Shapes => shapes(&model),
        LayoutRule::Orientation => orientation(&model),
        LayoutRule::Layers => layers(&model, &containers),
        LayoutRule::Head => head(&model),
        LayoutRule::Dtypes => dtypes(&model),
        LayoutRule::Biases => biases(&model)?,
    })
}

fn names(model: &Model, containers: &[Container<'_>]) -> Verdict {
    let dialect = model.config().family.dialect();
    let entries = containers.iter().flat_map(|container| &container.tensors);
    let count = entries.clone().count() as u64;
    // Frequencies that old checkpoints store are computed here; everything else must be wanted by a slot.
    let left_over = entries
        .filter(|entry| Slot::parse_in(&entry.name, dialect).is_none())
        .filter(|entry| !entry.name.ends_with("rotary_emb.inv_freq"))
        .map(|entry| format!("{} belongs to no slot", entry.name));
    let mut wrong: Vec<String> = left_over.collect();
    let config = model.config();
    // Fused matrices of a file fill the slots of their parts.
    let part = |role| matches!(role, Role::Q | Role::K | Role::V | Role::Gate | Role::Up);
    let filled = |role| has(config, role) || (config.fused && part(role));
    let needed = Role::all().filter(|role| !is_optional(*role) && filled(*role));
    for role in needed {
        let layers = if role.in_layer() { model.config().layers } else { 1 };
        for layer in 0..layers {
            let slot = Slot { layer: role.in_layer().then_some(layer), role };
            if model.weights().get(slot).is_none() {
                wrong.push(format!("{slot} is missing"));
            }
        }
    }
    all_of(count, "tensors belong to a slot and every slot is filled", wrong)
}

/// Roles that depend on the file: biases, an own head, rotary factors, and matrices that are taken apart.
fn is_optional(role: Role) -> bool {
    matches!(
        role,
        Role::QBias
            | Role::KBias
            | Role::VBias
            | Role::OBias
            | Role::Head
            | Role::RopeFactors
            | Role::Qkv
            | Role::GateUp
    )
}

fn shapes(model: &Model) -> Verdict {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (slot, entry) in model.weights().iter() {
        count += 1;
        let (expected, found) = (shape(model.config(), slot.role), entry.tensor.shape());
        if found.dims() != expected {
            wrong.push(format!("{}: {found} instead of {expected:?}", entry.name));
        }
    }
    all_of(count, "weights have the shape of the hyper-parameters", wrong)
}

/// A stored matrix is outermost-first `[out, in]`. Where the sides differ, the shape decides. Square ones are judged by
/// what each row means: the rows of Q of one head belong together, so a transposed matrix is found by parity
/// gates, not here; they are counted apart.
fn orientation(model: &Model) -> Verdict {
    let mut wrong = Vec::new();
    let (mut decided, mut square) = (0, 0u64);
    for (slot, entry) in model.weights().iter() {
        let expected = shape(model.config(), slot.role);
        let [rows, cols] = expected[..] else { continue };
        if rows == cols {
            square += 1;
            continue;
        }
        decided += 1;
        let found = entry.tensor.shape();
        if found.dims() == [cols, rows] {
            wrong.push(format!("{}: stored as [in, out] {found}", entry.name));
        } else if found.dims() != expected {
            wrong.push(format!("{}: {found} instead of {expected:?}", entry.name));
        }
    }
    all_of(decided, &format!("matrices stored as [out, in] ({square} square ones apart)"), wrong)
}

fn layers(model: &Model, containers: &[Container<'_>]) -> Verdict {
    let dialect = model.config().family.dialect();
    let entries = containers.iter().flat_map(|container| &container.tensors);
    let found: std::collections::BTreeSet<usize> =
        entries.filter_map(|entry| Slot::parse_in(&entry.name, dialect)?.0.layer).collect();
    let declared: std::collections::BTreeSet<usize> = (0..model.config().layers).collect();
    let missing = declared.difference(&found).map(|layer| format!("layer {layer} is missing"));
    let surplus = found.difference(&declared).map(|layer| format!("layer {layer} is surplus"));
    all_of(declared.len() as u64, "declared layers are there", missing.chain(surplus).collect())
}

fn head(model: &Model) -> Verdict {
    let own = model.weights().get(Slot::model(Role::Head));
    let declared = model.config().tied_embeddings;
    let wrong = match (own.is_some(), model.weights().tied(), declared) {
        (false, false, _) => vec!["neither a head nor a tied embedding".to_owned()],
        (_, tied, Some(declared)) if tied != declared => {
            vec![format!("tied is {tied}, declared {declared}")]
        }
        _ => Vec::new(),
    };
    all_of(1, "output heads accounted for", wrong)
}

/// A bias of zeros is what no bias would be: a family that is trained with biases has other ones.
fn biases(model: &Model) -> Look<Verdict> {
    let config = model.config();
    let roles = [
        (Role::QBias, config.qkv_bias),
        (Role::KBias, config.qkv_bias),
        (Role::VBias, config.qkv_bias),
        (Role::OBias, config.o_bias),
    ];
    let places = (0..config.layers)
        .flat_map(|layer| roles.map(|(role, bias)| (Slot::layer(layer, role), bias)));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (slot, bias) in places {
        count += 1;
        match (model.weights().get(slot), bias) {
            (None, Bias::Required) => wrong.push(format!("{slot} is missing")),
            (Some(_), Bias::Absent) => wrong.push(format!("{slot} is there but not wanted")),
            (Some(entry), Bias::Required) => {
                let values = entry.tensor.view().and_then(|view| view.dequantize());
                let values = values.map_err(|error| refused("a bias cannot be read", &error))?;
                if values.iter().all(|value| *value == 0.0) {
                    wrong.push(format!("{slot} holds nothing but zeros"));
                }
            }
            (_, Bias::Absent | Bias::IfPresent) => {}
        }
    }
    Ok(all_of(count, "places for a bias are as the family has them", wrong))
}

fn dtypes(model: &Model) -> Verdict {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (slot, entry) in model.weights().iter() {
        count += 1;
        let mut row = vec![0.0; entry.tensor.shape().cols() as usize];
        let read = entry.tensor.view().and_then(|view| view.dequantize_row(0, &mut row));
        if let Err(error) = read {
            wrong.push(format!("{slot}: {error}"));
        }
    }
    all_of(count, "weights readable as numbers", wrong)
}
