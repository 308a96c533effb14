//! Plays a workload against a server and keeps every record.

use std::path::Path;

use sagebench::backend::openai::{OpenAi, Setup};
use sagebench::campaign::{Changes, Prepared, complete};
use sagebench::record::{GapRun, Outcome, Record};
use sagebench::run::{Ending, Flow, Observer, Played, Resume, Stop, play_live};
use sagebench::scenario::{Format, Options, load_text};
use serde_json::{Value, json};

/// Keeps everything.
#[derive(Default)]
pub struct Kept(pub Vec<(Record, Vec<GapRun>)>);

impl Observer for Kept {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.0.push((record.clone(), gaps.to_vec()));
        Flow::Continue
    }
}

/// A scenario of one workload on one backend: a closed load of `requests`, one at a time, of `tokens` output tokens.
pub fn scenario(url: &str, requests: u64, tokens: u32) -> Value {
    json!({
        "version": 1,
        "backends": { "s": { "kind": "openai", "base_url": url, "flavor": "generic", "threads": 1, "metrics": "off" } },
        "workloads": { "w": {
            "prompt": { "kind": "synthetic", "tokens": 16 },
            "output": { "max_tokens": tokens },
            "load": { "kind": "closed", "concurrency": 1, "requests": requests },
            "timeout": "5s",
        } },
    })
}

pub fn prepared(scenario: &Value) -> Prepared {
    let options = Options::process(&[]);
    let loaded = load_text("scenario.yaml", &scenario.to_string(), Format::Yaml, Path::new(""), &options)
        .unwrap_or_else(|failed| panic!("{:?}", failed.diagnostics));
    complete(loaded, &Changes::default()).unwrap_or_else(|rejected| panic!("{rejected:?}"))
}

pub fn open(scenario: &Value) -> Result<OpenAi, String> {
    let prepared = prepared(scenario);
    let (config, flavor) = prepared.backends[0].config.server().unwrap();
    let mut setup = Setup { dir: Path::new(""), log: None, nonce: 7, say: &mut |_| {}, stopped: &|| false };
    OpenAi::open(config, flavor, &mut setup)
}

/// Plays the scenario's workload once.
pub fn play(scenario: &Value) -> (Played, Kept) {
    let mut server = open(scenario).unwrap_or_else(|why| panic!("{why}"));
    let prepared = prepared(scenario);
    let plan = &prepared.plan.workloads[0];
    let mut kept = Kept::default();
    let (stop, resume) = (Stop::default(), Resume::default());
    let played = play_live(plan, plan.stream(0), &mut server, &stop, &mut kept, &resume).unwrap();
    kept.0.sort_by_key(|(record, _)| record.index);
    (played, kept)
}

/// The only record of a scenario with one request.
pub fn one(scenario: &Value) -> (Record, Vec<GapRun>) {
    let (_, kept) = play(scenario);
    assert_eq!(kept.0.len(), 1, "one record per request");
    kept.0.into_iter().next().unwrap()
}

#[test]
fn a_hook_answers_what_the_server_said() {
    let server = crate::server::Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => crate::server::models(),
        "/v1/chat/completions" => {
            let word = format!("word-{}", asked.number);
            let text = format!(
                "data: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
                crate::server::content(&word),
                crate::server::finish()
            );
            vec![crate::server::head(), crate::server::piece(text), crate::server::end()]
        }
        _ => Vec::new(),
    });
    let mut scenario = scenario(&server.url(), 1, 8);
    scenario["workloads"]["w"]["prompt"] = json!({ "kind": "sessions", "turns": 3, "user": { "tokens": 5 } });
    scenario["workloads"]["w"]["load"] = json!({ "kind": "closed", "concurrency": 1, "sessions": 1 });
    scenario["hooks"] =
        json!({ "inline": "fn next_turn(session) { `turn ${session.turn}: you said '${session.last}'` }" });
    let (_, kept) = play(&scenario);
    assert_eq!(kept.0.len(), 3);
    let last = server.bodies().pop().unwrap();
    let said: Vec<&str> =
        last["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    let wanted =
        ["turn 1: you said ''", "word-0", "turn 2: you said 'word-0'", "word-1", "turn 3: you said 'word-1'"];
    assert_eq!(said, wanted);
}

