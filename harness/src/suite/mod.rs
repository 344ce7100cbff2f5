//! Suites: which contracts run, on which models, forms and backends.
//!
//! A suite is a YAML file; [`expand`] makes its matrix, which fixes the denominator before anything runs.

mod expand;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use expand::{Expansion, Roots, expand};

use crate::contract::load::{self, CatalogueError, one_key};
use crate::contract::{Catalogue, Tier};
use crate::filter::Filter;

/// Deepest chain of included suites.
const INCLUDE_DEPTH_MAX: usize = 8;

/// A YAML file in `suites/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suite {
    /// Name, equal to the file stem.
    pub suite: String,
    /// One line for a person.
    pub title: String,
    /// Suites (by name) whose contracts, models and backends are added to these.
    #[serde(default)]
    pub include: Vec<String>,
    /// Contracts by name; `*` is every contract of the catalogue, `!name` leaves one out.
    #[serde(default)]
    pub contracts: Vec<String>,
    /// The judged models.
    #[serde(default)]
    pub models: Vec<Model>,
    /// `scalar`, `simd`, `cuda`.
    #[serde(default)]
    pub backends: Vec<String>,
    /// Instruction sets that are forced on the `simd` backend, one cell each; the best one when empty.
    #[serde(default)]
    pub isa: Vec<String>,
    /// Thread counts that are forced on the `simd` backend, one cell each; the machine's when empty.
    #[serde(default)]
    pub threads: Vec<usize>,
    /// Which cases are red when they are skipped, as a filter; all when absent.
    #[serde(default)]
    pub required: Option<String>,
    /// Which cases are in the suite at all, as a filter; all when absent.
    #[serde(default)]
    pub filter: Option<String>,
    /// Gates of later tiers are left out.
    #[serde(default)]
    pub tier: Tier,
}

/// A judged model in one or more forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Model {
    /// Name in case ids.
    pub id: String,
    /// Its forms.
    pub forms: Vec<Form>,
}

/// A model as a file or directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Form {
    /// Name in case ids, for example `gguf-q8_0`.
    pub id: String,
    /// Where it comes from.
    #[serde(with = "one_key")]
    #[schemars(with = "Origin")]
    pub from: Origin,
}

/// Where a form comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// A file or directory, relative to the fixtures.
    Path(PathBuf),
    /// Built on demand.
    Build(Build),
}

/// How a form is built from another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Build {
    /// The form of the same model it is converted from.
    pub form: String,
    /// `gguf`, `safetensors` or `apr`.
    pub format: String,
    /// Dtype the matrices are quantised to; kept when absent.
    #[serde(default)]
    pub dtype: Option<String>,
}

/// The JSON Schema of a suite file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Suite).to_value()
}

/// Reads `file` and everything it includes, and checks it against the catalogue.
///
/// # Errors
/// Mistakes of any of the files, unknown contracts, includes in a circle.
pub fn load_suite(file: &Path, catalogue: &Catalogue) -> Result<Suite, CatalogueError> {
    let mut suite = read(file, 0)?;
    let left_out = left_out(&mut suite.contracts);
    if suite.contracts.iter().any(|name| name == "*") {
        suite.contracts = catalogue.contracts.keys().cloned().collect();
    }
    if let Some(name) = left_out.iter().find(|name| !catalogue.contracts.contains_key(*name)) {
        let message = format!("contracts: no contract is called {name}, so !{name} does nothing");
        return Err(CatalogueError::whole(file, message));
    }
    suite.contracts.retain(|name| !left_out.contains(name));
    suite.check(file, catalogue)?;
    Ok(suite)
}

/// Takes the names behind a `!` out of `contracts`.
fn left_out(contracts: &mut Vec<String>) -> Vec<String> {
    let named = |name: &String| name.strip_prefix('!').map(str::to_owned);
    let left_out = contracts.iter().filter_map(named).collect();
    contracts.retain(|name| !name.starts_with('!'));
    left_out
}

