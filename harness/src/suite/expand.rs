//! The matrix of a suite: gates times cells, in a stable order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::{Build, Facts, Form, Model, Origin, Suite};
use crate::case::{CaseId, CaseInfo, Cell, ModelRef};
use crate::contract::check::{
    Against, ConversionRule, IdSource, OtherSide, Path, PathEqual, Rival,
};
use crate::contract::parameter::ParameterValue;
use crate::contract::{Catalogue, CatalogueError, Check, Gate, Scope};
use crate::filter::{Filter, FilterError};
use crate::judge::Planned;

/// Where files lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Directory that relative model paths start from.
    pub fixtures: PathBuf,
    /// Directory that built forms are written to.
    pub built: PathBuf,
    /// Directory of the published models; it may be absent.
    pub published: PathBuf,
}

/// A suite's matrix.
#[derive(Clone, Debug, Default)]
pub struct Expansion {
    /// The cases, in the order of contracts, gates, models, forms and backends.
    pub cases: Vec<Planned>,
    /// Gates that found no cell, as `contract/gate`: they are claims nobody looked at, so they are reported.
    pub unplaced: Vec<String>,
    /// Every form of the suite.
    pub forms: Vec<ModelRef>,
    /// Forms that are built before they can be judged: path → recipe and path of the form it is built from.
    pub builds: BTreeMap<PathBuf, (Build, PathBuf)>,
    /// The parameters of the suite's contracts with their values.
    pub parameters: Vec<ParameterValue>,
    /// SHA-256 over the catalogue with these values.
    pub catalogue_sha256: String,
}

/// Why a suite has no matrix.
#[derive(Debug, Error)]
pub enum ExpandError {
    /// A filter does not parse.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A parameter has a value that its contract refuses, or none.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// Expands `suite` over `catalogue`, whose parameters get the values that the suite sets.
///
/// # Errors
/// A filter of the suite or of a gate that does not parse; a parameter that does not exist, has a value that its contract refuses, or
/// has none.
pub fn expand(
    suite: &Suite,
    catalogue: &Catalogue,
    roots: &Roots,
) -> Result<Expansion, ExpandError> {
    let catalogue = catalogue.with(&suite.settings)?;
    if let Some(waiting) = suite.contracts.iter().find_map(|name| catalogue.waiting.get(name)) {
        return Err(waiting.clone().into());
    }
    let required = Filter::parse(suite.required.as_deref().unwrap_or_default())?;
    let wanted = Filter::parse(suite.filter.as_deref().unwrap_or_default())?;
    let mut expansion = Expansion { builds: builds(suite, roots), ..Expansion::default() };
    let cells = Cells::new(suite, roots);
    let facts = FormFacts::read(&cells.form, &expansion.builds);
    expansion.forms = cells.form.iter().filter_map(|cell| cell.model.clone()).collect();
    for contract in suite.contracts.iter().filter_map(|name| catalogue.contracts.get(name)) {
        for gate in contract.gates.iter().filter(|gate| gate.tier <= suite.tier) {
            let gate = Arc::new(gate.clone());
            let on = Filter::parse(gate.on.as_deref().unwrap_or_default())?;
            let before = expansion.cases.len();
            for cell in cells.of(gate.check.scope()) {
                let mut case = planned(&contract.contract, &gate, cell.clone());
                case.facts = facts.of(&case);
                if on.selects(&case)
                    && is_meaningful(&gate.check, cell, suite)
                    && wanted.selects(&case)
                {
                    case.info.required = required.selects(&case);
                    expansion.cases.push(case);
                }
            }
            if expansion.cases.len() == before {
                expansion.unplaced.push(format!("{}/{}", contract.contract, gate.id));
            }
        }
    }
    let mine = |value: &ParameterValue| {
        suite.contracts.iter().any(|name| value.contract() == name.as_str())
    };
    expansion.parameters =
        catalogue.parameters.iter().filter(|value| mine(value)).cloned().collect();
    expansion.catalogue_sha256 = catalogue.sha256;
    Ok(expansion)
}

/// The facts of every form, by its path.
struct FormFacts(BTreeMap<PathBuf, Arc<Facts>>);

impl FormFacts {
    /// Reads each form once; one that is not built yet follows from its source.
    fn read(forms: &[Cell], builds: &BTreeMap<PathBuf, (Build, PathBuf)>) -> Self {
        let facts = |path: &PathBuf| {
            let (mut root, mut legs) = (path, Vec::new());
            while let Some((build, source)) = builds.get(root) {
                legs.insert(0, build);
                root = source;
            }
            (path.clone(), Arc::new(Facts::built(root, &legs)))
        };
        Self(
            forms
                .iter()
                .filter_map(|cell| cell.model.as_ref())
                .map(|form| facts(&form.path))
                .collect(),
        )
    }

