//! `calibrate` as a user runs it: on a results folder, with the block it writes pasted into a scenario.

use std::fs;

use crate::common::{json, run};

const SCENARIO: &str = "version: 1
seed: 2
backends:
  server: { kind: mock, mode: batched, kv: { tokens: 65536 }, cost: { base_ms: 4, weights_ms: 9, token_us: 60, knee: 2, kv_token_ns: 90, prefill_pair_ps: 3000 } }
workloads:
  chat:
    prompt: { kind: synthetic, tokens: { kind: lognormal, mean: 900, std: 900, min: 16, max: 6000 } }
    output: { tokens: { kind: uniform, min: 2, max: 160 } }
    load: { kind: open, rate: 3/s, requests: 64 }
";

#[test]
fn a_run_of_the_mock_gives_a_block_that_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    assert_eq!(run(dir.path(), ["apply", "s.yaml", "-o", "one"]).code, Some(0));
    let said = run(dir.path(), ["calibrate", "one", "--out", "block.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("32 requests fitted, 32 scored"), "{}", said.out);
    let block = fs::read_to_string(dir.path().join("block.yaml")).unwrap();
    assert!(block.contains("this cache never fills"), "{block}");
    let (head, workloads) = SCENARIO.split_at(SCENARIO.find("workloads:").unwrap());
    let head = head.split("backends:").next().unwrap();
    fs::write(dir.path().join("t.yaml"), format!("{head}{block}{workloads}")).unwrap();
    let again = run(dir.path(), ["apply", "t.yaml", "-o", "two"]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    for metric in ["avg_ttft_ms", "avg_tpot_ms", "avg_e2e_ms", "output_throughput_tps"] {
        let [one, two] = ["one", "two"]
            .map(|d| json(dir.path().join(d).join("chat_metrics.json"))[metric].as_f64().unwrap());
        assert!((two / one - 1.0).abs() < 0.02, "{metric}: {one} became {two}");
    }
}

#[test]
fn what_can_not_be_calibrated_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.yaml"), SCENARIO).unwrap();
    let good =
        "{\"sent_ms\": 0, \"first_ms\": 10, \"end_ms\": 20, \"prompt_tokens\": 5, \"output_tokens\": 2}\n";
    fs::write(dir.path().join("few.jsonl"), good).unwrap();
    fs::write(dir.path().join("lacks.jsonl"), format!("{good}{}", good.replace("first_ms", "ttft"))).unwrap();
    let two = ["a", "b"].map(|b| good.replacen('{', &format!("{{\"backend\": \"{b}\", "), 1)).concat();
    fs::write(dir.path().join("two.jsonl"), two).unwrap();
    for (args, says) in [
        (&["calibrate", "few.jsonl"][..], "1 requests succeeded"),
        (
            &["calibrate", "lacks.jsonl"],
            "lacks.jsonl:2: has no number `first_ms`; name the key that holds it with --field",
        ),
        (&["calibrate", "two.jsonl"], "several backends: a, b; choose one with --backend"),
        (&["calibrate", "missing.jsonl"], "missing.jsonl: can not be read"),
        (&["calibrate", "few.jsonl", "--fit", "bas_ms"], "did you mean `base_ms`?"),
        (&["calibrate", "few.jsonl", "--field", "start=x"], "there is no role `start`"),
        (&["calibrate", "few.jsonl", "--field", "first"], "write ROLE=KEY"),
        (&["calibrate", "few.jsonl", "--from", "s.yaml#other"], "has no batched mock"),
    ] {
        let said = run(dir.path(), args);
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
}
