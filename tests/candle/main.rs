//! Whole models on the CPU backend: random ones of every shipped shape, tiny, computed for real.

#![cfg(feature = "candle")]

mod gguf;
mod oracle;
mod peer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sagebench::backend::candle::{Engine, Local, Source};
use sagebench::backend::config::{Backend, CandleBackend, Clock};
use sagebench::backend::{EngineStats, Finish, RequestId, Sink, Stepped};
use sagebench::campaign::{Changes, Prepared, Rejected, prepare};
use sagebench::checkpoint::random::{Like, Random, Stored};
use sagebench::plan::{PromptRecipe, Recipe, Sampling, WorkloadPlan};
use sagebench::record::{GapRun, Outcome, Record};
use sagebench::run::{Flow, Observer, Pace, Played, Resume, Stop, play};
use sagebench::scenario::render::{Render, render};
use sagebench::tokenizer::Tokenizer;

use self::oracle::Oracle;

fn tiny(like: Like, dir: &Path) -> PathBuf {
    let folder = dir.join(like.name());
    Random { like, tiny: true, stored: Stored::F32, seed: 5 }.write(&folder).unwrap();
    folder
}

fn prepared(model: &Path, changes: Changes) -> Result<Prepared, String> {
    prepared_for("year1", model, changes)
}

fn prepared_for(scenario: impl AsRef<Path>, model: &Path, changes: Changes) -> Result<Prepared, String> {
    let changes =
        Changes { backends: vec!["cpu".into()], model: Some(model.to_str().unwrap().to_owned()), ..changes };
    prepare(scenario.as_ref(), &changes).map_err(|rejected| match rejected {
        Rejected::Message(message) => message,
        Rejected::Invalid(failed) | Rejected::NotComparable(failed) => failed.diagnostics[0].message.clone(),
    })
}

/// What a test changes in the backend's settings.
type Change<'a> = &'a dyn Fn(&mut CandleBackend);

/// The backend's settings, changed.
fn open(prepared: &Prepared, change: impl Fn(&mut CandleBackend)) -> Local {
    let Backend::Candle(config) = &prepared.backends[0].config else { panic!("the backend is a model") };
    let mut config = config.clone();
    change(&mut config);
    Local::open(&config, prepared.backends[0].source.as_ref().unwrap()).unwrap()
}

#[derive(Default)]
struct Heard {
    ends: BTreeMap<RequestId, Finish>,
    tokens: BTreeMap<RequestId, u32>,
}

impl Sink for Heard {
    fn tokens(&mut self, id: RequestId, _: u64, _: u64, count: u32) {
        *self.tokens.entry(id).or_default() += count;
    }
    fn finished(&mut self, id: RequestId, _: u64, end: Finish) {
        self.ends.insert(id, end);
    }
}

/// What a model answers to requests that are all sent at once, and what it counted.
fn answers(local: &Local, recipes: &[Recipe]) -> (Vec<String>, EngineStats) {
    answers_by(local, recipes, &Sampling::default())
}

fn answers_by(local: &Local, recipes: &[Recipe], sampling: &Sampling) -> (Vec<String>, EngineStats) {
    let mut engine = local.engine(vec![sampling.clone()]).unwrap();
    engine.keep_responses();
    let mut heard = Heard::default();
    for (id, recipe) in (0..).zip(recipes) {
        engine.submit(id, recipe, 0);
    }
    while heard.ends.len() < recipes.len() {
        assert!(engine.wait(Duration::from_mins(1)), "something is computed");
        engine.advance(0, &mut heard);
    }
    let texts = (0..).zip(recipes).map(|(id, recipe)| {
        let end = &heard.ends[&id];
        assert_eq!(end.outcome, Outcome::Success, "{:?}", end.message);
        assert_eq!(end.prompt_tokens, recipe.prompt.tokens());
        assert!(
            heard.tokens[&id] <= recipe.output_tokens
                && (!recipe.forced || heard.tokens[&id] == recipe.output_tokens)
        );
        end.response.as_ref().unwrap().text.clone()
    });
    (texts.collect(), engine.stats(0))
}

