//! How fast the batched mock simulates: the engine alone in its two forms, and the whole program around it.
//!
//! The simple form looks at every sequence in every step; the wheel adds up the steps in which sequences only decode. Both
//! give the same results. `apply` plans, plays, keeps a record of each request, judges and writes every report.
//! `SAGEBENCH_REQUESTS=1000000 cargo bench --bench engine` sets how many requests each line plays (100,000 without it).

use std::path::Path;
use std::time::Instant;

use indexmap::IndexMap;
use sagebench::backend::config::Backend;
use sagebench::backend::{Finish, RequestId, Sink, Stepped, mock};
use sagebench::campaign::{CellStart, Changes, Folder, Progress, Settings, conduct, prepare};
use sagebench::plan::{LoadPlan, Recipe, UserCurve, plan};
use sagebench::run::Stop;
use sagebench::scenario::Scenario;
use sagebench::tokenizer;
use sagebench::units::Ns;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Name, prompt, output, load, backend: the batch is about 9, then as many as the engine takes.
const WORKLOADS: [(&str, &str, u32, &str, &str); 4] = [
    (
        "512/128, batch 9",
        r#""tokens": 512"#,
        128,
        r#""kind": "open", "arrival": "poisson", "rate": "8/s""#,
        "",
    ),
    (
        "512/128, shared prefixes, batch 9",
        r#""tokens": 512, "prefix": {"tokens": 448, "groups": 8}"#,
        128,
        r#""kind": "open", "arrival": "poisson", "rate": "8/s""#,
        "",
    ),
    ("512/128, saturated", r#""tokens": 512"#, 128, r#""kind": "closed", "concurrency": 256"#, ""),
    (
        "512/128, 4 drafts, batch 9",
        r#""tokens": 512"#,
        128,
        r#""kind": "closed", "concurrency": 9"#,
        r#", "speculative": {"tokens": 4, "accept": 0.6}"#,
    ),
];

fn main() {
    let requests = std::env::var("SAGEBENCH_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    println!(
        "{requests} requests a line; k/s: thousands a second; resident memory is the process's highest so far"
    );
    println!(
        "{:34} {:>7} {:>12} {:>11} {:>12} {:>11} {:>11} {:>7} {:>9}",
        "workload",
        "batch",
        "simple req",
        "simple step",
        "wheel req",
        "wheel step",
        "apply req",
        "ratio",
        "RSS"
    );
    for (name, prompt, output, load, backend) in WORKLOADS {
        let text = format!(
            r#"{{"version": 1, "seed": 42, "backends": {{"mock": {{"kind": "mock", "mode": "batched", "preset": "h100-8b",
                "kv": {{"tokens": 524288}}{backend}}}}}, "workloads": {{"load": {{
                "prompt": {{"kind": "synthetic", {prompt}}}, "output": {{"tokens": {output}}}, "timeout": "9h",
                "load": {{{load}, "requests": {requests}}}}}}}}}"#
        );
        // The whole program first: what it holds at most is then not hidden by the recipes of the bare loop.
        let (whole, batch, memory) = apply(&text);
        let scenario: Scenario = serde_json::from_str(&text).expect("the scenario in this bench is valid");
        let plan = plan(&scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock)
            .expect("the scenario in this bench has a plan");
        let Backend::Mock(config) = &scenario.backends["mock"] else { panic!("the bench plays a mock") };
        let recipes: Vec<Recipe> = plan.workloads[0].stream(0).collect();
        let users = match &plan.workloads[0].load {
            LoadPlan::Closed { users: UserCurve::Constant(users), .. } => *users,
            _ => 0,
        };
        let bare = |fold: bool| {
            let mut engine = mock::open(config, "load", 42, Path::new(".")).expect("the mock is valid");
            if fold {
                engine.fold_steps();
            }
            let start = Instant::now();
            let steps = play(engine.as_mut(), &recipes, users);
            (start.elapsed().as_secs_f64(), steps as f64)
        };
        let (simple, steps) = bare(false);
        let (wheel, _) = bare(true);
        let rate = |n: f64, seconds: f64| format!("{:.1} k/s", n / seconds / 1e3);
        let n = recipes.len() as f64;
        println!(
            "{name:34} {batch:>7.1} {:>12} {:>11} {:>12} {:>11} {:>11} {:>7.2} {:>5} MiB",
            rate(n, simple),
            rate(steps, simple),
            rate(n, wheel),
            rate(steps, wheel),
            rate(n, whole),
            whole / wheel,
            memory
        );
    }
}

/// Counts steps and hears who is done.
#[derive(Default)]
struct Count {
    last: Option<Ns>,
    steps: u64,
    ended: u32,
}

impl Sink for Count {
    fn tokens(&mut self, _: RequestId, at: Ns, _: Ns, _: u32) {
        if self.last != Some(at) {
            (self.last, self.steps) = (Some(at), self.steps + 1);
        }
    }

    fn step(&mut self, at: Ns, _: Ns) {
        if self.last != Some(at) {
            (self.last, self.steps) = (Some(at), self.steps + 1);
        }
    }

    fn finished(&mut self, _: RequestId, _: Ns, _: Finish) {
        self.ended += 1;
    }
}

/// Plays every request: at its arrival, or with `users` when one of them is free. How many steps brought tokens.
fn play(engine: &mut dyn Stepped, recipes: &[Recipe], users: u32) -> u64 {
    let (mut count, mut sent, mut now) = (Count { ended: users, ..Count::default() }, 0, 0);
    loop {
        while users > 0 && count.ended > 0 && sent < recipes.len() {
            engine.submit(sent as RequestId, &recipes[sent], now);
            (sent, count.ended) = (sent + 1, count.ended - 1);
        }
        let arrival = recipes.get(sent).and_then(|recipe| recipe.arrival);
        match (engine.next_event(), arrival) {
            (Some(next), arrival) if arrival.is_none_or(|arrival| next <= arrival) => {
                now = next;
                engine.advance(now, &mut count);
            }
            (_, Some(arrival)) => {
                now = arrival;
                engine.submit(sent as RequestId, &recipes[sent], now);
                sent += 1;
            }
            (_, None) => return count.steps,
        }
    }
}

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &CellStart<'_>) {}
    fn recorded(&mut self) {}
    fn finished(&mut self, _: &CellStart<'_>, _: f64) {}
}

/// The whole program on a scenario: seconds, the mean batch, and the most memory that the process has held, in MiB.
fn apply(text: &str) -> (f64, f64, u64) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("bench.yaml");
    std::fs::write(&file, text).expect("the folder can be written to");
    let stop = Stop::default();
    let start = Instant::now();
    let prepared = prepare(&file, &Changes::default()).expect("the scenario in this bench is valid");
    let folder = Folder::open(&dir.path().join("results")).expect("the folder can be written to");
    let settings = Settings {
        folder: &folder,
        resume: false,
        force: false,
        strict: false,
        allow_exec: false,
        stop: &stop,
        command: "bench",
        threads: 1,
    };
    let report = conduct(&prepared, &settings, &mut Silent).expect("the scenario runs").report;
    let seconds = start.elapsed().as_secs_f64();
    let batch = report.cells[0].number("avg_batch_size").unwrap_or(f64::NAN);
    (seconds, batch, highest_memory())
}

/// The most memory that this process has held, in MiB; 0 where the system does not tell.
fn highest_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
