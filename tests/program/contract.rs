//! The Year 1/2/3 contract: files, fields, numbers and verdicts, as the binary leaves them.

use std::fs;
use std::path::Path;

use crate::common::{json, repo, run};
use serde_json::Value;

const FIELDS: [&str; 22] = [
    "avg_ttft_ms",
    "p50_ttft_ms",
    "p95_ttft_ms",
    "p99_ttft_ms",
    "avg_tbt_ms",
    "avg_tpot_ms",
    "avg_throughput_tps",
    "peak_mem_mb",
    "avg_mem_mb",
    "error_rate",
    "total_requests",
    "successful_requests",
    "failed_requests",
    "kv_used_tokens",
    "kv_used_bytes",
    "prefix_hit_rate",
    "evict_count",
    "evict_ms",
    "spec_accept_rate",
    "total_time_s",
    "start_time",
    "end_time",
];

fn year1(dir: &Path) -> Value {
    let said = run(dir, ["apply", "year1"]);
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    json(dir.join("benchmark_results/benchmark_summary.json"))
}

#[test]
fn year1_leaves_the_contract_files_with_the_22_fields_first() {
    let dir = tempfile::tempdir().unwrap();
    let summary = year1(dir.path());
    for workload in ["short_input", "long_input", "stress_test"] {
        let file = json(dir.path().join(format!("benchmark_results/{workload}_metrics.json")));
        let keys: Vec<&String> = file.as_object().unwrap().keys().take(22).collect();
        assert_eq!(keys, FIELDS, "{workload}");
        for (key, value) in file.as_object().unwrap().iter().take(22) {
            let explained = file["unavailable"].get(key).is_some_and(Value::is_string);
            assert_eq!(value.is_null(), explained, "{workload}.{key} is {value}");
        }
        assert_eq!(summary["workloads"][workload], file);
        for key in ["peak_mem_mb", "total_requests", "kv_used_tokens", "kv_used_bytes", "evict_count"] {
            assert!(file[key].is_u64(), "{workload}.{key} is {}", file[key]);
        }
    }
    let overall = &summary["overall"];
    assert_eq!(overall["total_workloads"], 3);
    assert_eq!(overall["total_requests"], 18);
    assert_eq!(overall["failed_requests"], 0);
    assert_eq!(overall["passed"], true);
    for file in ["REPORT.md", "report.html", "run.json", "requests.jsonl", "junit.xml"] {
        assert!(dir.path().join("benchmark_results").join(file).is_file(), "{file}");
    }
}

/// Worked out by hand and by an independent simulation: the tenth request is preempted at 730 ms and the ninth at 970 ms,
/// both come back at 1,285 ms and pay their first token again.
#[test]
fn year1_stress_has_its_golden_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let summary = year1(dir.path());
    let stress = &summary["workloads"]["stress_test"];
    assert_eq!(stress["avg_ttft_ms"], 10.0);
    assert_eq!(stress["avg_tbt_ms"], 5.345_098);
    assert_eq!(stress["avg_tpot_ms"], 5.345_098);
    assert_eq!(stress["max_tbt_ms"], 565.0);
    assert_eq!(stress["max_e2e_ms"], 1845.0);
    assert_eq!(stress["avg_throughput_tps"].as_f64().map(|v| (v * 10.0).round() / 10.0), Some(189.2));
    assert_eq!(stress["preempt_count"], 2);
    assert_eq!(stress["kv_used_tokens"], 4088);
    assert_eq!(stress["kv_used_bytes"], 4088 * 32768);
    assert_eq!(stress["evict_count"], 115);
    assert!(stress["evict_ms"].is_null());
    assert_eq!(stress["max_in_flight"], 10);
    let short = &summary["workloads"]["short_input"];
    assert_eq!(short["total_time_s"], 5.0 * 0.645);
    assert_eq!(short["avg_e2e_ms"], 645.0);
}

