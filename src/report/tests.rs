//! Every output of the fixture report, held against its golden file, its schema, and what it must survive.

use serde_json::Value;

use super::fixture::report;
use super::*;
use crate::gate::Verdict;
use crate::measure::fixture::stress;
use crate::measure::metrics_schema;
use crate::record::{Basis, Record};

fn rendered(name: &str) -> String {
    render(&report(), &embedded(name).expect("it ships")).unwrap_or_else(|error| panic!("{error}"))
}

fn text(file: &OutputFile) -> String {
    String::from_utf8(file.bytes.clone()).expect("outputs are UTF-8")
}

#[test]
fn golden_templates() {
    for (name, _) in EMBEDDED {
        insta::assert_snapshot!(name.replace('.', "_"), rendered(name));
    }
}

#[test]
fn golden_files() {
    insta::assert_snapshot!("sweep_csv", text(&sweep_csv(&report().sweeps).expect("there is a sweep")));
    insta::assert_snapshot!("benchmark_summary", text(&benchmark_summary(&report())));
    let (samples, _) = stress();
    let records: Vec<&Record> = samples.records().iter().collect();
    let log = RequestLog {
        workload: "stress_test",
        backend: "mock",
        repeat: 0,
        basis: Basis::Sent,
        records: &records,
    };
    insta::assert_snapshot!("requests_jsonl", text(&requests_jsonl(&[log], 2)));
}

#[test]
fn every_template_renders_an_empty_report_and_a_bare_summary() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("benchmark_summary.json");
    let bare = r#"{"workloads": {"short": {"avg_ttft_ms": 45.2, "p50_ttft_ms": 44.0, "error_rate": 0.02,
        "total_requests": 50, "failed_requests": 1, "peak_mem_mb": 24576}}, "overall": {"total_workloads": 1}}"#;
    std::fs::write(&path, bare).expect("a file");
    let bare = read(&path).expect("a summary");
    assert_eq!((bare.verdict, bare.complete, bare.overall.total_time_s), (None, None, None));
    assert_eq!((bare.overall.total_requests, bare.overall.successful_requests), (Some(50), None));
    for (name, _) in EMBEDDED {
        for report in [&RunReport::new(), &bare] {
            let output = render(report, &embedded(name).expect("it ships")).unwrap_or_else(|e| panic!("{e}"));
            assert!(!output.contains("NaN") && !output.contains("null"), "{name}: {output}");
        }
    }
    let markdown = render(&bare, &embedded("report.md").expect("it ships")).expect("renders");
    assert!(markdown.contains("| TTFT | 45.2 | 44 | n/a |"), "{markdown}");
}

#[test]
fn run_json_comes_back_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = run_json(&report());
    std::fs::write(folder.path().join(&written.name), &written.bytes).expect("a file");
    assert_eq!(read(folder.path()).expect("a run"), report());
    assert_eq!(read(&folder.path().join("run.json")).expect("a run"), report());
}

#[test]
fn our_own_summary_keeps_metrics_gates_and_verdict() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("benchmark_summary.json"), benchmark_summary(&report()).bytes)
        .expect("a file");
    let back = read(folder.path()).expect("a summary");
    assert_eq!(back.verdict, Some(RunVerdict::Fail));
    assert_eq!(back.judgements, report().judgements);
    assert_eq!(back.cells[0].metrics, report().cells[0].metrics);
    assert_eq!(back.overall, report().overall);
}

