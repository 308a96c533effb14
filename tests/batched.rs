//! The batched mock against closed forms, and against a real run: vLLM 0.19 serving Llama-3.1-8B on an RTX 4090, 300 requests,
//! the KV cache full, some 230 preemptions. Those measurements are not part of this repository: see `SAGEBENCH_TRACES`.

mod real;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sagebench::backend::config::MockBackend;
use sagebench::calibrate::{Fields, Parameter, Settings as Fitting, Unit, calibrate, read};
use sagebench::campaign::{CellStart, Changes, Folder, Progress, Settings, conduct, prepare};
use sagebench::run::Stop;
use serde_json::Value;

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &CellStart<'_>) {}
    fn recorded(&mut self) {}
    fn finished(&mut self, _: &CellStart<'_>, _: f64) {}
}

/// One request: when it reached the engine, its first and its last token, in seconds, and its output tokens.
#[derive(Debug, Clone, Copy)]
struct Times {
    queued: f64,
    first: f64,
    last: f64,
    tokens: f64,
}

impl Times {
    fn latency(self) -> f64 {
        self.last - self.queued
    }
    fn ttft(self) -> f64 {
        self.first - self.queued
    }
    fn tpot(self) -> f64 {
        (self.last - self.first) / (self.tokens - 1.0)
    }
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a scenario leaves.
struct Results {
    requests: Vec<Value>,
    run: Value,
}

fn play(dir: &Path, scenario: &str) -> Results {
    let path = dir.join("scenario.yaml");
    fs::write(&path, scenario).unwrap();
    let prepared = prepare(&path, &Changes::default()).unwrap_or_else(|error| panic!("{error:?}"));
    let folder = Folder::open(&dir.join("results")).unwrap();
    let stop = Stop::default();
    let settings = Settings {
        folder: &folder,
        resume: false,
        force: false,
        strict: false,
        allow_exec: false,
        stop: &stop,
        command: "",
        threads: 1,
    };
    conduct(&prepared, &settings, &mut Silent).unwrap();
    let run = fs::read_to_string(folder.dir().join("run.json")).unwrap();
    Results { requests: rows(&folder.dir().join("requests.jsonl")), run: serde_json::from_str(&run).unwrap() }
}

/// A scenario with one workload on a batched mock.
fn batched(mock: &str, workload: &str) -> String {
    format!(
        "version: 1\nseed: 7\nbackends: {{ mock: {{ kind: mock, mode: batched, {mock} }} }}\nworkloads: {{ w: {{ {workload} }} }}\n"
    )
}

fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap()
}

/// One server, constant service, one token out: Lindley's recursion, to the nanosecond.
#[test]
fn a_queue_of_one_server_is_lindleys() {
    let dir = tempfile::tempdir().unwrap();
    let mock = "cost: { base_ms: 8, weights_ms: 0, token_us: 0, knee: 1 }, engine: { max_num_seqs: 1 }, kv: { tokens: 65536 }";
    let workload = "prompt: { kind: synthetic, tokens: 64 }, output: { tokens: 1 }, load: { kind: open, rate: 100/s, requests: 4000 }";
    let rows = play(dir.path(), &batched(mock, workload)).requests;
    let (mut free, mut waits, mut queued) = (0.0, 0.0, 0.0);
    for row in &rows {
        let due = number(row, "due_ms");
        let begins = f64::max(due, free);
        free = begins + 8.0;
        waits += begins - due;
        queued += number(row, "queue_time_ms");
        assert!((number(row, "end_ms") - free).abs() < 2e-6, "{row}, expected {free}");
        free = number(row, "end_ms");
    }
    // M/D/1 at a load of 0.8: the mean wait is ρ S / (2 (1 − ρ)) = 16 ms; the standard error of 4,000 such waits, which
    // hang together, is about 1.5 ms.
    let mean = waits / 4000.0;
    assert!((queued / 4000.0 - mean).abs() < 1e-5, "the queue time is the wait: {queued} {waits}");
    assert!((mean - 16.0).abs() < 5.0, "{mean}");
}

