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

/// `SmolLM2` on this machine, by `SAGEBENCH_SMOLLM2`; the machine must have nothing else to do, and the build must be a release.
#[cfg(feature = "candle")]
#[test]
fn a_run_on_a_model_predicts_another_run_on_it() {
    const HEAD: &str = "version: 1\nseed: 4\n";
    /// Batches of several sizes.
    const FITTED: &str = "defaults:
  prompt: { kind: synthetic, tokens: { kind: uniform, min: 16, max: 400 } }
  output: { tokens: { kind: uniform, min: 4, max: 96 } }
workloads:
  one: { load: { kind: closed, concurrency: 1, requests: 12 } }
  two: { load: { kind: closed, concurrency: 2, requests: 16 } }
  four: { load: { kind: closed, concurrency: 4, requests: 24 } }
  eight: { load: { kind: closed, concurrency: 8, requests: 32 } }
";
    /// Other lengths, and another load.
    const PREDICTED: &str = "workloads:
  chat:
    prompt: { kind: synthetic, tokens: { kind: lognormal, mean: 120, std: 80, min: 16, max: 400 } }
    output: { tokens: { kind: uniform, min: 24, max: 72 } }
    load: { kind: closed, concurrency: 3, requests: 30 }
";
    let Some(model) = std::env::var_os("SAGEBENCH_SMOLLM2") else {
        eprintln!("did not run: SAGEBENCH_SMOLLM2 names no GGUF file of SmolLM2");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let backend = format!(
        "backends:\n  cpu: {{ kind: candle, model: {:?}, kv: {{ tokens: 16384 }} }}\n",
        model.to_str().unwrap()
    );
    let apply = |name: &str, backend: &str, workloads: &str| {
        fs::write(dir.path().join("s.yaml"), format!("{HEAD}{backend}{workloads}")).unwrap();
        let said = run(dir.path(), ["apply", "s.yaml", "-o", name]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    };
    apply("fitted", &backend, FITTED);
    let said = run(dir.path(), ["calibrate", "fitted", "--out", "block.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    apply("measured", &backend, PREDICTED);
    apply("predicted", &fs::read_to_string(dir.path().join("block.yaml")).unwrap(), PREDICTED);
    let of = |name: &str, metric: &str| {
        json(dir.path().join(name).join("chat_metrics.json"))[metric].as_f64().unwrap()
    };
    for metric in ["avg_e2e_ms", "avg_ttft_ms", "avg_tpot_ms"] {
        let (measured, predicted) = (of("measured", metric), of("predicted", metric));
        eprintln!(
            "{metric}: {measured:.2} measured, {predicted:.2} predicted, {:+.1} %",
            100.0 * (predicted / measured - 1.0)
        );
    }
    let off = of("predicted", "avg_e2e_ms") / of("measured", "avg_e2e_ms") - 1.0;
    assert!(off.abs() <= 0.1, "the mean latency is {:+.1} % off\n{}", 100.0 * off, said.out);
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