    fn of(&self, case: &Planned) -> Option<Arc<Facts>> {
        self.0.get(&case.info.cell.model.as_ref()?.path).cloned()
    }
}

fn planned(contract: &str, gate: &Arc<Gate>, cell: Cell) -> Planned {
    let id = CaseId { contract: contract.to_owned(), gate: gate.id.clone(), cell: cell.clone() };
    let info = CaseInfo {
        id: id.to_string(),
        contract: contract.to_owned(),
        gate: gate.id.clone(),
        claim: gate.claim.clone(),
        severity: gate.severity,
        refs: gate.refs.clone(),
        cell,
        required: false,
    };
    Planned { info, gate: Arc::clone(gate), facts: None }
}

/// The cells of each scope, made once.
struct Cells {
    once: Vec<Cell>,
    form: Vec<Cell>,
    form_backend: Vec<Cell>,
}

impl Cells {
    fn new(suite: &Suite, roots: &Roots) -> Self {
        let mut form = Vec::new();
        for model in &suite.models {
            for one in &model.forms {
                let reference = ModelRef {
                    model: model.id.clone(),
                    form: one.id.clone(),
                    path: path(model, one, roots),
                };
                form.push(Cell { model: Some(reference), ..Cell::default() });
            }
        }
        let mut form_backend = Vec::new();
        for cell in &form {
            for backend in &suite.backends {
                let cell = Cell { backend: Some(backend.clone()), ..cell.clone() };
                form_backend.extend(forced(suite, cell));
            }
        }
        Self { once: vec![Cell::default()], form, form_backend }
    }

