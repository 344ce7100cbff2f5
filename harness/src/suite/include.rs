//! Reading a suite with everything it includes, and who sets which parameter.

use std::path::Path;

use super::{Suite, Values, parse_suite};
use crate::contract::load::{self, CatalogueError};
use crate::contract::parameter::Setting;
use crate::contract::place::{Step, key_at, path_text};

/// Deepest chain of included suites.
const INCLUDE_DEPTH_MAX: usize = 8;

/// Reads `file` and what it includes. `all` are the contracts that `*` stands for.
pub(super) fn read(file: &Path, all: &[String]) -> Result<Suite, CatalogueError> {
    read_at(file, all, 0)
}

fn read_at(file: &Path, all: &[String], depth: usize) -> Result<Suite, CatalogueError> {
    if depth > INCLUDE_DEPTH_MAX {
        let message = format!("included more than {INCLUDE_DEPTH_MAX} deep: a circle?");
        return Err(CatalogueError::whole(file, message));
    }
    let text = load::read(file)?;
    let mut suite = parse_suite(&text, file)?;
    let left_out = left_out(&mut suite.contracts);
    if let Some(name) = left_out.iter().find(|name| !all.contains(name)) {
        let message = format!("contracts: no contract is called {name}, so !{name} does nothing");
        return Err(CatalogueError::whole(file, message));
    }
    if suite.contracts.iter().any(|name| name == "*") {
        suite.contracts = all.to_vec();
    }
    let written = Written { text: &text, file, suite: suite.suite.clone() };
    for (index, include) in std::mem::take(&mut suite.include).into_iter().enumerate() {
        let name = &include.suite;
        if !crate::contract::is_kebab(name) {
            return Err(CatalogueError::whole(file, format!("include: {name:?} is no suite name")));
        }
        let mut included = read_at(&file.with_file_name(format!("{name}.yaml")), all, depth + 1)?;
        let path = [Step::Key("include".into()), Step::Item(index)];
        let passed = written.settings(&path, &include.parameters);
        included.set_all(passed)?;
        suite.add(included)?;
    }
    suite.contracts.retain(|name| !left_out.contains(name));
    suite.settings.retain(|setting| !left_out.contains(&setting.contract));
    // The suite's own word is the last one.
    let own = written.settings(&[], &suite.parameters);
    suite.set_all(own)?;
    Ok(suite)
}

/// Takes the names behind a `!` out of `contracts`.
fn left_out(contracts: &mut Vec<String>) -> Vec<String> {
    let named = |name: &String| name.strip_prefix('!').map(str::to_owned);
    let left_out = contracts.iter().filter_map(named).collect();
    contracts.retain(|name| !name.starts_with('!'));
    left_out
}

/// A suite as it was written.
struct Written<'w> {
    text: &'w str,
    file: &'w Path,
    suite: String,
}

impl Written<'_> {
    /// The settings of the map `parameters` below `path`.
    fn settings(&self, path: &[Step], parameters: &Values) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (contract, values) in parameters {
            for (name, value) in values {
                let keys = ["parameters", contract, name].map(|key| Step::Key(key.to_owned()));
                let path = [path, &keys].concat();
                settings.push(Setting::from_suite(
                    (&self.suite, self.file),
                    (key_at(self.text, &path), path_text(&path)),
                    (contract, name),
                    value,
                ));
            }
        }
        settings
    }
}

impl Suite {
    /// Sets parameters of the suite's contracts, over what was set before.
    fn set_all(&mut self, settings: Vec<Setting>) -> Result<(), CatalogueError> {
        for setting in settings {
            self.set_one(setting)?;
        }
        Ok(())
    }

    fn set_one(&mut self, setting: Setting) -> Result<(), CatalogueError> {
        if !self.contracts.contains(&setting.contract) {
            let message = format!(
                "contract {} is not in suite {}: nothing would change",
                setting.contract, self.suite
            );
            return Err(setting.refused(message));
        }
        self.settings.retain(|other| !other.rivals(&setting));
        self.settings.push(setting);
        Ok(())
    }

    /// Sets a parameter as the command line does: `words` are `contract.name=value`, given by `option`.
    ///
    /// # Errors
    /// When the words are not of that form or the contract is not in the suite.
    pub fn set(&mut self, option: &str, words: &str) -> Result<(), CatalogueError> {
        self.set_one(Setting::from_words(option, words)?)
    }

