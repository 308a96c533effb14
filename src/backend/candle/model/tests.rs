//! The core against Hugging Face transformers, on small checkpoints of each true architecture (see tests/candle/reference.py), and
//! against itself: a row's logits are the same to the bit however the step was composed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Dtype, Error, Kv, Model, Options, Row};

const FAMILIES: &[&str] = &["gpt2", "opt", "llama", "smollm2", "mistral", "qwen2", "qwen3", "gemma3"];

#[derive(Deserialize)]
struct Reference {
    config: Value,
    tensors: Vec<(String, Vec<usize>, f32, f32)>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    prompt: Vec<u32>,
    logits: BTreeMap<usize, Vec<f32>>,
    greedy: Vec<u32>,
}

fn reference(family: &str) -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/candle/{family}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The numbers of a tensor, by the formula of reference.py.
fn numbers(name: &str, count: usize, mean: f32, scale: f32) -> Vec<f32> {
    let hash =
        name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    (0..count as u64)
        .map(|i| {
            let mut z = hash.wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            mean + scale * (2.0 * ((z >> 40) as f32 / 16_777_216.0) - 1.0)
        })
        .collect()
}

/// Writes the checkpoint into a new folder, its tensors divided over `files` files.
fn checkpoint(reference: &Reference, files: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), reference.config.to_string()).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = reference
        .tensors
        .iter()
        .map(|(name, shape, mean, scale)| {
            let numbers = numbers(name, shape.iter().product(), *mean, *scale);
            (name.clone(), shape.clone(), numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let mut map = serde_json::Map::new();
    for file in 0..files {
        let name =
            if files == 1 { "model.safetensors".to_owned() } else { format!("model-{file}.safetensors") };
        let views = bytes.iter().enumerate().filter(|(i, _)| i % files == file).map(|(_, (n, s, b))| {
            map.insert(n.clone(), name.clone().into());
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), b).unwrap();
            (n.clone(), view)
        });
        let views: Vec<_> = views.collect();
        safetensors::serialize_to_file(views, None, &dir.path().join(name)).unwrap();
    }
    if files > 1 {
        let index = serde_json::json!({ "weight_map": map });
        fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
    dir
}

fn open(path: &Path, dtype: Dtype, threads: usize) -> Model {
    Model::open(path, &Options { dtype, threads }).unwrap()
}

fn rows(tokens: &[u32], from: usize, sequence: u32) -> Vec<Row> {
    let position = |i: usize| (from + i) as u32;
    tokens
        .iter()
        .enumerate()
        .map(|(i, token)| Row { token: *token, position: position(i), sequence })
        .collect()
}

fn close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst <= tolerance * largest, "{what}: off by {worst} of {largest}");
}

fn largest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a))).unwrap() as u32
}

/// The logits of all positions of a prompt, computed at once in blocks `table`.
fn at_once(model: &mut Model, kv: &mut Kv, prompt: &[u32], table: &[u32]) -> Vec<Vec<f32>> {
    let wanted: Vec<u32> = (0..prompt.len() as u32).collect();
    let logits = model.step(kv, &rows(prompt, 0, 0), &[table], &wanted).unwrap();
    logits.chunks(logits.len() / prompt.len()).map(<[f32]>::to_vec).collect()
}

#[test]
fn every_family_has_the_logits_of_transformers() {
    for family in FAMILIES {
        let reference = reference(family);
        let dir = checkpoint(&reference, 1 + family.len() % 2);
        let mut model = open(dir.path(), Dtype::F32, 2);
        let mut kv = model.kv(16, 8).unwrap();
        for case in &reference.cases {
            let found = at_once(&mut model, &mut kv, &case.prompt, &[9, 2, 11, 0, 5]);
            for (position, expected) in &case.logits {
                close(&found[*position], expected, 1e-4, &format!("{family} at {position}"));
            }
        }
    }
}

/// Blocks of 6 positions are no whole vectors; their order in the pool is no order of positions.
fn tables() -> Vec<Vec<u32>> {
    (0..10).map(|s| (0..10).map(|b| (s * 10 + b) * 37 % 101).collect()).collect()
}

