//! Snapshots of every format over one run with every verdict, and the same run written by an attacker.

use std::collections::BTreeMap;

use super::term::{Detail, Style, Terminal};
use super::*;
use crate::case::{CaseInfo, Cell};
use crate::contract::Severity;
use crate::contract::parameter::{ParameterKind, ParameterValue, Scalar};
use crate::event::{Event, Sink};
use crate::kill::{Kill, KillCell, KillMatrix};
use crate::score;
use crate::verdict::Evidence;

/// Everything that some reader of a report would obey.
const HOSTILE: &str = "\x1b[2J\x1b]8;;http://evil\x07</title><script>alert(1)</script>]]>\n::error::owned\r\n## h\n|`x`|@team\
    \u{202e}gnp\u{0}\u{85}'\"><img src=x onerror=alert(1)>--> # SKIP\n...\nok 9";

fn case(contract: &str, gate: &str, severity: Severity, required: bool) -> CaseInfo {
    CaseInfo {
        id: format!("{contract}/{gate}@golden.gguf-q8_0.simd"),
        contract: contract.into(),
        gate: gate.into(),
        claim: format!("{gate} holds at every position."),
        severity,
        refs: vec!["F041".into()],
        cell: Cell::default(),
        required,
    }
}

fn evidence(value: f64) -> Evidence {
    Evidence::new(2048, format!("worst NMSE {value:e} of 1e-4 over 2048 rows"))
        .measure(Measure::judged("nmse-worst-row", value, Limit::AtMost(1e-4)))
        .measure(Measure::noted("rows", 2048.0))
}

fn outcome(case: CaseInfo, verdict: Verdict) -> Outcome {
    Outcome { case, verdict, duration_ms: 12.5, resumed: false }
}

fn outcomes() -> Vec<Outcome> {
    let waived = |expires: &str| Verdict::Waived {
        owner: "qa@example.org".into(),
        reason: "known rounding".into(),
        expires: expires.into(),
        evidence: evidence(2e-4),
    };
    let red = evidence(3.2e-2).detail("row 7 column 3: 1.5 instead of 1.25").detail("row 9");
    let [blocking, major, minor] = [Severity::Blocking, Severity::Major, Severity::Minor];
    vec![
        outcome(case("parity", "simd", blocking, true), Verdict::Corroborated(evidence(3.1e-6))),
        outcome(case("parity", "formats", blocking, true), Verdict::Falsified(red)),
        outcome(case("parity", "cuda", major, false), Verdict::skipped("cuda", "no device")),
        outcome(case("speed", "decode", major, true), Verdict::Inconclusive(evidence(1e-5))),
        outcome(case("speed", "tty", minor, true), Verdict::skipped("tty", "not a terminal")),
        outcome(case("speed", "old", minor, true), waived("2026-11-20")),
        outcome(case("golden", "facts", major, true), waived("2027-01-01")),
        outcome(case("golden", "sums", major, true), Verdict::broken("fixture is missing")),
    ]
}

fn matrix() -> KillMatrix {
    let cell = |gate: &str, fault: &str, kill| KillCell {
        gate: gate.into(),
        fault: fault.into(),
        kill,
        first_red: None,
        note: "NMSE".into(),
    };
    KillMatrix {
        gates: vec!["parity/simd".into(), "parity/formats".into(), "golden/sums".into()],
        faults: vec!["engine/rms-eps".into(), "file/swap".into()],
        cells: vec![
            cell("parity/simd", "engine/rms-eps", Kill::Killed),
            cell("parity/formats", "file/swap", Kill::Survived),
            cell("parity/formats", "engine/rms-eps", Kill::WrongReason),
        ],
        red_under_no_op: vec!["golden/sums".into()],
    }
}

