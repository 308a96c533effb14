//! Small files as each tool writes them, by their public formats, and what is in them.

use std::path::PathBuf;

use super::*;
use crate::measure::{Samples, value_of};
use crate::metric::Metric;
use crate::record::{Basis, Outcome, Phase};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn read(name: &str) -> Imported {
    import(&fixture(name), None).unwrap_or_else(|error| panic!("{error}"))
}

fn requests(cell: &ImportedCell) -> &Requests {
    match &cell.measured {
        Measured::Requests(requests) => requests,
        Measured::Summary(_) => panic!("statistics only"),
    }
}

fn summary(cell: &ImportedCell) -> &Summary {
    match &cell.measured {
        Measured::Summary(summary) => summary,
        Measured::Requests(_) => panic!("requests"),
    }
}

/// A metric of each successful request.
fn values(requests: &Requests, name: &str) -> Vec<f64> {
    let mut samples = Samples::new(requests.basis);
    for (record, gaps) in &requests.records {
        samples.push(record.clone(), gaps);
    }
    let metric = Metric::named(name).unwrap();
    samples.records().iter().filter_map(|record| value_of(record, metric, requests.basis)).collect()
}

fn close(found: &[f64], expected: &[f64]) {
    let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-3;
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(near), "{found:?} {expected:?}");
}

fn gaps(requests: &Requests) -> Vec<(u64, u32)> {
    requests.records.iter().flat_map(|(_, gaps)| gaps).map(|run| (run.gap / 1_000_000, run.count)).collect()
}

fn outcomes(requests: &Requests) -> Vec<Outcome> {
    requests.records.iter().map(|(record, _)| record.outcome).collect()
}

