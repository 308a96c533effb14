//! The models again, as plainly as their papers have them, in 64 bits: what an engine's answers are held against.

use std::collections::HashMap;
use std::path::Path;

use sagebench::checkpoint::safetensors;
use serde_json::Value;

/// What an answer is certain to begin with.
pub struct Answer {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Whether it ends before it was asked to, because two tokens were as likely as each other up to rounding.
    pub is_cut: bool,
}

/// A model with 32-bit weights, widened.
pub struct Oracle {
    config: Value,
    weights: HashMap<String, (Vec<usize>, Vec<f64>)>,
}

/// Keys and values, one row per position, of each layer.
type Cache = Vec<(Vec<Vec<f64>>, Vec<Vec<f64>>)>;

impl Oracle {
    pub fn open(folder: &Path) -> Self {
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let file = folder.join("model.safetensors");
        let (tensors, bytes) = (safetensors::read(&file).unwrap(), std::fs::read(&file).unwrap());
        let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let weights = tensors.into_iter().map(|(name, tensor)| {
            let range = data + tensor.data_offsets.0 as usize..data + tensor.data_offsets.1 as usize;
            let numbers = bytes[range].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let shape = tensor.shape.iter().map(|n| *n as usize).collect();
            (name, (shape, numbers.map(f64::from).collect()))
        });
        Self { config: serde_json::from_str(&config).unwrap(), weights: weights.collect() }
    }

