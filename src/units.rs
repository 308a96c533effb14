//! Quantities with units: how a person writes them and how the program keeps them.
//!
//! Inside, time is [`Ns`]: integer nanoseconds on a monotonic axis. What a scenario file says is one of the types
//! below; each knows its text form, its JSON Schema and its error message. A bare number where a unit is needed is
//! refused, and the message names the units.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Integer nanoseconds, a point on the run's time axis or a length of time.
pub type Ns = u64;

/// Nanoseconds in one microsecond.
pub const MICROSECOND: Ns = 1_000;
/// Nanoseconds in one millisecond.
pub const MILLISECOND: Ns = 1_000_000;
/// Nanoseconds in one second.
pub const SECOND: Ns = 1_000_000_000;
/// Bytes in one MiB.
pub const MIB: u64 = 1 << 20;

/// Milliseconds of a length of time.
pub fn ms(ns: Ns) -> f64 {
    ns as f64 / MILLISECOND as f64
}

/// Seconds of a length of time.
pub fn seconds(ns: Ns) -> f64 {
    ns as f64 / SECOND as f64
}

/// Nanoseconds of a number of seconds, rounded to the nearest; negative and NaN become 0.
pub fn from_seconds(seconds: f64) -> Ns {
    libm::round(seconds * SECOND as f64) as Ns
}

/// Why a text is no quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// Splits `12.5ms` into its number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let plain =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(|c: char| c.is_ascii_digit());
    let value: f64 = number.parse().ok().filter(|_| plain)?;
    Some((value, unit))
}

/// Writes a float without trailing zeros.
fn trim(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number for people: four significant digits, thousands with a comma, no trailing zeros, and its unit.
///
/// Digits before the point are never rounded away: `45.2 ms`, `1,285 ms`, `24,576 MiB`. The unit `%` takes a ratio: 0.02 is
/// `2%`. What is no finite number is `n/a`.
pub fn human(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    let value = if unit == "%" { value * 100.0 } else { value };
    let digits = if value == 0.0 { 0 } else { libm::floor(libm::log10(value.abs())) as i32 + 1 };
    // Nothing that is printed here needs more than twelve decimals.
    let decimals = (4 - digits).clamp(0, 12) as usize;
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if value < 0.0 && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
    let space = if unit.is_empty() || unit == "%" { "" } else { " " };
    format!("{sign}{grouped}{point}{fraction}{space}{unit}")
}

/// One quantity type: its text form, its serde form and its schema.
macro_rules! quantity {
    ($name:ident, pattern: $pattern:literal, description: $description:literal, examples: $examples:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "description": $description,
                    "examples": $examples,
                })
            }
        }
    };
}

/// A length of time: `250us`, `10ms`, `1.5s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub Ns);

quantity!(Duration, pattern: r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$",
    description: "A length of time with its unit: ns, us, ms, s, m or h.", examples: ["250us", "10ms", "1.5s", "2m"]);

impl FromStr for Duration {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let problem = || {
            UnitError(format!(
                "`{text}` is not a duration; write a number and a unit, such as 250us, 10ms, 1.5s or 2m"
            ))
        };
        let (value, unit) = split(text).ok_or_else(problem)?;
        let scale = match unit {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(problem()),
        };
        let ns = libm::round(value * scale);
        if ns > 9e18 {
            return Err(UnitError(format!("`{text}` is longer than 280 years")));
        }
        Ok(Self(ns as Ns))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        for (unit, scale) in [
            ("h", 3600 * SECOND),
            ("m", 60 * SECOND),
            ("s", SECOND),
            ("ms", MILLISECOND),
            ("us", MICROSECOND),
        ] {
            if ns >= scale && (ns.is_multiple_of(scale) || scale <= SECOND) {
                return write!(f, "{}{unit}", trim(ns as f64 / scale as f64));
            }
        }
        write!(f, "{ns}ns")
    }
}

/// Events per second, written `8/s` or `90/m`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(pub f64);

quantity!(Rate, pattern: r"^[0-9]+(\.[0-9]+)?/(s|m|h)$",
    description: "A rate: a number per second, minute or hour.", examples: ["8/s", "90/m"]);

impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let problem =
            || UnitError(format!("`{text}` is not a rate; write a number and a unit, such as 8/s or 90/m"));
        let (value, unit) = split(text).ok_or_else(problem)?;
        let per_second = match unit {
            "/s" => value,
            "/m" => value / 60.0,
            "/h" => value / 3600.0,
            _ => return Err(problem()),
        };
        if per_second > 1e9 {
            return Err(UnitError(format!("`{text}` is more than one per nanosecond")));
        }
        Ok(Self(per_second))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, scale) in [("s", 1.0), ("m", 60.0), ("h", 3600.0)] {
            let text = trim(self.0 * scale);
            if text.parse::<f64>().is_ok_and(|v| (v / scale).to_bits() == self.0.to_bits()) {
                return write!(f, "{text}/{unit}");
            }
        }
        write!(f, "{}/s", self.0)
    }
}

/// A number of bytes, written `512MiB`, `32GiB`, `64KiB`, `100B`, or with decimal units `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

quantity!(Size, pattern: r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$",
    description: "A number of bytes with its unit: B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000).",
    examples: ["512MiB", "32GiB"]);

impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let problem = || {
            UnitError(format!("`{text}` is not a size; write a number and a unit, such as 512MiB or 32GiB"))
        };
        let (value, unit) = split(text).ok_or_else(problem)?;
        let scale = match unit {
            "B" => 1.0,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            "TiB" => 1_099_511_627_776.0,
            "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "TB" => 1e12,
            _ => return Err(problem()),
        };
        let bytes = libm::round(value * scale);
        if bytes > 9e18 {
            return Err(UnitError(format!("`{text}` is larger than any memory")));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let scale = 1u64 << shift;
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A share between 0 and 1, written `5%` or `0.05`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Ratio(pub f64);

impl FromStr for Ratio {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let problem = || UnitError(format!("`{text}` is not a ratio; write 5% or 0.05"));
        let (value, unit) = split(text).ok_or_else(problem)?;
        let ratio = match unit {
            "%" => value / 100.0,
            "" => value,
            _ => return Err(problem()),
        };
        if ratio > 1.0 {
            let meant = if unit.is_empty() && value <= 100.0 {
                format!("; is {}% meant?", trim(value))
            } else {
                String::new()
            };
            return Err(UnitError(format!("`{text}` is more than 100%{meant}")));
        }
        Ok(Self(ratio))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", trim(self.0 * 100.0))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Ratio;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ratio such as 5% or 0.05")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Ratio, E> {
                if (0.0..=1.0).contains(&value) {
                    Ok(Ratio(value))
                } else {
                    Err(E::custom(format!(
                        "{value} is not between 0 and 1; a percentage is written {value}%"
                    )))
                }
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Ratio, E> {
                self.visit_f64(value as f64)
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Ratio, E> {
                self.visit_f64(value as f64)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ratio, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1,
            "pattern": r"^[0-9]+(\.[0-9]+)?%$",
            "description": "A share between 0 and 1, or a percentage.",
            "examples": ["5%", 0.05],
        })
    }
}

/// A number of tokens, at least 1 and at most 16,777,216.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenCount(pub u32);

impl TokenCount {
    /// The largest number of tokens that one request may have.
    pub const MAX: u32 = 1 << 24;
}

impl JsonSchema for TokenCount {
    fn schema_name() -> Cow<'static, str> {
        "TokenCount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": Self::MAX, "description": "A number of tokens, at least 1." })
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn numbers_for_people() {
        let cases = [
            (45.2, "ms", "45.2 ms"),
            (1285.0, "ms", "1,285 ms"),
            (92.4499, "ms", "92.45 ms"),
            (12_850.4, "ms", "12,850 ms"),
            (0.02, "%", "2%"),
            (0.031_234_5, "%", "3.123%"),
            (1.0, "%", "100%"),
            (24_576.0, "MiB", "24,576 MiB"),
            (134_217_728.0, "B", "134,217,728 B"),
            (4096.0, "tokens", "4,096 tokens"),
            (0.0, "", "0"),
            (999.96, "ms", "1,000 ms"),
            (0.000_123_46, "s", "0.0001235 s"),
            (-3.25, "", "-3.25"),
            (-1e-30, "", "0"),
            (100.0, "tok/s", "100 tok/s"),
            (f64::NAN, "ms", "n/a"),
            (f64::INFINITY, "ms", "n/a"),
        ];
        for (value, unit, expected) in cases {
            assert_eq!(human(value, unit), expected);
        }
    }
}
