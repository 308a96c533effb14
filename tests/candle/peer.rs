//! The models as the crate candle-transformers has them: answers that neither this project nor its own oracle wrote.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, qwen2};
use serde_json::{Value, json};

/// The logits behind the tokens at these positions, of the last one.
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

/// The most likely tokens behind a prompt, one after another, in 32 bits.
pub fn answer(folder: &Path, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut forward = open(folder).unwrap();
    let (mut tokens, mut position) = (Vec::new(), 0);
    let mut next = prompt.to_vec();
    while tokens.len() < count {
        let input = Tensor::new(next.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = forward(&input, position).unwrap();
        position += next.len();
        let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        tokens.push(best as u32);
        next = vec![best as u32];
    }
    tokens
}

fn open(folder: &Path) -> candle_core::Result<Forward> {
    let text = std::fs::read_to_string(folder.join("config.json"))?;
    let mut config: Value = serde_json::from_str(&text).map_err(candle_core::Error::wrap)?;
    let bytes = std::fs::read(folder.join("model.safetensors"))?;
    let weights = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)?;
    let read = candle_core::Error::wrap;
    match config["model_type"].as_str() {
        Some("llama") => {
            let config: llama::LlamaConfig = serde_json::from_value(config).map_err(read)?;
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu)?;
            let model = llama::Llama::load(weights, &config)?;
            Ok(Box::new(move |input, position| model.forward(input, position, &mut cache)))
        }
        Some("qwen2") => {
            for (name, value) in [
                ("sliding_window", json!(32768)),
                ("max_window_layers", json!(0)),
                ("use_sliding_window", json!(false)),
            ] {
                if config[name].is_null() {
                    config[name] = value;
                }
            }
            let config: qwen2::Config = serde_json::from_value(config).map_err(read)?;
            let mut model = qwen2::ModelForCausalLM::new(&config, weights)?;
            Ok(Box::new(move |input, position| model.forward(input, position)?.i((0, 0))))
        }
        other => candle_core::bail!("no such model here: {other:?}"),
    }
}