#[test]
fn tools_response_formats_and_images_of_a_file_reach_the_server() {
    let server = crate::server::Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => crate::server::models(),
        "/v1/chat/completions" => {
            let text = format!(
                "data: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
                crate::server::content("x"),
                crate::server::finish()
            );
            vec![crate::server::head(), crate::server::piece(text), crate::server::end()]
        }
        _ => Vec::new(),
    });
    let mut scenario = scenario(&server.url(), 5, 8);
    scenario["backends"]["s"]["endpoint"] = json!("chat");
    let workload = &mut scenario["workloads"]["w"];
    workload["prompt"] =
        json!({ "kind": "file", "path": "scenarios/data/requests.jsonl", "format": "openai" });
    workload.as_object_mut().unwrap().remove("output");
    let (_, kept) = play(&scenario);
    assert!(kept.0.iter().all(|(record, _)| record.outcome.releases()), "{:?}", kept.0);
    let rows = std::fs::read_to_string("scenarios/data/requests.jsonl").unwrap();
    let bodies = server.bodies();
    for (row, sent) in rows.lines().zip(&bodies) {
        let row: Value = serde_json::from_str(row).unwrap();
        let row = row.get("body").unwrap_or(&row);
        for key in ["messages", "tools", "response_format", "temperature"] {
            assert_eq!(sent.get(key), row.get(key), "{key} of {row}");
        }
        let limit = row.get("max_tokens").or(row.get("max_completion_tokens"));
        assert_eq!(sent.get("max_tokens"), limit, "{row}");
        assert_eq!(sent["model"], "m", "the model is the backend's");
    }
    assert_eq!(bodies.len(), 5);
}

/// Stops everything once a first answer is there.
#[derive(Default)]
struct Aborting(Vec<Record>);

impl Observer for Aborting {
    fn on_record(&mut self, record: &Record, _: &[GapRun]) -> Flow {
        self.0.push(record.clone());
        if self.0.len() == 1 { Flow::Abort("enough".into()) } else { Flow::Continue }
    }
}

#[test]
fn what_is_handed_over_ahead_leaves_when_it_is_due_or_not_at_all() {
    use crate::server::{Server, content, end, finish, head, models, piece};
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        _ => vec![head(), piece(format!("data: {}\n\ndata: {}\n\n", content("a"), finish())), end()],
    });
    let mut scenario = scenario(&server.url(), 1, 8);
    scenario["workloads"]["w"]["load"] =
        json!({ "kind": "open", "rate": "2000/s", "arrival": "poisson", "requests": 100 });
    let (_, kept) = play(&scenario);
    let records = kept.0.iter().map(|(record, _)| record);
    assert_eq!(records.clone().filter(|record| record.outcome == Outcome::Success).count(), 100);
    assert!(records.clone().all(|record| record.sent >= Some(record.due)), "none leaves before its time");

    scenario["workloads"]["w"]["load"]["requests"] = json!(100_000);
    let mut server = open(&scenario).unwrap();
    let prepared = prepared(&scenario);
    let (plan, mut seen) = (&prepared.plan.workloads[0], Aborting::default());
    let (stop, resume) = (Stop::default(), Resume::default());
    let played = play_live(plan, plan.stream(0), &mut server, &stop, &mut seen, &resume).unwrap();
    assert_eq!(played.ending, Ending::Aborted("enough".into()));
    let mut indexes: Vec<u64> = seen.0.iter().map(|record| record.index).collect();
    indexes.sort_unstable();
    let all: Vec<u64> = (0..seen.0.len() as u64).collect();
    assert_eq!(indexes, all, "each that was handed over has a record");
    assert!(seen.0.len() < 100_000);
    let outcomes = [Outcome::Success, Outcome::Interrupted];
    assert!(seen.0.iter().all(|record| outcomes.contains(&record.outcome)), "{:?}", seen.0);
}
