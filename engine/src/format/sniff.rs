//! Recognises a format by its first bytes, and the usual strangers, each with its own hint.

use super::cursor::range;
use super::{Format, gguf};
use crate::error::{Code, Error, Result};

/// Files that are often taken for models: first bytes, what they are, what to do.
const STRANGERS: &[(&[u8], &str, &str)] = &[
    (
        b"PK\x03\x04",
        "a zip archive (a PyTorch checkpoint has this form)",
        "save the model as SafeTensors; checkpoints that run code when loaded are not supported",
    ),
    (
        b"\x80\x02",
        "a Python pickle",
        "save the model as SafeTensors; pickles run code when loaded and are not supported",
    ),
    (b"\x80\x04", "a Python pickle", "save the model as SafeTensors"),
    (b"\x1f\x8b", "a gzip stream", "decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard stream", "decompress it first"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file it points to",
        "fetch the file itself with `git lfs pull`",
    ),
    (b"<!", "an HTML page", "the download answered with a web page: check the address and log in"),
    (b"<html", "an HTML page", "the download answered with a web page: check the address"),
    (b"{", "JSON text", "name the model file or its directory, not its configuration"),
    (b"FUGG", "a big-endian GGUF magic", "convert the model again for a little-endian machine"),
    (b"ggml", "a GGML file older than GGUF", "convert the model again"),
    (b"tjgg", "a GGJT file older than GGUF", "convert the model again"),
    (b"lmgg", "a GGML file older than GGUF", "convert the model again"),
    (b"\x89HDF", "an HDF5 file", "save the model as SafeTensors"),
];

/// The format of a file with these bytes.
///
/// SafeTensors has no magic: a plausible header length followed by `{` is one.
///
/// # Errors
/// [`Code::NotAModel`] for anything else, saying what it looks like; [`Code::GgufTruncated`] for a part of the
/// GGUF magic.
pub fn format(bytes: &[u8]) -> Result<Format> {
    if bytes.starts_with(&gguf::MAGIC) {
        return Ok(Format::Gguf);
    }
    // A SafeTensors header of 5,394,497 bytes begins with `APR\0` too, but no APR has version 0.
    if bytes.get(8) == Some(&b'{') && range(bytes, 4, 4) == Some(&[0; 4]) {
        return Ok(Format::SafeTensors);
    }
    if bytes.starts_with(b"APR") {
        return Ok(Format::Apr);
    }
    let expected = "a GGUF, SafeTensors or APR file";
    for &(magic, what, hint) in STRANGERS {
        if bytes.starts_with(magic) {
            return Err(Error::new(Code::NotAModel)
                .at(0)
                .expected(expected)
                .found(what)
                .hint(hint));
        }
    }
    let shown = &bytes[..bytes.len().min(8)];
    let found = if shown.is_empty() {
        "an empty file".to_owned()
    } else {
        format!("a file that begins with `{}`", shown.escape_ascii())
    };
    Err(Error::new(Code::NotAModel)
        .at(0)
        .expected(expected)
        .found(found)
        .hint("the file is damaged, its download was cut short, or it is something else"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stranger_gets_its_own_hint() {
        for &(magic, what, hint) in STRANGERS {
            let error = format(magic).unwrap_err();
            assert_eq!(error.code(), Code::NotAModel);
            assert_eq!((error.found_text(), error.hint_text()), (what, hint));
        }
    }

    #[test]
    fn content_decides_and_short_files_are_errors() {
        assert_eq!(format(b"GGUF\x03").unwrap(), Format::Gguf);
        assert_eq!(format(b"APR\0").unwrap(), Format::Apr);
        assert_eq!(format(b"\x02\0\0\0\0\0\0\0{}").unwrap(), Format::SafeTensors);
        for short in
            [&b""[..], b"G", b"GGU", b"\x02\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff{"]
        {
            assert_eq!(format(short).unwrap_err().code(), Code::NotAModel);
        }
    }
}