/// Little's law: over a run that begins and ends empty, the requests in a part of a system, on average over time, are those
/// that pass through it times how long they stay, over the time. Exactly: both sides count the same nanoseconds.
#[test]
fn littles_law_holds_for_the_queue_and_for_the_batch() {
    // Nobody is preempted: the batched cache is large, and in the fixed one a request never needs a third block.
    let modes = [
        (
            "mode: batched, preset: rtx4090-8b, engine: { max_num_seqs: 8 }, kv: { tokens: 65536 }",
            "prompt: { kind: synthetic, tokens: { kind: uniform, min: 16, max: 900 } }, output: { tokens: { kind: uniform, min: 2, max: 200 } }, load: { kind: open, rate: 4/s, requests: 400 }",
        ),
        (
            "ttft: 60ms, tbt: 20ms, kv: { blocks: 8 }",
            "prompt: { kind: synthetic, tokens: 20 }, output: { tokens: { kind: uniform, min: 2, max: 12 } }, load: { kind: open, rate: 18/s, requests: 400 }",
        ),
    ];
    for (mode, workload) in modes {
        let dir = tempfile::tempdir().unwrap();
        let results = play(
            dir.path(),
            &format!(
                "version: 1\nseed: 3\nbackends: {{ mock: {{ kind: mock, {mode} }} }}\nworkloads: {{ w: {{ {workload} }} }}\n"
            ),
        );
        let metrics = &results.run["cells"][0]["metrics"];
        assert_eq!(metrics["preempt_count"], 0, "a preempted request waits a second time");
        let (mut in_queue, mut in_batch) = (0.0, 0.0);
        for row in &results.requests {
            assert_eq!(row["outcome"], "success");
            in_queue += number(row, "queue_time_ms");
            in_batch += number(row, "e2e_ms") - number(row, "queue_delay_ms") - number(row, "queue_time_ms");
        }
        let time = number(metrics, "total_time_s") * 1e3;
        let batch = number(metrics, "avg_batch_size");
        assert!((batch - in_batch / time).abs() < 1e-5, "{mode}: {batch} {}", in_batch / time);
        assert!(
            in_queue > time * 0.01 && batch <= number(metrics, "max_batch_size"),
            "{mode}: nothing queued"
        );
        let throughput = results.requests.len() as f64 / time;
        let stay = in_batch / results.requests.len() as f64;
        assert!((throughput * stay - batch).abs() < 1e-5);
        // The series has the same mean.
        let series = &results.run["cells"][0]["batch_size"];
        let values: Vec<f64> =
            series["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let step = number(series, "step_ms");
        let last = time - step * (values.len() - 1) as f64;
        let integral: f64 = values.iter().rev().skip(1).sum::<f64>() * step + values.last().unwrap() * last;
        assert!((integral / time - batch).abs() < 1e-3, "{mode}: {} {batch}", integral / time);
    }
}

#[test]
fn one_request_costs_what_its_steps_cost() {
    let dir = tempfile::tempdir().unwrap();
    let mock = "cost: { base_ms: 2, weights_ms: 0, token_us: 10, knee: 1, kv_token_ns: 1000, prefill_pair_ps: 1000000 }, engine: { max_num_batched_tokens: 64 }, kv: { tokens: 4096 }";
    let workload = "prompt: { kind: synthetic, tokens: 100 }, output: { tokens: 4 }, load: { kind: closed, concurrency: 1, requests: 1 }";
    let row = play(dir.path(), &batched(mock, workload)).requests.remove(0);
    // Chunks of 64 and 36 tokens: pairs 64²/2 = 2,048 and 36 · 64 + 36²/2 = 2,952, a microsecond each.
    let ttft = (2.0 + 0.64 + 2.048) + (2.0 + 0.36 + 2.952);
    assert!((number(&row, "ttft_ms") - ttft).abs() < 1e-6, "{row}");
    // Then one token a step, looking back at 100, 101 and 102.
    let decode = 3.0 * 2.01 + 0.100 + 0.101 + 0.102;
    assert!((number(&row, "e2e_ms") - ttft - decode).abs() < 1e-6, "{row}");
}

/// Every fault of the list in one run, in both modes: the outcomes on the records, the counts, and the log are the same.
#[test]
fn faults_strike_the_requests_they_name() {
    let faults = "faults: [
        { match: { index: 1 }, action: { kind: http_status, code: 503, retry_after: 2s } },
        { match: { index: 2 }, action: { kind: disconnect, after_tokens: 3, close: rst } },
        { match: { index: 3 }, action: { kind: timeout } },
        { match: { index: 4 }, action: { kind: stall, after_tokens: 2, for: 700ms } },
        { match: { index: 5 }, action: { kind: reject } },
        { match: { index: 6 }, action: { kind: truncate, after_tokens: 4 } },
        { match: { index: 7 }, action: { kind: malformed, after_tokens: 5 } },
        { match: { index: 8 }, action: { kind: wrong_usage, completion_tokens: 30 } },
        { match: { index: 9 }, action: { kind: duplicate_token, token: 3 } },
        { match: { index: 10 }, action: { kind: slow_ttft, for: 900ms } },
        { action: { kind: startup_delay, for: 400ms } } ]";
    let modes = [
        "mode: batched, preset: rtx4090-8b, kv: { tokens: 65536 }",
        "ttft: 30ms, tbt: 15ms, kv: { tokens: 65536 }",
    ];
    for (mode, concurrency) in modes.into_iter().flat_map(|mode| [1, 3, 12].map(|users| (mode, users))) {
        let dir = tempfile::tempdir().unwrap();
        let results = play(
            dir.path(),
            &format!(
                "version: 1\nbackends: {{ mock: {{ kind: mock, {mode}, {faults} }} }}\nworkloads: {{ w: {{ prompt: {{ kind: synthetic, tokens: 64 }}, output: {{ tokens: 8 }}, load: {{ kind: closed, concurrency: {concurrency}, requests: 12 }}, timeout: 5s }} }}\n"
            ),
        );
        let row = |index: u64| results.requests.iter().find(|row| row["index"] == index).unwrap();
        let expected = [
            ("success", 8),
            ("http_503", 0),
            ("disconnected", 3),
            ("timed_out", 0),
            ("success", 8),
            ("refused", 0),
            ("truncated", 4),
            ("malformed", 5),
            ("success", 30),
            ("truncated", 9),
            ("success", 8),
            ("success", 8),
        ];
        for (index, (outcome, tokens)) in (0..).zip(expected) {
            let row = row(index);
            assert_eq!(
                (row["outcome"].as_str().unwrap(), row["output_tokens"].as_u64().unwrap()),
                (outcome, tokens),
                "{row}"
            );
        }
        assert!((700.0..800.0).contains(&number(row(4), "longest_gap_ms")), "{}", row(4));
        assert!(number(row(10), "ttft_ms") > 900.0 && number(row(0), "ttft_ms") > 400.0);
        assert_eq!(row(1)["message"], "injected fault: HTTP status 503, retry after 2s");
        let cell = &results.run["cells"][0];
        let metrics = &cell["metrics"];
        assert_eq!((&metrics["failed_requests"], &metrics["length_mismatches"]), (&7.into(), &1.into()));
        let log = cell["faults"].as_array().unwrap();
        let mut struck: Vec<u64> = log.iter().filter_map(|fault| fault["index"].as_u64()).collect();
        struck.sort_unstable();
        assert_eq!(struck, (1..=10).collect::<Vec<u64>>(), "{mode} at {concurrency}");
        assert_eq!(log.len(), 11);
    }
}

