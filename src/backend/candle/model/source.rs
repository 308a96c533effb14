//! Weights as files hold them: names, shapes and bytes, read through the page cache.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor, gguf_file};
use safetensors::SafeTensors;

use super::Dtype;
use super::error::Error;
use super::kernel::{Bytes, GROUP, Kind, Mapped, Matrix, widen};

/// A tensor in a file. Floats of safetensors carry the names that ggml has for them.
struct Tensor {
    file: Arc<Mapped>,
    range: Range<usize>,
    kind: GgmlDType,
    shape: Vec<usize>,
}

/// All tensors of a model.
pub struct Source {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
    /// What matrices become; see [`Dtype`].
    pub dtype: Dtype,
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Read { path, error }
}

fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Corrupt { path: path.to_owned(), reason: reason.to_string() }
}

/// The kernels' name of a stored kind, if they have it.
fn native(kind: GgmlDType) -> Option<Kind> {
    [Kind::F32, Kind::F16, Kind::Bf16, Kind::Q8_0, Kind::Q4_0, Kind::Q4_1, Kind::Q4K, Kind::Q6K]
        .into_iter()
        .find(|k| k.ggml() == kind)
}

impl Source {
    /// The `.safetensors` files of a folder: one, or those that the index names.
    pub fn folder(path: &Path, dtype: Dtype) -> Result<Self, Error> {
        let index = path.join("model.safetensors.index.json");
        let files: Vec<PathBuf> = if index.exists() {
            let text = fs::read_to_string(&index).map_err(read_error(&index))?;
            let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| corrupt(&index, e))?;
            let map =
                value["weight_map"].as_object().ok_or_else(|| corrupt(&index, "it has no `weight_map`"))?;
            let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            names.into_iter().map(|name| path.join(name)).collect()
        } else {
            let mut found = Vec::new();
            let mut pickled = false;
            for entry in fs::read_dir(path).map_err(read_error(path))? {
                let entry = entry.map_err(read_error(path))?.path();
                pickled |= entry.extension().is_some_and(|e| e == "bin");
                if entry.extension().is_some_and(|e| e == "safetensors") {
                    found.push(entry);
                }
            }
            if found.is_empty() {
                return Err(Error::NotAModel { path: path.to_owned(), pickled });
            }
            found.sort();
            found
        };
        let mut tensors = HashMap::new();
        for file in files {
            let mapped = Arc::new(Mapped::open(&file).map_err(read_error(&file))?);
            let (header, metadata) =
                SafeTensors::read_metadata(mapped.bytes()).map_err(|e| corrupt(&file, e))?;
            for (name, found) in metadata.tensors() {
                let kind = match found.dtype {
                    safetensors::Dtype::F32 => GgmlDType::F32,
                    safetensors::Dtype::F16 => GgmlDType::F16,
                    safetensors::Dtype::BF16 => GgmlDType::BF16,
                    // Masks and position ids that old checkpoints carry; weights of such a type are missing then.
                    _ => continue,
                };
                // After the length and the header.
                let (start, end) = found.data_offsets;
                let range = header + 8 + start..header + 8 + end;
                let tensor = Tensor { file: Arc::clone(&mapped), range, kind, shape: found.shape.clone() };
                tensors.insert(name, tensor);
            }
        }
        Ok(Self { path: path.to_owned(), tensors, dtype })
    }

    /// One GGUF file, and what it says about the model.
    pub fn gguf(path: &Path, dtype: Dtype) -> Result<(Self, HashMap<String, gguf_file::Value>), Error> {
        let mapped = Arc::new(Mapped::open(path).map_err(read_error(path))?);
        let content =
            gguf_file::Content::read(&mut Cursor::new(mapped.bytes())).map_err(|e| corrupt(path, e))?;
        let mut tensors = HashMap::new();
        for (name, found) in content.tensor_infos {
            let shape = found.shape.dims().to_vec();
            let kind = found.ggml_dtype;
            let bytes = shape
                .iter()
                .try_fold(1_usize, |n, d| n.checked_mul(*d))
                .and_then(|n| (n / kind.block_size()).checked_mul(kind.type_size()));
            let start =
                content.tensor_data_offset.checked_add(found.offset).and_then(|s| usize::try_from(s).ok());
            let range = start.zip(bytes).and_then(|(s, n)| Some(s..s.checked_add(n)?));
            let Some(range) = range.filter(|r| r.end <= mapped.bytes().len()) else {
                let size = mapped.bytes().len();
                return Err(corrupt(path, format!("the tensor `{name}` reaches beyond its {size} bytes")));
            };
            tensors.insert(name, Tensor { file: Arc::clone(&mapped), range, kind, shape });
        }
        Ok((Self { path: path.to_owned(), tensors, dtype }, content.metadata))
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's shape, if it is there.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&Tensor, Error> {
        let missing = || Error::Missing { path: self.path.clone(), name: name.to_owned() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        if tensor.shape != expected {
            return Err(Error::Dimensions {
                path: self.path.clone(),
                name: name.to_owned(),
                found: tensor.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// All numbers of a tensor.
    fn numbers(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>, Error> {
        let bytes = &tensor.file.bytes()[tensor.range.clone()];
        let count: usize = tensor.shape.iter().product();
        if let Some(kind) = native(tensor.kind) {
            let mut out = vec![0.0; count];
            widen(kind, bytes, &mut out);
            return Ok(out);
        }
        let unknown = |_| Error::Quantisation {
            path: self.path.clone(),
            name: name.to_owned(),
            kind: format!("{:?}", tensor.kind),
        };
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, tensor.kind).map_err(unknown)?;
        QTensor::new(storage, count)
            .and_then(|t| t.dequantize(&Device::Cpu))
            .and_then(|t| t.to_vec1())
            .map_err(unknown)
    }

    /// A vector of `len` numbers.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.numbers(name, self.tensor(name, &[len])?)
    }

    /// The rows `rows` of a matrix of `all` rows and `cols` columns, in the wanted format; `transposed` when the file holds
    /// `[cols, all]`.
    pub fn matrix(
        &self,
        name: &str,
        all: usize,
        cols: usize,
        rows: Range<usize>,
        transposed: bool,
    ) -> Result<Matrix, Error> {
        let tensor = self.tensor(name, &if transposed { [cols, all] } else { [all, cols] })?;
        let stored = native(tensor.kind);
        let wanted = match (self.dtype, stored) {
            (Dtype::Auto, Some(kind)) => kind,
            (Dtype::F32, _) => Kind::F32,
            (Dtype::Bf16, _) => Kind::Bf16,
            _ => Kind::Q8_0,
        };
        // Rows that are not whole blocks stay floats.
        let wanted =
            if wanted.quantised() && !cols.is_multiple_of(wanted.block()) { Kind::F32 } else { wanted };
        let count = rows.len();
        let broken = || corrupt(&self.path, format!("the tensor `{name}` has another size than its shape"));
        if stored == Some(wanted) && !transposed {
            let size = cols / wanted.block() * wanted.size();
            let range = tensor.range.start + rows.start * size..tensor.range.start + rows.end * size;
            if range.end > tensor.range.end {
                return Err(broken());
            }
            let bytes = Bytes::Mapped(Arc::clone(&tensor.file), range);
            return Matrix::new(wanted, count, cols, bytes).ok_or_else(broken);
        }
        let numbers = self.numbers(name, tensor)?;
        let mut bytes = Vec::with_capacity(count * cols / wanted.block() * wanted.size());
        let mut row = vec![0.0; cols];
        for r in rows {
            if transposed {
                row.iter_mut().enumerate().for_each(|(c, x)| *x = numbers[c * all + r]);
            } else {
                row.copy_from_slice(&numbers[r * cols..][..cols]);
            }
            if tensor.kind == GgmlDType::Q5_0 && wanted == Kind::Q8_0 {
                let size = cols / GROUP * 22;
                five_bits(&tensor.file.bytes()[tensor.range.start + r * size..][..size], &mut bytes);
            } else {
                encode(wanted, &row, &mut bytes);
            }
        }
        tensor.file.forget(tensor.range.clone());
        Matrix::new(wanted, count, cols, Bytes::Owned(Arc::new(bytes))).ok_or_else(broken)
    }
}

/// `Q5_0` as `Q8_0`: the same scale and the same integers, so nothing is lost.
fn five_bits(blocks: &[u8], out: &mut Vec<u8>) {
    for block in blocks.chunks_exact(22) {
        out.extend_from_slice(&block[..2]);
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for i in 0..GROUP {
            let nibble = if i < 16 { block[6 + i] & 15 } else { block[6 + i - 16] >> 4 };
            let five = nibble | ((high >> i & 1) as u8) << 4;
            out.push(five.wrapping_sub(16));
        }
    }
}

/// Appends numbers in `kind`, which is f32, bf16 (to nearest, ties to even) or `Q8_0`.
fn encode(kind: Kind, numbers: &[f32], out: &mut Vec<u8>) {
    match kind {
        Kind::F32 => out.extend(numbers.iter().flat_map(|x| x.to_le_bytes())),
        Kind::F16 => out.extend(numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes())),
        Kind::Bf16 => out.extend(numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())),
        _ => {
            for numbers in numbers.as_chunks::<GROUP>().0 {
                let scale = numbers.iter().fold(0.0_f32, |m, x| m.max(x.abs())) / 127.0;
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                out.extend_from_slice(&half::f16::from_f32(scale).to_le_bytes());
                out.extend(numbers.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
            }
        }
    }
}
