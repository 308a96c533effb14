//! The way from text to scenario, as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::render::{Render, render};
use super::*;

const YEAR1: &str = "\
version: 1
name: year1
seed: 42

backends:
  mock: { kind: mock, ttft: 10ms, tbt: 5ms, kv: { tokens: 4096, block_tokens: 16, bytes_per_token: 32768 } }

workloads:
  short_input:
    prompt: { kind: synthetic, tokens: 128 }
    output: { tokens: 128 }
    load:   { kind: closed, concurrency: 1, requests: 5 }
  stress_test:
    prompt: { kind: synthetic, tokens: 256 }
    output: { tokens: 256 }
    load:   { kind: closed, concurrency: 10, requests: 10 }

gates:
  confidence: none
  rules:
    - error_rate <= 5%
    - { rule: 'avg(ttft) <= 100ms', backends: [mock] }
";

const YEAR1_TOML: &str = r#"
version = 1
name = "year1"
seed = 42

[backends.mock]
kind = "mock"
ttft = "10ms"
tbt = "5ms"
kv = { tokens = 4096, block_tokens = 16, bytes_per_token = 32768 }

[workloads.short_input]
prompt = { kind = "synthetic", tokens = 128 }
output = { tokens = 128 }
load = { kind = "closed", concurrency = 1, requests = 5 }

[workloads.stress_test]
prompt = { kind = "synthetic", tokens = 256 }
output = { tokens = 256 }
load = { kind = "closed", concurrency = 10, requests = 10 }

[gates]
confidence = "none"
rules = ["error_rate <= 5%", { rule = "avg(ttft) <= 100ms", backends = ["mock"] }]
"#;