/// Reads a suite out of `text`, without includes.
///
/// # Errors
/// The first mistake of the text.
pub fn parse_suite(text: &str, file: &Path) -> Result<Suite, CatalogueError> {
    load::parse(text, file)
}

fn read(file: &Path, depth: usize) -> Result<Suite, CatalogueError> {
    if depth > INCLUDE_DEPTH_MAX {
        let message = format!("included more than {INCLUDE_DEPTH_MAX} deep: a circle?");
        return Err(CatalogueError::whole(file, message));
    }
    let mut suite = parse_suite(&load::read(file)?, file)?;
    for name in std::mem::take(&mut suite.include) {
        if !crate::contract::is_kebab(&name) {
            return Err(CatalogueError::whole(file, format!("include: {name:?} is no suite name")));
        }
        suite.add(read(&file.with_file_name(format!("{name}.yaml")), depth + 1)?);
    }
    Ok(suite)
}

impl Suite {
    /// Puts one model in the place of all of the suite's.
    #[must_use]
    pub fn on_model(mut self, id: &str, form: &str, path: &Path) -> Self {
        let form = Form { id: form.to_owned(), from: Origin::Path(path.to_path_buf()) };
        self.models = vec![Model { id: id.to_owned(), forms: vec![form] }];
        self
    }

    /// Adds an included suite behind what is already there.
    fn add(&mut self, other: Self) {
        extend(&mut self.contracts, other.contracts);
        extend(&mut self.backends, other.backends);
        extend(&mut self.isa, other.isa);
        extend(&mut self.threads, other.threads);
        for model in other.models {
            match self.models.iter_mut().find(|mine| mine.id == model.id) {
                Some(mine) => extend(&mut mine.forms, model.forms),
                None => self.models.push(model),
            }
        }
        self.required = self.required.take().or(other.required);
        self.filter = self.filter.take().or(other.filter);
        self.tier = self.tier.max(other.tier);
    }

    fn check(&self, file: &Path, catalogue: &Catalogue) -> Result<(), CatalogueError> {
        let wrong = |message: String| Err(CatalogueError::whole(file, message));
        if Some(self.suite.as_str()) != file.file_stem().and_then(|stem| stem.to_str()) {
            return wrong(format!("suite is called {} but its file is not", self.suite));
        }
        if let Some(name) =
            self.contracts.iter().find(|name| !catalogue.contracts.contains_key(*name))
        {
            return wrong(format!("contracts: no contract is called {name}"));
        }
        if self.contracts.is_empty() || self.backends.is_empty() {
            return wrong("a suite without contracts or backends runs nothing".into());
        }
        let known = |name: &&String| !["scalar", "simd", "cuda"].contains(&name.as_str());
        if let Some(name) = self.backends.iter().find(known) {
            return wrong(format!("backends: {name} is none of scalar, simd, cuda"));
        }
        for (what, text) in [("required", &self.required), ("filter", &self.filter)] {
            if let Some(Err(error)) = text.as_deref().map(Filter::parse) {
                return wrong(format!("{what}: {error}"));
            }
        }
        self.check_models().or_else(wrong)
    }

    fn check_models(&self) -> Result<(), String> {
        for (index, model) in self.models.iter().enumerate() {
            if self.models[..index].iter().any(|other| other.id == model.id) {
                return Err(format!("models: {} stands twice", model.id));
            }
            for (index, form) in model.forms.iter().enumerate() {
                let before = &model.forms[..index];
                if before.iter().any(|other| other.id == form.id) {
                    return Err(format!("models: {}.{} stands twice", model.id, form.id));
                }
                if let Origin::Build(build) = &form.from {
                    if !before.iter().any(|other| other.id == build.form) {
                        return Err(format!(
                            "models: {}.{} is built from {}, which is no earlier form",
                            model.id, form.id, build.form
                        ));
                    }
                    if !["gguf", "safetensors", "apr"].contains(&build.format.as_str()) {
                        return Err(format!("models: {} is no format", build.format));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Appends what is not there yet.
fn extend<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}
