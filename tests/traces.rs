//! Replays of real traces, which are not part of this repository. Their folder comes from `SAGEBENCH_TRACES`, else it
//! stands beside the crate. Without the folder the tests say that they did not run; a folder without the file fails.

mod real;

use std::path::Path;

use indexmap::IndexMap;
use sagebench::plan::{self, PromptRecipe, Recipe};
use sagebench::scenario::Scenario;
use sagebench::tokenizer::{Mock, Tokenizer};

use real::folder;

fn replay(folder: &Path, prompt: &str) -> Vec<Recipe> {
    let text = format!(
        r#"{{"version": 1, "backends": {{"mock": {{"kind": "mock", "ttft": "10ms", "tbt": "5ms"}}}},
            "workloads": {{"trace": {{"prompt": {{"kind": "trace", {prompt}}}, "load": {{"kind": "replay"}}}}}}}}"#
    );
    let scenario: Scenario = serde_json::from_str(&text).unwrap();
    let plan =
        plan::plan(&scenario, &IndexMap::new(), folder, &Mock).unwrap_or_else(|errors| panic!("{errors:#?}"));
    plan.workloads[0].stream(0).collect()
}

/// Nanoseconds of the time of day in `2023-11-16 18:15:46.6805900`, read independently of the crate.
fn time_of_day(text: &str) -> u64 {
    let digits = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let fraction = &text[20..];
    let scale = 10_u64.pow(9 - fraction.len() as u32);
    (digits(11..13) * 3600 + digits(14..16) * 60 + digits(17..19)) * 1_000_000_000
        + fraction.parse::<u64>().unwrap() * scale
}

#[test]
fn azure_arrivals_and_lengths_are_the_traces_own() {
    let Some(folder) = folder("the Azure replay") else { return };
    for name in ["conv", "code"] {
        let path = format!("azure/AzureLLMInferenceTrace_{name}_2000.csv");
        let text = std::fs::read_to_string(folder.join(&path)).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
        let recipes = replay(&folder, &format!(r#""path": "{path}", "format": "azure""#));
        assert_eq!((recipes.len(), rows.len()), (2000, 2000));
        let first = time_of_day(rows[0][0]);
        for (recipe, row) in recipes.iter().zip(&rows) {
            assert_eq!(recipe.arrival, Some(time_of_day(row[0]) - first));
            assert_eq!((recipe.prompt.tokens().to_string().as_str(), recipe.forced), (row[1], true));
            assert_eq!(recipe.output_tokens.to_string(), row[2]);
        }
    }
}

#[test]
fn mooncake_arrivals_lengths_and_blocks_are_the_traces_own() {
    let Some(folder) = folder("the Mooncake replay") else { return };
    for name in ["conversation", "synthetic"] {
        let path = format!("mooncake/{name}_1000.jsonl");
        let text = std::fs::read_to_string(folder.join(&path)).unwrap();
        let recipes = replay(&folder, &format!(r#""path": "{path}", "format": "mooncake""#));
        assert_eq!(recipes.len(), 1000);
        for (recipe, line) in recipes.iter().zip(text.lines()) {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(recipe.arrival.unwrap(), row["timestamp"].as_u64().unwrap() * 1_000_000);
            assert_eq!(u64::from(recipe.prompt.tokens()), row["input_length"].as_u64().unwrap());
            assert_eq!(u64::from(recipe.output_tokens), row["output_length"].as_u64().unwrap());
            let PromptRecipe::Blocks { ids, block_tokens: 512, .. } = &recipe.prompt else {
                panic!("{:?} is no list of 512-token blocks", recipe.prompt)
            };
            assert_eq!(serde_json::json!(ids.to_vec()), row["hash_ids"]);
        }
        let longest = recipes.iter().max_by_key(|recipe| recipe.prompt.tokens()).unwrap();
        assert_eq!(Mock.count(&plan::text(longest, &Mock)), longest.prompt.tokens());
    }
}

#[test]
fn small_blocks_see_the_same_reuse_as_the_traces_ids() {
    let Some(folder) = folder("the count of Mooncake's shared blocks") else { return };
    let recipes = replay(&folder, r#""path": "mooncake/conversation_1000.jsonl", "format": "mooncake""#);
    let mut by_id = std::collections::HashSet::new();
    let mut by_block = std::collections::HashSet::new();
    let (mut shared_ids, mut shared_blocks) = (0, 0);
    for recipe in &recipes {
        let PromptRecipe::Blocks { tokens, ids, .. } = &recipe.prompt else { panic!("no blocks") };
        // Full blocks only: 32 small ones in each full large one.
        let full = tokens / 512;
        shared_ids += ids[..full as usize].iter().filter(|id| !by_id.insert(**id)).count();
        shared_blocks +=
            (0..u64::from(full) * 32).filter(|index| !by_block.insert(recipe.block(*index, 16))).count();
    }
    assert!(shared_ids > 0);
    assert_eq!(shared_blocks, shared_ids * 32);
}

#[test]
fn fractions_of_milliseconds_are_exact() {
    let Some(folder) = folder("the replay of a measured run") else { return };
    let prompt =
        r#""path": "llmservingsim/sharegpt-300.mooncake16.jsonl", "format": "mooncake", "block_tokens": 16"#;
    let recipes = replay(&folder, prompt);
    let text = std::fs::read_to_string(folder.join("llmservingsim/sharegpt-300.mooncake16.jsonl")).unwrap();
    let nanoseconds = |line: &str| {
        let number = line.split_once(": ").unwrap().1.split_once(',').unwrap().0;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        format!("{whole}{fraction:0<6}").parse::<u64>().unwrap()
    };
    let first = nanoseconds(text.lines().next().unwrap());
    assert_eq!(recipes.len(), 300);
    for (recipe, line) in recipes.iter().zip(text.lines()) {
        assert_eq!(recipe.arrival, Some(nanoseconds(line) - first));
    }
}

#[test]
fn both_headers_of_burstgpt() {
    let Some(folder) = folder("the BurstGPT replay") else { return };
    let rows = |name: &str| {
        let recipes = replay(&folder, &format!(r#""path": "burstgpt/{name}", "format": "burstgpt""#));
        recipes.iter().map(|r| (r.arrival.unwrap() / 1_000_000_000, r.prompt.tokens())).collect::<Vec<_>>()
    };
    assert_eq!(rows("burstgpt1_head3.csv"), [(0, 472), (40, 1087), (113, 417)]);
    assert_eq!(rows("burstgpt3_head4.csv"), [(0, 906), (51, 36), (82, 1779), (144, 935)]);
}
