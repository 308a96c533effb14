//! What a checkpoint says of its model, without reading a weight.

use std::collections::BTreeMap;

use serde_json::Value;

use super::gguf::Header;
use super::{Checkpoint, CheckpointError, safetensors};

/// The outline of a model.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Outline {
    /// The architecture, as the checkpoint names it: `gpt2`, `llama`.
    pub architecture: String,
    /// Transformer layers.
    pub layers: Option<u64>,
    /// Width of the residual stream.
    pub hidden: Option<u64>,
    /// Attention heads.
    pub heads: Option<u64>,
    /// Heads of keys and values.
    pub kv_heads: Option<u64>,
    /// The longest context, in tokens.
    pub context: Option<u64>,
    /// Rows of the embedding.
    pub vocabulary: Option<u64>,
    /// Parameters, as the weight files have them.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Types of the weights, and the parameters of each.
    pub dtypes: BTreeMap<String, u64>,
    /// The tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// The method that has packed the weights of a folder into integers, such as `gptq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantised: Option<String>,
}

impl Outline {
    /// Reads it, and with it whether the weight files are whole.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        if checkpoint.is_gguf() {
            let header = Header::read(&checkpoint.path)
                .map_err(|error| CheckpointError::file(&checkpoint.path, error))?;
            return Ok(Self::of_gguf(&header));
        }
        let path = checkpoint.path.join("config.json");
        let config: Value =
            std::fs::read(&path).map_err(|error| CheckpointError::file(&path, error)).and_then(|text| {
                serde_json::from_slice(&text).map_err(|error| CheckpointError::file(&path, error))
            })?;
        let generation = std::fs::read(checkpoint.path.join("generation_config.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or(Value::Null);
        let mut outline = Self::of_config(&config, &generation);
        for file in checkpoint.weights() {
            let tensors =
                safetensors::read(&file).map_err(|problem| CheckpointError::file(&file, problem))?;
            for tensor in tensors.values() {
                outline.add(&tensor.dtype.to_ascii_lowercase(), tensor.count(), tensor.bytes());
            }
        }
        Ok(outline)
    }

    fn add(&mut self, dtype: &str, count: u64, bytes: u64) {
        self.parameters += count;
        self.weight_bytes += bytes;
        *self.dtypes.entry(dtype.to_owned()).or_default() += count;
    }

    /// The names of a number in the families of configurations.
    fn of_config(config: &Value, generation: &Value) -> Self {
        // Models that also see or hear keep the numbers of their language model one level down.
        let inner = config.get("text_config").filter(|inner| inner.is_object()).unwrap_or(config);
        let number = |names: &[&str]| names.iter().find_map(|name| inner.get(name).and_then(Value::as_u64));
        let heads = number(&["num_attention_heads", "n_head"]);
        let ends = |from: &Value| -> Vec<u32> {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match from.get("eos_token_id") {
                Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
                Some(value) => id(value).into_iter().collect(),
                None => Vec::new(),
            }
        };
        let mut end_tokens = ends(generation);
        if end_tokens.is_empty() {
            end_tokens = ends(inner);
        }
        Self {
            architecture: config.get("model_type").and_then(Value::as_str).unwrap_or("unknown").to_owned(),
            layers: number(&["num_hidden_layers", "n_layer"]),
            hidden: number(&["hidden_size", "n_embd"]),
            heads,
            kv_heads: number(&["num_key_value_heads"]).or(heads),
            context: number(&["max_position_embeddings", "n_positions", "n_ctx"]),
            vocabulary: number(&["vocab_size"]),
            end_tokens,
            quantised: config["quantization_config"]["quant_method"].as_str().map(str::to_owned),
            ..Self::default()
        }
    }

    fn of_gguf(header: &Header) -> Self {
        let architecture = header.text("general.architecture").unwrap_or("unknown").to_owned();
        let number = |name: &str| {
            header.integer(&format!("{architecture}.{name}")).and_then(|number| u64::try_from(number).ok())
        };
        let heads = number("attention.head_count");
        let tokens = header.list("tokenizer.ggml.tokens").map(|tokens| tokens.len() as u64);
        let ends = ["eos_token_id", "eot_token_id", "eom_token_id"];
        let end = |name: &&str| header.integer(&format!("tokenizer.ggml.{name}"));
        let mut end_tokens: Vec<u32> =
            ends.iter().filter_map(end).filter_map(|id| u32::try_from(id).ok()).collect();
        end_tokens.dedup();
        let mut outline = Self {
            layers: number("block_count"),
            hidden: number("embedding_length"),
            heads,
            kv_heads: number("attention.head_count_kv").or(heads),
            context: number("context_length"),
            vocabulary: number("vocab_size").or(tokens),
            end_tokens,
            architecture,
            ..Self::default()
        };
        for tensor in &header.tensors {
            outline.add(&tensor.kind_name(), tensor.count(), tensor.bytes().unwrap_or(0));
        }
        outline
    }
}