fn stress(prepared: &Prepared) -> Vec<Recipe> {
    prepared.plan.workloads[2].stream(0).collect()
}

#[test]
fn an_answer_is_the_same_alone_and_in_a_batch_with_drafts_and_without_from_the_cache_and_computed() {
    let dir = tempfile::tempdir().unwrap();
    // One of each kind: biases and layer norms, and rotations with shared keys.
    for like in [Like::Gpt2, Like::Qwen25Of05b] {
        let prepared = prepared(&tiny(like, dir.path()), Changes::default()).unwrap();
        let mut recipes = stress(&prepared);
        // Shorter, and half of the prompts twice.
        for (index, recipe) in recipes.iter_mut().enumerate() {
            (recipe.prompt, recipe.output_tokens) =
                (PromptRecipe::Synthetic { tokens: 64, prefix: None }, 24);
            recipe.seed = index as u64 / 2;
        }
        recipes.truncate(6);
        let (alone, stats) = answers(&open(&prepared, |config| config.engine.max_num_seqs = 1), &recipes);
        assert!(alone.iter().any(|text| *text != alone[0]), "{}: prompts matter", like.name());
        assert_eq!(stats.prefix_hit_tokens, Some(3 * 48), "{}", like.name());
        let lookup = serde_json::json!({ "kind": "prompt_lookup" });
        let changes: [(&str, Change<'_>); 5] = [
            ("batched", &|_| {}),
            ("no prefix cache", &|config| config.kv.prefix_cache = false),
            ("drafts", &|config| config.speculative = serde_json::from_value(lookup.clone()).unwrap()),
            ("chunks", &|config| config.engine.max_num_batched_tokens = 37),
            ("one thread", &|config| config.threads = Some(1)),
        ];
        for (what, change) in changes {
            let (texts, _) = answers(&open(&prepared, change), &recipes);
            assert_eq!(texts, alone, "{}, {what}", like.name());
        }
        let (texts, stats) = answers(
            &open(&prepared, |config| config.kv.tokens = Some(serde_json::from_str("256").unwrap())),
            &recipes,
        );
        assert_eq!(texts, alone, "{}, a small pool", like.name());
        assert!(stats.preempt_count > Some(0), "{}: {stats:?}", like.name());
    }
}

#[test]
fn a_draft_model_changes_no_answer_greedy_or_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let prepared = prepared(&tiny(Like::Gpt2, dir.path()), Changes::default()).unwrap();
    // The model itself, whose drafts are all accepted, and another one of the same tokenizer, whose hardly are.
    let same = dir.path().join("gpt2");
    let other = tiny(Like::Opt125m, dir.path());
    let mut recipes = stress(&prepared);
    recipes.truncate(4);
    for recipe in &mut recipes {
        (recipe.prompt, recipe.output_tokens) = (PromptRecipe::Synthetic { tokens: 40, prefix: None }, 21);
    }
    let drafting = |model: &Path| {
        let Backend::Candle(mut config) = prepared.backends[0].config.clone() else { panic!("a model") };
        let draft = serde_json::json!({ "kind": "draft", "model": model, "tokens": 3 });
        config.speculative = serde_json::from_value(draft).unwrap();
        let source = Source::find(&config, Path::new(".")).unwrap();
        Local::open(&config, &Arc::new(source)).unwrap()
    };
    let drawn = Sampling { temperature: Some(0.8), seed: Some(3), ..Sampling::default() };
    for sampling in [Sampling::default(), drawn] {
        let (plain, _) = answers_by(&open(&prepared, |_| {}), &recipes, &sampling);
        for (model, all) in [(&same, true), (&other, false)] {
            let (texts, stats) = answers_by(&drafting(model), &recipes, &sampling);
            assert_eq!(texts, plain, "{}", model.display());
            assert!(stats.draft_tokens > Some(0), "{stats:?}");
            assert_eq!(stats.accepted_tokens == stats.draft_tokens, all, "{stats:?}");
        }
    }
}

