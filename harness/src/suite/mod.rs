//! Suites: which contracts run, on which models, forms and backends.
//!
//! A suite is a YAML file; [`expand`] makes its matrix, which fixes the denominator before anything runs.

mod expand;
pub(crate) mod facts;
mod include;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apr_engine::format::Format;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use expand::{ExpandError, Expansion, Roots, expand};
pub use facts::Facts;

use crate::case::BACKENDS;
use crate::contract::load::{self, CatalogueError, one_key};
use crate::contract::parameter::{Scalar, Setting};
use crate::contract::{Catalogue, Tier};
use crate::filter::Filter;
use crate::judge::BackendSpec;
use crate::nearest::did_you_mean;

/// Values of parameters, by contract and name.
pub type Values = BTreeMap<String, BTreeMap<String, Scalar>>;

/// The form of a model that [`Suite::also_as`] adds.
pub const CONVERTED: &str = "converted";

/// A YAML file in `suites/`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Suite {
    /// Name, equal to the file stem.
    pub suite: String,
    /// One line for a person.
    pub title: String,
    /// Suites whose contracts, models, backends and parameters are added to these.
    #[serde(default)]
    pub include: Vec<Include>,
    /// Contracts by name; `*` is every contract of the catalogue, `!name` leaves one out, included ones too.
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
    /// Values of the contracts' parameters, by contract and name, in place of the defaults and of what included suites set.
    #[serde(default)]
    pub parameters: Values,
    /// Who sets which parameter, after all includes and the command line; one setting per parameter.
    #[serde(skip)]
    pub settings: Vec<Setting>,
}

/// A suite that is included, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "kebab-case",
    deny_unknown_fields,
    expecting = "a suite with its parameters, such as { suite: default }"
)]
pub struct Include {
    /// Its name.
    pub suite: String,
    /// Values of its contracts' parameters, in place of its own.
    #[serde(default)]
    pub parameters: Values,
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
    /// A published model, relative to the folder that such models are kept in. Where it is absent, its cases are skipped.
    Published(PathBuf),
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
    /// The same GGUF file laid out in another way, with every stored byte of its tensors.
    #[serde(default)]
    pub layout: Option<Layout>,
}

/// How a GGUF file is laid out anew. Readers must give the same model for every layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Tensors in the opposite order.
    Reversed,
    /// Payloads aligned to this many bytes, a power of two.
    Alignment(u32),
    /// Metadata keys that no reader knows, one of each type.
    UnknownKeys,
}

/// The JSON Schema of a suite file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Suite).to_value()
}

/// The names of the suites in `folder`, sorted.
///
/// # Errors
/// A folder that cannot be read; a file in it that would be passed over.
pub fn names(folder: &Path) -> Result<Vec<String>, CatalogueError> {
    let stem = |file: &PathBuf| file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    Ok(load::yaml_files(folder)?.iter().filter_map(stem).collect())
}

/// Reads `file` and everything it includes, and checks it against the catalogue.
///
/// # Errors
/// Mistakes of any of the files, unknown contracts, includes in a circle, parameters of contracts that the suite does not have.
/// Their values are held against the contracts when the suite is [expanded](expand).
pub fn load_suite(file: &Path, catalogue: &Catalogue) -> Result<Suite, CatalogueError> {
    let all: Vec<String> = catalogue.names().cloned().collect();
    let suite = include::read(file, &all)?;
    if let Some(folder) = file.parent().filter(|folder| folder.is_dir()) {
        names(folder)?;
    }
    suite.check(file, catalogue)?;
    Ok(suite)
}

/// Reads a suite out of `text`, without includes.
///
/// # Errors
/// The first mistake of the text.
pub fn parse_suite(text: &str, file: &Path) -> Result<Suite, CatalogueError> {
    load::parse(text, file)
}

impl Suite {
    /// Puts one model in the place of all of the suite's.
    #[must_use]
    pub fn on_model(mut self, id: &str, form: &str, path: &Path) -> Self {
        let form = Form { id: form.to_owned(), from: Origin::Path(path.to_path_buf()) };
        self.models = vec![Model { id: id.to_owned(), forms: vec![form] }];
        self
    }

