//! Playing a scenario's text and looking at what it left.

use std::fs;
use std::path::Path;

use sagebench::campaign::{CellStart, Changes, Folder, Progress, Rejected, Settings, conduct, prepare};
use sagebench::run::Stop;
use serde_json::Value;

struct Silent;

impl Progress for Silent {
    fn started(&mut self, _: &CellStart<'_>) {}
    fn recorded(&mut self) {}
    fn finished(&mut self, _: &CellStart<'_>, _: f64) {}
}

/// What a scenario leaves.
pub struct Results {
    pub requests: Vec<Value>,
    pub run: Value,
}

impl Results {
    /// A field of the only workload's metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let value = &self.run["cells"][0]["metrics"][name];
        value.as_f64().unwrap_or_else(|| panic!("{name} is {value}"))
    }

    /// The verdicts, in order.
    pub fn verdicts(&self) -> Vec<(String, String)> {
        let all = self.run["judgements"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.iter().map(|one| (text(&one["rule"]), text(&one["verdict"]))).collect()
    }
}

/// Plays a scenario that stands in `dir`.
pub fn play_in(dir: &Path, scenario: &str) -> Results {
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
        threads: 1,
        stop: &stop,
        command: "",
    };
    conduct(&prepared, &settings, &mut Silent).unwrap();
    let text = |name: &str| fs::read_to_string(folder.dir().join(name)).unwrap();
    let requests = text("requests.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    Results { requests, run: serde_json::from_str(&text("run.json")).unwrap() }
}

pub fn play(scenario: &str) -> Results {
    play_in(tempfile::tempdir().unwrap().path(), scenario)
}

/// The messages of a scenario that can not be used, each with its help.
pub fn errors_in(dir: &Path, scenario: &str) -> Vec<String> {
    let path = dir.join("scenario.yaml");
    fs::write(&path, scenario).unwrap();
    match prepare(&path, &Changes::default()) {
        Ok(_) => panic!("it is valid"),
        Err(Rejected::Message(message)) => vec![message],
        Err(Rejected::Invalid(failed) | Rejected::NotComparable(failed)) => {
            failed.diagnostics.iter().map(|one| one.message.clone()).collect()
        }
    }
}

/// A scenario with one workload on a mock of 10 ms and 5 ms with this much cache.
pub fn on_mock(mock: &str, workload: &str, more: &str) -> String {
    format!(
        "version: 1\nseed: 7\nbackends: {{ mock: {{ kind: mock, {mock} }} }}\nworkloads: {{ w: {{ {workload} }} }}\n{more}"
    )
}

pub fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"))
}