#[test]
fn what_a_crash_costs_is_counted_to_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let mock = "preset: rtx4090-8b, kv: { tokens: 65536 }, faults: [{ action: { kind: engine_crash, at: 4s, restart: 3s } }]";
    let workload = "prompt: { kind: synthetic, tokens: 64 }, output: { tokens: 32 }, load: { kind: open, rate: 5/s, requests: 60 }";
    let results = play(dir.path(), &batched(mock, workload));
    let cell = &results.run["cells"][0];
    let (errors, log) = (&cell["metrics"]["errors"], cell["faults"].as_array().unwrap());
    let away = results.requests.iter().filter(|row| (4e3..7e3).contains(&number(row, "due_ms"))).count();
    assert_eq!(errors["refused"], away, "who comes while nobody is there");
    assert!(errors["disconnected"].as_u64().unwrap() >= 1, "{errors}");
    let failed = cell["metrics"]["failed_requests"].as_u64().unwrap();
    assert_eq!(log.iter().filter(|fault| fault["index"].is_u64()).count() as u64, failed);
    assert_eq!(log[0]["index"], Value::Null);
}

#[test]
fn speculation_and_a_full_cache_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mock = "preset: h100-8b, kv: { tokens: 4096 }, speculative: { tokens: 3, accept: [100%, 100%, 0%] }";
    let workload = "prompt: { kind: synthetic, tokens: 256 }, output: { tokens: 256 }, load: { kind: closed, concurrency: 10, requests: 10 }";
    let results = play(dir.path(), &batched(mock, workload));
    let metrics = &results.run["cells"][0]["metrics"];
    assert_eq!(metrics["successful_requests"], 10);
    let accepted = number(metrics, "spec_accept_rate");
    assert!((0.6..0.7).contains(&accepted), "two of three drafts: {accepted}");
    assert!(number(metrics, "preempt_count") > 0.0 && number(metrics, "evict_count") > 0.0);
    assert!(number(metrics, "kv_used_tokens") <= 4096.0);
    // The preset knows the model's bytes per token, and its numbers carry a warning.
    let tokens = metrics["kv_used_tokens"].as_u64().unwrap();
    assert_eq!(metrics["kv_used_bytes"], tokens * 131_072);
    assert!(results.run["warnings"][0].as_str().unwrap().contains("never checked end to end"));
}

