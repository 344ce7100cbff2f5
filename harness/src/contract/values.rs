//! From a contract with parameters to one with values.
//!
//! Inside a `check`, a scalar that is `$name` and nothing else stands for the value of the parameter `name`; `$$name` is
//! the text `$name`. The values are written into the text before it is typed, so a check cannot tell a value that was
//! written down from one that was set; mistakes are still reported where they stand in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_yaml::Value;

use super::is_kebab;
use super::load::{CatalogueError, parse};
use super::parameter::{Parameter, ParameterValue, Scalar, Setting};
use super::place::{Position, Step, key_at, path_text, value_at};

/// The parameters of a contract, whatever its gates are.
#[derive(Deserialize)]
struct Declared {
    #[serde(default)]
    contract: String,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
}

/// A contract's text with every reference replaced by its value.
#[derive(Debug)]
pub(super) struct Valued {
    /// The text.
    pub(super) text: String,
    /// The parameters with their values, by name.
    pub(super) values: BTreeMap<String, ParameterValue>,
    edits: Vec<Edit>,
}

/// A reference that was replaced.
#[derive(Debug)]
struct Edit {
    /// Where the reference begins in the file.
    position: Position,
    /// Its characters in the file, and those of the value.
    before: usize,
    after: usize,
    /// The parameter, or the literal text.
    name: String,
}

/// A reference as it stands in a check.
struct Reference {
    path: Vec<Step>,
    name: String,
    /// `$$name`: the text itself is meant.
    literal: bool,
}

/// Why a contract has no values.
pub(super) enum Unvalued {
    /// Something in the file or in a setting is wrong.
    Wrong(CatalogueError),
    /// The file is right, but nobody gives this parameter a value.
    Unset(CatalogueError),
}

impl From<CatalogueError> for Unvalued {
    fn from(error: CatalogueError) -> Self {
        Self::Wrong(error)
    }
}

/// Writes the values of the parameters into `text`: the one that `settings` gives, else the default.
pub(super) fn give(text: &str, file: &Path, settings: &[Setting]) -> Result<Valued, Unvalued> {
    let declared: Declared = parse(text, file)?;
    let mine: Vec<&Setting> =
        settings.iter().filter(|setting| setting.contract == declared.contract).collect();
    let source = Source { text, file, declared: &declared };
    let references = source.references()?;
    source.check_names()?;
    source.check_declared(&references, &mine)?;
    let values = source.values(&mine)?;
    Ok(source.write(&references, values)?)
}

struct Source<'s> {
    text: &'s str,
    file: &'s Path,
    declared: &'s Declared,
}