#[test]
fn answers_are_those_of_the_plain_model() {
    let dir = tempfile::tempdir().unwrap();
    for (name, like) in Like::ALL {
        let folder = tiny(like, dir.path());
        let prepared = prepared(&folder, Changes::default()).unwrap();
        let tokenizer = &prepared.backends[0].source.as_ref().unwrap().tokenizer;
        let mut recipes = stress(&prepared);
        recipes.truncate(3);
        for (recipe, length) in recipes.iter_mut().zip([1, 20, 40]) {
            recipe.prompt = PromptRecipe::Synthetic { tokens: length, prefix: None };
            recipe.output_tokens = 20;
        }
        let (texts, _) = answers(&open(&prepared, |_| {}), &recipes);
        let oracle = Oracle::open(&folder);
        let mut certain = 0;
        for (recipe, text) in recipes.iter().zip(texts) {
            let prompt = tokenizer.encode(&sagebench::plan::text(recipe, &**tokenizer));
            let answer = oracle.answer(&prompt, 20);
            let wanted = tokenizer.decode(&answer.tokens);
            if answer.is_cut {
                // The last characters may be part of one that goes on.
                let sure = wanted.trim_end_matches('\u{fffd}');
                assert!(text.starts_with(sure), "{name}: {text:?} does not begin with {sure:?}");
            } else {
                assert_eq!(text, wanted, "{name}");
            }
            certain += answer.tokens.len();
        }
        assert!(certain >= 20, "{name}: only {certain} of 60 tokens are certain");
    }
}

#[test]
fn answers_are_those_of_candle_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for like in [Like::Smollm2Of135m, Like::Qwen25Of05b] {
        let folder = tiny(like, dir.path());
        let oracle = Oracle::open(&folder);
        let mut certain = 0;
        for seed in 0..4 {
            let prompt: Vec<u32> = (0..9).map(|at| 5 + (seed * 31 + at * 17) % 90).collect();
            let ours = oracle.answer(&prompt, 16).tokens;
            assert_eq!(peer::answer(&folder, &prompt, ours.len()), ours, "{}, {prompt:?}", like.name());
            certain += ours.len();
        }
        assert!(certain >= 16, "{}: only {certain} of 64 tokens are certain", like.name());
    }
}

/// SmolLM2-135M-Instruct, where `SAGEBENCH_SMOLLM2` says that its GGUF file is.
#[test]
fn smollm2_answers_real_prompts() {
    let Some(model) = std::env::var_os("SAGEBENCH_SMOLLM2") else {
        eprintln!(
            "smollm2_answers_real_prompts did not run: SAGEBENCH_SMOLLM2 names no GGUF file of SmolLM2"
        );
        return;
    };
    let prepared = prepared(Path::new(&model), Changes::default()).unwrap();
    let tokenizer = &prepared.backends[0].source.as_ref().unwrap().tokenizer;
    let chat = |question: &str| format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let prompts = [
        ("The capital of France is".to_owned(), "Paris"),
        ("Monday, Tuesday, Wednesday, Thursday,".to_owned(), "Friday"),
        ("1, 2, 3, 4, 5, 6,".to_owned(), "7"),
        (chat("What is the capital of Italy?"), "Rome"),
    ];
    let mut recipe = stress(&prepared).remove(0);
    (recipe.output_tokens, recipe.forced) = (32, false);
    let recipes: Vec<Recipe> = prompts
        .iter()
        .map(|(prompt, _)| {
            let prompt = PromptRecipe::text(prompt.as_str().into(), &**tokenizer);
            Recipe { prompt, ..recipe.clone() }
        })
        .collect();
    let lookup = serde_json::json!({ "kind": "prompt_lookup" });
    let (texts, _) = answers(&open(&prepared, |_| {}), &recipes);
    for ((prompt, wanted), text) in prompts.iter().zip(&texts) {
        eprintln!("{prompt:?} -> {text:?}");
        assert!(text.contains(wanted), "{prompt:?} is answered {text:?}, without {wanted:?}");
    }
    let drafting =
        open(&prepared, |config| config.speculative = serde_json::from_value(lookup.clone()).unwrap());
    assert_eq!(answers(&drafting, &recipes).0, texts, "drafts change nothing");
}

