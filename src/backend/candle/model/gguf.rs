//! GGUF files: what their metadata says about the model, in terms of the core.

use std::collections::HashMap;
use std::path::Path;

use candle_core::quantized::gguf_file::Value;
use serde_json::json;

use super::Dtype;
use super::error::Error;
use super::load::{GGUF, GGUF_FUSED, Loader, Weights};
use super::source::Source;
use super::spec::{Config, Spec};

struct Metadata<'a> {
    path: &'a Path,
    values: &'a HashMap<String, Value>,
    architecture: &'a str,
}

impl Metadata<'_> {
    fn error(&self, field: &str, reason: &str) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            field: format!("{}.{field}", self.architecture),
            reason: reason.to_owned(),
        }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.values.get(&format!("{}.{field}", self.architecture))
    }

    fn count(&self, field: &str) -> Result<Option<u64>, Error> {
        self.get(field)
            .map(|v| match v {
                Value::U8(n) => Ok(u64::from(*n)),
                Value::U16(n) => Ok(u64::from(*n)),
                Value::U32(n) => Ok(u64::from(*n)),
                Value::U64(n) => Ok(*n),
                Value::I32(n) if *n >= 0 => Ok(u64::from(n.unsigned_abs())),
                Value::I64(n) if *n >= 0 => Ok(n.unsigned_abs()),
                _ => Err(self.error(field, "must be a whole number, the same for all layers")),
            })
            .transpose()
    }

    fn needed(&self, field: &str) -> Result<u64, Error> {
        self.count(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    fn number(&self, field: &str) -> Option<f64> {
        match self.get(field)? {
            Value::F32(x) => Some(f64::from(*x)),
            Value::F64(x) => Some(*x),
            _ => None,
        }
    }

    fn word(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(|v| v.to_string().ok()).map(String::as_str)
    }
}

/// Opens a GGUF file.
pub fn open(path: &Path, dtype: Dtype) -> Result<(Spec, Weights), Error> {
    let (source, values) = Source::gguf(path, dtype)?;
    let field = |reason: &str| Error::Config {
        path: path.to_owned(),
        field: "general.architecture".to_owned(),
        reason: reason.to_owned(),
    };
    let name = values.get("general.architecture").ok_or_else(|| field("is missing"))?;
    let name = name.to_string().map_err(|_| field("must be a string"))?;
    let metadata = Metadata { path, values: &values, architecture: name };
    let mut spec = read(&metadata, &source)?;
    // The norms of GGUF have Gemma's one added, and Llama's queries and keys are stored for neighbouring pairs.
    spec.norm_offset = 0.0;
    spec.interleaved = name == "llama";
    spec.tied = !source.has("output.weight");
    if let Some([n]) = source.dims("rope_freqs.weight") {
        let factors = source.vector("rope_freqs.weight", *n)?;
        spec.ropes.iter_mut().take(1).for_each(|rope| rope.divide(&factors));
    }
    let names = if source.has("blk.0.attn_qkv.weight") { GGUF_FUSED } else { GGUF };
    let weights = Loader { source: &source, spec: &spec, names, prefix: "" }.weights()?;
    Ok((spec, weights))
}

/// The metadata in the words of `config.json`, so that both have one reader.
fn read(m: &Metadata<'_>, source: &Source) -> Result<Spec, Error> {
    let vocabulary = source.dims("token_embd.weight").map_or(0, |dims| dims[0]);
    if vocabulary == 0 {
        return Err(Error::Missing { path: m.path.to_owned(), name: "token_embd.weight".to_owned() });
    }
    let (hidden, heads) = (m.needed("embedding_length")?, m.needed("attention.head_count")?);
    let layers = m.needed("block_count")?;
    let inner = m.needed("feed_forward_length")?;
    let context = m.needed("context_length")?;
    let head = m.count("attention.key_length")?;
    let scaling = match (m.word("rope.scaling.type"), m.number("rope.scaling.factor")) {
        (None | Some("none"), _) => json!(null),
        (Some(kind), factor) => json!({ "rope_type": kind, "factor": factor }),
    };
    let epsilon = m.number("attention.layer_norm_rms_epsilon").or(m.number("attention.layer_norm_epsilon"));
    let value = if m.architecture == "gpt2" {
        json!({
            "model_type": "gpt2", "n_embd": hidden, "n_head": heads, "n_layer": layers, "n_inner": inner,
            "n_positions": context, "vocab_size": vocabulary, "layer_norm_epsilon": epsilon,
        })
    } else {
        let gemma = m.architecture == "gemma3";
        json!({
            "model_type": if gemma { "gemma3_text" } else { m.architecture },
            "hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers,
            "intermediate_size": inner, "max_position_embeddings": context, "vocab_size": vocabulary,
            "num_key_value_heads": m.count("attention.head_count_kv")?, "head_dim": head,
            "rms_norm_eps": epsilon, "rope_theta": m.number("rope.freq_base"), "rope_scaling": scaling,
            "sliding_window": m.count("attention.sliding_window")?,
            "query_pre_attn_scalar": head,
        })
    };
    Spec::read(&Config { path: m.path, value: &value })
}
