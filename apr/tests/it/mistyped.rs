//! Mistyped names on the command line: each is an error that says what may have been meant, never an empty run.

use std::fs;

use super::program::run;

#[test]
fn a_filter_that_names_nothing_says_what_may_have_been_meant() {
    for (filter, code, said) in [
        ("gate(=anwers)", 2, "no gate is called anwers; did you mean answers?"),
        ("contract(paritty)", 2, "no contract is called paritty; did you mean parity?"),
        ("severity(blokcing)", 2, "did you mean blocking?"),
        ("backend(simdd)", 2, "did you mean simd?"),
        ("tier(quik)", 2, "no tier is called quik"),
        ("check(cli) | check(lcli)", 2, "no check is called lcli; did you mean cli?"),
        ("stroed(blocks)", 2, "unknown subject stroed; did you mean stored?"),
        ("stored(q4-k)", 2, "did you mean q4_k?"),
        ("form(=gguf-q8)", 4, "did you mean gguf-q8_0?"),
        ("anwsers", 4, "did you mean answers?"),
        ("contract(families)", 4, "the suite has no case of this contract"),
        ("params(>1T)", 4, "no judged file is like that"),
        ("gate(=answers) & !backend(*)", 4, "selects none of"),
    ] {
        for command in [&["qa", "list", "--filter", filter][..], &["qa", "--filter", filter]] {
            let run = run(command);
            assert_eq!(run.code, code, "{filter}: {}{}", run.out, run.err);
            assert!(run.err.contains(said), "{filter}: {}", run.err);
            assert_eq!(run.out, "", "{filter}");
        }
    }
}

#[test]
fn other_switches_say_what_may_have_been_meant() {
    for (arguments, code, said) in [
        (&["--require", "cdua"][..], 2, "did you mean cuda?"),
        (&["--suite", "defualt"], 2, "did you mean default?"),
        (&["--suite", "default.yml"], 2, "did you mean default.yaml?"),
        (&["--plant", "engine/layernrom"], 2, "did you mean engine/layernorm?"),
        (&["--case", "golden/anwers@golden.apr.simd"], 2, "golden/answers@golden.apr.simd?"),
        (&["covreage"], 3, "did you mean coverage?"),
        (&["faults"], 3, "subcommands list, coverage, schema"),
    ] {
        let run = run(&[&["qa", "--no-report"], arguments].concat());
        assert_eq!(run.code, code, "{arguments:?}: {}{}", run.out, run.err);
        assert!(run.err.contains(said), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn a_waiver_of_what_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("waivers.yaml");
    let path = file.to_string_lossy();
    for (case, code, said) in [
        ("golden/anwers", 2, "no gate is called golden/anwers; did you mean golden/answers?"),
        ("golden/answers@golden.apr.simdd", 2, "did you mean golden/answers@golden.apr.simd?"),
        ("golden/answers@golden.apr.simd", 0, ""),
        ("families/window", 0, ""),
    ] {
        let waiver = format!(
            "waivers: [{{ case: {case}, owner: somebody, reason: known and looked into, expires: 2999-12-31 }}]"
        );
        fs::write(&file, waiver).expect("a file");
        let run = run(&["qa", "list", "--waivers", &path]);
        assert_eq!(run.code, code, "{case}: {}", run.err);
        assert!(run.err.contains(said), "{case}: {}", run.err);
    }
}

#[test]
fn a_catalogue_file_that_would_be_passed_over_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["contracts", "suites", "fixtures"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect(name);
    let gate = "{ id: g, claim: The sampler is right., severity: major, check: { sampler: { property: greedy, cases: 9 } } }";
    write("contracts/c.yaml", &format!("contract: c\ntitle: t\ngates: [{gate}]\n"));
    write("suites/default.yaml", "suite: default\ntitle: t\ncontracts: [c]\nbackends: [simd]\n");
    let root = folder.path().to_string_lossy();
    assert_eq!(run(&["qa", "list", "--root", &root]).out, "c/g\n");
    for (name, meant) in [("contracts/d.yml", "d.yaml"), ("suites/e.YAML", "e.yaml")] {
        write(name, "");
        let run = run(&["qa", "list", "--root", &root]);
        assert_eq!(run.code, 2, "{name}: {}", run.err);
        assert!(run.err.contains(meant) && run.err.contains(name), "{name}: {}", run.err);
        fs::remove_file(folder.path().join(name)).expect(name);
    }
}