/// A load of files in memory.
#[derive(Default)]
struct Files(BTreeMap<&'static str, String>);

impl Files {
    fn with(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.0.insert(name, text.into());
        self
    }

    fn load(&self, path: &str, set: &[&str]) -> Result<Loaded, Failed> {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let read = |path: &Path| {
            let name = path.display().to_string();
            let text = self.0.get(name.as_str()).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            Ok(text.clone().into_bytes())
        };
        let env = |name: &str| (name == "N").then(|| "7".to_owned());
        load(Path::new(path), &Options { backend_chosen: false, set: &set, env: &env, read: &read })
    }

    fn shown(&self, path: &str, set: &[&str]) -> String {
        let failed = self.load(path, set).expect_err("an error");
        render(&failed.sources, &failed.diagnostics, Render::Text { color: false })
    }
}

fn year1() -> Files {
    Files::default().with("year1.yaml", YEAR1).with("year1.toml", YEAR1_TOML)
}

fn good(result: Result<Loaded, Failed>) -> Loaded {
    result.unwrap_or_else(|failed| {
        panic!("{}", render(&failed.sources, &failed.diagnostics, Render::Text { color: false }))
    })
}

#[test]
fn yaml_and_toml_are_equal() {
    let files = year1();
    let (yaml, toml) = (good(files.load("year1.yaml", &[])), good(files.load("year1.toml", &[])));
    assert_eq!(yaml.scenario, toml.scenario);
    assert_eq!(yaml.families, toml.families);
}

#[test]
fn the_name_is_the_files_when_there_is_none() {
    let files = Files::default().with("a/b.yaml", YEAR1.replace("name: year1\n", ""));
    let loaded = good(files.load("a/b.yaml", &[]));
    assert_eq!(loaded.scenario.name.as_deref(), Some("b"));
    assert_eq!(loaded.dir, Path::new("a"));
}

#[test]
fn set_goes_over_the_file_and_changes_of_kind_replace_the_map() {
    let files = year1();
    let set = ["workloads.short_input.load.concurrency=4", "seed=7", "gates.rules.1.severity=warn", "name="];
    let loaded = good(files.load("year1.yaml", &set));
    let value = serde_json::to_value(&loaded.scenario).expect("JSON");
    assert_eq!(value["workloads"]["short_input"]["load"]["concurrency"], 4);
    assert_eq!((&value["seed"], &value["name"]), (&json!(7), &json!("")));
    assert_eq!(value["gates"]["rules"][1]["severity"], "warn");
    let set =
        ["workloads.short_input.load.kind=open", "workloads.short_input.load={rate: 8/s, duration: 1m}"];
    let loaded = good(files.load("year1.toml", &set));
    let value = serde_json::to_value(&loaded.scenario.workloads["short_input"].load).expect("JSON");
    assert_eq!(
        value,
        json!({ "kind": "open", "rate": "8/s", "arrival": { "kind": "poisson" }, "duration": "1m" })
    );
}

#[test]
fn errors_of_an_argument_point_into_the_argument() {
    let shown = year1().shown(
        "year1.yaml",
        &[
            "workloads.short_input.load.concurrency=many",
            "workloads.shrt_input.load.concurrency=4",
            "workloads.stress_test.load.concurency=4",
            "seed.x=1",
            "gates.rules.7=x",
            "backends.mock.ttft=[",
            "nonsense",
            "a..b=1",
            "extends=x",
        ],
    );
    insta::assert_snapshot!(shown);
}

#[test]
fn places_are_those_of_the_file() {
    let loaded = good(year1().load("year1.yaml", &[]));
    let text = |span: Option<Span>| loaded.sources.text(span.expect("a place"));
    assert_eq!(text(loaded.span_of("/workloads/short_input/load/requests")), "5");
    assert_eq!(text(loaded.span_of("/gates/rules/0")), "error_rate <= 5%");
    assert_eq!(text(loaded.rule_span(0, 14..16)), "5%");
    assert_eq!(text(loaded.rule_span(1, 4..8)), "ttft", "inside quotes");
    assert_eq!(loaded.rule_span(2, 0..1), None);
    let place = loaded.place(loaded.rule_span(1, 4..8).expect("a place"));
    assert_eq!((place.file.as_deref(), place.line, place.column), (Some("year1.yaml"), 22, 20));
    let toml = good(year1().load("year1.toml", &[]));
    assert_eq!(toml.sources.text(toml.rule_span(1, 4..8).expect("a place")), "ttft");
}

#[test]
fn rules_that_do_not_stand_there_literally_are_marked_as_a_whole() {
    let text = YEAR1.replace("error_rate <= 5%", "\"error_rate \\u003c= 5%\"");
    let loaded = good(Files::default().with("x.yaml", text).load("x.yaml", &[]));
    let span = loaded.rule_span(0, 14..16).expect("a place");
    assert_eq!(loaded.sources.text(span), "\"error_rate \\u003c= 5%\"");
}

#[test]
fn a_matrix_makes_points_with_short_names() {
    let text = YEAR1.replace(
        "    load:   { kind: closed, concurrency: 1, requests: 5 }\n",
        "    load:   { kind: closed, concurrency: 1, requests: 5 }
    matrix:
      - { load.concurrency: [1, 4] }
      - { prompt.tokens: [128, { kind: uniform, min: 64, max: 256 }], output.tokens: [128, 256] }
",
    );
    let loaded = good(Files::default().with("x.yaml", text).load("x.yaml", &[]));
    let names: Vec<&str> = loaded.families.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "short_input@concurrency=1+prompt.tokens=128",
            "short_input@concurrency=1+prompt.tokens=uniform,min:64,max:256",
            "short_input@concurrency=4+prompt.tokens=128",
            "short_input@concurrency=4+prompt.tokens=uniform,min:64,max:256",
            "stress_test",
        ]
    );
    assert_eq!(names, loaded.scenario.workloads.keys().map(String::as_str).collect::<Vec<_>>());
    let family = &loaded.families[names[2]];
    assert_eq!(family.name, "short_input");
    assert_eq!(
        serde_json::to_value(&family.point).expect("JSON"),
        json!({ "concurrency": 4, "prompt.tokens": 128, "output.tokens": 128 })
    );
    let value = serde_json::to_value(&loaded.scenario.workloads[names[3]]).expect("JSON");
    assert_eq!(value["load"]["concurrency"], 4);
    assert_eq!(value["output"]["tokens"]["value"], 256);
}

#[test]
fn tomls_dotted_keys_nest_and_mean_the_same() {
    let yaml = YEAR1.replace(
        "    load:   { kind: closed, concurrency: 1, requests: 5 }\n",
        "    load:   { kind: closed, concurrency: 1, requests: 5 }
    matrix:
      - { load.concurrency: [1, 4], output.tokens: [5, 6] }
",
    );
    let dotted = YEAR1_TOML.replace(
        "[workloads.stress_test]",
        "[[workloads.short_input.matrix]]\nload.concurrency = [1, 4]\noutput.tokens = [5, 6]\n\n[workloads.stress_test]",
    );
    let quoted = dotted.replace("load.concurrency =", "\"load.concurrency\" =");
    let files = Files::default().with("a.yaml", yaml).with("b.toml", dotted).with("c.toml", quoted);
    let [yaml, dotted, quoted] = ["a.yaml", "b.toml", "c.toml"].map(|name| good(files.load(name, &[])));
    assert_eq!(yaml.scenario, dotted.scenario);
    assert_eq!(yaml.scenario, quoted.scenario);
    assert_eq!(yaml.families, quoted.families);
}

