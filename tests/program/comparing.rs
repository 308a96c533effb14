//! `compare`, `baseline save`, and rules that refer to baselines.

use std::fs;
use std::path::Path;

use crate::common::{Said, json, run};

/// A chat on a modelled GPU, five times, with Poisson arrivals. `more` goes into the backend, `end` to the end.
fn chat(more: &str, end: &str) -> String {
    let (base, weights) = if more == SLOWER { (2.75, 6.03) } else { (2.5, 5.48) };
    let more = if more == SLOWER { "" } else { more };
    format!(
        "version: 1
seed: 7
backends:
  gpu: {{ kind: mock, mode: batched, cost: {{ base_ms: {base}, weights_ms: {weights}, token_us: 17.8, knee: 2.2, kv_token_ns: 46.9, prefill_pair_ps: 836 }}, kv: {{ blocks: 4000, block_tokens: 16 }}{more} }}
workloads:
  chat:
    prompt: {{ kind: synthetic, tokens: {{ kind: uniform, min: 100, max: 600 }} }}
    output: {{ tokens: 60 }}
    load: {{ kind: open, rate: 4/s, requests: 60 }}
    repeats: 5
{end}"
    )
}

fn apply(dir: &Path, name: &str, scenario: &str) -> Said {
    fs::write(dir.join(format!("{name}.yaml")), scenario).unwrap();
    run(dir, ["apply", &format!("{name}.yaml"), "--output", name, "--quiet"])
}

/// The same GPU, a tenth slower in both parts of a step that do not depend on the load.
const SLOWER: &str = "slower";

#[test]
fn a_tenth_slower_is_found_and_the_same_again_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    for (name, more) in [("a", ""), ("again", ""), ("slower", SLOWER)] {
        let said = apply(dir.path(), name, &chat(more, ""));
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let same = run(dir.path(), ["compare", "a", "again"]);
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);
    assert!(!same.out.contains("FAIL"), "{}", same.out);
    let slower = run(dir.path(), ["compare", "a", "slower", "--allow", "5%"]);
    assert_eq!(slower.code, Some(99), "{}", slower.out);
    let row = slower.out.lines().find(|line| line.starts_with("avg_tpot_ms")).unwrap();
    assert!(row.contains("FAIL"), "{row}");
    let allowed = run(dir.path(), ["compare", "a", "slower", "--allow", "50%", "--metric", "avg_tpot_ms"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.out);
    insta::assert_snapshot!("compare_table", slower.out);
    let markdown =
        run(dir.path(), ["compare", "a", "again", "slower", "--format", "markdown", "--out", "pr.md"]);
    assert_eq!((markdown.code, markdown.out.as_str()), (Some(99), ""), "{}", markdown.err);
    insta::assert_snapshot!("compare_markdown", fs::read_to_string(dir.path().join("pr.md")).unwrap());
    let noise = run(dir.path(), ["compare", "a", "--noise", "--format", "json"]);
    assert!(noise.out.contains("a (odd repeats)"), "{}{}", noise.out, noise.err);
}

#[test]
fn other_work_is_not_comparable_and_a_failed_side_never_best() {
    let dir = tempfile::tempdir().unwrap();
    apply(dir.path(), "a", &chat("", ""));
    apply(dir.path(), "longer", &chat("", "").replace("tokens: 60 }", "tokens: 61 }"));
    let said = run(dir.path(), ["compare", "a", "longer"]);
    assert_eq!(said.code, Some(5), "{}", said.out);
    assert!(
        said.out.contains("not comparable: a and longer played `chat` with other lengths"),
        "{}",
        said.out
    );
    // Another seed draws other arrivals: other work too.
    apply(dir.path(), "seed", &chat("", "").replace("seed: 7", "seed: 8"));
    assert_eq!(run(dir.path(), ["compare", "a", "seed"]).code, Some(5));
    let dead = ", faults: [{ match: { every: 1 }, action: { kind: http_status, code: 503 } }]";
    assert_eq!(apply(dir.path(), "dead", &chat(dead, "")).code, Some(3));
    let said = run(dir.path(), ["compare", "a", "dead"]);
    assert_eq!(said.code, Some(99), "{}", said.out);
    assert!(said.out.contains("dead: has nothing to compare: not one request succeeded"), "{}", said.out);
    assert_eq!(run(dir.path(), ["compare", "dead", "a"]).code, Some(5), "a failed base is none");
    let said = run(dir.path(), ["compare", "a", "a", "--metric", "avg_tpod_ms"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("did you mean `avg_tpot_ms`?"), "{}", said.err);
    let said = run(dir.path(), ["compare", "a", "nowhere"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
}

#[test]
fn a_nightly_gate_has_its_first_night_and_finds_what_got_slower() {
    let dir = tempfile::tempdir().unwrap();
    let gates = "baselines: { main: { path: baselines/main.json, missing: skip } }
gates: { rules: [avg(tpot) <= main + 5%, output_throughput >= main - 5%] }
";
    let first = apply(dir.path(), "night", &chat("", gates));
    assert_eq!(first.code, Some(0), "{}", first.err);
    let report = json(dir.path().join("night/run.json"));
    assert_eq!(report["judgements"][0]["verdict"], "NO_DATA");
    assert_eq!(report["judgements"][0]["decides"], false);
    let reason = report["judgements"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("the baseline does not exist yet"), "{reason}");
    let saved = run(dir.path(), ["baseline", "save", "main", "--run", "night"]);
    assert_eq!((saved.code, saved.out.as_str()), (Some(0), "saved baselines/main.json\n"), "{}", saved.err);
    assert!(fs::metadata(dir.path().join("baselines/main.json")).unwrap().len() < 100_000);

    let second = apply(dir.path(), "night", &chat("", gates));
    assert_eq!(second.code, Some(0), "{}", second.err);
    let slower = apply(dir.path(), "night", &chat(SLOWER, gates));
    assert_eq!(slower.code, Some(99), "{}", slower.err);
    assert!(slower.err.contains("in `main`, +"), "{}", slower.err);
    // A run that failed is not saved over a good one by accident.
    let saved = run(dir.path(), ["baseline", "save", "main", "--run", "night"]);
    assert_eq!(saved.code, Some(2));
    assert!(saved.err.contains("its verdict is FAIL; --force saves it anyway"), "{}", saved.err);
    // Other work is told before anything runs.
    let other = apply(dir.path(), "other", &chat("", gates).replace("tokens: 60 }", "tokens: 61 }"));
    assert_eq!(other.code, Some(5), "{}", other.err);
    assert!(other.err.contains("not comparable"), "{}", other.err);
    assert!(!dir.path().join("other").exists());
}