impl Source<'_> {
    fn wrong(&self, at: Option<Position>, path: &[Step], message: String) -> CatalogueError {
        let path = path_text(path);
        CatalogueError { file: self.file.into(), position: at, path, message }
    }

    /// A mistake of the declaration of `name`.
    fn wrong_declaration(&self, name: &str, message: String) -> CatalogueError {
        let path = [Step::Key("parameters".into()), Step::Key(name.into())];
        self.wrong(key_at(self.text, &path), &path, message)
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.declared.parameters.keys().map(String::as_str).collect();
        if names.is_empty() {
            "the contract declares none".into()
        } else {
            format!("declared are {}", names.join(", "))
        }
    }

    /// The references of all checks, in the order of the text.
    fn references(&self) -> Result<Vec<Reference>, CatalogueError> {
        let mut found = Vec::new();
        if self.text.contains('$') {
            let document: Value = parse(self.text, self.file)?;
            let gates = document.get("gates").and_then(Value::as_sequence).into_iter().flatten();
            for (index, gate) in gates.enumerate() {
                let path =
                    vec![Step::Key("gates".into()), Step::Item(index), Step::Key("check".into())];
                collect(gate.get("check").unwrap_or(&Value::Null), path, &mut found);
            }
        }
        Ok(found)
    }

    fn check_names(&self) -> Result<(), CatalogueError> {
        match self.declared.parameters.keys().find(|name| !is_reference(name)) {
            Some(name) => {
                let message = format!("parameter name {name:?} is not kebab-case");
                Err(self.wrong_declaration(name, message))
            }
            None => Ok(()),
        }
    }

    /// What is declared, set and referred to must be the same parameters.
    fn check_declared(
        &self,
        references: &[Reference],
        settings: &[&Setting],
    ) -> Result<(), CatalogueError> {
        let parameters = &self.declared.parameters;
        let meant = || references.iter().filter(|reference| !reference.literal);
        if let Some(unknown) = meant().find(|found| !parameters.contains_key(&found.name)) {
            let message = format!("no parameter is called {}; {}", unknown.name, self.known());
            return Err(self.wrong(value_at(self.text, &unknown.path), &unknown.path, message));
        }
        let used: BTreeSet<&str> = meant().map(|reference| reference.name.as_str()).collect();
        for (name, parameter) in parameters {
            if let Some(Err(message)) =
                parameter.default.as_ref().map(|default| parameter.kind.accept(default))
            {
                return Err(self.wrong_declaration(name, format!("default: {message}")));
            }
            if !used.contains(name.as_str()) {
                let message = format!("no check refers to ${name}: nothing would change with it");
                return Err(self.wrong_declaration(name, message));
            }
        }
        match settings.iter().find(|setting| !parameters.contains_key(&setting.name)) {
            Some(setting) => Err(setting.refused(format!(
                "contract {} has no parameter {}; {}",
                setting.contract,
                setting.name,
                self.known()
            ))),
            None => Ok(()),
        }
    }

    fn values(&self, settings: &[&Setting]) -> Result<BTreeMap<String, ParameterValue>, Unvalued> {
        let mut values = BTreeMap::new();
        for (name, declared) in &self.declared.parameters {
            // The last one speaks: settings come in the order of their rank.
            let setting = settings.iter().rev().find(|setting| setting.name == *name);
            let default =
                declared.default.as_ref().and_then(|default| declared.kind.accept(default).ok());
            let set = setting.map(|setting| setting.value(declared.kind)).transpose()?;
            let Some(value) = set.or_else(|| default.clone()) else {
                let message = format!(
                    "has no default and nobody sets it; set it in the suite or with --set {}.{name}=VALUE",
                    self.declared.contract
                );
                return Err(Unvalued::Unset(self.wrong_declaration(name, message)));
            };
            let value = ParameterValue {
                parameter: format!("{}.{name}", self.declared.contract),
                kind: declared.kind,
                default,
                value,
                by: setting.map(|setting| setting.by.clone()),
                why: declared.why.text().to_owned(),
            };
            values.insert(name.clone(), value);
        }
        Ok(values)
    }

    fn write(
        &self,
        references: &[Reference],
        values: BTreeMap<String, ParameterValue>,
    ) -> Result<Valued, CatalogueError> {
        let mut lines: Vec<String> = self.text.split('\n').map(str::to_owned).collect();
        let mut edits: Vec<Edit> = Vec::new();
        for reference in references {
            let position =
                value_at(self.text, &reference.path).map(|place| behind_anchor(self.text, place));
            // An alias leads to the place of its anchor, which is replaced once.
            if edits.iter().any(|edit| Some(edit.position) == position) {
                continue;
            }
            let value = match values.get(&reference.name) {
                Some(value) if !reference.literal => value.value.yaml(),
                _ => Scalar::Text(format!("${}", reference.name)).yaml(),
            };
            let written = if reference.literal { "$$" } else { "$" }.to_owned() + &reference.name;
            let edit = position.and_then(|position| {
                replace(&mut lines, &edits, position, &written, &value).map(|before| Edit {
                    position,
                    before,
                    after: value.chars().count(),
                    name: reference.name.clone(),
                })
            });
            edits.push(edit.ok_or_else(|| {
                let message = format!("write {written} as a plain or quoted word on its own line");
                self.wrong(position, &reference.path, message)
            })?);
        }
        Ok(Valued { text: lines.join("\n"), values, edits })
    }
}

/// Where the scalar begins behind `&anchor `, when there is one.
fn behind_anchor(text: &str, (line, column): Position) -> Position {
    let rest = text.split('\n').nth(line - 1).unwrap_or_default().chars().skip(column - 1);
    let rest: String = rest.collect();
    match rest.strip_prefix('&').and_then(|anchored| anchored.split_once(' ')) {
        Some((anchor, scalar)) => {
            let blanks = scalar.len() - scalar.trim_start_matches(' ').len();
            (line, column + "&".len() + anchor.chars().count() + " ".len() + blanks)
        }
        None => (line, column),
    }
}