    /// Adds an included suite behind what is already there.
    fn add(&mut self, other: Self) -> Result<(), CatalogueError> {
        for setting in other.settings {
            match self.settings.iter().find(|mine| mine.rivals(&setting)) {
                None => self.settings.push(setting),
                Some(mine) if mine.agrees(&setting) => {}
                Some(mine) => {
                    let message = format!(
                        "two included suites disagree on {}.{}: {} says otherwise",
                        setting.contract, setting.name, mine.by
                    );
                    return Err(setting.refused(message));
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::{Roots, expand, load_suite};
    use crate::contract::{Catalogue, Check};

    const CONTRACT: &str = "\
contract: speed
title: Nothing is slower.
parameters:
  tokens: { type: integer, default: 16, why: enough for a stable median }
gates:
  - id: faster
    claim: Nothing is slower over $tokens tokens.
    severity: major
    check: { throughput: { phase: decode, against: itself, tokens: $tokens, ratio-at-least: 0.5, why: measured above five } }
";
    const BASE: &str = "title: base\ncontracts: [speed]\nbackends: [scalar]\nmodels: [{ id: m, forms: [{ id: f, from: { path: x } }] }]\n";

    /// What is wrong, suites by name, and words of the command line.
    type Mistake<'m> = (&'m str, &'m [(&'m str, &'m str)], &'m [&'m str]);

    fn catalogue() -> Catalogue {
        let other = CONTRACT.replace("contract: speed", "contract: other");
        Catalogue::from_texts(&[("speed", CONTRACT), ("other", &other)]).unwrap()
    }

    /// The tokens of the one case of suite `top`, and who set them; or the error.
    fn tokens(suites: &[(&str, &str)], set: &[&str]) -> Result<(usize, Option<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, body) in suites {
            let text = format!("suite: {name}\n{body}");
            std::fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
        }
        let home = format!("{}/", folder.path().display());
        let told = |error: String| error.replace(&home, "");
        let catalogue = catalogue();
        let mut suite = load_suite(&folder.path().join("top.yaml"), &catalogue)
            .map_err(|error| told(error.to_string()))?;
        for words in set {
            suite.set("--set", words).map_err(|error| error.to_string())?;
        }
        let expansion = expand(&suite, &catalogue, &Roots::default())
            .map_err(|error| told(error.to_string()))?;
        let Check::Throughput(check) = &expansion.cases[0].gate.check else { panic!("no speed") };
        Ok((check.tokens, expansion.parameters[0].by.clone()))
    }

    #[test]
    fn the_nearer_word_wins() {
        let base = format!("{BASE}parameters: {{ speed: {{ tokens: 17 }} }}\n");
        let plain = "title: top\ninclude: [{ suite: base }]\n";
        let passing =
            "title: top\ninclude: [{ suite: base, parameters: { speed: { tokens: 18 } } }]\n";
        let own = format!("{passing}parameters: {{ speed: {{ tokens: 19 }} }}\n");
        let by = |name: &str| Some(name.to_owned());
        assert_eq!(tokens(&[("top", BASE)], &[]), Ok((16, None)));
        assert_eq!(tokens(&[("base", &base), ("top", plain)], &[]), Ok((17, by("suite base"))));
        assert_eq!(tokens(&[("base", &base), ("top", passing)], &[]), Ok((18, by("suite top"))));
        assert_eq!(tokens(&[("base", &base), ("top", &own)], &[]), Ok((19, by("suite top"))));
        let set = ["speed.tokens=20"];
        assert_eq!(tokens(&[("base", &base), ("top", &own)], &set), Ok((20, by("command line"))));
    }

    #[test]
    fn two_includes_may_say_the_same() {
        let base = format!("{BASE}parameters: {{ speed: {{ tokens: 17 }} }}\n");
        let both = "title: top\ninclude: [{ suite: one }, { suite: two }]\n";
        let found = tokens(&[("one", &base), ("two", &base), ("top", both)], &[]);
        assert_eq!(found, Ok((17, Some("suite one".into()))));
    }

    #[test]
    fn a_contract_that_is_left_out_takes_its_settings_along() {
        let base = format!("{BASE}parameters: {{ speed: {{ tokens: 17 }} }}\n");
        let top = "title: top\ninclude: [{ suite: base }]\ncontracts: [\"*\", \"!speed\"]\n";
        let found = tokens(&[("base", &base), ("top", top)], &[]);
        assert_eq!(found, Ok((16, None)), "the case is one of the other contract");
    }

    #[test]
    fn what_the_messages_say() {
        let with = |line: &str| format!("{BASE}{line}\n");
        let include = |line: &str| format!("title: top\ninclude: [{line}]\n");
        let seven = with("parameters: { speed: { tokens: 7 } }");
        let eight = with("parameters: { speed: { tokens: 8 } }");
        let gone = BASE.replace("[speed]", "[speed, \"!sped\"]");
        let mistakes: &[Mistake<'_>] = &[
            (
                "a contract that is not in the suite",
                &[("top", &with("parameters: { other: { tokens: 1 } }"))],
                &[],
            ),
            (
                "a contract that does not exist",
                &[("top", &with("parameters: { sped: { tokens: 1 } }"))],
                &[],
            ),
            (
                "a parameter that does not exist",
                &[("top", &with("parameters:\n  speed:\n    token: 1"))],
                &[],
            ),
            (
                "a value of the wrong type",
                &[("top", &with("parameters: { speed: { tokens: few } }"))],
                &[],
            ),
            (
                "a value that is a list",
                &[("top", &with("parameters: { speed: { tokens: [1] } }"))],
                &[],
            ),
            (
                "a value that the check refuses",
                &[("top", &with("parameters: { speed: { tokens: 0 } }"))],
                &[],
            ),
            (
                "an include that passes to a foreign contract",
                &[
                    ("base", BASE),
                    ("top", &include("{ suite: base, parameters: { other: { tokens: 1 } } }")),
                ],
                &[],
            ),
            (
                "an include that passes the wrong type",
                &[
                    ("base", BASE),
                    ("top", &include("{ suite: base, parameters: { speed: { tokens: -1 } } }")),
                ],
                &[],
            ),
            ("a contract left out that does not exist", &[("top", &gone)], &[]),
            (
                "two includes that disagree",
                &[
                    ("one", &seven),
                    ("two", &eight),
                    ("top", &include("{ suite: one }, { suite: two }")),
                ],
                &[],
            ),
            ("an include by its bare name", &[("base", BASE), ("top", &include("base"))], &[]),
            ("a foreign contract on the command line", &[("top", BASE)], &["other.tokens=1"]),
            ("the wrong type on the command line", &[("top", BASE)], &["speed.tokens=few"]),
        ];
        insta::assert_snapshot!(messages(mistakes));
    }

    /// What is said about each mistake.
    fn messages(mistakes: &[Mistake<'_>]) -> String {
        let mut told = String::new();
        for (what, suites, set) in mistakes {
            let error = tokens(suites, set).expect_err(what);
            writeln!(told, "{what}\n  {error}").unwrap();
        }
        told
    }
}