fn record(cases: Vec<Outcome>) -> RunRecord {
    let day = "2026-11-21";
    let plan: Vec<CaseInfo> = cases.iter().map(|outcome| outcome.case.clone()).collect();
    let provenance = Provenance {
        apr_version: "0.1.0".into(),
        binary_sha256: "b1".into(),
        catalogue_sha256: "c2".into(),
        models: BTreeMap::from([("golden.gguf-q8_0".into(), "d3".into())]),
        machine: BTreeMap::from([("cpu".into(), "Example 9000".into())]),
        command: ["apr", "qa", "my model.gguf", "--shard", "1/2"].map(str::to_owned).to_vec(),
        parameters: vec![changed_parameter()],
        seed: 42,
        started: format!("{day}T10:00:00Z"),
    };
    let mut record = RunRecord {
        suite: "smoke".into(),
        provenance,
        counts: score::counts(&cases),
        score: score::score(&plan, &cases, None, day),
        required_green: score::required_green(&cases, day),
        cases,
        exit_code: 0,
        interrupted: false,
        shard: None,
        notes: vec!["report out.json: disk full".into()],
        kill_matrix: Some(matrix()),
    };
    record.exit_code = score::exit_code(&record);
    record
}

fn changed_parameter() -> ParameterValue {
    ParameterValue {
        parameter: "parity.worst-row".into(),
        kind: ParameterKind::Number,
        default: Some(Scalar::Number(1e-4)),
        value: Scalar::Number(0.01),
        by: Some("command line".into()),
        why: "f32 sums of 256 terms".into(),
    }
}

fn green() -> RunRecord {
    let mut record = record(outcomes().into_iter().take(1).collect());
    record.kill_matrix = None;
    record.notes.clear();
    record.provenance.parameters.clear();
    record
}

fn hostile() -> RunRecord {
    let mut cases = outcomes();
    for outcome in &mut cases {
        let evidence = Evidence::new(1, HOSTILE)
            .measure(Measure::judged(HOSTILE, 2.0, Limit::AtMost(1.0)))
            .detail(HOSTILE);
        outcome.case.id = format!("{}/{HOSTILE}", outcome.case.id);
        outcome.case.claim = HOSTILE.into();
        outcome.verdict = match &outcome.verdict {
            Verdict::Skipped { .. } => Verdict::skipped(HOSTILE, HOSTILE),
            Verdict::Broken { .. } => Verdict::broken(HOSTILE),
            _ => Verdict::Falsified(evidence),
        };
    }
    let mut record = record(cases);
    record.suite = HOSTILE.into();
    record.notes = vec![HOSTILE.into()];
    record.provenance.command = vec!["apr".into(), HOSTILE.into()];
    for value in &mut record.provenance.parameters {
        value.parameter = HOSTILE.into();
        value.value = Scalar::Text(HOSTILE.into());
        value.by = Some(HOSTILE.into());
    }
    record.provenance.models.insert(HOSTILE.into(), HOSTILE.into());
    if let Some(matrix) = &mut record.kill_matrix {
        matrix.gates[0] = HOSTILE.into();
        matrix.faults[0] = HOSTILE.into();
        matrix.cells[0].gate = HOSTILE.into();
        matrix.cells[0].fault = HOSTILE.into();
        matrix.cells[0].note = HOSTILE.into();
        matrix.red_under_no_op = vec![HOSTILE.into()];
    }
    record
}

fn on_terminal(record: &RunRecord, style: Style) -> String {
    let mut sink = Terminal::new(Vec::new(), style);
    let plan: Vec<CaseInfo> = record.cases.iter().map(|outcome| outcome.case.clone()).collect();
    sink.on(&Event::Started { plan: &plan, provenance: &record.provenance }).unwrap();
    for outcome in &record.cases {
        sink.on(&Event::CaseStarted(&outcome.case)).unwrap();
        sink.on(&Event::CaseFinished(outcome)).unwrap();
    }
    sink.on(&Event::Finished(record)).unwrap();
    String::from_utf8(sink.into_inner()).unwrap()
}

#[test]
fn the_terminal_is_short_on_green() {
    insta::assert_snapshot!(on_terminal(&green(), Style::default()));
}

#[test]
fn the_terminal_is_precise_on_red() {
    insta::assert_snapshot!(on_terminal(&record(outcomes()), Style::default()));
}

