//! The rotation in force against what the file states of it, read past the engine's own reader.

use apr_engine::format::{Container, Metadata};
use apr_engine::model::{Config, Model, RopeScaling};
use serde_json::{Map, Value as Json};

use super::super::context::{Look, refused};
use super::super::look::all_of;
use crate::verdict::Verdict;

/// Relative distance of two numbers of which one went through f32.
const ROUNDING: f64 = 1e-6;

/// What a file states of the rotation; `None` where it leaves a thing to its family.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stated {
    /// Base of the wavelengths.
    base: Option<f64>,
    /// The same for layers with a window.
    local_base: Option<f64>,
    /// How frequencies are stretched, as the file calls it; `none` when nothing is said.
    scaling: String,
    /// By how much, where one number says it.
    factor: Option<f64>,
    /// Share of each head that is rotated.
    share: Option<f64>,
}

/// Whether a model that runs under `in_force` rotates as its file states.
pub(super) fn rope_as_stated(model: &Model, in_force: &Config) -> Look<Verdict> {
    let source = model.source();
    let containers =
        source.containers().map_err(|error| refused("the file does not parse", &error))?;
    let config = source.sidecars().config.as_deref();
    let stated = containers.first().and_then(|first| stated(first, config, in_force.head_dim));
    let Some(stated) = stated else {
        return Err(Box::new(Verdict::broken("the file's statements cannot be read")));
    };
    Ok(compare(&stated, in_force))
}

fn stated(first: &Container<'_>, config: Option<&[u8]>, head_dim: usize) -> Option<Stated> {
    match &first.metadata {
        Metadata::Gguf(_) => in_gguf(&first.metadata, head_dim),
        Metadata::Apr(map) => Some(in_json(map)),
        Metadata::SafeTensors(_) => {
            serde_json::from_slice(config?).ok().map(|map: Map<_, _>| in_json(&map))
        }
    }
}

fn in_json(map: &Map<String, Json>) -> Stated {
    // A file that came from GGUF repeats its keys as `model.…`.
    let top = |key: &str| map.get(key).or_else(|| map.get(&format!("model.{key}")));
    let object = |key: &str| top(key).and_then(Json::as_object);
    let nested: Vec<_> =
        ["rope_scaling", "rope_parameters"].into_iter().filter_map(object).collect();
    let of_kind = |kind: &str, map| Json::as_object(Map::get(map, kind)?);
    let whole = nested.iter().map(|map| of_kind("full_attention", map).unwrap_or(map));
    let number = |key: &str| {
        let inner = whole.clone().find_map(|map| map.get(key)?.as_f64());
        top(key).and_then(Json::as_f64).or(inner)
    };
    let local = nested.iter().filter_map(|map| of_kind("sliding_attention", map));
    let local = local.clone().find_map(|map| map.get("rope_theta")?.as_f64());
    let scaling = whole.clone().find_map(|map| map.get("rope_type").or(map.get("type"))?.as_str());
    Stated {
        base: number("rope_theta"),
        local_base: top("rope_local_base_freq").and_then(Json::as_f64).or(local),
        scaling: scaling.unwrap_or("none").to_owned(),
        factor: whole.clone().find_map(|map| map.get("factor")?.as_f64()),
        share: number("partial_rotary_factor"),
    }
}

fn in_gguf(metadata: &Metadata<'_>, head_dim: usize) -> Option<Stated> {
    let architecture = metadata.gguf("general.architecture")?.as_str()?;
    let key = |name: &str| metadata.gguf(&format!("{architecture}.rope.{name}"));
    let number = |name: &str| key(name)?.as_f64();
    let rotated = key("dimension_count").and_then(apr_engine::format::Value::as_u64);
    let scaling = key("scaling.type").and_then(apr_engine::format::Value::as_str);
    // Older converters leave the word out where divisors and their factor stand.
    let unsaid = if number("scaling.attn_factor").is_some() { "longrope" } else { "none" };
    Some(Stated {
        base: number("freq_base"),
        local_base: number("freq_base_swa"),
        scaling: scaling.unwrap_or(unsaid).to_owned(),
        factor: number("scaling.factor"),
        share: rotated.map(|rotated| rotated as f64 / head_dim as f64),
    })
}

fn compare(stated: &Stated, config: &Config) -> Verdict {
    let rope = &config.rope;
    let (scaling, factor) = match &rope.scaling {
        RopeScaling::None => ("none", None),
        RopeScaling::Linear { factor } => ("linear", Some(*factor)),
        RopeScaling::Llama3 { factor, .. } => ("llama3", Some(*factor)),
        RopeScaling::Long(_) => ("longrope", None),
    };
    let local = config.local_rope.as_ref().map(|rope| rope.theta);
    let numbers = [
        ("base", stated.base, Some(rope.theta)),
        ("base of layers with a window", stated.local_base.filter(|_| local.is_some()), local),
        ("factor", stated.factor.filter(|_| factor.is_some()), factor),
        ("rotated share of a head", stated.share, Some(rope.dims as f64 / config.head_dim as f64)),
    ];
    let agree = |stated: f64, in_force: f64| (stated - in_force).abs() <= ROUNDING * stated.abs();
    let mut count = 1;
    let mut wrong = Vec::new();
    for (what, stated, in_force) in numbers {
        let (Some(stated), Some(in_force)) = (stated, in_force) else { continue };
        count += 1;
        if !agree(stated, in_force) {
            wrong.push(format!("{what}: {stated} in the file, {in_force} in force"));
        }
    }
    let said = match stated.scaling.as_str() {
        "default" => "none",
        "su" => "longrope",
        other => other,
    };
    if said != scaling {
        wrong.push(format!("scaling: {said} in the file, {scaling} in force"));
    }
    all_of(count, "statements of the file about rotation are in force", wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &Json) -> Stated {
        in_json(config.as_object().expect("an object"))
    }

    #[test]
    fn the_base_is_found_under_every_name_it_goes_by() {
        let flat = json!({ "rope_theta": 1e6 });
        let nested = json!({ "rope_parameters": { "rope_theta": 1e6, "rope_type": "default" } });
        let by_kind = json!({ "rope_parameters": {
            "full_attention": { "rope_theta": 1e6, "rope_type": "linear", "factor": 8.0 },
            "sliding_attention": { "rope_theta": 1e4, "rope_type": "default" },
        } });
        for config in [&flat, &nested, &by_kind] {
            assert_eq!(read(config).base, Some(1e6), "{config}");
        }
        let by_kind = read(&by_kind);
        assert_eq!((by_kind.local_base, by_kind.factor), (Some(1e4), Some(8.0)));
        assert_eq!(by_kind.scaling, "linear");
    }

    #[test]
    fn what_a_file_does_not_say_is_not_held_against_the_engine() {
        assert_eq!(read(&json!({})), Stated { scaling: "none".into(), ..Stated::default() });
    }
}
