//! The JSON Schema of a contract file, for editors.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Contract;

/// Where the definitions of a schema stand.
const DEFINITIONS: &str = "$defs";
/// The definition of a reference to a parameter.
const REFERENCE: &str = "ParameterReference";

/// The JSON Schema of a contract file. Inside a check, a reference to a parameter may stand for each scalar.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Contract).to_value();
    let Some(Value::Object(definitions)) = schema.get_mut(DEFINITIONS) else { return schema };
    for name in reachable(definitions, "Check") {
        if let Some(definition) = definitions.get_mut(&name) {
            admit_below(definition);
            if is_scalar(definition) || is_choice_of_words(definition) {
                admit(definition);
            }
        }
    }
    definitions.insert(
        REFERENCE.to_owned(),
        json!({
            "description": "The value of a parameter of this contract; `$$name` is the text `$name`.",
            "type": "string",
            "pattern": r"^\$[a-z][a-z0-9_]*(-[a-z0-9_]+)*$",
        }),
    );
    schema
}

/// Names of the definitions that `from` leads to, itself included.
fn reachable(definitions: &Map<String, Value>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        if let Some(definition) = definitions.get(&name)
            && seen.insert(name)
        {
            references(definition, &mut open);
        }
    }
    seen
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(entries) => {
            let target = entries.get("$ref").and_then(Value::as_str);
            found.extend(target.and_then(|path| path.rsplit('/').next()).map(str::to_owned));
            entries.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Admits references for the scalars below a schema: in its fields, items and branches.
fn admit_below(schema: &mut Value) {
    let Value::Object(entries) = schema else { return };
    for (key, inner) in entries.iter_mut() {
        match (key.as_str(), inner) {
            ("properties", Value::Object(fields)) => {
                for field in fields.values_mut() {
                    admit_below(field);
                    if is_scalar(field) {
                        admit(field);
                    }
                }
            }
            ("items", items) => {
                admit_below(items);
                if is_scalar(items) {
                    admit(items);
                }
            }
            ("oneOf" | "anyOf", Value::Array(branches)) => {
                branches.iter_mut().for_each(admit_below);
            }
            _ => {}
        }
    }
}

/// A number or a truth value, perhaps absent; a text admits references as it is.
fn is_scalar(schema: &Value) -> bool {
    let scalar = |name: &str| matches!(name, "number" | "integer" | "boolean");
    match &schema["type"] {
        Value::String(name) => scalar(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(scalar),
        _ => false,
    }
}

/// A choice between words.
fn is_choice_of_words(schema: &Value) -> bool {
    let word = |schema: &Value| schema.get("const").is_some() || schema.get("enum").is_some();
    word(schema) || schema["oneOf"].as_array().is_some_and(|branches| branches.iter().any(word))
}

fn admit(schema: &mut Value) {
    let plain = schema.take();
    let mut wrapped = Map::new();
    if let Some(description) = plain.get("description") {
        wrapped.insert("description".to_owned(), description.clone());
    }
    let reference = json!({ "$ref": format!("#/{DEFINITIONS}/{REFERENCE}") });
    wrapped.insert("anyOf".to_owned(), json!([plain, reference]));
    *schema = Value::Object(wrapped);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition<'s>(schema: &'s Value, path: &str) -> &'s Value {
        schema.pointer(&format!("/{DEFINITIONS}/{path}")).unwrap_or_else(|| panic!("{path}"))
    }

    fn admits(schema: &Value) -> bool {
        schema["anyOf"].to_string().contains(REFERENCE)
    }

    #[test]
    fn numbers_and_words_of_checks_admit_references_and_nothing_else_does() {
        let schema = schema();
        for path in ["Throughput/properties/tokens", "Positive", "Share", "Phase"] {
            assert!(admits(definition(&schema, path)), "{path}");
        }
        for path in ["Check", "Severity", "Tier", "Gate/properties/timeout-s", "ParameterKind"] {
            assert!(!admits(definition(&schema, path)), "{path}");
        }
    }

    #[test]
    fn every_reference_of_the_schema_leads_somewhere() {
        let schema = schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 20);
        for name in found {
            definition(&schema, &name);
        }
    }
}