#[test]
fn quiet_says_red_and_the_score_only() {
    let quiet = Style { detail: Detail::Quiet, ..Style::default() };
    assert_eq!(on_terminal(&green(), quiet).lines().count(), 2);
}

#[test]
fn verbose_has_a_line_for_each_case() {
    let verbose = Style { detail: Detail::Verbose, ..Style::default() };
    let text = on_terminal(&record(outcomes()), verbose);
    for outcome in outcomes() {
        assert!(text.contains(&outcome.case.id), "{}", outcome.case.id);
    }
}

#[test]
fn without_colour_and_progress_no_escape_is_written() {
    assert!(!on_terminal(&record(outcomes()), Style::default()).contains('\x1b'));
}

#[test]
fn a_progress_line_never_fills_the_width() {
    let style = Style { progress: true, width: 30, ..Style::default() };
    let text = on_terminal(&record(outcomes()), style);
    let drawn = text.split("\r\x1b[2K").skip(1).filter_map(|part| part.lines().next());
    let lengths: Vec<usize> =
        drawn.filter(|line| line.contains("░")).map(|l| l.chars().count()).collect();
    assert!(
        !lengths.is_empty() && lengths.iter().take(3).all(|length| *length < 30),
        "{lengths:?}"
    );
}

#[test]
fn a_terminal_of_one_column_still_gets_every_red_case() {
    let text = on_terminal(&record(outcomes()), Style { width: 1, ..Style::default() });
    assert_eq!(text.matches("FALSIFIED").count(), 1);
}

#[test]
fn markdown_snapshot() {
    insta::assert_snapshot!(markdown::render(&record(outcomes())));
}

#[test]
fn junit_snapshot() {
    insta::assert_snapshot!(junit::render(&record(outcomes())).unwrap());
}

#[test]
fn tap_snapshot() {
    insta::assert_snapshot!(tap::render(&record(outcomes())));
}

#[test]
fn github_snapshot() {
    insta::assert_snapshot!(github::render(&record(outcomes())));
}

#[test]
fn json_snapshot() {
    insta::assert_snapshot!(json::render(&record(outcomes())).unwrap());
}

#[test]
fn sarif_snapshot() {
    insta::assert_snapshot!(sarif::render(&record(outcomes())).unwrap());
}

#[test]
fn the_record_reads_back_equal() {
    for record in [green(), record(outcomes()), hostile()] {
        assert_eq!(json::read(&json::render(&record).unwrap()).unwrap(), record);
    }
}

#[test]
fn a_record_of_another_layout_is_refused() {
    let text = json::render(&green()).unwrap().replace(json::SCHEMA, "apr.qa.v0");
    assert!(json::read(&text).unwrap_err().to_string().contains("apr.qa.v0"));
}