fn measured(folder: &Path) -> Vec<Times> {
    let rows = rows(&folder.join("llmservingsim/RTX4090/requests.jsonl"));
    let at = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let start = rows.iter().map(|row| at(row, "queued_ts")).fold(f64::INFINITY, f64::min);
    let times = rows.iter().map(|row| Times {
        queued: at(row, "queued_ts") - start,
        first: at(row, "first_token_ts") - start,
        last: at(row, "last_token_ts") - start,
        tokens: at(row, "output_toks"),
    });
    times.collect()
}

/// Plays the run's own arrivals, lengths and shared blocks on the preset with this `base`, in milliseconds.
fn modelled(folder: &Path, real: &[Times], base: f64) -> Vec<Times> {
    let dir = tempfile::tempdir().unwrap();
    let input = rows(&folder.join("llmservingsim/sharegpt-300.mooncake16.jsonl"));
    assert_eq!((input.len(), real.len()), (300, 300));
    let mut order: Vec<usize> = (0..300).collect();
    order.sort_by(|a, b| real[*a].queued.total_cmp(&real[*b].queued));
    let mut trace = String::new();
    for at in &order {
        let (row, queued) = (&input[*at], (real[*at].queued * 1e6).round() as u64);
        let line = serde_json::json!({
            "at": queued, "in": row["input_length"], "out": row["output_length"], "blocks": row["hash_ids"],
        });
        writeln!(trace, "{line}").unwrap();
    }
    fs::write(dir.path().join("trace.jsonl"), trace).unwrap();
    let scenario = format!(
        "version: 1
backends:
  mock:
    kind: mock
    mode: batched
    cost: {{ base_ms: {base}, weights_ms: 15.65, token_us: 89.9, knee: 1.92, sequence_us: 3, kv_token_ns: 154.7, prefill_pair_ps: 4937 }}
    kv: {{ blocks: 2588, block_tokens: 16 }}
workloads:
  run:
    prompt:
      kind: trace
      path: trace.jsonl
      format: jsonl
      fields: {{ timestamp: at, timestamp_unit: us, prompt_tokens: in, output_tokens: out, blocks: blocks }}
      block_tokens: 16
    load: {{ kind: replay }}
"
    );
    let results = play(dir.path(), &scenario);
    let mut times = vec![Times { queued: 0.0, first: 0.0, last: 0.0, tokens: 0.0 }; 300];
    for row in results.requests {
        assert_eq!(row["outcome"], "success", "{row}");
        let at = |name: &str| row[name].as_f64().unwrap() / 1e3;
        let index = order[row["index"].as_u64().unwrap() as usize];
        times[index] = Times {
            queued: at("due_ms"),
            first: at("first_ms"),
            last: at("end_ms"),
            tokens: row["output_tokens"].as_f64().unwrap(),
        };
    }
    times
}

