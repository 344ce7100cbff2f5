//! What `--json` prints is what `apr schema` promises.

use serde_json::Value;

use super::program::output;

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&output(arguments)).expect("one JSON value on standard output")
}

fn names() -> Vec<String> {
    output(&["schema"]).lines().map(str::to_owned).collect()
}

/// Whether `value` has the type, the required keys and no other keys than `schema` says, all the way down; paths of what differs.
pub(crate) fn differences(
    schema: &Value,
    value: &Value,
    whole: &Value,
    at: &str,
    found: &mut Vec<String>,
) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = whole.pointer(reference.trim_start_matches('#'));
        match target {
            Some(target) => differences(target, value, whole, at, found),
            None => found.push(format!("{at}: {reference} leads nowhere")),
        }
        return;
    }
    for choice in ["anyOf", "oneOf"] {
        let Some(branches) = schema[choice].as_array() else { continue };
        let fits = branches.iter().any(|branch| {
            let mut inner = Vec::new();
            differences(&with_members_of(schema, branch), value, whole, at, &mut inner);
            inner.is_empty()
        });
        if !fits {
            found.push(format!("{at}: {value} fits no branch of {choice}"));
        }
    }
    if !typed(&schema["type"], value) {
        found.push(format!("{at}: {value} is not of type {}", schema["type"]));
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        found.push(format!("{at}: {value} is not {constant}"));
    }
    match value {
        Value::Object(_) => keys(schema, value, whole, at, found),
        Value::Array(items) if schema["items"].is_object() => {
            for (index, item) in items.iter().enumerate() {
                differences(&schema["items"], item, whole, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// A branch of a choice that stands among members: those are its members too.
fn with_members_of(schema: &Value, branch: &Value) -> Value {
    let mut branch = branch.clone();
    if let (Some(more), Some(own)) =
        (schema["properties"].as_object(), branch["properties"].as_object_mut())
    {
        own.extend(more.clone());
    }
    branch
}

fn keys(schema: &Value, value: &Value, whole: &Value, at: &str, found: &mut Vec<String>) {
    let required = schema["required"].as_array();
    for key in required.into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            found.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let own = schema["properties"].get(key);
        let other = schema.get("additionalProperties").filter(|other| other.is_object());
        match own.or(other) {
            Some(own) => differences(own, inner, whole, &format!("{at}/{key}"), found),
            // Members of a choice are known to its branches.
            None if schema["properties"].is_object() && schema["oneOf"].is_null() => {
                found.push(format!("{at}: {key} is not in the schema"));
            }
            None => {}
        }
    }
}

fn typed(kind: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    };
    match kind {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

pub(crate) fn assert_keeps(name: &str, value: &Value) {
    let schema = json(&["schema", name]);
    assert!(schema["properties"].is_object(), "schema {name} has no properties");
    let mut found = Vec::new();
    differences(&schema, value, &schema, "", &mut found);
    assert!(found.is_empty(), "schema {name}:\n{}", found.join("\n"));
    assert_eq!(value["schema"], format!("apr/{name}/1"));
}

#[test]
fn every_schema_is_recorded() {
    let names = names();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let schema = output(&["schema", &name]);
        insta::assert_snapshot!(format!("schema-{name}"), schema);
    }
}

#[test]
fn the_json_of_every_command_keeps_its_schema() {
    let golden = "fixtures/golden";
    let commands: &[(&str, &[&str])] = &[
        ("run", &["run", golden, "What is 2+2?", "--json", "--logprobs", "2"]),
        ("inspect", &["inspect", "fixtures/gguf/golden-Q4_K_M.gguf", "--json"]),
        ("inspect", &["inspect", golden, "--json"]),
        ("tensors", &["tensors", "fixtures/gguf/mistral-Q8_0.gguf", "--stats", "--json"]),
        ("tensors", &["tensors", golden, "--json"]),
        ("explain", &["explain", "E0001", "--json"]),
        ("explain", &["explain", "--json"]),
        ("check", &["check", golden, "--json"]),
        ("qa-coverage", &["qa", "coverage", "--no-report", "--json"]),
        ("rosetta-compare-inference", &["rosetta", "compare-inference", golden, golden, "--json"]),
        ("rosetta-diff", &["rosetta", "diff", golden, golden, "--json"]),
        ("rosetta-fingerprint", &["rosetta", "fingerprint", golden, "--json"]),
        ("qa-list", &["qa", "list", "--suite", "pygmy", "--json"]),
        ("qa-prove", &["qa", "--prove", "--no-report", "--json", "-f", "gate(=greedy)"]),
        ("qa", &["qa", "--suite", "pygmy", "--no-report", "--json", "-f", "gate(=magic)"]),
    ];
    for (name, arguments) in commands {
        assert_keeps(name, &json(arguments));
    }
}

#[test]
fn sides_that_part_keep_the_schema_even_where_values_are_no_numbers() {
    let golden = "fixtures/golden";
    let fault = "engine/nan-at-layer";
    let arguments = ["rosetta", "compare-inference", golden, golden, "--plant", fault, "--json"];
    let run = super::program::run(&arguments);
    let value: Value = serde_json::from_str(&run.out).expect("one JSON value");
    assert_keeps("rosetta-compare-inference", &value);
    assert_eq!((run.code, &value["comparison"]["first"]["local"]), (1, &Value::Null));
}

#[test]
fn a_failure_keeps_the_schema_of_errors() {
    for arguments in [
        &["inspect", "no-such-file.gguf", "--json"][..],
        &["explain", "E9999", "--json"][..],
        &["inspect", "README.md", "--json"][..],
    ] {
        let run = super::program::run(arguments);
        let value: Value = serde_json::from_str(&run.out).expect("one JSON value");
        assert_keeps("error", &value);
        assert_eq!(value["exit_code"], run.code);
    }
}

#[test]
fn the_check_in_this_file_sees_a_missing_and_an_unknown_key() {
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}
    });
    for (value, expected) in [
        (serde_json::json!({"a": 1}), 0),
        (serde_json::json!({}), 1),
        (serde_json::json!({"a": 1, "b": 2}), 1),
        (serde_json::json!({"a": "1"}), 1),
    ] {
        let mut found = Vec::new();
        differences(&schema, &value, &schema, "", &mut found);
        assert_eq!(found.len(), expected, "{value}: {found:?}");
    }
}
