//! What one decoder is, among those that the core can be: read from `config.json`.

use std::path::Path;

use serde_json::Value;

use super::error::{Error, KNOWN};
use super::kernel::Activation;
use super::rope::Rope;

/// The parameters of the core.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the core")]
pub struct Spec {
    pub architecture: &'static str,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head: usize,
    pub inner: usize,
    pub vocabulary: usize,
    pub context: usize,
    /// `LayerNorm` with a bias; otherwise `RMSNorm`.
    pub layer_norm: bool,
    pub epsilon: f32,
    /// Gemma's weights are stored less one.
    pub norm_offset: f32,
    pub activation: Activation,
    /// The MLP has a gate.
    pub gated: bool,
    /// Learned positions, with what is added to a position before the table is looked up.
    pub learned: Option<usize>,
    /// Angles; a layer names its own by index.
    pub ropes: Vec<Rope>,
    /// Neighbouring numbers are turned together.
    pub interleaved: bool,
    /// One for each layer.
    pub attention: Vec<LayerAttention>,
    /// Norms of queries and keys, by head.
    pub qk_norm: bool,
    /// Norms of what attention and MLP add.
    pub post_norms: bool,
    pub embedding_scale: f32,
    pub query_scale: f32,
    /// Biases that must be there, of queries, keys and values, and of the other products.
    pub biases: (bool, bool),
    pub tied: bool,
}

/// How a layer attends.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerAttention {
    /// Positions that a row sees, itself among them.
    pub window: Option<usize>,
    /// The index of its angles.
    pub rope: usize,
}

/// `config.json`, with errors that name the field.
pub struct Config<'a> {
    pub path: &'a Path,
    pub value: &'a Value,
}

impl Config<'_> {
    pub fn error(&self, field: &str, reason: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_owned(), field: field.to_owned(), reason: reason.into() }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.value.get(field).filter(|v| !v.is_null())
    }

    fn count_or(&self, field: &str, default: usize) -> Result<usize, Error> {
        self.get(field).map_or(Ok(default), |v| {
            v.as_u64()
                .filter(|n| (1..=1 << 31).contains(n))
                .map(|n| n as usize)
                .ok_or_else(|| self.error(field, format!("is {v}, and must be a whole number from 1")))
        })
    }

    fn count(&self, field: &str) -> Result<usize, Error> {
        self.get(field).ok_or_else(|| self.error(field, "is missing"))?;
        self.count_or(field, 0)
    }

    fn number_or(&self, field: &str, default: f64) -> Result<f64, Error> {
        self.get(field).map_or(Ok(default), |v| {
            v.as_f64().ok_or_else(|| self.error(field, format!("is {v}, and must be a number")))
        })
    }

    fn flag_or(&self, field: &str, default: bool) -> Result<bool, Error> {
        self.get(field).map_or(Ok(default), |v| {
            v.as_bool().ok_or_else(|| self.error(field, format!("is {v}, and must be true or false")))
        })
    }

    fn activation(&self, field: &str, default: &str) -> Result<Activation, Error> {
        match self.get(field).map_or(Some(default), Value::as_str) {
            Some("relu") => Ok(Activation::Relu),
            Some("gelu") => Ok(Activation::Gelu),
            Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some("silu" | "swish") => Ok(Activation::Silu),
            _ => Err(self.error(field, "must be relu, gelu, gelu_new, gelu_pytorch_tanh or silu")),
        }
    }

    /// The list of layers that see a window, by `layer_types`.
    fn sliding(&self, layers: usize) -> Result<Option<Vec<bool>>, Error> {
        let Some(types) = self.get("layer_types") else { return Ok(None) };
        let list: Option<Vec<bool>> = types.as_array().and_then(|list| {
            list.iter()
                .map(|t| match t.as_str() {
                    Some("full_attention") => Some(false),
                    Some("sliding_attention") => Some(true),
                    _ => None,
                })
                .collect()
        });
        let list = list.filter(|l| l.len() == layers);
        list.map(Some).ok_or_else(|| {
            self.error(
                "layer_types",
                format!("must name full_attention or sliding_attention for {layers} layers"),
            )
        })
    }

    /// Angles from `rope_theta` and `rope_scaling`, or from `rope_parameters`, which newer files have (by kind of layer, or one).
    fn rope(
        &self,
        head: usize,
        kind: &str,
        theta_field: &str,
        theta: f64,
        scaled: bool,
    ) -> Result<Rope, Error> {
        let parameters = self.get("rope_parameters").map(|p| p.get(kind).unwrap_or(p));
        let theta = match parameters.and_then(|p| p.get("rope_theta")).and_then(Value::as_f64) {
            Some(theta) => theta,
            None => self.number_or(theta_field, theta)?,
        };
        let scaling = parameters.or_else(|| self.get("rope_scaling").filter(|_| scaled));
        Rope::new(head, theta, scaling).map_err(|reason| self.error("rope_scaling", reason))
    }
}

