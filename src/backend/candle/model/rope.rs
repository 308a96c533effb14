//! Angles of rotary positions (Su et al., 2021), with the scalings of released checkpoints.

use serde_json::Value;

/// Frequencies, and the cosines and sines of all positions that were asked for so far.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// `theta^(-2i/head)`, changed by `scaling` as `rope_scaling` of `config.json` has it. The error says what is wrong with it.
    pub fn new(head: usize, theta: f64, scaling: Option<&Value>) -> Result<Self, String> {
        let mut frequencies: Vec<f32> = (0..head / 2)
            .map(|i| (1.0 / libm::powf(theta as f32, (2 * i) as f32 / head as f32)) as f32)
            .collect();
        let name =
            |s: &Value| ["rope_type", "type"].iter().find_map(|n| Some(s.get(n)?.as_str()?.to_owned()));
        if let Some(scaling) = scaling {
            let number = |field: &str| {
                scaling
                    .get(field)
                    .and_then(Value::as_f64)
                    .ok_or_else(|| format!("lacks the number `{field}`"))
            };
            match name(scaling).as_deref() {
                None | Some("default") => {}
                Some("linear") => {
                    let factor = number("factor")? as f32;
                    for f in &mut frequencies {
                        *f /= factor;
                    }
                }
                Some("llama3") => {
                    let original = number("original_max_position_embeddings")?;
                    let (factor, low, high) =
                        (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
                    for f in &mut frequencies {
                        *f = llama3(f64::from(*f), factor, low, high, original) as f32;
                    }
                }
                Some(other) => {
                    return Err(format!("has the type `{other}`; known are default, linear, llama3"));
                }
            }
        }
        Ok(Self { frequencies, cos: Vec::new(), sin: Vec::new() })
    }

    /// Frequencies over factors, as GGUF stores scalings.
    pub fn divide(&mut self, factors: &[f32]) {
        self.frequencies.iter_mut().zip(factors).for_each(|(f, by)| *f /= by);
    }

    /// Makes sure that positions below `end` can be looked up.
    pub fn reach(&mut self, end: usize) {
        let n = self.frequencies.len();
        for position in self.cos.len() / n..end {
            for f in &self.frequencies {
                // The angle is rounded to f32, as the models were trained with.
                let angle = f64::from(position as f32 * f);
                self.cos.push(libm::cos(angle) as f32);
                self.sin.push(libm::sin(angle) as f32);
            }
        }
    }

    /// Cosines and sines of a position that [`Self::reach`] has seen.
    pub fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let n = self.frequencies.len();
        (&self.cos[position * n..(position + 1) * n], &self.sin[position * n..(position + 1) * n])
    }
}

/// Long waves are stretched by `factor`, short ones stay, those between are blended.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wave = std::f64::consts::TAU / frequency;
    if wave < original / high {
        frequency
    } else if wave > original / low {
        frequency / factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
