//! The same model in three formats gives the same answer.

use std::fs::File;

use apr_engine::format::Format;
use apr_engine::format::convert::{Precision, convert};
use apr_engine::model::Model;

use super::program::{output, root};

#[test]
fn the_three_formats_of_golden_give_the_same_answer() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let converted = folder.path().join("golden.apr");
    let source = Model::load(&root().join("fixtures/golden")).expect("the carried model loads");
    let file = File::create(&converted).expect("a scratch file");
    convert(&source, Format::Apr, Precision::Stored, file).expect("the carried model converts");
    let converted = converted.to_str().expect("a UTF-8 path");
    let answers = ["fixtures/golden", "fixtures/gguf/golden-F16.gguf", converted]
        .map(|model| output(&["run", model, "What is 2+2?"]));
    assert!(answers[0].contains('4'), "{}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}
