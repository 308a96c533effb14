//! The decoder core's speed beside what the machine can do: `cargo bench --bench cpu_model -- [NAME|PATH]... [OPTION VALUE]...`
//!
//! A name is gpt2, opt-125m, smollm2-135m or qwen2.5-0.5b: a checkpoint of the true shape with random weights, written under
//! `--dir` once. A path is any model that the core opens. Options: `--dtype f32,bf16,q8_0,auto`, `--threads 2`, `--repeats 3`
//! (the median is told, rounds of all cases are interleaved), `--dir target/cpu_model`. With `--follow yes`, a line on the standard
//! input names measurements, and a line of JSON answers it, so that another program can interleave them with others. A line
//! `greedy COUNT TOKEN...` is answered with the most likely tokens behind these, one after another: `[token, second, margin]` of
//! each, with the second likeliest token and how far its logit is below. A line `logits COUNT TOKEN...` is answered with the logits
//! behind each of the last `COUNT` tokens, as 32-bit floats in base64.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sagebench::backend::candle::model::{Dtype, Kv, Model, Options, Row};
use sagebench::checkpoint::random::{Like, Random, Stored};

const PROMPT: usize = 256;
const DECODED: usize = 32;
const BLOCK: usize = 16;
/// Rows in a step of ten prompts.
const CHUNK: usize = 512;
const NAMES: [&str; 4] = ["prefill", "prefill_10", "decode", "decode_10"];

struct Arguments {
    models: Vec<String>,
    dtypes: Vec<(String, Dtype)>,
    threads: usize,
    repeats: usize,
    dir: PathBuf,
    follow: bool,
}

fn arguments() -> Arguments {
    let mut parsed = Arguments {
        models: Vec::new(),
        dtypes: Vec::new(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        repeats: 3,
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cpu_model"),
        follow: false,
    };
    let mut dtypes = "f32,bf16,q8_0".to_owned();
    let mut words = std::env::args().skip(1).filter(|w| w != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--dtype" => dtypes = value(),
            "--threads" => parsed.threads = value().parse().expect("threads are a number"),
            "--repeats" => parsed.repeats = value().parse().expect("repeats are a number"),
            "--dir" => parsed.dir = value().into(),
            "--follow" => parsed.follow = value() == "yes",
            _ => parsed.models.push(word),
        }
    }
    for name in dtypes.split(',') {
        let dtype = match name {
            "f32" => Dtype::F32,
            "bf16" => Dtype::Bf16,
            "q8_0" => Dtype::Q8_0,
            "auto" => Dtype::Auto,
            _ => panic!("dtypes are f32, bf16, q8_0 and auto, not {name}"),
        };
        parsed.dtypes.push((name.to_owned(), dtype));
    }
    if parsed.models.is_empty() {
        parsed.models = ["gpt2", "smollm2-135m"].map(str::to_owned).to_vec();
    }
    parsed
}

/// The folder of a model that is named: random weights are written unless they are there.
fn checkpoint(name: &str, dir: &Path) -> PathBuf {
    let Some((_, like)) = Like::ALL.into_iter().find(|(known, _)| *known == name) else {
        return name.into();
    };
    let folder = dir.join(name);
    if !folder.join("model.safetensors").exists() {
        Random { like, tiny: false, stored: Stored::F32, seed: 1 }.write(&folder).unwrap();
    }
    folder
}

/// Bytes per second that `threads` threads read from memory together.
fn bandwidth(threads: usize) -> f64 {
    let buffer = vec![1_u64; 32 << 20];
    let read = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(buffer.len() / threads) {
                scope.spawn(move || {
                    let mut sums = [0_u64; 32];
                    for chunk in part.as_chunks::<32>().0 {
                        for (sum, x) in sums.iter_mut().zip(chunk) {
                            *sum = sum.wrapping_add(*x);
                        }
                    }
                    std::hint::black_box(sums);
                });
            }
        });
        (buffer.len() * 8) as f64 / start.elapsed().as_secs_f64()
    };
    (0..7).map(|_| read()).fold(0.0, f64::max)
}

