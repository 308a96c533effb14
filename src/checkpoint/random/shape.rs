//! The shapes of the models, tensor by tensor, under the names that their real checkpoints use.

use serde_json::{Value, json};

use crate::sample::key;

/// A real model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Like {
    /// openai-community/gpt2, 124M parameters.
    Gpt2,
    /// facebook/opt-125m.
    Opt125m,
    /// HuggingFaceTB/SmolLM2-135M.
    Smollm2Of135m,
    /// Qwen/Qwen2.5-0.5B.
    Qwen25Of05b,
}

/// The numbers behind the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub(super) vocabulary: u64,
    context: u64,
    hidden: u64,
    inner: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
}

/// What a tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// One number everywhere: the scale of a norm.
    Constant(f32),
    /// Numbers of about a normal distribution around 0, with this standard deviation.
    Normal(f32),
}

impl Fill {
    /// The number at a place: a pure function of it.
    pub fn value(self, stream: u64, index: u64) -> f32 {
        match self {
            Self::Constant(value) => value,
            Self::Normal(deviation) => {
                // The sum of four uniform 16-bit numbers has mean 131070 and variance (2^32 − 1) / 3.
                let bits = key(&[stream, index]);
                let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
                (sum as f32 - 131_070.0) * (1.0 / 37_837.228) * deviation
            }
        }
    }
}

impl Like {
    /// All of them, by the names of the command line.
    pub const ALL: [(&str, Self); 4] = [
        ("gpt2", Self::Gpt2),
        ("opt-125m", Self::Opt125m),
        ("smollm2-135m", Self::Smollm2Of135m),
        ("qwen2.5-0.5b", Self::Qwen25Of05b),
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, like)| *like == self).map_or("", |(name, _)| name)
    }

    /// How many parameters the real one has.
    #[cfg(test)]
    pub fn shape_parameters(self) -> u64 {
        let tensors = self.shape(false).tensors(self);
        tensors.iter().map(|(_, shape, _)| shape.iter().product::<u64>()).sum()
    }

    pub(super) fn shape(self, tiny: bool) -> Shape {
        let numbers = match self {
            Self::Gpt2 => [50_257, 1024, 768, 3072, 12, 12, 12],
            Self::Opt125m => [50_272, 2048, 768, 3072, 12, 12, 12],
            Self::Smollm2Of135m => [49_152, 8192, 576, 1536, 30, 9, 3],
            Self::Qwen25Of05b => [151_936, 32_768, 896, 4864, 24, 14, 2],
        };
        let [vocabulary, context, hidden, inner, layers, heads, kv_heads] = numbers;
        if tiny {
            let kv_heads = if kv_heads == heads { 4 } else { 2 };
            return Shape {
                vocabulary: 512,
                context: 2048,
                hidden: 64,
                inner: 128,
                layers: 2,
                heads: 4,
                kv_heads,
            };
        }
        Shape { vocabulary, context, hidden, inner, layers, heads, kv_heads }
    }
}

type Named = (String, Vec<u64>, Fill);

impl Shape {
    /// config.json.
    pub(super) fn config(self, like: Like) -> Value {
        let Self { vocabulary, context, hidden, inner, layers, heads, kv_heads } = self;
        match like {
            Like::Gpt2 => json!({
                "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": vocabulary,
                "n_positions": context, "n_ctx": context, "n_embd": hidden, "n_layer": layers, "n_head": heads,
                "n_inner": inner, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
                "tie_word_embeddings": true,
            }),
            Like::Opt125m => json!({
                "architectures": ["OPTForCausalLM"], "model_type": "opt", "vocab_size": vocabulary,
                "max_position_embeddings": context, "hidden_size": hidden, "word_embed_proj_dim": hidden,
                "ffn_dim": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
                "activation_function": "relu", "do_layer_norm_before": true, "enable_bias": true,
                "layer_norm_elementwise_affine": true, "_remove_final_layer_norm": false,
                "tie_word_embeddings": true,
            }),
            Like::Smollm2Of135m | Like::Qwen25Of05b => {
                let (name, kind, theta, epsilon) = if like == Like::Smollm2Of135m {
                    ("LlamaForCausalLM", "llama", 100_000.0, 1e-5)
                } else {
                    ("Qwen2ForCausalLM", "qwen2", 1_000_000.0, 1e-6)
                };
                json!({
                    "architectures": [name], "model_type": kind, "vocab_size": vocabulary,
                    "max_position_embeddings": context, "hidden_size": hidden, "intermediate_size": inner,
                    "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
                    "hidden_act": "silu", "rms_norm_eps": epsilon, "rope_theta": theta, "rope_scaling": null,
                    "attention_bias": false, "mlp_bias": false, "use_sliding_window": false,
                    "tie_word_embeddings": true,
                })
            }
        }
    }