/// Holds every record against its gaps.
#[derive(Default)]
struct Exact(Vec<Record>);

impl Observer for Exact {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        let sum: u64 = gaps.iter().map(|run| run.gap * u64::from(run.count)).sum();
        let count: u32 = gaps.iter().map(|run| run.count).sum();
        let (sent, first) = (record.sent.unwrap(), record.first.unwrap());
        assert_eq!((first - sent) + sum, record.end - sent, "TTFT and the gaps are the whole time");
        assert_eq!(count + record.first_event_tokens, record.output_tokens);
        self.0.push(record.clone());
        Flow::Continue
    }
}

/// A workload played on the real clock, and its records.
fn played(plan: &WorkloadPlan, engine: &mut Engine) -> (Played, Vec<Record>) {
    let mut records = Exact::default();
    let (stop, resume) = (Stop::default(), Resume::default());
    let played = play(plan, plan.stream(0), engine, Pace::Real, &stop, &mut records, &resume).unwrap();
    (played, records.0)
}

/// An engine of the backend as it is.
fn engine(prepared: &Prepared) -> Engine {
    open(prepared, |_| {}).engine(vec![Sampling::default()]).unwrap()
}

#[test]
fn time_to_first_token_and_gaps_are_the_whole_time_and_ten_requests_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    // The contract in small: a cache of half of what the stress test wants.
    let set = ["stress_test.prompt", "stress_test.output", "long_input.prompt", "long_input.output"];
    let mut set: Vec<String> = set.iter().map(|path| format!("workloads.{path}.tokens=48")).collect();
    set.push("backends.cpu.kv.tokens=480".into());
    let changes = Changes { set, ..Changes::default() };
    let prepared = prepared(&tiny(Like::Smollm2Of135m, dir.path()), changes).unwrap();
    let local = open(&prepared, |_| {});
    for plan in &prepared.plan.workloads[1..] {
        let mut engine = local.engine(vec![Sampling::default()]).unwrap();
        let (played, records) = played(plan, &mut engine);
        for record in &records {
            assert_eq!(record.outcome, Outcome::Success, "{:?}", record.message);
            assert_eq!(
                (record.prompt_tokens, record.output_tokens),
                (record.asked_tokens, record.asked_tokens)
            );
            assert!(record.first < Some(record.end), "the answer streams");
        }
        let is_stress = plan.name == "stress_test";
        assert_eq!(played.max_in_flight, if is_stress { 10 } else { 1 });
        assert_eq!(engine.largest_batch(), if is_stress { 10 } else { 1 });
        if is_stress {
            let stats = &played.stats;
            assert!(stats.evict_count > Some(0) && stats.preempt_count > Some(0), "{stats:?}");
            assert!(stats.evict_ns > Some(0) && stats.kv_used_tokens <= Some(480), "{stats:?}");
        }
    }
}