    /// The most likely tokens behind a prompt, one after another.
    pub fn answer(&self, prompt: &[u32], count: usize) -> Answer {
        let mut cache = Cache::new();
        let mut tokens = Vec::new();
        let mut logits = Vec::new();
        for (position, token) in prompt.iter().enumerate() {
            logits = self.logits(*token as usize, position, &mut cache);
        }
        while tokens.len() < count {
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            let second = logits
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != best)
                .map(|(_, l)| *l)
                .fold(f64::MIN, f64::max);
            if logits[best] - second < 1e-4 {
                return Answer { tokens, is_cut: true };
            }
            tokens.push(best as u32);
            logits = self.logits(best, prompt.len() + tokens.len() - 1, &mut cache);
        }
        Answer { tokens, is_cut: false }
    }

    fn number(&self, name: &str) -> f64 {
        self.config[name].as_f64().unwrap_or_else(|| panic!("config.json has `{name}`"))
    }

    fn get(&self, name: &str) -> &[f64] {
        &self.weights.get(name).unwrap_or_else(|| panic!("there is a tensor `{name}`")).1
    }

    fn row(&self, name: &str, row: usize) -> Vec<f64> {
        let width = self.weights[name].0[1];
        self.get(name)[row * width..(row + 1) * width].to_vec()
    }

    /// A projection whose weights are stored as output × input; GPT-2 has them the other way round.
    fn project(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (shape, weights) = &self.weights[&format!("{name}.weight")];
        let is_turned = self.config["model_type"] == "gpt2";
        let outputs = if is_turned { shape[1] } else { shape[0] };
        let weight = |out: usize, at: usize| {
            if is_turned { weights[at * outputs + out] } else { weights[out * x.len() + at] }
        };
        let bias = self.weights.get(&format!("{name}.bias"));
        let sum = |out: usize| x.iter().enumerate().map(|(at, x)| x * weight(out, at)).sum::<f64>();
        (0..outputs).map(|out| sum(out) + bias.map_or(0.0, |(_, bias)| bias[out])).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let scale = self.get(&format!("{name}.weight"));
        let n = x.len() as f64;
        if let Some((_, bias)) = self.weights.get(&format!("{name}.bias")) {
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let root = (variance + 1e-5).sqrt();
            return (0..x.len()).map(|at| (x[at] - mean) / root * scale[at] + bias[at]).collect();
        }
        let root = (x.iter().map(|x| x * x).sum::<f64>() / n + self.number("rms_norm_eps")).sqrt();
        (0..x.len()).map(|at| x[at] / root * scale[at]).collect()
    }

    fn logits(&self, token: usize, position: usize, cache: &mut Cache) -> Vec<f64> {
        let (x, embedding) = match self.config["model_type"].as_str().unwrap() {
            "gpt2" => (self.gpt2(token, position, cache), "wte.weight"),
            "opt" => (self.opt(token, position, cache), "model.decoder.embed_tokens.weight"),
            _ => (self.llama(token, position, cache), "model.embed_tokens.weight"),
        };
        self.get(embedding)
            .chunks_exact(x.len())
            .map(|row| row.iter().zip(&x).map(|(a, b)| a * b).sum())
            .collect()
    }

    fn gpt2(&self, token: usize, position: usize, cache: &mut Cache) -> Vec<f64> {
        let mut x = sum(&self.row("wte.weight", token), &self.row("wpe.weight", position));
        for layer in 0..self.number("n_layer") as usize {
            let name = |part: &str| format!("h.{layer}.{part}");
            let qkv = self.project(&name("attn.c_attn"), &self.norm(&name("ln_1"), &x));
            let mut parts = qkv.chunks_exact(x.len()).map(<[f64]>::to_vec);
            let parts = [(); 3].map(|()| parts.next().unwrap());
            let seen = attend(layer, parts, self.number("n_head") as usize, None, position, cache);
            x = sum(&x, &self.project(&name("attn.c_proj"), &seen));
            let mut inner = self.project(&name("mlp.c_fc"), &self.norm(&name("ln_2"), &x));
            for x in &mut inner {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                *x = 0.5 * *x * (1.0 + (root * (*x + 0.044_715 * x.powi(3))).tanh());
            }
            x = sum(&x, &self.project(&name("mlp.c_proj"), &inner));
        }
        self.norm("ln_f", &x)
    }

    fn opt(&self, token: usize, position: usize, cache: &mut Cache) -> Vec<f64> {
        let embedding = self.row("model.decoder.embed_tokens.weight", token);
        let mut x = sum(&embedding, &self.row("model.decoder.embed_positions.weight", position + 2));
        for layer in 0..self.number("num_hidden_layers") as usize {
            let name = |part: &str| format!("model.decoder.layers.{layer}.{part}");
            let normed = self.norm(&name("self_attn_layer_norm"), &x);
            let parts =
                ["q", "k", "v"].map(|part| self.project(&name(&format!("self_attn.{part}_proj")), &normed));
            let heads = self.number("num_attention_heads") as usize;
            let seen = attend(layer, parts, heads, None, position, cache);
            x = sum(&x, &self.project(&name("self_attn.out_proj"), &seen));
            let mut inner = self.project(&name("fc1"), &self.norm(&name("final_layer_norm"), &x));
            for x in &mut inner {
                *x = x.max(0.0);
            }
            x = sum(&x, &self.project(&name("fc2"), &inner));
        }
        self.norm("model.decoder.final_layer_norm", &x)
    }

    fn llama(&self, token: usize, position: usize, cache: &mut Cache) -> Vec<f64> {
        let mut x = self.row("model.embed_tokens.weight", token);
        for layer in 0..self.number("num_hidden_layers") as usize {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let normed = self.norm(&name("input_layernorm"), &x);
            let parts =
                ["q", "k", "v"].map(|part| self.project(&name(&format!("self_attn.{part}_proj")), &normed));
            let (heads, theta) = (self.number("num_attention_heads") as usize, self.number("rope_theta"));
            let seen = attend(layer, parts, heads, Some(theta), position, cache);
            x = sum(&x, &self.project(&name("self_attn.o_proj"), &seen));
            let normed = self.norm(&name("post_attention_layernorm"), &x);
            let [gate, up] =
                ["gate", "up"].map(|part| self.project(&name(&format!("mlp.{part}_proj")), &normed));
            let inner: Vec<f64> =
                gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            x = sum(&x, &self.project(&name("mlp.down_proj"), &inner));
        }
        self.norm("model.norm", &x)
    }
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// What a token sees of those before it and of itself: queries, keys and values come in, rotated where there is a base.
fn attend(
    layer: usize,
    parts: [Vec<f64>; 3],
    heads: usize,
    theta: Option<f64>,
    position: usize,
    cache: &mut Cache,
) -> Vec<f64> {
    let [mut query, mut key, value] = parts;
    let size = query.len() / heads;
    if let Some(theta) = theta {
        for part in [&mut query, &mut key] {
            for head in part.chunks_exact_mut(size) {
                for at in 0..size / 2 {
                    let angle = position as f64 / theta.powf(2.0 * at as f64 / size as f64);
                    let (left, right) = (head[at], head[at + size / 2]);
                    head[at] = left * angle.cos() - right * angle.sin();
                    head[at + size / 2] = right * angle.cos() + left * angle.sin();
                }
            }
        }
    }
    let shared = heads / (key.len() / size);
    if cache.len() == layer {
        cache.push(Default::default());
    }
    cache[layer].0.push(key);
    cache[layer].1.push(value);
    let (keys, values) = &cache[layer];
    let mut out = Vec::with_capacity(query.len());
    for (head, q) in query.chunks_exact(size).enumerate() {
        let own = head / shared * size..(head / shared + 1) * size;
        let dot = |k: &Vec<f64>| q.iter().zip(&k[own.clone()]).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> = keys.iter().map(|k| (dot(k) / (size as f64).sqrt()).exp()).collect();
        let total: f64 = scores.iter().sum();
        let weighted =
            |at: usize| scores.iter().zip(values).map(|(score, v)| score / total * v[at]).sum::<f64>();
        out.extend(own.clone().map(weighted));
    }
    out
}