impl Spec {
    /// Reads `config.json`.
    pub fn read(config: &Config<'_>) -> Result<Self, Error> {
        let name = config.get("model_type").and_then(Value::as_str);
        let name = name.ok_or_else(|| config.error("model_type", "is missing"))?;
        let spec = match name {
            "gpt2" => gpt2(config),
            "opt" => opt(config),
            "llama" => rotary(config, "llama"),
            "mistral" => rotary(config, "mistral"),
            "qwen2" => rotary(config, "qwen2"),
            "qwen3" => rotary(config, "qwen3"),
            "gemma3_text" => gemma3(config),
            _ => Err(Error::Architecture { path: config.path.to_owned(), name: name.to_owned() }),
        }?;
        spec.check(config)
    }

    /// What the kernels rely on.
    pub fn check(self, config: &Config<'_>) -> Result<Self, Error> {
        debug_assert!(KNOWN.contains(&self.architecture));
        if !self.heads.is_multiple_of(self.kv_heads) {
            let reason = format!("is {}, and must divide the {} heads", self.kv_heads, self.heads);
            return Err(config.error("num_key_value_heads", reason));
        }
        if !self.head.is_multiple_of(8) || self.head == 0 {
            return Err(config.error("head_dim", format!("is {}, and must be a multiple of 8", self.head)));
        }
        Ok(self)
    }
}

fn gpt2(c: &Config<'_>) -> Result<Spec, Error> {
    let (hidden, heads, layers) = (c.count("n_embd")?, c.count("n_head")?, c.count("n_layer")?);
    if c.flag_or("scale_attn_by_inverse_layer_idx", false)? {
        return Err(c.error("scale_attn_by_inverse_layer_idx", "is true, which is not known here"));
    }
    let head = hidden / heads;
    let scaled = c.flag_or("scale_attn_weights", true)?;
    Ok(Spec {
        architecture: "gpt2",
        layers,
        hidden,
        heads,
        kv_heads: heads,
        head,
        inner: c.count_or("n_inner", 4 * hidden)?,
        vocabulary: c.count("vocab_size")?,
        context: c.count_or("n_positions", 1024)?,
        layer_norm: true,
        epsilon: c.number_or("layer_norm_epsilon", 1e-5)? as f32,
        norm_offset: 0.0,
        activation: c.activation("activation_function", "gelu_new")?,
        gated: false,
        learned: Some(0),
        ropes: Vec::new(),
        interleaved: false,
        attention: vec![LayerAttention::default(); layers],
        qk_norm: false,
        post_norms: false,
        embedding_scale: 1.0,
        query_scale: if scaled { 1.0 / (head as f32).sqrt() } else { 1.0 },
        biases: (true, true),
        tied: c.flag_or("tie_word_embeddings", true)?,
    })
}

fn opt(c: &Config<'_>) -> Result<Spec, Error> {
    let (hidden, heads, layers) =
        (c.count("hidden_size")?, c.count("num_attention_heads")?, c.count("num_hidden_layers")?);
    if !c.flag_or("do_layer_norm_before", true)? {
        return Err(c.error("do_layer_norm_before", "is false (as in opt-350m), which is not known here"));
    }
    if c.count_or("word_embed_proj_dim", hidden)? != hidden {
        return Err(c.error("word_embed_proj_dim", "differs from hidden_size, which is not known here"));
    }
    let head = hidden / heads;
    let bias = c.flag_or("enable_bias", true)?;
    Ok(Spec {
        architecture: "opt",
        layers,
        hidden,
        heads,
        kv_heads: heads,
        head,
        inner: c.count("ffn_dim")?,
        vocabulary: c.count("vocab_size")?,
        context: c.count_or("max_position_embeddings", 2048)?,
        layer_norm: true,
        epsilon: 1e-5,
        norm_offset: 0.0,
        activation: c.activation("activation_function", "relu")?,
        gated: false,
        learned: Some(2),
        ropes: Vec::new(),
        interleaved: false,
        attention: vec![LayerAttention::default(); layers],
        qk_norm: false,
        post_norms: false,
        embedding_scale: 1.0,
        query_scale: 1.0 / (head as f32).sqrt(),
        biases: (bias, bias),
        tied: c.flag_or("tie_word_embeddings", true)?,
    })
}

