//! GGUF files in every format that is read, against the GGUF models of candle-transformers. Those get the weights as candle
//! widens them, since they round activations in another way. Its Gemma 3 has `SiLU` where the model has `GELU`, so it is not asked.

use std::fs::File;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2};
use gguf_file::Value;
use sagebench::backend::candle::model::{Dtype, Model, Options, Row};

/// Whole blocks of the formats of 256 numbers.
const HIDDEN: usize = 256;
const INNER: usize = 512;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV: usize = 128;
const VOCABULARY: usize = 320;
const PROMPT: [u32; 9] = [3, 250, 17, 99, 3, 250, 44, 201, 7];

/// Numbers around `mean`, a pure function of the name.
fn tensor(name: &str, shape: &[usize], mean: f32, scale: f32) -> Tensor {
    let mut state = name.bytes().fold(7_u64, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        mean + scale * ((state >> 40) as f32 / 8_388_608.0 - 1.0)
    };
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| number()).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// A small model of an architecture, its matrices in one format, or widened from it.
pub fn write(path: &Path, architecture: &str, kind: GgmlDType, is_widened: bool) {
    let mut tensors: Vec<(String, QTensor)> = Vec::new();
    let mut matrix = |name: String, rows: usize, columns: usize| {
        let numbers = tensor(&name, &[rows, columns], 0.0, 0.12);
        let mut stored = QTensor::quantize(&numbers, kind).unwrap();
        if is_widened {
            let wide = stored.dequantize(&Device::Cpu).unwrap();
            stored = QTensor::quantize(&wide, GgmlDType::F32).unwrap();
        }
        tensors.push((name, stored));
    };
    matrix("token_embd.weight".into(), VOCABULARY, HIDDEN);
    for layer in 0..LAYERS {
        for (name, rows, columns) in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", KV, HIDDEN),
            ("attn_v", KV, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", INNER, HIDDEN),
            ("ffn_up", INNER, HIDDEN),
            ("ffn_down", HIDDEN, INNER),
        ] {
            matrix(format!("blk.{layer}.{name}.weight"), rows, columns);
        }
    }
    let mut vector = |name: String, length: usize, mean: f32| {
        let numbers = tensor(&name, &[length], mean, 0.2);
        tensors.push((name, QTensor::quantize(&numbers, GgmlDType::F32).unwrap()));
    };
    vector("output_norm.weight".into(), HIDDEN, 1.0);
    for layer in 0..LAYERS {
        let at = |name: &str| format!("blk.{layer}.{name}");
        vector(at("attn_norm.weight"), HIDDEN, 1.0);
        vector(at("ffn_norm.weight"), HIDDEN, 1.0);
        if architecture == "qwen2" {
            for (name, length) in [("attn_q.bias", HIDDEN), ("attn_k.bias", KV), ("attn_v.bias", KV)] {
                vector(at(name), length, 0.0);
            }
        }
    }
    let mut metadata = vec![("general.architecture".to_owned(), Value::String(architecture.to_owned()))];
    let mut put = |name: &str, value: Value| metadata.push((format!("{architecture}.{name}"), value));
    for (name, value) in [
        ("block_count", LAYERS),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("context_length", 512),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV / (HIDDEN / HEADS)),
        ("attention.key_length", HIDDEN / HEADS),
        ("attention.value_length", HIDDEN / HEADS),
        ("rope.dimension_count", HIDDEN / HEADS),
    ] {
        put(name, Value::U32(value as u32));
    }
    put("attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    put("rope.freq_base", Value::F32(10_000.0));
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// What candle-transformers says: the logits behind the prompt.
fn theirs(path: &Path, architecture: &str) -> Vec<f32> {
    let mut file = File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let input = Tensor::new(PROMPT.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let logits = match architecture {
        "llama" => quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .unwrap()
            .forward(&input, 0),
        _ => quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
            .unwrap()
            .forward(&input, 0),
    };
    logits.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What the core says; the prompt in two steps.
fn ours(path: &Path, dtype: Dtype) -> Vec<f32> {
    let mut model = Model::open(path, &Options { dtype, threads: 1 }).unwrap();
    let mut kv = model.kv(2, 8).unwrap();
    let rows: Vec<Row> =
        (0..).zip(PROMPT).map(|(position, token)| Row { token, position, sequence: 0 }).collect();
    let table: &[u32] = &[1, 0];
    model.step(&mut kv, &rows[..5], &[table], &[]).unwrap();
    model.step(&mut kv, &rows[5..], &[table], &[3]).unwrap().to_vec()
}

/// The distance of two vectors over the length of one.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let off: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (off / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

/// The same weights in 32 bits give the same logits. As they are stored, activations are rounded to eight bits.
fn hold(architecture: &str, kind: GgmlDType, rounding: f64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, architecture, kind, true);
    let expected = theirs(&path, architecture);
    write(&path, architecture, kind, false);
    for (dtype, most) in [(Dtype::F32, 1e-4), (Dtype::Auto, rounding)] {
        let off = distance(&ours(&path, dtype), &expected);
        assert!(off < most, "{architecture} in {kind:?} as {dtype:?}: the logits are {off:.5} apart");
    }
}

#[test]
fn every_format_of_gguf_gives_the_logits_of_candle_transformers() {
    use GgmlDType::{F16, F32, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    for (kind, rounding) in [(F32, 1e-4), (F16, 2e-3)] {
        hold("llama", kind, rounding);
    }
    for kind in [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2K, Q3K, Q4K, Q5K, Q6K] {
        hold("llama", kind, 0.04);
    }
}

#[test]
fn biases_of_gguf_are_added_as_candle_transformers_does() {
    hold("qwen2", GgmlDType::F32, 1e-4);
    hold("qwen2", GgmlDType::Q4K, 0.04);
}

#[test]
fn a_gguf_file_that_can_not_be_computed_is_told_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let error = || {
        let opened = Model::open(&path, &Options { dtype: Dtype::Auto, threads: 1 });
        opened.err().map(|error| error.to_string().replace(dir.path().to_str().unwrap(), "DIR"))
    };
    write(&path, "llama", GgmlDType::Q8_0, false);
    assert_eq!(error(), None);
    let whole = std::fs::read(&path).unwrap();
    // Cut in the weights, in the header and in the first word.
    for length in [whole.len() - 100, 200, 3] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = error().expect("a cut file is refused");
        assert!(message.starts_with("DIR/model.gguf is corrupt or truncated: "), "{message}");
    }
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = whole.clone();
        let found: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
        for at in found {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
        error().expect("it is refused")
    };
    insta::assert_snapshot!(renamed("llama", "mamba"), @"DIR/model.gguf: the architecture `mamba` is not known here; known are gpt2, opt, llama, mistral, qwen2, qwen3, gemma3");
    insta::assert_snapshot!(renamed("attn_q", "attn_x"), @"DIR/model.gguf: the tensor `blk.0.attn_q.weight` is missing");
    insta::assert_snapshot!(renamed("block_count", "block_cound"), @"DIR/model.gguf: `llama.block_count` is missing");
}
