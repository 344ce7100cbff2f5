//! All contracts together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::load::{self, CatalogueError, load_contract};
use super::{Contract, Gate};

/// All contracts that are known, with the hash of their text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Contracts by name.
    pub contracts: BTreeMap<String, Contract>,
    /// SHA-256 over names and texts in name order, as hexadecimal: a changed tolerance is another catalogue.
    pub sha256: String,
}

impl Catalogue {
    /// Loads contracts out of `(name, text)` pairs.
    ///
    /// # Errors
    /// The first wrong contract; a name that differs from the contract's own; two of one name; none at all.
    pub fn from_texts<N: AsRef<str>, T: AsRef<str>>(
        texts: &[(N, T)],
    ) -> Result<Self, CatalogueError> {
        let mut sorted: Vec<_> =
            texts.iter().map(|(name, text)| (name.as_ref(), text.as_ref())).collect();
        sorted.sort_unstable();
        let mut hash = Sha256::new();
        let mut contracts = BTreeMap::new();
        for (name, text) in sorted {
            let file = Path::new(name).with_extension("yaml");
            let contract = load_contract(text, &file)?;
            if contract.contract != name {
                let message =
                    format!("contract is called {} but its file is not", contract.contract);
                return Err(CatalogueError::whole(&file, message));
            }
            if contracts.insert(name.to_owned(), contract).is_some() {
                return Err(CatalogueError::whole(&file, "there are two contracts of this name"));
            }
            for part in [name, text] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        if contracts.is_empty() {
            return Err(CatalogueError::whole(Path::new("contracts"), "no contract at all"));
        }
        Ok(Self { contracts, sha256: hexadecimal(&hash.finalize()) })
    }

    /// Loads every `*.yaml` of a directory.
    ///
    /// # Errors
    /// As [`Catalogue::from_texts`], and when files cannot be read.
    pub fn from_directory(directory: &Path) -> Result<Self, CatalogueError> {
        let mut texts = Vec::new();
        for file in load::yaml_files(directory)? {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            texts.push((name.unwrap_or_default(), load::read(&file)?));
        }
        Self::from_texts(&texts)
    }

    /// The gate `contract/gate`.
    pub fn gate(&self, contract: &str, gate: &str) -> Option<&Gate> {
        self.contracts.get(contract)?.gates.iter().find(|found| found.id == gate)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