/// Replaces the scalar `written` at `position` of the file by `value`; the characters it had there, quotes included.
fn replace(
    lines: &mut [String],
    edits: &[Edit],
    position: Position,
    written: &str,
    value: &str,
) -> Option<usize> {
    let (line, column) = position;
    let text = lines.get_mut(line.checked_sub(1)?)?;
    // References come in the order of the text, so all edits of this line lie to the left.
    let moved: isize = edits
        .iter()
        .filter(|edit| edit.position.0 == line)
        .map(|edit| edit.after as isize - edit.before as isize)
        .sum();
    let chars = (column - 1).checked_add_signed(moved)?;
    let begin = text.char_indices().nth(chars)?.0;
    let rest = &text[begin..];
    let found = [format!("\"{written}\""), format!("'{written}'"), written.to_owned()]
        .into_iter()
        .find(|form| rest.starts_with(form.as_str()))?;
    text.replace_range(begin..begin + found.len(), value);
    Some(found.chars().count())
}

/// Whether `$name` refers to a parameter: kebab-case that begins with a letter, so that `$5` is five dollars.
fn is_reference(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase()) && is_kebab(name)
}

/// Collects the references at and below `value`.
fn collect(value: &Value, path: Vec<Step>, found: &mut Vec<Reference>) {
    match value {
        Value::String(text) => {
            let (literal, name) = match text.strip_prefix("$$") {
                Some(name) => (true, name),
                None => (false, text.strip_prefix('$').unwrap_or_default()),
            };
            if is_reference(name) {
                found.push(Reference { path, name: name.to_owned(), literal });
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, [path.clone(), vec![Step::Item(index)]].concat(), found);
            }
        }
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let Value::String(key) = key else { continue };
                collect(value, [path.clone(), vec![Step::Key(key.clone())]].concat(), found);
            }
        }
        Value::Tagged(tagged) => collect(&tagged.value, path, found),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Valued {
    /// Moves an error of the valued text to the place in the file, and names the parameters that play a part.
    pub(super) fn restore(&self, mut error: CatalogueError) -> CatalogueError {
        let mut part: Vec<&ParameterValue> =
            self.values.values().filter(|value| value.is_changed()).collect();
        if let Some((line, column)) = error.position {
            let (column, edit) = self.column(line, column);
            error.position = Some((line, column));
            if let Some(value) = edit.and_then(|edit| self.values.get(&edit.name))
                && !value.is_changed()
            {
                part.insert(0, value);
            }
        }
        if !part.is_empty() {
            let part: Vec<String> = part.iter().map(ToString::to_string).collect();
            error.message = format!("{}; with {}", error.message, part.join(", "));
        }
        error
    }

    /// The column of the file, and the reference that stands there.
    fn column(&self, line: usize, column: usize) -> (usize, Option<&Edit>) {
        let mut moved = 0;
        for edit in self.edits.iter().filter(|edit| edit.position.0 == line) {
            let begin = edit.position.1.saturating_add_signed(moved);
            if column < begin {
                break;
            }
            if column < begin + edit.after {
                return (edit.position.1, Some(edit));
            }
            moved += edit.after as isize - edit.before as isize;
        }
        (column.saturating_add_signed(-moved), None)
    }

    /// `claim` with the values of the parameters it mentions: a changed bound must not leave the old sentence standing.
    pub(super) fn say(&self, claim: &str) -> Result<String, String> {
        let mut parts = claim.split('$');
        let mut said = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part
                .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
                .unwrap_or(part.len());
            let name = part[..end].trim_end_matches('-');
            if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
                said.push('$');
                said.push_str(part);
                continue;
            }
            let value = self
                .values
                .get(name)
                .ok_or_else(|| format!("claim: no parameter is called {name}"))?;
            said.push_str(&match &value.value {
                Scalar::Text(text) => text.clone(),
                other => other.to_string(),
            });
            said.push_str(&part[name.len()..]);
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests;