/// Floating-point operations per second of candle's f32 product of 1024 × 1024 matrices.
fn flops() -> f64 {
    use candle_core::{DType, Device, Tensor};
    let a = Tensor::ones((1024, 1024), DType::F32, &Device::Cpu).unwrap();
    let run = || {
        let start = Instant::now();
        std::hint::black_box(a.matmul(&a).unwrap());
        2.0 * 1024_f64.powi(3) / start.elapsed().as_secs_f64()
    };
    (0..7).map(|_| run()).fold(0.0, f64::max)
}

/// A model with ten sequences.
struct Case {
    name: String,
    model: Model,
    kv: Kv,
    tables: Vec<Vec<u32>>,
    /// Tokens per second, by the measurements of [`NAMES`].
    seen: [Vec<f64>; 4],
}

impl Case {
    fn new(name: String, model: Model) -> Self {
        let blocks = (PROMPT + DECODED).div_ceil(BLOCK) as u32;
        let tables: Vec<Vec<u32>> = (0..10).map(|s| (s * blocks..(s + 1) * blocks).collect()).collect();
        let kv = model.kv(10 * blocks, BLOCK as u32).unwrap();
        Self { name, model, kv, tables, seen: Default::default() }
    }

    fn step(&mut self, rows: &[Row], wanted: &[u32]) {
        let tables: Vec<&[u32]> = self.tables.iter().map(Vec::as_slice).collect();
        std::hint::black_box(self.model.step(&mut self.kv, rows, &tables, wanted).unwrap());
    }

    /// Tokens per second of one measurement of [`NAMES`]: prefill of one or ten prompts, decode of one or ten sequences behind
    /// them.
    fn measure(&mut self, name: &str) -> f64 {
        let batch = if name.ends_with("_10") { 10 } else { 1 };
        let token = |i: usize| (i * 7919 % 40_000) as u32;
        let row = |s: usize, i: usize| Row { token: token(i + s), position: i as u32, sequence: s as u32 };
        let start = Instant::now();
        if name.starts_with("prefill") {
            let all: Vec<Row> = (0..batch).flat_map(|s| (0..PROMPT).map(move |i| row(s, i))).collect();
            for rows in all.chunks(CHUNK) {
                let last = |i: &u32| rows[*i as usize].position as usize == PROMPT - 1;
                let wanted: Vec<u32> = (0..rows.len() as u32).filter(last).collect();
                self.step(rows, &wanted);
            }
            return (batch * PROMPT) as f64 / start.elapsed().as_secs_f64();
        }
        let wanted: Vec<u32> = (0..batch as u32).collect();
        for i in PROMPT..PROMPT + DECODED {
            let rows: Vec<Row> = (0..batch).map(|s| row(s, i)).collect();
            self.step(&rows, &wanted);
        }
        (batch * DECODED) as f64 / start.elapsed().as_secs_f64()
    }
}

/// The most likely tokens behind a prompt: of each the token, the second likeliest, and the difference of their logits.
fn greedy(model: &mut Model, prompt: &[u32], count: usize) -> Vec<(u32, u32, f32)> {
    let blocks = ((prompt.len() + count).div_ceil(BLOCK)) as u32;
    let table: Vec<u32> = (0..blocks).collect();
    let mut kv = model.kv(blocks, BLOCK as u32).unwrap();
    let (mut found, mut position, mut next) = (Vec::new(), 0, prompt.to_vec());
    while found.len() < count {
        let row =
            |(i, token): (usize, &u32)| Row { token: *token, position: position + i as u32, sequence: 0 };
        let rows: Vec<Row> = next.iter().enumerate().map(row).collect();
        position += rows.len() as u32;
        let logits = model.step(&mut kv, &rows, &[&table], &[rows.len() as u32 - 1]).unwrap();
        let best = |skip: Option<usize>| {
            let others = (0..logits.len()).filter(|i| Some(*i) != skip);
            others.reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap()
        };
        let first = best(None);
        let second = best(Some(first));
        found.push((first as u32, second as u32, logits[first] - logits[second]));
        next = vec![first as u32];
    }
    found
}

