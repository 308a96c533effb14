//! How fast the mock plays on the virtual clock with every record kept, and how fast metrics and reports follow.

use std::path::Path;

use divan::counter::ItemsCount;
use indexmap::IndexMap;
use sagebench::backend::config::Backend;
use sagebench::backend::mock;
use sagebench::campaign::{CellStart, Changes, Folder, Progress, Settings, conduct, prepare};
use sagebench::measure::Samples;
use sagebench::plan::{Plan, plan};
use sagebench::record::{GapRun, Record};
use sagebench::report::{RunReport, render_standard};
use sagebench::run::{Flow, Observer, Pace, Resume, Stop, play};
use sagebench::scenario::Scenario;
use sagebench::tokenizer;

fn main() {
    divan::main();
}

const FIXED: &str = r#""ttft": "10ms", "tbt": "5ms""#;
const BATCHED: &str = r#""mode": "batched", "preset": "h100-8b""#;

fn scenario(mode: &str, requests: u64, tokens: u32, output: u32) -> Scenario {
    let text = format!(
        r#"{{"version": 1, "seed": 42,
            "backends": {{"mock": {{"kind": "mock", {mode}, "kv": {{"tokens": 65536}}}}}},
            "workloads": {{"load": {{
                "prompt": {{"kind": "synthetic", "tokens": {tokens}}}, "output": {{"tokens": {output}}},
                "load": {{"kind": "closed", "concurrency": 9, "requests": {requests}}}}}}}}}"#
    );
    serde_json::from_str(&text).expect("the scenario in this bench is valid")
}

fn planned(scenario: &Scenario) -> Plan {
    plan(scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock)
        .expect("the scenario in this bench has a plan")
}

struct Keep(Samples);

impl Observer for Keep {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.0.push(record.clone(), gaps);
        Flow::Continue
    }
}

fn keep(scenario: &Scenario, plan: &Plan) -> Samples {
    let workload = &plan.workloads[0];
    let Backend::Mock(config) = &scenario.backends["mock"] else { panic!("the bench plays a mock") };
    let mut mock = mock::open(config, "load", 42, Path::new(".")).expect("the mock in this bench is valid");
    let mut keep = Keep(Samples::new(workload.load.basis()));
    play(
        workload,
        workload.stream(0),
        mock.as_mut(),
        Pace::Virtual,
        &Stop::default(),
        &mut keep,
        &Resume::default(),
    )
    .expect("the virtual clock does not fail");
    keep.0
}

/// Requests of 512 tokens in and 128 out, nine at a time, records kept.
#[divan::bench(sample_count = 5)]
fn records_512_128(bencher: divan::Bencher<'_, '_>) {
    let scenario = scenario(FIXED, 20_000, 512, 128);
    let plan = planned(&scenario);
    bencher.counter(ItemsCount::new(20_000_u32)).bench(|| keep(&scenario, &plan));
}

/// The same in a continuous batch of nine.
#[divan::bench(sample_count = 5)]
fn batched_512_128(bencher: divan::Bencher<'_, '_>) {
    let scenario = scenario(BATCHED, 20_000, 512, 128);
    let plan = planned(&scenario);
    bencher.counter(ItemsCount::new(20_000_u32)).bench(|| keep(&scenario, &plan));
}

/// Requests of 16 tokens in and 2 out: the cost of a request, without its tokens.
#[divan::bench(sample_count = 5)]
fn records_16_2(bencher: divan::Bencher<'_, '_>) {
    let scenario = scenario(FIXED, 100_000, 16, 2);
    let plan = planned(&scenario);
    bencher.counter(ItemsCount::new(100_000_u32)).bench(|| keep(&scenario, &plan));
}

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &CellStart<'_>) {}
    fn recorded(&mut self) {}
    fn finished(&mut self, _: &CellStart<'_>, _: f64) {}
}

fn year1() -> RunReport {
    let prepared = prepare(Path::new("scenarios/year1.yaml"), &Changes::default()).expect("year1 is valid");
    let results = tempfile::tempdir().expect("a temporary folder");
    let folder = Folder::open(results.path()).expect("it can be written to");
    let stop = Stop::default();
    let settings = Settings {
        folder: &folder,
        resume: false,
        force: false,
        strict: false,
        allow_exec: false,
        stop: &stop,
        command: "bench",
        threads: 0,
    };
    conduct(&prepared, &settings, &mut Silent).expect("year1 runs").report
}

/// Every standard report of year1.
#[divan::bench(args = ["summary.txt", "report.md", "report.html", "junit.xml"])]
fn render(bencher: divan::Bencher<'_, '_>, template: &str) {
    let run = year1();
    bencher.bench(|| render_standard(&run, template).expect("standard templates render"));
}
