//! A mapped file that shrinks. A process of its own: while bytes are lost, whatever else asks is refused too.

#![cfg(target_os = "linux")]

use apr_engine::Code;
use apr_engine::format::mmap::MappedFile;
use apr_engine::format::mmap::guard::{check, install};

#[test]
fn bytes_that_a_file_lost_read_as_zeros_and_are_reported_until_the_mapping_is_gone() {
    install();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![7_u8; 1 << 16]).unwrap();
    let mapped = MappedFile::open(file.path()).unwrap();
    assert_eq!(mapped.bytes()[50_000], 7);
    check().unwrap();
    file.as_file().set_len(100).unwrap();
    assert_eq!(mapped.bytes()[50_000], 0);
    assert_eq!(mapped.bytes()[99], 7, "what is left of the file is still there");
    let error = check().unwrap_err();
    assert_eq!((error.code(), error.file()), (Code::FileChanged, Some(file.path())));
    let bytes = mapped.bytes().clone();
    drop(mapped);
    check().expect_err("a clone of the bytes keeps the mapping alive");
    drop(bytes);
    check().unwrap();
}
