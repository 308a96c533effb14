//! Command lines as people write them: every scenario that comes out validates and plans.

use std::path::Path;

use super::*;
use crate::scenario::{Format, Options, load_text};

fn translated(line: &str) -> Translated {
    scenario(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The scenario of a line, held against the language.
fn loaded(line: &str) -> crate::scenario::Scenario {
    let translated = translated(line);
    let options = Options::process(&[]);
    match load_text("made.yaml", &translated.text, Format::Yaml, Path::new(""), &options) {
        Ok(loaded) => loaded.scenario,
        Err(failed) => {
            let said: Vec<&str> = failed.diagnostics.iter().map(|one| one.message.as_str()).collect();
            panic!("{line}\n{}\n{}", translated.text, said.join("\n"))
        }
    }
}

const LINES: [&str; 24] = [
    "vllm bench serve",
    "vllm bench serve --model meta-llama/Llama-3.1-8B --dataset-name random --random-input-len 512 --random-output-len 64 --num-prompts 200 --request-rate 8 --burstiness 0.5 --ignore-eos --seed 7 --save-result",
    "VLLM_USE_V1=1 vllm bench serve --backend openai-chat --endpoint /v1/chat/completions --host 10.0.0.1 --port=8080 --max-concurrency 16 --goodput ttft:500 tpot:30 e2el:5000",
    "vllm bench serve --dataset-name random --random-range-ratio 0.5 --random-prefix-len 0 --temperature 0 --top-p 0.9 --top-k 5",
    "vllm bench serve --dataset-name random --random-prefix-len 256 --random-input-len 256 --num-warmups 3",
    "vllm bench serve --dataset-name prefix_repetition --prefix-repetition-num-prefixes 4",
    "vllm bench serve --dataset-name sharegpt --dataset-path share.json --sharegpt-output-len 100",
    "vllm bench serve --dataset-name custom --dataset-path rows.jsonl",
    "vllm bench serve --dataset-name sonnet --dataset-path sonnet.txt",
    "vllm bench serve --dataset-name hf --dataset-path x/y --hf-split test",
    "python3 benchmarks/benchmark_serving.py --backend vllm --model m --extra-body '{\"foo\": 1}'",
    "guidellm benchmark --target http://localhost:8000 --rate-type sweep --max-seconds 30 --data 'prompt_tokens=256,output_tokens=128'",
    "guidellm benchmark run --target http://h:9/v1 --profile concurrent --rate 1,4,16 --max-requests 100 --data '{\"prompt_tokens\": 64, \"output_tokens\": 8}'",
    "guidellm benchmark --profile constant --rate 5 --rate 10 --max-seconds 20 --data prompt_tokens=100,prompt_tokens_stdev=10,prompt_tokens_min=50,prompt_tokens_max=200,output_tokens=20,samples=9",
    "guidellm benchmark --profile poisson --rate 0.5 --data data.jsonl --model m --random-seed 3",
    "guidellm benchmark --profile throughput --data org/dataset",
    "guidellm benchmark --profile synchronous --request-type chat_completions --data prompt_tokens=64,prefix_tokens=32,output_tokens=8",
    "aiperf profile -m Qwen/Qwen3 --url localhost:8000 --endpoint-type chat --streaming --concurrency 10 --request-count 100",
    "aiperf profile --model m --endpoint-type completions --request-rate 10 --request-rate-mode constant --benchmark-duration 30 --isl 128 --isl-stddev 16 --osl 64 --extra-inputs ignore_eos:true --extra-inputs temperature:0 --streaming",
    "aiperf profile --model m --goodput 'time_to_first_token:100 inter_token_latency:3.4' --api-key sk-secret --random-seed 4 --request-timeout-seconds 30",
    "aiperf profile --model m --input-file t.jsonl --custom-dataset-type mooncake_trace --fixed-schedule",
    "python -m sglang.bench_serving --backend sglang --dataset-name random --random-input 1 --random-input-len 100 --random-output-len 50 --random-range-ratio 0.5 --num-prompts 50 --request-rate 4",
    "python3 -m sglang.bench_serving --dataset-name generated-shared-prefix --gsp-num-groups 4 --gsp-prompts-per-group 8 --max-concurrency 8",
    "python3 -m sglang.bench_serving --backend vllm-chat --dataset-name sharegpt --dataset-path s.json --disable-ignore-eos",
];

#[test]
fn every_scenario_validates() {
    for line in LINES {
        let scenario = loaded(line);
        assert_eq!(
            scenario.workloads.len(),
            if line.contains("--rate 1,4,16") {
                3
            } else if line.contains("sweep") {
                7
            } else if line.contains("--rate 10 --max") {
                2
            } else {
                1
            },
            "{line}"
        );
    }
}

#[test]
fn what_is_asked_for_stands_in_the_scenario() {
    let text = translated(LINES[1]).text;
    for expected in [
        "seed: 7",
        "    kind: vllm",
        "    base_url: \"http://127.0.0.1:8000/v1\"",
        "    model: \"meta-llama/Llama-3.1-8B\"",
        "prompt: { kind: synthetic, tokens: 512 }",
        "output: { tokens: 64 }",
        "load: { kind: open, rate: 8/s, arrival: { kind: gamma, burstiness: 0.5 }, requests: 200 }",
        "#   --save-result: results are always written",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let text = translated(LINES[2]).text;
    for expected in [
        "base_url: \"http://10.0.0.1:8080/v1\"",
        "endpoint: \"chat\"",
        "load: { kind: closed, concurrency: 16, requests: 1000 }",
        "slo: [\"ttft <= 500ms\", \"tpot <= 30ms\", \"e2e <= 5000ms\"]",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let text = translated(LINES[12]).text;
    assert!(
        text.contains("- { load.concurrency: [1, 4, 16] }") && text.contains("base_url: \"http://h:9/v1\""),
        "{text}"
    );
    let text = translated(LINES[13]).text;
    assert!(text.contains("tokens: { kind: normal, mean: 100, std: 10, min: 50, max: 200 }"), "{text}");
    assert!(
        text.contains("- { load.rate: [5/s, 10/s] }") && text.contains("--data samples=9: has no equal"),
        "{text}"
    );
    let text = translated(LINES[17]).text;
    assert!(text.contains("load: { kind: closed, concurrency: 10, requests: 100 }"), "{text}");
    let text = translated(LINES[22]).text;
    assert!(
        text.contains("tokens: 2176, prefix: { tokens: 2048, groups: 4 }") && text.contains("requests: 32"),
        "{text}"
    );
}

#[test]
fn every_flag_is_accounted_for() {
    // Each flag stands in the scenario by its value, or in a comment.
    let odd = translated("vllm bench serve --frobnicate 3 --save-detailed --new-switch");
    assert_eq!(odd.unknown, ["--frobnicate 3", "--new-switch"]);
    assert!(
        odd.text.contains("#   --frobnicate 3: not known here") && odd.text.contains("#   --save-detailed:")
    );
    for line in LINES {
        let known = translated(line).unknown;
        let meant = line.contains("--random-input 1") || line.contains("--hf-split");
        assert_eq!(known.is_empty(), !meant, "{line}: {known:?}");
    }
}

#[test]
fn a_secret_is_not_repeated() {
    for line in [
        LINES[19],
        "vllm bench serve --header Authorization=sk-secret",
        "aiperf profile -m m --api-key=sk-secret -H 'Authorization: sk-secret'",
    ] {
        let text = translated(line).text;
        assert!(!text.contains("sk-secret"), "{text}");
    }
}

#[test]
fn what_can_not_be_translated_says_why() {
    for (line, expected) in [
        ("", "`nothing` begins no command line"),
        ("wrk -t2 http://x", "`wrk` begins no command line"),
        ("vllm serve model", "`vllm` begins no command line"),
        ("vllm bench serve 'a", "the quote ' is not closed"),
        ("vllm bench serve --num-prompts many", "--num-prompts takes a whole number of at least 1, not many"),
        ("vllm bench serve --num-prompts 0", "--num-prompts takes a whole number of at least 1, not 0"),
        ("vllm bench serve --request-rate", "--request-rate lacks its value"),
        ("vllm bench serve --extra-body [1]", "--extra-body takes a JSON object"),
        ("vllm bench serve --dataset-name sharegpt", "needs --dataset-path"),
        ("vllm bench serve --goodput ttft=5", "--goodput takes NAME:MS"),
        ("guidellm benchmark --profile concurrent", "needs --rate"),
        ("guidellm benchmark --profile warp", "--profile knows synchronous"),
        ("aiperf profile --extra-inputs x", "--extra-inputs takes NAME:VALUE"),
    ] {
        let said = scenario(line).unwrap_err();
        assert!(said.contains(expected), "{line}: {said}");
    }
}

proptest::proptest! {
    #[test]
    fn any_line_comes_to_an_end(line in "(vllm bench serve|guidellm benchmark|aiperf profile|python -m sglang.bench_serving)( --[a-z-]{1,12}( [a-z0-9.:'\"\\\\]{0,8}){0,2}){0,5}") {
        let _ = scenario(&line);
    }
}