#[test]
fn html_has_no_script_no_address_and_a_policy() {
    let page = html::render(&hostile());
    assert!(page.contains("default-src 'none'"));
    for forbidden in
        ["<script", "<img", "href=", "src=x onerror=alert(1)>", "url(", "@import", "\x1b"]
    {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn html_tags_stay_balanced_around_hostile_text() {
    for page in [html::render(&record(outcomes())), html::render(&hostile())] {
        for tag in [
            "section", "article", "details", "table", "svg", "g", "text", "title", "ul", "li",
            "pre", "p",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            let closed = page.matches(&format!("</{tag}>")).count();
            assert_eq!(opened, closed, "{tag}");
        }
    }
}

#[test]
fn hostile_text_cannot_act_on_a_terminal() {
    let text = on_terminal(&hostile(), Style::default());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(!text.contains('\u{202e}'));
    assert!(!text.lines().any(|line| line.starts_with("::")));
}

#[test]
fn hostile_text_cannot_begin_a_workflow_command() {
    let text = github::render(&hostile());
    let commands = text.lines().filter(|line| line.starts_with("::")).count();
    assert_eq!(commands, text.lines().count());
    assert!(!text.lines().any(|line| line.starts_with("::error::owned")));
}

#[test]
fn github_annotations_stay_within_the_limit_and_count_the_rest() {
    let many = (0..25).map(|at| {
        let name = format!("gate{at}");
        outcome(case("parity", &name, Severity::Major, true), Verdict::Falsified(evidence(1.0)))
    });
    let text = github::render(&record(many.collect()));
    assert_eq!(text.matches("::error ").count(), 10);
    assert!(text.contains("and 16 more"));
}

#[test]
fn hostile_text_cannot_leave_its_xml_element() {
    let xml = junit::render(&hostile()).unwrap();
    assert!(!xml.contains("<script") && !xml.contains("]]>"));
    assert!(!xml.chars().any(|c| c.is_control() && c != '\n'));
    assert_eq!(xml.matches("<testcase ").count(), hostile().cases.len());
}

#[test]
fn hostile_text_cannot_forge_a_tap_line() {
    let text = tap::render(&hostile());
    let lines = text.lines().filter(|line| line.starts_with("ok") || line.starts_with("not ok"));
    assert_eq!(lines.count(), hostile().cases.len());
    let red = red(&hostile()).count();
    assert_eq!(text.lines().filter(|line| line.starts_with("not ok")).count(), red);
    assert!(!text.lines().filter(|l| l.starts_with("not ok")).any(|l| l.contains(" # SKIP")));
}

#[test]
fn hostile_text_cannot_make_a_markdown_heading_or_tag() {
    let text = markdown::render(&hostile());
    let headings = text.lines().filter(|line| line.starts_with('#')).count();
    let expected = markdown::render(&record(outcomes()));
    let red_of = |record: &RunRecord| red(record).count();
    let other =
        expected.lines().filter(|line| line.starts_with('#')).count() - red_of(&record(outcomes()));
    assert_eq!(headings, other + red_of(&hostile()));
    assert!(!text.lines().any(|line| line.starts_with("::")));
}

#[test]
fn json_escapes_controls() {
    let text = json::render(&hostile()).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\u{85}'));
}

#[test]
fn a_replay_keeps_the_model_and_drops_what_selected_the_cases() {
    let record = record(outcomes());
    assert_eq!(replay_command(&record.provenance, "a/b@c"), "apr qa 'my model.gguf' --case a/b@c");
}

#[test]
fn the_recorded_command_can_be_pasted_into_a_shell() {
    let mut record = record(outcomes());
    record.provenance.command =
        ["apr", "qa", "--filter", "gate(a) & !form(b)", "it's"].map(str::to_owned).to_vec();
    let line = recorded_command(&record.provenance);
    assert_eq!(line, r"apr qa --filter 'gate(a) & !form(b)' 'it'\''s'");
    assert!(markdown::render(&record).contains(&line));
}

#[test]
fn a_changed_parameter_is_told_in_every_format() {
    let text = "parity.worst-row = 0.01 instead of 1e-4 (command line)";
    let changed = record(outcomes());
    for format in Format::ALL {
        let report = format.render(&changed).unwrap();
        let plain = report.replace('\\', "");
        // The record itself has the fields apart.
        let told = plain.contains(text)
            || plain.contains("\"parameter\": \"parity.worst-row\"") && plain.contains("\"by\"");
        assert!(told, "{}: {report}", format.name());
    }
    assert!(
        on_terminal(&changed, Style { detail: Detail::Quiet, ..Style::default() }).contains(text)
    );
    for format in Format::ALL {
        assert!(!format.render(&green()).unwrap().contains("worst-row ="), "{}", format.name());
    }
}

#[test]
fn numbers_are_short_and_keep_their_size() {
    let pairs = [
        (0.0, "0"),
        (2048.0, "2048"),
        (3.2e-2, "0.032"),
        (1e-4, "1e-4"),
        (1.23456, "1.235"),
        (123456.7, "123457"),
        (10749.6, "10750"),
        (999.96, "1000"),
        (-0.5, "-0.5"),
    ];
    for (value, text) in pairs {
        assert_eq!(number(value), text);
    }
}