/// Llama, Mistral, Qwen2 and Qwen3.
fn rotary(c: &Config<'_>, architecture: &'static str) -> Result<Spec, Error> {
    let (hidden, heads, layers) =
        (c.count("hidden_size")?, c.count("num_attention_heads")?, c.count("num_hidden_layers")?);
    let qwen = architecture.starts_with("qwen");
    let head = c.count_or("head_dim", hidden / heads)?;
    // Mistral's window holds wherever it is given, Qwen's where it is switched on, Llama has none.
    let windowed = match architecture {
        "mistral" => true,
        "llama" => false,
        _ => c.flag_or("use_sliding_window", false)?,
    };
    let window =
        if windowed && c.get("sliding_window").is_some() { Some(c.count("sliding_window")?) } else { None };
    let from = if qwen { c.number_or("max_window_layers", 28.0)? as usize } else { 0 };
    let sliding = c.sliding(layers)?.unwrap_or_else(|| (0..layers).map(|l| l >= from).collect());
    let bias = c.flag_or("attention_bias", architecture == "qwen2")?;
    let theta = if architecture == "llama" || qwen || architecture == "mistral" { 10_000.0 } else { 0.0 };
    Ok(Spec {
        architecture,
        layers,
        hidden,
        heads,
        kv_heads: c.count_or("num_key_value_heads", heads)?,
        head,
        inner: c.count("intermediate_size")?,
        vocabulary: c.count("vocab_size")?,
        context: c.count_or("max_position_embeddings", 2048)?,
        layer_norm: false,
        epsilon: c.number_or("rms_norm_eps", 1e-6)? as f32,
        norm_offset: 0.0,
        activation: c.activation("hidden_act", "silu")?,
        gated: true,
        learned: None,
        ropes: vec![c.rope(head, "full_attention", "rope_theta", theta, true)?],
        interleaved: false,
        attention: sliding
            .iter()
            .map(|s| LayerAttention { window: window.filter(|_| *s), rope: 0 })
            .collect(),
        qk_norm: architecture == "qwen3",
        post_norms: false,
        embedding_scale: 1.0,
        query_scale: 1.0 / (head as f32).sqrt(),
        biases: (bias, false),
        tied: c.flag_or("tie_word_embeddings", false)?,
    })
}

fn gemma3(c: &Config<'_>) -> Result<Spec, Error> {
    for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if c.get(field).is_some() {
            return Err(c.error(field, "is set, which is not known here"));
        }
    }
    if c.flag_or("use_bidirectional_attention", false)? {
        return Err(c.error("use_bidirectional_attention", "is true: this is not a causal model"));
    }
    let (hidden, heads, layers) =
        (c.count("hidden_size")?, c.count("num_attention_heads")?, c.count("num_hidden_layers")?);
    let head = c.count_or("head_dim", 256)?;
    let window = c.count_or("sliding_window", 4096)?;
    let pattern = c.count_or("sliding_window_pattern", 6)?;
    let sliding =
        c.sliding(layers)?.unwrap_or_else(|| (0..layers).map(|l| !(l + 1).is_multiple_of(pattern)).collect());
    Ok(Spec {
        architecture: "gemma3",
        layers,
        hidden,
        heads,
        kv_heads: c.count_or("num_key_value_heads", heads)?,
        head,
        inner: c.count("intermediate_size")?,
        vocabulary: c.count("vocab_size")?,
        context: c.count_or("max_position_embeddings", 131_072)?,
        layer_norm: false,
        epsilon: c.number_or("rms_norm_eps", 1e-6)? as f32,
        norm_offset: 1.0,
        activation: c.activation("hidden_activation", "gelu_pytorch_tanh")?,
        gated: true,
        learned: None,
        ropes: vec![
            c.rope(head, "full_attention", "rope_theta", 1_000_000.0, true)?,
            c.rope(head, "sliding_attention", "rope_local_base_freq", 10_000.0, false)?,
        ],
        interleaved: false,
        attention: sliding
            .iter()
            .map(|s| LayerAttention { window: s.then_some(window), rope: usize::from(*s) })
            .collect(),
        qk_norm: true,
        post_norms: true,
        embedding_scale: (hidden as f32).sqrt(),
        query_scale: 1.0 / (c.number_or("query_pre_attn_scalar", 256.0)? as f32).sqrt(),
        biases: (c.flag_or("attention_bias", false)?, false),
        tied: c.flag_or("tie_word_embeddings", true)?,
    })
}
