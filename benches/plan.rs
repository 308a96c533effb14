//! How long a plan takes: everything about a million requests, digests included, and the texts of prompts.

use std::path::Path;

use divan::counter::ItemsCount;
use indexmap::IndexMap;
use sagebench::plan::{self, Plan};
use sagebench::scenario::Scenario;
use sagebench::tokenizer::{Mock, Tokenizer};

const REQUESTS: u64 = 1_000_000;

fn main() {
    divan::main();
}

fn scenario(workload: &str) -> Scenario {
    let text = format!(
        r#"{{"version": 1, "seed": 42, "backends": {{"mock": {{"kind": "mock", "ttft": "10ms", "tbt": "5ms"}}}},
            "workloads": {{"load": {workload}}}}}"#
    );
    serde_json::from_str(&text).expect("the scenario in this bench is valid")
}

fn planned(scenario: &Scenario) -> Plan {
    plan::plan(scenario, &IndexMap::new(), Path::new("."), &Mock)
        .expect("the scenario in this bench has a plan")
}

/// Fixed lengths, a closed loop: nothing is drawn but seeds.
fn fixed() -> Scenario {
    scenario(&format!(
        r#"{{"prompt": {{"kind": "synthetic", "tokens": 512}}, "output": {{"tokens": 128}},
            "load": {{"kind": "closed", "concurrency": 64, "requests": {REQUESTS}}}}}"#
    ))
}

/// Everything is drawn: arrivals, both lengths, groups and cancels.
fn drawn() -> Scenario {
    scenario(&format!(
        r#"{{"prompt": {{"kind": "synthetic", "prefix": {{"tokens": 64, "groups": 100}},
                "tokens": {{"kind": "lognormal", "mean": 512, "std": 300, "min": 64}}}},
            "output": {{"tokens": {{"kind": "normal", "mean": 128, "std": 40}}}},
            "cancel": {{"rate": "5%", "after_tokens": 10}},
            "load": {{"kind": "open", "rate": "100/s", "requests": {REQUESTS}}}}}"#
    ))
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn plan_fixed_lengths(bencher: divan::Bencher) {
    let scenario = fixed();
    bencher.counter(ItemsCount::new(REQUESTS)).bench(|| planned(&scenario));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn plan_drawn_lengths(bencher: divan::Bencher) {
    let scenario = drawn();
    bencher.counter(ItemsCount::new(REQUESTS)).bench(|| planned(&scenario));
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn stream_drawn_lengths(bencher: divan::Bencher) {
    let plan = planned(&drawn());
    bencher.counter(ItemsCount::new(REQUESTS)).bench(|| plan.workloads[0].stream(0).count());
}

#[divan::bench(args = [128, 8192])]
fn text_of(bencher: divan::Bencher, tokens: u32) {
    bencher.counter(ItemsCount::new(tokens)).bench(|| Mock.text_of(divan::black_box(tokens), 7));
}