#[test]
fn greedy_tokens_are_those_of_transformers_alone_and_in_a_batch_of_ten() {
    for family in FAMILIES {
        let reference = reference(family);
        let dir = checkpoint(&reference, 1);
        let mut model = open(dir.path(), Dtype::F32, 2);
        let tables = tables();
        for batch in [1, 10] {
            let mut kv = model.kv(101, 6).unwrap();
            let mut sequences: Vec<(&Case, Vec<u32>)> =
                (0..batch).map(|i| &reference.cases[i % 3]).map(|c| (c, c.prompt.clone())).collect();
            let views: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
            let mut done = vec![0; batch];
            while sequences.iter().any(|(c, s)| s.len() < c.prompt.len() + c.greedy.len()) {
                let (mut step, mut wanted) = (Vec::new(), Vec::new());
                for (i, (_, tokens)) in sequences.iter().enumerate() {
                    step.extend(rows(&tokens[done[i]..], done[i], i as u32));
                    done[i] = tokens.len();
                    wanted.push(step.len() as u32 - 1);
                }
                let logits = model.step(&mut kv, &step, &views, &wanted).unwrap();
                let width = logits.len() / batch;
                for ((_, tokens), logits) in sequences.iter_mut().zip(logits.chunks(width)) {
                    tokens.push(largest(logits));
                }
            }
            for (case, tokens) in sequences {
                assert_eq!(tokens[case.prompt.len()..], case.greedy, "{family}, batch {batch}");
            }
        }
    }
}

#[test]
fn logits_are_the_same_bits_however_steps_are_composed() {
    for (family, dtype) in FAMILIES.iter().zip([Dtype::F32, Dtype::Bf16, Dtype::Q8_0].into_iter().cycle()) {
        let reference = reference(family);
        let dir = checkpoint(&reference, 1);
        let mut model = open(dir.path(), dtype, 2);
        let prompt = &reference.cases[0].prompt;
        let tables = tables();
        let mut kv = model.kv(101, 6).unwrap();
        let expected = at_once(&mut model, &mut kv, prompt, &tables[0]);

        // One thread, token by token.
        let mut alone = open(dir.path(), dtype, 1);
        let mut other = alone.kv(7, 6).unwrap();
        for (i, token) in prompt.iter().enumerate() {
            let found =
                alone.step(&mut other, &rows(&[*token], i, 0), &[&[2, 0, 1, 6, 4, 3, 5]], &[0]).unwrap();
            assert_eq!(found, expected[i], "{family}: decoded alone at {i}");
        }

        // Chunks of uneven length, beside another sequence that is somewhere else; rows of both are mixed.
        let mut kv = model.kv(101, 6).unwrap();
        let views: Vec<&[u32]> = tables.iter().map(Vec::as_slice).collect();
        let mut from = 0;
        for (step, length) in [7, 1, 19, 4, 9].into_iter().enumerate() {
            let mut mixed = rows(&reference.cases[1].prompt[step * 3..step * 3 + 3], step * 3, 1);
            mixed.extend(rows(&prompt[from..from + length], from, 0));
            mixed.reverse();
            let wanted: Vec<u32> = (0..length as u32).rev().collect();
            let found = model.step(&mut kv, &mixed, &views, &wanted).unwrap();
            let width = found.len() / length;
            for (i, found) in found.chunks(width).enumerate() {
                assert_eq!(found, expected[from + i], "{family}: in chunks at {}", from + i);
            }
            from += length;
        }

        // A second sequence that shares the first blocks and computes the rest in blocks of its own.
        let shared = 4;
        let table: Vec<u32> = tables[0][..shared].iter().chain(&tables[3][shared..]).copied().collect();
        let rest = &prompt[shared * 6..];
        let last = [rest.len() as u32 - 1];
        let found = model.step(&mut kv, &rows(rest, shared * 6, 0), &[&table], &last).unwrap();
        assert_eq!(found, expected[prompt.len() - 1], "{family}: after a prefix hit");

        // Resumed: its blocks were lost, and it is computed again elsewhere.
        let found = at_once(&mut model, &mut kv, prompt, &tables[7]);
        assert_eq!(found, expected, "{family}: resumed");
    }
}

#[test]
fn narrower_weights_stay_near() {
    for (dtype, tolerance) in [(Dtype::Bf16, 0.03), (Dtype::Q8_0, 0.05)] {
        for family in FAMILIES {
            let reference = reference(family);
            let dir = checkpoint(&reference, 1);
            let mut model = open(dir.path(), dtype, 1);
            let mut kv = model.kv(8, 16).unwrap();
            let case = &reference.cases[0];
            let found = at_once(&mut model, &mut kv, &case.prompt, &[0, 1, 2]);
            for (position, expected) in &case.logits {
                close(&found[*position], expected, tolerance, &format!("{family} {dtype:?} at {position}"));
            }
        }
    }
}

#[test]
fn shapes_and_sizes_are_told() {
    let dir = checkpoint(&reference("qwen3"), 1);
    let model = open(dir.path(), Dtype::F32, 1);
    let shape = model.shape();
    assert_eq!(
        (shape.architecture, shape.layers, shape.heads, shape.kv_heads, shape.head),
        ("qwen3", 2, 4, 2, 32)
    );
    assert_eq!((shape.hidden, shape.vocabulary, shape.context), (64, 80, 128));
    let matrices = 2 * 80 * 64 + 2 * (64 * (128 + 64 + 64 + 128) + 3 * 64 * 96);
    assert_eq!(shape.weight_bytes, matrices * 4);
    assert_eq!(model.kv_bytes_per_token(), 2 * 2 * 2 * 32 * 4);
    assert_eq!(open(dir.path(), Dtype::Bf16, 1).kv_bytes_per_token(), 2 * 2 * 2 * 32 * 2);
}