#[test]
fn paths_of_a_matrix_that_walk_together_are_named_until_they_differ() {
    let text = YEAR1.replace(
        "    load:   { kind: closed, concurrency: 1, requests: 5 }\n",
        "    load:   { kind: closed, concurrency: 1, requests: 5 }
    matrix:
      - { load.concurrency: [1, 1, 2], load.requests: [5, 6, 6], repeats: [1, 1, 1] }
",
    );
    let loaded = good(Files::default().with("x.yaml", text).load("x.yaml", &[]));
    let names: Vec<&str> = loaded.families.keys().map(String::as_str).take(3).collect();
    assert_eq!(
        names,
        [
            "short_input@concurrency=1+requests=5",
            "short_input@concurrency=1+requests=6",
            "short_input@concurrency=2+requests=6",
        ]
    );
}

#[test]
fn extends_defaults_variables_and_set_come_in_their_order() {
    let base = "version: 1
backends: { mock: { kind: mock, ttft: 10ms, tbt: 5ms } }
defaults:
  timeout: 5s
  output: { tokens: 16 }
workloads:
  a:
    prompt: { kind: synthetic, tokens: '${N}' }
    load: { kind: closed, concurrency: 4, requests: 20 }
";
    let file = "extends: base.yaml
defaults: { repeats: '${M:-3}' }
workloads:
  a: { load: { concurrency: 5 } }
  b:
    prompt: { kind: text, text: 'costs $${N} or ${N}$' }
    output: { tokens: 99 }
    load: { kind: open, rate: 8/s, duration: 1m }
";
    let files = Files::default().with("s/base.yaml", base).with("s/x.yaml", file);
    let loaded = good(files.load("s/x.yaml", &["defaults.timeout=7s"]));
    let value = serde_json::to_value(&loaded.scenario).expect("JSON");
    let (a, b) = (&value["workloads"]["a"], &value["workloads"]["b"]);
    assert_eq!(a["prompt"]["tokens"]["value"], 7, "a text that is wholly a variable is a number");
    assert_eq!(a["load"], json!({ "kind": "closed", "concurrency": 5, "requests": 20 }));
    assert_eq!((&a["timeout"], &a["repeats"]), (&json!("7s"), &json!(3)));
    assert_eq!(a["output"]["tokens"]["value"], 16);
    assert_eq!(b["prompt"]["text"], "costs ${N} or 7$");
    assert_eq!(b["output"]["tokens"]["value"], 99);
    assert!(value.get("defaults").is_none() && value.get("extends").is_none());
    assert_eq!(loaded.scenario.defaults, None);
}

#[test]
fn paths_are_relative_to_the_file_they_stand_in() {
    let base = "version: 1
backends: { mock: { kind: mock, ttft: { kind: empirical, path: lat.csv, column: ms }, tbt: 5ms } }
workloads:
  a: { prompt: { kind: trace, path: ./data/a.jsonl, format: mooncake }, load: { kind: replay } }
reports:
  - { template: own.md, out: a.md }
  - { template: report.md, out: b.md }
";
    let file = "extends: ../common/base.yaml
workloads:
  b: { prompt: { kind: trace, path: b.jsonl, format: mooncake }, load: { kind: replay } }
";
    let files = Files::default()
        .with("x/common/base.yaml", base)
        .with("x/s/../common/base.yaml", base)
        .with("x/s/f.yaml", file);
    let files = files.with("x/s/../common/templates/own.md", "t");
    let loaded = good(files.load("x/s/f.yaml", &[]));
    let value = serde_json::to_value(&loaded.scenario).expect("JSON");
    assert_eq!(value["workloads"]["a"]["prompt"]["path"], "../common/data/a.jsonl");
    assert_eq!(value["workloads"]["b"]["prompt"]["path"], "b.jsonl");
    assert_eq!(value["backends"]["mock"]["ttft"]["path"], "../common/lat.csv");
    assert_eq!(value["reports"][0]["template"], "../common/templates/own.md");
    assert_eq!(value["reports"][1]["template"], "report.md", "one that ships with the program");
}

#[test]
fn an_unreadable_file_is_one_clear_message() {
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let options = Options { backend_chosen: false, set: &[], env: &|_| None, read: &read };
    let failed = load(Path::new("secret.yaml"), &options).expect_err("an error");
    assert_eq!(failed.diagnostics.len(), 1);
    assert_eq!(failed.diagnostics[0].message, "can not read `secret.yaml`: permission denied");
}

