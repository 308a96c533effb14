//! A judgement in one line, for people.

use super::judgement::{Judgement, Verdict};
use crate::units::human;

/// What was measured and what that means, such as `measured 92.4 ms (90% interval 88.1 to 97 ms, n = 300)`.
///
/// An inconclusive rule also says what a verdict would take, one without data why there is none. How the verdict was
/// found stands in [`Judgement::method`].
pub fn explain(judgement: &Judgement) -> String {
    let Some(value) = judgement.value else {
        let reason = judgement.reason.as_deref().unwrap_or("nothing was measured");
        return format!("no data: {reason}");
    };
    let unit = judgement.unit.as_str();
    let mut notes = Vec::new();
    if let (Some([low, high]), Some(level)) = (judgement.interval, judgement.interval_level) {
        // `%` belongs to the number; any other unit is said once.
        let low = human(low, if unit == "%" { unit } else { "" });
        notes.push(format!("{} interval {low} to {}", human(level, "%"), human(high, unit)));
    }
    notes.extend(judgement.samples.map(|n| format!("n = {n}")));
    notes.extend(judgement.effective_samples.map(|n| format!("effective {n}")));
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let reason = match &judgement.reason {
        Some(reason) if judgement.verdict == Verdict::Inconclusive => format!(": {reason}"),
        _ => String::new(),
    };
    format!("measured {}{notes}{reason}", human(value, unit))
}
