//! Whether a measurement can be trusted, which is not whether it was fast.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Distribution, Samples, value_of};
use crate::backend::config::Clock;
use crate::gate::config::{Threat, ValidityRules};
use crate::metric::Metric;
use crate::units::ms;

/// Below so many requests a late p99 is one or two requests: it warns and decides nothing.
const LAG_SAMPLES: u64 = 100;

/// The verdict on the measurement itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// Whether nothing stands against it.
    pub valid: bool,
    /// What stands against it.
    pub reasons: Vec<Reason>,
    /// What is doubtful without deciding.
    pub warnings: Vec<Reason>,
}

/// One threat that struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Its name under `validity`, such as `lag`.
    pub name: String,
    /// What happened and what to do about it.
    pub text: String,
}

impl Default for Validity {
    fn default() -> Self {
        Self { valid: true, reasons: Vec::new(), warnings: Vec::new() }
    }
}

/// Judges the measurement of one cell.
///
/// `lag`: p99 of sent − due − `cap_wait` over all requests that were sent must not exceed 1 ms or 5 % of the median
/// TTFT, whichever is more. Below 100 requests it only warns; the virtual clock has none.
pub fn validity(clock: Clock, samples: &Samples, rules: &ValidityRules) -> Validity {
    let mut verdict = Validity::default();
    if clock == Clock::Virtual || rules.lag == Threat::Off {
        return verdict;
    }
    let Some((text, sent)) = lag(samples) else { return verdict };
    let reason = Reason { name: "lag".into(), text };
    if rules.lag == Threat::Fail && sent >= LAG_SAMPLES {
        verdict.valid = false;
        verdict.reasons.push(reason);
    } else {
        verdict.warnings.push(reason);
    }
    verdict
}

/// What to say when requests left late, and how many were sent.
fn lag(samples: &Samples) -> Option<(String, u64)> {
    let sent = samples.records().iter().filter_map(|record| {
        Some(ms(record.sent?.saturating_sub(record.due).saturating_sub(record.cap_wait)))
    });
    let lags = Distribution::of(sent.collect());
    let late = lags.quantile(0.99)?;
    let ttft = Metric::named("ttft")?;
    let ttfts =
        samples.records().iter().filter_map(|record| value_of(record, ttft, samples.basis())).collect();
    let median = Distribution::of(ttfts).quantile(0.5).unwrap_or(0.0);
    let limit = (0.05 * median).max(1.0);
    (late > limit).then(|| {
        let text = format!(
            "the client sent requests late: p99 of sent − due is {late:.3} ms, over the limit of {limit:.3} ms \
             (1 ms or 5 % of the median TTFT, n = {}); lower the load, or run the client on a quieter machine or with more cores",
            lags.count()
        );
        (text, lags.count())
    })
}