fn message(path: &Path) -> String {
    match Model::open(path, &Options { dtype: Dtype::Auto, threads: 1 }) {
        Ok(_) => panic!("{} opens", path.display()),
        Err(error) => error.to_string().replace(&path.display().to_string(), "PATH"),
    }
}

/// A checkpoint of `llama` after `change`.
fn broken(change: impl FnOnce(&mut Reference)) -> tempfile::TempDir {
    let mut reference = reference("llama");
    change(&mut reference);
    checkpoint(&reference, 1)
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_one_message() {
    let unknown = broken(|r| r.config["model_type"] = "mamba".into());
    assert_eq!(
        message(unknown.path()),
        "PATH/config.json: the architecture `mamba` is not known here; known are gpt2, opt, llama, mistral, qwen2, qwen3, gemma3"
    );
    let missing = broken(|r| r.tensors.retain(|t| t.0 != "model.layers.1.mlp.up_proj.weight"));
    assert_eq!(message(missing.path()), "PATH: the tensor `model.layers.1.mlp.up_proj.weight` is missing");
    let shape = broken(|r| r.config["intermediate_size"] = 128.into());
    assert_eq!(
        message(shape.path()),
        "PATH: the tensor `model.layers.0.mlp.gate_proj.bias` has shape [96], and the configuration says [128]"
    );
    let zero = broken(|r| r.config["num_hidden_layers"] = 0.into());
    assert_eq!(
        message(zero.path()),
        "PATH/config.json: `num_hidden_layers` is 0, and must be a whole number from 1"
    );
    let scaling = broken(|r| r.config["rope_scaling"]["rope_type"] = "yarn".into());
    assert_eq!(
        message(scaling.path()),
        "PATH/config.json: `rope_scaling` has the type `yarn`; known are default, linear, llama3"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        message(empty.path()),
        "PATH is not a model: give a folder with config.json and *.safetensors, or a .gguf file"
    );
    assert!(message(&empty.path().join("none")).starts_with("cannot read PATH: No such file"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = broken(|_| {});
    let file = dir.path().join("model.safetensors");
    let whole = fs::read(&file).unwrap();
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let message = message(dir.path());
        assert!(message.contains("model.safetensors is corrupt or truncated: "), "{length}: {message}");
    }
}

#[test]
fn rows_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = broken(|_| {});
    let mut model = open(dir.path(), Dtype::F32, 1);
    let mut kv = model.kv(2, 8).unwrap();
    let mut refused = |token, position, sequence, table: &[u32], wanted| {
        let rows = [Row { token, position, sequence }];
        match model.step(&mut kv, &rows, &[table], &[wanted]) {
            Err(error @ Error::Row { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(80, 0, 0, &[0], 0), "row 0: token 80 of a vocabulary of 80");
    assert_eq!(refused(0, 128, 0, &[0], 0), "row 0: position 128 of a context of 128");
    assert_eq!(refused(0, 0, 1, &[0], 0), "row 0: sequence 1 of 1 tables");
    assert_eq!(refused(0, 8, 0, &[0], 0), "row 0: needs 2 blocks, and its table has 1");
    assert_eq!(refused(0, 8, 0, &[0, 2], 0), "row 0: block 2 of a pool of 2");
    assert_eq!(refused(0, 0, 0, &[0], 1), "row 1: is wanted of a step of 1 rows");
}

/// Runs transformers now: `SAGEBENCH_PYTHON` names a Python that has it.
#[test]
fn transformers_asked_now_agrees() {
    let Some(python) = std::env::var_os("SAGEBENCH_PYTHON").map(PathBuf::from) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/candle/reference.py");
    let out = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let file = out.path().join(family);
        let status =
            std::process::Command::new(&python).arg(&script).arg(family).arg(&file).status().unwrap();
        assert!(status.success());
        let live: Reference = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let dir = checkpoint(&live, 1);
        let mut model = open(dir.path(), Dtype::F32, 2);
        let mut kv = model.kv(16, 8).unwrap();
        for case in &live.cases {
            let found = at_once(&mut model, &mut kv, &case.prompt, &[9, 2, 11, 0, 5]);
            for (position, expected) in &case.logits {
                close(&found[*position], expected, 1e-4, &format!("{family} at {position}"));
            }
        }
    }
}
