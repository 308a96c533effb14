//! The header of a GGUF file: its metadata and the list of its tensors. Weights are not read here.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer; none of the format's keys needs more than 63 bits.
    Integer(i64),
    /// Any floating-point number.
    Float(f64),
    /// True or false.
    Flag(bool),
    /// A text.
    Text(String),
    /// Values of one type.
    List(Vec<Value>),
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the innermost first.
    pub dimensions: Vec<u64>,
    /// The number of its type in the format.
    pub kind: u32,
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    values: HashMap<String, Value>,
    /// Its tensors, in order.
    pub tensors: Vec<Tensor>,
}

/// Why a header can not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It starts otherwise.
    #[error("it does not start with `GGUF`, so it is no GGUF file")]
    Magic,
    /// Written by something too old or too new, or in the other byte order.
    #[error("it is of GGUF version {0}, and 2 and 3 are read")]
    Version(u32),
    /// It ends before it should.
    #[error("it is truncated: {0}")]
    Truncated(String),
    /// It contradicts itself.
    #[error("it is corrupt: {0}")]
    Corrupt(String),
}

/// Types of numbers: the format's number, the name, numbers in one block, bytes of one block.
const KINDS: [(u32, &str, u64, u64); 26] = [
    (0, "f32", 1, 4),
    (1, "f16", 1, 2),
    (2, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (8, "q8_0", 32, 34),
    (9, "q8_1", 32, 36),
    (10, "q2_k", 256, 84),
    (11, "q3_k", 256, 110),
    (12, "q4_k", 256, 144),
    (13, "q5_k", 256, 176),
    (14, "q6_k", 256, 210),
    (15, "q8_k", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (26, "i32", 1, 4),
    (29, "iq1_m", 256, 56),
    (30, "bf16", 1, 2),
];

impl Tensor {
    /// Numbers in it.
    pub fn count(&self) -> u64 {
        self.dimensions.iter().product()
    }

    /// The name of its type, such as `q4_1`.
    pub fn kind_name(&self) -> String {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        known.map_or_else(|| format!("type {}", self.kind), |(_, name, ..)| (*name).to_owned())
    }

    /// Bytes of it; `None` for an unknown type.
    pub fn bytes(&self) -> Option<u64> {
        let (_, _, block, bytes) = KINDS.iter().find(|(kind, ..)| *kind == self.kind)?;
        Some(self.count() / block * bytes)
    }
}

impl Header {
    /// Reads the header of a file, and holds the place of each tensor against the file's length.
    pub fn read(path: &Path) -> Result<Self, HeaderError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut reader = Reader { inner: BufReader::new(file), at: 0, length };
        let mut magic = [0; 4];
        if reader.bytes(&mut magic).is_err() || &magic != b"GGUF" {
            return Err(HeaderError::Magic);
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(HeaderError::Version(version));
        }
        let (tensor_count, value_count) = (reader.u64()?, reader.u64()?);
        let mut values = HashMap::new();
        for _ in 0..reader.count(value_count, 12)? {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0)?;
            values.insert(key, value);
        }
        let mut tensors = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..reader.count(tensor_count, 24)? {
            let name = reader.text()?;
            let rank = reader.u32()?;
            if rank > 8 {
                return Err(HeaderError::Corrupt(format!("tensor `{name}` has {rank} dimensions")));
            }
            let dimensions = (0..rank).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
            if dimensions.iter().try_fold(1_u64, |all, n| all.checked_mul(*n)).is_none() {
                return Err(HeaderError::Corrupt(format!("tensor `{name}` is larger than any memory")));
            }
            let (kind, offset) = (reader.u32()?, reader.u64()?);
            let tensor = Tensor { name, dimensions, kind };
            ends.push(offset.saturating_add(tensor.bytes().unwrap_or(0)));
            tensors.push(tensor);
        }
        let header = Self { values, tensors };
        let alignment = header.integer("general.alignment").filter(|n| *n > 0).unwrap_or(32).cast_unsigned();
        let data = reader.at.next_multiple_of(alignment);
        if let Some((end, tensor)) = ends.iter().zip(&header.tensors).max_by_key(|(end, _)| **end)
            && data.saturating_add(*end) > length
        {
            return Err(HeaderError::Truncated(format!(
                "tensor `{}` ends at byte {}, and the file has {length}",
                tensor.name,
                data.saturating_add(*end)
            )));
        }
        Ok(header)
    }

    /// A value by its key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// A whole number by its key.
    pub fn integer(&self, key: &str) -> Option<i64> {
        if let Value::Integer(number) = self.get(key)? { Some(*number) } else { None }
    }

    /// A text by its key.
    pub fn text(&self, key: &str) -> Option<&str> {
        if let Value::Text(text) = self.get(key)? { Some(text) } else { None }
    }

    /// A flag by its key.
    pub fn flag(&self, key: &str) -> Option<bool> {
        if let Value::Flag(flag) = self.get(key)? { Some(*flag) } else { None }
    }

    /// A list by its key.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        if let Value::List(list) = self.get(key)? { Some(list) } else { None }
    }

    /// The texts of a list by its key; `None` when one of them is no text.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        fn text(value: &Value) -> Option<&str> {
            if let Value::Text(text) = value { Some(text) } else { None }
        }
        self.list(key)?.iter().map(text).collect()
    }
}