#[test]
fn what_is_no_report_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |content: &str| {
        let path = folder.path().join("x.json");
        std::fs::write(&path, content).expect("a file");
        read(&path).expect_err("no report").to_string().replace(&path.display().to_string(), "x.json")
    };
    insta::assert_snapshot!(said("{"), @"x.json: no JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(said("[]"), @"x.json: neither a run.json nor a benchmark_summary.json: it is no JSON object");
    insta::assert_snapshot!(said(r#"{"workloads": 3}"#), @"x.json: neither a run.json nor a benchmark_summary.json, at `workloads`: invalid type: integer `3`, expected a map");
    insta::assert_snapshot!(said(r#"{"cells": [], "schema_version": 9}"#), @"x.json: its schema_version is 9, this program reads 1; use the version of sagebench that wrote it");
    insta::assert_snapshot!(said(r#"{"cells": [], "schema_version": 1}"#), @"x.json: no run report, at `.`: missing field `backends`");
    let nothing = read(folder.path()).map(|_| ()).expect_err("x.json is no name of a report").to_string();
    assert!(nothing.contains("neither run.json nor benchmark_summary.json"), "{nothing}");
}

fn check(schema: &Value, instance: &[u8]) {
    let validator = jsonschema::validator_for(schema).expect("a schema");
    let instance: Value = serde_json::from_slice(instance).expect("JSON");
    let errors: Vec<String> =
        validator.iter_errors(&instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn outputs_follow_their_schemas() {
    let report = report();
    check(run_schema().as_value(), &run_json(&report).bytes);
    for file in metrics_files(&report) {
        check(metrics_schema().as_value(), &file.bytes);
    }
}

#[test]
fn a_schema_refuses_what_is_wrong() {
    let validator = jsonschema::validator_for(metrics_schema().as_value()).expect("a schema");
    let good: Value = serde_json::from_slice(&metrics_files(&report())[0].bytes).expect("JSON");
    for (key, value) in [("error_rate", 2.into()), ("peak_mem_mb", 1.5.into()), ("unknown", 1.into())] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!validator.is_valid(&bad), "{key}");
    }
}

#[test]
fn committed_schemas_are_those_of_the_types() {
    for (name, schema) in [("run", run_schema()), ("metrics", metrics_schema())] {
        let text = serde_json::to_string_pretty(schema.as_value()).expect("a schema is JSON") + "\n";
        crate::generated::is_committed(&format!("schemas/{name}.schema.json"), &text);
    }
}

#[test]
fn junit_tells_what_pipelines_read() {
    let xml = rendered("junit.xml");
    let has = |part: &str| assert!(xml.contains(part), "{part} is not in\n{xml}");
    has(r#"<testsuite name="stress_test" tests="3" failures="1" errors="0" skipped="0""#);
    has(r#"<testsuite name="faulty" tests="2" failures="1" errors="0" skipped="1""#);
    has("<system-out>FAIL: 565 ms (limit 100 ms)");
    has(r#"name="share(ttft &lt;= 20ms) &gt;= 90%""#);
}

#[test]
fn a_run_that_failed_or_is_invalid_is_an_error_in_junit() {
    let mut report = report();
    report.judgements.retain(|own| own.workload == "stress_test");
    report.cells.truncate(1);
    report.cells[0].metrics["successful_requests"] = 0.into();
    report.complete = Some(false);
    report.interruption = Some("interrupted by SIGINT".into());
    let reason = crate::measure::Reason { name: "lag".into(), text: "late".into() };
    let xml =
        |report: &RunReport| render(report, &embedded("junit.xml").expect("it ships")).expect("renders");
    let failed = xml(&report);
    assert!(failed.contains(r#"<error message="not one request succeeded"/>"#), "{failed}");
    assert!(failed.contains(r#"<error message="interrupted by SIGINT"/>"#), "{failed}");
    report.cells[0].validity =
        Some(crate::measure::Validity { valid: false, reasons: vec![reason], warnings: Vec::new() });
    for own in &mut report.judgements {
        own.suspended = true;
    }
    let invalid = xml(&report);
    assert!(
        invalid.contains(r#"<error message="late"/>"#) && invalid.contains(r#"failures="0""#),
        "{invalid}"
    );
}

#[test]
fn the_best_point_is_the_fastest_that_passes() {
    let mut report = report();
    assert_eq!(report.sweeps[0].best.as_deref(), Some("chat@concurrency=1"));
    for own in &mut report.judgements {
        own.verdict = Verdict::Pass;
    }
    report.conclude(RunVerdict::Pass, 0);
    assert_eq!(report.sweeps[0].best.as_deref(), Some("chat@concurrency=4"));
    for own in &mut report.judgements {
        own.verdict = Verdict::NoData;
    }
    report.conclude(RunVerdict::Fail, 99);
    assert_eq!(report.sweeps[0].best, None);
}

#[test]
fn csv_quotes_and_slugs_are_safe() {
    let mut report = report();
    report.sweeps[0].rows[0].point["concurrency"] = "a,\"b\"".into();
    let csv = text(&sweep_csv(&report.sweeps).expect("there is a sweep"));
    assert!(csv.contains(r#","a,""b""","#), "{csv}");
    assert_eq!(sweep_csv(&[]), None);
    assert_eq!(slug("chat@concurrency=4+prompt.tokens=128"), "chat_concurrency-4-prompt.tokens-128");
    assert_eq!((slug("../x"), slug("")), ("_.._x".to_owned(), "_".to_owned()));
    report.cells[1].workload = "stress+test".into();
    report.cells[0].workload = "stress=test".into();
    let names: Vec<String> = metrics_files(&report).into_iter().map(|file| file.name).take(2).collect();
    assert_eq!(names, ["stress-test_metrics.json", "stress-test-2_metrics.json"]);
}

#[test]
fn an_earlier_output_is_no_template() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("report.html"), "an output").expect("a file");
    std::fs::write(folder.path().join("report.md.hbs"), "mine: {{name}}").expect("a file");
    let report = report();
    let of = |out: &str| {
        let (_, template) = STANDARD.iter().find(|(name, _)| *name == out).expect("it is standard");
        render(&report, &find(template, folder.path()).expect("it is found")).expect("it renders")
    };
    assert_eq!(of("REPORT.md"), "mine: fixture");
    assert!(of("report.html").starts_with("<!doctype html>"));
    assert!(of("junit.xml").starts_with("<?xml"));
}

#[test]
fn one_backend_out_of_several() {
    let mut report = report();
    report.cells[1].backend = Some("other".into());
    let part = report.only("mock", RunVerdict::Pass, 0);
    assert_eq!((part.cells.len(), part.overall.total_workloads, part.overall.passed), (3, 3, Some(true)));
}

#[test]
fn users_templates_come_first_and_their_errors_have_a_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, source: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, source).expect("a file");
    };
    assert_eq!(find("report.md", folder.path()).expect("embedded").name, "report.md");
    write("templates/report.md.hbs", "second");
    assert_eq!(find("report.md", folder.path()).expect("in templates/").source, "second");
    write("report.md", "first {{name}}");
    let first = find("report.md", folder.path()).expect("beside");
    assert_eq!(render(&report(), &first).expect("renders"), "first fixture");
    let lost = find("raport.md", folder.path()).expect_err("no such template").to_string();
    assert!(lost.ends_with("is `report.md` meant?"), "{lost}");
    let said = |source: &'static str| {
        let template = Template { name: "t.md".into(), source: source.into(), kind: Kind::Markdown };
        render(&report(), &template).expect_err("it is wrong").to_string()
    };
    insta::assert_snapshot!(said("a\nb {{nmae}}"), @"template `t.md`, line 2, column 3: there is no `nmae` here; `run.json` shows what there is");
    insta::assert_snapshot!(said("{{#each cells}}\n  {{metrics.p42_ttft_ms}}\n{{/each}}"), @"template `t.md`, line 2, column 3: there is no `metrics.p42_ttft_ms` here; `run.json` shows what there is");
    insta::assert_snapshot!(said("{{#each cells}}"), @"template `t.md`, line 1, column 16: the syntax is broken here: a tag or a block that is not closed, perhaps");
    insta::assert_snapshot!(said("{{shout name}}"), @"template `t.md`, line 1, column 1: there is no helper `shout`");
    insta::assert_snapshot!(said("{{num}}"), @"template `t.md`, line 1, column 1: the helper `num` lacks its parameter 1");
    let raw = Template {
        name: "t.json".into(),
        source: "{{json cells.[0].point}} {{{json name}}}".into(),
        kind: Kind::Raw,
    };
    assert_eq!(render(&report(), &raw).expect("renders"), "{} \"fixture\"");
}

#[test]
fn html_needs_nothing_from_outside() {
    let html = rendered("report.html");
    for outside in ["src=", "href=\"http", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("&lt;b&gt;a|b&lt;/b&gt;"), "what a backend says is escaped");
}
