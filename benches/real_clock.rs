//! How close the real clock comes to the model: medians and tails of TTFT and TBT against what the mock was told.
//!
//! Not a test: a loaded machine is late, and that is what it shows.

use std::path::Path;

use indexmap::IndexMap;
use sagebench::backend::config::Backend;
use sagebench::backend::mock::Mock;
use sagebench::measure::{Distribution, Samples};
use sagebench::metric::Metric;
use sagebench::plan::plan;
use sagebench::record::{GapRun, Record};
use sagebench::run::{Flow, Observer, Pace, Resume, Stop, play};
use sagebench::scenario::Scenario;
use sagebench::tokenizer;
use sagebench::units::ms;

const SCENARIO: &str = r#"{"version": 1, "seed": 1,
    "backends": {"mock": {"kind": "mock", "ttft": "10ms", "tbt": "5ms"}},
    "workloads": {
        "alone": {"prompt": {"kind": "synthetic", "tokens": 128}, "output": {"tokens": 128},
                  "load": {"kind": "closed", "concurrency": 1, "requests": 5}},
        "ten": {"prompt": {"kind": "synthetic", "tokens": 128}, "output": {"tokens": 128},
                "load": {"kind": "closed", "concurrency": 10, "requests": 30}},
        "open": {"prompt": {"kind": "synthetic", "tokens": 128}, "output": {"tokens": 4},
                 "load": {"kind": "open", "rate": "200/s", "requests": 600}}}}"#;

struct Keep(Samples);

impl Observer for Keep {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.0.push(record.clone(), gaps);
        Flow::Continue
    }
}

fn main() {
    let scenario: Scenario = serde_json::from_str(SCENARIO).expect("the scenario in this bench is valid");
    let plan = plan(&scenario, &IndexMap::new(), Path::new("."), &tokenizer::Mock)
        .expect("the scenario in this bench has a plan");
    let Backend::Mock(config) = &scenario.backends["mock"] else { panic!("the bench plays a mock") };
    println!("workload  TTFT p50 p99 ms (model 10)  TBT p50 p99 ms (model 5)  sent - due p50 p99 ms");
    for workload in &plan.workloads {
        let mut mock =
            Mock::open(config, &[workload.family.as_str()], 1, Path::new(".")).expect("the mock is valid");
        let mut keep = Keep(Samples::new(workload.load.basis()));
        let (stop, resume) = (Stop::default(), Resume::default());
        play(workload, workload.stream(0), &mut mock, Pace::Real, &stop, &mut keep, &resume)
            .expect("the machine has a clock");
        let of = |name: &str| {
            let metric = Metric::named(name).expect("a metric of the table");
            let values = Distribution::of(keep.0.values(metric));
            [0.5, 0.99].map(|q| values.quantile(q).unwrap_or(f64::NAN))
        };
        let tbt = [0.5, 0.99].map(|q| keep.0.gaps().quantile(q).map_or(f64::NAN, ms));
        let (ttft, lag) = (of("ttft"), of("queue_delay"));
        println!(
            "{:8}  {:8.3} {:8.3}            {:8.3} {:8.3}           {:8.3} {:8.3}",
            workload.name, ttft[0], ttft[1], tbt[0], tbt[1], lag[0], lag[1]
        );
    }
}