    /// Judges each model also as a file of `format`, built from its first form with the same blocks: the form
    /// [`CONVERTED`].
    #[must_use]
    pub fn also_as(mut self, format: Format) -> Self {
        for model in &mut self.models {
            let build = |first: &Form| Build {
                form: first.id.clone(),
                format: format.name().to_owned(),
                dtype: None,
                layout: None,
            };
            let built = model.forms.first().map(build).map(Origin::Build);
            model.forms.extend(built.map(|from| Form { id: CONVERTED.to_owned(), from }));
        }
        self
    }

    /// Puts one backend in the place of all of the suite's.
    #[must_use]
    pub fn on_backend(mut self, backend: &BackendSpec) -> Self {
        self.backends = vec![backend.backend.clone()];
        self.isa = backend.isa.iter().cloned().collect();
        self.threads = backend.threads.into_iter().collect();
        self
    }

    fn check(&self, file: &Path, catalogue: &Catalogue) -> Result<(), CatalogueError> {
        let wrong = |message: String| Err(CatalogueError::whole(file, message));
        if Some(self.suite.as_str()) != file.file_stem().and_then(|stem| stem.to_str()) {
            return wrong(format!("suite is called {} but its file is not", self.suite));
        }
        let unknown = |wanted: &&String| catalogue.names().all(|name| name != *wanted);
        if let Some(name) = self.contracts.iter().find(unknown) {
            let meant = did_you_mean(name, catalogue.names().map(String::as_str));
            return wrong(format!("contracts: no contract is called {name}{meant}"));
        }
        if self.contracts.is_empty() || self.backends.is_empty() {
            return wrong("a suite without contracts or backends runs nothing".into());
        }
        let unknown = |name: &&String| !BACKENDS.contains(&name.as_str());
        if let Some(name) = self.backends.iter().find(unknown) {
            return wrong(format!("backends: {name} is none of {}", BACKENDS.join(", ")));
        }
        for (what, text) in [("required", &self.required), ("filter", &self.filter)] {
            match text.as_deref().map(Filter::parse) {
                Some(Err(error)) => return wrong(format!("{what}: {error}")),
                Some(Ok(filter)) => {
                    if let Some(stray) = filter.stray_name(catalogue) {
                        return wrong(format!("{what}: {stray}"));
                    }
                }
                None => {}
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
                    if let Some(layout) = &build.layout {
                        layout.check(build).map_err(|wrong| {
                            format!("models: {}.{}: {wrong}", model.id, form.id)
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Layout {
    fn check(&self, build: &Build) -> Result<(), String> {
        if build.format != Format::Gguf.name() || build.dtype.is_some() {
            return Err(
                "layout: expected format gguf and no dtype, as stored bytes are kept".into()
            );
        }
        match self {
            Self::Alignment(bytes) if !bytes.is_power_of_two() => {
                Err(format!("layout: alignment: expected a power of two, found {bytes}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(build: &str) -> String {
        let text = format!(
            "suite: s\ntitle: t\ncontracts: [c]\nbackends: [simd]\nmodels:\n  - id: m\n    forms:\n      \
             - {{ id: a, from: {{ published: a.gguf }} }}\n      \
             - {{ id: b, from: {{ build: {{ form: a, {build} }} }} }}\n"
        );
        let suite =
            parse_suite(&text, Path::new("s.yaml")).unwrap_or_else(|error| panic!("{error}"));
        suite.check_models().err().unwrap_or_default()
    }

    #[test]
    fn a_layout_belongs_to_a_gguf_file_of_the_stored_bytes() {
        assert_eq!(wrong("format: gguf, layout: reversed"), "");
        assert_eq!(wrong("format: gguf, layout: { alignment: 64 }"), "");
        assert!(
            wrong("format: apr, layout: reversed").contains("m.b: layout: expected format gguf")
        );
        assert!(wrong("format: gguf, dtype: f16, layout: reversed").contains("no dtype"));
        assert!(
            wrong("format: gguf, layout: { alignment: 48 }").contains("power of two, found 48")
        );
    }
}
