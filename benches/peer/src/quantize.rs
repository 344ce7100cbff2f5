//! Files that llama.cpp quantises itself, so that both engines also meet what is not of our making.

use std::path::Path;

use llama_cpp_sys_2 as sys;

use crate::failure::{Failure, Result};
use crate::llama;

/// Mixtures by the names they are known by.
const TYPES: [(&str, sys::llama_ftype); 15] = [
    ("F16", sys::LLAMA_FTYPE_MOSTLY_F16),
    ("BF16", sys::LLAMA_FTYPE_MOSTLY_BF16),
    ("Q8_0", sys::LLAMA_FTYPE_MOSTLY_Q8_0),
    ("Q4_0", sys::LLAMA_FTYPE_MOSTLY_Q4_0),
    ("Q4_1", sys::LLAMA_FTYPE_MOSTLY_Q4_1),
    ("Q5_0", sys::LLAMA_FTYPE_MOSTLY_Q5_0),
    ("Q5_1", sys::LLAMA_FTYPE_MOSTLY_Q5_1),
    ("Q2_K", sys::LLAMA_FTYPE_MOSTLY_Q2_K),
    ("Q3_K_M", sys::LLAMA_FTYPE_MOSTLY_Q3_K_M),
    ("Q4_K_S", sys::LLAMA_FTYPE_MOSTLY_Q4_K_S),
    ("Q4_K_M", sys::LLAMA_FTYPE_MOSTLY_Q4_K_M),
    ("Q5_K_S", sys::LLAMA_FTYPE_MOSTLY_Q5_K_S),
    ("Q5_K_M", sys::LLAMA_FTYPE_MOSTLY_Q5_K_M),
    ("Q6_K", sys::LLAMA_FTYPE_MOSTLY_Q6_K),
    ("F32", sys::LLAMA_FTYPE_ALL_F32),
];

/// The mixture called `name`, in any case.
pub fn file_type(name: &str) -> Result<sys::llama_ftype> {
    let found = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, file_type)| *file_type).ok_or_else(|| {
        let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
        Failure::Usage(format!("unknown type {name:?}; known are {}", known.join(", ")))
    })
}

/// Quantises the GGUF file `from` to `to`, which gets its name when it is whole.
pub fn quantize(from: &Path, to: &Path, name: &str, threads: usize) -> Result<()> {
    let file_type = file_type(name)?;
    if to.exists() {
        return Err(Failure::Usage(format!("{} exists", to.display())));
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let made = llama::quantize(from, part, file_type, threads)
        .and_then(|()| std::fs::rename(part, to).map_err(|error| Failure::file(to, error)));
    if made.is_err() {
        // It may not have come to a file at all.
        drop(std::fs::remove_file(part));
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_in_any_case_and_an_unknown_one_is_told_the_known() {
        assert_eq!(file_type("q4_k_m").unwrap(), file_type("Q4_K_M").unwrap());
        let error = file_type("Q9_X").unwrap_err().to_string();
        assert!(error.contains("Q9_X") && error.contains("Q5_K_S"), "{error}");
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("there.gguf");
        std::fs::write(&file, "kept").unwrap();
        assert!(quantize(&file, &file, "Q8_0", 1).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }
}