#[test]
fn machine_readable_formats() {
    let files = Files::default().with("a,b.yaml", YEAR1.replace("concurrency: 10", "concurency: 10%"));
    let failed = files.load("a,b.yaml", &[]).expect_err("an error");
    insta::assert_snapshot!(render(&failed.sources, &failed.diagnostics, Render::Github));
    insta::assert_snapshot!(render(&failed.sources, &failed.diagnostics, Render::Json));
    let colored = render(&failed.sources, &failed.diagnostics, Render::Text { color: true });
    assert!(colored.contains("\u{1b}["));
}

#[test]
fn thousands_of_levels_neither_overflow_nor_hang() {
    let levels = 3000;
    let block: String = (0..levels).map(|level| " ".repeat(level) + "a:\n").collect();
    let lists: String = (0..levels).map(|_| "- ").collect();
    let tables = format!("[{}]\n{} = 1\n", ["a"; 79].join("."), ["b"; 79].join("."));
    let inline = format!("{} = 1\n", ["a"; 79].join(".")) + "x = " + "{a = ".repeat(levels).as_str();
    let deep = "c = ".to_owned()
        + format!("{{ {} = ", ["a"; 79].join(".")).repeat(75).as_str()
        + "1"
        + " }".repeat(75).as_str();
    let files = Files::default()
        .with("a.yaml", block)
        .with("b.yaml", lists)
        .with("c.yaml", "{a: ".repeat(levels))
        .with("d.toml", tables)
        .with("e.toml", inline)
        .with("f.toml", deep);
    for name in ["a.yaml", "b.yaml", "c.yaml", "d.toml", "e.toml", "f.toml"] {
        let failed = files.load(name, &[]).expect_err("an error");
        let deep = failed.diagnostics.iter().any(|found| found.message.contains("nest deeper"));
        assert!(deep, "{name}: {:?}", failed.diagnostics.first());
    }
}

#[test]
fn a_matrix_does_not_fill_the_memory() {
    let hundred: Vec<String> = (1..=100).map(|n| n.to_string()).collect();
    let hundred = hundred.join(", ");
    let text = YEAR1.replace(
        "    load:   { kind: closed, concurrency: 1, requests: 5 }\n",
        &format!(
            "    load:   {{ kind: closed, concurrency: 1, requests: 5 }}
    matrix:
      - {{ load.concurrency: [{hundred}] }}
      - {{ load.requests: [{hundred}] }}
      - {{ repeats: [1, 2] }}
"
        ),
    );
    let failed = Files::default().with("x.yaml", text).load("x.yaml", &[]).expect_err("an error");
    assert_eq!(failed.diagnostics[0].message, "the matrix has more than 10000 points");
}

fn survives(format: Format, text: &str) {
    let options = Options {
        backend_chosen: false,
        set: &[],
        env: &|_| None,
        read: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    match load_text("x", text, format, Path::new(""), &options) {
        Ok(_) => {}
        Err(failed) => {
            assert!(!failed.diagnostics.is_empty());
            for format in [Render::Text { color: false }, Render::Json, Render::Github] {
                assert!(!render(&failed.sources, &failed.diagnostics, format).is_empty());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_end_in_a_scenario_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..300), toml: bool) {
        let read = |_: &Path| Ok(bytes.clone());
        let options = Options { backend_chosen: false, set: &[], env: &|_| None, read: &read };
        let path = if toml { "x.toml" } else { "x.yaml" };
        if let Err(failed) = load(Path::new(path), &options) {
            prop_assert!(!render(&failed.sources, &failed.diagnostics, Render::Github).is_empty());
        }
    }

    #[test]
    fn any_text_ends_in_a_scenario_or_a_message(text in "[ -~\\n\\t日é\\r\u{1b}]{0,120}", toml: bool) {
        survives(if toml { Format::Toml } else { Format::Yaml }, &text);
    }

    #[test]
    fn mutations_of_a_good_file_end_in_a_scenario_or_a_message(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[ -~\\n\\t日$&*{}\\[\\]]{0,6}"), 1..5),
        toml: bool,
    ) {
        let mut text: Vec<char> = if toml { YEAR1_TOML } else { YEAR1 }.chars().collect();
        for (at, length, new) in cuts {
            let start = at.index(text.len().max(1)).min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        survives(if toml { Format::Toml } else { Format::Yaml }, &text);
    }

    #[test]
    fn any_argument_ends_in_a_scenario_or_a_message(argument in "[a-z.=0-9{}: \\[\\]$]{0,40}") {
        let set = [format!("workloads.short_input.{argument}"), argument];
        let options = Options { backend_chosen: false, set: &set, env: &|_| None, read: &|_| Err(io::Error::from(io::ErrorKind::NotFound)) };
        if let Err(failed) = load_text("x", YEAR1, Format::Yaml, Path::new(""), &options) {
            prop_assert!(!render(&failed.sources, &failed.diagnostics, Render::Github).is_empty());
        }
    }
}
