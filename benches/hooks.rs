//! What hooks cost: a workload whose prompts, requests and checks are all scripts, planned and checked on one core.

use std::path::Path;

use divan::counter::ItemsCount;
use indexmap::IndexMap;
use sagebench::plan::{Plan, Recipe, plan};
use sagebench::record::{Basis, Outcome, Phase, Record, Response, TokenSource};
use sagebench::scenario::Scenario;
use sagebench::tokenizer;

const REQUESTS: u64 = 100_000;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A prompt from lists and draws, a request with a body of its own, a check that reads JSON and records two metrics.
const HOOKS: &str = r#"
const PRODUCTS = ["router", "thermostat", "camera", "doorbell"];
const TROUBLES = ["does not start", "loses its connection", "makes a strange noise"];

fn prompt(ctx) {
    let text = `My ${rng.pick(global::PRODUCTS)} ${rng.pick(global::TROUBLES)}. It is ${rng.int(1, 36)} months old.`;
    if rng.chance(0.1) { return #{ prompt: "URGENT: " + text, output_tokens: 120 }; }
    text
}

fn request(req) {
    req.body.user = `customer-${rng.int(1, 20)}`;
    if req.phase == "measured" && req.index % 7 == 0 { req.output_tokens = 30; }
    req
}

fn check(req, res) {
    let answer = res.json;
    record("items", answer.items.len());
    record("pace", res.output_tokens * 1000.0 / res.e2e_ms);
    if answer.items.is_empty() { return "the list is empty"; }
    answer.city == "Paris" && res.finish_reason == "stop"
}
"#;

fn main() {
    divan::main();
}

fn scenario() -> Scenario {
    serde_json::from_value(serde_json::json!({
        "version": 1,
        "seed": 42,
        "backends": { "mock": { "kind": "mock", "ttft": "10ms", "tbt": "5ms" } },
        "metrics": { "items": {}, "pace": {} },
        "hooks": { "inline": HOOKS },
        "workloads": { "support": {
            "prompt": { "kind": "script" },
            "output": { "max_tokens": 60 },
            "load": { "kind": "open", "rate": "100/s", "requests": REQUESTS },
        } },
    }))
    .expect("the scenario in this bench is valid")
}

fn planned(scenario: &Scenario) -> Plan {
    plan(scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock)
        .expect("the scenario in this bench has a plan")
}

/// A success of 300 ms.
fn record(recipe: &Recipe) -> Record {
    Record {
        index: recipe.index,
        phase: Phase::Measured,
        session: None,
        due: 0,
        sent: Some(0),
        connect: 0,
        scheduled: None,
        first: Some(10_000_000),
        first_answer: None,
        end: 300_000_000,
        cap_wait: 0,
        longest_gap: 5_000_000,
        prompt_tokens: recipe.prompt.tokens(),
        asked_tokens: recipe.output_tokens,
        forced: recipe.forced,
        output_tokens: 59,
        first_event_tokens: 1,
        events: 59,
        stream: None,
        preemptions: 0,
        token_source: TokenSource::Engine,
        outcome: Outcome::Success,
        message: None,
        checked: None,
        retried: None,
    }
}

/// Planning, which makes every prompt and request once for the digests.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn plan_prompts_and_requests(bencher: divan::Bencher) {
    let scenario = scenario();
    bencher.counter(ItemsCount::new(REQUESTS)).bench(|| planned(&scenario));
}

/// Everything that hooks do in a run: planning, making each request when it is due, and checking each response.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn plan_and_check(bencher: divan::Bencher) {
    let scenario = scenario();
    let response = Response {
        text: r#"{"city": "Paris", "items": ["restart it", "check the cable", "call us"]}"#.to_owned(),
        finish_reason: Some("stop".into()),
    };
    bencher.counter(ItemsCount::new(REQUESTS)).bench(|| {
        let plan = planned(&scenario);
        let workload = &plan.workloads[0];
        let (hooked, checks) =
            workload.hooked.as_ref().zip(workload.checks.as_ref()).expect("there are hooks");
        let mut kept = Vec::new();
        let mut passed = 0_u64;
        for recipe in workload.stream(0) {
            let record = record(&recipe);
            let checked = checks
                .judge(|| Some(hooked.request(&recipe)), &response, &record, Basis::Due, &mut kept)
                .expect("no hook of this bench fails");
            passed += u64::from(checked.failed == 0);
        }
        assert_eq!(passed, REQUESTS);
        // Given back, so that letting go of it is not timed.
        plan
    });
}
