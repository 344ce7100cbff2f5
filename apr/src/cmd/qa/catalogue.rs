//! Where contracts, suites and fixtures lie, and what of them a run wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use apr_engine::format::Format;
use apr_harness::case::ModelRef;
use apr_harness::contract::Catalogue;
use apr_harness::coverage::Coverage;
use apr_harness::coverage::claim::Claims;
use apr_harness::judge::BackendSpec;
use apr_harness::nearest::did_you_mean;
use apr_harness::sheet::Sheet;
use apr_harness::suite::{self, ExpandError, Expansion, Roots, Suite};
use clap::CommandFactory;
use tempfile::TempDir;

use super::carried;
use crate::cli::{Cli, QaOptions};
use crate::failure::Failure;

/// Suite of a run without a model: the carried fixture.
const SUITE_CARRIED: &str = "default";
/// Suite of a run on a model of the user's.
const SUITE_MODEL: &str = "model";

/// Where the catalogue lies: a folder with `contracts/` and `suites/`, or the one inside the executable.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// The carried catalogue, unpacked until the process ends.
    carried: Option<Arc<TempDir>>,
}

impl Root {
    /// The folder given, or the nearest one upwards from the current directory, or the carried catalogue.
    pub(crate) fn find(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Self::at(path).ok_or_else(|| {
                Failure::usage(format_args!(
                    "--root {}: expected a folder with YAML files in contracts/ and in suites/",
                    path.display()
                ))
            });
        }
        let here = std::env::current_dir().unwrap_or_default();
        match here.ancestors().find_map(Self::at) {
            Some(root) => Ok(root),
            None => Self::carried(),
        }
    }

    /// A folder of these names with other files in it is somebody else's.
    fn at(path: &Path) -> Option<Self> {
        let holds_yaml = |folder: &str| {
            let entries = std::fs::read_dir(path.join(folder)).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .any(|file| file.extension().is_some_and(|e| e == "yaml"))
        };
        let both = holds_yaml("contracts") && holds_yaml("suites");
        both.then(|| Self { path: path.to_path_buf(), carried: None })
    }

    fn carried() -> Result<Self, Failure> {
        let folder = carried::unpack().map_err(|error| {
            Failure::broken(format_args!("no folder for the carried catalogue: {error}"))
        })?;
        Ok(Self { path: folder.path().to_path_buf(), carried: Some(Arc::new(folder)) })
    }

    /// All contracts.
    pub(crate) fn catalogue(&self) -> Result<Catalogue, Failure> {
        Catalogue::from_directory(&self.contracts()).map_err(Failure::usage)
    }

    /// The carried fixtures.
    pub(crate) fn fixtures(&self) -> PathBuf {
        self.path.join("fixtures")
    }

    /// The contracts.
    pub(crate) fn contracts(&self) -> PathBuf {
        self.path.join("contracts")
    }

    /// The score sheet called `name`.
    pub(crate) fn sheet(&self, name: &str) -> Result<Sheet, Failure> {
        let file = self.contracts().join("sheets").join(name).with_extension("yaml");
        Sheet::read(&file).map_err(Failure::usage)
    }

    /// How the claims stand by the gates of `catalogue`.
    pub(crate) fn coverage(&self, catalogue: &Catalogue) -> Result<Coverage, Failure> {
        let claims =
            Claims::from_directory(&self.contracts().join("claims")).map_err(Failure::usage)?;
        Coverage::new(&claims, catalogue).map_err(|wrong| {
            let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            Failure::usage(lines.join("\n"))
        })
    }

    /// Where the page of claims goes when nobody says otherwise: beside the contracts, unless they are carried.
    pub(crate) fn reports(&self) -> PathBuf {
        match self.carried {
            Some(_) => PathBuf::from(super::reports::FOLDER),
            None => self.path.join("reports"),
        }
    }

    /// The models of a suite that belong to a checkout are not inside the executable.
    fn has_models(&self, expansion: &Expansion) -> Result<(), Failure> {
        let missing = expansion
            .forms
            .iter()
            .find(|form| form.path.starts_with(self.fixtures()) && !form.path.exists());
        match (&self.carried, missing) {
            (Some(_), Some(form)) => Err(Failure::usage(format_args!(
                "the model {} of this suite is not inside the executable; give a MODEL to judge, or --root with a checkout",
                form.model
            ))),
            _ => Ok(()),
        }
    }
}