    fn of(&self, scope: Scope) -> &[Cell] {
        match scope {
            Scope::Once => &self.once,
            Scope::Form => &self.form,
            Scope::FormBackend => &self.form_backend,
        }
    }
}

/// The instruction sets and thread counts that the suite forces; only the `simd` backend takes any.
fn forced(suite: &Suite, cell: Cell) -> Vec<Cell> {
    if cell.backend.as_deref() != Some("simd") {
        return vec![cell];
    }
    let some = |list: &[String]| -> Vec<Option<String>> {
        if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
    };
    let threads: Vec<Option<usize>> = if suite.threads.is_empty() {
        vec![None]
    } else {
        suite.threads.iter().copied().map(Some).collect()
    };
    let mut cells = Vec::new();
    for isa in some(&suite.isa) {
        for &threads in &threads {
            cells.push(Cell { isa: isa.clone(), threads, ..cell.clone() });
        }
    }
    cells
}

/// Whether the check compares two different things in this cell, and both exist.
fn is_meaningful(check: &Check, cell: &Cell, suite: &Suite) -> bool {
    let backend = cell.backend.as_deref();
    let other_form = |form: &String| {
        cell.model.as_ref().is_some_and(|mine| {
            let model = suite.models.iter().find(|model| model.id == mine.model);
            mine.form != *form
                && model.is_some_and(|model| model.forms.iter().any(|other| other.id == *form))
        })
    };
    match check {
        Check::LogitsClose(close) => match &close.against {
            Against::Scalar => backend != Some("scalar"),
            Against::Form(form) => other_form(form),
            Against::Oracle(_) | Against::CacheType(_) => true,
        },
        Check::CompareInference(compare) => match &compare.with {
            OtherSide::Form(form) => other_form(form),
            OtherSide::Itself | OtherSide::Faulty(_) => true,
        },
        Check::TokenIds(ids) => match &ids.against {
            IdSource::Form(form) => other_form(form),
            IdSource::File(_) => true,
        },
        Check::Conversion(conversion) => match &conversion.rule {
            ConversionRule::SameAs { form } => other_form(form),
            _ => true,
        },
        // Only the vector backend has threads and instruction sets to choose from.
        Check::PathEqual(PathEqual { path: Path::Threads(_) | Path::Isa, .. }) => {
            backend == Some("simd")
        }
        Check::Throughput(speed) => match &speed.against {
            Rival::Backend(rival) => backend != Some(rival.as_str()),
            Rival::Form(form) => other_form(form),
            Rival::Itself | Rival::Phase(_) | Rival::Tokens(_) => true,
        },
        _ => true,
    }
}

/// Where a form lies, or will lie once it is built.
fn path(model: &Model, form: &Form, roots: &Roots) -> PathBuf {
    match &form.from {
        Origin::Path(path) => roots.fixtures.join(path),
        Origin::Published(path) => roots.published.join(path),
        Origin::Build(build) => {
            let extension = if build.format == "safetensors" { "" } else { build.format.as_str() };
            let name = format!("{}-{}", model.id, form.id);
            roots.built.join(&name).join(name).with_extension(extension)
        }
    }
}

fn builds(suite: &Suite, roots: &Roots) -> BTreeMap<PathBuf, (Build, PathBuf)> {
    let mut builds = BTreeMap::new();
    for model in &suite.models {
        for form in &model.forms {
            let Origin::Build(build) = &form.from else { continue };
            if let Some(source) = model.forms.iter().find(|source| source.id == build.form) {
                let recipe = (build.clone(), path(model, source, roots));
                builds.insert(path(model, form, roots), recipe);
            }
        }
    }
    builds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::parse_suite;
    use std::path::Path;

    const CONTRACT: &str = "
contract: c
title: t
gates:
  - { id: once, claim: The sampler is right., severity: major, check: { sampler: { property: greedy, cases: 9 } } }
  - { id: file, claim: The file is whole., severity: major, on: form(gguf*), check: { format-integrity: { rule: parses } } }
  - id: scalar
    claim: Backends agree with scalar.
    severity: blocking
    check: { logits-close: { against: scalar, tolerance: { nmse-worst-row: 1e-4, why: sums of f32 values } } }
  - id: lost
    claim: Nothing has this form.
    severity: minor
    on: form(=onnx)
    check: { format-integrity: { rule: parses } }
";

    const SUITE: &str = "
suite: s
title: t
contracts: [c]
backends: [scalar, simd, cuda]
threads: [1, 2]
required: '!backend(cuda)'
models:
  - id: golden
    forms:
      - { id: safetensors, from: { path: golden } }
      - { id: gguf-q8_0, from: { path: golden/q8.gguf } }
      - { id: apr, from: { build: { form: safetensors, format: apr } } }
";

    fn expansion() -> Expansion {
        let catalogue = Catalogue::from_texts(&[("c", CONTRACT)]).unwrap();
        let suite = parse_suite(SUITE, Path::new("s.yaml")).unwrap();
        let roots = Roots {
            fixtures: "fixtures".into(),
            built: "built".into(),
            published: "published".into(),
        };
        expand(&suite, &catalogue, &roots).unwrap()
    }

    #[test]
    fn each_gate_gets_the_dimensions_its_check_depends_on() {
        let ids: Vec<_> = expansion().cases.into_iter().map(|case| case.info.id).collect();
        assert_eq!(
            ids,
            [
                "c/once",
                "c/file@golden.gguf-q8_0",
                "c/scalar@golden.safetensors.simd.t1",
                "c/scalar@golden.safetensors.simd.t2",
                "c/scalar@golden.safetensors.cuda",
                "c/scalar@golden.gguf-q8_0.simd.t1",
                "c/scalar@golden.gguf-q8_0.simd.t2",
                "c/scalar@golden.gguf-q8_0.cuda",
                "c/scalar@golden.apr.simd.t1",
                "c/scalar@golden.apr.simd.t2",
                "c/scalar@golden.apr.cuda",
            ]
        );
    }

    #[test]
    fn a_gate_without_a_cell_is_named_and_not_forgotten() {
        assert_eq!(expansion().unplaced, ["c/lost"]);
    }

    #[test]
    fn required_follows_the_filter_of_the_suite() {
        for case in expansion().cases {
            assert_eq!(case.info.required, case.info.cell.backend.as_deref() != Some("cuda"));
        }
    }

    #[test]
    fn a_built_form_has_a_recipe_and_a_place_of_its_own() {
        let expansion = expansion();
        let (path, (build, source)) = expansion.builds.iter().next().unwrap();
        assert_eq!(path, Path::new("built/golden-apr/golden-apr.apr"));
        assert_eq!(source, Path::new("fixtures/golden"));
        assert_eq!(build.format, "apr");
    }
}