/// Reads little-endian values and knows how much is left.
struct Reader<R> {
    inner: R,
    at: u64,
    length: u64,
}

impl<R: Read> Reader<R> {
    fn bytes(&mut self, buffer: &mut [u8]) -> Result<(), HeaderError> {
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                HeaderError::Truncated(format!("its header goes on behind its {} bytes", self.length))
            }
            _ => HeaderError::Io(error),
        })?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let mut buffer = [0; N];
        self.bytes(&mut buffer)?;
        Ok(buffer)
    }

    fn u32(&mut self) -> Result<u32, HeaderError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, HeaderError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things of at least `least` bytes each, as far as the file can hold them.
    fn count(&self, count: u64, least: u64) -> Result<u64, HeaderError> {
        if count.saturating_mul(least) > self.length.saturating_sub(self.at) {
            let message = format!("{count} entries do not fit behind byte {}", self.at);
            return Err(HeaderError::Truncated(message));
        }
        Ok(count)
    }

    fn text(&mut self) -> Result<String, HeaderError> {
        let length = self.u64()?;
        let mut buffer = vec![0; self.count(length, 1)? as usize];
        self.bytes(&mut buffer)?;
        String::from_utf8(buffer).map_err(|_| HeaderError::Corrupt(format!("no UTF-8 at byte {}", self.at)))
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, HeaderError> {
        Ok(match kind {
            0 => Value::Integer(i64::from(u8::from_le_bytes(self.array()?))),
            1 => Value::Integer(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Integer(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Integer(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Integer(i64::from(self.u32()?)),
            5 => Value::Integer(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Flag(self.array::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            9 if depth < 4 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let count = self.count(count, 1)?;
                Value::List((0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_, _>>()?)
            }
            10 | 11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(HeaderError::Corrupt(format!("a value of unknown type {other}"))),
        })
    }
}

/// Writes a file of metadata without tensors.
#[cfg(test)]
pub mod fixture {
    use super::Value;

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    fn kind(value: &Value) -> u32 {
        match value {
            Value::Integer(_) => 11,
            Value::Float(_) => 12,
            Value::Flag(_) => 7,
            Value::Text(_) => 8,
            Value::List(_) => 9,
        }
    }

    fn write(out: &mut Vec<u8>, value: &Value) {
        match value {
            Value::Integer(number) => out.extend(number.to_le_bytes()),
            Value::Float(number) => out.extend(number.to_le_bytes()),
            Value::Flag(flag) => out.push(u8::from(*flag)),
            Value::Text(value) => text(out, value),
            Value::List(list) => {
                out.extend(list.first().map_or(8, kind).to_le_bytes());
                out.extend((list.len() as u64).to_le_bytes());
                for value in list {
                    write(out, value);
                }
            }
        }
    }

    /// Its bytes.
    pub fn gguf(values: &[(&str, Value)]) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(0_u64.to_le_bytes());
        out.extend((values.len() as u64).to_le_bytes());
        for (key, value) in values {
            text(&mut out, key);
            out.extend(kind(value).to_le_bytes());
            write(&mut out, value);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Header, HeaderError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Header::read(file.path())
    }

    fn values() -> Vec<(&'static str, Value)> {
        vec![
            ("general.architecture", Value::Text("llama".into())),
            ("llama.block_count", Value::Integer(2)),
            ("flag", Value::Flag(true)),
            ("list", Value::List(vec![Value::Text("a".into()), Value::Text("b".into())])),
        ]
    }

    #[test]
    fn values_are_read_by_key_and_type() {
        let header = read(&fixture::gguf(&values())).unwrap();
        assert_eq!(header.text("general.architecture"), Some("llama"));
        assert_eq!(header.integer("llama.block_count"), Some(2));
        assert_eq!(header.flag("flag"), Some(true));
        assert_eq!(header.texts("list"), Some(vec!["a", "b"]));
        assert_eq!(header.text("llama.block_count"), None);
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = fixture::gguf(&values());
        for length in 0..whole.len() {
            let error = read(&whole[..length]).unwrap_err();
            let known = matches!(error, HeaderError::Magic | HeaderError::Truncated(_));
            assert!(known, "{length} bytes: {error}");
        }
    }

    #[test]
    fn absurd_counts_are_refused_before_memory_is_taken() {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(HeaderError::Truncated(_))));
        assert!(matches!(read(b"GGUF\x09\0\0\0"), Err(HeaderError::Version(9))));
    }
}