/// The suite's name and the matrix that `options` ask for.
pub(crate) fn expand(
    root: &Root,
    options: &QaOptions,
    work: &Path,
    published: Option<&Path>,
) -> Result<(String, Expansion), Failure> {
    let catalogue = root.catalogue()?;
    let usual = if options.model.is_some() { SUITE_MODEL } else { SUITE_CARRIED };
    let name = options.suite.as_deref().unwrap_or(usual);
    let file = suite_file(root, name)?;
    let mut suite = suite::load_suite(&file, &catalogue).map_err(Failure::usage)?;
    if let Some(model) = &options.model {
        let path = std::path::absolute(model).unwrap_or_else(|_| model.clone());
        refuse_subcommand(model)?;
        let source = apr_engine::format::Source::open(&path)?;
        suite = suite.on_model("model", source.format().name(), &path);
    }
    for words in &options.set {
        suite.set("--set", words).map_err(Failure::usage)?;
    }
    let roots = Roots {
        fixtures: root.fixtures(),
        built: kept(options).unwrap_or_else(|| work.join("built")),
        published: published.map(Path::to_path_buf).unwrap_or_default(),
    };
    let expansion = expanded(&roots, &suite, &catalogue)?;
    root.has_models(&expansion)?;
    Ok((suite.suite, expansion))
}

/// The file of suite `name`: a `.yaml` file, or the name of one of the carried suites.
fn suite_file(root: &Root, name: &str) -> Result<PathBuf, Failure> {
    let extension = Path::new(name).extension().unwrap_or_default();
    if extension.eq_ignore_ascii_case("yml") {
        return Err(Failure::usage(format_args!(
            "--suite {name}: suites end in .yaml; did you mean {}?",
            Path::new(name).with_extension("yaml").display()
        )));
    }
    if extension == "yaml" {
        return Ok(PathBuf::from(name));
    }
    let folder = root.path.join("suites");
    let known = suite::names(&folder).map_err(Failure::usage)?;
    if known.iter().any(|known| known == name) {
        return Ok(folder.join(name).with_extension("yaml"));
    }
    let meant = did_you_mean(name, known.iter().map(String::as_str));
    let known = known.join(", ");
    let message = format!("--suite: no suite is called {name}, known are {known}{meant}");
    Err(Failure::usage(message))
}

/// Refuses a word that is no file but may have been meant as a subcommand.
fn refuse_subcommand(model: &Path) -> Result<(), Failure> {
    let word = model.to_string_lossy();
    if model.exists() || word.contains(['.', '/', '\\']) {
        return Ok(());
    }
    let qa = Cli::command();
    let qa = qa.find_subcommand("qa").into_iter().flat_map(clap::Command::get_subcommands);
    let known: Vec<&str> = qa.map(clap::Command::get_name).collect();
    let meant = did_you_mean(&word, known.iter().copied());
    Err(Failure::broken(format_args!(
        "{word}: there is no such file, and `apr qa` has the subcommands {} only{meant}",
        known.join(", ")
    )))
}

/// Where built forms are kept, as a path that holds in other directories too.
fn kept(options: &QaOptions) -> Option<PathBuf> {
    let folder = options.keep_forms.as_ref()?;
    Some(std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
}

/// The matrix of suite `name` on `form` and `backend`, with the model also as a GGUF file of the same blocks where it is none.
pub(super) fn beside_gguf(
    root: &Root,
    name: &str,
    form: &ModelRef,
    backend: &BackendSpec,
    work: &Path,
) -> Result<Expansion, Failure> {
    let catalogue = root.catalogue()?;
    let file = root.path.join("suites").join(name).with_extension("yaml");
    let mut suite = suite::load_suite(&file, &catalogue).map_err(Failure::usage)?;
    suite = suite.on_model(&form.model, &form.form, &form.path).on_backend(backend);
    if form.form != Format::Gguf.name() {
        suite = suite.also_as(Format::Gguf);
    }
    let roots = Roots { fixtures: root.fixtures(), built: work.join("built"), ..Roots::default() };
    expanded(&roots, &suite, &catalogue)
}

fn expanded(roots: &Roots, suite: &Suite, catalogue: &Catalogue) -> Result<Expansion, Failure> {
    suite::expand(suite, catalogue, roots).map_err(|error| match error {
        ExpandError::Filter(error) => Failure::usage(format_args!("{}: {error}", suite.suite)),
        ExpandError::Catalogue(error) => Failure::usage(error),
    })
}
