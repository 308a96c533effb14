//! From a file's tensors to the core's weights.

use super::error::Error;
use super::kernel::{Matrix, Norm};
use super::source::Source;
use super::spec::Spec;

/// A product with a bias.
pub struct Linear {
    pub matrix: Matrix,
    pub bias: Option<Vec<f32>>,
}

/// One decoder layer.
pub struct Layer {
    pub attention_norm: Norm,
    pub queries: Linear,
    pub keys: Linear,
    pub values: Linear,
    pub output: Linear,
    /// Norms of queries and of keys, by head.
    pub head_norms: Option<(Norm, Norm)>,
    pub post_attention_norm: Option<Norm>,
    pub mlp_norm: Norm,
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub post_mlp_norm: Option<Norm>,
}

/// All weights.
pub struct Weights {
    pub embedding: Matrix,
    pub positions: Option<Matrix>,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    /// `None`: the embedding is the head.
    pub head: Option<Matrix>,
}

/// What a file calls its tensors; those of a layer follow its prefix.
pub struct Names {
    pub embedding: &'static str,
    pub positions: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
    pub layer: &'static str,
    pub attention_norm: &'static str,
    /// Queries, keys and values, or one name for all three.
    pub qkv: &'static [&'static str],
    pub output: &'static str,
    pub head_norms: (&'static str, &'static str),
    pub post_attention_norm: &'static str,
    pub mlp_norm: &'static str,
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    pub post_mlp_norm: &'static str,
    /// Layers' matrices are stored `[inputs, outputs]`.
    pub transposed: bool,
}

const GPT2: Names = Names {
    embedding: "wte",
    positions: "wpe",
    norm: "ln_f",
    head: "lm_head",
    layer: "h.",
    attention_norm: "ln_1",
    qkv: &["attn.c_attn"],
    output: "attn.c_proj",
    head_norms: ("", ""),
    post_attention_norm: "",
    mlp_norm: "ln_2",
    gate: "",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    post_mlp_norm: "",
    transposed: true,
};

const OPT: Names = Names {
    embedding: "embed_tokens",
    positions: "embed_positions",
    norm: "final_layer_norm",
    layer: "layers.",
    attention_norm: "self_attn_layer_norm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.out_proj",
    mlp_norm: "final_layer_norm",
    up: "fc1",
    down: "fc2",
    transposed: false,
    ..GPT2
};

const LLAMA: Names = Names {
    positions: "",
    norm: "norm",
    attention_norm: "input_layernorm",
    output: "self_attn.o_proj",
    head_norms: ("self_attn.q_norm", "self_attn.k_norm"),
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    ..OPT
};

const GEMMA3: Names = Names {
    post_attention_norm: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    post_mlp_norm: "post_feedforward_layernorm",
    ..LLAMA
};

/// GGUF's, the same for all architectures.
pub const GGUF: Names = Names {
    embedding: "token_embd",
    positions: "position_embd",
    norm: "output_norm",
    head: "output",
    layer: "blk.",
    attention_norm: "attn_norm",
    qkv: &["attn_q", "attn_k", "attn_v"],
    output: "attn_output",
    head_norms: ("attn_q_norm", "attn_k_norm"),
    post_attention_norm: "post_attention_norm",
    mlp_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    post_mlp_norm: "post_ffw_norm",
    transposed: false,
};

/// GGUF's for GPT-2.
pub const GGUF_FUSED: Names = Names { qkv: &["attn_qkv"], ..GGUF };

/// The names of safetensors, and the prefixes that go before them.
pub fn names(architecture: &str) -> (Names, &'static [&'static str]) {
    match architecture {
        "gpt2" => (GPT2, &["transformer.", ""]),
        "opt" => (OPT, &["model.decoder.", "decoder."]),
        "gemma3" => (GEMMA3, &["model.", ""]),
        _ => (LLAMA, &["model.", ""]),
    }
}

/// Reads tensors by the names of one file.
pub struct Loader<'a> {
    pub source: &'a Source,
    pub spec: &'a Spec,
    pub names: Names,
    pub prefix: &'static str,
}