/// The logits behind each of the last `count` tokens.
fn logits(model: &mut Model, tokens: &[u32], count: usize) -> String {
    use base64::Engine;

    let blocks = tokens.len().div_ceil(BLOCK) as u32;
    let table: Vec<u32> = (0..blocks).collect();
    let mut kv = model.kv(blocks, BLOCK as u32).unwrap();
    let row = |(position, token): (u32, &u32)| Row { token: *token, position, sequence: 0 };
    let rows: Vec<Row> = (0..).zip(tokens).map(row).collect();
    let wanted: Vec<u32> = ((rows.len() - count) as u32..rows.len() as u32).collect();
    let logits = model.step(&mut kv, &rows, &[&table], &wanted).unwrap();
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Answers each line of the standard input with the measurements that it names.
fn follow(case: &mut Case) {
    println!("{{\"weight_bytes\": {}}}", case.model.shape().weight_bytes);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("lines are text");
        let numbers = |words: &str| -> Vec<u32> {
            words.split_whitespace().map(|w| w.parse().expect("numbers")).collect()
        };
        if let Some(words) = line.strip_prefix("logits ") {
            let numbers = numbers(words);
            let (count, tokens) = numbers.split_first().expect("a count");
            println!("{}", logits(&mut case.model, tokens, *count as usize));
            continue;
        }
        if let Some(words) = line.strip_prefix("greedy ") {
            let numbers = numbers(words);
            let (count, prompt) = numbers.split_first().expect("a count");
            let tokens = greedy(&mut case.model, prompt, *count as usize);
            let tokens: Vec<String> =
                tokens.iter().map(|(a, b, margin)| format!("[{a}, {b}, {margin}]")).collect();
            println!("[{}]", tokens.join(", "));
            continue;
        }
        let fields: Vec<String> =
            line.split_whitespace().map(|name| format!("\"{name}\": {:.3}", case.measure(name))).collect();
        println!("{{{}}}", fields.join(", "));
        std::io::stdout().flush().expect("someone listens");
    }
}

fn main() {
    let arguments = arguments();
    let mut cases = Vec::new();
    for name in &arguments.models {
        let path = checkpoint(name, &arguments.dir);
        for (dtype_name, dtype) in &arguments.dtypes {
            match Model::open(&path, &Options { dtype: *dtype, threads: arguments.threads }) {
                Ok(model) => cases.push(Case::new(format!("{name} {dtype_name}"), model)),
                Err(error) => eprintln!("{error}"),
            }
        }
    }
    if arguments.follow {
        cases.iter_mut().take(1).for_each(follow);
        return;
    }
    let mut bandwidths = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..arguments.repeats {
        bandwidths.push(bandwidth(arguments.threads));
        rates.push(flops());
        for case in &mut cases {
            for (slot, name) in NAMES.into_iter().enumerate() {
                let rate = case.measure(name);
                case.seen[slot].push(rate);
            }
        }
    }
    let (bandwidth, rate) = (median(&mut bandwidths), median(&mut rates));
    println!(
        "{} threads; memory {:.1} GB/s; candle's f32 gemm {:.0} GFLOP/s; prompt {PROMPT}, decode of {DECODED} at that depth; medians of {}",
        arguments.threads,
        bandwidth / 1e9,
        rate / 1e9,
        arguments.repeats
    );
    println!("| model | GB | prefill tok/s | prefill 10 | decode tok/s | of roofline | decode 10 |");
    println!("|---|---|---|---|---|---|---|");
    for case in &mut cases {
        let bytes = case.model.shape().weight_bytes as f64;
        let [p1, p10, d1, d10] = std::array::from_fn(|i| median(&mut case.seen[i]));
        println!(
            "| {} | {:.3} | {p1:.0} | {p10:.0} | {d1:.1} | {:.0} % | {d10:.1} |",
            case.name,
            bytes / 1e9,
            d1 * bytes / bandwidth * 100.0
        );
    }
}
