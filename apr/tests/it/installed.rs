//! The executable in folders that hold nothing of the checkout. That it does not know where it was built is tidy's to say.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A working directory below which and above which there is no catalogue.
struct Elsewhere {
    folder: TempDir,
}

impl Elsewhere {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn here(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, args: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_apr");
        let done = Command::new(program).args(args).current_dir(self.here()).output();
        done.expect("the program starts")
    }
}

fn model() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    root.join("fixtures/gguf/golden-Q8_0.gguf").display().to_string()
}

fn words(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Few gates and quick ones.
const FEW: &str = "contract(metadata)";

#[test]
fn an_installed_executable_brings_its_contracts() {
    let elsewhere = Elsewhere::new();
    let model = model();
    for args in [
        &["qa", &model, "--filter", FEW, "--no-report"][..],
        // Gates that read what was recorded, or give the program a file.
        &["qa", &model, "--filter", "contract(blocks) | contract(dispatch)", "--no-report"],
        &["qa", "list", &model],
        &["check", &model],
        &["score", &model],
        &["explain", "E0101"],
    ] {
        let output = elsewhere.run(args);
        assert!(output.status.success(), "{args:?}: {}", words(&output));
    }
    assert_eq!(fs::read_dir(elsewhere.here()).expect("a folder").count(), 0, "something is left");
}

#[test]
fn reports_go_to_the_working_directory_and_two_runs_do_not_mix() {
    let elsewhere = Elsewhere::new();
    let model = model();
    let run = |more: &[&str]| elsewhere.run(&[&["qa", &model, "--filter", FEW], more].concat());
    let first = run(&[]);
    assert!(first.status.success(), "{}", words(&first));
    let reports = elsewhere.here().join("apr-report");
    assert!(reports.join("report.html").is_file());
    // Another run holds the folder.
    let held = File::options().write(true).open(reports.join(".lock")).expect("the lock");
    held.lock().expect("nobody holds it");
    let second = run(&[]);
    assert_eq!(second.status.code(), Some(2), "{}", words(&second));
    assert!(words(&second).contains("--report-dir"), "{}", words(&second));
    assert!(run(&["--report-dir", "other"]).status.success());
    assert!(elsewhere.here().join("other/report.json").is_file());
}

#[test]
fn a_place_that_takes_no_reports_is_an_error_before_anything_is_measured() {
    let elsewhere = Elsewhere::new();
    fs::write(elsewhere.here().join("apr-report"), "a file").expect("a file");
    let output = elsewhere.run(&["qa", &model(), "--filter", FEW]);
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    assert!(words(&output).contains("--report-dir"), "{}", words(&output));
    assert!(output.stdout.is_empty(), "{}", words(&output));
}

#[test]
fn folders_of_the_same_names_that_hold_no_catalogue_are_somebody_elses() {
    let elsewhere = Elsewhere::new();
    for (folder, file) in [("contracts", "Token.sol"), ("suites", "all.js"), ("fixtures", "a.json")]
    {
        fs::create_dir(elsewhere.here().join(folder)).expect("a folder");
        fs::write(elsewhere.here().join(folder).join(file), "text").expect("a file");
    }
    let output = elsewhere.run(&["qa", &model(), "--filter", FEW, "--no-report"]);
    assert!(output.status.success(), "{}", words(&output));
}

#[test]
fn a_suite_whose_models_are_not_inside_the_executable_says_so() {
    let output = Elsewhere::new().run(&["qa"]);
    assert_eq!(output.status.code(), Some(2), "{}", words(&output));
    assert!(words(&output).contains("not inside the executable"), "{}", words(&output));
}
