//! All contracts together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::load::{self, CatalogueError, Loaded, load_with};
use super::parameter::{ParameterValue, Setting};
use super::{Contract, validate};

/// All contracts that are known, with the hash of their text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Contracts by name.
    pub contracts: BTreeMap<String, Contract>,
    /// Contracts that wait for the value of a parameter without default, and what they say.
    pub waiting: BTreeMap<String, CatalogueError>,
    /// Every parameter with its value, by contract and name.
    pub parameters: Vec<ParameterValue>,
    /// SHA-256 over names and texts in name order, the values of parameters written in, as hexadecimal: a changed tolerance is
    /// another catalogue.
    pub sha256: String,
    /// Files and texts by name, as they were written.
    sources: BTreeMap<String, (PathBuf, String)>,
}

impl Catalogue {
    /// Loads contracts out of `(name, text)` pairs; parameters have their defaults.
    ///
    /// # Errors
    /// The first wrong contract; a name that differs from the contract's own; two of one name; none at all.
    pub fn from_texts<N: AsRef<str>, T: AsRef<str>>(
        texts: &[(N, T)],
    ) -> Result<Self, CatalogueError> {
        Self::from_files(texts.iter().map(|(name, text)| {
            (Path::new(name.as_ref()).with_extension("yaml"), text.as_ref().to_owned())
        }))
    }

    /// Loads every `*.yaml` of a directory.
    ///
    /// # Errors
    /// As [`Catalogue::from_texts`], and when files cannot be read.
    pub fn from_directory(directory: &Path) -> Result<Self, CatalogueError> {
        let mut files = Vec::new();
        for file in load::yaml_files(directory)? {
            let text = load::read(&file)?;
            files.push((file, text));
        }
        Self::from_files(files)
    }

    fn from_files(
        files: impl IntoIterator<Item = (PathBuf, String)>,
    ) -> Result<Self, CatalogueError> {
        let mut sources = BTreeMap::new();
        for (file, text) in files {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let twice = CatalogueError::whole(&file, "there are two contracts of this name");
            if sources.insert(name.unwrap_or_default(), (file, text)).is_some() {
                return Err(twice);
            }
        }
        if sources.is_empty() {
            return Err(CatalogueError::whole(Path::new("contracts"), "no contract at all"));
        }
        Self { sources, ..Self::default() }.with(&[])
    }

    /// The same contracts with other values of their parameters; of two settings of one parameter the later speaks.
    ///
    /// # Errors
    /// A setting of a contract or parameter that does not exist, a value of the wrong type, and as [`Catalogue::from_texts`].
    pub fn with(&self, settings: &[Setting]) -> Result<Self, CatalogueError> {
        if let Some(lost) =
            settings.iter().find(|setting| !self.sources.contains_key(&setting.contract))
        {
            return Err(lost.refused(format!("no contract is called {}", lost.contract)));
        }
        let mut hash = Sha256::new();
        let mut made = Self { sources: self.sources.clone(), ..Self::default() };
        for (name, (file, text)) in &self.sources {
            let hashed = match load_with(text, file, settings)? {
                Loaded::Contract { contract, text, values } => {
                    if contract.contract != *name {
                        let called = &contract.contract;
                        let message = format!("contract is called {called} but its file is not");
                        return Err(CatalogueError::whole(file, message));
                    }
                    made.contracts.insert(name.clone(), contract);
                    made.parameters.extend(values);
                    text
                }
                Loaded::Waiting(error) => {
                    made.waiting.insert(name.clone(), error);
                    text.clone()
                }
            };
            for part in [name.as_str(), &hashed] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        made.sha256 = hexadecimal(&hash.finalize());
        Ok(made)
    }

    /// A mistake in gate `index` of a contract of this catalogue, with its place in the file.
    pub(crate) fn wrong_gate(
        &self,
        contract: &Contract,
        index: usize,
        message: String,
    ) -> CatalogueError {
        let id = contract.gates.get(index).map_or("", |gate| gate.id.as_str());
        let (file, text) = self
            .sources
            .get(&contract.contract)
            .map_or((Path::new("contracts"), ""), |(file, text)| (file.as_path(), text.as_str()));
        validate::in_gate(index, id, message).located(text, file)
    }

    /// Names of all contracts, those that wait for a value included.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.sources.keys()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