#[test]
fn a_virtual_run_repeats_to_the_byte_outside_its_environment() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    year1(one.path());
    year1(two.path());
    let results = one.path().join("benchmark_results");
    let mut compared = 0;
    for entry in fs::read_dir(&results).unwrap() {
        let path = entry.unwrap().path();
        let other = two.path().join("benchmark_results").join(path.file_name().unwrap());
        if path.ends_with("run.json") {
            let (mut a, mut b) = (json(&path), json(&other));
            assert!(a["environment"].is_object());
            for run in [&mut a, &mut b] {
                run.as_object_mut().unwrap().remove("environment");
            }
            assert_eq!(a, b);
        } else {
            assert_eq!(fs::read(&path).unwrap(), fs::read(&other).unwrap(), "{}", path.display());
        }
        compared += 1;
    }
    assert!(compared >= 8, "{compared} files");
}

#[test]
fn toml_and_yaml_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    for ending in ["yaml", "toml"] {
        let file = repo(&format!("scenarios/year1.{ending}"));
        let said = run(dir.path(), ["apply".as_ref(), file.as_os_str(), "-o".as_ref(), ending.as_ref()]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let [yaml, toml] = ["yaml", "toml"].map(|e| json(dir.path().join(e).join("benchmark_summary.json")));
    let strip = |mut summary: Value| {
        // A judgement names the file and line of its rule.
        for gate in summary["gates"].as_array_mut().unwrap() {
            gate.as_object_mut().unwrap().remove("place");
        }
        summary
    };
    assert_eq!(strip(yaml), strip(toml));
}

#[test]
fn prompts_have_exactly_the_tokens_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let said = run(dir.path(), ["plan", "year1", "--out", "plan.jsonl"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let text = fs::read_to_string(dir.path().join("plan.jsonl")).unwrap();
    let mut lengths: Vec<u64> = Vec::new();
    for line in text.lines().skip(1) {
        let line: Value = serde_json::from_str(line).unwrap();
        lengths.push(line["recipe"]["prompt"]["tokens"].as_u64().unwrap());
    }
    let expected = [vec![128; 5], vec![200; 3], vec![256; 10]].concat();
    assert_eq!(lengths, expected);
}

#[test]
fn the_predecessors_command_lines_work() {
    let dir = tempfile::tempdir().unwrap();
    for (workload, files) in [("year1", 3), ("short", 1), ("long", 1), ("stress", 1)] {
        let said =
            run(dir.path(), ["run", "--workload", workload, "--backend", "mock", "-o", workload, "-v"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let metrics = fs::read_dir(dir.path().join(workload))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with("_metrics.json"))
            .count();
        assert_eq!(metrics, files, "{workload}");
    }
    for (format, start) in [("table", ""), ("json", "{"), ("markdown", "#")] {
        let said = run(dir.path(), ["report", "--input", "year1/benchmark_summary.json", "--format", format]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.starts_with(start) && said.out.contains("short_input"), "{format}: {}", said.out);
    }
    let said = run(dir.path(), ["run", "--workload", "year1", "--backend", "vllm"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("no backend `vllm`"), "{}", said.err);
}

#[test]
fn what_runs_write_is_valid_by_the_published_schemas() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["year1", "year3", "sweep", "faults"] {
        let said = run(dir.path(), ["apply", name, "-o", name, "-q"]);
        assert!(matches!(said.code, Some(0 | 99)), "{}", said.err);
        let mut checked = 0;
        for entry in fs::read_dir(dir.path().join(name)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let schema = match file.as_str() {
                "run.json" => "run",
                name if name.ends_with("_metrics.json") => "metrics",
                _ => continue,
            };
            let schema = json(repo(&format!("schemas/{schema}.schema.json")));
            let validator = jsonschema::validator_for(&schema).unwrap();
            let value = json(&path);
            let errors: Vec<String> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{name}/{file}: {errors:#?}");
            checked += 1;
        }
        assert!(checked >= 2, "{name}: {checked}");
    }
}