#[test]
fn what_keeps_a_model_from_being_opened_is_told_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tiny(Like::Gpt2, dir.path());
    let edit = |file: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        std::fs::write(&path, value.to_string()).unwrap();
        text
    };
    let error = |changes: Changes| {
        let message = prepared(&folder, changes).expect_err("it can not be used");
        message.replace(dir.path().to_str().unwrap(), "DIR")
    };
    let clock = Changes { clock: Some(Clock::Virtual), ..Changes::default() };
    insta::assert_snapshot!(error(clock), @"backend `cpu` computes a real model, which takes real time; only a mock can be played on the virtual clock");
    let long = Changes { set: vec!["workloads.long_input.prompt.tokens=2000".into()], ..Changes::default() };
    insta::assert_snapshot!(error(long), @"a prompt of 2000 and an answer of 200 tokens are more than the context of 2048 of `DIR/gpt2`");

    let config = edit("config.json", &|config| config["vocab_size"] = 300.into());
    insta::assert_snapshot!(error(Changes::default()), @"the tokenizer has ids up to 511, and the model's embedding has 300 rows: they do not belong together; name the right one with `tokenizer`");
    std::fs::write(folder.join("config.json"), &config).unwrap();

    let at_open = |change: &dyn Fn(&mut CandleBackend)| {
        let prepared = prepared(&folder, Changes::default()).unwrap();
        let Backend::Candle(config) = &prepared.backends[0].config else { panic!("the backend is a model") };
        let mut config = config.clone();
        change(&mut config);
        let source: &Arc<Source> = prepared.backends[0].source.as_ref().unwrap();
        let message = Local::open(&config, source).expect_err("it can not be opened").to_string();
        message.replace(dir.path().to_str().unwrap(), "DIR")
    };
    let message = at_open(&|config| {
        config.kv.tokens = None;
        config.kv.bytes = Some(serde_json::from_str("\"900TiB\"").unwrap());
    });
    assert!(message.contains("MiB of memory are free; make `kv` smaller"), "{message}");
}

#[test]
fn a_model_that_can_not_be_computed_is_shown_where_the_scenario_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tiny(Like::Gpt2, dir.path());
    let scenario = dir.path().join("s.yaml");
    let text = "version: 1\nbackends:\n  cpu: { kind: candle, model: gpt2 }\nworkloads:\n  chat: { prompt: { kind: synthetic, tokens: 8 }, \
                output: { tokens: 8 }, load: { kind: closed, concurrency: 1, requests: 1 } }\n";
    std::fs::write(&scenario, text).unwrap();
    let shown = || {
        let Err(Rejected::Invalid(failed)) = prepare(&scenario, &Changes::default()) else {
            panic!("it is refused")
        };
        let shown = render(&failed.sources, &failed.diagnostics, Render::Text { color: false });
        assert!(shown.contains("s.yaml:3:31\n"), "it has its place: {shown}");
        let message = shown.lines().next().unwrap();
        message.replace(dir.path().to_str().unwrap(), "DIR")
    };
    let with = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let path = folder.join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, change(whole.clone())).unwrap();
        let message = shown();
        std::fs::write(&path, whole).unwrap();
        message
    };
    let config = |key: &'static str, value: serde_json::Value| {
        with("config.json", &move |text| {
            let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
            config[key] = value.clone();
            config.to_string().into_bytes()
        })
    };
    insta::assert_snapshot!(config("model_type", "mamba".into()), @"error: DIR/gpt2: the architecture `mamba` is not known here; known are gpt2, opt, llama, mistral, qwen2, qwen3, gemma3");
    insta::assert_snapshot!(config("quantization_config", serde_json::json!({ "quant_method": "gptq" })), @"error: DIR/gpt2: weights are stored as gptq; known are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k");
    insta::assert_snapshot!(config("vocab_size", 300.into()), @"error: the tokenizer has ids up to 511, and the model's embedding has 300 rows: they do not belong together; name the right one with `tokenizer`");
    insta::assert_snapshot!(with("config.json", &|text| text[..40].to_vec()), @"error: DIR/gpt2/config.json: EOF while parsing a string at line 3 column 17");
    insta::assert_snapshot!(with("model.safetensors", &|bytes| bytes[..bytes.len() - 9].to_vec()), @"error: DIR/gpt2/model.safetensors: it is truncated: tensor `ln_f.bias` ends at byte 925936, and the file has 925927");
    insta::assert_snapshot!(with("model.safetensors", &|bytes| bytes[..100].to_vec()), @"error: DIR/gpt2/model.safetensors: it is truncated: its header has 2280 bytes, and the file 100");
    insta::assert_snapshot!(with("tokenizer.json", &|_| b"{}".to_vec()), @"error: DIR/gpt2/tokenizer.json: it is no tokenizer.json: Model missing. at line 1 column 2");

    // A format that others have.
    let path = dir.path().join("other.gguf");
    gguf::write(&path, "llama", candle_core::quantized::GgmlDType::Q8_0, false);
    let mut bytes = std::fs::read(&path).unwrap();
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|part| part == name).unwrap() + name.len();
    // Behind the number of dimensions and two of them.
    bytes[at + 20] = 20;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(&scenario, text.replace("gpt2", "other.gguf")).unwrap();
    insta::assert_snapshot!(shown(), @"error: DIR/other.gguf: weights are stored as iq4_nl; known are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k");
}