    /// Every tensor: its name, its shape with the outermost dimension first, and what it is filled with.
    pub(super) fn tensors(self, like: Like) -> Vec<Named> {
        let mut all = Tensors(Vec::new());
        match like {
            Like::Gpt2 => self.gpt2(&mut all),
            Like::Opt125m => self.opt(&mut all),
            Like::Smollm2Of135m => self.llama(&mut all, false),
            Like::Qwen25Of05b => self.llama(&mut all, true),
        }
        all.0
    }

    /// Its projections are stored as input × output.
    fn gpt2(self, all: &mut Tensors) {
        let Self { vocabulary, context, hidden, inner, layers, .. } = self;
        all.embedding("wte.weight", [vocabulary, hidden]);
        all.embedding("wpe.weight", [context, hidden]);
        for layer in 0..layers {
            let parts = [
                ("attn.c_attn", hidden, 3 * hidden),
                ("attn.c_proj", hidden, hidden),
                ("mlp.c_fc", hidden, inner),
                ("mlp.c_proj", inner, hidden),
            ];
            all.norm(&format!("h.{layer}.ln_1"), hidden, true);
            all.norm(&format!("h.{layer}.ln_2"), hidden, true);
            for (name, from, to) in parts {
                all.normal(&format!("h.{layer}.{name}.weight"), &[from, to], from);
                all.bias(&format!("h.{layer}.{name}"), to);
            }
        }
        all.norm("ln_f", hidden, true);
    }

    fn opt(self, all: &mut Tensors) {
        let Self { vocabulary, context, hidden, inner, layers, .. } = self;
        all.embedding("model.decoder.embed_tokens.weight", [vocabulary, hidden]);
        // Positions are counted from 2.
        all.embedding("model.decoder.embed_positions.weight", [context + 2, hidden]);
        for layer in 0..layers {
            let prefix = format!("model.decoder.layers.{layer}");
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                all.linear(&format!("{prefix}.self_attn.{name}"), hidden, hidden, true);
            }
            all.linear(&format!("{prefix}.fc1"), hidden, inner, true);
            all.linear(&format!("{prefix}.fc2"), inner, hidden, true);
            all.norm(&format!("{prefix}.self_attn_layer_norm"), hidden, true);
            all.norm(&format!("{prefix}.final_layer_norm"), hidden, true);
        }
        all.norm("model.decoder.final_layer_norm", hidden, true);
    }

    fn llama(self, all: &mut Tensors, biases: bool) {
        let Self { vocabulary, hidden, inner, layers, heads, kv_heads, .. } = self;
        let narrow = hidden / heads * kv_heads;
        all.embedding("model.embed_tokens.weight", [vocabulary, hidden]);
        for layer in 0..layers {
            let prefix = format!("model.layers.{layer}");
            for (name, to) in [("q_proj", hidden), ("k_proj", narrow), ("v_proj", narrow)] {
                all.linear(&format!("{prefix}.self_attn.{name}"), hidden, to, biases);
            }
            all.linear(&format!("{prefix}.self_attn.o_proj"), hidden, hidden, false);
            all.linear(&format!("{prefix}.mlp.gate_proj"), hidden, inner, false);
            all.linear(&format!("{prefix}.mlp.up_proj"), hidden, inner, false);
            all.linear(&format!("{prefix}.mlp.down_proj"), inner, hidden, false);
            all.norm(&format!("{prefix}.input_layernorm"), hidden, false);
            all.norm(&format!("{prefix}.post_attention_layernorm"), hidden, false);
        }
        all.norm("model.norm", hidden, false);
    }
}

struct Tensors(Vec<Named>);

impl Tensors {
    fn normal(&mut self, name: &str, shape: &[u64], inputs: u64) {
        // So that what comes out is as large as what goes in.
        let deviation = 1.0 / libm::sqrtf(inputs as f32);
        self.0.push((name.to_owned(), shape.to_vec(), Fill::Normal(deviation)));
    }

    /// Small beside what the layers add, so that an answer is more than the last token over and over.
    fn embedding(&mut self, name: &str, shape: [u64; 2]) {
        self.0.push((name.to_owned(), shape.to_vec(), Fill::Normal(0.02)));
    }

    fn bias(&mut self, name: &str, size: u64) {
        self.0.push((format!("{name}.bias"), vec![size], Fill::Normal(0.02)));
    }

    fn linear(&mut self, name: &str, from: u64, to: u64, bias: bool) {
        self.normal(&format!("{name}.weight"), &[to, from], from);
        if bias {
            self.bias(name, to);
        }
    }

    fn norm(&mut self, name: &str, size: u64, bias: bool) {
        self.0.push((format!("{name}.weight"), vec![size], Fill::Constant(1.0)));
        if bias {
            self.bias(name, size);
        }
    }
}