/// The mean absolute relative error of the latency, over every second request from `from`.
fn mape(model: &[Times], real: &[Times], from: usize, step: usize) -> f64 {
    let pairs = model.iter().zip(real).skip(from).step_by(step);
    let errors: Vec<f64> = pairs.map(|(m, r)| (m.latency() - r.latency()).abs() / r.latency()).collect();
    errors.iter().sum::<f64>() / errors.len() as f64
}

fn mean_error(model: &[Times], real: &[Times], of: fn(Times) -> f64) -> f64 {
    let mean = |times: &[Times]| times.iter().map(|t| of(*t)).sum::<f64>() / times.len() as f64;
    mean(model) / mean(real) - 1.0
}

#[test]
fn a_real_run_of_vllm_is_predicted() {
    let Some(folder) = real::folder("the run of vLLM") else { return };
    let real = measured(&folder);
    let preset = modelled(&folder, &real, 3.0);
    let error = mape(&preset, &real, 0, 1);
    println!("base of the preset, 3 ms: latency MAPE {:.2} %", error * 100.0);
    assert!(error <= 0.06, "{error}");

    // The base is fitted on the even requests by golden-section search, and scored on the odd ones.
    let (mut low, mut high) = (2.0, 4.0);
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    for _ in 0..6 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        let score = |base| mape(&modelled(&folder, &real, base), &real, 0, 2);
        if score(a) < score(b) { high = b } else { low = a }
    }
    let base = f64::midpoint(low, high);
    let fitted = modelled(&folder, &real, base);
    let error = mape(&fitted, &real, 1, 2);
    let (ttft, tpot) = (mean_error(&fitted, &real, Times::ttft), mean_error(&fitted, &real, Times::tpot));
    println!(
        "base {base:.3} ms: latency MAPE {:.2} % on the odd requests, TTFT {:+.2} %, TPOT {:+.2} %",
        error * 100.0,
        ttft * 100.0,
        tpot * 100.0
    );
    assert!(error <= 0.02, "{error}");
    assert!(ttft.abs() <= 0.03 && tpot.abs() <= 0.03, "{ttft} {tpot}");
}

/// The same run by `calibrate`: from the preset, with the server's own cache, the base fitted on the even requests.
#[test]
fn a_real_run_of_vllm_is_calibrated() {
    let Some(folder) = real::folder("the calibration on the run of vLLM") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    let input = rows(&folder.join("llmservingsim/sharegpt-300.mooncake16.jsonl"));
    for (mut row, trace) in rows(&folder.join("llmservingsim/RTX4090/requests.jsonl")).into_iter().zip(input)
    {
        row["blocks"] = trace["hash_ids"].clone();
        writeln!(lines, "{row}").unwrap();
    }
    let path = dir.path().join("run.jsonl");
    fs::write(&path, lines).unwrap();
    let mut fields = Fields { unit: Unit::S, ..Fields::default() };
    let keys = "arrival=queued_ts prompt=input_toks output=output_toks first=first_token_ts last=last_token_ts blocks=blocks";
    keys.split(' ').for_each(|field| fields.set(field).unwrap());
    let start: MockBackend = serde_json::from_value(
        serde_json::json!({ "mode": "batched", "preset": "rtx4090-8b", "kv": { "blocks": 2588 } }),
    )
    .unwrap();
    let fit = vec![Parameter::named("base_ms").unwrap()];
    let fitted = calibrate(&read(&path, &fields).unwrap(), &Fitting { start: Some(start), fit }).unwrap();
    println!("{}", fitted.report());
    assert_eq!((fitted.fitted.requests, fitted.held_out.requests), (150, 150));
    assert!(fitted.held_out.mape[0] <= 0.02, "{:?}", fitted.held_out);
    assert!(
        fitted.held_out.mean[1].abs() <= 0.03 && fitted.held_out.mean[2].abs() <= 0.03,
        "{:?}",
        fitted.held_out
    );
}