fn number(summary: &Summary, name: &str) -> f64 {
    summary.values.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn vllm_with_its_lists() {
    use Outcome::{Success, Unexplained};
    let imported = read("vllm-detailed.json");
    assert_eq!(imported.tool, Tool::Vllm);
    let [cell] = imported.cells.as_slice() else { panic!() };
    assert_eq!(
        (cell.model.as_deref(), cell.load.as_deref()),
        (Some("example/model"), Some("closed, concurrency 4"))
    );
    let requests = requests(cell);
    assert_eq!(outcomes(requests), [Success, Success, Success, Unexplained]);
    assert_eq!(requests.records[3].0.message.as_deref(), Some("Service Unavailable"));
    assert_eq!(values(requests, "ttft"), [10.0, 20.0, 5.0]);
    assert_eq!(values(requests, "e2e"), [40.0, 80.0, 5.0]);
    assert_eq!(values(requests, "tpot"), [10.0, 10.0]);
    assert_eq!(gaps(requests), [(10, 3), (10, 6)]);
    let sent: Vec<u64> =
        requests.records.iter().map(|(record, _)| record.sent.unwrap() / 1_000_000).collect();
    assert_eq!((sent, requests.duration), (vec![0, 12, 20, 30], Some(2_000_000_000)));
    assert!(requests.unknown.contains_key("queue_delay") && !requests.unknown.contains_key("max_in_flight"));
}

#[test]
fn vllm_without_them() {
    let imported = read("vllm-summary.json");
    let summary = summary(&imported.cells[0]);
    assert_eq!((number(summary, "avg_ttft_ms"), number(summary, "p50_ttft_ms")), (11.7, 10.0));
    assert_eq!((number(summary, "p99_tbt_ms"), number(summary, "output_throughput_tps")), (10.0, 6.0));
    assert_eq!((number(summary, "failed_requests"), number(summary, "error_rate")), (1.0, 0.25));
    assert!(!summary.values.contains_key("p95_ttft_ms"));
}

#[test]
fn appended_runs_are_told_apart_by_what_they_varied() {
    let imported = read("vllm-appended.jsonl");
    let points: Vec<Value> = imported.cells.iter().map(|cell| cell.point["concurrency"].clone()).collect();
    assert_eq!(points, [1, 4, 4]);
}

#[test]
fn sglang_with_and_without_details() {
    let imported = read("sglang.jsonl");
    assert_eq!(imported.tool, Tool::Sglang);
    let told = summary(&imported.cells[0]);
    assert_eq!((number(told, "avg_e2e_ms"), number(told, "p95_tbt_ms")), (55.0, 10.0));
    assert!(!told.values.contains_key("error_rate"), "how many were sent is not in the file");
    let imported = read("sglang-details.jsonl");
    let requests = requests(&imported.cells[0]);
    assert_eq!((values(requests, "ttft"), values(requests, "e2e")), (vec![20.0, 30.0], vec![50.0, 60.0]));
    assert!(requests.unknown["max_in_flight"].contains("when each request was sent"));
}

#[test]
fn guidellm_benchmark_by_benchmark() {
    let imported = read("guidellm.json");
    assert_eq!(imported.tool, Tool::Guidellm);
    let [alone, open] = imported.cells.as_slice() else { panic!() };
    let first = requests(alone);
    // Seconds since 1970 have no nanoseconds in a float.
    close(&values(first, "ttft"), &[20.0, 20.0]);
    close(&values(first, "tpot"), &[10.0, 10.0]);
    assert!(first.unknown["tbt"].contains("the time of each token"), "{:?}", first.unknown);
    // Sent 30 ms late: in an open loop that is the user's wait.
    let second = requests(open);
    assert_eq!(second.basis, Basis::Due);
    close(&values(second, "ttft"), &[20.0, 50.0]);
    assert_eq!(outcomes(second)[2..], [Outcome::Unreachable, Outcome::Interrupted]);
    assert_eq!((&open.point["strategy"], &open.point["rate"]), (&"constant".into(), &10.into()));
}

#[test]
fn a_sample_of_requests_is_not_taken_for_all() {
    let imported = read("guidellm-sampled.json");
    let summary = summary(&imported.cells[0]);
    assert_eq!((number(summary, "avg_ttft_ms"), number(summary, "avg_e2e_ms")), (25.0, 50.0));
    assert!(summary.reasons["avg_tpot_ms"].contains("weighs"), "{:?}", summary.reasons);
    assert!(
        imported.cells[0].notes[0].contains("a sample of 1 of 2 requests"),
        "{:?}",
        imported.cells[0].notes
    );
}

#[test]
fn aiperf_row_by_row() {
    let imported = read("aiperf.jsonl");
    assert_eq!(imported.tool, Tool::Aiperf);
    let requests = requests(&imported.cells[0]);
    assert_eq!(requests.records[0].0.phase, Phase::Warmup);
    assert_eq!((values(requests, "ttft"), values(requests, "e2e")), (vec![20.0, 30.0], vec![50.0, 70.0]));
    // Five tokens in three chunks: the two that are over came with the later ones.
    assert_eq!(values(requests, "tpot"), [10.0, 10.0]);
    assert_eq!(
        requests.records.iter().map(|(record, _)| record.first_event_tokens).collect::<Vec<_>>(),
        [1, 1, 1, 0]
    );
    assert_eq!(outcomes(requests)[3], Outcome::HttpStatus(503));
    assert_eq!(imported.cells[0].start_time, Some(1_767_322_800.0));
}

#[test]
fn aiperf_statistics() {
    let imported = read("aiperf.json");
    let summary = summary(&imported.cells[0]);
    assert_eq!((number(summary, "avg_ttft_ms"), number(summary, "max_e2e_ms")), (25.0, 70.0));
    assert_eq!((number(summary, "avg_tpot_ms"), number(summary, "total_output_tokens")), (10.0, 9.0));
    assert_eq!((number(summary, "total_requests"), number(summary, "failed_requests")), (3.0, 1.0));
    assert!(summary.reasons.contains_key("avg_tbt_ms"));
    assert_eq!(imported.cells[0].start_time, Some(1_767_322_800.0));
}

#[test]
fn inference_perf_with_and_without_requests() {
    let imported = read("inference-perf-requests.json");
    assert_eq!(imported.tool, Tool::InferencePerf);
    let found = requests(&imported.cells[0]);
    assert_eq!((values(found, "ttft"), values(found, "e2e")), (vec![20.0, 30.0], vec![50.0, 60.0]));
    assert_eq!(outcomes(found)[2], Outcome::HttpStatus(503));
    let imported = read("inference-perf-summary.json");
    let told = summary(&imported.cells[0]);
    assert_eq!((number(told, "avg_ttft_ms"), number(told, "p99_e2e_ms")), (20.0, 80.0));
    assert_eq!((number(told, "error_rate"), number(told, "total_time_s")), (0.25, 2.0));
}

#[test]
fn the_contracts_own_files() {
    let imported = read("contract-summary.json");
    assert_eq!(imported.tool, Tool::Contract);
    let names: Vec<&str> = imported.cells.iter().map(|cell| cell.name.as_str()).collect();
    assert_eq!(names, ["short_input", "long_input"]);
    let told = summary(&imported.cells[0]);
    assert_eq!((number(told, "avg_ttft_ms"), number(told, "kv_used_bytes")), (45.2, 134_217_728.0));
    assert!(!told.values.contains_key("spec_accept_rate"));
    assert!(imported.cells[1].notes[0].contains("gpu_name"));
    assert_eq!(read("contract-metrics.json").cells.len(), 1);
}

/// What is said of a text as a result file.
fn refused(text: &str, tool: Option<Tool>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    std::fs::write(&path, text).unwrap();
    let error = import(&path, tool).unwrap_err().to_string();
    error.rsplit_once("x.json").map(|(_, rest)| rest.to_owned()).unwrap()
}

#[test]
fn what_can_not_be_read_says_where() {
    let vllm = std::fs::read_to_string(fixture("vllm-detailed.json")).unwrap();
    let rows = std::fs::read_to_string(fixture("aiperf.jsonl")).unwrap();
    let cases = [
        ("", None, ": is empty"),
        ("  \n", None, ": is empty"),
        ("not json", None, ":1: is no JSON"),
        ("[]", None, ": holds an empty list"),
        ("3", None, "it holds no JSON object"),
        (r#"{"a": 1, "b": 2}"#, None, "its keys are a, b; formats are vllm"),
        (&vllm[..vllm.len() / 2], None, "was cut off"),
        (&rows[..rows.len() - 30], None, ":4: is no JSON"),
        (r#"{"duration": 1}"#, Some(Tool::Vllm), ": lacks `completed`"),
        (r#"{"duration": "x", "completed": 1}"#, Some(Tool::Vllm), "`duration` is no number"),
        (r#"{"duration": 1, "completed": 1.5}"#, Some(Tool::Vllm), "`completed` is no whole number"),
        (r#"{"duration": -1, "completed": 1}"#, Some(Tool::Vllm), "`duration` is negative"),
        (r#"{"benchmarks": []}"#, None, ": holds no measured load"),
        (r#"{"benchmarks": [{"metrics": {}}]}"#, None, "has no `request_totals`"),
        (r#"{"workloads": {"a": {"error_rate": 3}}}"#, None, "`workloads.a.error_rate` is a share"),
        (&vllm.replace("\"output_lens\": [", "\"output_lens\": [7,"), None, "`output_lens` has 5 entries"),
    ];
    for (text, tool, expected) in cases {
        let said = refused(text, tool);
        assert!(said.contains(expected), "{said:?} should say {expected:?}");
    }
}

#[test]
fn pythons_numbers_that_are_none_are_none() {
    let vllm = std::fs::read_to_string(fixture("vllm-summary.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    std::fs::write(&path, vllm.replace("11.7", "NaN").replace("\"inf\"", "Infinity")).unwrap();
    let imported = import(&path, None).unwrap();
    assert!(!summary(&imported.cells[0]).values.contains_key("avg_ttft_ms"));
    std::fs::write(&path, r#"{"workloads": {"NaN": {"avg_ttft_ms": 1}}}"#).unwrap();
    assert_eq!(import(&path, None).unwrap().cells[0].name, "NaN");
}

proptest::proptest! {
    #[test]
    fn any_bytes_come_to_an_end(bytes: Vec<u8>, cut in 0_usize..1200) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, &bytes).unwrap();
        let _ = import(&path, None);
        let whole = std::fs::read(fixture("vllm-detailed.json")).unwrap();
        std::fs::write(&path, &whole[..cut.min(whole.len())]).unwrap();
        let _ = import(&path, None);
    }

    #[test]
    fn values_of_any_shape_are_told_or_read(key in 0_usize..12, value in "(null|3|-1|\"x\"|\\[\\]|\\{\\}|\\[1,null\\]|1e300)") {
        let keys = ["duration", "completed", "ttfts", "itls", "input_lens", "output_lens", "errors", "start_times",
            "max_concurrency", "request_rate", "num_prompts", "model_id"];
        let text = std::fs::read_to_string(fixture("vllm-detailed.json")).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        document[keys[key]] = serde_json::from_str(&value).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, document.to_string()).unwrap();
        let _ = import(&path, Some(Tool::Vllm));
    }
}