impl Loader<'_> {
    fn norm(&self, name: &str, len: usize) -> Result<Norm, Error> {
        let epsilon = self.spec.epsilon;
        let mut weight = self.source.vector(&format!("{name}.weight"), len)?;
        if self.spec.layer_norm {
            let bias = self.source.vector(&format!("{name}.bias"), len)?;
            return Ok(Norm::Layer { weight, bias, epsilon });
        }
        for w in &mut weight {
            *w += self.spec.norm_offset;
        }
        Ok(Norm::Rms { weight, epsilon })
    }

    /// The outputs `part` of a product of `rows` outputs.
    fn part(
        &self,
        name: &str,
        (rows, cols): (usize, usize),
        part: std::ops::Range<usize>,
        needs_bias: bool,
    ) -> Result<Linear, Error> {
        let bias = format!("{name}.bias");
        let bias = if needs_bias || self.source.has(&bias) {
            Some(self.source.vector(&bias, rows)?[part.clone()].to_vec())
        } else {
            None
        };
        let matrix =
            self.source.matrix(&format!("{name}.weight"), rows, cols, part, self.names.transposed)?;
        Ok(Linear { matrix, bias })
    }

    fn linear(&self, name: &str, rows: usize, cols: usize, needs_bias: bool) -> Result<Linear, Error> {
        self.part(name, (rows, cols), 0..rows, needs_bias)
    }

    fn layer(&self, index: usize) -> Result<Layer, Error> {
        let (s, n) = (self.spec, &self.names);
        let at = |name: &str| format!("{}{}{index}.{name}", self.prefix, n.layer);
        let (q, kv) = (s.heads * s.head, s.kv_heads * s.head);
        let qkv = |from: usize, len: usize, which: usize| {
            if let [one] = n.qkv {
                self.part(&at(one), (q + 2 * kv, s.hidden), from..from + len, s.biases.0)
            } else {
                self.linear(&at(n.qkv[which]), len, s.hidden, s.biases.0)
            }
        };
        let optional = |wanted: bool, name: &str| wanted.then(|| self.norm(&at(name), s.hidden)).transpose();
        let head_norms = if s.qk_norm {
            Some((self.norm(&at(n.head_norms.0), s.head)?, self.norm(&at(n.head_norms.1), s.head)?))
        } else {
            None
        };
        Ok(Layer {
            attention_norm: self.norm(&at(n.attention_norm), s.hidden)?,
            queries: qkv(0, q, 0)?,
            keys: qkv(q, kv, 1)?,
            values: qkv(q + kv, kv, 2)?,
            output: self.linear(&at(n.output), s.hidden, q, s.biases.1)?,
            head_norms,
            post_attention_norm: optional(s.post_norms, n.post_attention_norm)?,
            mlp_norm: self.norm(&at(n.mlp_norm), s.hidden)?,
            gate: s.gated.then(|| self.linear(&at(n.gate), s.inner, s.hidden, s.biases.1)).transpose()?,
            up: self.linear(&at(n.up), s.inner, s.hidden, s.biases.1)?,
            down: self.linear(&at(n.down), s.hidden, s.inner, s.biases.1)?,
            post_mlp_norm: optional(s.post_norms, n.post_mlp_norm)?,
        })
    }

    /// Everything.
    pub fn weights(&self) -> Result<Weights, Error> {
        let (s, n) = (self.spec, &self.names);
        let at = |name: &str| format!("{}{name}", self.prefix);
        let plain = |name: &str, rows: usize| {
            self.source.matrix(&format!("{name}.weight"), rows, s.hidden, 0..rows, false)
        };
        Ok(Weights {
            embedding: plain(&at(n.embedding), s.vocabulary)?,
            positions: s.learned.map(|offset| plain(&at(n.positions), s.context + offset)).transpose()?,
            layers: (0..s.layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?,
            norm: self.norm(&at(n.norm), s.hidden)?,
            head: if s.tied { None } else { Some(plain(n.head, s.vocabulary)?) },
        })
    }
}