#[test]
fn given_conversations_go_through_the_models_template() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("chat.yaml");
    let text = "version: 1\nbackends: { cpu: { kind: candle, model: gpt2, kv: { tokens: 4096 } } }\nworkloads:\n  chat:\n    \
                prompt: { kind: file, path: rows.json, format: sharegpt, sessions: {} }\n    load: { kind: closed, concurrency: 1, sessions: 1 }\n";
    std::fs::write(&scenario, text).unwrap();
    let said = [("human", "kibo bani"), ("gpt", "la"), ("human", "ba la"), ("gpt", "bani kibo ba")];
    let said = said.map(|(from, value)| serde_json::json!({ "from": from, "value": value }));
    let row = serde_json::json!([{ "conversations": said }]).to_string();
    std::fs::write(dir.path().join("rows.json"), row).unwrap();
    let model = tiny(Like::Qwen25Of05b, dir.path());
    let error = prepared_for(&scenario, &model, Changes::default()).unwrap_err();
    insta::assert_snapshot!(error, @"backend `cpu` computes prompts of text: its model has no chat template to play conversations with; name one that was trained for chat");

    let source =
        "{% for m in messages %}{{ eos_token }}{{ m.role }}: {{ m.content }}{% endfor %}{{ eos_token }}";
    let config = serde_json::json!({ "eos_token": "<|endoftext|>", "chat_template": source });
    std::fs::write(model.join("tokenizer_config.json"), config.to_string()).unwrap();
    let prepared = prepared_for(&scenario, &model, Changes::default()).unwrap();
    let (_, records) = played(&prepared.plan.workloads[0], &mut engine(&prepared));
    let tokenizer = &prepared.backends[0].source.as_ref().unwrap().tokenizer;
    let first = tokenizer.encode("<|endoftext|>user: kibo bani<|endoftext|>").len() as u32;
    let [one, two] = &records[..] else { panic!("two turns") };
    assert_eq!((one.outcome, one.prompt_tokens), (Outcome::Success, first), "{:?}", one.message);
    // The answer that came stands in the second one, whatever it is, between what the template puts around it.
    assert_eq!(two.outcome, Outcome::Success, "{:?}", two.message);
    assert!(two.prompt_tokens > first + tokenizer.count("<|endoftext|>user: ba la<|endoftext|>"));
}

#[test]
fn generated_conversations_are_played_and_their_history_is_found_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let scenario = dir.path().join("chat.yaml");
    let text = "version: 1\nseed: 3\nbackends: { cpu: { kind: candle, model: gpt2, kv: { tokens: 4096 } } }\nworkloads:\n  chat:\n    \
                prompt: { kind: sessions, turns: 3, system: { tokens: 32 }, user: { tokens: 24 } }\n    output: { tokens: 8 }\n    \
                load: { kind: closed, concurrency: 2, sessions: 4 }\n";
    std::fs::write(&scenario, text).unwrap();
    let model = tiny(Like::Qwen25Of05b, dir.path());
    let prepared = prepared_for(&scenario, &model, Changes::default()).unwrap();
    let (played, records) = played(&prepared.plan.workloads[0], &mut engine(&prepared));
    assert_eq!(records.len(), 12);
    for record in &records {
        assert_eq!(record.outcome, Outcome::Success, "{:?}", record.message);
    }
    // Of 32, 56 + 8, and so on: the full blocks of 16 of each history, and the first block of the system prompt in other sessions.
    let hits = played.stats.prefix_hit_tokens.unwrap();
    assert!(hits >= 4 * (48 + 80), "{hits} tokens were found in the cache");
}
